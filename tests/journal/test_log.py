"""Appending: groups, order, repeats, levels, limits, and what a failing disk does (journal.md § 12, § 13)."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest
from tests.journal.faulty_disk import FaultyDisk, When, nth
from tests.journal.journals import NOW_US, ORIGIN, OTHER, config, entry, journal, release

from schleuse.journal import housekeeping, store
from schleuse.journal.admission import InvalidEntryError
from schleuse.journal.contracts import (
    EventReusedError,
    JournalBusyError,
    JournalFullError,
    JournalUnavailableError,
    Level,
    LevelTimeoutError,
    UnknownLogError,
)
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.note import parse_note
from schleuse.journal.proof_file import parse_proof_file, verify
from schleuse.journal.tree import MemoryTree


def test_entries_get_indexes_in_order_and_can_be_read(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            receipts = await asyncio.gather(*(opened.append(ORIGIN, entry(i)) for i in range(300)))
            assert [receipt.index for receipt in receipts] == list(range(300))
            assert receipts[7].leaf_hash == leaf_hash(entry(7))
            assert list(opened.read(ORIGIN, 5, 300)) == [entry(i) for i in range(5, 300)]

    asyncio.run(run())


def test_all_that_waits_shares_one_flush(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with journal(tmp_path, disk) as opened:
            await opened.append(ORIGIN, entry(0))
            disk.calls.clear()
            await asyncio.gather(*(opened.append((ORIGIN, OTHER)[i % 2], entry(i)) for i in range(1, 200)))
            assert disk.calls.count("sync") == 1

    asyncio.run(run())


def test_each_of_a_group_is_told_its_own_index_whoever_else_waits_in_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            first, many, other, last = await asyncio.gather(
                opened.append(ORIGIN, entry(0)),
                opened.append_many(ORIGIN, [entry(1), entry(0), entry(2)]),
                opened.append_many(OTHER, [entry(5), entry(6)]),
                opened.append(ORIGIN, entry(3)),
            )
            assert (first.index, list(many), list(other), last.index) == (0, [1, 0, 2], [0, 1], 3)
            assert list(opened.read(ORIGIN, 0, 4)) == [entry(i) for i in range(4)]

    asyncio.run(run())


def test_more_than_a_frame_holds_goes_into_several(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path, spares=8) as opened:
            assert await opened.append_many(ORIGIN, [entry(i) for i in range(1500)]) == range(1500)
            assert list(opened.read(ORIGIN, 0, 1500)) == [entry(i) for i in range(1500)]

    asyncio.run(run())


def test_the_same_event_with_the_same_bytes_has_the_earlier_index(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            first, again = await asyncio.gather(opened.append(ORIGIN, entry(1)), opened.append(ORIGIN, entry(1)))
            later = await opened.append(ORIGIN, entry(1))
            assert first.index == again.index == later.index == 0
            assert await opened.append_many(ORIGIN, [entry(2), entry(1), entry(3)]) == [1, 0, 2]
            assert (await opened.append(OTHER, entry(1))).index == 0  # another log, another event

    asyncio.run(run())


def test_the_same_event_with_other_bytes_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append(ORIGIN, entry(1))
            with pytest.raises(EventReusedError):
                await opened.append(ORIGIN, entry(1, kind=0x11))

    asyncio.run(run())


@pytest.mark.parametrize("later_s", [0, 119])
def test_a_repeat_is_known_after_a_restart_though_its_segment_was_given_up(tmp_path: Path, later_s: int) -> None:
    """§ 4: as long as its time is admitted; whoever heard no answer sends it again (§ 13)."""
    first = []

    async def write() -> None:
        async with journal(tmp_path) as opened:
            for number in range(300):
                first.append((await opened.append(ORIGIN, entry(number))).index)
                await opened.keeping.idle()
            assert opened.keeping._oldest.segment > 1

    asyncio.run(write())

    async def again() -> None:
        async with journal(tmp_path, now_us=lambda: NOW_US + later_s * 1_000_000) as opened:
            for number in (0, 150, 299):
                assert (await opened.append(ORIGIN, entry(number))).index == first[number]
            with pytest.raises(EventReusedError):
                await opened.append(ORIGIN, entry(0, kind=0x11))
            assert (await opened.append(ORIGIN, entry(300))).index == first[-1] + 1

    asyncio.run(again())


def test_a_repeat_is_known_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append_many(ORIGIN, [entry(i) for i in range(10)])
        async with journal(tmp_path) as opened:
            assert (await opened.append(ORIGIN, entry(4))).index == 4
            assert (await opened.append(ORIGIN, entry(10))).index == 10

    asyncio.run(run())


def test_an_invalid_entry_or_an_unknown_log_writes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            with pytest.raises(InvalidEntryError):
                await opened.append_many(ORIGIN, [entry(0), b"no entry"])
            with pytest.raises(UnknownLogError):
                await opened.append("journal.example/nobody/2027", entry(0))
            assert opened.log(ORIGIN).next == 0

    asyncio.run(run())


def test_nobody_is_told_before_the_flush_is_done(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with journal(tmp_path, disk, inline=False) as opened:
            disk.gate = threading.Event()
            waiting = asyncio.create_task(opened.append(ORIGIN, entry(0)))
            repeated = asyncio.create_task(opened.append(ORIGIN, entry(0)))
            await asyncio.to_thread(disk.in_sync.wait, 20)
            for _ in range(50):
                await asyncio.sleep(0)
            assert not waiting.done()
            assert not repeated.done()
            disk.gate.set()
            assert (await waiting).index == (await repeated).index == 0

    asyncio.run(run())


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    ("call", "when"), [(c, w) for c in ("write", "sync") for w in When if (c, w) != ("sync", When.HALF)]
)
def test_a_failed_flush_fails_everybody_and_is_never_tried_again(
    tmp_path: Path, call: str, when: When, inline: bool
) -> None:
    async def run() -> None:
        disk, told = FaultyDisk(), []
        async with journal(tmp_path, disk, inline=inline) as opened:
            await opened.append(ORIGIN, entry(0))
            opened._on_failure = lambda: told.append("failed")
            disk.choose = nth(call, when)
            results = await asyncio.gather(
                *(opened.append(ORIGIN, entry(i)) for i in range(1, 30)), return_exceptions=True
            )
            assert {type(result) for result in results} == {JournalUnavailableError}
            with pytest.raises(JournalUnavailableError):
                await opened.append(ORIGIN, entry(99))
            assert told == ["failed"]
        async with journal(tmp_path) as again:
            size = (await again.append(ORIGIN, entry(500))).index
            assert size in {1, 30}  # all of the group or nothing of it
            assert list(again.read(ORIGIN, 0, 1)) == [entry(0)]

    asyncio.run(run())


def test_without_a_spare_segment_appends_are_refused_and_reads_go_on(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FaultyDisk(number=errno.ENOSPC)
        async with journal(tmp_path, disk, spares=1) as opened:
            opened._wal.prepare = _no_room  # type: ignore[method-assign]
            for start in range(0, 5000, 100):
                try:
                    await opened.append_many(ORIGIN, [entry(i) for i in range(start, start + 100)])
                except JournalFullError:
                    break
            else:
                pytest.fail("never full")
            size = opened.log(ORIGIN).size
            assert list(opened.read(ORIGIN, size - 1, size)) == [entry(size - 1)]
            assert opened.health()["spare_segments"] == 0
            del opened._wal.prepare
            opened.tick()
            while opened.health()["spare_segments"] == 0:
                await asyncio.sleep(0.001)
            assert (await opened.append(ORIGIN, entry(start))).index == size

    asyncio.run(run())


def _no_room() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_too_many_that_wait_are_told_busy_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PENDING", 10)

    async def run() -> None:
        async with journal(tmp_path) as opened:
            results = await asyncio.gather(
                *(opened.append(ORIGIN, entry(i)) for i in range(12)), return_exceptions=True
            )
            assert [type(r) for r in results[10:]] == [JournalBusyError] * 2
            assert (await opened.append(ORIGIN, entry(11))).index == 10

    asyncio.run(run())


def test_an_event_that_was_refused_is_not_taken_for_known(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            late = entry(1)[:8] + bytes(8) + entry(1)[16:]
            for _ in range(2):
                with pytest.raises(InvalidEntryError, match="120 s"):
                    await opened.append(ORIGIN, late)
            assert (await opened.append(ORIGIN, entry(1))).index == 0
            assert (await opened.append(ORIGIN, entry(1))).index == 0

    asyncio.run(run())


def test_large_buffers_go_to_the_files_of_the_tree_before_the_next_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where these cannot grow, no more is taken until there is room, as after a tick (§ 12.3)."""
    monkeypatch.setattr(housekeeping, "MUCH", 20 * 130)

    async def run() -> None:
        async with journal(tmp_path) as opened:
            log = opened.log(ORIGIN)
            await opened.append_many(ORIGIN, [entry(i) for i in range(19)])
            assert log.entries.waiting == 19 * 130
            await opened.append(ORIGIN, entry(19))
            assert log.entries.waiting == 0
            log.entries.write = _no_room  # type: ignore[method-assign]
            await opened.append_many(ORIGIN, [entry(i) for i in range(20, 50)])
            with pytest.raises(JournalFullError, match="files of the tree"):
                await opened.append(ORIGIN, entry(50))
            del log.entries.write
            opened.tick()
            assert (await opened.append(ORIGIN, entry(50))).index == 50
            assert list(opened.read(ORIGIN, 0, 51)) == [entry(i) for i in range(51)]

    asyncio.run(run())


