"""The journal's figures of journal.md § 18, each beside the raw limits of the same run.

    python -m bench.journal [--seconds 1] [--rounds 3] [--dir /var/tmp] [--case NAME…]

raw: pwrite of 4 KiB and fdatasync on a file full of zeros, a second. hash: SHA-256 over 100 bytes, a second. Both are
measured for 0.2 s before and after every round; a figure is the median of its rounds.
Writes bench/results/journal.{json,md}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from random import Random

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.journal.client import JournalClient
from schleuse.journal.disk import OsDisk
from schleuse.journal.frame import records
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.log import LogConfig
from schleuse.journal.note import LogSigner
from schleuse.journal.policy import parse_policy
from schleuse.journal.proof import is_included
from schleuse.journal.recovery import open_journal
from schleuse.journal.server import Peers, listen
from schleuse.journal.store import WAL_FOLDER, Journal, Settings
from schleuse.journal.wal import START, Walk
from schleuse.processes.life import collect_seldom

RESULTS = Path(__file__).parent / "results"
LOGS = 95
_HEAD = bytes.fromhex("4a45310a10000001")
_TAIL = os.urandom(32) + bytes(64)


@dataclass
class Figure:
    """One measured case. ratio: what § 18 compares. required: its lower bound, or upper for microseconds."""

    case: str
    value: float
    unit: str
    ratio: float
    required: float
    of: str
    raw: float
    hash: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.required if self.unit == "us p50" else self.ratio >= self.required


class SlowDisk(OsDisk):
    """Every flush takes 8 ms longer."""

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)
        time.sleep(0.008)


def now_us() -> int:
    return time.time_ns() // 1000


def origin(number: int) -> str:
    return f"journal.example/kasse-{number}/2027"


def config(number: int) -> LogConfig:
    signer = LogSigner(origin(number), Ed25519PrivateKey.generate())
    return LogConfig(origin(number), signer, parse_policy(f"log {signer.key.vkey}\nquorum none\n".encode()))


def entries(seed: int) -> Iterator[bytes]:
    """Distinct valid entries of 128 bytes, with the time of now to within a second."""
    return chain.from_iterable(_portions(os.urandom(7) + bytes([seed])))


def _portions(prefix: bytes) -> Iterator[list[bytes]]:
    for number in count(0, 5000):
        head = _HEAD + now_us().to_bytes(8) + prefix
        yield [head + at.to_bytes(8) + _TAIL for at in range(number, number + 5000)]


def raw_rate(folder: Path, seconds: float = 0.2) -> float:
    path = folder / "raw"
    if not path.exists():
        path.write_bytes(bytes(8 << 20))
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fd, data, count, start = os.open(path, os.O_RDWR), os.urandom(4096), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        os.pwrite(fd, data, count % 2048 * 4096)
        os.fdatasync(fd)
        count += 1
    os.close(fd)
    return count / (time.perf_counter() - start)


def hash_rate(seconds: float = 0.1) -> float:
    data, count, start = os.urandom(100), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(2000):
            sha256(data).digest()
        count += 2000
    return count / (time.perf_counter() - start)


async def load(append: Callable[[str, bytes], Awaitable[object]], appenders: int, logs: int, seconds: float) -> float:
    """Entries a second of so many appenders, each with one entry in flight."""
    made, count = entries(appenders & 0xFF), 0
    stop = time.perf_counter() + seconds

    async def one(number: int) -> None:
        nonlocal count
        name = origin(number % logs)
        while time.perf_counter() < stop:
            await append(name, next(made))
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(appenders)))
    return count / (time.perf_counter() - start)


async def ticking(journal: Journal) -> None:
    while True:
        await asyncio.sleep(1)
        journal.tick()


async def opened(folder: Path, logs: int, disk: OsDisk | None = None) -> Journal:
    settings = Settings(folder / "journal", tuple(map(config, range(logs))), now_us, spares=3)
    journal = open_journal(settings, disk=disk)
    for number in range(logs):
        if origin(number) not in {log.origin for log in journal.logs()}:
            journal.open_log(origin(number))
    journal.tick()
    while journal.health()["spare_segments"] < 3:
        await asyncio.sleep(0.05)
    return journal


async def in_process(folder: Path, appenders: int, logs: int, seconds: float, disk: OsDisk | None = None) -> float:
    journal = await opened(folder, logs, disk)
    # The files of each tree and level are made once in the life of a log, at up to 0.8 ms each on these disks.
    await load(journal.append, appenders, logs, seconds)
    journal.tick()
    task = asyncio.create_task(ticking(journal))
    rate = await load(journal.append, appenders, logs, seconds)
    task.cancel()
    await journal.close()
    return rate


def serve(folder: Path, ready: multiprocessing.synchronize.Event, stop: multiprocessing.synchronize.Event) -> None:
    collect_seldom()

    async def run() -> None:
        journal = await opened(folder, 1)
        uid = frozenset({os.getuid()})
        async with listen(folder / "s", journal, Peers(uid, uid)):
            task = asyncio.create_task(ticking(journal))
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.05)
            task.cancel()
        await journal.close()

    uvloop.run(run())


async def over_socket(folder: Path, appenders: int, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=serve, args=(folder, ready, stop))
    process.start()
    await asyncio.to_thread(ready.wait, 30)
    client = JournalClient(folder / "s")
    rate = await load(client.append, appenders, 1, seconds)
    await client.close()
    stop.set()
    await asyncio.to_thread(process.join)
    return rate


def measured(folder: Path, rounds: int, run: Callable[[Path], Awaitable[float]]) -> tuple[float, float, float]:
    """Medians of value, raw and hash."""
    values, raws, hashes = [], [], []
    for _ in range(rounds):
        raw, hashed = raw_rate(folder), hash_rate()
        work = Path(tempfile.mkdtemp(dir=folder))
        values.append(uvloop.run(_awaited(run(work))))
        shutil.rmtree(work)
        raws.append((raw + raw_rate(folder)) / 2)
        hashes.append((hashed + hash_rate()) / 2)
    return statistics.median(values), statistics.median(raws), statistics.median(hashes)


async def _awaited(work: Awaitable[float]) -> float:
    return await work


def model(raw: float, appenders: int) -> float:
    return appenders / (1 / raw + 5e-6 * appenders)


def append_figures(folder: Path, rounds: int, seconds: float, cases: frozenset[str]) -> Iterator[Figure]:
    rates: dict[int, float] = {}
    for appenders in (1, 100, 1000):
        value, raw, hashed = measured(folder, rounds, partial(in_process, appenders=appenders, logs=1, seconds=seconds))
        rates[appenders] = value
        case = f"{appenders} appender{'s' * (appenders > 1)}"
        if appenders == 1:
            yield Figure(case, value, "entries/s", value / raw, 0.6, "raw", raw, hashed)
        elif appenders == 100:
            yield Figure(case, value, "entries/s", value / model(raw, 100), 0.6, "c/(t+5us c)", raw, hashed)
        else:
            yield Figure(case, value, "entries/s", value / (hashed / 2), 0.12, "hash/2", raw, hashed)
    for appenders in (100, 1000) if "logs" in cases else ():
        value, raw, hashed = measured(
            folder, rounds, partial(in_process, appenders=appenders, logs=LOGS, seconds=seconds)
        )
        case = f"{appenders} appenders over {LOGS} logs"
        yield Figure(case, value, "entries/s", value / rates[appenders], 0.6, "one log", raw, hashed)
    if "slow" in cases:
        value, raw, hashed = measured(folder, rounds, lambda d: in_process(d, 1000, 1, seconds, SlowDisk()))
        yield Figure("1000 appenders, flush + 8 ms", value, "entries/s", value, 50_000, "absolute", raw, hashed)
    for appenders in (100, 1000) if "socket" in cases else ():
        value, raw, hashed = measured(folder, rounds, partial(over_socket, appenders=appenders, seconds=seconds))
        case = f"socket, {appenders} in flight"
        yield Figure(case, value, "entries/s", value / rates[appenders], 0.6, "in process", raw, hashed)


def proof_figures(folder: Path, size: int) -> Iterator[Figure]:
    """Proofs from the level files of a log with `size` entries, and replay of the write-ahead log it was made by."""
    work = Path(tempfile.mkdtemp(dir=folder))
    raw, hashed = raw_rate(folder), hash_rate()

    async def build() -> None:
        settings = Settings(work / "journal", (config(0),), now_us, spares=2 + size * 132 // (64 << 20), window=1)
        journal = open_journal(settings)
        journal.open_log(origin(0))
        made = entries(3)
        while journal._wal.wants_spares:
            journal._wal.prepare()
        journal.keeping.want_room = lambda: None  # type: ignore[method-assign]  # keep all frames, for the replay
        for _ in range(size // 8192):
            await journal.append_many(origin(0), [next(made) for _ in range(8192)])
        journal.tick()
        while journal.log(origin(0)).served is None:
            await asyncio.sleep(0)
        for name, call in (("inclusion proof", _inclusion), ("consistency proof", _consistency)):
            figures.append((name, _p50(partial(call, journal, size)), 100.0))
        wanted = journal.log(origin(0)).served
        assert wanted is not None
        index, leaf = 777, leaf_hash(next(journal.read(origin(0), 777, 778)))
        path = journal.inclusion(origin(0), index, size)
        assert is_included(index, size, leaf, path, wanted.checkpoint.root)
        figures.append(
            ("verify inclusion", _p50(lambda: is_included(index, size, leaf, path, wanted.checkpoint.root)), 50.0)
        )

    figures: list[tuple[str, float, float]] = []
    uvloop.run(build())
    for name, value, bound in figures:
        yield Figure(f"{name}, {size} entries", value, "us p50", value, bound, "absolute", raw, hashed)
    start = time.perf_counter()
    walk = Walk(work / "journal" / WAL_FOLDER, OsDisk(), START)
    count = sum(1 for frame in walk.frames() for _ in records(frame.body, frame.head.count))
    rate = count / (time.perf_counter() - start)
    yield Figure("read the write-ahead log", rate, "entries/s", rate, 200_000, "absolute", raw, hashed)
    (work / "journal" / "state").unlink(missing_ok=True)
    settings = Settings(work / "journal", (config(0),), now_us)
    start = time.perf_counter()
    journal = open_journal(settings)
    rate = size / (time.perf_counter() - start)
    assert journal.log(origin(0)).size == size, journal.findings
    yield Figure("replay it and rebuild the tree", rate, "entries/s", rate, 200_000, "absolute", raw, hashed)
    shutil.rmtree(work)


_RANDOM = Random(1)


def _inclusion(journal: Journal, size: int) -> None:
    journal.inclusion(origin(0), _RANDOM.randrange(size), size)


def _consistency(journal: Journal, size: int) -> None:
    journal.consistency(origin(0), _RANDOM.randrange(1, size), size)


def _p50(call: Callable[[], object], count: int = 2000) -> float:
    spent = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) * 1e6


def main() -> None:
    collect_seldom()
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--case", nargs="*", default=["logs", "slow", "socket", "proofs"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder, figures = Path(name), []
        for figure in append_figures(folder, args.rounds, args.seconds, frozenset(args.case)):
            figures.append(figure)
            print(_line(figure), flush=True)
        for figure in proof_figures(folder, args.size) if "proofs" in args.case else ():
            figures.append(figure)
            print(_line(figure), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "journal.json").write_text(json.dumps([vars(figure) for figure in figures], indent=1) + "\n")
    head = "| case | measured | ratio | required | of | raw/s | hash/s |\n|---|---|---|---|---|---|---|\n"
    (RESULTS / "journal.md").write_text(head + "".join(_line(figure) + "\n" for figure in figures))


def _line(figure: Figure) -> str:
    bound = f"{'≤' if figure.unit == 'us p50' else '≥'} {figure.required:g}{'' if figure.met else ' MISSED'}"
    return (
        f"| {figure.case} | {figure.value:,.0f} {figure.unit} | {figure.ratio:,.2f} | "
        f"{bound} | {figure.of} | "
        f"{figure.raw:,.0f} | {figure.hash:,.0f} |"
    )


if __name__ == "__main__":
    main()
