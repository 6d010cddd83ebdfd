"""The real platform on loopback for scenario tests: role processes, a practice, an insurer's system."""

from __future__ import annotations

import asyncio
import os
import poplib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.config import Config, host_and_port, read_config
from schleuse.environment import Environment
from schleuse.holding.reconcile import Reconciliation
from schleuse.identifiers import IK
from schleuse.journal.entry import Entry, parse_entry
from schleuse.journal.tiles import bundles_of, split_bundle
from schleuse.kim.directory import DirectoryFile
from schleuse.mail.smime.trust import TrustStore
from schleuse.practice.documents import Insurer
from schleuse.practice.faults import FAULTS
from schleuse.practice.identity import Identity, load_practice
from schleuse.practice.inbox import Answer, note, read_answer
from schleuse.practice.ledger import Ledger
from schleuse.practice.mailing import Addressee
from schleuse.practice.outbox import Order, Prepared, hand_over, prepare
from schleuse.practice.transport import MailServerError, Reply, Server, mailbox, submission
from schleuse.processes.conservation import check_conservation
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, create_home
from schleuse.vault.tokens import audience, make_token, read_token_key

PATIENCE = 120.0
ROLES = ("journal", "vault", "kim", "eau")
#: Of a home with two insurers: kim, eau, journal, vault, control, receipts, and two for each witness.
PORTS = 15
ROOT = Path(__file__).parents[2]
INSURERS = (NewInsurer(IK("109900011"), "Kasse Eins", "eins"), NewInsurer(IK("109900022"), "Kasse Zwei", "zwei"))
PRACTICE = NewPractice("praxis", "Praxis Test")


def build_home(folder: Path) -> Path:
    """A home with two insurers and a practice; the ports are set by each platform."""
    new = NewHome(Environment.TEST, "kim.test.kim.telematik-test", INSURERS, [PRACTICE], first_port=10000)
    create_home(folder, new, datetime.now(UTC))
    return folder


#: Ports of this process of the suite: two that run side by side must not find the same ones free.
_LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_PORTS = range(20000 + 3000 * _LANE, 23000 + 3000 * _LANE)


def free_ports(count: int) -> int:
    """First of `count` neighbouring free ports on loopback, below those that Linux gives to outgoing connections."""
    for _ in range(200):
        first = random.choice(_PORTS[:-count])
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for something that other processes bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


class Signed(httpx.Auth):
    """Signs a token for each request, as an insurer's system does."""

    def __init__(self, key: Ed25519PrivateKey, name: str, ik: IK, aud: str) -> None:
        self._key, self._name, self._ik, self._aud = key, name, ik, aud

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        what = (request.method, request.url.path)
        token = make_token(self._key, self._name, self._ik, self._aud, "feed", what, datetime.now(UTC))
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


