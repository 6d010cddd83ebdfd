"""Reading back what the journal says about releases (journal.md § 5, § 14.4, § 14.5)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import UUID

import pytest
import uvicorn
from tests.journal.journals import NOW_US, journal

from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.http import JournalPages
from schleuse.journal.tiles import Bundle, bundle_bytes, parse_path
from schleuse.vault.contracts import VaultUnavailableError
from schleuse.vault.history import History, HistoryReader, Release

ORIGIN = "journal.example/kasse-a/2027"
NOW = datetime.fromtimestamp(NOW_US // 1_000_000, UTC)
HOUR_AGO = NOW - timedelta(hours=1)
EAU = b"\xa1" * 16


def entry(
    number: int,
    minutes_ago: float = 0,
    *,
    counter: int | None = None,
    kind: Kind = Kind.KEY_RELEASED,
    result: Result = Result.GRANTED,
) -> bytes:
    made = Entry(
        kind,
        result,
        Purpose.EAU_INTAKE,
        NOW - timedelta(minutes=minutes_ago),
        UUID(int=number + 1),
        actor=EAU,
        subject=subject(number),
        release_counter=counter,
        subject_key_version=1 if kind is Kind.KEY_RELEASED else None,
    )
    return made.encode()


def subject(number: int) -> bytes:
    return number.to_bytes(16)


def released(number: int, minutes_ago: float = 0) -> Release:
    return Release(NOW - timedelta(minutes=minutes_ago), EAU, subject(number))


class ServedLog:
    """Serves entries as the journal does. missing: so many answers are 404 first. status: of all others."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.entries = list(entries)
        self.asked: list[str] = []
        self.minimum = self.missing = 0
        self.status = 200
        self.content: bytes | None = None

    def answer(self, path: str) -> tuple[int, bytes]:
        name = path.removeprefix("/kasse-a/2027/")
        self.asked.append(name)
        bundle = parse_path(name)
        assert isinstance(bundle, Bundle)
        if bundle.index * 256 < self.minimum:
            return 404, f"entries below {self.minimum} of {ORIGIN} are deleted after their period\n".encode()
        if self.missing:
            self.missing -= 1
            return 404, b"not yet\n"
        if self.content is not None:
            return self.status, self.content
        return self.status, bundle_bytes(self.entries[bundle.index * 256 :][: bundle.width])


@contextmanager
def served(log: ServedLog, *, patience_s: float = 5.0) -> Iterator[HistoryReader]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, content = log.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield HistoryReader(f"http://127.0.0.1:{server.server_port}", patience_s=patience_s)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def read(entries: Sequence[bytes], since: datetime = HOUR_AGO) -> History:
    with served(ServedLog(entries)) as reader:
        return reader.read(ORIGIN, len(entries), since)


def test_releases_of_the_last_hour_are_read_over_many_bundles_oldest_first() -> None:
    entries = [entry(number, 90 - number / 10, counter=number + 1) for number in range(900)]
    history = read(entries)
    assert history.counter == 900
    assert history.releases == tuple(released(number, 90 - number / 10) for number in range(300, 900))


def test_refusals_and_other_accesses_are_no_releases() -> None:
    entries = [
        entry(0, counter=7),
        entry(1, result=Result.DENIED),
        entry(2, result=Result.FAILED),
        entry(3, kind=Kind.WRITE),
        entry(4, kind=Kind.LOGIN),
    ]
    assert read(entries) == History(7, (released(0),))


def test_a_last_number_that_is_older_than_the_hour_is_looked_for_further_back() -> None:
    entries = [entry(0, 6000, counter=41), *(entry(n, 5000, kind=Kind.WRITE) for n in range(1, 700))]
    assert read(entries) == History(41, ())


def test_the_report_of_an_earlier_start_ends_the_search() -> None:
    old = [entry(number, 5000, kind=Kind.WRITE) for number in range(600)]
    log = ServedLog([*old, entry(600, 4000, kind=Kind.ADMINISTRATION, counter=12)])
    with served(log) as reader:
        assert reader.read(ORIGIN, 601, HOUR_AGO) == History(12, ())
    assert log.asked == ["tile/entries/002.p/89"]


