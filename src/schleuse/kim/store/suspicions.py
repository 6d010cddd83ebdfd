"""Suspected mail of mailboxes: kept aside whenever a worker would take it, and at once as far as it waits (HD-47).

A row says which mailbox, accepted between which moments, from whom. A claim asks for the rows of its mailboxes in its
own transaction, so a worker gets no mail that was suspected before; what it has already is opened, and is listed for
the insurer (`opened`). `sweep` keeps aside what waits now; it may die anywhere and be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.holding.states import State
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import as_many_as_fit
from schleuse.kim.store.delivery import Under, Waiting, position_of, recipient_index
from schleuse.kim.store.marks import Mark
from schleuse.kim.store.placement import OwedReport
from schleuse.kim.store.reports import owe
from schleuse.mail.contracts import Action
from schleuse.mail.dsn import wanted
from schleuse.mail.spool import DamagedRecordError
from schleuse.switch import fence

#: No bound on that side.
EVER = (1 << 63) - 1
#: Deliveries of one transaction of a sweep.
AT_ONCE = 500
#: "Delivery not authorized, message refused" (RFC 3463 § 3.8); the reason stands in the diagnostic.
RETURNED_STATUS = "5.7.1"


#: Before the id of the suspicion in the reason of what is kept aside for it.
SUSPECTED = "suspected: "
#: Condition on a delivery: it is not kept aside for a suspicion.
UNSUSPECTED_SQL = f"coalesce(reason, '') NOT LIKE '{SUSPECTED}%'"


def reason_of(id: str) -> str:
    """Of a delivery that is kept aside for this suspicion."""
    return SUSPECTED + id


def is_suspected(reason: str | None) -> bool:
    """Whether a delivery with this reason goes back by two persons only."""
    return (reason or "").startswith(SUSPECTED)


@dataclass(frozen=True, slots=True)
class Suspected:
    """One row. since_us <= accepted < until_us. senders: in small letters, empty for all."""

    id: str
    account: str
    since_us: int = 0
    until_us: int = EVER
    senders: frozenset[str] = frozenset()

    @property
    def reason(self) -> str:
        """See `reason_of`."""
        return reason_of(self.id)

    def covers(self, account: str, accepted_us: int) -> bool:
        """Without its sender."""
        return account == self.account and self.since_us <= accepted_us < self.until_us


class Suspicions:
    """Each method may be repeated. All raise UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def register(self, rows: Collection[Suspected]) -> None:
        """From now on no worker takes such mail. One that has ended stays ended."""
        values = [
            {
                "id": one.id,
                "account": one.account,
                "since": one.since_us,
                "until": one.until_us,
                "senders": json.dumps(sorted(one.senders)),
            }
            for one in rows
        ]
        if values:
            with self._backing.writing() as connection:
                connection.execute(_REGISTER, values)

    def active(self, accounts: Collection[str]) -> list[Suspected]:
        """Those that have not ended."""
        with self._backing.reading() as connection:
            return read_active(connection, accounts)

    def has_ended(self, id: str) -> bool:
        """By the order of two persons. False also of one without rows."""
        with self._backing.reading() as connection:
            rows = connection.execute(_ENDED, {"id": id}).scalars().all()
        return bool(rows) and None not in rows

    def sweep(self, id: str, accounts: Collection[str], now: datetime) -> int:
        """HELD -> QUARANTINED for all that waits and matches. Returns how many."""
        return self._sweep([one for one in self.active(accounts) if one.id == id], now)

    def sweep_all(self, account: str, now: datetime) -> int:
        """The same of one mailbox for all that have not ended, before its owner looks into it. Returns how many."""
        return self._sweep(self.active([account]), now)

    def _sweep(self, rows: Sequence[Suspected], now: datetime) -> int:
        return sum(len(self._keep(ids, one, now)) for one in rows for ids in self._matching(one))

    def _matching(self, one: Suspected) -> Iterator[list[int]]:
        after = 0
        while True:
            values = {
                "account": one.account,
                "after": after,
                "since": one.since_us,
                "until": one.until_us,
                "suspicion": one.id,
            }
            with self._backing.reading() as connection:
                rows = as_many_as_fit(connection.execute(_HELD, {**values, "limit": AT_ONCE}).all())
            if not rows:
                return
            after = rows[-1].id
            yield [row.id for row in rows] if not one.senders else self._from(rows, one)

    def _from(self, rows: Sequence[sa.Row[tuple[int, int, int]]], one: Suspected) -> list[int]:
        contents = self._backing.contents.read([(position_of(row.id), row.length) for row in rows])
        return [
            row.id
            for row, content in zip(rows, contents, strict=True)
            # Whose record is damaged is found out when it is taken, and kept aside for that.
            if not isinstance(content, DamagedRecordError) and content[0].sender.lower() in one.senders
        ]

    def _keep(self, ids: Sequence[int], one: Suspected, now: datetime) -> Sequence[int]:
        if not ids:
            return ids
        # The mark first: it makes things more held, so that a rebuild hands none of it out.
        self._backing.marks.write(marks_aside(ids, one, now))
        with self._backing.writing() as connection:
            kept = keep_aside(connection, ids, one, now)
        return kept

    def opened(self, id: str, limit: int = 100_000) -> list[Waiting]:
        """Deliveries that match and that a worker has opened, or has in its hands: for the insurer to judge.

        What became of each at this moment; by sender only while its record is there.
        """
        with self._backing.reading() as connection:
            rows = [_suspected(row) for row in connection.execute(_BY_ID, {"id": id})]
            found = [
                (one, row)
                for one in rows
                for row in connection.execute(
                    _OPENED, {"account": one.account, "since": one.since_us, "until": one.until_us, "limit": limit}
                )
            ]
        return [
            Waiting(row.id, one.account, State(row.state), row.reason, from_us(row.accepted_us))
            for one, row in found
            if not one.senders or self._from([row], one)
        ]

    def quarantined(self, id: str) -> list[Waiting]:
        """What is kept aside for it now."""
        with self._backing.reading() as connection:
            rows = connection.execute(_KEPT, {"reason": reason_of(id)}).all()
        return [Waiting(row.id, row.account, State.QUARANTINED, row.reason, from_us(row.accepted_us)) for row in rows]

    def give_back(self, id: str, ids: Collection[int], now: datetime) -> int:
        """QUARANTINED -> HELD, and not kept aside for it again, by the order of two persons. Returns how many."""
        moved = 0
        for part in _parts(sorted(ids)):
            with self._backing.writing() as connection:
                values = {"ids": part, "reason": reason_of(id), "now": to_us(now)}
                connection.execute(_CLEAR, [{"suspicion": id, "delivery": one} for one in part])
                moved += connection.execute(_GIVE_BACK, values).rowcount
            self._backing.marks.write_later([Mark(one, to_us(now), State.HELD) for one in part])
        return moved

    def clear(self, id: str, ids: Collection[int]) -> None:
        """They are not kept aside for it (again), by the order of two persons; also before it is registered."""
        for part in _parts(sorted(ids)):
            with self._backing.writing() as connection:
                connection.execute(_CLEAR, [{"suspicion": id, "delivery": one} for one in part])

    def end(self, id: str, now: datetime) -> None:
        """Nothing more is kept aside for it, by the order of two persons."""
        with self._backing.writing() as connection:
            connection.execute(_END, {"id": id, "now": to_us(now)})

    def return_(
        self, id: str, ids: Collection[int], reason: str, now: datetime, retention_us: int, under: Sequence[Under]
    ) -> int:
        """QUARANTINED -> RETURNED with a failure DSN that has the reason, by two persons. Returns how many.

        The same mail is a new try when its sender, who was told, sends it again: none of it was processed.

        under: the delivering atoms, and the epochs that were seen. Raises StaleEpochError (SW-06).
        """
        now_us, moved = to_us(now), 0
        told = {"reason": reason_of(id), "now": now_us, "why": reason, "expires": now_us + retention_us}
        for part in _parts(sorted(ids)):
            readable, reports = self._reports(id, part, reason, now_us)
            if not readable:
                continue
            with self._backing.writing() as connection:
                for one in under:
                    fence.require(connection, one.scope, one.epoch)
                returned = set(connection.execute(_RETURN, {**told, "ids": readable}).scalars())
                for report in reports:
                    if report.delivery in returned:
                        owe(connection, report)
            owed = {one.delivery: {one.action: (one.status, one.diagnostic, one.created_us)} for one in reports}
            marks = [
                Mark(one, now_us, State.RETURNED, reason, reports=owed.get(one, {}), may_come_again=True)
                for one in sorted(returned)
            ]
            self._backing.marks.write_later(marks)
            moved += len(returned)
        return moved

    def _reports(self, id: str, ids: Sequence[int], reason: str, now_us: int) -> tuple[list[int], list[OwedReport]]:
        """Those of which the record can be read, and the DSNs that they need; nobody could be told of the others."""
        with self._backing.reading() as connection:
            rows = connection.execute(_RETURNABLE, {"ids": ids, "reason": reason_of(id)}).all()
        readable, reports = list[int](), list[OwedReport]()
        for row in rows:  # one by one: a large mail need not meet others in memory
            (content,) = self._backing.contents.read([(position_of(row.id), row.length)])
            if isinstance(content, DamagedRecordError):
                continue
            readable.append(row.id)
            if wanted(Action.FAILED, content[0].recipients[recipient_index(row.id)], content[0].sender):
                reports.append(OwedReport(row.id, Action.FAILED, RETURNED_STATUS, reason, now_us))
        return readable, reports


