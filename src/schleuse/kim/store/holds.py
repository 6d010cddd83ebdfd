"""Hold windows: when a mailbox was held by the switch, what of it is backlog, and how far that is released.

    begins      the process direction of the mailbox's insurer stops: nothing is claimed while the window is open
    ends        it starts again: what is HELD up to `to_id` is backlog, what comes later is live traffic
    released    two persons let the backlog go on, at once (`with_backlog`) or step by step (HD-40)

A window is a row, so a restart, an upgrade or a worker that comes late changes nothing of it (HD-25); whoever follows
the switch tells the changes since the epoch that the row of the mailbox names, each of them once, in one transaction
with the fence. An index that was lost has no windows: then all changes of the switch are told again, and what waits is
the backlog of the last one, so that nothing is released by a rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.tables import HOLD
from schleuse.scopes import Scope
from schleuse.switch import fence

#: `released_to` of a backlog that goes on as a whole.
ALL = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Began:
    """The mailbox is held from this epoch on. command: id of the switch's command; reason: hold reason class."""

    epoch: int
    command: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """It is taken from again. before: what a window is made of that nobody saw begin.

    at: when it was ordered; what was accepted later is live traffic, however late this is followed.
    """

    epoch: int
    before: Began
    at: datetime


@dataclass(frozen=True, slots=True)
class Released:
    """An opening with backlog: everything that was held before it goes on.

    own: only what the window held that this opening has ended, as after a drill: a drill releases no other backlog.
    """

    epoch: int
    own: bool = False


Change = Began | Ended | Released
#: (mailbox, epoch that its windows follow already, whether a window is open) -> what to do now, in order.
Changes = Callable[[str, int, bool], Sequence[Change]]


@dataclass(frozen=True, slots=True)
class HoldWindow:
    """One row. to_id, ended_at, ended_epoch: None while it lasts. from_id, to_id: the highest delivery of the mailbox
    that waited when it began and ended, 0 if none. released_to: up to which delivery its backlog may be taken."""

    account: str
    epoch: int
    command: str
    reason: str
    from_id: int
    began_at: datetime
    to_id: int | None
    ended_at: datetime | None
    ended_epoch: int | None
    released_to: int
    drained_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether the mailbox is held now."""
        return self.to_id is None

    @property
    def is_released(self) -> bool:
        """Whether all of its backlog may be taken."""
        return self.to_id is not None and self.released_to >= self.to_id


class Holds:
    """Each method is one transaction and may be repeated. All raise UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def head(self) -> int:
        """The highest epoch that this database has seen: the floor of each copy of the switch."""
        with self._backing.reading() as connection:
            return fence.head(connection)

    def follow(
        self, epochs: Mapping[Scope, int], head: int, accounts: Collection[str], changes: Changes, now: datetime
    ) -> None:
        """Raise the fences, and bring the windows of these mailboxes up to the epoch `head`.

        Whoever comes later, or with an older epoch, changes nothing.
        """
        with self._backing.writing() as connection:
            fence.raise_to(connection, epochs, head)
            for account in sorted(accounts):  # one order: no deadlock
                after = _lock(connection, account)
                if after > head:
                    continue
                for change in changes(account, after, _is_held(connection, account)):
                    _apply(connection, account, change, now)
                connection.execute(_FOLLOW, {"account": account, "epoch": head})

    def begin(self, account: str, epoch: int, command: str, reason: str, now: datetime) -> None:
        """Open a window, unless one is open."""
        with self._backing.writing() as connection:
            _lock(connection, account)
            _apply(connection, account, Began(epoch, command, reason, now), now)

    def end(self, account: str, epoch: int, now: datetime) -> int | None:
        """Close the window that is open. Returns up to which delivery is backlog; None if none was open."""
        with self._backing.writing() as connection:
            _lock(connection, account)
            if not _is_held(connection, account):
                return None
            _apply(connection, account, Ended(epoch, Began(epoch, "", "", now), now), now)
            return int(connection.execute(_LAST_END, {"account": account}).scalar_one())

    def windows(self, accounts: Collection[str] | None = None) -> list[HoldWindow]:
        """All windows by mailbox, oldest first. accounts: None for all."""
        query = sa.select(HOLD).order_by(HOLD.c.account, HOLD.c.epoch)
        if accounts is not None:
            query = query.where(HOLD.c.account.in_(list(accounts)))
        with self._backing.reading() as connection:
            return [_window(row) for row in connection.execute(query)]

    def backlog(self, account: str, limit: int = 100_000, after: int = 0) -> list[int]:
        """Deliveries that are HELD in windows that have ended, not yet released, in acceptance order."""
        found: list[int] = []
        with self._backing.reading() as connection:
            for part in spans(_ended(connection, account)):
                values = {
                    "account": account,
                    "above": max(part.released, after),
                    "upto": part.end,
                    "limit": limit - len(found),
                }
                found += connection.execute(_HELD_IN, values).scalars()
        return found

    def note_drained(self, windows: Sequence[HoldWindow], now: datetime) -> None:
        """Released windows in which nothing waits any more need not be minded again."""
        with self._backing.writing() as connection:
            for window in sorted(windows, key=lambda one: (one.account, one.epoch)):  # one order: no deadlock
                values = {"account": window.account, "epoch": window.epoch, "to": window.to_id, "now": to_us(now)}
                connection.execute(_DRAINED, values)

    def release_to(self, account: str, id: int) -> int:
        """Let the backlog up to this delivery be taken; never takes back. Returns how many of it wait to be taken."""
        with self._backing.writing() as connection:
            _lock(connection, account)
            _change(connection, _RELEASE, {"account": account, "id": id})
            return _released_waiting(connection, account)

    def release(self, upto: Mapping[str, int]) -> None:
        """`release_to` for several mailboxes, in one transaction; what is released so far already writes nothing."""
        with self._backing.reading() as connection:
            windows = _ended_of(connection, upto)
        behind = [
            account for account, ended in windows.items() if any(one.released_to < upto[account] for one in ended)
        ]
        if not behind:
            return
        with self._backing.writing() as connection:
            for account in sorted(behind):
                _lock(connection, account)
                _change(connection, _RELEASE, {"account": account, "id": upto[account]})

    def take_back(self, account: str) -> int:
        """Release nothing more: what no worker has taken yet stays HELD (HD-42). Returns how many were stopped."""
        return self.take_back_all([account])

    def take_back_all(self, accounts: Collection[str]) -> int:
        """`take_back` for several mailboxes, in one transaction; writes nothing where nothing that was let go waits."""
        with self._backing.writing() as connection:
            return sum(
                _take_back(connection, account)
                for account, ended in sorted(_ended_of(connection, accounts).items())
                if _lets_something_go(connection, account, ended)
            )


