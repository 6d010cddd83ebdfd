"""Reading a log from its tiles without believing them: each hash is checked against a checkpoint before use (§ 5).

The partial tiles at the right edge fold to the root, so together they are right or refused. Each full tile folds to
one hash of the level above, which was checked before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from schleuse.errors import ConflictError
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.hashing import fold_peaks, leaf_hashes, node_hash
from schleuse.journal.tiles import LEVELS, WIDTH, Bundle, Tile, split_bundle, split_tile
from schleuse.journal.tree import TreeRangeError

#: Gives a tile's content; raises what its transport raises.
Fetch = Callable[[Tile], bytes]

_KEPT = 256  #: full tiles in memory, 8 KiB each


class FalseTileError(ConflictError):
    """A tile or bundle that is not what the checkpoint says; whoever serves the log can change it."""

    code = "journal.false-tile"


class VerifiedTiles:
    """The hashes of a log at one checkpoint, a `tree.Nodes` for proofs and roots.

    Raises at once, and from every call, FalseTileError, BadTileError and whatever `fetch` raises.
    """

    def __init__(self, checkpoint: Checkpoint, fetch: Fetch) -> None:
        self._size = checkpoint.size
        self._fetch = fetch
        self._kept: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._edge = {
            level: self._read(Tile(level, count // WIDTH, count % WIDTH))
            for level in range(LEVELS)
            if (count := checkpoint.size >> (8 * level)) % WIDTH
        }
        peaks = [peak for level in sorted(self._edge) for peak in _peaks(self._edge[level])]
        if fold_peaks(peaks) != checkpoint.root:
            raise FalseTileError(f"the tiles at the end of {checkpoint.origin} do not lead to its root")

    def node(self, level: int, index: int) -> bytes:
        """See `tree.Nodes`. Raises TreeRangeError for a hash that the tree of the checkpoint does not have."""
        if level < 0 or not 0 <= index < self._size >> level:
            raise TreeRangeError(f"a tree of size {self._size} has no hash {index} on level {level}")
        tile_level, height = divmod(level, 8)
        first = index << height
        at = first % WIDTH
        return _fold(self._hashes(tile_level, first // WIDTH)[at : at + (1 << height)])

    def entries(self, bundle: Bundle, data: bytes) -> list[bytes]:
        """The entries of a bundle's content, if they are those of the checkpoint. Raises FalseTileError."""
        first = bundle.index * WIDTH
        if first + bundle.width > self._size:
            raise TreeRangeError(f"a log of size {self._size} has no {bundle.path}")
        entries = split_bundle(bundle, data)
        if leaf_hashes(entries) != self._hashes(0, bundle.index)[: bundle.width]:
            raise FalseTileError(f"{bundle.path} holds other entries than the checkpoint says")
        return entries

    def _hashes(self, level: int, index: int) -> list[bytes]:
        if index == self._size >> (8 * level) >> 8:
            return self._edge[level]
        if hashes := self._kept.get((level, index)):
            self._kept.move_to_end((level, index))
            return hashes
        tile = Tile(level, index)
        hashes = self._read(tile)
        if _fold(hashes) != self.node(8 * (level + 1), index):
            raise FalseTileError(f"{tile.path} does not hold the hashes that the level above says")
        self._kept[level, index] = hashes
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return hashes

    def _read(self, tile: Tile) -> list[bytes]:
        return split_tile(tile, self._fetch(tile))


def _peaks(hashes: list[bytes]) -> list[bytes]:
    """Roots of the complete subtrees in a partial tile, the smallest first."""
    width = len(hashes)
    peaks = []
    for bit in range(8):
        if width >> bit & 1:
            first = width >> (bit + 1) << (bit + 1)
            peaks.append(_fold(hashes[first : first + (1 << bit)]))
    return peaks


def _fold(hashes: list[bytes]) -> bytes:
    """Root over 1, 2, 4 … 256 neighbours."""
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]
