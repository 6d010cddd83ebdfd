"""How a worker takes mail out of mailboxes: under a lease that runs out (HELD -> RELEASING -> …).

Whoever takes, finishes or confirms says under which epoch of the switch he began, and is refused in the same
transaction if that has passed (SW-06). Putting back makes things more held, so it is always allowed (SW-01).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from schleuse.kim.store import rates
from schleuse.kim.store.admission import Open, Range, held_for, mix, open_ranges
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import Content, RowBodies, as_many_as_fit
from schleuse.kim.store.delivery import (
    SHARE_SQL,
    Claimed,
    Claims,
    Finished,
    Outcome,
    Take,
    Under,
    Waiting,
    position_of,
    recipient_index,
)
from schleuse.kim.store.holds import Holds, HoldWindow, followed, minded_windows
from schleuse.kim.store.marks import MARKS, Mark, MarkFiles, NoMarks
from schleuse.kim.store.progress import ReleaseView
from schleuse.kim.store.suspicions import UNSUSPECTED_SQL, Suspected, Suspicions, keep_aside, marks_aside, read_active
from schleuse.kim.store.unopened import Unopened
from schleuse.mail.spool import DamagedRecordError, OsDisk, SegmentReader
from schleuse.mail.spool.envelope import opened
from schleuse.scopes import Scope
from schleuse.switch import fence

MIGRATIONS = "schleuse.kim.migrations"

#: SQLite takes at most 500 parts in one compound SELECT.
_RANGES_AT_ONCE = 400

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
    " epoch = :epoch, lease_owner = NULL, lease_until_us = NULL"
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
        self.holds = Holds(backing)
        self.release_view = ReleaseView(backing)
        self.unopened = Unopened(backing)
        self.suspicions = Suspicions(backing)

    def claim(self, takes: Sequence[Take], limit: int, owner: str, now: datetime, lease: timedelta) -> Claims:
        """Waiting deliveries of these mailboxes, at most `limit`, in acceptance order: HELD -> RELEASING.

        Live traffic goes before backlog (`admission.mix`). Leases that ran out before `now` go back to HELD first.
        Nothing of a mailbox whose windows do not follow the switch up to the epoch of its take: between that and the
        epoch before it may have been held (HD-25).
        """
        by_account = {take.account: take for take in takes}
        with self._backing.writing() as connection:
            connection.execute(_EXPIRED, {"now": to_us(now)})
            allowance = _Allowance(connection, takes, now)
            windows = minded_windows(connection, by_account)
            known = followed(connection, [take.account for take in takes if take.under is not None])
            open_now = open_ranges(
                [take for take in takes if allowance.has(take.account) and _is_known(take, known)], windows
            )
            rows = self._candidates(connection, open_now, limit, to_us(now), by_account)
            is_short = len(rows) < limit
            stale = _stale(connection, [by_account[row.account].under for row in rows])
            rows = allowance.use([row for row in rows if not _is_of(by_account[row.account].under, stale)])
            suspected = read_active(connection, {row.account for row in rows})
            rows = self._unsuspected(connection, as_many_as_fit(rows), suspected, now)
            allowance.write(rows)
            if rows:
                values = {"ids": [row.id for row in rows], "owner": owner, "until": to_us(now + lease)}
                connection.execute(_TAKE, values)
        if is_short and open_now.released:
            self.holds.note_drained(open_now.released, now)
        found, aside = self._opened(rows, by_account, windows, owner, now), frozenset[int]()
        for one in (one for one in suspected if one.senders):
            aside |= self._keep_aside(found, one, owner, now)
        return Claims([mail for mail in found if mail.id not in aside], stale)

    def _unsuspected(
        self, connection: Connection, rows: Sequence[sa.Row[Any]], suspected: Sequence[Suspected], now: datetime
    ) -> list[sa.Row[Any]]:
        """Without those whose time of acceptance alone is suspected (HD-47); they are QUARANTINED now."""
        aside: set[int] = set()
        for one in (one for one in suspected if not one.senders):
            matching = [row.id for row in rows if row.id not in aside and one.covers(row.account, row.accepted_us)]
            if matching:
                kept = keep_aside(connection, matching, one, now)
                self._backing.marks.write(marks_aside(kept, one, now))
                aside.update(kept)
        return [row for row in rows if row.id not in aside]

    def _keep_aside(self, mails: Sequence[Claimed], one: Suspected, owner: str, now: datetime) -> frozenset[int]:
        """Who sent it is known now that its envelope is read; it is still sealed, and the worker does not get it."""
        matching = [
            mail.id
            for mail in mails
            if mail.mail is not None
            and one.covers(mail.account, to_us(mail.accepted_at))
            and mail.mail.sender.lower() in one.senders
        ]
        if not matching:
            return frozenset()
        with self._backing.writing() as connection:
            kept = keep_aside(connection, matching, one, now, owner)
            self._backing.marks.write(marks_aside(kept, one, now))
        return frozenset(kept)

    def _opened(
        self,
        rows: Sequence[sa.Row[Any]],
        takes: Mapping[str, Take],
        windows: Mapping[str, Sequence[HoldWindow]],
        owner: str,
        now: datetime,
    ) -> list[Claimed]:
        if not rows:
            return []
        try:
            contents = self._backing.contents.read([(position_of(row.id), row.length) for row in rows])
        except UnavailableError:
            self.put_back([row.id for row in rows], owner, now)
            raise
        return [
            _claimed(row, content, takes[row.account].under, windows.get(row.account, ()), now)
            for row, content in zip(rows, contents, strict=True)
        ]

    def finish(self, outcomes: Sequence[Outcome], owner: str, now: datetime) -> Finished:
        """RELEASING -> the outcome's state, for the deliveries that `owner` still has and whose epoch still stands.

        Call it when the effect is durable on your side. What is not finished is untouched. Raises IllegalMoveError.
        """
        if not outcomes:
            return Finished()
        for outcome in outcomes:
            require_move(State.RELEASING, outcome.state)
        now_us = to_us(now)
        # The mark first: the effect is there, so a rebuilt index must not hand the mail out again.
        self._backing.marks.write([Mark(one.id, now_us, one.state, one.reason) for one in outcomes])
        ids = [one.id for one in outcomes]
        with self._backing.writing() as connection:
            ours = set(connection.execute(_OURS, {"ids": ids, "owner": owner}).scalars())
            scopes = _stale(connection, [one.under for one in outcomes])
            stale = frozenset(one.id for one in outcomes if one.id in ours and _is_of(one.under, scopes))
            done = [one for one in outcomes if one.id in ours and one.id not in stale]
            for values in self._updates(done, now_us):
                connection.execute(_FINISH, {**values, "owner": owner, "now": now_us})
        return Finished(frozenset(ids) - ours, stale)

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

    def confirm(self, ids: Sequence[int], now: datetime, under: Under | None = None) -> int:
        """DELIVERED -> CONFIRMED; others are untouched. Returns how many moved. Raises StaleEpochError.

        under: the delivering atom of the insurer, and the epoch in which its system acknowledged.
        """
        if not ids:
            return 0
        if under is not None:  # before the marks: what is refused must leave none
            with self._backing.reading() as connection:
                fence.require(connection, under.scope, under.epoch)
        self._backing.marks.write([Mark(id, to_us(now), State.CONFIRMED) for id in ids])
        with self._backing.writing() as connection:
            if under is not None:
                fence.require(connection, under.scope, under.epoch)
            return sum(connection.execute(_CONFIRM, {"ids": part}).rowcount for part in _parts(ids))

    def unfinished(self, ids: Sequence[int]) -> int:
        """How many of these are HELD or RELEASING: a worker that died between its effect and `finish` comes again."""
        with self._backing.reading() as connection:
            return sum(connection.execute(_UNFINISHED, {"ids": part}).scalar_one() for part in _parts(ids))

    def reconsider(self, ids: Sequence[int], now: datetime) -> int:
        """QUARANTINED -> HELD, by the decision of people. Returns how many moved.

        Not what is suspected: that needs two persons (`Suspicions.give_back`).
        """
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
        self, connection: Connection, open_now: Open, limit: int, now_us: int, takes: Mapping[str, Take]
    ) -> list[sa.Row[Any]]:
        live = self._oldest(connection, open_now.live, limit, now_us)
        backlog = self._oldest(connection, open_now.backlog, limit, now_us)
        return mix(live, backlog, limit, {account: take.backlog_permille for account, take in takes.items()})

    def _oldest(self, connection: Connection, ranges: Sequence[Range], limit: int, now_us: int) -> list[sa.Row[Any]]:
        """The oldest that no other worker has locked."""
        wanted = limit * _LOOK_AHEAD if self._backing.is_shared else limit
        rows: list[sa.Row[Any]] = []
        for shared in (False, True):
            chosen = [one for one in ranges if (one.permille is not None) is shared]
            for start in range(0, len(chosen), _RANGES_AT_ONCE):
                part = chosen[start : start + _RANGES_AT_ONCE]
                values = {name: value for index, one in enumerate(part) for name, value in _values(index, one)}
                rows += connection.execute(_oldest_held(len(part), shared), {**values, "now": now_us, "limit": wanted})
        rows.sort(key=lambda row: row.id)
        if not self._backing.is_shared or not rows:
            return rows[:limit]
        locked = set(connection.execute(_LOCK, {"ids": [row.id for row in rows], "limit": limit}).scalars())
        return [row for row in rows if row.id in locked]

    def _updates(self, outcomes: Sequence[Outcome], now_us: int) -> Iterator[dict[str, object]]:
        """One statement for all that end alike: most of a batch does."""
        alike: dict[tuple[State, str | None, int | None], list[int]] = {}
        for outcome in outcomes:
            epoch = None if outcome.under is None else outcome.under.epoch
            alike.setdefault((outcome.state, outcome.reason, epoch), []).append(outcome.id)
        for (state, reason, epoch), ids in alike.items():
            expires = None if state in WAITING else now_us + self._retention_us
            yield {"ids": ids, "state": state.value, "reason": reason, "expires": expires, "epoch": epoch}


class _Allowance:
    """What scopes that are limited by the hour may still take, counted by all workers in the transaction of a claim."""

    def __init__(self, connection: Connection, takes: Sequence[Take], now: datetime) -> None:
        self._connection = connection
        self._hour = rates.hour_of(now)
        self._names = {take.account: _quota_name(take) for take in takes if take.per_hour is not None}
        self._left: dict[str, int] = {}
        for take in sorted(takes, key=lambda one: one.account):  # one order: no deadlock
            if take.per_hour is not None:
                name = self._names[take.account]
                self._left[name] = rates.left(connection, name, self._hour, take.per_hour)

    def has(self, account: str) -> bool:
        """Whether anything of it may be taken."""
        return account not in self._names or self._left[self._names[account]] > 0

    def use(self, rows: Sequence[sa.Row[Any]]) -> list[sa.Row[Any]]:
        """Those that may be taken, oldest first."""
        used: Counter[str] = Counter()
        taken: list[sa.Row[Any]] = []
        for row in rows:
            name = self._names.get(row.account)
            if name is None or used[name] < self._left[name]:
                taken.append(row)
            if name is not None:
                used[name] += 1
        return taken

    def write(self, rows: Sequence[sa.Row[Any]]) -> None:
        """These are taken."""
        used = Counter(self._names[row.account] for row in rows if row.account in self._names)
        for name, count in sorted(used.items()):
            rates.count(self._connection, name, self._hour, count)
        if used:
            rates.forget(self._connection, self._hour)


def _quota_name(take: Take) -> str:
    return take.account if take.under is None else str(take.under.scope)


def _stale(connection: Connection, of: Collection[Under | None]) -> frozenset[Scope]:
    return fence.stale(connection, {under.scope: under.epoch for under in of if under is not None})


def _is_known(take: Take, followed: Mapping[str, int]) -> bool:
    return take.under is None or take.under.epoch <= followed.get(take.account, 0)


def _is_of(under: Under | None, scopes: Collection[Scope]) -> bool:
    return under is not None and under.scope in scopes


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE))


_RECONSIDER = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', reason = NULL, changed_us = :now, expires_us = NULL"  # noqa: S608
    " WHERE id IN :ids AND state = 'QUARANTINED' AND account IS NOT NULL"
    f" AND {UNSUSPECTED_SQL}"
).bindparams(sa.bindparam("ids", expanding=True))

_WAITING = sa.text(
    "SELECT id, account, state, reason, accepted_us FROM kim_delivery"
    " WHERE state IN :states AND account IS NOT NULL ORDER BY id LIMIT :limit"
).bindparams(sa.bindparam("states", expanding=True))


@lru_cache(maxsize=64)
def _oldest_held(ranges: int, shared: bool) -> sa.TextClause:
    """One ordered index range each, merged: nothing is sorted, however long the backlog is.

    shared: with the share of a LIMITED scope, so that those that are not chosen are walked over.
    """
    parts = [
        "SELECT id, account, length, size, accepted_us FROM kim_delivery"  # noqa: S608  only numbers are put in
        f" WHERE account = :a{index} AND state = 'HELD' AND not_before_us <= :now"
        f" AND id > :v{index} AND id <= :u{index}" + (f" AND {SHARE_SQL} < :p{index}" if shared else "")
        for index in range(ranges)
    ]
    return sa.text(" UNION ALL ".join(parts) + " ORDER BY id LIMIT :limit")


def _values(index: int, one: Range) -> Iterator[tuple[str, object]]:
    yield f"a{index}", one.account
    yield f"v{index}", one.above
    yield f"u{index}", one.upto
    if one.permille is not None:
        yield f"p{index}", one.permille


def _claimed(
    row: sa.Row[Any], content: Content, under: Under | None, windows: Sequence[HoldWindow], now: datetime
) -> Claimed:
    id, account = row.id, row.account
    position = position_of(id)
    if isinstance(content, DamagedRecordError):
        accepted_at = from_us(row.accepted_us)
        return Claimed(id, position, account, None, "", b"", accepted_at, None, str(content), under)
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
        under=under,
        held_for=held_for(id, envelope.accepted_at, windows, now) if windows else timedelta(0),
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
