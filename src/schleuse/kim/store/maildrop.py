"""Mailboxes for POP3 sessions: one session at a time has one (RFC 1939 § 4), and no lock outlives its process."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from schleuse.clock import Now, to_us
from schleuse.database import translate
from schleuse.errors import UnavailableError
from schleuse.holding.states import State
from schleuse.kim.store import rates
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.delivery import MaildropLockedError, Under, position_of, share_of
from schleuse.kim.store.marks import Mark
from schleuse.kim.store.suspicions import Suspicions
from schleuse.mail.spool import DamagedRecordError
from schleuse.switch import fence
from schleuse.switch.documents import Limit

_ENTRIES = sa.text("SELECT id, length, size FROM kim_delivery WHERE account = :account AND state = 'HELD' ORDER BY id")
_ASIDE = sa.text("SELECT 1 FROM kim_delivery WHERE id = :id AND state = 'QUARANTINED'")
#: The retention clock ends at once: its owner has deleted it. No worker finished it, whoever had it before (SW-06).
_DELETE = sa.text(
    "UPDATE kim_delivery SET state = 'DELIVERED', reason = :reason, changed_us = :now, expires_us = :now, epoch = NULL"
    " WHERE id IN :ids AND account = :account AND state = 'HELD'"
).bindparams(sa.bindparam("ids", expanding=True))

#: Reason of what its owner took and deleted: it was opened by no worker, so nobody here knows what it was (HD-09).
#: Also in the SQL of `unopened` and in the index of it.
FETCHED = "fetched"

#: SQLite binds at most 32,766 values in one statement.
_AT_ONCE = 10_000


class MessageTakenError(UnavailableError):
    """A message of the mailbox is worked on or was kept aside; nothing was deleted, the owner tries again later."""

    code = "kim.message-taken"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as POP3 lists it."""

    id: int
    uidl: str
    size: int


def uidl(delivery: int) -> str:
    """Derived from the delivery's id alone, so it is the same for ever, also after the index was rebuilt."""
    digest = hashlib.sha256(b"schleuse uidl %d" % delivery).digest()
    return base64.b32encode(digest[:15]).decode("ascii").lower()


class Lock(Protocol):
    """One mailbox, locked."""

    def check(self) -> None:
        """Raises UnavailableError when the lock was lost."""
        ...

    def release(self) -> None: ...


class Locks(Protocol):
    """Locks mailboxes."""

    def take(self, account: str) -> Lock:
        """Raises MaildropLockedError, UnavailableError."""
        ...

    def close(self) -> None:
        """Give back what is still taken."""
        ...