def test_no_more_bundles_are_read_than_the_hour_needs() -> None:
    log = ServedLog([entry(number, 2000 if number < 1024 else 1, counter=number) for number in range(1300)])
    with served(log) as reader:
        assert len(reader.read(ORIGIN, 1300, HOUR_AGO).releases) == 1300 - 1024
    assert log.asked == ["tile/entries/005.p/20", "tile/entries/004", "tile/entries/003"]


def test_a_log_without_releases_has_counted_none() -> None:
    assert read([entry(0, kind=Kind.LOG_OPENED)]) == History(0, ())


def test_the_highest_number_counts_where_two_batches_stand_in_another_order() -> None:
    entries = [entry(0, counter=3), entry(1, counter=4), entry(2, counter=1), entry(3, counter=2)]
    assert read(entries).counter == 4


def test_an_entry_of_a_slow_clock_does_not_end_the_search() -> None:
    entries = [entry(number, 30, counter=number + 1) for number in range(256)]
    entries += [entry(256, 62, kind=Kind.WRITE)]
    assert len(read(entries).releases) == 256


def test_only_what_was_asked_for_is_read_though_the_log_is_longer() -> None:
    entries = [entry(number, counter=number + 1) for number in range(300)]
    with served(ServedLog(entries)) as reader:
        assert reader.read(ORIGIN, 270, HOUR_AGO).counter == 270


def test_a_bundle_that_is_served_a_moment_later_is_waited_for() -> None:
    log = ServedLog([entry(0, counter=1)])
    log.missing = 2
    with served(log) as reader:
        assert reader.read(ORIGIN, 1, HOUR_AGO).counter == 1
    assert len(log.asked) == 3


def test_a_bundle_that_never_comes_is_an_unavailable_journal() -> None:
    log = ServedLog([entry(0, counter=1)])
    log.missing = 1_000_000
    with served(log, patience_s=0) as reader, pytest.raises(VaultUnavailableError, match="404"):
        reader.read(ORIGIN, 1, HOUR_AGO)


def test_what_was_deleted_after_its_period_ends_the_search() -> None:
    log = ServedLog([entry(number, 5000, kind=Kind.WRITE) for number in range(600)])
    log.minimum = 512
    with served(log) as reader:
        assert reader.read(ORIGIN, 600, HOUR_AGO) == History(0, ())


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_journal_that_does_not_show_its_entries_is_told_as_unavailable(status: int) -> None:
    log = ServedLog([entry(0)])
    log.status = status
    with served(log) as reader, pytest.raises(VaultUnavailableError, match=str(status)):
        reader.read(ORIGIN, 1, HOUR_AGO)


@pytest.mark.parametrize(
    "content",
    [b"", bundle_bytes([entry(0)] * 2), bundle_bytes([entry(0)])[:-1], bundle_bytes([bytes(128)])],
    ids=["nothing", "too many", "cut", "no entry"],
)
def test_a_bundle_that_holds_something_else_is_not_believed(content: bytes) -> None:
    log = ServedLog([entry(0)])
    log.content = content
    with served(log) as reader, pytest.raises(VaultUnavailableError, match="Bad"):
        reader.read(ORIGIN, 1, HOUR_AGO)


def test_nobody_at_the_address_is_an_unavailable_journal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(VaultUnavailableError, match="ConnectionRefused"):
        HistoryReader(f"http://127.0.0.1:{port}").read(ORIGIN, 1, HOUR_AGO)


def test_a_real_journal_shows_what_is_durable_before_any_checkpoint(tmp_path: Path) -> None:
    async def nobody_minds(_origin: str, _reader: str) -> None:
        pass

    async def run() -> None:
        async with journal(tmp_path) as opened:
            web = uvicorn.Config(JournalPages(opened, nobody_minds).app(), log_config=None, lifespan="off")
            server = uvicorn.Server(web)
            listening = socket.create_server(("127.0.0.1", 0))
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            reader = HistoryReader(f"http://127.0.0.1:{listening.getsockname()[1]}")
            entries = [entry(number, counter=number + 1) for number in range(500)]
            await opened.append_many(ORIGIN, entries)
            marker = await opened.append(ORIGIN, entry(500, kind=Kind.ADMINISTRATION))
            history = await asyncio.to_thread(reader.read, ORIGIN, marker.index + 1, HOUR_AGO)
            assert history == History(500, tuple(released(number) for number in range(500)))
            server.should_exit = True
            await serving

    asyncio.run(run())
