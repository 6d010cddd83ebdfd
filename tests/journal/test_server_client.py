"""The socket protocol of § 13, server and client together, and each against bytes that nobody should send."""

from __future__ import annotations

import asyncio
import gc
import hmac
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journal.faulty_disk import FaultyDisk, When, nth
from tests.journal.journals import NOW_US, ORIGIN, OTHER, entry, journal, release

from schleuse.journal.admission import InvalidEntryError
from schleuse.journal.client import JournalClient
from schleuse.journal.contracts import (
    EventReusedError,
    JournalUnavailableError,
    Level,
    LevelTimeoutError,
    NotAllowedError,
    QuarantinedError,
    ShardClosedError,
    UnknownLogError,
)
from schleuse.journal.entry import Entry, Kind, parse_entry
from schleuse.journal.server import Peers, listen
from schleuse.journal.shares import HOUR_US, KeyShares, ShareLimitError
from schleuse.journal.store import Journal
from schleuse.journal.wire import FIRST_ERROR, REPLY, REQUEST, error_of, error_reply

ME = frozenset({os.getuid()})
NOBODY: frozenset[int] = frozenset()
ALL = Peers(ME, ME)


@asynccontextmanager
async def served(
    folder: Path, *, peers: Peers = ALL, shares: KeyShares | None = None
) -> AsyncIterator[tuple[Journal, JournalClient]]:
    async with journal(folder) as opened, listen(folder / "s", opened, peers, shares=shares):
        client = JournalClient(folder / "s")
        try:
            yield opened, client
        finally:
            await client.close()


def test_many_appends_in_flight_are_answered_with_their_indexes(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client):
            receipts = await asyncio.gather(*(client.append(ORIGIN, entry(i)) for i in range(500)))
            assert sorted(receipt.index for receipt in receipts) == list(range(500))
            stored = list(opened.read(ORIGIN, 0, 500))
            assert all(stored[receipt.index] == entry(i) for i, receipt in enumerate(receipts))
            assert await client.append_many(OTHER, [entry(i) for i in range(700)]) == range(700)
            assert await client.append_many(OTHER, []) == range(0)

    asyncio.run(run())


def test_which_log_takes_entries_is_asked_anew_once_the_one_that_was_told_has_refused(tmp_path: Path) -> None:
    """Else a vault would be refused for ten seconds (decision 0023)."""

    async def run() -> None:
        async with served(tmp_path) as (opened, client):
            await client.append(ORIGIN, entry(0))
            assert await client.current(ORIGIN) == ORIGIN
            opened.instead = lambda _origin: OTHER
            await opened.close_log(ORIGIN, entry(1))
            assert await client.current(ORIGIN) == ORIGIN
            with pytest.raises(ShardClosedError):
                await client.append_all(ORIGIN, [entry(2), entry(3)])
            assert await client.current(ORIGIN) == OTHER
            assert [one.index for one in await client.append_all(OTHER, [entry(2), entry(3)])] == [0, 1]

    asyncio.run(run())


def test_errors_keep_their_kind_over_the_socket(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client):
            await client.append(ORIGIN, entry(1))
            with pytest.raises(EventReusedError, match=ORIGIN):
                await client.append(ORIGIN, entry(1, kind=0x11))
            with pytest.raises(InvalidEntryError):
                await client.append(ORIGIN, b"nothing")
            with pytest.raises(InvalidEntryError):
                await client.append(ORIGIN, bytes(2000))
            with pytest.raises(InvalidEntryError):
                await client.append_many(ORIGIN, [entry(2), b"", entry(3)])
            with pytest.raises(UnknownLogError):
                await client.append("journal.example/nobody/2027", entry(4))
            opened.stop(["a witness knows more"])
            with pytest.raises(QuarantinedError, match="QUARANTINE"):
                await client.append(ORIGIN, entry(5))

    asyncio.run(run())


def test_only_the_vault_writes_about_keys_and_gets_the_share(tmp_path: Path) -> None:
    shares = KeyShares({ORIGIN: b"k" * 32}, per_hour=2, now_us=lambda: NOW_US)

    async def run() -> None:
        async with served(tmp_path, shares=shares) as (_, client):
            receipt = await client.append(ORIGIN, release(1))
            wanted = hmac.digest(b"k" * 32, b"JS1\n" + b"\xb1" * 16 + b"\0\0\0\3", "sha256")
            assert receipt.share == wanted
            assert (await client.append(ORIGIN, entry(2))).share is None
            again, other = await client.append_all(ORIGIN, [release(1), entry(3)])
            assert (again.index, again.share, other.share) == (0, wanted, None)
            with pytest.raises(ShareLimitError):
                await client.append(ORIGIN, release(4))

    asyncio.run(run())


