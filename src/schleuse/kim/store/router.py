"""Routing: each accepted mail becomes one delivery per recipient, exactly once.

Deliveries, owed reports and the cursor change in one transaction. A crash before it repeats it, a crash after it
finds the cursor moved on; so starting after a crash and working on a normal day are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import Now, to_us
from schleuse.holding.states import WAITING, State
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import Bodies
from schleuse.kim.store.deferrals import note_came_back
from schleuse.kim.store.holds import reach_late_ones
from schleuse.kim.store.marks import Mark
from schleuse.kim.store.origins import note_origins
from schleuse.kim.store.placement import (
    AccountOf,
    Arrived,
    First,
    Knowledge,
    Placed,
    place,
    twin_key,
)
from schleuse.kim.store.reports import report_row
from schleuse.kim.store.tables import DELIVERY, REPORT

_T = TypeVar("_T")

#: Mails of one transaction: bounds how long the eau role waits for SQLite's one writer.
BATCH = 256

#: SQLite binds at most 32,766 values in one statement, PostgreSQL 65,535; a batch may have 256,000 recipients.
_KEYS_AT_ONCE = 10_000


class Router:
    """Called from one thread at a time."""

    def __init__(
        self,
        backing: Backing,
        bodies: Bodies,
        account_of: AccountOf,
        now: Now,
        *,
        retention: timedelta,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._backing = backing
        self._bodies = bodies
        self._account_of = account_of
        self._now = now
        self._retention_us = retention // timedelta(microseconds=1)
        self._step = step

    def route(self) -> int:
        """Place the oldest accepted mails, at most BATCH. Returns how many. Raises UnavailableError, CorruptError."""
        with self._backing.writing() as connection:
            count = self.route_in(connection, {})
            self._step("route.before-commit")
        self._step("route.committed")
        return count

    def route_in(self, connection: Connection, marks: Mapping[int, Mark]) -> int:
        """The same in a transaction of the caller; marks: what became of deliveries before the index was lost."""
        arrived = self._bodies.arrived(connection, BATCH)
        if not arrived:
            return 0
        self._step("route.read")
        known = Knowledge(self._account_of, _firsts(connection, arrived), to_us(self._now()), marks)
        placed = [one for each in arrived for one in place(each, known)]
        if not marks:
            # A rebuild must link the same mails again, whatever became of their firsts meanwhile.
            self._backing.marks.write([_link_mark(one) for one in placed if one.linked_to is not None])
        self._insert(connection, placed)
        note_origins(connection, arrived)
        note_came_back(connection, arrived, self._account_of)
        self._bodies.advance(connection, arrived)
        return len(arrived)

    def _insert(self, connection: Connection, placed: Sequence[Placed]) -> None:
        displaced = {one.displaces for one in placed if one.displaces is not None}
        for part in _parts(displaced):
            connection.execute(sa.update(DELIVERY).where(DELIVERY.c.id.in_(part)).values(twin=None))
        connection.execute(sa.insert(DELIVERY), [_row(one, one.id in displaced, self._retention_us) for one in placed])
        waiting = [one for one in placed if one.state in WAITING]
        reach_late_ones(connection, [(one.account, one.id, one.accepted_us) for one in waiting if one.account])
        reports = [report_row(report) for one in placed for report in one.reports]
        if reports:
            connection.execute(sa.insert(REPORT), reports)


def _firsts(connection: Connection, arrived: Sequence[Arrived]) -> dict[bytes, First]:
    keys = {
        twin_key(recipient, each.envelope)
        for each in arrived
        if each.envelope is not None
        for recipient in each.envelope.recipients
    }
    columns = DELIVERY.c
    query = sa.select(columns.twin, columns.id, columns.account, columns.state)
    return {
        bytes(row.twin): First(row.id, row.account, State(row.state))
        for part in _parts(keys)
        for row in connection.execute(query.where(columns.twin.in_(part)))
    }


def _parts(values: Collection[_T]) -> Iterator[list[_T]]:
    listed = list(values)
    return (listed[start : start + _KEYS_AT_ONCE] for start in range(0, len(listed), _KEYS_AT_ONCE))


def _row(one: Placed, is_displaced: bool, retention_us: int) -> dict[str, object]:
    return {
        "id": one.id,
        "account": one.account,
        "state": one.state.value,
        "twin": None if is_displaced else one.twin,
        "linked_to": one.linked_to,
        "digest": one.digest,
        "length": one.length,
        "size": one.size,
        "accepted_us": one.accepted_us,
        "changed_us": one.changed_us,
        "reason": one.reason,
        "not_before_us": 0,
        "lease_owner": None,
        "lease_until_us": None,
        "attempts": 0,
        "delay_reported": one.delay_reported,
        "expires_us": None if one.state in WAITING else one.changed_us + retention_us,
        "purged_us": None,
        "epoch": None,
    }


def _link_mark(one: Placed) -> Mark:
    return Mark(one.id, one.changed_us, one.state, None, one.linked_to)
