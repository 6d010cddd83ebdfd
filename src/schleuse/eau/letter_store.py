"""SQL of the outbox: Fehlernachrichten that were recorded with their decision and wait to be sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schleuse.database import reading, transaction
from schleuse.eau.locking import lock_insurer
from schleuse.eau.rates import lately
from schleuse.eau.tables import LETTER
from schleuse.identifiers import IK
from schleuse.kim.store import Under
from schleuse.kim.store.delivery import share_sql
from schleuse.switch import fence

#: Nothing is put off for longer, unless the clock was set back since: then it is due.
LONGEST_PAUSE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, repr=False)
class Unsent:
    """One Fehlernachricht. delivery: of the faulty mail. draft: in a container of the vault for this Message-ID.

    wire: the finished mail, None until it was made for the first time.
    """

    delivery: int
    ik: IK
    code: int
    message_id: str
    sender: str
    recipient: str
    draft: bytes
    wire: bytes | None
    attempts: int


class LetterStore:
    """Raises UnavailableError from every method when the database cannot serve."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def due(
        self,
        now: datetime,
        limit: int,
        iks: Collection[IK] | None = None,
        shares: Mapping[IK, int] = MappingProxyType({}),
        rates: Mapping[IK, int] = MappingProxyType({}),
    ) -> list[Unsent]:
        """Unsent letters whose time has come, oldest first. iks: of these insurers only; None: of all.

        Of insurers whose deliveries are LIMITED: shares: in permille, by the delivery that is answered
        (`kim.store.Take`); rates: by the hour, where it is used up only letters that it was used for (`let_out`).
        """
        query = (
            sa.select(LETTER)
            .where(
                sa.text("sent_at IS NULL"),
                sa.or_(LETTER.c.next_at <= now, LETTER.c.next_at > now + LONGEST_PAUSE),
            )
            .order_by(LETTER.c.next_at, LETTER.c.delivery)
            .limit(limit)
        )
        if iks is not None:
            query = query.where(LETTER.c.ik.in_([ik.value for ik in iks]))
        for ik, permille in shares.items():
            share = sa.text(f"{share_sql('eau_letter.delivery')} < :p{ik.value}").bindparams(
                **{f"p{ik.value}": permille}
            )
            query = query.where(sa.or_(LETTER.c.ik != ik.value, share))
        with transaction(reading(self._engine)) as connection:
            for ik, per_hour in rates.items():
                if _out(connection, ik, now) >= per_hour:
                    query = query.where(sa.or_(LETTER.c.ik != ik.value, lately(LETTER.c.out_at, now)))
            return [
                Unsent(
                    row.delivery,
                    IK(row.ik),
                    row.code,
                    row.message_id,
                    row.sender,
                    row.recipient,
                    row.draft,
                    row.wire,
                    row.attempts,
                )
                for row in connection.execute(query)
            ]

    def let_out(self, letter: Unsent, now: datetime, per_hour: int, under: Under | None = None) -> bool:
        """Whether this letter may go out now, under the rate of its insurer; then it is counted before it does.

        So one that was on its way when we died counts, and in any hour no more than `per_hour` different letters leave.
        Raises StaleEpochError.
        """
        with transaction(self._engine) as connection:
            _require(connection, under)
            lock_insurer(connection, letter.ik)
            if _out(connection, letter.ik, now, but=letter.delivery) >= per_hour:
                return False
            connection.execute(sa.update(LETTER).where(LETTER.c.delivery == letter.delivery).values(out_at=now))
        return True

    def keep_wire(self, delivery: int, wire: bytes, under: Under | None = None) -> bytes:
        """Record the finished mail before it is sent for the first time. Returns the one that counts: the first.

        Raises StaleEpochError: it must not be sent now (SW-06).
        """
        with transaction(self._engine) as connection:
            _require(connection, under)
            connection.execute(
                sa.update(LETTER).where(LETTER.c.delivery == delivery, LETTER.c.wire.is_(None)).values(wire=wire)
            )
            kept: bytes = connection.execute(sa.select(LETTER.c.wire).where(LETTER.c.delivery == delivery)).scalar_one()
        return kept

    def sent(self, delivery: int, now: datetime, under: Under | None = None) -> None:
        """The mail system has taken it over.

        Raises StaleEpochError: it was closed meanwhile, so the same octets go again after the opening, and the mail
        system keeps them once.
        """
        with transaction(self._engine) as connection:
            _require(connection, under)
            connection.execute(
                sa.update(LETTER)
                .where(LETTER.c.delivery == delivery, LETTER.c.sent_at.is_(None))
                .values(
                    sent_at=now,
                    out_at=now,
                    attempts=LETTER.c.attempts + 1,
                    epoch=None if under is None else under.epoch,
                )
            )

    def retry(self, delivery: int, next_at: datetime) -> None:
        """It could not be sent; try again then. One that never was a mail has not left, so it uses up no rate."""
        with transaction(self._engine) as connection:
            connection.execute(
                sa.update(LETTER)
                .where(LETTER.c.delivery == delivery, LETTER.c.sent_at.is_(None))
                .values(
                    next_at=next_at,
                    attempts=LETTER.c.attempts + 1,
                    out_at=sa.case((LETTER.c.wire.is_not(None), LETTER.c.out_at)),
                )
            )

    def waiting(self, before: datetime | None = None) -> int:
        """How many letters are not sent yet; before: of those that were recorded before that time."""
        query = sa.select(sa.func.count()).select_from(LETTER).where(sa.text("sent_at IS NULL"))
        if before is not None:
            query = query.where(LETTER.c.created_at < before)
        with transaction(reading(self._engine)) as connection:
            return connection.execute(query).scalar_one()


def _out(connection: sa.Connection, ik: IK, now: datetime, but: int | None = None) -> int:
    """How many letters of this insurer went out in the hour before now, not counting that one."""
    query = sa.select(sa.func.count()).where(LETTER.c.ik == ik.value, lately(LETTER.c.out_at, now))
    return connection.execute(query if but is None else query.where(LETTER.c.delivery != but)).scalar_one()


def _require(connection: sa.Connection, under: Under | None) -> None:
    if under is not None:
        fence.require(connection, under.scope, under.epoch)
