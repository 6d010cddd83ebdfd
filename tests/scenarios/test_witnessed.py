"""The journal and three insurers' witnesses as processes: by push, pull and paper; rewritten, cut, altered (T-09)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.scenarios.platform import ROOT, free_ports, until

from schleuse.config import Config, read_config
from schleuse.environment import Environment
from schleuse.identifiers import IK
from schleuse.journal.checkpoint import parse_checkpoint
from schleuse.journal.client import JournalClient
from schleuse.journal.contracts import Level, LevelTimeoutError
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.log import LogConfig
from schleuse.journal.note import Note, parse_note
from schleuse.journal.policy import parse_policy
from schleuse.journal.recovery import open_journal
from schleuse.journal.store import Settings
from schleuse.processes.home import NewHome, NewInsurer, create_home
from schleuse.processes.journal_keys import log_signer, now_us, origin_of, policy_file
from schleuse.witness.remote import HttpRemote, RemoteLog

pytestmark = pytest.mark.slow

IKS = ("109900011", "109900022", "109900033")
INSURERS = [NewInsurer(IK(ik), f"Kasse {ik}", f"kasse-{ik[-2:]}") for ik in IKS]


def entry() -> bytes:
    event = Entry(Kind.WRITE, Result.GRANTED, Purpose.OPERATION, datetime.now(UTC), uuid4())
    return event.encode()


class Parties:
    """A journal and the witnesses of three insurers, each a process of its own."""

    def __init__(self, home: Path) -> None:
        first = free_ports(17)
        new = NewHome(Environment.TEST, "kim.test.kim.telematik-test", INSURERS, [], first_port=first)
        create_home(home, new, datetime.now(UTC))
        change(home / "schleuse.toml", "[journal]", "[journal]\nspare_segments = 3\npublish_seconds = 0.1")
        for folder in read_config(home).witnesses:
            change(folder / "witness.toml", "pull_seconds = 60", "pull_seconds = 0.3")
            change(folder / "witness.toml", "every_seconds = 30", "every_seconds = 0.3")
        self.home = home
        self.config: Config = read_config(home)
        self.year = datetime.now(UTC).year
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def origin(self, ik: str) -> str:
        return origin_of(self.config.hostname, ik, self.year)

    def url(self, ik: str) -> str:
        return f"http://{self.config.journal.http}/{ik}/{self.year}"

    def witness(self, ik: str) -> Path:
        return self.home / "insurers" / ik / "witness"

    def policy(self, ik: str) -> Path:
        return self.witness(ik) / f"policy-{self.year}"

    def start(self, *names: str) -> None:
        """names: "journal", "vault" and IKs."""
        ours = {"journal": self.config.journal.metrics, "vault": self.config.vault.metrics}
        for name in names:
            arguments = ("run", name, "--home", self.home) if name in ours else self.role(name)
            with (self.home / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    command(*arguments), env=environment(), stdout=log, stderr=log, start_new_session=True
                )
        for name in names:
            listen = ours.get(name) or self.metrics(name)
            until(lambda name=name, listen=listen: self.is_up(name, listen), f"{name}\n{self.log(name)}", 60)  # type: ignore[misc]

    def role(self, ik: str) -> Sequence[object]:
        return ("witness", "run", "--config", self.witness(ik))

    def metrics(self, ik: str) -> str:
        return f"127.0.0.1:{int(self.config.journal.http.rpartition(':')[2]) + 6 + 2 * IKS.index(ik)}"

    def is_up(self, name: str, listen: str) -> bool:
        assert self.processes[name].poll() is None, self.log(name)
        if name == "journal":
            return bool(self.health()) and self.config.journal_socket.exists()
        with suppress(OSError), urllib.request.urlopen(f"http://{listen}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self, *names: str) -> None:
        for name in names:
            self.processes[name].terminate()
        for name in names:
            assert self.processes.pop(name).wait(9) == 0, self.log(name)

    def kill_all(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- the platform ---------------------------------------------------------------------------

    def append(self, ik: str, count: int, level: Level = Level.DURABLE) -> None:
        async def run() -> None:
            client = JournalClient(self.config.journal_socket)
            try:
                await client.append_many(self.origin(ik), [entry() for _ in range(count)], level)
            finally:
                await client.close()

        asyncio.run(run())

    def is_witnessed(self, ik: str, seconds: float) -> bool:
        """Whether a new entry reaches WITNESSED within so many seconds."""

        async def run() -> bool:
            client = JournalClient(self.config.journal_socket)
            try:
                receipt = await client.append(self.origin(ik), entry())
                await client.wait(self.origin(ik), receipt.index + 1, Level.WITNESSED, seconds)
            except LevelTimeoutError:
                return False
            finally:
                await client.close()
            return True

        return asyncio.run(run())

    def health(self) -> dict[str, Any]:
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://{self.config.journal.http}/health", timeout=2) as answer,
        ):
            found: dict[str, Any] = json.load(answer)
            return found
        return {}

    def note(self, ik: str, name: str) -> Note:
        return RemoteLog(self.url(ik), HttpRemote()).note(name)

    # --- an insurer -----------------------------------------------------------------------------

    def status(self, ik: str) -> dict[str, Any]:
        """What its witness says about itself; `own` is its log."""
        ended = schleuse("witness", "status", "--config", self.witness(ik), "--json")
        found: dict[str, Any] = json.loads(ended.stdout)
        return {**found, "own": next(log for log in found["logs"] if log["origin"] == self.origin(ik))}

    def alarms(self, ik: str) -> set[str]:
        return set(self.status(ik)["own"]["alarms"])

    def verify(self, ik: str) -> subprocess.CompletedProcess[str]:
        copy = self.witness(ik) / "mirror" / ik / str(self.year)
        return schleuse("journal", "verify", copy, "--policy", self.policy(ik), "--json")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "schleuse", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "SCHLEUSE_LANG": "en"}


def schleuse(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path / "home")
    try:
        yield found
    finally:
        found.kill_all()


def test_entries_are_cosigned_and_checked_at_the_insurer_without_network(parties: Parties) -> None:
    parties.start("journal", *IKS)
    for ik in IKS:
        parties.append(ik, 300, Level.WITNESSED)
        judged = parse_policy(parties.policy(ik).read_bytes()).judge(parties.note(ik, "checkpoint"))
        assert judged.checkpoint.size > 300
    for ik in IKS:
        assert schleuse("witness", "mirror", "--config", parties.witness(ik)).returncode == 0
        until(lambda ik=ik: parties.status(ik)["own"]["read"] > 300, "the monitor to read")  # type: ignore[misc]
    parties.stop(*parties.processes)
    for ik in IKS:
        verified = parties.verify(ik)
        assert verified.returncode == 0, verified.stderr
        found = json.loads(verified.stdout)
        assert (found["kinds"]["WRITE"], found["repeated_events"], found["foreign_entries"]) == (300, 0, 0)
        status = parties.status(ik)
        assert (status["evidence"], status["own"]["alarms"]) == ([], {})
        assert schleuse("witness", "reconcile", parties.origin(ik), "--config", parties.witness(ik)).returncode == 0


def test_one_of_the_others_is_enough_and_the_own_witness_is_never_missing(parties: Parties) -> None:
    parties.start("journal", *IKS)
    own, other, third = IKS
    parties.stop(other)
    assert parties.is_witnessed(own, 30)
    assert not parties.is_witnessed(other, 1)
    parties.stop(third)
    assert not parties.is_witnessed(own, 1)
    parties.start(other)
    assert parties.is_witnessed(other, 30)


def test_a_budget_is_exceeded_by_two_persons_before_witnesses_and_not_after_the_vault_was_killed(
    parties: Parties,
) -> None:
    """journal.md § 14.4: two operators, each signing by a command of his own, and no alarm at the insurer."""
    ik, order = IKS[0], parties.home / "order"
    parties.start("journal", "vault", *IKS)

    def override(name: str, *more: object) -> subprocess.CompletedProcess[str]:
        key = parties.home / "operators" / f"{name}.key"
        who = ("--home", parties.home, "--ik", ik, "--role", "eau", "--operator", name, "--operator-key", key)
        return schleuse("vault", "override", *who, *more)

    def in_force() -> list[int]:
        shown = schleuse("vault", "status", "--home", parties.home, "--json")
        return [one["releases"] for one in json.loads(shown.stdout)["overrides"]]

    asked = ("--releases", 900_000, "--hours", 2, "--reason", "backlog")
    assert override("betrieb-2", *asked, "--sign", order).returncode == 0
    alone = override("betrieb-2", *asked, "--yes", "--second", order)
    assert (alone.returncode != 0, in_force()) == (True, []), alone.stdout
    done = override("betrieb-1", *asked, "--yes", "--second", order)
    assert (done.returncode, in_force()) == (0, [900_000]), done.stderr
    size = parse_policy(parties.policy(ik).read_bytes()).judge(parties.note(ik, "checkpoint")).checkpoint.size
    until(lambda: parties.status(ik)["own"]["read"] >= size, "the monitor to read")
    assert parties.alarms(ik) == set()

    vault = parties.processes.pop("vault")
    os.killpg(vault.pid, signal.SIGKILL)
    vault.wait()
    parties.start("vault")
    assert in_force() == []


def test_insurers_that_let_nobody_in_fetch_and_send_back(parties: Parties) -> None:
    for ik in IKS:
        file = parties.witness(ik) / "witness.toml"
        file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("listen")))
    parties.start("journal", *IKS)
    assert parties.is_witnessed(IKS[0], 30)


def test_an_insurer_without_network_answers_on_paper(parties: Parties, tmp_path: Path) -> None:
    parties.start("journal")
    ik, old, paper, answer = IKS[0], tmp_path / "old", tmp_path / "sheet", tmp_path / "answer"
    rules = parse_policy(parties.policy(ik).read_bytes())
    last: tuple[str, ...] = ()
    for count in (5, 300):
        parties.append(ik, count, Level.PUBLISHED)
        paper.write_text(schleuse("witness", "sheet", parties.url(ik), *last).stdout)
        for witness in IKS[:2]:
            signed = schleuse("witness", "sign", paper, "--config", parties.witness(witness))
            assert signed.returncode == 0, signed.stderr
            answer.write_text(signed.stdout.replace("\u2014", "-"))  # what a mail program may make of it
            taken = schleuse("witness", "hand-in", parties.url(ik), paper, answer)
            assert taken.returncode == 0, taken.stderr
        old.write_text(taken.stdout)
        last = ("--old", str(old))
        assert rules.judge(parties.note(ik, "checkpoint")).checkpoint.size > count


@pytest.mark.parametrize(("count", "finding"), [(60, "fork"), (5, "rollback")], ids=["longer", "shorter"])
def test_a_history_that_is_written_anew_stops_the_journal_or_is_proven_against_it(
    parties: Parties, tmp_path: Path, count: int, finding: str
) -> None:
    """T-09: whoever has the disk and every key of the journal makes another log of the same name."""
    ik = IKS[0]
    parties.start("journal", *IKS)
    parties.append(ik, 40, Level.WITNESSED)
    until(lambda: parties.status(ik)["own"]["read"] > 40, "the monitor to read")
    parties.stop(*parties.processes)
    asyncio.run(forge(parties, ik, count))
    parties.start("journal", *IKS)
    until(lambda: bool(noticed(parties, ik)), "somebody to notice", 60)
    assert not (parties.health()["state"] == "RUNNING" and parties.is_witnessed(ik, 1))
    if "quarantine" not in noticed(parties, ik):
        assert finding in noticed(parties, ik)
        assert_the_evidence_convinces(parties, ik, tmp_path / "evidence")


def noticed(parties: Parties, ik: str) -> set[str]:
    """By the journal itself, which asks witnesses what they have seen, or by the insurer's witness."""
    origin = parties.origin(ik)
    found = {"quarantine" for finding in parties.health().get("findings", []) if origin in finding}
    return found | {one["finding"] for one in parties.status(ik)["evidence"] if one["origin"] == origin}


