"""Where each recipient's copy of an accepted mail goes. Pure: values in, rows out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

from schleuse.clock import to_us
from schleuse.holding.states import WAITING, State
from schleuse.kim.store.delivery import DAMAGED, delivery_id
from schleuse.kim.store.marks import Mark
from schleuse.mail.contracts import Action, Recipient
from schleuse.mail.dsn import wanted
from schleuse.mail.spool import Envelope

#: The account that an address belongs to (any case), or None when the mail must leave by the outbound queue.
AccountOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, repr=False)
class Arrived:
    """An accepted mail on its way to its deliveries. envelope: None when its record can no longer be read."""

    position: int
    length: int
    envelope: Envelope | None


@dataclass(frozen=True, slots=True)
class First:
    """The delivery that has this mail for this recipient already."""

    id: int
    account: str | None
    state: State


@dataclass(frozen=True, slots=True, repr=False)
class OwedReport:
    """A DSN that is to be built for a delivery. accepted: it already went out (known from the marks)."""

    delivery: int
    action: Action
    status: str
    diagnostic: str | None
    created_us: int
    accepted: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Placed:
    """A new delivery. displaces: the older delivery that gives its twin key up to this one."""

    id: int
    account: str | None
    state: State
    twin: bytes | None
    linked_to: int | None
    displaces: int | None
    digest: bytes | None
    length: int
    size: int
    accepted_us: int
    changed_us: int
    reason: str | None
    delay_reported: bool
    reports: tuple[OwedReport, ...]


def twin_key(recipient: Recipient, envelope: Envelope) -> bytes:
    """The same for the same mail (Message-ID and content below its trace) to the same recipient."""
    parts = (recipient.address.lower().encode("utf-8", "surrogatepass"), envelope.message_id.encode())
    return hashlib.sha256(b"\0".join((*parts, envelope.digest))).digest()


def is_kept_by(first: First, envelope: Envelope, recipient: Recipient) -> bool:
    """Whether a mail that comes again is already there, so that it is only linked.

    Not so: a mail that we could not deliver to its next host (sending it again is a new try, incident.md § 2.2
    "bounce"), one that its sender withdrew, and one that its owner has fetched and sends to himself to fetch it
    anew (re-processing, kim.md § 12.4). One that was suspected and went back unopened has given its key up
    (`suspicions.return_`), and is no first here.
    """
    if first.state is State.WITHDRAWN:
        return False
    if first.account is None:
        return first.state is not State.RETURNED
    to_himself = len(envelope.recipients) == 1 and envelope.sender.lower() == recipient.address.lower()
    return first.state in WAITING or not to_himself


@dataclass(frozen=True, slots=True, repr=False)
class Knowledge:
    """What placing depends on.

    firsts: first deliveries by twin key; placing adds the new ones. marks: what became of deliveries, when
    the index is rebuilt (empty on a normal day).
    """

    account_of: AccountOf
    firsts: MutableMapping[bytes, First]
    now_us: int
    marks: Mapping[int, Mark]


def place(arrived: Arrived, known: Knowledge) -> list[Placed]:
    """The deliveries of one mail, in the order of its recipients."""
    if arrived.envelope is None:
        return [_damaged(arrived, known.now_us)]
    return [_place_one(arrived, arrived.envelope, index, known) for index in range(len(arrived.envelope.recipients))]


def _place_one(arrived: Arrived, envelope: Envelope, index: int, known: Knowledge) -> Placed:
    recipient = envelope.recipients[index]
    account = known.account_of(recipient.address)
    id = delivery_id(arrived.position, index)
    mark = known.marks.get(id)
    key = twin_key(recipient, envelope)
    first = known.firsts.get(key)
    linked = first is not None and is_kept_by(first, envelope, recipient)
    state = State.DUPLICATE_LINKED if linked else State.HELD
    if mark is not None and mark.state is not None:
        state = mark.state
        linked = state is State.DUPLICATE_LINKED and mark.linked_to is not None
    gave_up_key = mark is not None and mark.may_come_again
    if not linked and not gave_up_key:
        known.firsts[key] = First(id, account, state)
    reports = _reports(id, envelope, recipient, account, first if linked else None)
    accepted_us = to_us(envelope.accepted_at)
    return Placed(
        id=id,
        account=account,
        state=state,
        twin=None if linked or gave_up_key else key,
        linked_to=_linked_to(first, mark) if linked else None,
        displaces=first.id if first and not linked else None,
        digest=envelope.digest,
        length=arrived.length,
        size=envelope.size,
        accepted_us=accepted_us,
        changed_us=mark.at_us if mark else known.now_us,
        reason=mark.reason if mark else None,
        delay_reported=mark is not None and mark.owes(Action.DELAYED),
        reports=_with_marks(id, reports, mark),
    )


def _linked_to(first: First | None, mark: Mark | None) -> int | None:
    """In a rebuild the first may have given its key up meanwhile; the mark still knows it."""
    if first is not None:
        return first.id
    return mark.linked_to if mark is not None else None


def _reports(
    id: int, envelope: Envelope, recipient: Recipient, account: str | None, first: First | None
) -> list[OwedReport]:
    """The success DSN of RFC 3461, if it is owed at this moment.

    Its time is that of the acceptance, when the mail was durably in the mailbox: so the DSN is the same, octet for
    octet, when it is made again. A mail that waits in the outbound queue already is reported by its first delivery.
    """
    if not wanted(Action.DELIVERED, recipient, envelope.sender):
        return []
    if account is not None:
        return [OwedReport(id, Action.DELIVERED, "2.0.0", None, to_us(envelope.accepted_at))]
    if first is not None and first.state not in WAITING:
        return [OwedReport(id, Action.RELAYED, "2.0.0", None, to_us(envelope.accepted_at))]
    return []


def _with_marks(id: int, reports: list[OwedReport], mark: Mark | None) -> tuple[OwedReport, ...]:
    if mark is None:
        return tuple(reports)
    owed = {report.action: report for report in reports}
    for action, (status, diagnostic, at_us) in mark.reports.items():
        owed[action] = OwedReport(id, action, status, diagnostic, at_us)
    return tuple(
        OwedReport(
            id,
            report.action,
            report.status,
            report.diagnostic,
            report.created_us,
            report.action in mark.reported,
        )
        for report in owed.values()
    )


def _damaged(arrived: Arrived, now_us: int) -> Placed:
    """A record that nobody can read is kept in the accounts, for people to look at."""
    return Placed(
        id=delivery_id(arrived.position, 0),
        account=DAMAGED,
        state=State.QUARANTINED,
        twin=None,
        linked_to=None,
        displaces=None,
        digest=None,
        length=arrived.length,
        size=0,
        accepted_us=now_us,
        changed_us=now_us,
        reason="the record cannot be read",
        delay_reported=False,
        reports=(),
    )
