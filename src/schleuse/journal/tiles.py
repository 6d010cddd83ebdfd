"""Tiles and entry bundles: how a log is cut into immutable files for reading (C2SP tlog-tiles, journal.md § 5).

Tile (L, N) holds up to 256 hashes of binary level 8·L, from hash 256·N on; an entry bundle holds up to 256 entries.
A narrower one is partial, and its content is the beginning of the full one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schleuse.errors import MalformedError
from schleuse.journal.hashing import HASH_SIZE
from schleuse.journal.text import decode_decimal
from schleuse.journal.tree import MAX_SIZE, Nodes

WIDTH = 256  #: hashes in a full tile, entries in a full bundle
LEVELS = 8  #: tile levels that a tree of up to 2^63 - 1 entries can have
MAX_ENTRY = 65_535  #: bytes; the length before an entry is a u16

_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?", re.ASCII
)


class BadTileError(MalformedError):
    """Not the path or the bytes of a tile or bundle; whoever asks or serves can change it."""

    code = "journal.bad-tile"


@dataclass(frozen=True, slots=True)
class Tile:
    """Which hashes: `width` of them on binary level 8·level, from hash 256·index on. Raises BadTileError."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        _check(self.index, self.width)
        if not 0 <= self.level < LEVELS:
            raise BadTileError(f"tile levels are 0 to {LEVELS - 1}, not {self.level}")

    @property
    def path(self) -> str:
        """Path below the log's prefix."""
        return f"tile/{self.level}/{_encode_index(self.index)}{_encode_width(self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Which entries: `width` of them from entry 256·index on. Raises BadTileError."""

    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        _check(self.index, self.width)

    @property
    def path(self) -> str:
        """Path below the log's prefix."""
        return f"tile/entries/{_encode_index(self.index)}{_encode_width(self.width)}"


def parse_path(path: str) -> Tile | Bundle:
    """The tile or bundle that a path below the log's prefix names; each has one spelling. Raises BadTileError."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise BadTileError("found no path of a tile or entry bundle")
    index = int(found["index"].replace("x", "").replace("/", ""))
    try:
        width = WIDTH if found["width"] is None else decode_decimal(found["width"])
        level = None if found["level"] == "entries" else decode_decimal(found["level"])
    except MalformedError as cause:
        raise BadTileError("found no path of a tile or entry bundle") from cause
    resource = Bundle(index, width) if level is None else Tile(level, index, width)
    if resource.path != path:  # x000/001 for 001, or .p/256 for a full tile
        raise BadTileError("found a second spelling of a tile path")
    return resource


def tiles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """All tiles of a tree of this size that were not already final, in this width, at size `since`."""
    for level in range(LEVELS):
        count, before = size >> (8 * level), since >> (8 * level)
        if count == before:
            return  # the levels above did not change either
        for index in range(before // WIDTH, count // WIDTH):
            yield Tile(level, index)
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)


def bundles_of(size: int, *, since: int = 0) -> Iterator[Bundle]:
    """All entry bundles of a tree of this size that were not already final, in this width, at size `since`."""
    for index in range(since // WIDTH, size // WIDTH):
        yield Bundle(index)
    if size % WIDTH and size != since:
        yield Bundle(size // WIDTH, size % WIDTH)


def is_in(resource: Tile | Bundle, size: int) -> bool:
    """Whether all its hashes or entries exist at this size."""
    level = resource.level if isinstance(resource, Tile) else 0
    return resource.index * WIDTH + resource.width <= size >> (8 * level)


def tile_bytes(tile: Tile, nodes: Nodes) -> bytes:
    """Content of a tile: its hashes, 32 bytes each. Level files give the same bytes with one read."""
    first = tile.index * WIDTH
    return b"".join(nodes.node(8 * tile.level, first + at) for at in range(tile.width))


def split_tile(tile: Tile, data: bytes) -> list[bytes]:
    """The hashes in a tile's content. Raises BadTileError if its length is not that of `tile`."""
    if len(data) != HASH_SIZE * tile.width:
        raise BadTileError(f"found {len(data)} bytes, expected {HASH_SIZE * tile.width} in {tile.path}")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def bundle_bytes(entries: Iterable[bytes]) -> bytes:
    """Content of a bundle: each entry with its length as u16 before it. Raises BadTileError above MAX_ENTRY."""
    parts = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise BadTileError(f"an entry has at most {MAX_ENTRY} bytes, not {len(entry)}")
        parts += [len(entry).to_bytes(2), entry]
    return b"".join(parts)


def split_bundle(bundle: Bundle, data: bytes) -> list[bytes]:
    """The entries in a bundle's content. Raises BadTileError unless they are exactly `bundle.width`."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < bundle.width:
        end = at + 2 + int.from_bytes(data[at : at + 2])
        if end > len(data) or len(data) - at < 2:
            raise BadTileError(f"{bundle.path} ends inside an entry")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != bundle.width:
        raise BadTileError(f"{bundle.path} does not hold exactly {bundle.width} entries")
    return entries


def _encode_index(index: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return "/".join(groups)


def _encode_width(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"


def _check(index: int, width: int) -> None:
    if not 0 <= index <= MAX_SIZE // WIDTH or not 1 <= width <= WIDTH:
        raise BadTileError(f"no tile or bundle has index {index} and width {width}")