def assert_the_evidence_convinces(parties: Parties, ik: str, folder: Path) -> None:
    written = schleuse("witness", "evidence", folder, "--config", parties.witness(ik))
    assert written.returncode == 0, written.stderr
    (first, *_) = sorted(folder.iterdir())
    both = (first / "ours.checkpoint", first / "theirs.checkpoint")
    roots = {parse_checkpoint(parse_note(path.read_bytes()).text).root for path in both}
    assert len(roots) == 2


async def forge(parties: Parties, ik: str, count: int) -> None:
    """Another history of all logs under the same keys; of one of them with `count` entries and a signed checkpoint."""
    folder = parties.home / "journal"
    for name in ("wal", "logs"):
        (folder / name).rename(folder / f"{name}.true")
    (folder / "state").unlink(missing_ok=True)
    logs = []
    for tenant in (*IKS, "platform"):
        origin = parties.origin(tenant)
        policy = parse_policy(policy_file(folder, origin).read_bytes())
        logs.append(LogConfig(origin, log_signer(folder, origin), policy))
    journal = open_journal(Settings(folder, tuple(logs), now_us, spares=1))
    for one in logs:
        journal.open_log(one.origin)
    await journal.append_many(parties.origin(ik), [entry() for _ in range(count)], Level.DURABLE)
    journal.tick()
    await journal.wait(parties.origin(ik), count, Level.PUBLISHED, 10)
    await journal.close()


