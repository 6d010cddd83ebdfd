"""The write-ahead log: segments full of zeros that frames are written over, one flush for each (journal.md § 12.1).

`Wal` writes; `Walk` reads at start and says where the log ends, what is a torn tail, and what must not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schleuse.journal.disk import Disk, write_all
from schleuse.journal.frame import ALIGNMENT, FIRST_CHAIN, HEAD, MAGIC, Head, build, continues, padded, parse_head

SEGMENT_SIZE = 64 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next frame goes, and what it continues. chain: of the frame before."""

    segment: int = 0
    offset: int = 0
    batch: int = 0
    chain: bytes = FIRST_CHAIN


START = Position()


def segment_name(number: int) -> str:
    """`wal-` and twelve digits."""
    return f"wal-{number:012d}"


def segment_numbers(disk: Disk, folder: Path) -> list[int]:
    """Numbers of the segments that are there, ascending."""
    return [int(name[4:]) for name in disk.names(folder) if len(name) == 16 and name.startswith("wal-")]


class Wal:
    """Appends frames. One thread at a time calls `write`; another may call `prepare`, which touches spares only.

    position: where a Walk ended, or the beginning. spares: segments to keep ready ahead.
    """

    def __init__(
        self, folder: Path, disk: Disk, position: Position, *, segment_size: int = SEGMENT_SIZE, spares: int = 4
    ) -> None:
        if segment_size % ALIGNMENT or segment_size < 2 * ALIGNMENT:
            raise ValueError("a segment is a multiple of 4,096 bytes and holds two frames")
        self.position = position
        self.segment_size = segment_size
        self._folder = folder
        self._disk = disk
        self._wanted = spares
        self._ready = position.segment - 1  # the last segment that is full of zeros and on the medium
        self._free: list[int] = []
        self._fd: int | None = None

    @property
    def spare(self) -> int:
        """Segments ready behind the current one."""
        return max(self._ready - self.position.segment, 0)

    @property
    def wants_spares(self) -> bool:
        """Whether `prepare` has something to do."""
        return self.spare < self._wanted

    @property
    def largest_body(self) -> int:
        """Bytes that one frame's records may have."""
        return min(self.segment_size, 8 << 20) - HEAD

    def start(self) -> None:
        """Open the current segment and make sure that it and one spare are there. Raises OSError."""
        there = segment_numbers(self._disk, self._folder)
        if self.position.segment not in there:
            self._ready = self.position.segment - 1
            self._zero_next()
        self._ready = self.position.segment
        while self._ready + 1 in there and self._is_spare(self._ready + 1):
            self._ready += 1
        if not self.spare:
            self._zero_next()
        self._fd = self._disk.open(self._folder / segment_name(self.position.segment), create=False)

    def make_room(self, body_length: int) -> bool:
        """Whether a frame with this body can be written now; goes on to the next segment if it must."""
        if self.position.offset + padded(HEAD + body_length) <= self.segment_size:
            return True
        if not self.spare:
            return False
        if self._fd is not None:
            self._disk.close(self._fd)
        self.position = Position(self.position.segment + 1, 0, self.position.batch, self.position.chain)
        self._fd = self._disk.open(self._folder / segment_name(self.position.segment), create=False)
        return True

    def write(self, body: bytes, count: int, time: int) -> None:
        """Write one frame where `make_room` found room, and flush it.

        Raises OSError; the position is then unchanged, and nobody may write again: the kernel may have dropped
        the page and would call the next flush a success (§ 12.3).
        """
        at = self.position
        if self._fd is None:
            raise OSError("the write-ahead log is not open")
        frame, chain = build(body, count=count, batch=at.batch, time=time, chain=at.chain)
        write_all(self._disk, self._fd, frame, at.offset)
        self._disk.sync(self._fd)
        self.position = Position(at.segment, at.offset + len(frame), at.batch + 1, chain)

    def recycle(self, below: int) -> None:
        """Segments below this number are no longer needed; `prepare` uses them again."""
        self._free = [number for number in segment_numbers(self._disk, self._folder) if number < below]

    def prepare(self) -> None:
        """Make one spare segment, out of one that is no longer needed if there is one. Raises OSError."""
        self._zero_next()

    def close(self) -> None:
        """Nothing is flushed here: whatever was written is."""
        if self._fd is not None:
            self._disk.close(self._fd)
            self._fd = None

    def _zero_next(self) -> None:
        """Real zeros, not a hole: a flush then has no extents to write (§ 12.1)."""
        target = self._folder / segment_name(self._ready + 1)
        old = self._folder / segment_name(self._free.pop(0)) if self._free else None
        fd = self._disk.open(old or target, create=True)
        try:
            self._disk.truncate(fd, self.segment_size)
            zeros = bytes(_PIECE)
            for start in range(0, self.segment_size, _PIECE):
                write_all(self._disk, fd, zeros[: self.segment_size - start], start)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        if old is not None:
            # Only once it is zero: under its new number an old frame would look like a lost chain.
            self._disk.rename(old, target)
        self._disk.sync_directory(self._folder)
        self._ready += 1

    def _is_spare(self, number: int) -> bool:
        fd = self._disk.open(self._folder / segment_name(number), create=False)
        try:
            return self._disk.size(fd) == self.segment_size  # the walk saw that there is nothing but zeros in it
        finally:
            self._disk.close(fd)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame whose chain holds. position: where it stands."""

    position: Position
    head: Head
    body: bytes


class Walk:
    """Reads frames from a position on. When `frames` has ended, `end`, `torn` and `findings` are final.

    end: where the next frame goes. torn: the tail of a write that was never acknowledged begins at `end`.
    findings: sentences that name the file; any of them means QUARANTINE.
    """

    def __init__(self, folder: Path, disk: Disk, start: Position, *, segment_size: int = SEGMENT_SIZE) -> None:
        self.end = start
        self.torn = False
        self.findings: list[str] = []
        self._folder = folder
        self._disk = disk
        self._size = segment_size

    def frames(self) -> Iterator[Frame]:
        """Every frame in order, until the end or the first finding."""
        numbers = [n for n in segment_numbers(self._disk, self._folder) if n >= self.end.segment]
        if not numbers:
            if self.end != START:
                self._find(f"{segment_name(self.end.segment)} is missing")
            return
        for expected, number in enumerate(numbers, start=self.end.segment):
            if number != expected:
                self._find(f"{segment_name(expected)} is missing, and {segment_name(number)} is there")
                return
        for number in numbers:
            data = self._read(number)
            if number > self.end.segment:
                if data[: len(MAGIC)] != MAGIC:
                    self._judge_rest(number, data, 0, numbers)
                    return
                self.end = Position(number, 0, self.end.batch, self.end.chain)
            if len(data) != self._size:
                self._find(f"{segment_name(number)} has {len(data)} bytes, expected {self._size}")
                return
            yield from self._segment(data)
            if self.findings or self._judge_rest(number, data, self.end.offset, numbers):
                return

    def erase_torn(self) -> None:
        """Zero what a write that was never acknowledged left behind. Raises OSError."""
        for number in [n for n in segment_numbers(self._disk, self._folder) if n >= self.end.segment]:
            start = self.end.offset if number == self.end.segment else 0
            data = self._read(number)
            if not data[start:].strip(b"\0"):
                continue
            fd = self._disk.open(self._folder / segment_name(number), create=False)
            try:
                write_all(self._disk, fd, bytes(len(data) - start), start)
                self._disk.sync(fd)
            finally:
                self._disk.close(fd)

    def _segment(self, data: bytes) -> Iterator[Frame]:
        while (head := parse_head(data, self.end.offset)) is not None:
            at = self.end
            if at.offset + head.padded > len(data):
                return
            frame = data[at.offset : at.offset + head.padded]
            chain = continues(frame, head, at.chain)
            if chain is None or head.batch != at.batch:
                if at.offset == 0 and at.segment and head.batch != at.batch:
                    # A torn frame has its own number; this one follows frames that are gone.
                    self._find(f"{segment_name(at.segment)} begins with frame {head.batch}, expected {at.batch}")
                return
            self.end = Position(at.segment, at.offset + len(frame), at.batch + 1, chain)
            yield Frame(at, head, frame[HEAD : HEAD + head.body_length])

    def _judge_rest(self, number: int, data: bytes, offset: int, numbers: list[int]) -> bool:
        """Whether the log ends in this segment: nothing but zeros, or one torn frame, follows (§ 12.3)."""
        later = [n for n in numbers if n > number]
        empty = not data[offset:].strip(b"\0")
        if empty and later and self._starts_with_frame(later[0]):
            return False
        place = f"{segment_name(number)}, offset {offset}"
        for at in range(offset + ALIGNMENT, len(data), ALIGNMENT):
            if data.startswith(MAGIC, at):
                self._find(f"{place}: frame {self.end.batch} is damaged, and a later one stands at offset {at}")
                return True
        for other in later:
            rest = self._read(other)
            if any(rest.startswith(MAGIC, at) for at in range(0, len(rest), ALIGNMENT)):
                self._find(f"{place}: frame {self.end.batch} is damaged, and {segment_name(other)} has a later one")
                return True
            empty = empty and not rest.strip(b"\0")
        self.torn = not empty
        return True

    def _starts_with_frame(self, number: int) -> bool:
        fd = self._disk.open(self._folder / segment_name(number), create=False)
        try:
            return self._disk.read(fd, len(MAGIC), 0) == MAGIC
        finally:
            self._disk.close(fd)

    def _read(self, number: int) -> bytes:
        fd = self._disk.open(self._folder / segment_name(number), create=False)
        try:
            return self._disk.read(fd, self._disk.size(fd), 0)
        finally:
            self._disk.close(fd)

    def _find(self, sentence: str) -> None:
        self.findings.append(f"write-ahead log: {sentence}")
