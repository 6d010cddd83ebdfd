"""Inclusion and consistency proofs: made from the hashes of a tree, checked with nothing but the proof.

Source: RFC 6962 § 2.1, RFC 9162 § 2.1.3 and § 2.1.4, journal.md § 11.
"""

from __future__ import annotations

from collections.abc import Sequence

from schleuse.errors import MalformedError
from schleuse.journal.hashing import EMPTY_ROOT, HASH_SIZE, node_hash
from schleuse.journal.tree import MAX_SIZE, Nodes, TreeRangeError, subtree_root

MAX_PATH = 63  #: hashes in any proof, because no tree has more than MAX_SIZE entries


class BadProofError(MalformedError):
    """A proof that has the wrong length for its index and size; whoever made it can change it."""

    code = "journal.bad-proof"


def inclusion_path(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """Path from leaf `index` to the root at `size`, the leaf's sibling first. Raises TreeRangeError."""
    if not 0 <= index < size <= MAX_SIZE:
        raise TreeRangeError(f"a tree of size {size} has no entry {index}")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(subtree_root(middle, high, nodes))
            high = middle
        else:
            path.append(subtree_root(low, middle, nodes))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """Proof that the tree at size `new` begins with the tree at size `old`; empty for old = 0 and old = new.

    Raises TreeRangeError unless 0 <= old <= new.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise TreeRangeError(f"no consistency from size {old} to size {new}")
    if old in {0, new}:
        return []
    proof, low, high, whole = [], 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(subtree_root(middle, high, nodes))
            high = middle
        else:
            proof.append(subtree_root(low, middle, nodes))
            low, whole = middle, False
    if not whole:  # else the verifier has this hash already: it is the old root
        proof.append(subtree_root(low, high, nodes))
    return proof[::-1]


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that this path leads to; included means that it equals the root of a trusted checkpoint.

    leaf: leaf hash. path: as `inclusion_path` makes it. Raises BadProofError for a wrong length or range.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise BadProofError(f"entry {index} cannot be in a tree of size {size}")
    _check_hashes([leaf, *path])
    node, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise BadProofError(f"the path of entry {index} in size {size} is too long")
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        node >>= 1
        last >>= 1
    if last:
        raise BadProofError(f"the path of entry {index} in size {size} is too short")
    return root


def is_included(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf hash is entry `index` of the tree with this size and root. Never raises."""
    try:
        return root_from_inclusion(index, size, leaf, path) == root
    except BadProofError:
        return False


def is_consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree (new, new_root) begins with the tree (old, old_root). Never raises.

    A tree of size 0 is consistent with everything, if its root is that of the empty tree.
    """
    if not 0 <= old <= new <= MAX_SIZE or any(len(h) != HASH_SIZE for h in (old_root, new_root, *proof)):
        return False
    if old == new:
        # An empty tree has one root only, so two equal inventions for it do not pass either.
        return not proof and old_root == new_root and (old > 0 or old_root == EMPTY_ROOT)
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    return bool(proof) and _roots_meet(old, new, old_root, new_root, proof)


def _roots_meet(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """The walk of RFC 9162 § 2.1.4.2, for 0 < old < new and a proof that is not empty."""
    complete = old & (old - 1) == 0  # a power of two: the old root is itself a node of the new tree
    first, *rest = [old_root, *proof] if complete else proof
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    from_old = from_new = first
    for sibling in rest:
        if last == 0:
            return False
        if node & 1 or node == last:
            from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            from_new = node_hash(from_new, sibling)
        node >>= 1
        last >>= 1
    return from_old == old_root and from_new == new_root and last == 0


def _split(count: int) -> int:
    """Largest power of two below count, for count > 1 (RFC 6962 § 2.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    # Without this, 31 + 33 bytes would hash like 32 + 32.
    if any(len(value) != HASH_SIZE for value in hashes):
        raise BadProofError("a proof holds hashes of 32 bytes only")