@pytest.mark.parametrize("what", ["alter", "delete"])
def test_one_byte_of_the_store_is_named_at_the_next_start_and_by_the_witness(parties: Parties, what: str) -> None:
    ik = IKS[0]
    parties.start("journal", ik, IKS[1])
    parties.append(ik, 400, Level.WITNESSED)
    until(lambda: parties.status(ik)["own"]["read"] > 400, "the monitor to read")
    path = entries_of(parties, ik)
    if what == "alter":
        with path.open("r+b") as file:
            file.seek(5000)
            byte = file.read(1)
            file.seek(5000)
            file.write(bytes([byte[0] ^ 1]))
        until(lambda: "false-tiles" in parties.alarms(ik), f"the witness to notice\n{parties.log(ik)}", 60)
        assert parties.alarms(IKS[1]) == set()
        parties.stop("journal")
    else:
        parties.stop("journal")
        data = path.read_bytes()
        path.write_bytes(data[:5000] + data[5001:])
    parties.start("journal")
    found = parties.health()
    name = f"{path.parent.name}/{path.name}"
    assert found["state"] == "QUARANTINE"
    assert any(name in finding for finding in found["findings"]), found["findings"]
    until(lambda: "quarantine" in parties.alarms(ik), f"the witness to be told\n{parties.log(ik)}", 60)