@dataclass
class Platform:
    """Starts and kills roles; speaks to them only over their ports and files."""

    home: Path
    config: Config
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    received: dict[str, tuple[Answer, ...]] = field(default_factory=dict)  # by UIDL, which is stable for ever

    def start(self, role: str, environment: Mapping[str, str] | None = None) -> None:
        log = (self.home / f"{role}.log").open("ab")
        self.processes[role] = subprocess.Popen(
            [sys.executable, "-m", "schleuse", "run", role, "--home", str(self.home)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def ready(self, role: str) -> bool:
        listen = getattr(self.config, role).metrics
        try:
            return httpx.get(f"http://{listen}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def start_all(self) -> None:
        for role in ROLES:
            self.start(role)
        for role in ROLES:
            until(lambda role=role: self.ready(role), f"{role} to be ready\n{self.log(role)}")  # type: ignore[misc]

    def start_services(self) -> None:
        """What the `eau` role needs to open anything: journal and vault."""
        for role in ("journal", "vault"):
            self.start(role)
            until(lambda role=role: self.ready(role), f"{role} to be ready\n{self.log(role)}")  # type: ignore[misc]

    def kill(self, role: str) -> None:
        """SIGKILL for the role and all that it forked."""
        process = self.processes.pop(role, None)
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop(self, role: str) -> int:
        process = self.processes.pop(role)
        process.terminate()
        return process.wait(30)

    def log(self, role: str) -> str:
        path = self.home / f"{role}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- a practice -------------------------------------------------------------------------

    @property
    def practice(self) -> Identity:
        return load_practice(self.config, None)

    @property
    def server(self) -> Server:
        practice = self.practice
        kim = self.config.kim
        return Server(kim.smtp_tls, kim.pop3_tls, self.config.eau.submit_ca, practice.address, practice.password)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.home / "practices" / "praxis" / "sent.jsonl")

    def order(self, count: int, fault: str | None = None, insurer: int = 0, stornos: int = 0) -> Order:
        chosen = self.config.insurers[insurer]
        directory = DirectoryFile(self.config.kim.directory).current()
        to = Addressee(chosen.address, directory.certificates(chosen.address)[0])
        return Order(
            count, Insurer(chosen.ik, chosen.name), to, "T", stornos=stornos, fault=FAULTS[fault] if fault else None
        )

    def mails(self, order: Order, seed: int = 1) -> list[Prepared]:
        return list(prepare(self.practice, order, random.Random(seed), lambda: datetime.now(UTC)))

    def send(self, mails: list[Prepared]) -> list[Reply]:
        async def run() -> list[Reply]:
            ledger, practice = self.ledger, self.practice  # reading its keys takes a third of a second
            async with submission(self.server) as session:
                return [await hand_over(session, practice, mail, ledger) for mail in mails]

        return asyncio.run(run())

    def send_until_accepted(self, mails: list[Prepared]) -> int:
        """As a mail server's queue: again and again with the same octets. Returns how many attempts failed."""
        return asyncio.run(self._send_until_accepted(mails, time.monotonic() + 2 * PATIENCE))

    async def _send_until_accepted(self, mails: list[Prepared], deadline: float) -> int:
        ledger, practice, left, failed = self.ledger, self.practice, list(mails), 0
        while left:
            assert time.monotonic() < deadline, f"{len(left)} mails were never accepted"
            try:
                async with submission(self.server) as session:
                    while left:
                        reply = await hand_over(session, practice, left[0], ledger)
                        assert reply.accepted or reply.temporary, reply
                        failed += not reply.accepted
                        left = left[1:] if reply.accepted else [*left[1:], left[0]]
            except MailServerError:
                failed += 1
                await asyncio.sleep(0.05)
        return failed

    def fetch(self) -> list[Answer]:
        """Empty the practice's mailbox into its ledger; the new answers. Bears a mail role that dies meanwhile."""
        trust = TrustStore.from_files(self.config.eau.trust)
        ledger, found = self.ledger, list[Answer]()
        try:
            with mailbox(self.server) as client:
                for number in range(1, client.stat()[0] + 1):
                    uidl = client.uidl(number).decode().split()[2]
                    raw = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
                    if uidl not in self.received:
                        self.received[uidl] = read_answer(raw, self.practice, trust, datetime.now(UTC))
                        note(self.received[uidl], ledger)
                        found.extend(self.received[uidl])
                    client.dele(number)
        except (MailServerError, OSError, poplib.error_proto):
            pass
        return found

    # --- an insurer's system ----------------------------------------------------------------

    def feed(self, insurer: int = 0) -> httpx.Client:
        chosen = self.config.insurers[insurer]
        key = read_token_key(self.home / "insurers" / chosen.ik / "feed.key")
        return httpx.Client(
            base_url=f"https://{self.config.eau.feed}/v1/{chosen.ik}/",
            auth=Signed(key, chosen.feed_clients[0].name, IK(chosen.ik), audience(self.config.hostname)),
            verify=ssl.create_default_context(cafile=str(self.config.eau.submit_ca)),
            timeout=30,
        )

    def events(self, insurer: int = 0) -> list[dict[str, Any]]:
        """The whole feed. Asks again while the role is being started."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._events(insurer)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _events(self, insurer: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with self.feed(insurer) as client:
            while True:
                page = client.get("eau", params={"after": found[-1]["seq"] if found else 0, "limit": 1000}).json()
                if not page["events"]:
                    return found
                found.extend(page["events"])

    # --- a journal's reader -----------------------------------------------------------------

    def entries(self, insurer: int = 0) -> list[Entry]:
        """All entries of the insurer's log that are signed now."""
        origin = f"journal.{self.config.hostname}/{self.config.insurers[insurer].ik}/{datetime.now(UTC).year}"
        base = f"http://{self.config.journal.http}/{origin.partition('/')[2]}"
        found: list[Entry] = []
        with httpx.Client(timeout=30) as client:
            pending = client.get(f"{base}/pending")
            if pending.status_code != httpx.codes.OK:  # nothing of it is signed yet
                return []
            size = int(pending.text.split("\n")[1])
            for bundle in bundles_of(size):
                answer = client.get(f"{base}/{bundle.path}").raise_for_status()
                found += map(parse_entry, split_bundle(bundle, answer.content))
        return found

    def start_witness(self, insurer: int) -> None:
        """The witness of an insurer, as its own process."""
        folder = self.home / "insurers" / self.config.insurers[insurer].ik / "witness"
        log = (self.home / f"witness-{insurer}.log").open("ab")
        self.processes[f"witness-{insurer}"] = subprocess.Popen(
            [sys.executable, "-m", "schleuse", "witness", "run", "--config", str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`./schleuse WORDS` as an operator types it."""
        return subprocess.run(
            [sys.executable, "-m", "schleuse", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "SCHLEUSE_LANG": "en"},
            capture_output=True,
            text=True,
            check=check,
        )

    # --- an auditor -------------------------------------------------------------------------

    def conservation(self) -> Reconciliation:
        return check_conservation(self.config)

    def port(self, listen: str) -> int:
        return host_and_port(listen)[1]


@contextmanager
def platform(base: Path, folder: Path, changes: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """A platform on a copy of the base home. changes: text of the configuration to replace."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    first = free_ports(PORTS)
    file = folder / "schleuse.toml"
    for one in (file, *folder.glob("journal/policies/*"), *folder.glob("insurers/*/witness/*")):
        if one.suffix not in {".key", ".sqlite"} and one.is_file():
            text = one.read_text()
            for offset in range(PORTS):
                text = text.replace(f"127.0.0.1:{10000 + offset}", f"127.0.0.1:{first + offset}")
            one.write_text(text)
    text = file.read_text()
    for old, new in (changes or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)
    running = Platform(folder, read_config(folder))
    try:
        yield running
    finally:
        for role in list(running.processes):
            running.kill(role)
