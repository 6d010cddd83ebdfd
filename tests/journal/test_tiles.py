"""Tiles and bundles: paths with one spelling, content to the byte (C2SP tlog-tiles)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import leaves, tree

from schleuse.errors import MalformedError
from schleuse.journal.tiles import (
    MAX_ENTRY,
    BadTileError,
    Bundle,
    Tile,
    bundle_bytes,
    bundles_of,
    is_in,
    parse_path,
    split_bundle,
    split_tile,
    tile_bytes,
    tiles_of,
)

INDEXES = st.integers(0, (2**63 - 1) // 256)
WIDTHS = st.integers(1, 256)


@given(st.builds(Tile, st.integers(0, 7), INDEXES, WIDTHS) | st.builds(Bundle, INDEXES, WIDTHS))
def test_a_path_names_what_it_was_made_of(resource: Tile | Bundle) -> None:
    assert parse_path(resource.path) == resource


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/00/000",
        "tile/8/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x1/002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/07",
        "tile/0/000.p/",
        "tile/0/000/",
        "tile/0/٠٠٠",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/data/000",
        "tile/entries/x999/x999/x999/x999/x999/x999/999",
        "tile/entries/../0/000",
        "",
    ],
)
def test_any_other_spelling_is_no_path(path: str) -> None:
    with pytest.raises(BadTileError):
        parse_path(path)


@given(st.text(max_size=30))
def test_any_path_gets_an_answer(path: str) -> None:
    with suppress(MalformedError):
        assert parse_path(path).path == path


def test_the_tiles_of_a_size_hold_every_hash_of_each_eighth_level_once() -> None:
    for size in (0, 1, 255, 256, 257, 65_535, 65_536, 70_000):
        for level in range(8):
            held = sum(tile.width for tile in tiles_of(size) if tile.level == level)
            assert held == size >> (8 * level)


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_what_is_new_since_an_earlier_size_completes_what_was_there(one: int, other: int) -> None:
    old, new = sorted((one, other))
    assert set(tiles_of(new)) <= set(tiles_of(old)) | set(tiles_of(new, since=old))
    assert set(bundles_of(new)) <= set(bundles_of(old)) | set(bundles_of(new, since=old))
    assert not set(tiles_of(old)) & set(tiles_of(new, since=old))


@given(st.integers(1, 70_000))
def test_all_tiles_and_bundles_of_a_size_are_in_it_and_none_of_the_next_new_ones(size: int) -> None:
    assert all(is_in(tile, size) for tile in tiles_of(size))
    assert all(is_in(bundle, size) for bundle in bundles_of(size))
    assert not any(is_in(resource, size - 1) for resource in bundles_of(size, since=size - 1))


@given(st.integers(1, 255), st.integers(1, 255))
def test_a_partial_tile_is_the_beginning_of_the_wider_one(one: int, other: int) -> None:
    narrow, wide = sorted((one, other))
    data = tile_bytes(Tile(0, 3, wide), tree(70_000))
    assert data.startswith(tile_bytes(Tile(0, 3, narrow), tree(70_000)))
    assert split_tile(Tile(0, 3, wide), data) == [tree(70_000).node(0, 768 + at) for at in range(wide)]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_tile_of_another_length_is_refused(change: type[bytes]) -> None:
    data = tile_bytes(Tile(0, 0, 9), tree(9))
    with pytest.raises(BadTileError):
        split_tile(Tile(0, 0, 9), change(data))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    assert split_bundle(Bundle(0, len(entries)), bundle_bytes(entries)) == entries


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9), st.integers(1, 256), st.data())
def test_a_damaged_bundle_is_malformed_or_another_bundle(entries: list[bytes], width: int, data: st.DataObject) -> None:
    octets = bytearray(bundle_bytes(entries))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(0, 255))
    octets = octets[: data.draw(st.integers(0, len(octets)))]
    try:
        found = split_bundle(Bundle(0, width), bytes(octets))
    except MalformedError:
        return
    assert bundle_bytes(found) == octets
    assert len(found) == width


def test_a_bundle_holds_neither_more_nor_fewer_entries_than_it_is_wide() -> None:
    data = bundle_bytes(leaves(9))
    for width in (8, 10):
        with pytest.raises(BadTileError):
            split_bundle(Bundle(0, width), data)


def test_an_entry_has_at_most_the_length_that_fits_before_it() -> None:
    assert split_bundle(Bundle(0, 1), bundle_bytes([bytes(MAX_ENTRY)])) == [bytes(MAX_ENTRY)]
    with pytest.raises(BadTileError):
        bundle_bytes([bytes(MAX_ENTRY + 1)])
