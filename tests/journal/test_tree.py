"""The tree against the recursive definition of RFC 6962 § 2.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.rfc6962 import mth
from tests.journal.samples import leaves, tree

from schleuse.journal.hashing import EMPTY_ROOT, leaf_hash, leaf_hashes, node_hash
from schleuse.journal.tree import MAX_SIZE, Frontier, MemoryTree, TreeRangeError, root_at, subtree_root

ENTRIES = st.lists(st.binary(max_size=8), max_size=70)


@given(ENTRIES)
def test_the_root_is_the_merkle_tree_hash(entries: list[bytes]) -> None:
    assert MemoryTree(entries).root() == mth(entries)


@given(st.lists(ENTRIES, max_size=6))
def test_how_entries_are_batched_does_not_matter(batches: list[list[bytes]]) -> None:
    grown = MemoryTree()
    for batch in batches:
        grown.append(batch)
        assert grown.root() == root_at(grown.size, grown)
    assert grown.root() == mth([entry for batch in batches for entry in batch])


@given(st.integers(0, 70_000))
def test_the_root_at_an_earlier_size_is_still_there(size: int) -> None:
    assert root_at(size, tree(70_000)) == Frontier.of(size, tree(70_000)).root()


@given(st.integers(0, 300), ENTRIES)
def test_a_frontier_read_back_goes_on_where_it_was(size: int, more: list[bytes]) -> None:
    frontier = Frontier.of(size, tree(70_000))
    frontier.extend(leaf_hashes(more))
    assert frontier.size == size + len(more)
    assert frontier.root() == mth(leaves(size) + more)


@given(st.integers(0, 300), st.integers(0, 300))
def test_an_append_adds_exactly_the_hashes_that_each_level_lacks(size: int, count: int) -> None:
    frontier = Frontier.of(size, tree(70_000))
    added = frontier.extend(leaf_hashes(leaves(size + count)[size:]))
    for level, hashes in enumerate(added):
        first = size >> level
        assert hashes == [tree(70_000).node(level, index) for index in range(first, size + count >> level)]
    assert all(size >> level == size + count >> level for level in range(len(added), 20))


def test_an_append_of_nothing_changes_nothing() -> None:
    frontier = Frontier.of(7, tree(70_000))
    assert frontier.extend([]) == []
    assert frontier.root() == tree(7).root()


def test_a_tree_cannot_grow_past_its_limit_and_stays_as_it_was() -> None:
    class Endless:
        def node(self, level: int, index: int) -> bytes:
            return bytes(32)

    frontier = Frontier.of(MAX_SIZE, Endless())
    before = frontier.root()
    with pytest.raises(TreeRangeError):
        frontier.extend([bytes(32)])
    assert (frontier.size, frontier.root()) == (MAX_SIZE, before)


@pytest.mark.parametrize(("low", "high"), [(1, 3), (2, 6), (4, 12), (-1, 0), (3, 2)])
def test_a_range_that_is_no_subtree_has_no_root(low: int, high: int) -> None:
    with pytest.raises(TreeRangeError):
        subtree_root(low, high, tree(9))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 9), (8, 9), (4, 7), (6, 8)])
def test_a_subtree_has_the_root_of_its_entries(low: int, high: int) -> None:
    assert subtree_root(low, high, tree(9)) == mth(leaves(9)[low:high])


@pytest.mark.parametrize("size", [-1, 2**63])
def test_a_size_outside_the_range_is_refused(size: int) -> None:
    with pytest.raises(TreeRangeError):
        root_at(size, tree(9))


@pytest.mark.parametrize(("level", "index"), [(0, 9), (4, 0), (3, 1), (-1, 0), (0, -1)])
def test_a_hash_that_does_not_exist_is_not_invented(level: int, index: int) -> None:
    with pytest.raises(TreeRangeError):
        tree(9).node(level, index)


def test_a_leaf_never_looks_like_a_node() -> None:
    left, right = map(leaf_hash, leaves(2))
    assert leaf_hash(left + right) != node_hash(left, right)
    assert MemoryTree().root() == EMPTY_ROOT
