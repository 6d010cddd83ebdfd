"""SQL of the insurer's feed: publication, reading, acknowledgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schleuse.database import reading, transaction
from schleuse.eau.cursors import acked, take_over
from schleuse.eau.document import DocumentId, Kind
from schleuse.eau.locking import lock_insurer
from schleuse.eau.outcome import DocumentState
from schleuse.eau.paper_store import FIRST_PAPER, PaperStore
from schleuse.eau.rates import lately
from schleuse.eau.switched import require_delivering
from schleuse.eau.tables import CONTENT, CURSOR, DOCUMENT, EVENT
from schleuse.identifiers import IK
from schleuse.kim.store.delivery import share_sql

_UNLIMITED = 1 << 31


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the feed. accepted_at: original time of acceptance of the mail, also after a hold (HD-46).

    held_for: by the switch, as a mail or before it was published; zero if it was not. state: of the document now.
    target: of a Storno, the cancelled eAU. similar_to: an eAU that may be the same certificate, and on_paper: the
    insurer's name of one that came on paper, for people to look at (HD-05).
    """

    seq: int
    kind: Kind
    document_id: DocumentId
    accepted_at: datetime
    state: DocumentState
    sha256: bytes
    signed: bool
    target: DocumentId | None
    similar_to: DocumentId | None
    held_for: timedelta = timedelta(0)
    on_paper: str | None = None


