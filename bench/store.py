"""How fast mail becomes durable, and what it costs, beside what the same disk can do at all in the same run.

    python -m bench.store [--seconds 1.5] [--folder DIR] [--no-postgres]

In flight: mails that wait for their answer at once, as that many SMTP connections would. CPU: of this process, all its
threads (sealing, writing, routing); with PostgreSQL the server's CPU comes on top.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.postgres import durable_server

from schleuse.clock import utc_now
from schleuse.database import sqlite_url
from schleuse.errors import Error
from schleuse.holding.reconcile import reconcile
from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Settings, open_leases, open_mail_store
from schleuse.mail.contracts import Mail, Notify, Recipient

SIZE = 50_600  # limits.md: an eAU of 25 KB on the wire
KASSE = "eau@kasse.kim.telematik"
IN_FLIGHT = (1, 20, 100)
CLAIM = 64


@dataclass(frozen=True)
class Row:
    """One line of the table. rate: per second; cpu: ms a piece."""

    name: str
    rate: float
    cpu: float

    @property
    def megabytes(self) -> float:
        return self.rate * SIZE / 1e6


def measured(name: str, seconds: float, work: Callable[[float], int]) -> Row:
    """work: does pieces until the deadline (perf_counter) and returns how many."""
    cpu, start = time.process_time(), time.perf_counter()
    count = work(start + seconds)
    wall = time.perf_counter() - start
    return Row(name, count / wall, (time.process_time() - cpu) * 1000 / count)


def raw(folder: Path, seconds: float, batch: int) -> Row:
    """write + fdatasync of `batch` mails at once into a reserved file, and nothing else."""
    fd = os.open(folder / f"raw{batch}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.posix_fallocate(fd, 0, 1 << 30)
    data = [os.urandom(SIZE)] * batch

    def work(deadline: float) -> int:
        count = offset = 0
        while time.perf_counter() < deadline:
            offset += os.pwritev(fd, data, offset)
            os.fdatasync(fd)
            count += batch
            if offset > 900 << 20:
                offset = 0
        return count

    row = measured(f"raw writev + fdatasync, {batch} a flush", seconds, work)
    os.close(fd)
    os.unlink(folder / f"raw{batch}")
    return row


def mails() -> Iterator[Mail]:
    body = (b"A" * 76 + b"\r\n") * (SIZE // 78)
    number = 0
    while True:
        number += 1
        head = b"Received: by us\r\nMessage-ID: <%d.%d@praxis>\r\nSubject: x\r\n\r\n" % (os.getpid(), number)
        notify = frozenset({Notify.SUCCESS})
        yield Mail("praxis@arzt.kim.telematik", (Recipient(KASSE, notify),), head + body, utc_now())


def accept(store: MailStore, in_flight: int, seconds: float, name: str, source: Iterator[Mail]) -> Row:
    def work(deadline: float) -> int:
        free = threading.Semaphore(in_flight)
        failures: list[Error] = []

        def done(error: Error | None) -> None:
            if error is not None:
                failures.append(error)
            free.release()

        count = 0
        while time.perf_counter() < deadline:
            free.acquire()
            store.accept(next(source), done)
            count += 1
        for _ in range(in_flight):
            free.acquire()
        store.route()
        if failures:
            raise failures[0]
        return count

    return measured(f"{name}: accept + route, {in_flight} in flight", seconds, work)


def claim(settings: Settings, seconds: float, name: str) -> Row:
    with open_leases(settings.url, settings.spool) as leases:

        def work(deadline: float) -> int:
            count = 0
            while time.perf_counter() < deadline:
                found = leases.claim([KASSE], CLAIM, "bench", utc_now(), timedelta(minutes=5))
                if not found:
                    break
                leases.finish([Outcome(one.id, State.DELIVERED) for one in found], "bench", utc_now())
                count += len(found)
            return count

        return measured(f"{name}: claim + read + finish, {CLAIM} at once", seconds, work)


def stored(settings: Settings, seconds: float, name: str) -> Iterator[Row]:
    source = mails()
    with open_mail_store(settings, lambda address: address) as store:
        for in_flight in IN_FLIGHT:
            yield accept(store, in_flight, seconds, name, source)
        yield claim(settings, seconds, name)
        if not reconcile(store.audit()).holds:
            raise SystemExit("conservation does not hold")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--no-postgres", action="store_true")
    arguments = parser.parse_args()
    print(f"{'':58} {'per s':>9} {'MB/s':>7} {'CPU ms':>8}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for batch in IN_FLIGHT:
            show(raw(folder, arguments.seconds, batch))
        settings = Settings(sqlite_url(folder / "index.sqlite"), folder / "spool", "bench.example")
        for row in stored(settings, arguments.seconds, "segments + SQLite"):
            show(row)
        url = None if arguments.no_postgres else durable_server()
        if url is not None:
            for row in stored(Settings(url, folder, "bench.example"), arguments.seconds, "PostgreSQL"):
                show(row)


def show(row: Row) -> None:
    print(f"{row.name:58} {row.rate:9.0f} {row.megabytes:7.0f} {row.cpu:8.3f}", flush=True)


if __name__ == "__main__":
    main()
