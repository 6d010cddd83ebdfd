"""JWB1 frames and control records of the write-ahead log, bytes in and values out (journal.md § 12.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from schleuse.errors import CorruptError

MAGIC = b"JWB1"
ALIGNMENT = 4096  #: a torn write damages only the frame being written
HEAD = 64
CONTROL = 0xFFFF  #: number of the log of control records
FIRST_CHAIN = bytes(32)
_FIELDS = struct.Struct(">4sIQQII")
_RECORD = struct.Struct(">HH")
MAX_RECORD = 0xFFFF


class BadFrameError(CorruptError):
    """Bytes of the write-ahead log that are no frame, or a frame that does not continue the chain."""

    code = "journal.bad-frame"


@dataclass(frozen=True, slots=True)
class Head:
    """The first 32 bytes of a frame. time: microseconds since 1970 UTC."""

    body_length: int
    batch: int
    time: int
    count: int

    @property
    def padded(self) -> int:
        """Length of the whole frame on disk."""
        return padded(HEAD + self.body_length)


def padded(length: int) -> int:
    """Up to the next multiple of 4,096."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def build(body: bytes, *, count: int, batch: int, time: int, chain: bytes) -> tuple[bytes, bytes]:
    """The padded frame and its chain value. chain: of the previous frame, zeros before batch 0."""
    head = _FIELDS.pack(MAGIC, len(body), batch, time, count, 0)
    digest = sha256(chain)
    digest.update(head)
    digest.update(body)
    new = digest.digest()
    frame = b"".join((head, new, body))
    return frame.ljust(padded(len(frame)), b"\0"), new


def parse_head(data: bytes, offset: int = 0) -> Head | None:
    """None if these are not the first bytes of a frame."""
    if len(data) - offset < HEAD or data[offset : offset + 4] != MAGIC:
        return None
    _, length, batch, time, count, zero = _FIELDS.unpack_from(data, offset)
    return Head(length, batch, time, count) if zero == 0 else None


def continues(frame: bytes, head: Head, chain: bytes) -> bytes | None:
    """The chain value of a whole padded frame if it continues `chain` and its padding is zero, else None."""
    end = HEAD + head.body_length
    digest = sha256(chain)
    digest.update(memoryview(frame)[:32])
    digest.update(memoryview(frame)[HEAD:end])
    new = digest.digest()
    return new if frame[32:HEAD] == new and not frame[end:].strip(b"\0") else None


def pack_records(number: int, records: Sequence[bytes]) -> bytes:
    """Records of one log, as they stand in a body."""
    if len(records) == 1:
        return _RECORD.pack(number, len(records[0])) + records[0]
    heads = {length: _RECORD.pack(number, length) for length in set(map(len, records))}
    if len(heads) == 1:  # mostly; then one call does it for all
        (head,) = heads.values()
        return head + head.join(records)
    return b"".join([heads[len(record)] + record for record in records])


def records(body: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """(log number, entry or control record) in order. Raises BadFrameError."""
    at, unpack = 0, _RECORD.unpack_from
    try:
        for _ in range(count):
            number, length = unpack(body, at)
            at += 4
            yield number, body[at : at + length]
            at += length
    except struct.error as cause:
        raise BadFrameError("a frame has fewer records than its head says") from cause
    if at != len(body):
        raise BadFrameError(f"a frame's records fill {at} of {len(body)} bytes")


@dataclass(frozen=True, slots=True)
class NewLog:
    """Control record 1: from here on `number` is the log `origin`."""

    number: int
    origin: str


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """Control record 2: a note that we signed; durable before anyone sees it (§ 12.4)."""

    number: int
    note: bytes


@dataclass(frozen=True, slots=True)
class CosignatureLines:
    """Control record 3: lines of witnesses for the checkpoint of `size`."""

    number: int
    size: int
    lines: bytes


@dataclass(frozen=True, slots=True)
class MinimumIndex:
    """Control record 4: entries below `index` are deleted after their period (§ 17)."""

    number: int
    index: int


Control = NewLog | SignedCheckpoint | CosignatureLines | MinimumIndex


def pack_control(record: Control) -> bytes:
    """The bytes of a control record."""
    match record:
        case NewLog(number, origin):
            return struct.pack(">BH", 1, number) + origin.encode()
        case SignedCheckpoint(number, note):
            return struct.pack(">BH", 2, number) + note
        case CosignatureLines(number, size, lines):
            return struct.pack(">BHQ", 3, number, size) + lines
        case MinimumIndex(number, index):
            return struct.pack(">BHQ", 4, number, index)


def parse_control(data: bytes) -> Control:
    """Raises BadFrameError."""
    try:
        kind, number = struct.unpack_from(">BH", data)
        if kind == 1:
            return NewLog(number, data[3:].decode())
        if kind == 2:
            return SignedCheckpoint(number, data[3:])
        (value,) = struct.unpack_from(">Q", data, 3)
        if kind == 3:
            return CosignatureLines(number, value, data[11:])
        if kind == 4 and len(data) == 11:
            return MinimumIndex(number, value)
    except (struct.error, UnicodeDecodeError) as cause:
        raise BadFrameError("a control record is cut short") from cause
    raise BadFrameError(f"control record of kind {kind} with {len(data)} bytes is not one of 1 to 4")
