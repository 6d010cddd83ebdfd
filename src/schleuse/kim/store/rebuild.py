"""The index from the segments and the marks alone, when the database was lost or is not to be trusted.

What comes back: every mail that is still in a segment, with the same delivery ids, UIDLs and positions; what was
finished (DELIVERED, CONFIRMED, QUARANTINED, RETURNED, WITHDRAWN, DUPLICATE_LINKED), when and why; which DSNs are owed
and which went out, octet for octet the same; which mails are duplicates of which; what was purged.

What does not: leases (RELEASING is HELD again; who had the mail recognises it), the number and time of the next
attempt of outbound mail (it is tried at once), `put_back` times, and mails whose segments were removed after their
retention. Nothing that was finished is handed out again.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.errors import RefusedError
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.delivery import RECIPIENT_BITS, delivery_id
from schleuse.kim.store.marks import MARKS, read_marks
from schleuse.kim.store.router import Router
from schleuse.kim.store.tables import CURSOR, DELIVERY, REPORT, RETIRED
from schleuse.mail.spool import Condition, Kept, Spool
from schleuse.mail.spool.disk import Disk


class NothingToRebuildError(RefusedError):
    """With PostgreSQL there is no index to rebuild; the operator restores the database."""

    code = "kim.nothing-to-rebuild"


_ERASED = sa.text("UPDATE kim_delivery SET purged_us = changed_us, expires_us = NULL WHERE id BETWEEN :first AND :last")


def rebuild(backing: Backing, spool: Spool | None, disk: Disk, router: Router) -> int:
    """Replace the whole index in one transaction. Returns how many mails it knows then.

    Raises NothingToRebuildError with PostgreSQL: there, mails and states are in one database; restore that.
    """
    if spool is None:
        raise NothingToRebuildError("with PostgreSQL mails and states are one database: restore its backup instead")
    marks = read_marks(disk, spool.reader.directory / MARKS)
    with backing.writing() as connection:
        for table in (DELIVERY, REPORT, CURSOR, RETIRED):
            connection.execute(sa.delete(table))
        connection.execute(sa.insert(CURSOR).values(position=0))
        mails = 0
        while count := router.route_in(connection, marks):
            mails += count
        _note_erased(connection, _erased(spool))
    return mails


def _erased(spool: Spool) -> Iterator[int]:
    for item in spool.scan(0, contents=True):
        if isinstance(item, Kept) and item.condition is Condition.ERASED:
            yield item.position


def _note_erased(connection: Connection, positions: Iterator[int]) -> None:
    last = (1 << RECIPIENT_BITS) - 1
    firsts = [delivery_id(position, 0) for position in positions]
    if firsts:
        connection.execute(_ERASED, [{"first": first, "last": first + last} for first in firsts])
