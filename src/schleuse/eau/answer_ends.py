"""How employers' requests end: cancelled by their employer, or over (eau.md § 17).

A request is over when nothing can follow any more (`until`); it is kept as long after that as the procedure keeps
replies, and goes with what followed it. What followed leaves its number behind, so that cursors stay true.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schleuse.database import transaction
from schleuse.eau.locking import lock_insurer
from schleuse.eau.switched import UNSWITCHED, AnswerTerms, require_answering
from schleuse.eau.tables import FOLLOW_UP, REQUEST
from schleuse.errors import RefusedError
from schleuse.identifiers import IK

#: eau.md § 17.1: the general rules of employer reporting delete replies 42 days after they were provided.
KEPT = timedelta(days=42)


class UnknownRequestError(RefusedError):
    """No request of this insurer has this id; its system names one that it has asked, and that is not over for long."""

    code = "eau.answers.unknown-request"


class AnswerEnds:
    """Raises UnavailableError and StaleEpochError from each method, and then nothing was changed (SW-06, SW-12)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cancel(
        self, ik: IK, id: str, now: datetime, terms: AnswerTerms = UNSWITCHED, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Nothing follows this request from now on, and what did follow is no longer listed. Again: nothing new.

        Its id stays used, without the person, until it would have been forgotten. tell: before anything is taken away;
        what it raises leaves all as it was. Raises UnknownRequestError.
        """
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            which = {"of": ik.value, "which": id}
            known = connection.execute(_KNOWN, which).one_or_none()
            if known is None:
                raise UnknownRequestError("no request of this insurer has this id; name one that was asked")
            tell()
            if known.cancelled_at is None:
                connection.execute(_CANCEL, {**which, "now": now, "under": terms.answering})
                connection.execute(_UNSAY, which)

    def forget(self, ik: IK, now: datetime, terms: AnswerTerms = UNSWITCHED) -> int:
        """Requests that are over for so long, with all that followed them. Returns how many."""
        with transaction(self._engine) as connection:
            require_answering(connection, ik, terms)
            lock_insurer(connection, ik)
            over = connection.execute(_OVER, {"of": ik.value, "before": now - KEPT}).rowcount
            if over:
                connection.execute(_UNSAY_OVER, {"of": ik.value})
            connection.execute(_CLOSE_UP, {"of": ik.value})
        return over


_MINE = REQUEST.c.ik == sa.bindparam("of"), REQUEST.c.id == sa.bindparam("which")
_KNOWN = sa.select(REQUEST.c.cancelled_at).where(*_MINE)
_CANCEL = (
    sa.update(REQUEST)
    .where(*_MINE)
    .values(
        person=b"",
        other=None,
        deliveries="[]",
        due=0,
        until=sa.bindparam("now"),
        cancelled_at=sa.bindparam("now"),
        epoch=sa.bindparam("under"),
    )
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