def read_active(connection: Connection, accounts: Collection[str]) -> list[Suspected]:
    """Of these mailboxes, in the transaction of a claim."""
    if not accounts:
        return []
    return [_suspected(row) for row in connection.execute(_ACTIVE, {"accounts": list(accounts)})]


def keep_aside(
    connection: Connection, ids: Sequence[int], one: Suspected, now: datetime, owner: str | None = None
) -> list[int]:
    """HELD, or RELEASING of this owner, -> QUARANTINED, unless it ended since it was read. Returns which."""
    values = {
        "account": one.account,
        "ids": list(ids),
        "suspicion": one.id,
        "owner": owner or "",
        "reason": one.reason,
        "now": to_us(now),
    }
    return list(connection.execute(_KEEP, values).scalars())


def marks_aside(ids: Sequence[int], one: Suspected, now: datetime) -> list[Mark]:
    """What a rebuild has to know of `keep_aside`."""
    return [Mark(id, to_us(now), State.QUARANTINED, one.reason) for id in ids]


def _suspected(row: sa.Row[tuple[object, ...]]) -> Suspected:
    value = row._mapping
    return Suspected(
        value["id"], value["account"], value["since_us"], value["until_us"], frozenset(json.loads(value["senders"]))
    )


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))


def _many(text: str, *names: str) -> sa.TextClause:
    return sa.text(text).bindparams(*(sa.bindparam(name, expanding=True) for name in names))


