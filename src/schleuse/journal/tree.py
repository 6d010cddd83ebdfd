"""The Merkle tree as binary levels: what an append adds, and what the root is (journal.md § 3).

Level 0 holds the leaf hashes; hash i of level l + 1 covers hashes 2i and 2i + 1 of level l and exists only for
complete pairs. So a tree of size n has exactly `n >> l` hashes on level l, and a hash once written never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

from schleuse.errors import RefusedError
from schleuse.journal.hashing import NODE_PREFIX, fold_peaks, leaf_hashes

MAX_SIZE = 2**63 - 1  #: of a tree; keeps every index and timestamp inside a signed 64 bit integer


class TreeRangeError(RefusedError):
    """Asked for a size, index or range that this tree does not have; the one who asks can change it."""

    code = "journal.tree-range"


class Nodes(Protocol):
    """Read access to the hashes of a tree: level files, tiles, or a list in memory."""

    def node(self, level: int, index: int) -> bytes:
        """Hash `index` of binary level `level`, 32 bytes. Asked only for what exists at the size in question."""
        ...


class Frontier:
    """The right edge of a growing tree: all that an append and the root need, at most 63 hashes.

    After `extend` raises, the frontier is unchanged. Not for several threads at once.
    """

    __slots__ = ("_size", "_waiting")

    def __init__(self) -> None:
        self._size = 0
        #: By level, the last hash without a partner; present exactly where the size has its bit set.
        self._waiting: list[bytes | None] = []

    @classmethod
    def of(cls, size: int, nodes: Nodes) -> Frontier:
        """The edge of an existing tree at `size`, read from its hashes; used at start."""
        frontier = cls()
        frontier._size = _checked_size(size)
        frontier._waiting = [
            nodes.node(level, (size >> level) - 1) if size >> level & 1 else None for level in range(size.bit_length())
        ]
        return frontier

    @property
    def size(self) -> int:
        """Number of leaves so far."""
        return self._size

    def extend(self, leaves: Sequence[bytes]) -> list[list[bytes]]:
        """Append leaf hashes and return, level by level, the hashes this adds to each level in their order.

        The first new hash of level l has index `old_size >> l`. Costs about one node hash per leaf.
        Raises TreeRangeError above MAX_SIZE.
        """
        if len(leaves) == 1:
            return self._add(leaves[0])
        added: list[list[bytes]] = []
        waiting = list(self._waiting)
        current = list(leaves)
        level = 0
        _checked_size(self._size + len(current))
        while current:
            added.append(current)
            if level == len(waiting):
                waiting.append(None)
            if (odd := waiting[level]) is not None:
                current = [odd, *current]
            waiting[level] = current[-1] if len(current) & 1 else None
            # The hash is spelled out: a call per node would double the cost of an append.
            current = [
                sha256(NODE_PREFIX + left + right).digest()
                for left, right in zip(current[::2], current[1::2], strict=False)
            ]
            level += 1
        self._size += len(leaves)
        self._waiting = waiting
        return added

    def _add(self, leaf: bytes) -> list[list[bytes]]:
        """As `extend`, of one: many logs that grow side by side get their entries one by one."""
        _checked_size(self._size + 1)
        added, waiting, current, level = [[leaf]], self._waiting, leaf, 0
        while level < len(waiting) and (odd := waiting[level]) is not None:
            waiting[level] = None
            current = sha256(NODE_PREFIX + odd + current).digest()
            added.append([current])
            level += 1
        if level == len(waiting):
            waiting.append(None)
        waiting[level] = current
        self._size += 1
        return added

    def root(self) -> bytes:
        """Root of the tree as it is now."""
        return fold_peaks(peak for peak in self._waiting if peak is not None)


class MemoryTree:
    """A whole tree in memory: for verifiers and tests, and for reading a log once from front to back."""

    def __init__(self, entries: Sequence[bytes] = ()) -> None:
        self._frontier = Frontier()
        self._levels: list[list[bytes]] = []
        self.append(entries)

    @property
    def size(self) -> int:
        """Number of leaves so far."""
        return self._frontier.size

    def append(self, entries: Sequence[bytes]) -> None:
        """Append entries (their bytes, not their hashes)."""
        for level, added in enumerate(self._frontier.extend(leaf_hashes(entries))):
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level] += added

    def node(self, level: int, index: int) -> bytes:
        """See `Nodes`. Raises TreeRangeError for a hash that does not exist."""
        if not (0 <= level < len(self._levels) and 0 <= index < len(self._levels[level])):
            raise TreeRangeError(f"a tree of size {self.size} has no hash {index} on level {level}")
        return self._levels[level][index]

    def root(self) -> bytes:
        """Root of the tree as it is now."""
        return self._frontier.root()


def root_at(size: int, nodes: Nodes) -> bytes:
    """Root of the first `size` entries of a tree that is that large or larger."""
    return subtree_root(0, _checked_size(size), nodes)


def subtree_root(low: int, high: int, nodes: Nodes) -> bytes:
    """Root over entries low … high - 1, where low is a multiple of the largest power of two up to high - low.

    Raises TreeRangeError for any other range: such a range is no subtree of RFC 6962.
    """
    count = high - low
    if low < 0 or count < 0 or (count and low % (1 << (count.bit_length() - 1))):
        raise TreeRangeError(f"entries {low} to {high} are no subtree")
    peaks = []
    while count:
        level = count.bit_length() - 1
        peaks.append(nodes.node(level, low >> level))
        low += 1 << level
        count -= 1 << level
    return fold_peaks(reversed(peaks))


def _checked_size(size: int) -> int:
    if not 0 <= size <= MAX_SIZE:
        raise TreeRangeError(f"a tree has 0 to 2^63 - 1 entries, not {size}")
    return size