class Mailbox:
    """Satisfies `contracts.Maildrop`. Its owner gets nothing that is suspected, like a worker (HD-47).

    limit: of a LIMITED scope. Listed are only deliveries in its share, and no more than are left of its rate in this
    hour of the clock; these count from then on, and those that were not fetched no more when the session ends.
    """

    def __init__(
        self,
        backing: Backing,
        account: str,
        lock: Lock,
        now: Now,
        under: Under | None = None,
        limit: Limit | None = None,
    ) -> None:
        self._backing = backing
        self._account = account
        self._lock = lock
        self._now = now
        self._rated: tuple[str, int] | None = None
        try:
            rows = self._held()
            # What arrives from now on was not looked at, so it is listed in the next session.
            if Suspicions(backing).sweep_all(account, now()):
                left = {row.id for row in self._held()}
                rows = [row for row in rows if row.id in left]
            if limit is not None:
                rows = self._let_out(rows, limit, under)
        except BaseException:
            lock.release()
            raise
        self._entries = [Entry(row.id, uidl(row.id), row.size) for row in rows]
        self._lengths = {row.id: row.length for row in rows}
        self._unfetched = {*self._lengths}

    def _let_out(self, rows: Sequence[sa.Row[Any]], limit: Limit, under: Under | None) -> Sequence[sa.Row[Any]]:
        if limit.permille is not None:
            rows = [row for row in rows if share_of(row.id) < limit.permille]
        if limit.per_hour is None or under is None:
            return rows
        scope, hour = str(under.scope), rates.hour_of(self._now())
        with self._backing.writing() as connection:
            fence.require(connection, under.scope, under.epoch)
            rows = rows[: rates.left(connection, scope, hour, limit.per_hour)]
            rates.count(connection, scope, hour, len(rows))
            rates.forget(connection, hour)
        self._rated = scope, hour
        return rows

    def _held(self) -> Sequence[sa.Row[Any]]:
        with self._backing.reading() as connection:
            return connection.execute(_ENTRIES, {"account": self._account}).all()

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def content(self, id: int) -> bytes:
        """Raises MessageTakenError when it was kept aside since the session began."""
        with self._backing.reading() as connection:
            if connection.execute(_ASIDE, {"id": id}).first() is not None:
                raise MessageTakenError("the message was kept aside for people to look at")
        (content,) = self._backing.contents.read([(position_of(id), self._lengths[id])])
        if isinstance(content, DamagedRecordError):
            raise content
        self._unfetched.discard(id)
        return content[1]

    def delete(self, ids: Sequence[int], under: Under | None = None) -> None:
        """HELD -> DELIVERED. Raises MessageTakenError when a worker has one of them under a lease, StaleEpochError when
        the scope was switched since `under` (SW-06)."""
        if not ids:
            return
        self._lock.check()
        now_us = to_us(self._now())
        with self._backing.writing() as connection:
            if under is not None:
                fence.require(connection, under.scope, under.epoch)
            self._delete_in(connection, sorted(set(ids)), now_us)
        # The mark after: what was not committed is not deleted, and must come back in a rebuild.
        self._backing.marks.write_later([Mark(id, now_us, State.DELIVERED, FETCHED) for id in ids])

    def close(self) -> None:
        try:
            # Where the store cannot serve they go on counting, which lets nothing out.
            with contextlib.suppress(UnavailableError):
                self._give_back()
        finally:
            self._lock.release()

    def _give_back(self) -> None:
        if self._rated is not None and self._unfetched:
            with self._backing.writing() as connection:
                rates.count(connection, *self._rated, -len(self._unfetched))

    def _delete_in(self, connection: Connection, ids: list[int], now_us: int) -> None:
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            values = {"ids": part, "account": self._account, "now": now_us, "reason": FETCHED}
            if connection.execute(_DELETE, values).rowcount != len(part):
                raise MessageTakenError("a message is being worked on; none was deleted, try again later")


class ProcessLocks:
    """Embedded: only this process serves mailboxes, so the lock is a set in memory and dies with it."""

    def __init__(self) -> None:
        self._guarded = threading.Lock()
        self._taken: set[str] = set()

    def take(self, account: str) -> Lock:
        with self._guarded:
            if account in self._taken:
                raise MaildropLockedError("another session has this mailbox")
            self._taken.add(account)
        return _ProcessLock(self, account)

    def close(self) -> None:
        self._taken.clear()

    def give_back(self, account: str) -> None:
        with self._guarded:
            self._taken.discard(account)


class _ProcessLock:
    def __init__(self, locks: ProcessLocks, account: str) -> None:
        self._locks = locks
        self._account: str | None = account

    def check(self) -> None:
        pass

    def release(self) -> None:
        if self._account is not None:
            self._locks.give_back(self._account)
            self._account = None


class PostgresLocks:
    """Several hosts: an advisory lock of a connection of its own, which the server frees when the connection ends."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self._taken: set[_PostgresLock] = set()

    def take(self, account: str) -> Lock:
        digest = hashlib.sha256(b"schleuse maildrop " + account.encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        try:
            connection = self._engine.connect()
            taken = connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (key,)).scalar_one()
        except SQLAlchemyError as cause:
            raise translate(cause) from cause
        if not taken:
            connection.close()
            raise MaildropLockedError("another session has this mailbox")
        lock = _PostgresLock(connection, self._taken.discard)
        self._taken.add(lock)
        return lock

    def close(self) -> None:
        for lock in list(self._taken):
            lock.release()


class _PostgresLock:
    def __init__(self, connection: Connection, released: Callable[[_PostgresLock], None]) -> None:
        self._connection = connection
        self._released = released

    def check(self) -> None:
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError as cause:
            raise translate(cause) from cause

    def release(self) -> None:
        self._released(self)
        with contextlib.suppress(SQLAlchemyError):  # the server has gone, and its locks with it
            self._connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        self._connection.close()
