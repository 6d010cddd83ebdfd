"""What a store is made of, and how it is opened: embedded (segments and SQLite), or PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from schleuse.database import open_database
from schleuse.errors import CorruptError
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import Bodies, RowBodies, SegmentBodies, read_cursor, write_cursor
from schleuse.kim.store.leases import MIGRATIONS
from schleuse.kim.store.maildrop import Locks, PostgresLocks, ProcessLocks
from schleuse.kim.store.marks import MARKS, MarkFiles, NoMarks
from schleuse.mail.spool import Disk, Spool
from schleuse.mail.spool.writer import default_reserve


class IndexMissingError(CorruptError):
    """Segments with mail beside an empty index; the operator restores the index or rebuilds it."""

    code = "kim.index-missing"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a store is.

    url: database (`sqlite:///…` embedded, `postgresql+psycopg://…`). spool: directory of the segments (embedded).
    host: our name in DSNs and their Message-IDs. owner: name of this process among those that share a PostgreSQL;
    the same after a restart. retention: from the end of processing on (kim.md § 17). reserve_bytes: must stay free
    on the disk of the spool; None: 5 %, at most 4 GiB (HD-28). gather: between two rounds of routing, so that mails
    which come one by one share a transaction and its flush: one alone costs 1.3 ms of routing, one of 256 0.05.
    The first one after a pause does not wait. frozen: while this file is there, no body is erased (SW-12).
    """

    url: str
    spool: Path
    host: str
    owner: str = "kim"
    segment_bytes: int = 128 << 20
    retention: timedelta = timedelta(days=90)
    give_up_after: timedelta = timedelta(days=5)
    reserve_bytes: int | None = None
    gather: timedelta = timedelta(milliseconds=100)
    frozen: Path | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What differs between the embedded store and PostgreSQL. spool: None with PostgreSQL."""

    backing: Backing
    bodies: Bodies
    locks: Locks
    spool: Spool | None
    disk: Disk

    def close(self) -> None:
        self.locks.close()
        self.backing.marks.close()
        self.bodies.close()
        self.backing.engine.dispose()


def open_parts(settings: Settings, disk: Disk) -> Parts:
    """Recover the segments, upgrade the tables. Raises DatabaseUnavailableError, SpoolLockedError, CorruptError."""
    engine = open_database(settings.url, MIGRATIONS)
    if engine.dialect.name == "postgresql":
        rows = RowBodies(engine)
        return Parts(Backing(engine, rows, NoMarks()), rows, PostgresLocks(engine.url), None, disk)
    try:
        with engine.connect() as connection:
            routed = read_cursor(connection) or 0
        reserve = settings.reserve_bytes
        spool = Spool(
            disk,
            settings.spool,
            segment_bytes=settings.segment_bytes,
            reserve=default_reserve if reserve is None else lambda total: reserve,
            durable=routed,
        )
    except BaseException:
        engine.dispose()
        raise
    segments = SegmentBodies(spool)
    backing = Backing(engine, segments, MarkFiles(disk, settings.spool / MARKS))
    return Parts(backing, segments, ProcessLocks(), spool, disk)


def require_index(backing: Backing, spool: Spool) -> None:
    """An empty index beside segments with mail is a lost index: routing anew would hand finished mail out again.

    Raises IndexMissingError.
    """
    with backing.writing() as connection:
        if read_cursor(connection) is not None:
            return
        if spool.end:
            raise IndexMissingError(
                "the segments hold mail, but the index is empty; restore or rebuild it before this role goes on"
            )
        write_cursor(connection, 0)
