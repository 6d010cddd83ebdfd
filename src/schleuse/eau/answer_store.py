"""SQL of the answers to employers: requests, what was said, and what follows by itself.

A request is recorded with its answer in one transaction before the answer goes out, so one that was lost on its way is
found again under its id; what follows is a row of a list that the insurer's system takes over with a cursor.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from schleuse.database import reading, transaction
from schleuse.eau.answer import Answer, Request, encode_answer
from schleuse.eau.answer_ends import AnswerEnds
from schleuse.eau.answers import (
    Answered,
    Certificate,
    Code,
    FollowUp,
    decide,
    follow_up,
    match,
    watched_until,
    within,
)
from schleuse.eau.cursors import acked, take_over
from schleuse.eau.document import DocumentId, Period
from schleuse.eau.locking import lock_insurer
from schleuse.eau.outcome import DocumentState
from schleuse.eau.switched import UNSWITCHED, AnswerTerms, require_answering
from schleuse.eau.tables import DOCUMENT, FOLLOW_UP, FOLLOW_UP_CURSOR, REQUEST
from schleuse.errors import ConflictError
from schleuse.identifiers import IK
from schleuse.kim.store.delivery import share_of

#: Whether anything waits that could hold a certificate for an absence from this day, and was sent by then. What could
#: hold one for a day could for every earlier one, so whoever knows of the latest day mostly knows of all.
Waits = Callable[[date, datetime], bool]
#: Requests that one look takes at most.
AT_ONCE = 500
#: Looking through what is in review begins again at its end, at most so often: an answer that was withdrawn is behind.
ROUND = timedelta(minutes=1)
#: No share that was looked at.
_UNKNOWN = -1
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


class RequestReusedError(ConflictError):
    """This id was used for another request; the insurer's system gives each request an id of its own."""

    code = "eau.answers.request-reused"


class RequestCancelledError(ConflictError):
    """The request with this id was cancelled by its employer; a new one has an id of its own."""

    code = "eau.answers.request-cancelled"


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request whose last answer was an interim one."""

    id: str
    code: Code
    asked_at: datetime
    answered_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class _Round:
    """Of one day's requests in review: when looking through them began, and the last that was looked at."""

    began: datetime
    asked_at: datetime = _FIRST
    id: str = ""


