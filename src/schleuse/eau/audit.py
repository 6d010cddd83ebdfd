"""What an auditor asks of the eAU store: every decision by delivery, and rows that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schleuse.database import reading, transaction
from schleuse.eau.tables import CONTENT, DOCUMENT, EVENT, LETTER, PREPARED, RECEIVED
from schleuse.holding.states import State
from schleuse.identifiers import IK


def _lacks(table: sa.Table) -> sa.ColumnElement[bool]:
    return ~sa.exists().where(table.c.delivery == DOCUMENT.c.delivery)


#: A Storno that waited and was refused with its eAU: its mail was closed long before, so it stays DELIVERED.
_REFUSED_LATER = sa.and_(
    DOCUMENT.c.kind == "storno",
    DOCUMENT.c.state == "rejected",
    sa.exists().where(RECEIVED.c.delivery == DOCUMENT.c.delivery, RECEIVED.c.state == State.DELIVERED.value),
)

#: Each question counts rows that cannot be; the answer of a sound store is 0.
_QUESTIONS: Mapping[str, sa.Select[Any]] = {
    "mails were answered as faulty, and no Fehlernachricht was recorded": sa.select(sa.func.count())
    .select_from(RECEIVED)
    .where(
        RECEIVED.c.ik == sa.bindparam("ik"),
        RECEIVED.c.state == State.RETURNED.value,
        ~sa.exists().where(LETTER.c.delivery == RECEIVED.c.delivery),
    ),
    "Fehlernachrichten were recorded for mails that were not answered as faulty": sa.select(sa.func.count())
    .select_from(LETTER)
    .where(
        LETTER.c.ik == sa.bindparam("ik"),
        ~sa.exists().where(RECEIVED.c.delivery == LETTER.c.delivery, RECEIVED.c.state == State.RETURNED.value),
        ~sa.exists().where(DOCUMENT.c.delivery == LETTER.c.delivery, _REFUSED_LATER),
    ),
    "Storno were rejected with the eAU that they waited for, and no Fehlernachricht was recorded": sa.select(
        sa.func.count()
    )
    .select_from(DOCUMENT)
    .where(DOCUMENT.c.ik == sa.bindparam("ik"), _REFUSED_LATER, _lacks(LETTER)),
    "Fehlernachrichten are prepared for Storno that wait no longer": sa.select(sa.func.count())
    .select_from(PREPARED)
    .where(
        PREPARED.c.ik == sa.bindparam("ik"),
        ~sa.exists().where(
            DOCUMENT.c.delivery == PREPARED.c.delivery, DOCUMENT.c.kind == "storno", DOCUMENT.c.state == "pending"
        ),
    ),
    "filed eAU have no event in the feed": sa.select(sa.func.count())
    .select_from(DOCUMENT)
    .where(
        DOCUMENT.c.ik == sa.bindparam("ik"),
        DOCUMENT.c.kind == "eau",
        DOCUMENT.c.state.in_(("accepted", "cancelled")),
        _lacks(EVENT),
    ),
    "kept documents have no content": sa.select(sa.func.count())
    .select_from(DOCUMENT)
    .where(DOCUMENT.c.ik == sa.bindparam("ik"), DOCUMENT.c.state != "rejected", _lacks(CONTENT)),
    "documents belong to no decided mail": sa.select(sa.func.count())
    .select_from(DOCUMENT)
    .where(
        DOCUMENT.c.ik == sa.bindparam("ik"),
        ~sa.exists().where(RECEIVED.c.delivery == DOCUMENT.c.delivery),
    ),
}


class EauAudit:
    """Reads only. Raises UnavailableError when the database cannot serve."""

    def __init__(self, engine: Engine) -> None:
        self._engine = reading(engine)

    def decisions(self, ik: IK) -> dict[int, State]:
        """What was decided of each delivery of the insurer."""
        query = sa.select(RECEIVED.c.delivery, RECEIVED.c.state).where(RECEIVED.c.ik == ik.value)
        with transaction(self._engine) as connection:
            return {delivery: State(state) for delivery, state in connection.execute(query)}

    def contradictions(self, ik: IK) -> dict[str, int]:
        """What cannot be, with its number; empty in a sound store."""
        with transaction(self._engine) as connection:
            counts = {
                what: connection.execute(query, {"ik": ik.value}).scalar_one() for what, query in _QUESTIONS.items()
            }
        return {what: count for what, count in counts.items() if count}