def _never(_filed_at: datetime) -> timedelta:
    return timedelta(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the switch lets be published. epoch: see `kim.store.Under`. per_hour: of a LIMITED scope, at most so many in
    any hour. permille: of a LIMITED scope, this share of the eAU, chosen by their delivery as in `kim.store.Take`; the
    others get their numbers later, as what waited for our own trouble does, and a Storno goes with its eAU (HD-06).
    held_since: for how long deliveries were held between that time and now.
    """

    epoch: int
    now: datetime
    per_hour: int | None = None
    held_since: Callable[[datetime], timedelta] = _never
    permille: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class StoredDocument:
    """A published document, still sealed under `filing.context`. sha256: over the XML octets.

    xml is None where the signed file holds it; at least one of the two is there.
    """

    document_id: DocumentId
    sha256: bytes
    xml: bytes | None
    p7s: bytes | None


@dataclass(frozen=True, slots=True)
class Position:
    """acked: last event that the client has taken over. last: newest published event; 0: none."""

    acked: int
    last: int


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Acknowledged by a client, and perhaps not yet known to the mail store."""

    ik: IK
    client: str
    through: int
    deliveries: tuple[int, ...]


class FeedStore:
    """Raises UnavailableError from every method when the database cannot serve."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self.paper = PaperStore(engine)

    def publish(self, ik: IK, below: int | None, limit: int = 10_000, terms: Terms | None = None) -> int:
        """Give the next numbers of the insurer's feed to events in acceptance order. Returns to how many.

        below: only events caused by deliveries with a lower id, so that none appears behind a later one that was
        ready earlier; None: all. Call it until it returns 0. Numbers have no gaps, for they are given under the
        insurer's lock. terms: of the switch; None where no switch rules. Raises StaleEpochError (SW-06).
        """
        due = (
            sa.select(EVENT.c.delivery, EVENT.c.filed_at)
            .where(EVENT.c.ik == ik.value, sa.text("seq IS NULL"))
            .order_by(EVENT.c.position, EVENT.c.step)
        )
        if below is not None:
            due = due.where(EVENT.c.position < below)
        if terms is not None and terms.permille is not None:
            due = due.where(_SHARE.bindparams(permille=terms.permille))
        with transaction(self._engine) as connection:
            require_delivering(connection, ik, None if terms is None else terms.epoch)
            lock_insurer(connection, ik)
            last = _last(connection, ik)
            events = connection.execute(due.limit(min(limit, _allowed(connection, ik, last, terms)))).all()
            if events:
                epoch, now = (None, None) if terms is None else (terms.epoch, terms.now)
                connection.execute(
                    _NUMBER,
                    [
                        {"of": event.delivery, "to": seq, "under": epoch, "at": now}
                        for seq, event in enumerate(events, last + 1)
                    ],
                )
                _note_held(connection, events, terms)
        return len(events)

    def unpublished_end(self, ik: IK) -> int | None:
        """One above the position of the last event that has no number yet, None if there is none.

        Whoever publishes reads this first and the leases of the mail store second (decision 0004).
        """
        query = sa.select(sa.func.max(EVENT.c.position)).where(EVENT.c.ik == ik.value, sa.text("seq IS NULL"))
        with transaction(self._reader) as connection:
            last = connection.execute(query).scalar_one()
        return None if last is None else last + 1

    def events(self, ik: IK, after: int, limit: int) -> list[Event]:
        """Published events with a higher number, in order."""
        with transaction(self._reader) as connection:
            rows = connection.execute(_EVENTS, {"ik": ik.value, "after": after, "limit": limit})
            return [_event(row) for row in rows]

    def document(self, ik: IK, id: DocumentId) -> StoredDocument | None:
        """A document that the feed has named; None for every other id, whatever the reason."""
        with transaction(self._reader) as connection:
            row = connection.execute(_DOCUMENT, {"ik": ik.value, "id": id.value}).one_or_none()
        return None if row is None else StoredDocument(id, row.file_hash, row.xml, row.p7s)

    def position(self, ik: IK, client: str) -> Position:
        """Where the client stands."""
        with transaction(self._reader) as connection:
            return Position(acked(connection, CURSOR, ik, client), _last(connection, ik))

    def ack(self, ik: IK, client: str, cursor: int, epoch: int | None = None) -> Position:
        """Everything up to and including `cursor` is taken over. A lower cursor than before changes nothing.

        Raises CursorBeyondEndError, StaleEpochError (SW-06), and then nothing is recorded.
        """
        with transaction(self._engine) as connection:
            require_delivering(connection, ik, epoch)
            lock_insurer(connection, ik)
            last = _last(connection, ik)
            return Position(take_over(connection, CURSOR, ik, client, cursor, last, {"confirmed": 0}), last)

    def unconfirmed(self) -> list[Unconfirmed]:
        """What clients acknowledged and the mail store was not surely told."""
        with transaction(self._reader) as connection:
            cursors = connection.execute(sa.select(CURSOR).where(CURSOR.c.confirmed < CURSOR.c.acked)).all()
            return [
                Unconfirmed(IK(row.ik), row.client, row.acked, _between(connection, row.ik, row.confirmed, row.acked))
                for row in cursors
            ]

    def confirmed(self, told: Unconfirmed) -> None:
        """The mail store knows."""
        with transaction(self._engine) as connection:
            connection.execute(
                sa.update(CURSOR)
                .where(
                    CURSOR.c.ik == told.ik.value,
                    CURSOR.c.client == told.client,
                    CURSOR.c.confirmed < told.through,
                )
                .values(confirmed=told.through)
            )


_NUMBER = (
    sa.update(EVENT)
    .where(EVENT.c.delivery == sa.bindparam("of"), EVENT.c.seq.is_(None))
    .values(seq=sa.bindparam("to"), epoch=sa.bindparam("under"), published_at=sa.bindparam("at"))
)

#: Of a Storno, the place of its eAU counts: neither is published without the other's being due.
_SHARE_OF = share_sql(
    "coalesce((SELECT whole.delivery FROM eau_document AS mine JOIN eau_document AS whole"
    " ON whole.document_id = mine.target AND whole.ik = mine.ik AND whole.state <> 'rejected'"
    " WHERE mine.delivery = eau_event.delivery), eau_event.delivery)"
)
_SHARE = sa.text(f"{_SHARE_OF} < :permille")

_HELD = (
    sa.update(DOCUMENT)
    .where(DOCUMENT.c.delivery == sa.bindparam("of"))
    .values(held_us=sa.func.coalesce(DOCUMENT.c.held_us, 0) + sa.bindparam("more", type_=sa.BigInteger))
)

_OTHER = DOCUMENT.alias("other")

_EVENTS = (
    sa.select(
        EVENT.c.seq,
        DOCUMENT.c.kind,
        DOCUMENT.c.document_id,
        DOCUMENT.c.accepted_at,
        DOCUMENT.c.state,
        DOCUMENT.c.file_hash,
        DOCUMENT.c.target,
        DOCUMENT.c.held_us,
        CONTENT.c.p7s.is_not(None).label("signed"),
        _OTHER.c.document_id.label("similar_to"),
        FIRST_PAPER.label("on_paper"),
    )
    .join(DOCUMENT, DOCUMENT.c.delivery == EVENT.c.delivery)
    .join(CONTENT, CONTENT.c.delivery == EVENT.c.delivery)
    .outerjoin(_OTHER, _OTHER.c.delivery == DOCUMENT.c.similar)
    .where(EVENT.c.ik == sa.bindparam("ik"), EVENT.c.seq > sa.bindparam("after"))
    .order_by(EVENT.c.seq)
    .limit(sa.bindparam("limit"))
)

_DOCUMENT = (
    sa.select(DOCUMENT.c.file_hash, CONTENT.c.xml, CONTENT.c.p7s)
    .join(CONTENT, CONTENT.c.delivery == DOCUMENT.c.delivery)
    .join(EVENT, EVENT.c.delivery == DOCUMENT.c.delivery)
    .where(
        DOCUMENT.c.ik == sa.bindparam("ik"),
        DOCUMENT.c.document_id == sa.bindparam("id"),
        sa.text("state <> 'rejected'"),
        EVENT.c.seq.is_not(None),
    )
)


def _event(row: Any) -> Event:
    return Event(
        seq=row.seq,
        kind=Kind(row.kind),
        document_id=DocumentId(row.document_id),
        accepted_at=row.accepted_at,
        state=DocumentState(row.state),
        sha256=row.file_hash,
        signed=bool(row.signed),
        target=DocumentId(row.target) if row.target else None,
        similar_to=DocumentId(row.similar_to) if row.similar_to else None,
        held_for=timedelta(microseconds=row.held_us or 0),
        on_paper=row.on_paper,
    )


def _allowed(connection: sa.Connection, ik: IK, last: int, terms: Terms | None) -> int:
    """How many events may be published now; the last ones tell when they were."""
    if terms is None or terms.per_hour is None:
        return _UNLIMITED
    recent = sa.select(sa.func.count()).where(
        EVENT.c.ik == ik.value, EVENT.c.seq > last - terms.per_hour, lately(EVENT.c.published_at, terms.now)
    )
    return max(terms.per_hour - connection.execute(recent).scalar_one(), 0)


def _note_held(connection: sa.Connection, events: Sequence[Any], terms: Terms | None) -> None:
    if terms is None:
        return
    held = [(event.delivery, terms.held_since(event.filed_at)) for event in events if event.filed_at is not None]
    rows = [{"of": delivery, "more": time // timedelta(microseconds=1)} for delivery, time in held if time]
    if rows:
        connection.execute(_HELD, rows)


def _last(connection: sa.Connection, ik: IK) -> int:
    query = sa.select(sa.func.max(EVENT.c.seq)).where(EVENT.c.ik == ik.value)
    return connection.execute(query).scalar() or 0


def _between(connection: sa.Connection, ik: str, after: int, through: int) -> tuple[int, ...]:
    query = sa.select(EVENT.c.delivery).where(EVENT.c.ik == ik, EVENT.c.seq > after, EVENT.c.seq <= through)
    return tuple(connection.execute(query.order_by(EVENT.c.seq)).scalars())
