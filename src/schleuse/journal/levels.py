"""The tree and the entries of one log on disk: a file per binary level, and entries in segments (journal.md § 5).

No file per tile: every tile and bundle of every size ever published is a range of these files. They are written from
the write-ahead log and may lag behind it, so nothing here is flushed before segments of that log are given up.
"""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from schleuse.journal.contracts import BeyondSizeError
from schleuse.journal.disk import Disk, write_all
from schleuse.journal.hashing import HASH_SIZE
from schleuse.journal.tiles import WIDTH, Bundle, Tile

_MANY = 8_192  #: open files; more than a journal needs, where a process may have as many as it likes
SEGMENT_ENTRIES = 65_536  #: entries in one file of entries, 256 bundles
_OFFSET = struct.Struct(">Q")


class Files:
    """Descriptors by path, the least recently used closed first: 95 logs of 20 levels are more than many may have.

    most: so many at once; None: half of what the process may have, for its connections need some, too.
    """

    def __init__(self, disk: Disk, most: int | None = None) -> None:
        self.disk = disk
        self.unflushed: set[Path] = set()
        self._most = most or min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MANY) // 2
        self._open: dict[Path, int] = {}

    def write(self, path: Path, data: bytes, offset: int) -> None:
        """Raises OSError. Not flushed."""
        self.unflushed.add(path)
        write_all(self.disk, self._fd(path, create=True), data, offset)

    def read(self, path: Path, length: int, offset: int) -> bytes:
        """Fewer bytes at the end of the file. Raises OSError."""
        try:
            return self.disk.read(self._fd(path, create=False), length, offset)
        except FileNotFoundError:
            return b""

    def size(self, path: Path) -> int:
        """Length of the file, 0 if there is none."""
        try:
            return self.disk.size(self._fd(path, create=False))
        except FileNotFoundError:
            return 0

    def truncate(self, path: Path, length: int) -> None:
        """Cut the file. Raises OSError."""
        self.unflushed.add(path)
        self.disk.truncate(self._fd(path, create=True), length)

    def forget(self, path: Path) -> None:
        """Close the file, because it goes away."""
        self.unflushed.discard(path)
        if (fd := self._open.pop(path, None)) is not None:
            self.disk.close(fd)

    def close(self) -> None:
        """Close all."""
        for fd in self._open.values():
            self.disk.close(fd)
        self._open.clear()

    def _fd(self, path: Path, *, create: bool) -> int:
        fd = self._open.pop(path, None)
        if fd is None:
            if len(self._open) >= self._most:
                self.disk.close(self._open.pop(next(iter(self._open))))
            fd = self.disk.open(path, create=create)
        self._open[path] = fd
        return fd


def flush(disk: Disk, paths: Sequence[Path]) -> None:
    """Put these files and their folders on the medium, with own descriptors, so that any thread may. Raises OSError."""
    for path in paths:
        fd = disk.open(path, create=True)
        try:
            disk.sync(fd)
        finally:
            disk.close(fd)
    for folder in {path.parent for path in paths}:
        disk.sync_directory(folder)


class TreeFiles:
    """The hashes of a tree, level by level; satisfies `tree.Nodes`. What was added is readable at once."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder = folder
        self._files = files
        self._written: list[int] = []  # hashes in each file
        self._waiting: list[bytearray] = []

    def begin_at(self, size: int) -> None:
        """Cut all files to a tree of this size. Raises OSError."""
        self._written, self._waiting = [], []
        for level in range(max(size.bit_length(), self._levels_on_disk())):
            self._files.truncate(self._path(level), HASH_SIZE * (size >> level))
            self._written.append(size >> level)
            self._waiting.append(bytearray())

    def show(self, size: int) -> None:
        """As `begin_at`, but changes no file: for reading only."""
        self._written = [size >> level for level in range(size.bit_length())]
        self._waiting = [bytearray() for _ in self._written]

    def add(self, added: Sequence[list[bytes]]) -> None:
        """What `Frontier.extend` returned. Joined at once: by the next tick they would be cold, and many objects."""
        for level, hashes in enumerate(added):
            if level == len(self._waiting):
                self._waiting.append(bytearray())
                self._written.append(0)
            self._waiting[level] += hashes[0] if len(hashes) == 1 else b"".join(hashes)

    def write(self) -> None:
        """Append what waits to the files. After OSError it waits still, and may be written again."""
        for level, hashes in enumerate(self._waiting):
            if hashes:
                self._files.write(self._path(level), bytes(hashes), HASH_SIZE * self._written[level])
                self._written[level] += len(hashes) // HASH_SIZE
                self._waiting[level] = bytearray()

    def node(self, level: int, index: int) -> bytes:
        """See `tree.Nodes`."""
        return self._hashes(level, index, 1)

    def tile(self, tile: Tile) -> bytes:
        """Content of a tile that exists at the tree's size."""
        return self._hashes(8 * tile.level, WIDTH * tile.index, tile.width)

    def hashes_on_disk(self, level: int, first: int, count: int) -> bytes:
        """Hashes of a level as its file has them. Raises BeyondSizeError."""
        data = self._files.read(self._path(level), HASH_SIZE * count, HASH_SIZE * first)
        if len(data) != HASH_SIZE * count:
            raise BeyondSizeError(f"{self.name(level)} has no hashes {first} to {first + count - 1}")
        return data

    def name(self, level: int) -> str:
        """Of a level's file, for findings."""
        return f"{self._folder.name}/{self._path(level).name}"

    def _hashes(self, level: int, first: int, count: int) -> bytes:
        if level < len(self._written) and first + count > self._written[level]:
            self.write()
        return self.hashes_on_disk(level, first, count)

    def _path(self, level: int) -> Path:
        return self._folder / f"b{level:02}"

    def _levels_on_disk(self) -> int:
        names = self._files.disk.names(self._folder)
        return sum(1 for name in names if len(name) == 3 and name[0] == "b" and name[1:].isdigit())