def entries_of(parties: Parties, ik: str) -> Path:
    """The file that has the entries of this log: the one with the largest part of them."""
    folders = (parties.home / "journal" / "logs").iterdir()
    mine = next(
        folder
        for folder in folders
        if parties.origin(ik).encode() in b"".join(one.read_bytes()[:200] for one in folder.iterdir() if one.is_file())
    )
    return next(path for path in sorted(mine.iterdir()) if path.name.startswith("entries"))


def test_a_witness_serves_metrics_and_stops_with_its_supervisor(parties: Parties) -> None:
    ik = IKS[0]
    parties.start("journal", ik)
    parties.append(ik, 3, Level.PUBLISHED)

    def size() -> bool:
        with urllib.request.urlopen(f"http://{parties.metrics(ik)}/metrics", timeout=2) as answer:
            line = f'schleuse_witness_size{{origin="{parties.origin(ik)}"}} '
            lines = answer.read().decode().splitlines()
            return any(float(one.removeprefix(line)) > 3 for one in lines if one.startswith(line))

    until(size, "the metrics to say what was cosigned")
    listen = f"127.0.0.1:{int(parties.metrics(ik).rpartition(':')[2]) - 1}"
    path = sha256(parties.origin(ik).encode()).hexdigest()
    with urllib.request.urlopen(f"http://{listen}/{path}/checkpoint", timeout=2) as answer:
        assert parse_checkpoint(parse_note(answer.read()).text).size > 3
    parties.stop("journal", ik)
