"""The spool: segments in one directory, appended to by one process."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from schleuse.errors import ConflictError, UnavailableError
from schleuse.mail.spool.disk import Disk
from schleuse.mail.spool.envelope import Envelope, encode
from schleuse.mail.spool.record import SEGMENT_HEADER, Entry, Kind, SegmentHeader
from schleuse.mail.spool.segments import (
    Damaged,
    Kept,
    SegmentFile,
    SegmentReader,
    SegmentWriteError,
    place_of,
    position,
    segment_path,
)


class SpoolLockedError(ConflictError):
    """Another process has this spool; stop it first."""

    code = "spool.locked"


class SpoolFullError(UnavailableError):
    """Too little room on the disk of the spool; the operator makes room, senders try again."""

    code = "spool.full"


#: HD-28: at 95 % the store takes nothing more; on large disks this much room is enough for index and marks to drain.
FULL_AT = 0.95
MAX_RESERVE = 4 << 30


def default_reserve(total: int) -> int:
    """Bytes that must stay free on a disk of this size (HD-28)."""
    return min(int(total * (1 - FULL_AT)), MAX_RESERVE)


class Spool:
    """Appends batches of mails durably; remembers where the durable mails end.

    Raises SpoolLockedError when another process has the directory, SegmentReadError, DamagedRecordError.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        *,
        segment_bytes: int = 128 << 20,
        reserve: Callable[[int], int] = default_reserve,
        durable: int = 0,
        salt: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """durable: a position that the index has reached: all before it was durable, and its segment existed."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(directory / "lock")
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._reserve = reserve
        self._salt = salt
        self._guarded = threading.Lock()
        self._current: SegmentFile | None = None
        self._anew = False
        self.reader = SegmentReader(disk, directory)
        try:
            self._ends = self._recover(durable)
        except BaseException:
            os.close(self._lock)
            raise
        self._next = max([place_of(durable)[0], *self._ends]) + 1  # no number is used twice

    def append(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        """Durable when it returns. Raises SpoolFullError, SegmentWriteError: then none of the batch is kept."""
        entries = [Entry(Kind.MAIL, encode(envelope), content, envelope.trace) for envelope, content in batch]
        size = sum(len(entry.meta) + len(entry.content) for entry in entries)
        self._guard(size)
        segment = self._segment_for(size)
        try:
            segment.append(entries)
        except SegmentWriteError:
            self._current = None
            raise
        self._set_end(segment.number, segment.end)

    @property
    def end(self) -> int:
        """Position behind the last durable mail; 0 if there never was one."""
        return position(*max(self._ends.items())) if self._ends else 0

    @property
    def newest(self) -> int:
        """Position at which the newest segment begins; all before it are complete."""
        return position(max(self._ends, default=0), 0)

    def start_anew(self) -> None:
        """The next batch goes into a new segment, so that the present one becomes complete."""
        self._anew = True

    def scan(self, start: int, *, contents: bool = False) -> Iterator[Kept | Damaged]:
        """All mails from a position on, oldest first. contents: also compare each with its seal."""
        return scan_from(self.reader, self._ends, start, contents=contents)

    def forget(self, number: int) -> None:
        """Remove a whole segment; the newest one stays, so that its number is not used again."""
        if number != max(self._ends):
            self.reader.unlink(number)
            self._set_end(number, None)

    def removable(self) -> list[int]:
        """The segments that are complete, oldest first."""
        return sorted(self._ends)[:-1]

    def close(self) -> None:
        """Seal the current segment and give the directory back."""
        if self._current is not None:
            self._current.seal()
            self._current = None
        os.close(self._lock)

    def _guard(self, size: int) -> None:
        try:
            free, total = self._disk.room(self._directory)
        except OSError as cause:
            raise SegmentWriteError("the disk of the spool does not answer; its operator must look") from cause
        if free - size < self._reserve(total):
            raise SpoolFullError(
                f"{free >> 20} MiB are free for the spool, {self._reserve(total) >> 20} must stay free; "
                "the operator must make room"
            )

    def _segment_for(self, size: int) -> SegmentFile:
        current = self._current
        if current is not None and current.end + size <= self._segment_bytes and not self._anew:
            return current
        self._anew = False
        if current is not None:
            current.seal()
            self._current = None
        previous = max(self._ends, default=0)
        number, self._next = self._next, self._next + 1  # a number is used once, also when this fails
        self._current = SegmentFile.create(
            self._disk,
            segment_path(self._directory, number),
            SegmentHeader(number, previous, self._ends.get(previous, 0), self._salt(16)),
            self._segment_bytes,
        )
        self._set_end(number, SEGMENT_HEADER)
        return self._current

    def _set_end(self, number: int, end: int | None) -> None:
        """The table is replaced, never changed, because other threads walk through it."""
        with self._guarded:
            ends = {each: at for each, at in self._ends.items() if each != number}
            self._ends = ends if end is None else {**ends, number: end}

    def _recover(self, durable: int) -> dict[int, int]:
        """Ends of all segments; drops a file that was being made, cuts the torn tail of the newest, and makes durable
        what that one had written (its process may have been killed between write and flush)."""
        ends = self.reader.ends(durable)
        for number in self.reader.numbers():
            if number not in ends:
                self.reader.unlink(number)
        if ends:
            newest = max(ends)
            fd = self._disk.open(segment_path(self._directory, newest), write=True)
            try:
                self._disk.truncate(fd, ends[newest])
                self._disk.sync(fd)
            except OSError as cause:
                raise SegmentWriteError(f"segment {newest} cannot be made durable; look at its disk") from cause
            finally:
                self._disk.close(fd)
        return ends


def scan_from(
    reader: SegmentReader, ends: Mapping[int, int], start: int, *, contents: bool
) -> Iterator[Kept | Damaged]:
    """All mails of segments with these ends, from a position on, oldest first."""
    number, offset = place_of(start)
    for each, end in sorted(ends.items()):
        if each >= number:
            yield from reader.scan(each, offset if each == number else 0, end, contents=contents)


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        os.close(fd)
        raise SpoolLockedError(f"another process appends to {path.parent}; only one may") from cause
    return fd
