"""The leaf JE1: one thing that was done or tried, in 128 bytes, without naming anybody (journal.md § 4).

`actor` and `subject` are random values from tables that the controller holds; erasing the row makes the entry point
to nobody, and the tree does not change. What they mean stands in the detail record, of which there is a commitment.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import product
from uuid import UUID

from schleuse.errors import MalformedError

MAGIC = b"JE1\n"
FIXED = 128  #: bytes before the extensions
MAX_ENTRY = 1024  #: bytes with extensions

NOBODY = bytes(16)  #: actor: the system itself; subject: no insured person
NOTHING = bytes(32)  #: no object, no detail record

_FIXED = struct.Struct(">4sBBHQ16s16s16s32s32s")
_EXTENSION = struct.Struct(">BH")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadEntryError(MalformedError):
    """Not an entry JE1; whoever wrote it can change it."""

    code = "journal.bad-entry"


class Kind(IntEnum):
    """What was done. A closed list, each number for good; docs/journal-entries.md explains them."""

    LOG_OPENED = 0x01  #: first leaf of every shard
    SHARD_CLOSED = 0x02
    READ = 0x10
    WRITE = 0x11
    DELETE = 0x12
    SEARCH = 0x13  #: list or search, metadata only
    EXPORT = 0x14  #: export or print
    KEY_CREATED = 0x20
    KEY_RELEASED = 0x21  #: or plaintext opened in the vault
    KEY_ROTATED = 0x22
    KEY_DESTROYED = 0x23
    SPOOL_ACCEPTED = 0x30
    SPOOL_OPENED = 0x31
    SPOOL_DELIVERED = 0x32
    CONSENT_GRANTED = 0x40
    CONSENT_REVOKED = 0x41
    POLICY_CHANGED = 0x42  #: or a budget
    BUDGET_OVERRIDE = 0x43
    LOGIN = 0x50
    LOGIN_FAILED = 0x51
    ADMINISTRATION = 0x60
    BREAK_GLASS = 0x61
    OUTCOME = 0x7F  #: of an earlier event


class Result(IntEnum):
    """How it went, as far as known when the entry was written."""

    GRANTED = 0  #: or intended
    DENIED = 1
    FAILED = 2
    COMPLETED = 3  #: in an entry of kind OUTCOME


class Purpose(IntEnum):
    """Why. A closed list, each number for good; a tenant's list is a selection of it (journal.md § 4)."""

    NONE = 0
    TREATMENT = 1
    EAU_INTAKE = 2  #: open, check and file an eAU that arrived
    EAU_DELIVERY = 3  #: hand an eAU to the insurer's own system
    EAU_EMPLOYER = 4  #: answer an employer's request
    FEHLERNACHRICHT = 5  #: tell the practice what is wrong with its eAU
    ARZTBRIEF = 6  #: handle a doctor's letter
    INSURANT_REQUEST = 7  #: the insured person asked for it
    CLEARING = 8  #: a person looks at what no rule could decide
    DATA_PROTECTION = 9  #: control of accesses (§ 309 SGB V); reading the journal is one (RP-07)
    INCIDENT = 10  #: examination or recovery after an incident
    OPERATION = 11  #: running the platform
    CANARY = 12  #: the insurer's own synthetic persons (journal.md § 16)


class ExtensionType(IntEnum):
    """Extensions that we know; others are kept and ignored."""

    SECOND_ACTOR = 1
    REFERS_TO = 2
    COUNT = 3
    RELEASE_COUNTER = 4
    INSTITUTION = 5
    SUBJECT_KEY_VERSION = 6


_SIZES: Mapping[int, int] = {
    ExtensionType.SECOND_ACTOR: 16,
    ExtensionType.REFERS_TO: 16,
    ExtensionType.COUNT: 4,
    ExtensionType.RELEASE_COUNTER: 8,
    ExtensionType.INSTITUTION: 16,
    ExtensionType.SUBJECT_KEY_VERSION: 4,
}

