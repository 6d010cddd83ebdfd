"""How a worker takes mail out of mailboxes: under a lease that runs out (HELD -> RELEASING -> …)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.database import open_database
from schleuse.errors import UnavailableError
from schleuse.holding.states import WAITING, State, require_move
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import Content, RowBodies, as_many_as_fit
from schleuse.kim.store.delivery import Claimed, Outcome, Waiting, position_of, recipient_index
from schleuse.kim.store.marks import MARKS, Mark, MarkFiles, NoMarks
from schleuse.mail.spool import DamagedRecordError, OsDisk, SegmentReader
from schleuse.mail.spool.envelope import opened

MIGRATIONS = "schleuse.kim.migrations"

#: SQLite takes at most 500 parts in one compound SELECT.
_ACCOUNTS_AT_ONCE = 400

#: SQLite binds at most 32,766 values in one statement.
_IDS_AT_ONCE = 10_000

#: With PostgreSQL a worker looks at this many times its limit, so that it finds rows that no other worker has locked.
_LOOK_AHEAD = 8

_EXPIRED = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', lease_owner = NULL, lease_until_us = NULL"
    " WHERE state = 'RELEASING' AND lease_until_us <= :now AND account IS NOT NULL"
)
_LOCK = sa.text(
    "SELECT id FROM kim_delivery WHERE id IN :ids AND state = 'HELD' ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED"
).bindparams(sa.bindparam("ids", expanding=True))
_TAKE = sa.text(
    "UPDATE kim_delivery SET state = 'RELEASING', lease_owner = :owner, lease_until_us = :until"
    " WHERE id IN :ids AND state = 'HELD'"
).bindparams(sa.bindparam("ids", expanding=True))
_FINISH = sa.text(
    "UPDATE kim_delivery SET state = :state, reason = :reason, changed_us = :now, expires_us = :expires,"
    " lease_owner = NULL, lease_until_us = NULL"
    " WHERE id IN :ids AND state = 'RELEASING' AND lease_owner = :owner"
).bindparams(sa.bindparam("ids", expanding=True))
_OURS = sa.text(
    "SELECT id FROM kim_delivery WHERE id IN :ids AND state = 'RELEASING' AND lease_owner = :owner"
).bindparams(sa.bindparam("ids", expanding=True))
_PUT_BACK = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', lease_owner = NULL, lease_until_us = NULL, not_before_us = :not_before"
    " WHERE id IN :ids AND state = 'RELEASING' AND lease_owner = :owner"
).bindparams(sa.bindparam("ids", expanding=True))
_RESET = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', lease_owner = NULL, lease_until_us = NULL"
    " WHERE state = 'RELEASING' AND lease_owner = :owner"
)
_CONFIRM = sa.text("UPDATE kim_delivery SET state = 'CONFIRMED' WHERE id IN :ids AND state = 'DELIVERED'").bindparams(
    sa.bindparam("ids", expanding=True)
)
_UNFINISHED = sa.text(
    "SELECT count(*) FROM kim_delivery WHERE id IN :ids AND state IN ('HELD', 'RELEASING')"
).bindparams(sa.bindparam("ids", expanding=True))
#: The sign keeps the planner from walking up all ids to the first that fits; the few leases have an index.
_OLDEST = sa.text("SELECT min(+id) FROM kim_delivery WHERE state = 'RELEASING' AND account IN :accounts").bindparams(
    sa.bindparam("accounts", expanding=True)
)


class Leases:
    """The worker's side of the mail store; any number of processes may have one, each with its own owner name.

    Each method is one transaction. All raise UnavailableError when the store cannot serve now. After a fork, open
    a new one: connections and files of marks are not shared.
    """

    def __init__(self, backing: Backing, retention: timedelta) -> None:
        self._backing = backing
        self._retention_us = retention // timedelta(microseconds=1)

    def claim(self, accounts: Sequence[str], limit: int, owner: str, now: datetime, lease: timedelta) -> list[Claimed]:
        """The oldest waiting deliveries of these accounts, in acceptance order: HELD -> RELEASING.

        Leases that ran out before `now` go back to HELD first.
        """
        now_us = to_us(now)
        with self._backing.writing() as connection:
            connection.execute(_EXPIRED, {"now": now_us})
            rows = as_many_as_fit(self._candidates(connection, accounts, limit, now_us))
            if not rows:
                return []
            ids = [row.id for row in rows]
            connection.execute(_TAKE, {"ids": ids, "owner": owner, "until": to_us(now + lease)})
        try:
            contents = self._backing.contents.read([(position_of(row.id), row.length) for row in rows])
        except UnavailableError:
            self.put_back(ids, owner, now)
            raise
        return [_claimed(row, content) for row, content in zip(rows, contents, strict=True)]

    def finish(self, outcomes: Sequence[Outcome], owner: str, now: datetime) -> frozenset[int]:
        """RELEASING -> the outcome's state, for the deliveries that `owner` still has.

        Call it when the effect is durable on your side. Returns the ids that the owner no longer had (the lease ran
        out); those are untouched and come again. Raises IllegalMoveError.
        """
        if not outcomes:
            return frozenset()
        for outcome in outcomes:
            require_move(State.RELEASING, outcome.state)
        now_us = to_us(now)
        # The mark first: the effect is there, so a rebuilt index must not hand the mail out again.
        self._backing.marks.write([Mark(one.id, now_us, one.state, one.reason) for one in outcomes])
        ids = [one.id for one in outcomes]
        with self._backing.writing() as connection:
            ours = set(connection.execute(_OURS, {"ids": ids, "owner": owner}).scalars())
            for values in self._updates([one for one in outcomes if one.id in ours], now_us):
                connection.execute(_FINISH, {**values, "owner": owner, "now": now_us})
        return frozenset(ids) - ours

    def put_back(self, ids: Sequence[int], owner: str, not_before: datetime) -> int:
        """RELEASING -> HELD, not to be claimed before that time. Returns how many were still ours."""
        if not ids:
            return 0
        with self._backing.writing() as connection:
            values = {"ids": ids, "owner": owner, "not_before": to_us(not_before)}
            return connection.execute(_PUT_BACK, values).rowcount

    def reset(self, owner: str) -> int:
        """All of the owner's leases back to HELD: what a worker calls when it starts. Returns how many."""
        with self._backing.writing() as connection:
            return connection.execute(_RESET, {"owner": owner}).rowcount

    def confirm(self, ids: Sequence[int], now: datetime) -> int:
        """DELIVERED -> CONFIRMED; others are untouched. Returns how many moved."""
        if not ids:
            return 0
        self._backing.marks.write([Mark(id, to_us(now), State.CONFIRMED) for id in ids])
        with self._backing.writing() as connection:
            return sum(connection.execute(_CONFIRM, {"ids": part}).rowcount for part in _parts(ids))

    def unfinished(self, ids: Sequence[int]) -> int:
        """How many of these are HELD or RELEASING: a worker that died between its effect and `finish` comes again."""
        with self._backing.reading() as connection:
            return sum(connection.execute(_UNFINISHED, {"ids": part}).scalar_one() for part in _parts(ids))

    def reconsider(self, ids: Sequence[int], now: datetime) -> int:
        """QUARANTINED -> HELD, by the decision of people. Returns how many moved."""
        if not ids:
            return 0
        with self._backing.writing() as connection:
            moved = connection.execute(_RECONSIDER, {"ids": list(ids), "now": to_us(now)}).rowcount
        self._backing.marks.write_later([Mark(id, to_us(now), State.HELD) for id in ids])
        return moved

    def waiting(self, states: Sequence[State], limit: int) -> list[Waiting]:
        """Deliveries to mailboxes in these states, oldest first: what people look at."""
        with self._backing.reading() as connection:
            rows = connection.execute(_WAITING, {"states": [state.value for state in states], "limit": limit})
            return [
                Waiting(row.id, row.account, State(row.state), row.reason, from_us(row.accepted_us)) for row in rows
            ]

    def oldest_claimed(self, accounts: Sequence[str]) -> int | None:
        """The lowest delivery id of these accounts that is RELEASING, or None."""
        with self._backing.reading() as connection:
            value = connection.execute(_OLDEST, {"accounts": list(accounts)}).scalar_one()
            return None if value is None else int(value)

    def close(self) -> None:
        """Close files and connections."""
        self._backing.marks.close()
        self._backing.engine.dispose()

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _candidates(
        self, connection: Connection, accounts: Sequence[str], limit: int, now_us: int
    ) -> list[sa.Row[Any]]:
        wanted = limit * _LOOK_AHEAD if self._backing.is_shared else limit
        rows: list[sa.Row[Any]] = []
        for start in range(0, len(accounts), _ACCOUNTS_AT_ONCE):
            part = accounts[start : start + _ACCOUNTS_AT_ONCE]
            values = {f"a{index}": account for index, account in enumerate(part)}
            rows += connection.execute(_oldest_held(len(part)), {**values, "now": now_us, "limit": wanted})
        rows.sort(key=lambda row: row.id)
        if not self._backing.is_shared or not rows:
            return rows[:limit]
        locked = set(connection.execute(_LOCK, {"ids": [row.id for row in rows], "limit": limit}).scalars())
        return [row for row in rows if row.id in locked]

    def _updates(self, outcomes: Sequence[Outcome], now_us: int) -> Iterator[dict[str, object]]:
        """One statement for all that end alike: most of a batch does."""
        alike: dict[tuple[State, str | None], list[int]] = {}
        for outcome in outcomes:
            alike.setdefault((outcome.state, outcome.reason), []).append(outcome.id)
        for (state, reason), ids in alike.items():
            expires = None if state in WAITING else now_us + self._retention_us
            yield {"ids": ids, "state": state.value, "reason": reason, "expires": expires}


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE))