@pytest.mark.parametrize("first", [entry(1), release(1)], ids=["entry", "release"])
def test_no_share_comes_before_its_own_entry_is_durable_whatever_ids_a_client_gives(
    tmp_path: Path, first: bytes
) -> None:
    """A vault that was taken over asks about one person, and under the same id about another, whose entry it then
    keeps from becoming durable (journal.md § 14.1).
    """
    shares = KeyShares({ORIGIN: b"k" * 32}, per_hour=9, now_us=lambda: NOW_US)
    other = b"\xb2" * 16

    async def run() -> bytes:
        disk = FaultyDisk()
        async with (
            journal(tmp_path, disk, inline=False) as opened,
            listen(tmp_path / "s", opened, ALL, shares=shares),
        ):
            await opened.append(ORIGIN, entry(0))
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            number = opened.log(ORIGIN).number
            disk.gate = threading.Event()
            disk.in_sync.clear()
            writer.write(REQUEST.pack(len(first), number, 7) + first)
            assert await asyncio.to_thread(disk.in_sync.wait, 20)
            writer.write(REQUEST.pack(len(release(2, other)), number, 7) + release(2, other))
            writer.write(REQUEST.pack(len(entry(3)), number, 8) + entry(3))
            while not opened.log(ORIGIN).pending:
                await asyncio.sleep(0)
            disk.choose = nth("write", When.BEFORE)  # the next frame, with whatever waits, never gets there
            disk.gate.set()
            told = b""
            while some := await reader.read(1000):
                told += some
                if REPLY.pack(8, 0, 0)[:8] in told:
                    break
            writer.close()
            return told

    told = asyncio.run(run())
    assert shares.share(ORIGIN, other, 3) not in told
    assert told


def test_another_user_than_the_vault_writes_nothing_about_keys(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, peers=Peers(ME, NOBODY)) as (opened, client):
            with pytest.raises(NotAllowedError):
                await client.append(ORIGIN, release(1))
            assert (await client.append(ORIGIN, entry(1))).index == 0
            assert opened.log(ORIGIN).size == 1

    asyncio.run(run())


def test_another_user_than_the_vault_says_nothing_about_its_number(tmp_path: Path) -> None:
    """The vault would go on from it at its next start, and from the largest there is it could not."""

    async def run() -> None:
        plain = parse_entry(entry(1, kind=Kind.ADMINISTRATION))
        assert isinstance(plain, Entry)
        numbered = replace(plain, release_counter=2**64 - 1).encode()
        counted = replace(plain, count=7).encode()
        async with served(tmp_path, peers=Peers(ME, NOBODY)) as (_, client):
            with pytest.raises(NotAllowedError):
                await client.append(ORIGIN, numbered)
            assert (await client.append(ORIGIN, counted)).index == 0
            with pytest.raises(InvalidEntryError):
                await client.append(ORIGIN, replace(plain, event=UUID(int=9), release_counter=1).encode()[:-1])
        async with served(tmp_path) as (_, client):
            with pytest.raises(EventReusedError):  # the vault may, but for the event
                await client.append(ORIGIN, numbered)

    asyncio.run(run())


def test_a_user_that_may_not_write_is_hung_up_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, peers=Peers(NOBODY, NOBODY)) as (opened, client):
            with pytest.raises(JournalUnavailableError):
                await client.append(ORIGIN, entry(1))
            assert opened.log(ORIGIN).size == 0

    asyncio.run(run())


def test_a_level_can_be_awaited_over_the_socket(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client):
            waiting = asyncio.create_task(client.append(ORIGIN, entry(0), Level.PUBLISHED))
            while opened.log(ORIGIN).size == 0:
                await asyncio.sleep(0)
            opened.tick()
            assert (await waiting).index == 0
            with pytest.raises(LevelTimeoutError):
                await client.wait(ORIGIN, 5, Level.WITNESSED, 0.0)

    asyncio.run(run())