class EntryFiles:
    """The entries, each with its length before it, and where each bundle begins."""

    def __init__(self, folder: Path, files: Files, segment_entries: int = SEGMENT_ENTRIES) -> None:
        self._folder = folder
        self._files = files
        self._per_segment = segment_entries
        self._size = 0  # entries added
        self._end = 0  # bytes written to the last segment
        self._waiting = bytearray()
        self._lengths: list[int] = []  # of the entries that wait, each with the length before it

    def begin_at(self, size: int) -> None:
        """Cut the files to this many entries. Raises OSError, BeyondSizeError if they hold fewer."""
        self._size, self._waiting, self._lengths = size, bytearray(), []
        number, inside = divmod(size, self._per_segment)
        self._end = self._end_of(size) if inside else 0
        self._files.truncate(self._segment(number), self._end)
        self._files.truncate(self._offsets, 8 * -(-size // WIDTH))
        for path in self._segments(range(number + 1, 1 << 40)):
            self._files.truncate(path, 0)

    def show(self, size: int) -> None:
        """As `begin_at`, but changes no file: for reading only."""
        self._size, self._waiting, self._lengths = size, bytearray(), []

    def add(self, entries: Sequence[bytes]) -> None:
        """Entries in the order of the log."""
        if len(entries) == 1:
            (entry,) = entries
            self._lengths.append(2 + len(entry))
            self._waiting += len(entry).to_bytes(2) + entry
            return
        lengths = set(map(len, entries))
        if len(lengths) == 1:  # mostly; then one call does it for all
            (length,) = lengths
            head = length.to_bytes(2)
            self._lengths += [2 + length] * len(entries)
            self._waiting += head + head.join(entries)
            return
        self._lengths += [2 + len(entry) for entry in entries]
        self._waiting += b"".join([len(entry).to_bytes(2) + entry for entry in entries])

    @property
    def waiting(self) -> int:
        """Bytes that wait for `write`."""
        return len(self._waiting)

    def write(self) -> None:
        """Append what waits to the files. After OSError it waits still, and may be written again."""
        while self._lengths:
            room = self._per_segment - self._size % self._per_segment
            lengths = self._lengths[:room]
            number, inside = divmod(self._size, self._per_segment)
            start = self._end if inside else 0
            ends = list(accumulate(lengths, initial=start))
            offsets = [_OFFSET.pack(at) for at in ends[-self._size % WIDTH : len(lengths) : WIDTH]]
            whole = ends[-1] - start == len(self._waiting)
            written = self._waiting if whole else self._waiting[: ends[-1] - start]
            self._files.write(self._segment(number), bytes(written), start)
            if offsets:
                self._files.write(self._offsets, b"".join(offsets), 8 * -(-self._size // WIDTH))
            self._size += len(lengths)
            self._end = ends[-1]
            del self._waiting[: len(written)]
            del self._lengths[:room]

    def bundle(self, bundle: Bundle) -> bytes:
        """Content of a bundle. Raises BeyondSizeError where the log is shorter or entries are deleted."""
        if WIDTH * bundle.index + bundle.width > self._size:
            self.write()
        if WIDTH * bundle.index + bundle.width > self._size:
            raise BeyondSizeError(f"the log has {self._size} entries, not {WIDTH * bundle.index + bundle.width}")
        first_of_segment = WIDTH * bundle.index % self._per_segment == 0
        return self._cut(bundle.index, bundle.width, 0 if first_of_segment else self._offset(bundle.index))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Entries start to stop - 1. Raises BeyondSizeError."""
        while start < stop:
            index, skip = divmod(start, WIDTH)
            width = min(WIDTH, stop - WIDTH * index)
            yield from _split(self.bundle(Bundle(index, width)))[skip:]
            start = WIDTH * index + width

    def read_checked(self, start: int, stop: int) -> Iterator[bytes]:
        """As `read`, from files that nobody has judged yet: each bundle must begin where the one before ended.

        Followed from the beginning of the segment, where the first one stands.
        """
        end = 0
        for index in range(start // self._per_segment * self._per_segment // WIDTH, -(-stop // WIDTH)):
            first = index * WIDTH
            begin = 0 if first % self._per_segment == 0 else end
            if self._offset(index) != begin:
                raise BeyondSizeError(f"{self._both(index)} about where it begins")
            data = self._cut(index, min(WIDTH, stop - first), begin)
            end = begin + len(data)
            yield from _split(data)[max(start - first, 0) :]

    def erase_below(self, index: int) -> list[Path]:
        """Delete segments wholly below `index`, overwrite the rest below it with zeros (§ 17).

        Returns the files that must be flushed before the deletion may be called done. Raises OSError.
        """
        self.write()
        for path in self._segments(range(index // self._per_segment)):
            self._files.forget(path)
            self._files.disk.unlink(path)
        number, inside = divmod(index, self._per_segment)
        if not inside:
            return []
        first = number * self._per_segment
        for bundle in range(first // WIDTH, -(-index // WIDTH)):
            start = 0 if bundle * WIDTH == first else self._offset(bundle)
            data = self._cut(bundle, min(WIDTH, index - bundle * WIDTH), start)
            # The lengths stay: without them nobody finds the entries that follow.
            empty = b"".join(len(entry).to_bytes(2) + bytes(len(entry)) for entry in _split(data))
            self._files.write(self._segment(number), empty, start)
        return [self._segment(number)]

    def name(self, index: int) -> str:
        """Of the file that holds an entry, for findings."""
        return f"{self._folder.name}/{self._segment(index // self._per_segment).name}"

    @property
    def offsets_name(self) -> str:
        """Of the file that says where bundles begin, for findings."""
        return f"{self._folder.name}/{self._offsets.name}"

    def _end_of(self, size: int) -> int:
        """Where entry size - 1 ends in its segment."""
        bundle, width = (size - 1) // WIDTH, (size - 1) % WIDTH + 1
        start = 0 if bundle * WIDTH % self._per_segment == 0 else self._offset(bundle)
        return start + len(self._cut(bundle, width, start))

    def _cut(self, index: int, width: int, start: int) -> bytes:
        """`width` entries of a bundle that begins at `start` in its segment, with their lengths."""
        path = self._segment(index * WIDTH // self._per_segment)
        size = self._files.size(path)
        end = self._end_of_bundle(index, start, size)
        data = self._files.read(path, end - start, start) if start < end else b""
        at = 0
        for _ in range(width):
            if at + 2 > len(data):
                last = index * WIDTH + width - 1
                if end < size:
                    raise BeyondSizeError(f"{self._both(index)}, which is to end with entry {last}")
                raise BeyondSizeError(f"{self.name(index * WIDTH)} ends before entry {last}")
            at += 2 + int.from_bytes(data[at : at + 2])
        if at > len(data):
            if end < size:
                raise BeyondSizeError(f"{self._both(index)}, which ends inside an entry")
            raise BeyondSizeError(f"{self.name(index * WIDTH)} ends inside an entry of bundle {index}")
        return data[:at]

    def _end_of_bundle(self, index: int, start: int, size: int) -> int:
        """Where the next bundle begins, or the end of the file where none does in this segment. size: of its file."""
        last_of_segment = (index + 1) * WIDTH % self._per_segment == 0
        following = b"" if last_of_segment else self._files.read(self._offsets, 8, 8 * (index + 1))
        end = int.from_bytes(following) if len(following) == 8 else 0
        return end if start < end <= size else size

    def _both(self, index: int) -> str:
        return f"{self.name(index * WIDTH)} and {self.offsets_name} contradict each other in bundle {index}"

    def _offset(self, index: int) -> int:
        data = self._files.read(self._offsets, 8, 8 * index)
        if len(data) != 8:
            raise BeyondSizeError(f"{self.offsets_name} has no offset of bundle {index}")
        return _OFFSET.unpack(data)[0]  # type: ignore[no-any-return]

    @property
    def _offsets(self) -> Path:
        return self._folder / "offsets"

    def _segment(self, number: int) -> Path:
        return self._folder / f"entries-{number:06}"

    def _segments(self, numbers: range) -> list[Path]:
        """Files of entries that are there, of these numbers."""
        names = [name for name in self._files.disk.names(self._folder) if name.startswith("entries-")]
        return [self._folder / name for name in names if int(name.rpartition("-")[2]) in numbers]


def _split(data: bytes) -> list[bytes]:
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2])
        entries.append(data[at + 2 : end])
        at = end
    return entries