_RECONSIDER = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', reason = NULL, changed_us = :now, expires_us = NULL"
    " WHERE id IN :ids AND state = 'QUARANTINED' AND account IS NOT NULL"
).bindparams(sa.bindparam("ids", expanding=True))

_WAITING = sa.text(
    "SELECT id, account, state, reason, accepted_us FROM kim_delivery"
    " WHERE state IN :states AND account IS NOT NULL ORDER BY id LIMIT :limit"
).bindparams(sa.bindparam("states", expanding=True))


@lru_cache(maxsize=64)
def _oldest_held(accounts: int) -> sa.TextClause:
    """One ordered index range per account, merged: nothing is sorted, however long the backlog is."""
    parts = [
        "SELECT id, account, length, size, accepted_us FROM kim_delivery"  # noqa: S608  only numbers are put in
        f" WHERE account = :a{index} AND state = 'HELD' AND not_before_us <= :now"
        for index in range(accounts)
    ]
    return sa.text(" UNION ALL ".join(parts) + " ORDER BY id LIMIT :limit")


def _claimed(row: sa.Row[Any], content: Content) -> Claimed:
    id, account = row.id, row.account
    position = position_of(id)
    if isinstance(content, DamagedRecordError):
        accepted_at = from_us(row.accepted_us)
        return Claimed(id, position, account, None, "", b"", accepted_at, None, damage=str(content))
    envelope, data = content
    return Claimed(
        id=id,
        position=position,
        account=account,
        recipient=envelope.recipients[recipient_index(id)],
        message_id=envelope.message_id,
        digest=envelope.digest,
        accepted_at=envelope.accepted_at,
        mail=opened(envelope, data),
    )


def open_leases(url: str, spool: Path, retention: timedelta = timedelta(days=90)) -> Leases:
    """For the `eau` role. url: of the `kim` database. spool: directory of the segments (unused with PostgreSQL).

    Raises DatabaseUnavailableError.
    """
    engine = open_database(url, MIGRATIONS)
    if engine.dialect.name == "postgresql":
        return Leases(Backing(engine, RowBodies(engine), NoMarks()), retention)
    disk = OsDisk()
    return Leases(Backing(engine, SegmentReader(disk, spool), MarkFiles(disk, spool / MARKS)), retention)
