"""Retention: bodies of finished mail are erased when their clock has run out; what waits is never touched (HD-24)."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from schleuse.clock import to_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import Bodies, read_cursor
from schleuse.kim.store.delivery import RECIPIENT_BITS, delivery_id
from schleuse.kim.store.marks import MARKS, remove_obsolete
from schleuse.kim.store.tables import RETIRED
from schleuse.mail.spool import Spool
from schleuse.mail.spool.disk import Disk
from schleuse.mail.spool.segments import OFFSET_BITS

_AT_ONCE = 500
_LAST = (1 << RECIPIENT_BITS) - 1
_SEGMENT_BITS = OFFSET_BITS + RECIPIENT_BITS

#: A body goes when all its recipients' clocks have run out and no DSN is to be built from it any more. What a mailbox
#: has that the switch holds now stays as it is (SW-12, HD-12).
_EXPIRED = sa.text(
    "SELECT d.id >> 10 AS position, max(d.length) AS length FROM kim_delivery AS d"
    " WHERE d.expires_us <= :now AND d.id < :before"
    " AND NOT EXISTS (SELECT 1 FROM kim_delivery AS s"
    " WHERE s.id BETWEEN (d.id >> 10) << 10 AND ((d.id >> 10) << 10) + 1023"
    " AND s.purged_us IS NULL AND (s.expires_us IS NULL OR s.expires_us > :now))"
    " AND NOT EXISTS (SELECT 1 FROM kim_report AS r"
    " WHERE r.delivery BETWEEN (d.id >> 10) << 10 AND ((d.id >> 10) << 10) + 1023 AND r.accepted_us IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM kim_hold AS h JOIN kim_delivery AS t ON t.account = h.account"
    " WHERE h.ended_us IS NULL AND t.id BETWEEN (d.id >> 10) << 10 AND ((d.id >> 10) << 10) + 1023)"
    " GROUP BY d.id >> 10 ORDER BY 1 LIMIT :limit"
)
_PURGED = sa.text("UPDATE kim_delivery SET purged_us = :now, expires_us = NULL WHERE id BETWEEN :first AND :last")
_SEGMENT = sa.text(
    "SELECT count(*) AS deliveries, count(DISTINCT id >> 10) AS mails, count(purged_us) AS purged"
    " FROM kim_delivery WHERE id BETWEEN :first AND :last"
)


def purge_bodies(backing: Backing, bodies: Bodies, now: datetime, *, before: int | None) -> int:
    """Erase what has expired before a position (None: everywhere). Returns how many mails.

    Erased first, then noted: a crash between erases zeros once more.
    """
    purged = 0
    while places := expired(backing, now, before=before, limit=_AT_ONCE):
        bodies.erase(places)
        with backing.writing() as connection:
            firsts = [delivery_id(position, 0) for position, _ in places]
            rows = [{"now": to_us(now), "first": first, "last": first + _LAST} for first in firsts]
            connection.execute(_PURGED, rows)
        purged += len(places)
    return purged


def expired(backing: Backing, now: datetime, *, before: int | None, limit: int) -> list[tuple[int, int]]:
    """The oldest bodies whose time has come, as (position, length)."""
    end = (1 << 63) - 1 if before is None else delivery_id(before, 0)
    with backing.reading() as connection:
        rows = connection.execute(_EXPIRED, {"now": to_us(now), "before": end, "limit": limit})
        return [(row.position, row.length) for row in rows]


def remove_segments(backing: Backing, spool: Spool, disk: Disk) -> int:
    """Remove complete segments all of whose mails are purged, and marks that speak of no segment left.

    Noted first, then removed: after a crash between, the next call removes the file. Returns how many.
    """
    removed = 0
    for number in spool.removable():
        if _retire(backing, number):
            spool.forget(number)
            removed += 1
    oldest = min(spool.reader.numbers(), default=0)
    remove_obsolete(disk, spool.reader.directory / MARKS, oldest)
    return removed


def _retire(backing: Backing, number: int) -> bool:
    first = number << _SEGMENT_BITS
    with backing.writing() as connection:
        if connection.execute(sa.select(RETIRED.c.segment).where(RETIRED.c.segment == number)).first():
            return True
        cursor = read_cursor(connection) or 0
        if cursor >> OFFSET_BITS <= number:
            return False
        values = {"first": first, "last": first + (1 << _SEGMENT_BITS) - 1}
        row = connection.execute(_SEGMENT, values).one()
        if row.purged < row.deliveries:
            return False
        insert = sa.insert(RETIRED).values(segment=number, mails=row.mails, deliveries=row.deliveries)
        connection.execute(insert)
        return True
