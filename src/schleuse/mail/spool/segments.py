"""Segment files: append to one, walk through one, read single records.

A failed write or flush is never tried again on the same bytes. After a failed fdatasync Linux may mark the pages clean,
so a second call would return success for data that is not on the medium ("fsyncgate", 2018). The batch counts as lost,
the file is cut back to its last durable record and never written again; the next batch goes into a new segment,
whose header says where this one ends, in case that even the cutting did not reach the medium.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from schleuse.errors import CorruptError, UnavailableError
from schleuse.mail.spool.disk import Buffer, Disk
from schleuse.mail.spool.envelope import Envelope, decode, seal_matches
from schleuse.mail.spool.record import (
    HEAD,
    RECORD_MAGIC,
    SEGMENT_HEADER,
    Entry,
    Head,
    Kind,
    SegmentHeader,
    decode_head,
    decode_header,
    encode_batch,
    encode_header,
    is_intact,
)


class SegmentWriteError(UnavailableError):
    """A segment cannot be written or flushed; the operator looks at its disk, nothing was kept."""

    code = "spool.write"


class SegmentReadError(UnavailableError):
    """A segment cannot be read now; the operator looks at its disk."""

    code = "spool.read"


class DamagedRecordError(CorruptError):
    """A record or header of a segment does not match its seal; the operator restores the segment."""

    code = "spool.damaged-record"


#: A position is segment number << OFFSET_BITS | offset: one number that grows in acceptance order.
OFFSET_BITS = 32

_SUFFIX = ".seg"
_READ_WHOLE = 96 << 10  # most mails come whole with one read (limits.md: 50.6 KB)
_READ_HEAD = 2 << 10
_SEARCH = 1 << 20
_IOV_MAX = 1024  # linux/uio.h

#: Zeros that are written behind a batch, so that the next ones fall on blocks that exist. A flush of a file that grows
#: (or of room that is only reserved, which is dearer still) waits for the file system's own journal as well; onto
#: written blocks it is the data alone: on a quiet ext4, 8300 flushes of 50 KB a second instead of 3300.
ROOM = 2 << 20
#: A batch of this size bears the journal's cost by itself and does not pay for zeros.
LARGE_BATCH = ROOM // 8
_ZEROS = bytes(ROOM)


def position(number: int, offset: int) -> int:
    """Where a record is, as one number."""
    return number << OFFSET_BITS | offset


def place_of(at: int) -> tuple[int, int]:
    """(segment number, offset) of a position."""
    return at >> OFFSET_BITS, at & (1 << OFFSET_BITS) - 1


def segment_path(directory: Path, number: int) -> Path:
    """The file of a segment."""
    return directory / f"{number:08d}{_SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """The segments that exist, oldest first."""
    return sorted(int(path.stem) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


class Condition(Enum):
    """Of a record's content below its trace."""

    WHOLE = "whole"
    ERASED = "erased"  # all zeros: purged
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, repr=False)
class Kept:
    """A mail that stands in a segment. length: of its record, to read it again. condition: None: not looked at."""

    position: int
    length: int
    envelope: Envelope
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes of a segment in which no record can be read, up to the next one."""

    position: int
    length: int


@dataclass(frozen=True, slots=True, repr=False)
class Raw:
    """A record with intact head, meta and trace. content: None if it was not read."""

    head: Head
    meta: bytes
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Gap:
    """No record from offset to end (end of the file, or the next record)."""

    offset: int
    end: int


class SegmentFile:
    """One segment that this process appends to."""

    def __init__(self, disk: Disk, fd: int, header: SegmentHeader, limit: int) -> None:
        self._disk = disk
        self._fd = fd
        self.number = header.number
        self._salt = header.salt
        self._limit = limit
        self._written = SEGMENT_HEADER
        self.end = SEGMENT_HEADER

    @classmethod
    def create(cls, disk: Disk, path: Path, header: SegmentHeader, limit: int) -> SegmentFile:
        """A new file; its name and header are durable. limit: no room is made beyond it. Raises SegmentWriteError."""
        try:
            fd = disk.create(path)
        except OSError as cause:
            raise _write_error(cause) from cause
        try:
            _write_all(disk, fd, [encode_header(header)], 0)
            disk.sync(fd)
            disk.sync_directory(path.parent)
        except OSError as cause:
            with contextlib.suppress(OSError):
                disk.close(fd)
            with contextlib.suppress(OSError):
                disk.unlink(path)
            raise _write_error(cause) from cause
        return cls(disk, fd, header, limit)

    def append(self, entries: Sequence[Entry]) -> list[tuple[int, int]]:
        """One vectored write and one flush. Returns (offset, length) of each record.

        Raises SegmentWriteError: none of the batch is kept, and this file must not be appended to any more.
        """
        buffers, places = encode_batch(entries, self.end, self._salt)
        last, length = places[-1]
        end = last + length
        room = self._room_behind(end)
        if room:
            buffers.append(memoryview(_ZEROS)[:room])
        try:
            _write_all(self._disk, self._fd, buffers, self.end)
            self._disk.sync(self._fd)
        except OSError as cause:
            self.seal()
            raise _write_error(cause) from cause
        self._written = max(self._written, end + room)
        self.end = end
        return places

    def _room_behind(self, end: int) -> int:
        """How many zeros go behind a batch that ends there."""
        if end <= self._written or end - self.end >= LARGE_BATCH:
            return 0
        return max(0, min(ROOM, self._limit - end))

    def seal(self) -> None:
        """Cut off what is behind the last durable record, and close. Best effort: recovery does it again."""
        with contextlib.suppress(OSError):
            self._disk.truncate(self._fd, self.end)
            self._disk.sync(self._fd)
        with contextlib.suppress(OSError):
            self._disk.close(self._fd)


class SegmentReader:
    """Reads segments of a directory; any number of processes may, while one appends."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self.directory = directory

    def numbers(self) -> list[int]:
        """The segments that exist, oldest first."""
        return segment_numbers(self.directory)

    def header(self, number: int) -> SegmentHeader | None:
        """None if the file has none (it was being made when its process died)."""
        with self._opened(number) as fd:
            return decode_header(self._disk.read(fd, SEGMENT_HEADER, 0))

    def read(self, places: Sequence[tuple[int, int]]) -> list[tuple[Envelope, bytes] | DamagedRecordError]:
        """The mails at (position, length), each compared with its seal. Raises SegmentReadError."""
        answers: dict[int, tuple[Envelope, bytes] | DamagedRecordError] = {}
        by_segment: dict[int, list[tuple[int, int]]] = {}
        for at, length in places:
            by_segment.setdefault(at >> OFFSET_BITS, []).append((at, length))
        for number, wanted in by_segment.items():
            with self._opened(number) as fd:
                salt = self._salt(fd, number)
                for at, length in wanted:
                    answers[at] = self._read_one(fd, salt, at, length)
        return [answers[at] for at, _ in places]

    def scan(self, number: int, start: int, end: int, *, contents: bool) -> Iterator[Kept | Damaged]:
        """The mails of a segment between two offsets. contents: also compare each content with its seal."""
        with self._opened(number) as fd:
            salt = self._salt(fd, number)
            for item in walk(self._disk, fd, salt, max(start, SEGMENT_HEADER), end, contents=contents):
                if isinstance(item, Gap):
                    yield Damaged(position(number, item.offset), min(item.end, end) - item.offset)
                elif item.head.kind is Kind.MAIL:
                    envelope = decode(item.meta)
                    condition = None if item.content is None else _condition(envelope, item.content)
                    yield Kept(position(number, item.head.start), item.head.length, envelope, condition)

    def marks(self, number: int) -> Iterator[bytes]:
        """The metas of the marks of a segment, up to its torn tail."""
        with self._opened(number) as fd:
            for item in walk(self._disk, fd, self._salt(fd, number), SEGMENT_HEADER, None, contents=True):
                if isinstance(item, Raw) and item.head.kind is Kind.MARK:
                    yield item.meta

    def has_records_from(self, at: int) -> bool:
        """Whether anything stands at this position or in a later segment, also what is not durable yet."""
        first, offset = place_of(at)
        for number in self.numbers():
            if number >= first:
                with self._opened(number) as fd:
                    if any(self._disk.read(fd, HEAD, max(offset if number == first else 0, SEGMENT_HEADER))):
                        return True
        return False

    def ends(self, durable: int = 0) -> dict[int, int]:
        """Where the durable records of each segment end: as the next one's header says, or judged from its bytes.

        durable: a position before which everything is known to have been durable (the index has routed it).
        A file without a header that holds no records was being made when its process died; it is left out.
        Raises SegmentReadError, DamagedRecordError.
        """
        numbers = self.numbers()
        headers = {number: self.header(number) for number in numbers}
        said = {header.previous: header.previous_end for header in headers.values() if header}
        ends: dict[int, int] = {}
        for number, header in headers.items():
            if header is not None:
                ends[number] = said[number] if number in said else self._end(number, durable)
            elif number in said or self._holds_records(number):
                raise DamagedRecordError(f"segment {number} has no header; restore it before this role goes on")
        return ends

    def _holds_records(self, number: int) -> bool:
        with self._opened(number) as fd:
            offset = 0
            while data := self._disk.read(fd, _SEARCH, offset):
                if RECORD_MAGIC in data:  # always at a multiple of 8, so never across two reads
                    return True
                offset += len(data)
        return False

    def _end(self, number: int, durable: int) -> int:
        known, offset = place_of(durable)
        with self._opened(number) as fd:
            items = walk(self._disk, fd, self._salt(fd, number), SEGMENT_HEADER, None, contents=True)
            return recovered_end(items, offset if number == known else 0)

    def erase(self, places: Sequence[tuple[int, int]]) -> None:
        """Turn the contents at (position, length) into zeros, but not trace and meta. Raises SegmentWriteError."""
        by_segment: dict[int, list[int]] = {}
        for at, _ in places:
            number, offset = place_of(at)
            by_segment.setdefault(number, []).append(offset)
        try:
            for number, offsets in by_segment.items():
                self._erase_in(number, offsets)
        except OSError as cause:
            raise _write_error(cause) from cause

    def _erase_in(self, number: int, offsets: Sequence[int]) -> None:
        file = _Descriptor(self._disk, segment_path(self.directory, number), write=True)
        with contextlib.closing(file):
            for offset in offsets:
                head = decode_head(self._disk.read(file.fd, HEAD, offset), offset)
                if head is not None and head.content > head.trace:
                    start = offset + HEAD + head.meta + head.trace
                    self._disk.erase(file.fd, start, head.content - head.trace)
            self._disk.sync(file.fd)

    def unlink(self, number: int) -> None:
        """Remove a whole segment. Raises SegmentWriteError."""
        try:
            self._disk.unlink(segment_path(self.directory, number))
            self._disk.sync_directory(self.directory)
        except OSError as cause:
            raise _write_error(cause) from cause

    def _read_one(self, fd: int, salt: bytes, at: int, length: int) -> tuple[Envelope, bytes] | DamagedRecordError:
        number, offset = place_of(at)
        data = self._disk.read(fd, length, offset)
        head = decode_head(data, offset)
        if head is None or head.length != length or not is_intact(head, data, salt):
            return DamagedRecordError(f"the record at {offset} of segment {number} cannot be read")
        envelope = decode(data[HEAD : HEAD + head.meta])
        content = data[HEAD + head.meta : HEAD + head.meta + head.content]
        if not seal_matches(envelope, content):
            return DamagedRecordError(f"the content at {offset} of segment {number} does not match its seal")
        return envelope, content

    def _salt(self, fd: int, number: int) -> bytes:
        header = decode_header(self._disk.read(fd, SEGMENT_HEADER, 0))
        if header is None:
            raise DamagedRecordError(f"the header of segment {number} cannot be read")
        return header.salt

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[int]:
        try:
            with contextlib.closing(_Descriptor(self._disk, segment_path(self.directory, number), write=False)) as file:
                yield file.fd
        except OSError as cause:
            raise SegmentReadError(f"segment {number} cannot be read now ({os.strerror(cause.errno or 0)})") from cause


