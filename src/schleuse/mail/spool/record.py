"""How records stand in a segment file. Pure: bytes in, bytes out.

    segment   64 octets of header, then records, each at a multiple of 8, then zeros (room reserved)
    record    56 octets of head, meta, content, zeros to a multiple of 8

A record's `check` covers its head, its meta and the trace of its content; the rest of the content is covered by the
SHA-256 in the meta, so every octet is covered once. The check is keyed with the segment's random salt:
nobody can send a mail whose content would pass for a record when a damaged segment is searched for the next one.

`batch` is where the flush began that made the record durable. All before it was on the medium when the record was
written; that tells a torn tail (cut it) from later damage (never cut it).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from schleuse.mail.spool.disk import Buffer

_SEGMENT = struct.Struct("<8sQQQ16s16s")
_SEGMENT_MAGIC = b"SCHLSEG1"
SEGMENT_HEADER = 64

RECORD_MAGIC = b"\xf5SR1"  # 0xF5 is no octet of UTF-8
_FIELDS = struct.Struct("<4sB3xIIQQQ")
_CHECK = 16
HEAD = _FIELDS.size + _CHECK
_ALIGN = 8

#: More than any mail (kim.md § 17: 734 003 200 octets); a length beyond it is damage.
MAX_LENGTH = 1 << 30


class Kind(IntEnum):
    """What a record holds."""

    MAIL = 1
    MARK = 2


_KINDS = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """number: of this segment. previous, previous_end: the one before it and where its records end (0, 0: none)."""

    number: int
    previous: int
    previous_end: int
    salt: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One record to be written. trace: how many octets of content the check covers."""

    kind: Kind
    meta: bytes
    content: bytes = b""
    trace: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a record. length: of the whole record, padding included."""

    kind: Kind
    meta: int
    trace: int
    content: int
    start: int
    batch: int
    check: bytes

    @property
    def length(self) -> int:
        return padded(HEAD + self.meta + self.content)


def padded(length: int) -> int:
    """Up to the next multiple of 8."""
    return -(-length // _ALIGN) * _ALIGN


def encode_header(header: SegmentHeader) -> bytes:
    """The 64 octets at the top of a segment."""
    fields = _SEGMENT.pack(_SEGMENT_MAGIC, header.number, header.previous, header.previous_end, header.salt, bytes(16))[
        :-16
    ]
    return fields + hashlib.blake2s(fields, digest_size=16).digest()


def decode_header(data: bytes) -> SegmentHeader | None:
    """None: not a header (a file that was being made, or damage)."""
    if len(data) < SEGMENT_HEADER:
        return None
    magic, number, previous, previous_end, salt, check = _SEGMENT.unpack_from(data)
    expected = hashlib.blake2s(data[: SEGMENT_HEADER - 16], digest_size=16).digest()
    if magic != _SEGMENT_MAGIC or check != expected:
        return None
    return SegmentHeader(number, previous, previous_end, salt)


def encode_batch(entries: Sequence[Entry], start: int, salt: bytes) -> tuple[list[Buffer], list[tuple[int, int]]]:
    """The buffers of one vectored write at offset `start`, and (offset, length) of each record in the segment."""
    buffers: list[Buffer] = []
    places: list[tuple[int, int]] = []
    offset, padding = start, b""
    for entry in entries:
        fields = _FIELDS.pack(RECORD_MAGIC, entry.kind, len(entry.meta), entry.trace, len(entry.content), offset, start)
        check = _check(salt, fields, entry.meta, entry.content[: entry.trace])
        buffers.append(b"".join((padding, fields, check, entry.meta)))
        if entry.content:
            buffers.append(entry.content)
        bare = HEAD + len(entry.meta) + len(entry.content)
        length = padded(bare)
        padding = bytes(length - bare)
        places.append((offset, length))
        offset += length
    if padding:
        buffers.append(padding)
    return buffers, places


def decode_head(data: bytes, offset: int) -> Head | None:
    """What looks like a head that was written at `offset`; its check is still to be tested."""
    if len(data) < HEAD:
        return None
    magic, kind, meta, trace, content, start, batch = _FIELDS.unpack_from(data)
    plausible = (
        magic == RECORD_MAGIC
        and kind in _KINDS
        and start == offset
        and SEGMENT_HEADER <= batch <= start
        and trace <= content
        and meta + content <= MAX_LENGTH
    )
    return Head(Kind(kind), meta, trace, content, start, batch, data[_FIELDS.size : HEAD]) if plausible else None


def is_intact(head: Head, record: bytes, salt: bytes) -> bool:
    """Whether head, meta and trace are as written. record: head, meta and at least the trace of the content."""
    end_of_meta = HEAD + head.meta
    if len(record) < end_of_meta + head.trace:
        return False
    view = memoryview(record)
    return (
        _check(
            salt,
            view[: _FIELDS.size],
            view[HEAD:end_of_meta],
            view[end_of_meta : end_of_meta + head.trace],
        )
        == head.check
    )


def _check(salt: bytes, *parts: Buffer) -> bytes:
    digest = hashlib.blake2s(key=salt, digest_size=_CHECK)
    for part in parts:
        digest.update(part)
    return digest.digest()