@dataclass(frozen=True, slots=True)
class Span:
    """The deliveries of a window that are no earlier one's: above < id <= end; up to `released` they may be taken."""

    window: HoldWindow
    above: int
    released: int
    end: int


def spans(windows: Sequence[HoldWindow]) -> list[Span]:
    """What belongs to each of the windows of one mailbox that have ended, in order of deliveries."""
    found: list[Span] = []
    above = 0
    for window in sorted(windows, key=lambda one: (one.to_id or 0, one.epoch)):
        if window.to_id is None:
            continue
        end = max(above, window.to_id)
        found.append(Span(window, above, min(max(above, window.released_to), end), end))
        above = end
    return found


def minded_windows(connection: Connection, accounts: Collection[str]) -> dict[str, list[HoldWindow]]:
    """The windows that a claim must mind, oldest first, by mailbox.

    With PostgreSQL nobody may change them until the transaction ends (see `reach_late_ones`).
    """
    query = _MINDED_SHARED if connection.dialect.name == "postgresql" else _MINDED
    found: dict[str, list[HoldWindow]] = {}
    if not accounts:
        return found
    for row in connection.execute(query, {"accounts": list(accounts)}):
        found.setdefault(row.account, []).append(_window(row))
    return found


def followed(connection: Connection, accounts: Collection[str]) -> dict[str, int]:
    """Up to which epoch the windows of these mailboxes follow the switch; what is missing follows none of it."""
    if not accounts:
        return {}
    return {row.account: row.epoch for row in connection.execute(_FOLLOWED_MANY, {"accounts": list(accounts)})}


def reach_late_ones(connection: Connection, routed: Sequence[tuple[str, int, int]]) -> None:
    """Mail that was accepted while its mailbox was held and gets its delivery only now is backlog, too.

    routed: (mailbox, delivery, microseconds of acceptance) of new deliveries; in the transaction that makes them.
    """
    if not routed:
        return
    query = _ENDED_SINCE_SHARED if connection.dialect.name == "postgresql" else _ENDED_SINCE
    windows = connection.execute(query, {"accepted": min(accepted for _, _, accepted in routed)}).all()
    for window in windows:
        if window.ended_us is None:  # it will see them when it ends
            continue
        late = [id for account, id, accepted in routed if account == window.account and accepted <= window.ended_us]
        if late:
            connection.execute(_REACH, {"account": window.account, "epoch": window.epoch, "id": max(late)})


def _lock(connection: Connection, account: str) -> int:
    """Alone among those who change the windows of this mailbox. Returns the epoch that they follow."""
    connection.execute(_FOLLOW, {"account": account, "epoch": 0})
    return int(connection.execute(_FOLLOWED, {"account": account}).scalar_one())


