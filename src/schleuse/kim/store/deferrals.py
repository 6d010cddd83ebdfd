"""Who was deferred, and who has not come back since (incident.md § 6.5).

"Came back" is known by sender and mailbox: a mail that was deferred has shown nothing but its envelope, and often no
ENVID. Who has come back with one of several mails counts as come back here; `unopened` waits for the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.database import asking
from schleuse.kim.deferred import OTHERS, AccountOf, Attempts, recipient_key, sender_key
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.placement import Arrived

#: Rows of one hour; what is beyond is counted in one row. A cell has some thousand practices.
MAX_ROWS_AN_HOUR = 100_000

#: The same may come twice, and later than the mail with which its sender came back: a note outlives its process.
_WRITE = sa.text(
    "INSERT INTO kim_deferral (sender, recipient, hour, count, first_us, last_us, envid, came_back_us)"
    " VALUES (:sender, :recipient, :hour, :count, :first_us, :last_us, :envid, :came_back_us)"
    " ON CONFLICT (sender, recipient, hour) DO UPDATE SET count = kim_deferral.count + excluded.count,"
    " last_us = CASE WHEN kim_deferral.last_us > excluded.last_us THEN kim_deferral.last_us ELSE excluded.last_us END,"
    " envid = excluded.envid, came_back_us = CASE WHEN excluded.came_back_us IS NULL"
    " AND kim_deferral.came_back_us >= excluded.last_us THEN kim_deferral.came_back_us ELSE excluded.came_back_us END"
)
_ROWS = sa.text("SELECT count(*) FROM kim_deferral WHERE hour = :hour")
_ANY_AWAY = sa.text("SELECT 1 FROM kim_deferral WHERE came_back_us IS NULL LIMIT 1")
_CAME_BACK = sa.text(
    "UPDATE kim_deferral SET came_back_us = :at WHERE recipient = :recipient AND sender = :sender"
    " AND came_back_us IS NULL AND last_us <= :at"
)
_AWAY = sa.text(
    "SELECT sender, recipient, sum(count) AS attempts, min(first_us) AS first_us, max(last_us) AS last_us"
    " FROM kim_deferral WHERE came_back_us IS NULL AND last_us >= :since AND first_us < :until"
    " GROUP BY sender, recipient ORDER BY sender, recipient LIMIT :limit"
)
_COUNT_AWAY = sa.text(
    "SELECT count(*) FROM (SELECT DISTINCT recipient, sender FROM kim_deferral WHERE came_back_us IS NULL) AS away"
)
_FORGET = sa.text("DELETE FROM kim_deferral WHERE last_us < :before")


@dataclass(frozen=True, slots=True, repr=False)
class Away:
    """A sender who tried and never came back. recipient: name of the account, or "@domain"."""

    sender: str
    recipient: str
    attempts: int
    first_at: datetime
    last_at: datetime


class Deferrals:
    """Each method is one transaction. All raise UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def write(self, attempts: Sequence[Attempts]) -> None:
        """Add them to what the table has."""
        if not attempts:
            return
        with self._backing.writing() as connection:
            for hour in {one.hour for one in attempts}:
                those = [one for one in attempts if one.hour == hour]
                room = MAX_ROWS_AN_HOUR - connection.execute(_ROWS, {"hour": hour}).scalar_one()
                kept, rest = those[: max(room, 0)], those[max(room, 0) :]
                for one in kept:
                    connection.execute(_WRITE, _values(one))
                if rest:
                    connection.execute(_WRITE, _values(_together(rest)))

    def away(self, since: datetime, until: datetime, limit: int = 100_000) -> list[Away]:
        """Which senders were deferred in this time and have had nothing accepted there since?"""
        with self._backing.reading() as connection:
            return _away(connection, since, until, limit)

    def count_away(self) -> int:
        """How many pairs of sender and mailbox have not come back."""
        with self._backing.reading() as connection:
            return int(connection.execute(_COUNT_AWAY).scalar_one())

    def forget(self, before: datetime) -> int:
        """Erase what is older: it names people. Returns how many rows."""
        with self._backing.writing() as connection:
            return connection.execute(_FORGET, {"before": to_us(before)}).rowcount


def read_away(url: str, since: datetime, until: datetime, limit: int = 100_000) -> list[Away]:
    """As `Deferrals.away`, beside a running role and without changing anything. Raises UnavailableError."""
    with asking(url) as connection:
        return _away(connection, since, until, limit)


def note_came_back(connection: Connection, arrived: Collection[Arrived], account_of: AccountOf) -> None:
    """These mails were accepted; in the transaction that makes their deliveries, so a crash forgets none of them."""
    if connection.execute(_ANY_AWAY).first() is None:
        return
    latest: dict[tuple[str, str], int] = {}
    for envelope in (one.envelope for one in arrived):
        if envelope is not None:
            for recipient in envelope.recipients:
                pair = sender_key(envelope.sender), recipient_key(recipient.address, account_of)
                latest[pair] = max(latest.get(pair, 0), to_us(envelope.accepted_at))
    values = [{"sender": sender, "recipient": recipient, "at": at} for (sender, recipient), at in latest.items()]
    if values:
        connection.execute(_CAME_BACK, values)


def _away(connection: Connection, since: datetime, until: datetime, limit: int) -> list[Away]:
    rows = connection.execute(_AWAY, {"since": to_us(since), "until": to_us(until), "limit": limit})
    return [
        Away(row.sender, row.recipient, int(row.attempts), from_us(row.first_us), from_us(row.last_us)) for row in rows
    ]


def _values(one: Attempts) -> dict[str, object]:
    return {
        "sender": one.sender,
        "recipient": one.recipient,
        "hour": one.hour,
        "count": one.count,
        "first_us": one.first_us,
        "last_us": one.last_us,
        "envid": one.envid,
        "came_back_us": one.came_back_us,
    }


def _together(rest: Sequence[Attempts]) -> Attempts:
    count = sum(one.count for one in rest)
    first, last = min(one.first_us for one in rest), max(one.last_us for one in rest)
    return Attempts(OTHERS, OTHERS, rest[0].hour, count, first, last, None)
