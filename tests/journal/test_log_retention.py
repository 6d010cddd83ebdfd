"""After their period entries are gone from the disk, and every proof stays valid (journal.md § 17, RP-08)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.journal.journals import ORIGIN, entry, journal

from schleuse.journal.contracts import BeyondSizeError, Level
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.proof import is_included


def on_disk(folder: Path, data: bytes) -> bool:
    return any(data in path.read_bytes() for path in (folder / "journal" / "logs").rglob("entries-*"))


def test_deleted_entries_are_gone_and_their_proofs_stay(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append_many(ORIGIN, [entry(i) for i in range(400)])
            await opened.append_many(ORIGIN, [entry(i) for i in range(400, 800)])
            with pytest.raises(BeyondSizeError):
                await opened.prune(ORIGIN, 1)  # nothing is served yet
            opened.tick()
            await opened.wait(ORIGIN, 800, Level.WITNESSED, 5)
            await opened.prune(ORIGIN, 600)
            assert not any(on_disk(tmp_path, entry(i)) for i in range(600))
            assert list(opened.read(ORIGIN, 600, 800)) == [entry(i) for i in range(600, 800)]
            with pytest.raises(BeyondSizeError):
                opened.read(ORIGIN, 599, 601)
            with pytest.raises(BeyondSizeError):
                await opened.prune(ORIGIN, 599)
            served = opened.log(ORIGIN).served
            assert served is not None
            path = opened.inclusion(ORIGIN, 5, 800)
            assert is_included(5, 800, leaf_hash(entry(5)), path, served.checkpoint.root)

    asyncio.run(run())


def test_a_crash_after_the_deletion_brings_nothing_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path, segment_size=1 << 20) as opened:
            await opened.append_many(ORIGIN, [entry(i) for i in range(400)])
            opened.tick()
            await opened.wait(ORIGIN, 400, Level.WITNESSED, 5)
            await opened.save()
            await opened.append_many(ORIGIN, [entry(i) for i in range(400, 800)])
            opened.tick()
            await opened.wait(ORIGIN, 800, Level.WITNESSED, 5)
            await opened.prune(ORIGIN, 600)
            shutil.copytree(tmp_path / "journal", tmp_path / "crashed" / "journal")
        async with journal(tmp_path / "crashed", segment_size=1 << 20) as opened:
            assert opened.findings == ()
            assert not any(on_disk(tmp_path / "crashed", entry(i)) for i in range(600))
            assert list(opened.read(ORIGIN, 600, 800)) == [entry(i) for i in range(600, 800)]

    asyncio.run(run())


@pytest.mark.parametrize("index", [1, 255, 256, 511, 512, 800])
def test_a_pruned_log_starts_again_without_findings_and_grows(tmp_path: Path, index: int) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append_many(ORIGIN, [entry(i) for i in range(400)])
            await opened.append_many(ORIGIN, [entry(i) for i in range(400, 800)])
            opened.tick()
            await opened.wait(ORIGIN, 800, Level.WITNESSED, 5)
            await opened.prune(ORIGIN, index)
        async with journal(tmp_path) as opened:
            assert opened.findings == ()
            assert opened.log(ORIGIN).minimum == index
            assert (await opened.append(ORIGIN, entry(800))).index == 800
            assert list(opened.read(ORIGIN, index, 801)) == [entry(i) for i in range(index, 801)]

    asyncio.run(run())
