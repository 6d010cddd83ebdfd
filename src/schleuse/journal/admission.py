"""Which entries the journal takes: a decision over bytes, run for every entry before it is written (journal.md § 4)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from schleuse.errors import MalformedError
from schleuse.journal.entry import FIXED, HEADS, NOBODY, BadEntryError, ExtensionType, Kind, Result, check_layout

MAX_CLOCK_DIFFERENCE_US = 120_000_000  #: between the writer's claim and the journal's clock (journal.md § 4)

#: Kinds that say nothing without this extension (journal.md § 4, § 14.4).
REQUIRED: Mapping[int, ExtensionType] = {
    Kind.KEY_CREATED: ExtensionType.SUBJECT_KEY_VERSION,
    Kind.KEY_RELEASED: ExtensionType.SUBJECT_KEY_VERSION,
    Kind.KEY_ROTATED: ExtensionType.SUBJECT_KEY_VERSION,
    Kind.KEY_DESTROYED: ExtensionType.SUBJECT_KEY_VERSION,
    Kind.BUDGET_OVERRIDE: ExtensionType.SECOND_ACTOR,
    Kind.OUTCOME: ExtensionType.REFERS_TO,
}

#: How an entry without extensions may begin: most are, and one look at the head says all about their form.
_WHOLE = frozenset(head for head in HEADS if head[4] not in REQUIRED)
_TIME_AND_EVENT = struct.Struct(">Q16s")

_KEYS_HELD_BY_VAULT = range(0x20, 0x30)
_OF_THE_JOURNAL = frozenset({Kind.LOG_OPENED, Kind.SHARD_CLOSED})
#: Kinds for the vault alone, all about keys (journal.md § 13), or for the journal itself; one look for each entry.
RESERVED = frozenset({*_KEYS_HELD_BY_VAULT, *_OF_THE_JOURNAL})
_SHARED = frozenset({Kind.KEY_CREATED, Kind.KEY_RELEASED})


class InvalidEntryError(MalformedError):
    """An entry that the journal does not take; the writer, or whoever sets its clock, can change it."""

    code = "journal.invalid-entry"


def admit(data: bytes, now_us: int) -> bytes:
    """The event (16 bytes) of an entry that may be written. now_us: the journal's own clock, microseconds since 1970.

    Raises InvalidEntryError.
    """
    if len(data) != FIXED or data[:8] not in _WHOLE:
        _check_form(data)
    at_us, event = _TIME_AND_EVENT.unpack_from(data, 8)
    if event == NOBODY:
        raise InvalidEntryError("the event of the entry is all zero")
    if not -MAX_CLOCK_DIFFERENCE_US <= at_us - now_us <= MAX_CLOCK_DIFFERENCE_US:
        raise InvalidEntryError("the entry's time differs by more than 120 s from the journal's clock")
    return event  # type: ignore[no-any-return]


def _check_form(data: bytes) -> None:
    try:
        extensions = check_layout(data)
    except BadEntryError as cause:
        raise InvalidEntryError(str(cause)) from cause
    required = REQUIRED.get(data[4])
    if required is not None and required not in extensions:
        raise InvalidEntryError(f"an entry of kind {data[4]:#04x} needs extension {required}")


def is_for_journal_only(data: bytes) -> bool:
    """Whether only the journal itself may write this entry: the first and last leaf of a shard (journal.md § 17)."""
    return data[4] in _OF_THE_JOURNAL


def share_request(data: bytes) -> tuple[bytes, int] | None:
    """Subject (16 bytes) and key version for which this entry, once durable, earns the vault the journal's key share.

    Only for kinds 0x20 and 0x21 with result 0 (journal.md § 14.1); else None. data: an entry that was admitted.
    """
    if data[4] not in _SHARED or data[5] != Result.GRANTED:
        return None
    return data[48:64], int.from_bytes(check_layout(data)[ExtensionType.SUBJECT_KEY_VERSION])