_HEAD = struct.Struct(">4sBBH")
#: Every way in which an entry may begin, so that one look tells, for each entry that the journal is given.
HEADS = frozenset(_HEAD.pack(MAGIC, *values) for values in product(Kind, Result, Purpose))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the journal. Holds random ids and commitments only, so it may be printed.

    at: as the writer claims it, with zone and whole microseconds. event: unique per event, idempotency key.
    actor, subject, institution, second_actor: pseudonyms of 16 bytes. object, detail: commitments of 32 bytes
    (opening.py). refers_to: an earlier event. count: objects in a bulk access. unknown: extensions of types that we
    do not know, ascending. Raises BadEntryError.
    """

    kind: Kind
    result: Result
    purpose: Purpose
    at: datetime
    event: UUID
    actor: bytes = NOBODY
    subject: bytes = NOBODY
    object: bytes = NOTHING
    detail: bytes = NOTHING
    second_actor: bytes | None = None
    refers_to: UUID | None = None
    count: int | None = None
    release_counter: int | None = None
    institution: bytes | None = None
    subject_key_version: int | None = None
    unknown: tuple[tuple[int, bytes], ...] = field(default=())

    def __post_init__(self) -> None:
        if self.at.utcoffset() is None or self.at < _EPOCH:
            raise BadEntryError("the time of an entry has a zone and is not before 1970")
        for name, value, size in (
            ("actor", self.actor, 16),
            ("subject", self.subject, 16),
            ("object", self.object, 32),
            ("detail", self.detail, 32),
        ):
            if len(value) != size:
                raise BadEntryError(f"{name} of an entry has {size} bytes, not {len(value)}")
        if any(kind in _SIZES for kind, _ in self.unknown):
            raise BadEntryError("an extension that we know stands among the unknown ones")
        check_layout(self.encode())

    @property
    def time_us(self) -> int:
        """`at` in microseconds since 1970, as it stands in the entry."""
        return (self.at - _EPOCH) // timedelta(microseconds=1)

    def encode(self) -> bytes:
        """The bytes that are hashed, stored and shown."""
        fixed = _FIXED.pack(
            MAGIC,
            self.kind,
            self.result,
            self.purpose,
            self.time_us,
            self.event.bytes,
            self.actor,
            self.subject,
            self.object,
            self.detail,
        )
        return fixed + b"".join(_encode_extension(kind, value) for kind, value in self._extensions())

    def _extensions(self) -> list[tuple[int, bytes]]:
        known = {
            ExtensionType.SECOND_ACTOR: self.second_actor,
            ExtensionType.REFERS_TO: None if self.refers_to is None else self.refers_to.bytes,
            ExtensionType.COUNT: _number(self.count, 4),
            ExtensionType.RELEASE_COUNTER: _number(self.release_counter, 8),
            ExtensionType.INSTITUTION: self.institution,
            ExtensionType.SUBJECT_KEY_VERSION: _number(self.subject_key_version, 4),
        }
        present = [(int(kind), value) for kind, value in known.items() if value is not None]
        return sorted([*present, *self.unknown], key=lambda extension: extension[0])


def parse_entry(data: bytes) -> Entry:
    """The entry in these bytes; `encode` gives the same bytes back. Raises BadEntryError.

    An unknown kind, result or purpose is malformed here: the lists are closed, and a newer one has a newer program.
    """
    extensions = check_layout(data)
    _, kind, result, purpose, time_us, event, actor, subject, obj, detail = _FIXED.unpack_from(data)
    try:
        at = _EPOCH + timedelta(microseconds=time_us)
    except OverflowError as cause:
        raise BadEntryError("the time of the entry is beyond the year 9999") from cause
    refers_to = extensions.get(ExtensionType.REFERS_TO)
    return Entry(
        Kind(kind),
        Result(result),
        Purpose(purpose),
        at,
        UUID(bytes=event),
        actor,
        subject,
        obj,
        detail,
        second_actor=extensions.get(ExtensionType.SECOND_ACTOR),
        refers_to=None if refers_to is None else UUID(bytes=refers_to),
        count=_from_bytes(extensions.get(ExtensionType.COUNT)),
        release_counter=_from_bytes(extensions.get(ExtensionType.RELEASE_COUNTER)),
        institution=extensions.get(ExtensionType.INSTITUTION),
        subject_key_version=_from_bytes(extensions.get(ExtensionType.SUBJECT_KEY_VERSION)),
        unknown=tuple((kind, value) for kind, value in extensions.items() if kind not in _SIZES),
    )


def check_layout(data: bytes) -> dict[int, bytes]:
    """The extensions of an entry by type, after all rules about its form. Raises BadEntryError."""
    if not FIXED <= len(data) <= MAX_ENTRY or data[:8] not in HEADS:
        raise _bad_head(data)
    return _split_extensions(data) if len(data) > FIXED else {}


def _bad_head(data: bytes) -> BadEntryError:
    if not FIXED <= len(data) <= MAX_ENTRY or data[:4] != MAGIC:
        return BadEntryError(f"an entry begins with JE1 and has {FIXED} to {MAX_ENTRY} bytes")
    return BadEntryError(f"found kind {data[4]:#04x}, result {data[5]}, purpose {int.from_bytes(data[6:8])}")


def _split_extensions(data: bytes) -> dict[int, bytes]:
    extensions: dict[int, bytes] = {}
    at, last, size = FIXED, -1, len(data)
    while at < size:
        if size - at < _EXTENSION.size:
            raise BadEntryError("the entry ends inside an extension")
        kind, length = _EXTENSION.unpack_from(data, at)
        at += _EXTENSION.size + length
        if at > size:
            raise BadEntryError("the entry ends inside an extension")
        if kind <= last:
            raise BadEntryError("extensions stand in ascending order of their types, each at most once")
        if _SIZES.get(kind, length) != length:
            raise BadEntryError(f"extension {kind} has {_SIZES[kind]} bytes, not {length}")
        extensions[kind] = data[at - length : at]
        last = kind
    return extensions


def _encode_extension(kind: int, value: bytes) -> bytes:
    if not 0 <= kind <= 255 or len(value) > MAX_ENTRY:
        raise BadEntryError(f"an extension has a type of one byte and at most {MAX_ENTRY} bytes")
    return bytes([kind]) + len(value).to_bytes(2) + value


def _number(value: int | None, size: int) -> bytes | None:
    if value is None:
        return None
    if not 0 <= value < 1 << (8 * size):
        raise BadEntryError(f"found a number that does not fit into {size} bytes")
    return value.to_bytes(size)


def _from_bytes(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value)
