"""A reader that believes a checkpoint and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import checkpoint, leaves, tree

from schleuse.journal.hashing import leaf_hash
from schleuse.journal.proof import consistency_proof, inclusion_path, is_consistent, is_included
from schleuse.journal.tile_reader import FalseTileError, VerifiedTiles
from schleuse.journal.tiles import Bundle, Tile, bundle_bytes, bundles_of, tile_bytes, tiles_of
from schleuse.journal.tree import TreeRangeError, root_at

SIZES = [1, 9, 255, 256, 257, 1000, 65_536, 65_537, 70_000]


class Server:
    """Serves the tiles of the vectors' log. false: the path of a tile with one bit flipped at `at`."""

    def __init__(self, false: str | None = None, at: int = 0) -> None:
        self.false = false
        self.at = at
        self.served: list[str] = []

    def __call__(self, tile: Tile) -> bytes:
        self.served.append(tile.path)
        data = bytearray(tile_bytes(tile, tree(70_000)))
        if tile.path == self.false:
            data[self.at] ^= 1
        return bytes(data)


@pytest.mark.parametrize("size", SIZES)
def test_every_hash_of_the_tree_can_be_read_from_tiles(size: int) -> None:
    reader = VerifiedTiles(checkpoint(size), Server())
    for level in range(size.bit_length()):
        count = size >> level
        for index in {0, count // 2, count - 1}:
            assert reader.node(level, index) == tree(70_000).node(level, index)


@given(st.sampled_from(SIZES), st.integers(0, 69_999))
def test_proofs_can_be_made_from_tiles(size: int, number: int) -> None:
    reader = VerifiedTiles(checkpoint(size), Server())
    index, old, root = number % size, number % size + 1, checkpoint(size).root
    leaf = leaf_hash(leaves(index + 1)[index])
    assert is_included(index, size, leaf, inclusion_path(index, size, reader), root)
    assert is_consistent(old, size, root_at(old, reader), root, consistency_proof(old, size, reader))


def test_an_empty_log_has_no_tiles_and_its_own_root() -> None:
    server = Server()
    assert root_at(0, VerifiedTiles(checkpoint(0), server)) == checkpoint(0).root
    assert server.served == []


@pytest.mark.parametrize("tile", [tile for tile in tiles_of(70_000) if tile.index in {0, 1, 273}])
def test_one_flipped_bit_in_any_hash_of_a_tile_is_noticed(tile: Tile) -> None:
    for at in range(0, 32 * tile.width, 32):
        with pytest.raises(FalseTileError):
            VerifiedTiles(checkpoint(70_000), Server(tile.path, at)).node(8 * tile.level, tile.index * 256 + at // 32)


def test_a_hash_beyond_the_checkpoint_is_refused_even_if_the_log_has_it() -> None:
    reader = VerifiedTiles(checkpoint(300), Server())
    for level, index in [(0, 300), (8, 1), (9, 0), (-1, 0), (0, -1)]:
        with pytest.raises(TreeRangeError):
            reader.node(level, index)
    with pytest.raises(TreeRangeError):
        reader.entries(Bundle(1, 45), bundle_bytes(leaves(301)[256:]))


@pytest.mark.parametrize("bundle", list(bundles_of(600)))
def test_entries_are_those_of_the_checkpoint_or_refused(bundle: Bundle) -> None:
    reader = VerifiedTiles(checkpoint(600), Server())
    mine = leaves(600)[bundle.index * 256 :][: bundle.width]
    assert reader.entries(bundle, bundle_bytes(mine)) == mine
    with pytest.raises(FalseTileError):
        reader.entries(bundle, bundle_bytes([*mine[:-1], b"leaf-x"]))


def test_a_tile_is_fetched_once_as_long_as_it_is_kept() -> None:
    server = Server()
    reader = VerifiedTiles(checkpoint(70_000), server)
    for index in range(0, 256, 7):
        reader.node(0, index)
    assert server.served.count("tile/0/000") == 1


def test_many_tiles_do_not_fill_the_memory() -> None:
    reader = VerifiedTiles(checkpoint(70_000), Server())
    assert [reader.node(0, 256 * at) for at in range(273)] == [tree(70_000).node(0, 256 * at) for at in range(273)]
    assert len(reader._kept) == 256