class AnswerStore:
    """Raises UnavailableError from every method; what records raises StaleEpochError, too (SW-06)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self.ends = AnswerEnds(engine)
        self._shares: dict[IK, int | None] = {}
        self._rounds: dict[IK, dict[date, _Round]] = {}

    def answer(
        self,
        ik: IK,
        asked: Request,
        now: datetime,
        *,
        waits: Waits,
        terms: AnswerTerms = UNSWITCHED,
    ) -> Answer:
        """The answer, recorded. Asked again under its id: what was said last, nothing new.

        Raises RequestReusedError, RequestCancelledError.

        waits: is asked before documents are read, because mail goes from there to here.
        terms: what the switch lets be said. Of the eAU in its share is spoken, chosen by
        their delivery (RS-06).
        """
        found, permille = waits(asked.absent_from, now), terms.permille
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            row = connection.execute(_REQUEST, {"ik": ik.value, "id": asked.id}).one_or_none()
            known = _certificates(connection, ik, asked.person, asked.other)
            if row is not None:
                return _said(row, asked, known)
            result = within(match(known, asked.absent_from), _share(permille))
            code = decide(result, waits=found)
            until = watched_until(code, now, now)
            connection.execute(
                sa.insert(REQUEST),
                {
                    "ik": ik.value,
                    "id": asked.id,
                    "person": asked.person,
                    "other": asked.other,
                    "absent_from": asked.absent_from,
                    "asked_at": now,
                    "code": int(code),
                    "answered_at": now,
                    "deliveries": json.dumps([one.delivery for one in result.found]),
                    "until": until,
                    "due": int(permille is not None),  # looked at again if the share grew meanwhile
                    "epoch": terms.answering,
                },
            )
        return Answer(asked.id, code, now, until, result.found)

    def follow(
        self,
        ik: IK,
        now: datetime,
        *,
        waits: Waits,
        terms: AnswerTerms = UNSWITCHED,
        unit: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> int:
        """Say what the records say now and did not say before. Returns how many answers followed.

        Looked at are requests of persons whose certificates have changed (`note_changed`), and those that wait only for
        mail to be opened. A 4 that follows is an answer of now: what came after the question may be the eAU, too.
        terms: see `answer`; when its share is another than before, all requests that are open are looked at.
        unit: entered while something is recorded; a look at what is there has no effect.
        """
        permille = terms.permille
        if self._shares.get(ik, _UNKNOWN) != permille:
            with transaction(self._engine) as connection:
                lock_insurer(connection, ik)
                connection.execute(_ALL_DUE, {"ik": ik.value, "now": now})
            self._shares[ik] = permille
        with transaction(self._reader) as connection:
            values = {"ik": ik.value, "now": now, "limit": AT_ONCE}
            rows = connection.execute(_DUE, values).all()
            days = {*connection.execute(_DAYS_IN_REVIEW, values).scalars(), *(row.absent_from for row in rows)}
        found = which_wait(days, lambda day: waits(day, now))
        blocked = {row.id: found[row.absent_from] for row in rows}
        rounds = {day: self._look_on(ik, day, now, permille) for day in days if not found[day]}
        for _, ids in rounds.values():
            blocked |= dict.fromkeys(ids, False)
        followed = 0
        if blocked:
            with unit():
                followed = self._follow(ik, blocked, now, terms)
        self._rounds[ik] = {day: at for day, (at, _) in rounds.items()}
        return followed

    def _look_on(self, ik: IK, day: date, now: datetime, permille: int | None) -> tuple[_Round, list[str]]:
        """The next requests of the day, and of them those about which there is something to say.

        Those of which the certificates are unclear stay 7, so a look goes on behind the one before.
        """
        at = self._rounds.get(ik, {}).get(day, _Round(now))
        values = {"ik": ik.value, "now": now, "day": day, "limit": AT_ONCE, "at": at.asked_at, "behind": at.id}
        with transaction(self._reader) as connection:
            rows = connection.execute(_IN_REVIEW, values).all()
            says = [
                row.id for row in rows if _follow_up(connection, ik, row, waits=False, permille=permille) is not None
            ]
        if len(rows) == AT_ONCE or at.began <= now < at.began + ROUND:
            return (replace(at, asked_at=rows[-1].asked_at, id=rows[-1].id) if rows else at), says
        return _Round(now), says

    def _follow(self, ik: IK, blocked: dict[str, bool], now: datetime, terms: AnswerTerms) -> int:
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            first = seq = _last(connection, ik)
            for id, is_blocked in blocked.items():
                row = connection.execute(_REQUEST, {"ik": ik.value, "id": id}).one_or_none()
                if row is None or row.cancelled_at is not None:
                    continue  # since it was looked at
                said = _follow_up(connection, ik, row, waits=is_blocked, permille=terms.permille)
                if said is not None:
                    seq += 1
                    _record(connection, ik, row, said, seq, now, terms.answering)
            connection.execute(_DONE, {"ik": ik.value, "ids": list(blocked)})
        return seq - first

    def follow_ups(self, ik: IK, after: int, limit: int) -> list[tuple[int, str]]:
        """Number and answer (JSON of `Answer`, see `answer_api.AnswerView`) of what followed after a cursor."""
        with transaction(self._reader) as connection:
            query = (
                sa.select(FOLLOW_UP.c.seq, FOLLOW_UP.c.answer)
                .where(FOLLOW_UP.c.ik == ik.value, FOLLOW_UP.c.seq > after, FOLLOW_UP.c.answer != "", ~_CANCELLED)
                .order_by(FOLLOW_UP.c.seq)
                .limit(limit)
            )
            return [(row.seq, row.answer) for row in connection.execute(query)]

    def position(self, ik: IK, client: str) -> tuple[int, int]:
        """(what this client has taken over, the last that followed)."""
        with transaction(self._reader) as connection:
            return acked(connection, FOLLOW_UP_CURSOR, ik, client), _last(connection, ik)

    def ack(self, ik: IK, client: str, cursor: int, terms: AnswerTerms = UNSWITCHED) -> tuple[int, int]:
        """Everything up to the cursor is taken over; a lower one changes nothing. Raises CursorBeyondEndError."""
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            last = _last(connection, ik)
            return take_over(connection, FOLLOW_UP_CURSOR, ik, client, cursor, last), last

    def open(self, ik: IK, now: datetime, limit: int = 1000) -> list[OpenRequest]:
        """Requests whose last answer was an interim one that another will follow, nearest end first."""
        query = (
            sa.select(REQUEST)
            .where(*_WATCHED, REQUEST.c.code != int(Code.AU))
            .order_by(REQUEST.c.until, REQUEST.c.id)
            .limit(limit)
        )
        with transaction(self._reader) as connection:
            return [
                OpenRequest(row.id, Code(row.code), row.asked_at, row.answered_at, row.until)
                for row in connection.execute(query, {"ik": ik.value, "now": now})
            ]

    def counts(self, ik: IK, now: datetime) -> dict[Code, int]:
        """How many requests are open, by what was said last."""
        query = (
            sa.select(REQUEST.c.code, sa.func.count())
            .where(*_WATCHED, REQUEST.c.code != int(Code.AU))
            .group_by(REQUEST.c.code)
        )
        with transaction(self._reader) as connection:
            return {Code(code): number for code, number in connection.execute(query, {"ik": ik.value, "now": now})}


_REQUEST = sa.select(REQUEST).where(REQUEST.c.ik == sa.bindparam("ik"), REQUEST.c.id == sa.bindparam("id"))
#: The clock may be set back behind the moment of a cancellation.
_WATCHED = (
    REQUEST.c.ik == sa.bindparam("ik"),
    REQUEST.c.until > sa.bindparam("now", type_=REQUEST.c.until.type),
    REQUEST.c.cancelled_at.is_(None),
)
_REVIEWED = (*_WATCHED, REQUEST.c.code == int(Code.IN_REVIEW))
_DUE = sa.select(REQUEST).where(*_WATCHED, sa.text("due = 1")).order_by(REQUEST.c.id).limit(sa.bindparam("limit"))
_ALL_DUE = sa.text(
    "UPDATE eau_request SET due = 1 WHERE ik = :ik AND until > :now AND code <> :au AND due = 0"
).bindparams(sa.bindparam("now", type_=REQUEST.c.until.type), au=int(Code.AU))
_DONE = sa.text("UPDATE eau_request SET due = 0 WHERE ik = :ik AND id IN :ids AND due = 1").bindparams(
    sa.bindparam("ids", expanding=True)
)
#: Of what followed, that its request was cancelled: while retention is frozen it is kept, and not listed.
_CANCELLED = sa.exists().where(
    REQUEST.c.ik == FOLLOW_UP.c.ik, REQUEST.c.id == FOLLOW_UP.c.request, REQUEST.c.cancelled_at.is_not(None)
)
_DAYS_IN_REVIEW = sa.select(REQUEST.c.absent_from).where(*_REVIEWED).distinct()
_IN_REVIEW = (
    sa.select(REQUEST)
    .where(
        *_REVIEWED,
        REQUEST.c.absent_from == sa.bindparam("day"),
        sa.tuple_(REQUEST.c.asked_at, REQUEST.c.id)
        > sa.tuple_(sa.bindparam("at", type_=REQUEST.c.asked_at.type), sa.bindparam("behind", type_=sa.String)),
    )
    .order_by(REQUEST.c.asked_at, REQUEST.c.id)
    .limit(sa.bindparam("limit"))
)
_CHANGED = sa.text(
    "UPDATE eau_request SET due = 1 WHERE ik = :ik AND (person IN :persons OR other IN :persons)"
).bindparams(sa.bindparam("persons", expanding=True))
_PERSONS = sa.text("SELECT person FROM eau_document WHERE delivery IN :deliveries AND person IS NOT NULL").bindparams(
    sa.bindparam("deliveries", expanding=True)
)
_OF_PERSONS = sa.select(DOCUMENT).where(
    DOCUMENT.c.ik == sa.bindparam("ik"),
    DOCUMENT.c.person.in_(sa.bindparam("persons", expanding=True)),
    sa.text("person IS NOT NULL"),
    DOCUMENT.c.kind == "eau",
    DOCUMENT.c.state == DocumentState.ACCEPTED.value,
)
_IDS = sa.select(DOCUMENT.c.document_id).where(DOCUMENT.c.delivery.in_(sa.bindparam("ids", expanding=True)))


def note_changed(connection: Connection, ik: IK, persons: Collection[bytes], cancelled: Collection[int]) -> None:
    """In the transaction that files eAU of these persons, or cancels these deliveries: their requests are looked at."""
    changed = set(persons)
    if cancelled:
        changed |= set(connection.execute(_PERSONS, {"deliveries": list(cancelled)}).scalars())
    if changed:
        connection.execute(_CHANGED, {"ik": ik.value, "persons": list(changed)})


def _certificates(connection: Connection, ik: IK, person: bytes, other: bytes | None) -> list[Certificate]:
    persons = [person] if other is None else [person, other]
    rows = connection.execute(_OF_PERSONS, {"ik": ik.value, "persons": persons})
    return [
        Certificate(
            row.delivery,
            DocumentId(row.document_id),
            row.accepted_at,
            Period(row.au_type, row.starts_on, row.ends_on, row.issued_on),
        )
        for row in rows
    ]


def which_wait(days: Collection[date], waits: Callable[[date], bool]) -> dict[date, bool]:
    """Of each day, asked once where all are alike and else as often as halving takes: a hold of weeks has many days in
    review, and each look asks the mail store (HD-09). What is asked first blocks at once, which is the rule in a hold.
    """
    ordered = sorted(days, reverse=True)
    if not ordered or waits(ordered[0]):
        first = 0
    elif not waits(ordered[-1]):
        first = len(ordered)
    else:
        first = bisect_left(ordered, True, lo=1, hi=len(ordered) - 1, key=waits)
    return {day: place >= first for place, day in enumerate(ordered)}


def _share(permille: int | None) -> Callable[[int], bool]:
    return lambda delivery: permille is None or share_of(delivery) < permille


def _follow_up(connection: Connection, ik: IK, row: Any, *, waits: bool, permille: int | None) -> FollowUp | None:
    known = _certificates(connection, ik, row.person, row.other)
    last = Answered(Code(row.code), tuple(json.loads(row.deliveries)))
    return follow_up(last, known, row.absent_from, waits=waits, is_open=_share(permille))


def _said(row: Any, asked: Request, known: Sequence[Certificate]) -> Answer:
    if row.cancelled_at is not None:
        raise RequestCancelledError("this request was cancelled; a new request has an id of its own")
    if (row.person, row.other, row.absent_from) != (asked.person, asked.other, asked.absent_from):
        raise RequestReusedError("this id was used for another request; every request has an id of its own")
    named = set(json.loads(row.deliveries))
    certificates = tuple(one for one in match(known, asked.absent_from).found if one.delivery in named)
    return Answer(row.id, Code(row.code), row.answered_at, row.until, certificates)


def _record(
    connection: Connection, ik: IK, row: Any, said: FollowUp, seq: int, now: datetime, epoch: int | None
) -> None:
    until = watched_until(said.code, row.asked_at, now)
    withdrawn = connection.execute(_IDS, {"ids": list(said.withdrawn)}).scalars() if said.withdrawn else ()
    answer = Answer(row.id, said.code, now, until, said.found, tuple(DocumentId(one) for one in withdrawn))
    connection.execute(
        sa.insert(FOLLOW_UP),
        {
            "ik": ik.value,
            "seq": seq,
            "request": row.id,
            "answer": encode_answer(answer),
            "made_at": now,
            "epoch": epoch,
        },
    )
    connection.execute(
        sa.update(REQUEST)
        .where(REQUEST.c.ik == ik.value, REQUEST.c.id == row.id)
        .values(
            code=int(said.code),
            answered_at=now,
            deliveries=json.dumps([one.delivery for one in said.found]),
            until=until,
            epoch=epoch,
        )
    )


def _last(connection: Connection, ik: IK) -> int:
    return connection.execute(sa.select(sa.func.max(FOLLOW_UP.c.seq)).where(FOLLOW_UP.c.ik == ik.value)).scalar() or 0