def _apply(connection: Connection, account: str, change: Change, now: datetime) -> None:
    match change:
        case Began(epoch, command, reason, at):
            if not _is_held(connection, account):
                at_us = to_us(at) if at.year > 1 else to_us(now)  # an epoch that nobody can read has no time
                values = {"account": account, "epoch": epoch, "command": command, "reason": reason, "at": at_us}
                connection.execute(_BEGIN, values)
        case Ended(epoch, before, at):
            _apply(connection, account, before, now)
            connection.execute(_END, {"account": account, "epoch": epoch, "at": to_us(min(at, now))})
        case Released(epoch, own):
            values = {"account": account, "id": ALL}
            _change(connection, *((_RELEASE_OWN, {**values, "epoch": epoch}) if own else (_RELEASE, values)))


def _change(connection: Connection, statement: sa.TextClause, values: Mapping[str, object]) -> None:
    """An update of several windows of a mailbox. PostgreSQL would lock them in no order, and claims have theirs."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_ENDED, values)
    connection.execute(statement, values)


def _ended(connection: Connection, account: str) -> list[HoldWindow]:
    return [_window(row) for row in connection.execute(_ENDED, {"account": account})]


def _ended_of(connection: Connection, accounts: Collection[str]) -> dict[str, list[HoldWindow]]:
    found: dict[str, list[HoldWindow]] = {}
    for row in connection.execute(_ENDED_MANY, {"accounts": list(accounts)}) if accounts else ():
        found.setdefault(row.account, []).append(_window(row))
    return found


def _first_waiting(connection: Connection, account: str, ended: Sequence[HoldWindow]) -> int | None:
    """The lowest delivery that waits in these windows, or that a worker has and that may come back."""
    values = {"account": account, "ends": max((part.end for part in spans(ended)), default=0)}
    first = connection.execute(_FIRST_WAITING, values).scalar_one()
    return None if first is None else int(first)


def _lets_something_go(connection: Connection, account: str, ended: Sequence[HoldWindow]) -> bool:
    first = _first_waiting(connection, account, ended)
    return first is not None and any(one.released_to >= first for one in ended)


def _take_back(connection: Connection, account: str) -> int:
    _lock(connection, account)
    stopped = _released_waiting(connection, account)
    first = _first_waiting(connection, account, _ended(connection, account))
    if first is not None:
        _change(connection, _TAKE_BACK, {"account": account, "id": first - 1})
    return stopped


def _released_waiting(connection: Connection, account: str) -> int:
    ranges = [
        {"account": account, "above": part.above, "upto": part.released} for part in spans(_ended(connection, account))
    ]
    return sum(connection.execute(_COUNT_IN, values).scalar_one() for values in ranges)


def _is_held(connection: Connection, account: str) -> bool:
    """Whether a window is open, which nobody else may change now.

    With PostgreSQL a router that has looked at it commits its deliveries first, so that `_END` sees them.
    """
    query = _OPEN_LOCKED if connection.dialect.name == "postgresql" else _OPEN
    return connection.execute(query, {"account": account}).scalar_one_or_none() is not None


def _window(row: sa.Row[tuple[object, ...]]) -> HoldWindow:
    value = row._mapping
    return HoldWindow(
        value["account"],
        value["epoch"],
        value["command"],
        value["reason"],
        value["from_id"],
        from_us(value["began_us"]),
        value["to_id"],
        None if value["ended_us"] is None else from_us(value["ended_us"]),
        value["ended_epoch"],
        value["released_to"],
        None if value["drained_us"] is None else from_us(value["drained_us"]),
    )


#: Writes even where nothing changes: with PostgreSQL this locks the row.
_FOLLOW = sa.text(
    "INSERT INTO kim_followed (account, epoch) VALUES (:account, :epoch) ON CONFLICT (account) DO UPDATE"
    " SET epoch = CASE WHEN kim_followed.epoch < excluded.epoch THEN excluded.epoch ELSE kim_followed.epoch END"
)
_FOLLOWED = sa.text("SELECT epoch FROM kim_followed WHERE account = :account")
_FOLLOWED_MANY = sa.text("SELECT account, epoch FROM kim_followed WHERE account IN :accounts").bindparams(
    sa.bindparam("accounts", expanding=True)
)
_OPEN = sa.text("SELECT epoch FROM kim_hold WHERE account = :account AND ended_us IS NULL")
_OPEN_LOCKED = sa.text("SELECT epoch FROM kim_hold WHERE account = :account AND ended_us IS NULL FOR UPDATE")
_LOCK_ENDED = sa.text(
    "SELECT epoch FROM kim_hold WHERE account = :account AND drained_us IS NULL ORDER BY epoch FOR UPDATE"
)
_LAST_END = sa.text("SELECT max(to_id) FROM kim_hold WHERE account = :account")
#: The highest delivery of the mailbox that waits and was accepted by then; what a worker has may come back.
_WAITS_TO = (
    "coalesce((SELECT max(id) FROM kim_delivery WHERE account = :account AND state = 'HELD' AND accepted_us <= :at), 0)"
)
_IS_OUT_TO = (
    "coalesce((SELECT max(+id) FROM kim_delivery"
    " WHERE account = :account AND state = 'RELEASING' AND accepted_us <= :at), 0)"
)
_HIGHEST = f"(SELECT CASE WHEN waits > taken THEN waits ELSE taken END FROM (SELECT {_WAITS_TO} AS waits, {_IS_OUT_TO} AS taken) AS ends)"  # noqa: S608, E501
_BEGIN = sa.text(
    "INSERT INTO kim_hold (account, epoch, command, reason, from_id, began_us, released_to)"
    f" SELECT :account, :epoch, :command, :reason, {_HIGHEST}, :at, 0 ON CONFLICT (account, epoch) DO NOTHING"
)
_END = sa.text(
    f"UPDATE kim_hold SET to_id = {_HIGHEST}, ended_us = :at, ended_epoch = :epoch"  # noqa: S608
    " WHERE account = :account AND ended_us IS NULL"
)
#: What was held by the window that this epoch has ended, and nothing before it.
_RELEASE_OWN = sa.text(
    "UPDATE kim_hold SET released_to = :id"
    " WHERE account = :account AND ended_epoch = :epoch AND drained_us IS NULL AND released_to < :id"
)
_RELEASE = sa.text(
    "UPDATE kim_hold SET released_to = :id"
    " WHERE account = :account AND ended_us IS NOT NULL AND drained_us IS NULL AND released_to < :id"
)
#: What a worker has may come back, and stays then.
_FIRST_WAITING = sa.text(
    "SELECT min(id) FROM (SELECT min(id) AS id FROM kim_delivery"
    " WHERE account = :account AND state = 'HELD' AND id <= :ends"
    " UNION ALL SELECT min(+id) FROM kim_delivery WHERE account = :account AND state = 'RELEASING') AS waiting"
)
_TAKE_BACK = sa.text(
    "UPDATE kim_hold SET released_to = :id"
    " WHERE account = :account AND ended_us IS NOT NULL AND drained_us IS NULL AND released_to > :id"
)
_IN_SPAN = "FROM kim_delivery WHERE account = :account AND state = 'HELD' AND id > :above AND id <= :upto"
_HELD_IN = sa.text(f"SELECT id {_IN_SPAN} ORDER BY id LIMIT :limit")
_COUNT_IN = sa.text(f"SELECT count(*) {_IN_SPAN}")
_ENDED = sa.text(
    "SELECT * FROM kim_hold WHERE account = :account AND ended_us IS NOT NULL AND drained_us IS NULL ORDER BY epoch"
)
_MINDED_TEXT = "SELECT * FROM kim_hold WHERE account IN :accounts AND drained_us IS NULL ORDER BY account, epoch"
_MINDED = sa.text(_MINDED_TEXT).bindparams(sa.bindparam("accounts", expanding=True))
_MINDED_SHARED = sa.text(_MINDED_TEXT + " FOR SHARE").bindparams(sa.bindparam("accounts", expanding=True))
_ENDED_MANY = sa.text(
    "SELECT * FROM kim_hold WHERE account IN :accounts AND ended_us IS NOT NULL AND drained_us IS NULL"
    " ORDER BY account, epoch"
).bindparams(sa.bindparam("accounts", expanding=True))
_DRAINED = sa.text(
    "UPDATE kim_hold SET drained_us = :now WHERE account = :account AND epoch = :epoch AND drained_us IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM kim_delivery AS d"
    " WHERE d.account = :account AND d.state = 'HELD' AND d.id <= :to)"
)
_ENDED_SINCE_TEXT = (
    "SELECT account, epoch, ended_us FROM kim_hold"
    " WHERE (ended_us IS NULL OR ended_us >= :accepted) AND drained_us IS NULL ORDER BY account, epoch"
)
_ENDED_SINCE = sa.text(_ENDED_SINCE_TEXT)
_ENDED_SINCE_SHARED = sa.text(_ENDED_SINCE_TEXT + " FOR SHARE")
_REACH = sa.text("UPDATE kim_hold SET to_id = :id WHERE account = :account AND epoch = :epoch AND to_id < :id")
