"""How far an insurer's system has taken a list over: the feed, the answers that followed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import sqlalchemy as sa

from schleuse.errors import ConflictError
from schleuse.identifiers import IK


class CursorBeyondEndError(ConflictError):
    """An acknowledgement of more than the feed has; the insurer's system must ask for its own cursor."""

    code = "eau.cursor-beyond-end"


def acked(connection: sa.Connection, cursors: sa.Table, ik: IK, client: str) -> int:
    """The last number that this client has taken over; 0: none. cursors: a table with ik, client and acked."""
    query = sa.select(cursors.c.acked).where(cursors.c.ik == ik.value, cursors.c.client == client)
    return connection.execute(query).scalar() or 0


def take_over(
    connection: sa.Connection,
    cursors: sa.Table,
    ik: IK,
    client: str,
    cursor: int,
    last: int,
    new: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Everything up to the cursor; a lower one changes nothing. Returns where the client stands now.

    last: newest number of the list. new: other columns of a client that had taken over nothing before.
    Raises CursorBeyondEndError, and then nothing is recorded.
    """
    if cursor > last:
        raise CursorBeyondEndError(
            f"the cursor is {cursor}, but the list ends at {last}; acknowledge only what was fetched"
        )
    before = acked(connection, cursors, ik, client)
    if cursor <= before:
        return before
    moved = connection.execute(
        sa.update(cursors).where(cursors.c.ik == ik.value, cursors.c.client == client).values(acked=cursor)
    )
    if moved.rowcount == 0:
        connection.execute(sa.insert(cursors), {"ik": ik.value, "client": client, "acked": cursor, **new})
    return cursor
