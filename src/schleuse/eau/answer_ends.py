"""How employers' requests end: cancelled by their employer, or over (eau.md § 17, decision 0027).

A request is over when nothing can follow any more (`until`); it is kept as long after that as the procedure keeps
replies, and goes with what followed it. What followed leaves its number behind, so that cursors stay true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from schleuse.database import transaction
from schleuse.eau.answers import Code
from schleuse.eau.locking import lock_insurer
from schleuse.eau.switched import UNSWITCHED, AnswerTerms, require_answering
from schleuse.eau.tables import FOLLOW_UP, REQUEST
from schleuse.identifiers import IK

#: eau.md § 17.1: the general rules of employer reporting delete replies 42 days after they were provided.
KEPT = timedelta(days=42)


#: When an answer was given to a request that was cancelled before it came.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class AnswerEnds:
    """Raises UnavailableError and StaleEpochError from each method, and then nothing was changed (SW-06, SW-12)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cancel(
        self,
        ik: IK,
        id: str,
        now: datetime,
        terms: AnswerTerms = UNSWITCHED,
        tell: Callable[[], None] = lambda: None,
        *,
        frozen: bool = False,
    ) -> bool:
        """Nothing follows this request from now on, and what did follow is no longer listed. Again: nothing new.

        Its id stays used until it would have been forgotten; so does one that never came, for the network may bring the
        cancellation first. frozen: who it was about and what was said stay until retention goes on (`forget`).
        tell: before anything changes; what it raises leaves all as it was. Returns whether the request had come.
        """
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            which = {"of": ik.value, "which": id}
            known = connection.execute(_KNOWN, which).one_or_none()
            tell()
            if known is None:
                connection.execute(sa.insert(REQUEST), _never_came(ik, id, now, terms))
            elif known.cancelled_at is None:
                connection.execute(_CANCEL, {**which, "now": now, "under": terms.answering})
            if not frozen:
                _take_away(connection, which)
        return known is not None and bool(known.answered_at > NEVER)

    def forget(self, ik: IK, now: datetime, terms: AnswerTerms = UNSWITCHED) -> int:
        """Requests that are over for so long, with all that followed them. Returns how many.

        First what was cancelled while retention was frozen loses its person and what was said.
        """
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            for id in connection.execute(_LEFT, {"of": ik.value}).scalars().all():
                _take_away(connection, {"of": ik.value, "which": id})
            over = connection.execute(_OVER, {"of": ik.value, "before": now - KEPT}).rowcount
            if over:
                connection.execute(_UNSAY_OVER, {"of": ik.value})
            connection.execute(_CLOSE_UP, {"of": ik.value})
        return over


def _take_away(connection: Connection, which: Mapping[str, str]) -> None:
    connection.execute(_FORGET_PERSON, which)
    connection.execute(_UNSAY, which)


def _never_came(ik: IK, id: str, now: datetime, terms: AnswerTerms) -> dict[str, object]:
    return {
        "ik": ik.value,
        "id": id,
        "person": b"",
        "other": None,
        "absent_from": now.date(),
        "asked_at": now,
        "code": int(Code.NONE),
        "answered_at": NEVER,
        "deliveries": "[]",
        "until": now,
        "due": 0,
        "cancelled_at": now,
        "epoch": terms.answering,
    }


_MINE = REQUEST.c.ik == sa.bindparam("of"), REQUEST.c.id == sa.bindparam("which")
_KNOWN = sa.select(REQUEST.c.cancelled_at, REQUEST.c.answered_at).where(*_MINE)
_CANCEL = (
    sa.update(REQUEST)
    .where(*_MINE)
    .values(due=0, until=sa.bindparam("now"), cancelled_at=sa.bindparam("now"), epoch=sa.bindparam("under"))
)
_FORGET_PERSON = (
    sa.update(REQUEST).where(*_MINE, REQUEST.c.person != b"").values(person=b"", other=None, deliveries="[]")
)
#: Cancelled while retention was frozen.
_LEFT = sa.select(REQUEST.c.id).where(
    REQUEST.c.ik == sa.bindparam("of"), REQUEST.c.cancelled_at.is_not(None), REQUEST.c.person != b""
)
#: Without an answer, a row only keeps its number.
_NOTHING = {"request": "", "answer": ""}
_UNSAY = (
    sa.update(FOLLOW_UP)
    .where(FOLLOW_UP.c.ik == sa.bindparam("of"), FOLLOW_UP.c.request == sa.bindparam("which"))
    .values(_NOTHING)
)
_OVER = sa.delete(REQUEST).where(REQUEST.c.ik == sa.bindparam("of"), REQUEST.c.until <= sa.bindparam("before"))
_UNSAY_OVER = (
    sa.update(FOLLOW_UP)
    .where(
        FOLLOW_UP.c.ik == sa.bindparam("of"),
        FOLLOW_UP.c.answer != "",
        ~sa.exists().where(REQUEST.c.ik == FOLLOW_UP.c.ik, REQUEST.c.id == FOLLOW_UP.c.request),
    )
    .values(_NOTHING)
)
#: The newest number stays, or numbers would begin anew.
_CLOSE_UP = sa.text(
    "DELETE FROM eau_follow_up WHERE ik = :of AND answer = ''"
    " AND seq < (SELECT max(seq) FROM eau_follow_up WHERE ik = :of)"
)
