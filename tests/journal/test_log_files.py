"""Level files and entry files: every tile and bundle of every size is a range of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journal.faulty_disk import FaultyDisk, When, nth

from schleuse.journal.contracts import BeyondSizeError
from schleuse.journal.disk import Disk, OsDisk
from schleuse.journal.hashing import leaf_hashes
from schleuse.journal.levels import EntryFiles, Files, TreeFiles
from schleuse.journal.tiles import Bundle, bundle_bytes, bundles_of, tile_bytes, tiles_of
from schleuse.journal.tree import Frontier, MemoryTree

ENTRIES = [b"entry-%d" % i * (1 + i % 3) for i in range(1700)]


_opened: list[Files] = []


@pytest.fixture(autouse=True)
def closes() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def files_of(disk: Disk | None = None, most: int = 3) -> Files:
    _opened.append(Files(disk or OsDisk(), most=most))
    return _opened[-1]


def entry_files(folder: Path) -> EntryFiles:
    return EntryFiles(folder, files_of(most=2), segment_entries=512)


def written(folder: Path, size: int, batch: int) -> tuple[TreeFiles, EntryFiles]:
    tree, entries, frontier = TreeFiles(folder, files_of()), entry_files(folder), Frontier()
    tree.begin_at(0)
    entries.begin_at(0)
    for start in range(0, size, batch):
        part = ENTRIES[start : min(start + batch, size)]
        tree.add(frontier.extend(leaf_hashes(part)))
        entries.add(part)
        if start % 3:
            tree.write()
            entries.write()
    return tree, entries


@given(st.integers(1, 1700), st.integers(1, 700))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_tile_and_bundle_of_a_size_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, batch: int
) -> None:
    tree, entries = written(tmp_path_factory.mktemp("log"), size, batch)
    memory = MemoryTree(ENTRIES[:size])
    for tile in tiles_of(size):
        assert tree.tile(tile) == tile_bytes(tile, memory)
    for bundle in bundles_of(size):
        first = 256 * bundle.index
        assert entries.bundle(bundle) == bundle_bytes(ENTRIES[first : first + bundle.width])
    assert list(entries.read(0, size)) == ENTRIES[:size]
    assert list(entries.read(size // 3, size // 2)) == ENTRIES[size // 3 : size // 2]


@given(st.integers(0, 1400), st.integers(0, 300))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_cut_to_a_size_go_on_from_there(tmp_path_factory: pytest.TempPathFactory, size: int, more: int) -> None:
    folder = tmp_path_factory.mktemp("log")
    for file in written(folder, 1400, 200):
        file.write()
    tree, entries = TreeFiles(folder, files_of()), entry_files(folder)
    tree.begin_at(size)
    entries.begin_at(size)
    frontier = Frontier.of(size, tree)
    part = ENTRIES[size : size + more]
    tree.add(frontier.extend(leaf_hashes(part)))
    entries.add(part)
    assert frontier.root() == MemoryTree(ENTRIES[: size + more]).root()
    assert list(entries.read(0, size + more)) == ENTRIES[: size + more]


def test_entries_below_the_minimum_are_gone_and_those_above_are_not(tmp_path: Path) -> None:
    _, entries = written(tmp_path, 1400, 100)
    entries.erase_below(700)
    assert not (tmp_path / "entries-000000").exists()
    assert list(entries.read(700, 1400)) == ENTRIES[700:1400]
    assert ENTRIES[699] not in (tmp_path / "entries-000001").read_bytes()
    again = entry_files(tmp_path)
    again.begin_at(1400)
    assert list(again.read(700, 1400)) == ENTRIES[700:1400]


def test_a_shorter_file_than_the_log_is_told_by_name(tmp_path: Path) -> None:
    _, entries = written(tmp_path, 600, 100)
    entries.write()
    with (tmp_path / "entries-000001").open("r+b") as file:
        file.truncate(20)
    with pytest.raises(BeyondSizeError, match="entries-000001"):
        entry_files(tmp_path).begin_at(600)


def test_a_bundle_beyond_the_size_is_refused(tmp_path: Path) -> None:
    _, entries = written(tmp_path, 300, 100)
    with pytest.raises(BeyondSizeError):
        entries.bundle(Bundle(1, 45))


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("number", range(6))
def test_what_the_disk_did_not_take_waits_and_stands_where_it_belongs(tmp_path: Path, when: When, number: int) -> None:
    disk = FaultyDisk(nth("write", when, number))
    files, frontier = files_of(disk), Frontier()
    tree, entries = TreeFiles(tmp_path, files), EntryFiles(tmp_path, files, segment_entries=512)
    for file in (tree, entries):
        file.begin_at(0)
    for start in (0, 700):  # the entries cross the end of a segment each time
        part = ENTRIES[start : start + 700]
        entries.add(part)
        tree.add(frontier.extend(leaf_hashes(part)))
        for file in (entries, tree):
            with suppress(OSError):
                file.write()
    assert list(entries.read(0, 1400)) == ENTRIES[:1400]
    memory = MemoryTree(ENTRIES[:1400])
    assert all(tree.tile(tile) == tile_bytes(tile, memory) for tile in tiles_of(1400))
