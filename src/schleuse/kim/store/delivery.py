"""The values that pass between the mail store and those who work with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from schleuse.errors import ConflictError, RefusedError
from schleuse.holding.states import State
from schleuse.mail.contracts import Action, Mail, Recipient, Report
from schleuse.scopes import Scope

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


#: Share of a batch that a backlog gets while live traffic could fill all of it (HD-43).
BACKLOG_PERMILLE = 300


@dataclass(frozen=True, slots=True)
class Under:
    """On what a piece of work stands: its atom, and the epoch of the switch that was seen before it began (SW-06)."""

    scope: Scope
    epoch: int


@dataclass(frozen=True, slots=True)
class Take:
    """From which mailbox to take, and how much. under: None where no switch rules, as in tools and tests.

    permille: share of its deliveries, chosen by their id, so that a greater share is the smaller one and more.
    per_hour: at most so many in an hour of the clock, by all workers together; what is put back counts. None: all.
    """

    account: str
    under: Under | None = None
    permille: int | None = None
    per_hour: int | None = None
    backlog_permille: int = BACKLOG_PERMILLE


def share_of(delivery: int) -> int:
    """0 to 999: where a delivery stands in the order in which a LIMITED scope is opened; SHARE_SQL says the same.

    All recipients of a mail stand at the same place. Two primes mix positions, which grow by rows or by octets.
    """
    return (position_of(delivery) % 1_000_003) * 1_103_515_245 % 2_147_483_647 * 1000 // 2_147_483_647


def share_sql(id: str) -> str:
    """`share_of` of an expression of SQL."""
    return f"((({id}) >> 10) % 1000003) * 1103515245 % 2147483647 * 1000 / 2147483647"


#: Of a column `id`.
SHARE_SQL = share_sql("id")


@dataclass(frozen=True, slots=True, repr=False)
class Claimed:
    """One delivery under a lease.

    id: of the delivery, stable for ever, also after a rebuild of the index; growing in acceptance order.
    position: of the mail; deliveries of one mail to several recipients share it.
    digest: SHA-256 of the content below its leading trace fields (seal of HD-45, checked when it was read).
    mail: None when its record no longer matches its seal; `damage` then says what was found.
    under: of its `Take`. held_for: since when the switch held it, up to now; zero if it did not (HD-46).
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
    under: Under | None = None
    held_for: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, repr=False)
class Claims:
    """What a claim brought. stale: atoms that were switched meanwhile; nothing of them was taken (SW-06, T-24)."""

    mails: list[Claimed]
    stale: frozenset[Scope] = frozenset()


@dataclass(frozen=True, slots=True)
class Finished:
    """Deliveries that were not finished. lost: the lease had run out; they come again. stale: their atom was switched
    meanwhile; they are still the owner's, who puts them back (SW-10)."""

    lost: frozenset[int] = frozenset()
    stale: frozenset[int] = frozenset()


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
    """What became of a claimed delivery: DELIVERED, DUPLICATE_LINKED, QUARANTINED or RETURNED, and why.

    under: of its `Claimed`.
    """

    id: int
    state: State
    reason: str | None = None
    under: Under | None = None


@dataclass(frozen=True, slots=True, repr=False)
class PendingReport:
    """A DSN that is still to be built from `report` and accepted; the same one every time it is asked for."""

    delivery: int
    action: Action
    report: Report