_REGISTER = sa.text(
    "INSERT INTO kim_suspicion (id, account, since_us, until_us, senders)"
    " VALUES (:id, :account, :since, :until, :senders) ON CONFLICT (id, account) DO NOTHING"
)
_COLUMNS = "SELECT id, account, since_us, until_us, senders FROM kim_suspicion"
_ACTIVE = _many(f"{_COLUMNS} WHERE ended_us IS NULL AND account IN :accounts ORDER BY id, account", "accounts")
_BY_ID = sa.text(f"{_COLUMNS} WHERE id = :id ORDER BY account")
_ENDED = sa.text("SELECT ended_us FROM kim_suspicion WHERE id = :id")
_END = sa.text("UPDATE kim_suspicion SET ended_us = :now WHERE id = :id AND ended_us IS NULL")
_CLEAR = sa.text("INSERT INTO kim_cleared (suspicion, delivery) VALUES (:suspicion, :delivery) ON CONFLICT DO NOTHING")
_NOT_CLEARED = (
    "NOT EXISTS (SELECT 1 FROM kim_cleared AS c WHERE c.delivery = kim_delivery.id AND c.suspicion = :suspicion)"
)
_HELD = sa.text(
    "SELECT id, length, size FROM kim_delivery WHERE account = :account AND state = 'HELD' AND id > :after"  # noqa: S608
    f" AND accepted_us >= :since AND accepted_us < :until AND {_NOT_CLEARED} ORDER BY id LIMIT :limit"
)
_KEEP = _many(
    "UPDATE kim_delivery SET state = 'QUARANTINED', reason = :reason, changed_us = :now, expires_us = NULL,"  # noqa: S608
    " epoch = NULL, lease_owner = NULL, lease_until_us = NULL WHERE id IN :ids"
    f" AND (state = 'HELD' OR (state = 'RELEASING' AND lease_owner = :owner)) AND {_NOT_CLEARED}"
    " AND EXISTS (SELECT 1 FROM kim_suspicion WHERE id = :suspicion AND account = :account AND ended_us IS NULL)"
    " RETURNING id",
    "ids",
)
_OPENED = sa.text(
    "SELECT id, length, size, state, reason, accepted_us FROM kim_delivery WHERE account = :account"  # noqa: S608
    " AND accepted_us >= :since AND accepted_us < :until"
    # Linked, or kept aside for another reason, by a worker that had opened it; whoever finishes says his epoch.
    " AND (state IN ('RELEASING', 'DELIVERED', 'CONFIRMED', 'RETURNED') OR (epoch IS NOT NULL AND"
    f" (state = 'DUPLICATE_LINKED' OR (state = 'QUARANTINED' AND {UNSUSPECTED_SQL}))))"
    " AND purged_us IS NULL ORDER BY id LIMIT :limit"
)
_KEPT = sa.text(
    "SELECT id, account, reason, accepted_us FROM kim_delivery WHERE state = 'QUARANTINED' AND account IS NOT NULL"
    " AND reason = :reason ORDER BY id"
)
_GIVE_BACK = _many(
    "UPDATE kim_delivery SET state = 'HELD', reason = NULL, changed_us = :now, not_before_us = 0, expires_us = NULL"
    " WHERE id IN :ids AND state = 'QUARANTINED' AND reason = :reason",
    "ids",
)
_RETURNABLE = _many(
    "SELECT id, length, size FROM kim_delivery WHERE id IN :ids AND state = 'QUARANTINED' AND reason = :reason"
    " ORDER BY id",
    "ids",
)
_RETURN = _many(
    "UPDATE kim_delivery SET state = 'RETURNED', reason = :why, changed_us = :now, expires_us = :expires, epoch = NULL,"
    " twin = NULL"
    " WHERE id IN :ids AND state = 'QUARANTINED' AND reason = :reason RETURNING id",
    "ids",
)