class _Descriptor:
    def __init__(self, disk: Disk, path: Path, *, write: bool) -> None:
        self._disk = disk
        self.fd = disk.open(path, write=write)

    def close(self) -> None:
        self._disk.close(self.fd)


def walk(disk: Disk, fd: int, salt: bytes, start: int, end: int | None, *, contents: bool) -> Iterator[Raw | Gap]:
    """All records from offset `start`, and the gaps between them. Raises OSError."""
    offset = start
    while end is None or offset < end:
        data = disk.read(fd, _READ_WHOLE if contents else _READ_HEAD, offset)
        if not data:
            return
        head = decode_head(data, offset)
        if head is not None:
            needed = HEAD + head.meta + (head.content if contents else head.trace)
            if needed > len(data):
                data += disk.read(fd, needed - len(data), offset + len(data))
            if len(data) < needed or not is_intact(head, data, salt):
                head = None
        if head is None:
            following = _search(disk, fd, salt, offset + 8)
            yield Gap(offset, following)
            offset = following
        else:
            meta_end = HEAD + head.meta
            content = data[meta_end : meta_end + head.content] if contents else None
            yield Raw(head, data[HEAD:meta_end], content)
            offset += head.length


def recovered_end(items: Iterator[Raw | Gap], durable: int = 0) -> int:
    """Where the durable records end, judged after a crash.

    What cannot be read at the tail was being written: it is cut off, and with it all of its batch behind it.
    What cannot be read *before* a record whose batch began later had been durable: damage, and nothing is cut. The
    same holds for what cannot be read before the offset `durable`.
    """
    end = SEGMENT_HEADER
    doubtful: int | None = None
    for item in items:
        if isinstance(item, Gap) or not _is_whole(item):
            offset = item.offset if isinstance(item, Gap) else item.head.start
            if doubtful is None and offset >= durable:
                doubtful = offset
        elif doubtful is None or item.head.batch > doubtful:
            doubtful = None
            end = item.head.start + item.head.length
    return max(end, durable)