def test_published_waits_for_a_durable_signed_checkpoint(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append(ORIGIN, entry(0))
            waiting = asyncio.create_task(opened.append(ORIGIN, entry(1), Level.PUBLISHED))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
            opened.tick()
            receipt = await waiting
            proof = parse_proof_file(opened.proof_file(ORIGIN, receipt.index))
            proven = verify(proof, entry(1), config().policy)
            assert (proven.size, proven.index) == (2, 1)
            assert MemoryTree([entry(0), entry(1)]).root() == opened.log(ORIGIN).served.checkpoint.root  # type: ignore[union-attr]
            assert parse_note(opened.checkpoint(ORIGIN)).text.startswith(ORIGIN)

    asyncio.run(run())


def test_a_level_that_does_not_come_in_time_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append(ORIGIN, entry(0))
            with pytest.raises(LevelTimeoutError, match="WITNESSED"):
                await opened.wait(ORIGIN, 1, Level.WITNESSED, 0.0)

    asyncio.run(run())


def test_a_key_release_brings_the_share_for_its_subject_and_version(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path, share=lambda origin, subject, version: subject + bytes([version])) as opened:
            receipt = await opened.append(ORIGIN, release(1))
            assert receipt.share == b"\xb1" * 16 + b"\x03"
            assert "share" not in repr(receipt)
            assert (await opened.append(ORIGIN, entry(2))).share is None

    asyncio.run(run())
