"""SIGKILL during load, again and again: every acknowledged entry is found at its index (journal.md § 18)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

import pytest
from tests.journal.journals import entry

from schleuse.errors import UnavailableError
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.client import JournalClient
from schleuse.journal.note import parse_note
from schleuse.journal.proof import is_consistent
from schleuse.journal.recovery import open_journal
from schleuse.journal.store import Journal, Settings

ORIGINS = [f"journal.test.example/{ik}/{time.gmtime().tm_year}" for ik in ("109905003", "108018007")]
KILLS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Load:
    """Appends to both logs with many in flight; remembers what was acknowledged, and what was shown to a witness."""

    def __init__(self, home: Path, port: int) -> None:
        self.acknowledged: dict[tuple[str, int], bytes] = {}
        self.witnessed: dict[str, Checkpoint] = {}
        self._client = JournalClient(home / "run" / "journal.sock")
        self._port = port
        self._numbers = count()

    async def run(self, until: int) -> None:
        """Return when the journal is gone; `until` entries were acknowledged by then, or it lives on."""
        await asyncio.gather(*(self._one(until) for _ in range(20)))

    async def _one(self, until: int) -> None:
        with suppress(UnavailableError):
            while len(self.acknowledged) < until:
                data = _now(next(self._numbers))
                origin = ORIGINS[len(self.acknowledged) % 2]
                receipt = await self._client.append(origin, data)
                assert self.acknowledged.setdefault((origin, receipt.index), data) == data

    def look(self) -> None:
        """What an outsider saw published; it may never be taken back."""
        for origin in ORIGINS:
            path = origin[origin.find("/") :]
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}/pending") as answer:
                checkpoint = parse_checkpoint(parse_note(answer.read()).text)
                assert checkpoint.size >= (self.witnessed[origin].size if origin in self.witnessed else 0)
                self.witnessed[origin] = checkpoint


def _now(number: int) -> bytes:
    data = entry(number, salt=os.getpid())
    return data[:8] + (time.time_ns() // 1000).to_bytes(8) + data[16:]


async def _ready(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while process.returncode is None:
            with suppress(OSError):
                await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/health")
                return
            await asyncio.sleep(0.01)
    raise AssertionError("the journal did not start")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_acknowledged_entry_survives_twenty_kills_under_load(tmp_path: Path) -> None:
    rng, port = Random(18), free_port()
    load = None

    async def life(number: int) -> None:
        nonlocal load
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.journal.crashing", str(tmp_path), str(port), cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": "src"},
        )  # fmt: skip
        await _ready(port, process)
        fresh = Load(tmp_path, port)
        if load is not None:
            fresh.acknowledged, fresh.witnessed, fresh._numbers = load.acknowledged, load.witnessed, load._numbers
        load = fresh
        running = asyncio.create_task(load.run(1 << 60))
        wanted = len(load.acknowledged) + rng.randrange(1, 1500)
        while len(load.acknowledged) < wanted:
            await asyncio.sleep(0)
        await asyncio.to_thread(load.look)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await running

    for number in range(KILLS):
        asyncio.run(life(number))
    assert load is not None
    asyncio.run(_check(tmp_path, load))


async def _check(home: Path, load: Load) -> None:
    journal = open_journal(Settings(home / "journal", (), lambda: time.time_ns() // 1000, segment_size=256 * 1024))
    assert journal.findings == ()
    stored = {origin: list(journal.read(origin, 0, journal.log(origin).size)) for origin in ORIGINS}
    for (origin, index), data in load.acknowledged.items():
        assert stored[origin][index] == data
    assert len(load.acknowledged) >= KILLS
    for origin, seen in load.witnessed.items():
        _check_never_rewritten(journal, origin, seen)
    await journal.close()


def _check_never_rewritten(journal: Journal, origin: str, seen: Checkpoint) -> None:
    log = journal.log(origin)
    proof = journal.consistency(origin, seen.size, log.size)
    assert is_consistent(seen.size, log.size, seen.root, log.frontier.root(), proof)


@pytest.mark.slow
def test_a_role_opens_its_logs_with_a_leaf_and_journals_its_readers(tmp_path: Path) -> None:
    port = free_port()

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.journal.crashing", str(tmp_path), str(port), cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONPATH": "src"}, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await _ready(port, process)
        base = f"http://127.0.0.1:{port}{ORIGINS[0][ORIGINS[0].find('/') :]}"
        first = await asyncio.to_thread(_get, f"{base}/tile/entries/000.p/1")
        assert first[2 + 4] == 0x01
        assert (await asyncio.to_thread(_get, f"{base}/tile/entries/000.p/2"))[2:] == first[2:] + _second(first, base)
        health = json.loads(await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/health"))
        assert health["state"] == "RUNNING"
        assert health["logs"][ORIGINS[0]]["durable"] == 2  # opened; read once in this hour
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    asyncio.run(run())


def _second(first: bytes, base: str) -> bytes:
    return _get(f"{base}/tile/entries/000.p/2")[len(first) :]


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        data: bytes = answer.read()
        return data
