"""The journal role as it is put together: who may do what, which logs there are, and whom it asks at its start."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs
from tests.journal.journals import WITNESS
from tests.test_config import MINIMAL

from schleuse.config import Config, read_config
from schleuse.errors import CorruptError, MalformedError
from schleuse.identifiers import IK
from schleuse.journal.client import JournalClient
from schleuse.journal.contracts import JournalUnavailableError, Level, NotAllowedError, QuarantinedError
from schleuse.journal.entry import Entry, Kind, Purpose, Result, parse_entry
from schleuse.journal.housekeeping import NOTE
from schleuse.journal.note import LogKey, parse_note
from schleuse.journal.recovery import altered_notes, open_journal
from schleuse.journal.server import listen
from schleuse.journal.store import Settings
from schleuse.processes.journal import UnknownUserError, role_of, run
from schleuse.processes.journal_keys import (
    JournalRole,
    KeyMissingError,
    log_signer,
    now_us,
    origin_of,
    policy_file,
    read_policy,
)
from schleuse.processes.observe import serving
from schleuse.processes.trail import PLATFORM, new_event
from schleuse.witness.http import WitnessPages
from schleuse.witness.service import Witness
from schleuse.witness.store import WitnessStore

KASSE = IK("109905003")
ME = pwd.getpwuid(os.getuid()).pw_name
CONFIG = MINIMAL + "\n[journal]\n"


def configured(folder: Path, *lines: str) -> Config:
    (folder / "schleuse.toml").write_text(CONFIG + "\n".join(lines), encoding="utf-8")
    return read_config(folder)


# -- by its configuration ----------------------------------------------------------------------------------------


def test_users_are_named_in_the_configuration_and_known_to_the_kernel_by_number(tmp_path: Path) -> None:
    role = role_of(configured(tmp_path, f'writers = ["{ME}"]', f'vaults = ["{ME}", "{ME}"]', "retention_years = 5"))
    assert (role.writers, role.vaults) == (frozenset({os.getuid()}), frozenset({os.getuid()}))
    assert (role.retention_years, role.metrics) == (5, "127.0.0.1:9103")
    assert role_of(configured(tmp_path)).vaults == frozenset()


@pytest.mark.parametrize("setting", ["writers", "vaults"])
def test_a_user_that_this_machine_does_not_have_stops_the_start(tmp_path: Path, setting: str) -> None:
    """Going on without him would lock a writer out, or read an empty list as everybody of our own."""
    with pytest.raises(UnknownUserError, match="no user 'nobody-of-that-name'"):
        role_of(configured(tmp_path, f'{setting} = ["{ME}", "nobody-of-that-name"]'))


# -- as it runs --------------------------------------------------------------------------------------------------


class Host:
    """A home with the role of one insurer."""

    def __init__(self, home: Path) -> None:
        self.role = JournalRole(
            home,
            "test.example",
            (KASSE,),
            http=f"127.0.0.1:{free_port()}",
            segment_size=64 * 1024,
            publish_seconds=0.02,
            announce=timedelta(0),  # in December, too, these logs have only what the tests write
        )
        self.year = datetime.now(UTC).year
        self.origin = origin_of("test.example", KASSE, self.year)
        self.platform = origin_of("test.example", PLATFORM, self.year)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[JournalClient]:
        task = asyncio.create_task(run(self.role))
        client = JournalClient(self.role.socket)
        try:
            while not task.done() and not await self._answers():
                await asyncio.sleep(0.01)
            if task.done():
                task.result()
            yield client
        finally:
            await client.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _answers(self) -> bool:
        try:
            await self.health()
        except OSError:
            return False
        return True

    async def health(self) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(f"http://{self.role.http}/health") as answer:
                health: dict[str, Any] = json.load(answer)
                return health

        return await asyncio.to_thread(ask)

    def read_entries(self) -> None:
        """As anybody may, which leaves an entry."""
        with urllib.request.urlopen(f"http://{self.role.http}/{KASSE}/{self.year}/tile/entries/000.p/1") as answer:
            answer.read()

    def asks(self, url: str) -> None:
        """The insurer's log needs one witness."""
        vkey = log_signer(self.role.folder, self.origin).key.vkey
        policy = policy_file(self.role.folder, self.origin)
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(f"log {vkey}\nwitness w {WITNESS.key.vkey} {url}\nquorum w\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def entry(kind: Kind = Kind.WRITE) -> bytes:
    now = datetime.fromtimestamp(time.time_ns() // 1000 / 1e6, UTC)
    whole = Entry(kind, Result.GRANTED, Purpose.OPERATION, now, new_event(now))
    if kind is Kind.KEY_CREATED:
        whole = replace(whole, subject=b"s" * 16, subject_key_version=1)
    return whole.encode()


@asynccontextmanager
async def witness(host: Host, folder: Path) -> AsyncIterator[str]:
    """The real service over HTTP; gives its URL."""
    store = WitnessStore(folder / "witness.sqlite")
    port = free_port()
    key = LogKey(log_signer(host.role.folder, host.origin).key)
    service = Witness({host.origin: (key,)}, (WITNESS,), store, lambda: datetime.now(UTC), lambda alarm: None)
    app = WitnessPages(service, [host.origin]).app()
    try:
        async with serving(
            uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off")
        ):
            yield f"http://127.0.0.1:{port}"
    finally:
        store.close()


def test_the_platform_has_a_log_of_its_own_and_no_key_shares(tmp_path: Path) -> None:
    async def run_it() -> None:
        host = Host(tmp_path)
        async with host.running() as client:
            assert set((await host.health())["logs"]) == {host.origin, host.platform}
            assert (await client.append(host.platform, entry())).index == 1
            of_insurer = await client.append(host.origin, entry(Kind.KEY_CREATED))
            of_platform = await client.append(host.platform, entry(Kind.KEY_CREATED))
            assert of_insurer.share not in (None, bytes(32))
            assert of_platform.share in (None, bytes(32))
        keys = {path.name for path in (host.role.folder / "keys").iterdir()}
        assert {one for one in keys if one.startswith("share-")} == {f"share-{KASSE}"}

    asyncio.run(run_it())


def test_whoever_reads_that_the_journal_runs_can_write_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault is ready by these pages; it met a socket without a listener with its first mail after a restart."""

    async def run_it() -> None:
        host = Host(tmp_path)
        told_early: list[str] = []

        @asynccontextmanager
        async def slow(*of: Any, **more: Any) -> AsyncIterator[None]:
            with suppress(OSError):
                told_early.append((await host.health())["state"])
            async with listen(*of, **more):
                yield

        monkeypatch.setattr("schleuse.processes.journal.listen", slow)
        async with host.running() as client:
            await client.append(host.origin, entry())
        assert told_early == []

    asyncio.run(run_it())


def test_a_witness_that_is_away_is_an_alarm_and_the_journal_starts_without_it(tmp_path: Path) -> None:
    async def run_it() -> None:
        host = Host(tmp_path)
        host.asks(f"http://127.0.0.1:{free_port()}")
        with capture_logs() as told:
            async with host.running() as client:
                await client.append(host.origin, entry())
        assert {"event": "journal.witness-silent", "origin": host.origin, "witness": "w", "log_level": "error"} in told

    asyncio.run(run_it())


def test_a_home_that_was_set_back_as_a_whole_starts_in_quarantine_for_its_witness_remembers(tmp_path: Path) -> None:
    async def run_it() -> None:
        host = Host(tmp_path / "home")
        async with witness(host, tmp_path) as url:
            host.asks(url)
            async with host.running() as client:
                await client.append(host.origin, entry(), Level.WITNESSED)
            older = tmp_path / "older"
            shutil.copytree(host.role.folder, older)
            async with host.running() as client:
                await client.append(host.origin, entry(), Level.WITNESSED)
            shutil.rmtree(host.role.folder)
            shutil.copytree(older, host.role.folder)
            with capture_logs() as told:
                async with host.running() as client:
                    with pytest.raises(QuarantinedError, match="w cosigned has size 3"):
                        await client.append(host.origin, entry())
                    health = await host.health()
            assert health["state"] == "QUARANTINE"
            assert "journal.quarantine" in {one["event"] for one in told}
            assert health["logs"][host.origin]["durable"] == 2

    asyncio.run(run_it())


@pytest.mark.parametrize("is_writer", [True, False])
def test_whoever_tries_at_the_socket_what_he_may_not_leaves_an_entry(tmp_path: Path, is_writer: bool) -> None:
    """A user that may not write at all, and a writer that is not the vault and writes about keys."""

    async def run_it() -> None:
        host = Host(tmp_path)
        me, other = frozenset({os.getuid()}), frozenset({os.getuid() + 1})
        host.role = replace(host.role, writers=me if is_writer else other, vaults=other)
        async with host.running() as client:
            for _ in range(3):
                with pytest.raises(NotAllowedError if is_writer else JournalUnavailableError):
                    await client.append_all(host.origin, [entry(Kind.KEY_CREATED)])
            while (await host.health())["logs"][host.platform]["durable"] < 4:  # the first is of its opening
                await asyncio.sleep(0.01)
        journal = open_journal(Settings(host.role.folder, (), now_us, segment_size=host.role.segment_size))
        left = [parse_entry(one) for one in journal.read(host.platform, 1, 4)]
        assert {(one.kind, one.result, one.actor == left[0].actor) for one in left} == {
            (Kind.LOGIN_FAILED, Result.DENIED, True)
        }
        await journal.close()

    asyncio.run(run_it())


def test_a_request_that_never_ends_takes_no_memory(tmp_path: Path) -> None:
    """Witnesses of other insurers reach these pages, and behind them is the only writer of all logs."""

    async def run_it() -> None:
        host = Host(tmp_path)
        async with host.running():
            address, _, port = host.role.http.partition(":")
            reader, writer = await asyncio.open_connection(address, int(port))
            writer.write(b"GET / HTTP/1.1\r\n")
            sent = 0
            with suppress(ConnectionError):
                while sent < 32 << 20 and not reader.at_eof():
                    writer.write(b"a: " + b"b" * 60_000 + b"\r\n")
                    sent += 60_000
                    await writer.drain()
                    await asyncio.sleep(0)
            assert sent < 32 << 20
            writer.close()
            assert (await host.health())["state"] == "RUNNING"

    asyncio.run(run_it())


def flipped(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 0x80]) + data[6:]


@pytest.mark.parametrize(
    "damaged", [flipped, lambda data: data[:-9], lambda _data: b""], ids=["flipped", "cut", "empty"]
)
@pytest.mark.parametrize(
    "name", ["keys/log-*", "keys/share-*", "vkeys/109*", "vkeys/share-*", "policies/109*", "readers*"]
)
def test_a_damaged_file_beside_the_logs_is_named_and_stops_the_start(
    tmp_path: Path, name: str, damaged: Callable[[bytes], bytes]
) -> None:
    """Half of k_J, or none, would give shares all the same: what is sealed with them opens with no other."""

    async def run_it() -> None:
        host = Host(tmp_path)
        async with host.running():
            await asyncio.to_thread(host.read_entries)
        path = next(host.role.folder.glob(name))
        path.write_bytes(damaged(path.read_bytes()))
        with pytest.raises((CorruptError, MalformedError)) as told:
            async with host.running():
                pass
        assert path.name in str(told.value)

    asyncio.run(run_it())


def test_an_altered_signature_of_the_served_note_is_named(tmp_path: Path) -> None:
    """The note is the second witness against a write-ahead log that lost its end (§ 12.3)."""

    async def run_it() -> None:
        host = Host(tmp_path)
        async with witness(host, tmp_path) as url:
            host.asks(url)
            async with host.running() as client:
                await client.append(host.origin, entry(), Level.WITNESSED)
        policy = policy_file(host.role.folder, host.origin)
        policy.write_text(policy.read_text().replace(url, ""))  # from now on nobody is asked
        (path,) = [one for one in host.role.folder.glob(f"logs/*/{NOTE}") if host.origin in one.read_text()]
        intact = path.read_bytes()
        assert len(parse_note(intact).lines) == 2
        assert await found_at_a_start(host) == []
        for place in range(intact.index(b"\n\n") + 2, len(intact), 3):
            path.write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
            assert [path.name in one for one in await found_at_a_start(host)] == [True], place
        async with host.running():
            assert NOTE in "".join((await host.health())["findings"])

    asyncio.run(run_it())


async def found_at_a_start(host: Host) -> list[str]:
    """By one that is not let go on."""
    journal = open_journal(Settings(host.role.folder, (), now_us, segment_size=host.role.segment_size))
    policies = {host.origin: read_policy(policy_file(host.role.folder, host.origin))}
    found = [*journal.findings] or altered_notes(journal, policies)
    journal.stop(["only looked at"])
    await journal.close()
    return found


def test_without_its_signing_key_the_journal_does_not_start_with_another(tmp_path: Path) -> None:
    async def run_it() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        for path in (host.role.folder / "keys").glob("log-*"):
            path.unlink()
        with pytest.raises(KeyMissingError, match="was announced; another key"):
            async with host.running():
                pass

    asyncio.run(run_it())