def test_a_journal_that_goes_away_ends_every_wait_and_the_client_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        client = JournalClient(tmp_path / "s")
        with pytest.raises(JournalUnavailableError):
            await client.append(ORIGIN, entry(0))
        for number in range(2):
            async with journal(tmp_path) as opened, listen(tmp_path / "s", opened, Peers(ME, ME)):
                assert (await client.append(ORIGIN, entry(number))).index == number
                waiting = asyncio.create_task(client.wait(ORIGIN, 99, Level.PUBLISHED, 10))
                await asyncio.sleep(0)
            with pytest.raises(JournalUnavailableError):
                await waiting

    asyncio.run(run())


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_how_requests_are_cut_does_not_matter(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    async def run(folder: Path) -> None:
        async with served(folder) as (opened, _):
            stream = b"".join(REQUEST.pack(128, opened.log(ORIGIN).number, i) + entry(i) for i in range(9))
            reader, writer = await asyncio.open_unix_connection(folder / "s")
            at = 0
            for cut in [*cuts, len(stream)]:
                writer.write(stream[at : at + cut])
                await writer.drain()
                await asyncio.sleep(0)
                at += cut
            replies = await reader.readexactly(17 * 9)
            assert list(REPLY.iter_unpack(replies)) == [(i, i, 0) for i in range(9)]
            writer.close()

    asyncio.run(run(tmp_path_factory.mktemp("j")))


@given(st.binary(max_size=120))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_of_any_bytes_is_answered_or_waited_for(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    async def run(folder: Path) -> None:
        async with served(folder) as (opened, client):
            reader, writer = await asyncio.open_unix_connection(folder / "s")
            writer.write(REQUEST.pack(len(data), 0xFFFF, 5) + data + REQUEST.pack(len(data), 0, 6) + data)
            _, index, length = REPLY.unpack(await reader.readexactly(17))
            assert index >= FIRST_ERROR
            await reader.readexactly(length)
            writer.close()
            assert (await client.append(ORIGIN, entry(0))).index == 0
            assert opened.log(ORIGIN).size == 1

    asyncio.run(run(tmp_path_factory.mktemp("j")))


def test_each_error_of_the_table_travels() -> None:
    for error in (EventReusedError("x"), QuarantinedError(("x",)), LevelTimeoutError("x")):
        request_id, index, length = REPLY.unpack_from(data := error_reply(4, error))
        assert request_id == 4
        assert type(error_of(index, data[17 : 17 + length])) is type(error)


def test_a_limit_of_shares_is_per_hour_and_log() -> None:
    now = NOW_US
    shares = KeyShares({ORIGIN: None, OTHER: None}, per_hour=1, now_us=lambda: now)
    shares.take(ORIGIN)
    shares.take(OTHER)
    with pytest.raises(ShareLimitError):
        shares.take(ORIGIN)
    now += HOUR_US
    shares.take(ORIGIN)
    assert shares.share(ORIGIN, bytes(16), 1) == bytes(32)
    with pytest.raises(UnknownLogError):  # never zeros for a log whose key is just not known
        shares.take(ORIGIN + "x")


def test_a_journal_that_accepts_and_never_answers_ends_the_wait(tmp_path: Path) -> None:
    async def run() -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(swallow, tmp_path / "s"):
            client = JournalClient(tmp_path / "s", answer_s=0.01)
            with pytest.raises(JournalUnavailableError):
                await client.append(ORIGIN, entry(0))
            await client.close()

    asyncio.run(run())


def test_whoever_stops_waiting_for_a_batch_leaves_no_error_behind_that_nobody_hears(tmp_path: Path) -> None:
    async def run() -> None:
        unheard: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: unheard.append(context))
        asked, ended = asyncio.Event(), asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readexactly(REQUEST.size)
            length, _, request_id = REQUEST.unpack(request)
            await reader.readexactly(length)
            writer.write(REPLY.pack(request_id, 0, 0))  # the number of the log, and then nothing more
            await reader.readexactly(3 * REQUEST.size)
            asked.set()
            await reader.read()
            writer.close()
            await writer.wait_closed()
            ended.set()

        async with await asyncio.start_unix_server(mute, str(tmp_path / "s")):
            client = JournalClient(tmp_path / "s")
            batch = asyncio.create_task(client.append_all(ORIGIN, [entry(1), entry(2), entry(3)]))
            await asked.wait()
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            await client.close()
            await ended.wait()
        gc.collect()
        assert unheard == []

    asyncio.run(run())


def test_a_refused_entry_of_a_batch_does_not_end_the_wait_for_the_others(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client):
            with pytest.raises(InvalidEntryError):
                await client.append_all(ORIGIN, [bytes(130), entry(1), bytes(131), entry(2)])
            assert list(opened.read(ORIGIN, 0, 2)) == [entry(1), entry(2)]

    asyncio.run(run())
