"""What of a mailbox is accepted and not opened here, or was deferred: so long nobody knows what is missing (HD-09).

Looked at in the direction in which a mail moves (record, delivery, finished), so that none slips past: who finds
nothing here, and looks into the store of opened documents afterwards, has missed none that was accepted by `upto`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.kim.deferred import OTHERS
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import read_cursor

#: A practice's machine tries again for three working days (incident.md § 2.2), with Sundays and holidays a week.
TRIES_AGAIN_FOR = timedelta(days=7)
#: At this step it tries each of its mails (§ 2.2): who came back with one may have others that did not yet.
COMES_BACK_WITHIN = timedelta(hours=4)


class Waits(StrEnum):
    """Why it cannot be said that there is nothing."""

    ARRIVING = "arriving"  #: accepted a moment ago, its mailbox is not looked up yet
    UNOPENED = "unopened"  #: HELD, or a worker has it
    QUARANTINED = "quarantined"
    DEFERRED = "deferred"  #: a sender was told to come back, and has not with all that he had
    FETCHED = "fetched"  #: its owner took it by POP3, past the store of opened documents


_OPEN = sa.text(
    "SELECT 1 FROM kim_delivery WHERE account = :account AND state = 'HELD'"
    " AND accepted_us >= :since AND accepted_us <= :upto LIMIT 1"
)
_TAKEN = sa.text(
    "SELECT 1 FROM kim_delivery WHERE +id > 0 AND account = :account AND state = 'RELEASING'"
    " AND accepted_us >= :since AND accepted_us <= :upto LIMIT 1"
)
_QUARANTINED = sa.text(
    "SELECT 1 FROM kim_delivery WHERE account = :account AND state = 'QUARANTINED'"
    " AND coalesce(reason, '') NOT IN :harmless AND accepted_us >= :since AND accepted_us <= :upto LIMIT 1"
).bindparams(sa.bindparam("harmless", expanding=True))
_FETCHED = sa.text(
    "SELECT 1 FROM kim_delivery WHERE account = :account AND state = 'DELIVERED' AND reason = 'fetched'"
    " AND accepted_us >= :since AND accepted_us <= :upto LIMIT 1"
)
_AWAY = sa.text(
    "SELECT 1 FROM kim_deferral WHERE recipient IN (:account, :others) AND came_back_us IS NULL"
    " AND first_us <= :upto AND last_us >= :tries LIMIT 1"
)
_CAME_BACK = sa.text(
    "SELECT max(came_back_us) FROM kim_deferral WHERE recipient IN (:account, :others)"
    " AND came_back_us > :turn AND first_us <= :upto"
)


class Unopened:
    """Reads only. Raises UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def waits(
        self, account: str, since: datetime, upto: datetime, now: datetime, harmless: Collection[str] = ()
    ) -> Waits | None:
        """Why something of the mailbox may be missing that was accepted between the two, or sent by then; None: no.

        harmless: reasons of quarantined mails that are known to be no such document. What a deferred sender brought
        when he came back, and until all his mails had their turn, counts as sent by then.
        """
        turn = to_us(upto - COMES_BACK_WITHIN)
        values = {"account": account, "others": OTHERS, "since": to_us(since), "upto": to_us(upto)}
        values |= {"tries": to_us(now - TRIES_AGAIN_FOR), "turn": turn, "harmless": [*harmless, "-"]}
        with self._backing.reading() as connection:
            if _any(connection, _AWAY, values):
                return Waits.DEFERRED
            came_back = connection.execute(_CAME_BACK, values).scalar_one()
            if came_back is not None:
                over = from_us(came_back) + COMES_BACK_WITHIN
                if over > now:
                    return Waits.DEFERRED
                values["upto"] = to_us(max(upto, over))
            cursor = read_cursor(connection) or 0
        # Records are no part of a snapshot of SQLite, so they are looked at between two.
        if self._backing.contents.has_records_from(cursor):
            return Waits.ARRIVING
        with self._backing.reading() as connection:
            if _any(connection, _OPEN, values) or _any(connection, _TAKEN, values):
                return Waits.UNOPENED
            if _any(connection, _QUARANTINED, values):
                return Waits.QUARANTINED
            return Waits.FETCHED if _any(connection, _FETCHED, values) else None


def _any(connection: Connection, query: sa.TextClause, values: dict[str, object]) -> bool:
    return connection.execute(query, values).first() is not None
