"""The eAU store: decisions of one insurer one after the other, everything of a batch or nothing.

    with store.filing(ik, arrivals, now) as filing:
        for arrival in arrivals:
            done = filing.recorded(arrival)          # a repeat after a crash: the same answer
            outcome = settle(judgement, found, filing.memory(arrival), policy)
            done = filing.keep(arrival, outcome, sealed=…, letter=…)
    # durable here; only now the mail store is told

`feed`, `answers` and `letters` are the sides of the insurer's system and of the outbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schleuse.database import open_database, reading, transaction
from schleuse.eau.answer_store import AnswerStore
from schleuse.eau.audit import EauAudit
from schleuse.eau.document import DocumentId, Kind
from schleuse.eau.feed_store import FeedStore
from schleuse.eau.filing import Arrival, Filing, Letter, Recorded, Sealed
from schleuse.eau.letter_store import LetterStore
from schleuse.eau.locking import lock_insurer, look_up_by_index
from schleuse.eau.outcome import DocumentState, Quarantine
from schleuse.eau.switched import processing
from schleuse.eau.tables import DOCUMENT, RECEIVED
from schleuse.identifiers import IK
from schleuse.scopes import Scope
from schleuse.switch import fence

__all__ = [
    "Arrival",
    "EauStore",
    "Filing",
    "Letter",
    "PendingStorno",
    "Recorded",
    "Sealed",
    "open_store",
]

MIGRATIONS = "schleuse.eau.migrations"


@dataclass(frozen=True, slots=True)
class PendingStorno:
    """A Storno that waits for its eAU."""

    ik: IK
    delivery: int
    document_id: DocumentId
    target: DocumentId
    accepted_at: datetime


class EauStore:
    """All SQL of the package. Thread-safe. Every method raises UnavailableError when the database cannot serve.

    No decision is ever deleted: the memory for duplicates is longer than any hold and its repeated sendings (HD-26).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.feed = FeedStore(engine)
        self.answers = AnswerStore(engine)
        self.letters = LetterStore(engine)
        self.audit = EauAudit(engine)

    @contextmanager
    def filing(self, ik: IK, arrivals: Sequence[Arrival], now: datetime, epoch: int | None = None) -> Iterator[Filing]:
        """One transaction over a batch of one insurer's mails, alone among the decisions of that insurer.

        epoch: of the switch when the mails were taken; None where no switch rules.
        Nothing is recorded if the block raises. Raises ForeignMailStoreError, StaleEpochError (SW-06).
        """
        with transaction(self._engine) as connection:
            if epoch is not None:
                fence.require(connection, processing(ik), epoch)
            lock_insurer(connection, ik)
            look_up_by_index(connection)
            filing = Filing(connection, ik, arrivals, now, epoch)
            yield filing
            filing.write()

    def overdue_stornos(self, before: datetime) -> list[PendingStorno]:
        """Which Storno still wait for an eAU although they arrived before that time? For people (eau.md § 11)."""
        query = (
            sa.select(DOCUMENT)
            .where(sa.text("state = 'pending'"), DOCUMENT.c.accepted_at < before)
            .order_by(DOCUMENT.c.delivery)
        )
        with transaction(reading(self._engine)) as connection:
            return [
                PendingStorno(
                    IK(row.ik), row.delivery, DocumentId(row.document_id), DocumentId(row.target), row.accepted_at
                )
                for row in connection.execute(query)
            ]

    def outcomes(self, ik: IK) -> dict[str, int]:
        """How many mails of the insurer had each outcome, by state of incident.md appendix A."""
        query = sa.select(RECEIVED.c.state, sa.func.count()).where(RECEIVED.c.ik == ik.value).group_by(RECEIVED.c.state)
        with transaction(reading(self._engine)) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def probes(self, ik: IK) -> int:
        """How many test mails came to the insurer's productive mailbox: counted apart, never filed (HD-07)."""
        with transaction(reading(self._engine)) as connection:
            return count_probes(connection, ik)

    def documents(self, ik: IK) -> dict[tuple[Kind, DocumentState], int]:
        """How many documents of the insurer are in each state."""
        query = (
            sa.select(DOCUMENT.c.kind, DOCUMENT.c.state, sa.func.count())
            .where(DOCUMENT.c.ik == ik.value)
            .group_by(DOCUMENT.c.kind, DOCUMENT.c.state)
        )
        with transaction(reading(self._engine)) as connection:
            return {(Kind(kind), DocumentState(state)): n for kind, state, n in connection.execute(query)}

    def fence_head(self) -> int:
        """The highest epoch that this database has seen: the floor of each copy of the switch."""
        with transaction(reading(self._engine)) as connection:
            return fence.head(connection)

    def raise_fence(self, epochs: Mapping[Scope, int], head: int) -> None:
        """From now on nothing that was begun under an older epoch (SW-06)."""
        with transaction(self._engine) as connection:
            fence.raise_to(connection, epochs, head)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def count_probes(connection: sa.Connection, ik: IK) -> int:
    """See `EauStore.probes`; for a process that has no store open."""
    query = sa.select(sa.func.count()).where(
        RECEIVED.c.ik == ik.value, RECEIVED.c.reason == Quarantine.TEST_IN_PRODUCTION.value
    )
    return connection.execute(query).scalar_one()


def open_store(url: str) -> EauStore:
    """Open the database and bring its tables up to date. Raises DatabaseUnavailableError."""
    return EauStore(open_database(url, MIGRATIONS))
