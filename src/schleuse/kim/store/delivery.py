"""The values that pass between the mail store and those who work with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schleuse.errors import ConflictError, RefusedError
from schleuse.holding.states import State
from schleuse.mail.contracts import Action, Mail, Recipient, Report

#: A delivery's id is its mail's position and the index of its recipient in one number, so that it is the same
#: after the index was rebuilt and orders deliveries by acceptance: position << RECIPIENT_BITS | index.
RECIPIENT_BITS = 10

#: RFC 5321 § 4.5.3.1.8 asks for 100 at least; bounded by RECIPIENT_BITS.
MAX_RECIPIENTS = 1000

#: In `counts` and audits: the deliveries that go to another host.
OUTBOUND = "(outbound)"

#: In `counts` and audits: records of a segment that can no longer be read.
DAMAGED = "(damaged)"


class MaildropLockedError(ConflictError):
    """Another POP3 session has the mailbox; its owner waits for the end of that session."""

    code = "kim.maildrop-locked"


class LeaseLostError(ConflictError):
    """The lease on a delivery ran out before it was finished; the mail comes again by itself."""

    code = "kim.lease-lost"


class TooManyRecipientsError(RefusedError):
    """More recipients than one mail may have; its sender splits it."""

    code = "kim.too-many-recipients"


def delivery_id(position: int, index: int) -> int:
    """The id of the delivery to the recipient with this index (0-based) in the envelope."""
    return position << RECIPIENT_BITS | index


def position_of(delivery: int) -> int:
    """The position of the mail that a delivery belongs to."""
    return delivery >> RECIPIENT_BITS


def recipient_index(delivery: int) -> int:
    """Which recipient of the envelope a delivery is for."""
    return delivery & (1 << RECIPIENT_BITS) - 1


@dataclass(frozen=True, slots=True, repr=False)
class Claimed:
    """One delivery under a lease.

    id: of the delivery, stable for ever, also after a rebuild of the index; growing in acceptance order.
    position: of the mail; deliveries of one mail to several recipients share it.
    digest: SHA-256 of the content below its leading trace fields (seal of HD-45, checked when it was read).
    mail: None when its record no longer matches its seal; `damage` then says what was found.
    """

    id: int
    position: int
    account: str
    recipient: Recipient | None
    message_id: str
    digest: bytes
    accepted_at: datetime
    mail: Mail | None
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that people look at. reason: a word of a closed set, None if nothing was said."""

    id: int
    account: str
    state: State
    reason: str | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A delivery into a mailbox, as the journal is told. digest: as in `Claimed`, None if unknown."""

    id: int
    account: str
    digest: bytes | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a claimed delivery: DELIVERED, DUPLICATE_LINKED, QUARANTINED or RETURNED, and why."""

    id: int
    state: State
    reason: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class PendingReport:
    """A DSN that is still to be built from `report` and accepted; the same one every time it is asked for."""

    delivery: int
    action: Action
    report: Report