def _is_whole(item: Raw) -> bool:
    return item.head.kind is not Kind.MAIL or (
        item.content is not None and seal_matches(decode(item.meta), item.content)
    )


def _condition(envelope: Envelope, content: bytes) -> Condition:
    if seal_matches(envelope, content):
        return Condition.WHOLE
    if content.count(0, envelope.trace) == envelope.size - envelope.trace:
        return Condition.ERASED
    return Condition.DAMAGED


def _search(disk: Disk, fd: int, salt: bytes, start: int) -> int:
    """Offset of the next intact record from `start` on, or the end of the file."""
    offset = start
    while data := disk.read(fd, _SEARCH + HEAD, offset):
        found = data.find(RECORD_MAGIC)
        while 0 <= found < _SEARCH:
            head = decode_head(data[found : found + HEAD], offset + found)
            if head is not None and is_intact(head, disk.read(fd, HEAD + head.meta + head.trace, head.start), salt):
                return head.start
            found = data.find(RECORD_MAGIC, found + 1)
        if len(data) <= _SEARCH:
            return offset + len(data)
        offset += _SEARCH
    return offset


def _write_all(disk: Disk, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
    rest: list[Buffer] = list(buffers)
    while rest:
        taken = disk.write(fd, rest[:_IOV_MAX], offset)
        if taken == 0:
            raise OSError(0, "the disk took nothing")
        offset += taken
        while rest and taken >= len(rest[0]):
            taken -= len(rest.pop(0))
        if taken:
            rest[0] = memoryview(rest[0])[taken:]


def _write_error(cause: OSError) -> SegmentWriteError:
    return SegmentWriteError(f"the mail could not be kept ({os.strerror(cause.errno or 0)}); nothing of it was")
