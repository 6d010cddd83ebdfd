"""Proofs against the recursive definition, and every mutation of one refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.rfc6962 import path, proof
from tests.journal.samples import leaves, tree

from schleuse.journal.hashing import EMPTY_ROOT, leaf_hash, node_hash
from schleuse.journal.proof import (
    MAX_PATH,
    BadProofError,
    consistency_proof,
    inclusion_path,
    is_consistent,
    is_included,
    root_from_inclusion,
)
from schleuse.journal.tree import TreeRangeError, root_at

BIG = tree(70_000)


@st.composite
def index_and_size(draw: st.DrawFn, limit: int = 70_000) -> tuple[int, int]:
    size = draw(st.integers(1, limit))
    return draw(st.integers(0, size - 1)), size


@st.composite
def old_and_new(draw: st.DrawFn, limit: int = 70_000) -> tuple[int, int]:
    new = draw(st.integers(1, limit))
    return draw(st.integers(1, new)), new


@given(index_and_size(150))
def test_an_inclusion_path_is_that_of_the_definition(where: tuple[int, int]) -> None:
    index, size = where
    assert inclusion_path(index, size, BIG) == path(index, leaves(size))


@given(old_and_new(150))
def test_a_consistency_proof_is_that_of_the_definition(sizes: tuple[int, int]) -> None:
    old, new = sizes
    assert consistency_proof(old, new, BIG) == proof(old, leaves(new))


@given(index_and_size())
def test_a_path_leads_to_the_root(where: tuple[int, int]) -> None:
    index, size = where
    leaf = BIG.node(0, index)
    assert is_included(index, size, leaf, inclusion_path(index, size, BIG), _root(size))


@given(old_and_new())
def test_a_proof_joins_two_sizes(sizes: tuple[int, int]) -> None:
    old, new = sizes
    assert is_consistent(old, new, _root(old), _root(new), consistency_proof(old, new, BIG))


@given(index_and_size(), st.integers(0, 69_999))
def test_a_path_does_not_fit_another_leaf(where: tuple[int, int], other: int) -> None:
    index, size = where
    steps = inclusion_path(index, size, BIG)
    if other != index:
        assert not is_included(index, size, BIG.node(0, other), steps, _root(size))
        assert not is_included(other, size, BIG.node(0, index), steps, _root(size))


@given(index_and_size(1000), st.data())
def test_a_damaged_path_is_refused(where: tuple[int, int], data: st.DataObject) -> None:
    index, size = where
    steps = inclusion_path(index, size, BIG)
    damaged = data.draw(st.sampled_from(list(_mutations(steps))))
    assert not is_included(index, size, BIG.node(0, index), damaged, _root(size))


@given(old_and_new(1000), st.data())
def test_a_damaged_consistency_proof_is_refused(sizes: tuple[int, int], data: st.DataObject) -> None:
    old, new = sizes
    damaged = data.draw(st.sampled_from(list(_mutations(consistency_proof(old, new, BIG)))))
    assert not is_consistent(old, new, _root(old), _root(new), damaged)


@given(old_and_new(1000))
def test_a_proof_does_not_fit_other_roots(sizes: tuple[int, int]) -> None:
    old, new = sizes
    steps = consistency_proof(old, new, BIG)
    assert not is_consistent(old, new, _flip(_root(old)), _root(new), steps)
    assert not is_consistent(old, new, _root(old), _flip(_root(new)), steps)


@given(
    st.integers(-1, 2**63),
    st.integers(-1, 2**63),
    st.binary(max_size=33),
    st.lists(st.binary(min_size=32, max_size=32)),
)
def test_any_proof_gets_an_answer(index: int, size: int, leaf: bytes, steps: list[bytes]) -> None:
    assert not is_included(index, size, leaf, steps, bytes(32))
    is_consistent(index, size, leaf, leaf, steps)


def test_everything_is_consistent_with_nothing_but_only_its_right_root() -> None:
    assert is_consistent(0, 9, EMPTY_ROOT, tree(9).root(), [])
    assert is_consistent(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not is_consistent(0, 9, bytes(32), tree(9).root(), [])
    assert not is_consistent(0, 0, bytes(32), bytes(32), [])
    assert not is_consistent(0, 9, EMPTY_ROOT, tree(9).root(), [bytes(32)])


def test_the_same_size_needs_the_same_root_and_no_proof() -> None:
    root = tree(9).root()
    assert consistency_proof(9, 9, BIG) == []
    assert is_consistent(9, 9, root, root, [])
    assert not is_consistent(9, 9, root, root, [root])
    assert not is_consistent(9, 9, root, tree(8).root(), [])


def test_the_largest_tree_is_a_tree_and_the_next_one_is_not() -> None:
    assert is_consistent(2**63 - 1, 2**63 - 1, bytes(32), bytes(32), [])
    assert not is_consistent(2**63, 2**63, bytes(32), bytes(32), [])


def test_a_tree_does_not_shrink() -> None:
    assert not is_consistent(9, 8, tree(9).root(), tree(8).root(), [])
    with pytest.raises(TreeRangeError):
        consistency_proof(9, 8, BIG)


def test_a_shifted_boundary_between_two_hashes_is_no_proof() -> None:
    """31 + 33 bytes hash like 32 + 32, so only the length check tells them apart."""
    leaf, sibling = map(leaf_hash, leaves(2))
    shifted = (leaf + sibling)[:31], (leaf + sibling)[31:]
    assert node_hash(*shifted) == tree(2).root()
    assert not is_included(0, 2, shifted[0], [shifted[1]], tree(2).root())


def test_a_shifted_boundary_is_no_consistency_proof_either() -> None:
    old, added = map(leaf_hash, leaves(2))
    assert is_consistent(1, 2, old, tree(2).root(), [added])
    assert not is_consistent(1, 2, old[:31], tree(2).root(), [old[31:] + added])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (9, 9), (-1, 9), (0, 2**63)])
def test_an_index_outside_the_size_has_no_path(index: int, size: int) -> None:
    with pytest.raises(TreeRangeError):
        inclusion_path(index, size, BIG)
    with pytest.raises(BadProofError):
        root_from_inclusion(index, size, bytes(32), [])


def test_no_path_is_longer_than_the_limit() -> None:
    class Endless:
        def node(self, level: int, index: int) -> bytes:
            return bytes(32)

    assert len(inclusion_path(0, 2**63 - 1, Endless())) == MAX_PATH
    assert len(consistency_proof(1, 2**63 - 1, Endless())) == MAX_PATH


def _root(size: int) -> bytes:
    return root_at(size, BIG)


def _flip(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def _mutations(steps: list[bytes]) -> Iterator[list[bytes]]:
    """Longer by one, shorter by one, one bit flipped, two neighbours swapped."""
    yield [*steps, bytes(32)]
    yield [bytes(32), *steps]
    for at, step in enumerate(steps):
        yield steps[:at] + steps[at + 1 :]
        yield [*steps[:at], _flip(step), *steps[at + 1 :]]
        yield [*steps[:at], step[:-1], *steps[at + 1 :]]
        if at and step != steps[at - 1]:
            yield [*steps[: at - 1], step, steps[at - 1], *steps[at + 1 :]]
