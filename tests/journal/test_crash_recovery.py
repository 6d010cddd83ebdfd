"""Starting again: what was acknowledged is there, and what was altered, cut or forked is named (journal.md § 12.3)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.journal.faulty_disk import FaultyDisk, When
from tests.journal.journals import ORIGIN, OTHER, entry, journal, settings, signer

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.contracts import QuarantinedError
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.recovery import contradictions, open_journal
from schleuse.journal.state import read_state
from schleuse.journal.store import Journal
from schleuse.journal.tree import MemoryTree
from schleuse.journal.wal import segment_name

ENTRIES = [entry(i) for i in range(3000)]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


async def wrote(folder: Path, count: int = 3000, *, saved: bool = True) -> None:
    """A journal with entries over many segments, closed in order or (saved=False) left as a crash leaves it."""
    async with journal(folder) as opened:
        for start in range(0, count, 150):
            await opened.append_many(ORIGIN, ENTRIES[start : start + 150])
            await opened.append(OTHER, ENTRIES[start])
            opened.tick()
            await opened.keeping.idle()
        if not saved:
            _copy_as_a_crash_would(folder)
    if not saved:
        shutil.rmtree(folder / "journal")
        (folder / "crashed").rename(folder / "journal")


def _copy_as_a_crash_would(folder: Path) -> None:
    shutil.copytree(folder / "journal", folder / "crashed")


def findings(folder: Path) -> tuple[str, ...]:
    async def run() -> tuple[str, ...]:
        async with journal(folder) as opened:
            if opened.findings:
                with pytest.raises(QuarantinedError):
                    await opened.append(ORIGIN, entry(9999))
                opened.tick()
            return opened.findings

    return asyncio.run(run())


@pytest.mark.parametrize("saved", [True, False])
def test_a_journal_goes_on_where_it_ended(tmp_path: Path, saved: bool) -> None:
    async def run() -> None:
        await wrote(tmp_path, saved=saved)
        async with journal(tmp_path) as opened:
            assert opened.findings == ()
            assert list(opened.read(ORIGIN, 0, 3000)) == ENTRIES
            assert opened.log(ORIGIN).frontier.root() == MemoryTree(ENTRIES).root()
            assert opened.log(ORIGIN).served is not None
            assert (await opened.append(ORIGIN, entry(3000))).index == 3000
            assert (await opened.append(ORIGIN, entry(2999))).index == 2999
        async with journal(tmp_path) as opened:
            assert opened.log(ORIGIN).size == 3001
            assert opened.log(OTHER).size == 20

    asyncio.run(run())


def test_old_segments_are_given_up_only_when_the_trees_are_flushed(tmp_path: Path) -> None:
    asyncio.run(wrote(tmp_path))
    names = sorted(path.name for path in (tmp_path / "journal" / "wal").iterdir())
    assert names[0] > "wal-000000000003"
    assert len(names) <= 6


def alter(*names: str, offset: int = 5000) -> Callable[[Path], str]:
    def change(folder: Path) -> str:
        path = folder.joinpath("journal", *names)
        flip(path, min(offset, path.stat().st_size - 1))
        return names[-1]

    return change


@pytest.mark.parametrize(
    "change",
    [
        alter("logs", "00000", "entries-000000"),
        alter("logs", "00000", "entries-000003", offset=0),
        alter("logs", "00000", "b00", offset=96_000 - 1),
        alter("logs", "00000", "b01"),
        alter("logs", "00000", "b11", offset=1),
        *(alter("logs", "00000", "offsets", offset=offset) for offset in (7, 14, 15, 16, 17, 22, 23, 87)),
        alter("logs", "00001", "b00", offset=3),
        alter("state", offset=80),
        alter("state", offset=2),
        alter("logs", "00000", "checkpoint", offset=3),
    ],
)
@pytest.mark.parametrize("saved", [True, False])
def test_one_altered_byte_is_named_at_the_next_start(
    tmp_path: Path, change: Callable[[Path], str], saved: bool
) -> None:
    asyncio.run(wrote(tmp_path, saved=saved))
    name = change(tmp_path)
    found = findings(tmp_path)
    state = (tmp_path / "journal" / "state").read_bytes()
    if saved or "checkpoint" in name or "state" in name:
        assert found
        assert any(name in one for one in found)
    elif found:  # behind the state the write-ahead log is the truth, and the file is written again from it
        assert any(name in one for one in found)
    assert findings(tmp_path) == found
    assert not found or (tmp_path / "journal" / "state").read_bytes() == state


@pytest.mark.parametrize("offset", range(8, 16))
def test_an_altered_offset_is_named_where_entries_before_it_were_deleted(tmp_path: Path, offset: int) -> None:
    """What is left below the minimum are zeros, in which many ways lead to the entries that stay (journal.md § 17)."""

    async def pruned() -> None:
        await wrote(tmp_path, 600)
        async with journal(tmp_path) as opened:
            await opened.prune(ORIGIN, 300)

    asyncio.run(pruned())
    path = tmp_path / "journal" / "logs" / "00000" / "offsets"
    intact = path.read_bytes()
    for bit in range(8):
        data = bytearray(intact)
        data[offset] ^= 1 << bit
        path.write_bytes(data)
        assert "offsets" in "".join(findings(tmp_path))


def test_a_file_that_was_deleted_or_cut_is_named(tmp_path: Path) -> None:
    asyncio.run(wrote(tmp_path))
    (tmp_path / "journal" / "logs" / "00000" / "b03").unlink()
    assert "b03" in findings(tmp_path)[0]


def test_a_state_that_was_deleted_is_named(tmp_path: Path) -> None:
    asyncio.run(wrote(tmp_path))
    (tmp_path / "journal" / "state").unlink()
    assert "state" in findings(tmp_path)[0]


def test_an_altered_byte_in_the_last_frame_is_named_if_it_was_applied(tmp_path: Path) -> None:
    asyncio.run(wrote(tmp_path))
    last = read_state(tmp_path / "journal").applied
    segment = tmp_path / "journal" / "wal" / segment_name(last.segment)
    flip(segment, last.offset - 4000)
    assert segment.name in findings(tmp_path)[0]


def test_an_altered_byte_in_any_kept_frame_but_the_last_is_named(tmp_path: Path) -> None:
    asyncio.run(wrote(tmp_path))
    oldest = read_state(tmp_path / "journal").oldest.segment
    segment = tmp_path / "journal" / "wal" / segment_name(oldest)
    flip(segment, 300)
    assert segment.name in findings(tmp_path)[0]


def test_a_torn_tail_is_dropped_because_nobody_was_told(tmp_path: Path) -> None:
    async def run() -> None:
        disk = FaultyDisk()
        async with journal(tmp_path, disk) as opened:
            await opened.append_many(ORIGIN, ENTRIES[:50])
            disk.choose = lambda name: When.HALF if name == "write" else None
            with pytest.raises(Exception, match="disk of the journal failed"):
                await opened.append_many(ORIGIN, ENTRIES[50:200])
        async with journal(tmp_path) as opened:
            assert opened.findings == ()
            assert opened.log(ORIGIN).size == 50
            assert (await opened.append(ORIGIN, ENTRIES[50])).index == 50

    asyncio.run(run())


def test_a_write_ahead_log_that_lost_its_end_is_noticed_by_the_served_note(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append(OTHER, ENTRIES[0])
            await opened.append_many(ORIGIN, ENTRIES[:50])
            opened.tick()
            while opened.log(ORIGIN).served is None:
                await asyncio.sleep(0)
            _copy_as_a_crash_would(tmp_path)

    asyncio.run(run())
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "crashed").rename(tmp_path / "journal")
    segment = tmp_path / "journal" / "wal" / "wal-000000000000"
    segment.write_bytes(segment.read_bytes()[:4096].ljust(64 * 1024, b"\0"))  # the frame that opened the logs only
    assert findings(tmp_path) == (
        f"{ORIGIN}: logs/00000/checkpoint has size 50, the disk has 0 entries; the end is missing",
    )


def test_a_log_that_lost_its_very_beginning_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append_many(ORIGIN, ENTRIES[:50])
            opened.tick()
            while opened.log(ORIGIN).served is None:
                await asyncio.sleep(0)
            _copy_as_a_crash_would(tmp_path)

    asyncio.run(run())
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "crashed").rename(tmp_path / "journal")
    (tmp_path / "journal" / "wal" / "wal-000000000000").write_bytes(bytes(64 * 1024))
    assert "logs/00000/checkpoint" in findings(tmp_path)[0]


def test_a_deleted_last_segment_is_noticed(tmp_path: Path) -> None:
    asyncio.run(wrote(tmp_path, saved=False))
    with_frames = [
        path for path in sorted((tmp_path / "journal" / "wal").glob("wal-*")) if path.read_bytes()[:4] == b"JWB1"
    ]
    with_frames[-1].unlink()
    assert findings(tmp_path)


def test_an_older_copy_of_everything_is_shown_by_a_witness(tmp_path: Path) -> None:
    async def run() -> None:
        await wrote(tmp_path, 600)
        async with journal(tmp_path) as opened:
            log = opened.log(ORIGIN)
            newer = Checkpoint(ORIGIN, 3000, MemoryTree(ENTRIES).root())
            assert "end is missing" in next(contradictions(log, newer, "a witness"))
            same = Checkpoint(ORIGIN, 400, MemoryTree(ENTRIES[:400]).root())
            assert list(contradictions(log, same, "a witness")) == []
            forked = Checkpoint(ORIGIN, 400, MemoryTree(ENTRIES[1:401]).root())
            assert "another root" in next(contradictions(log, forked, "a witness"))

    asyncio.run(run())


def test_a_log_whose_signed_history_was_replaced_is_noticed(tmp_path: Path) -> None:
    """The whole store rebuilt without one entry, with the served note of the true one beside it (T-09)."""

    async def build(folder: Path, entries: list[bytes]) -> None:
        async with journal(folder) as opened:
            await opened.append_many(ORIGIN, entries)
            opened.tick()
            while opened.log(ORIGIN).served is None:
                await asyncio.sleep(0)

    asyncio.run(build(tmp_path / "true", ENTRIES[:80]))
    asyncio.run(build(tmp_path / "false", [*ENTRIES[:40], entry(7777), *ENTRIES[41:80]]))
    note = (tmp_path / "true" / "journal" / "logs" / "00000" / "checkpoint").read_bytes()
    replace(OsDisk(), tmp_path / "false" / "journal" / "logs" / "00000" / "checkpoint", note)
    assert "another root at size 80" in findings(tmp_path / "false")[0]


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("call", ["write", "sync", "rename", "sync_directory", "open"])
def test_a_start_that_fails_anywhere_can_be_repeated(tmp_path: Path, call: str, when: When) -> None:
    asyncio.run(wrote(tmp_path, 300, saved=False))
    for number in range(40):
        left = number

        def choose(name: str) -> When | None:
            nonlocal left
            if name != call:
                return None
            left -= 1
            return when if left == -1 else None

        disk = FaultyDisk(choose)
        try:
            asyncio.run(_open_and_close(tmp_path, disk))
        except OSError:
            disk.leave()
            continue
        if left >= 0:
            break
    assert findings(tmp_path) == ()

    async def check() -> None:
        async with journal(tmp_path) as opened:
            assert list(opened.read(ORIGIN, 0, 300)) == ENTRIES[:300]

    asyncio.run(check())


async def _open_and_close(folder: Path, disk: FaultyDisk) -> Journal:
    opened = open_journal(settings(folder), disk=disk)
    await opened.close()
    return opened


def test_the_key_of_the_tests_signs_for_its_log() -> None:
    assert signer().key.name == ORIGIN
