"""Where the mails themselves are: in segments (embedded) or in rows (PostgreSQL), behind one contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from schleuse.database import translate
from schleuse.errors import CorruptError
from schleuse.kim.store.placement import Arrived
from schleuse.kim.store.tables import CURSOR
from schleuse.mail.spool import Damaged, DamagedRecordError, Envelope, SegmentReader, Spool
from schleuse.mail.spool.envelope import decode, encode, seal_matches

Content = tuple[Envelope, bytes] | DamagedRecordError

#: Octets of mails that one call takes into memory; a batch of the largest mails would be gigabytes.
MAX_READ = 64 << 20


class CursorAheadError(CorruptError):
    """The index knows more mail than the segments hold; the operator restores the newest segments."""

    code = "kim.cursor-ahead"


class Contents(Protocol):
    """Reads accepted mails."""

    def read(self, places: Sequence[tuple[int, int]]) -> list[Content]:
        """The mails at (position, length), each compared with its seal. Raises UnavailableError."""
        ...

    def has_records_from(self, at: int) -> bool:
        """Whether a mail is here that has no deliveries yet, also one that is not durable yet. at: `read_cursor`.

        Raises UnavailableError.
        """
        ...


class Bodies(Contents, Protocol):
    """Keeps accepted mails, and hands them to the router once."""

    def keep(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        """Durable when it returns. Raises UnavailableError: none of the batch is kept."""
        ...

    def arrived(self, connection: Connection, limit: int) -> list[Arrived]:
        """The oldest mails that have no deliveries yet; no other router gets them before this transaction ends."""
        ...

    def advance(self, connection: Connection, arrived: Sequence[Arrived]) -> None:
        """They have their deliveries now."""
        ...

    def erase(self, places: Sequence[tuple[int, int]]) -> None:
        """The contents at (position, length) are gone for good. Doing it twice is harmless. Raises UnavailableError."""
        ...

    def close(self) -> None: ...


class _Measured(Protocol):
    """A row that says how many octets its mail has."""

    @property
    def size(self) -> int: ...


_Row = TypeVar("_Row", bound=_Measured)


def as_many_as_fit(rows: Sequence[_Row], octets: int = MAX_READ) -> list[_Row]:
    """The first rows whose mails have at most so many octets together, and at least one."""
    total = 0
    fitting: list[_Row] = []
    for row in rows:
        total += row.size
        if fitting and total > octets:
            break
        fitting.append(row)
    return fitting


def read_cursor(connection: Connection) -> int | None:
    """Everything before this position has its deliveries. None: a database that never routed."""
    value = connection.execute(sa.select(CURSOR.c.position)).scalar_one_or_none()
    return None if value is None else int(value)


def write_cursor(connection: Connection, position: int) -> None:
    """In the transaction of the deliveries before it."""
    if connection.execute(sa.update(CURSOR).values(position=position)).rowcount == 0:
        connection.execute(sa.insert(CURSOR).values(position=position))


class SegmentBodies:
    """Embedded: mails in the spool, the cursor in the index."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.reader: SegmentReader = spool.reader

    def keep(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        self._spool.append(batch)

    def read(self, places: Sequence[tuple[int, int]]) -> list[Content]:
        return self.reader.read(places)

    def arrived(self, connection: Connection, limit: int) -> list[Arrived]:
        cursor = read_cursor(connection) or 0
        if cursor == self._spool.end:
            return []
        if cursor > self._spool.end:
            raise CursorAheadError(
                "the index knows more mail than the segments hold; restore the newest segments, then start again"
            )
        found: list[Arrived] = []
        for item in self._spool.scan(cursor):
            envelope = None if isinstance(item, Damaged) else item.envelope
            found.append(Arrived(item.position, item.length, envelope))
            if len(found) == limit:
                break
        return found

    def advance(self, connection: Connection, arrived: Sequence[Arrived]) -> None:
        write_cursor(connection, arrived[-1].position + arrived[-1].length)

    def has_records_from(self, at: int) -> bool:
        return self.reader.has_records_from(at)

    def erase(self, places: Sequence[tuple[int, int]]) -> None:
        self.reader.erase(places)

    def close(self) -> None:
        self._spool.close()


#: Held while positions are given, so that they become visible in their own order on all hosts.
_ROUTER_LOCK = 7231405


class RowBodies:
    """PostgreSQL: a mail is a row, committed (and with a synchronous standby: on two hosts, HD-20) before its 250."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        with self._driver() as connection, connection.cursor() as cursor:
            with cursor.copy("COPY kim_body (meta, content) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(("bytea", "bytea"))
                for envelope, content in batch:
                    copy.write_row((encode(envelope), content))
            connection.commit()

    def read(self, places: Sequence[tuple[int, int]]) -> list[Content]:
        positions = [position for position, _ in places]
        with self._driver() as connection, connection.cursor(binary=True) as cursor:
            cursor.execute("SELECT position, meta, content FROM kim_body WHERE position = ANY(%s)", (positions,))
            found = {position: _checked(meta, content) for position, meta, content in cursor.fetchall()}
            connection.rollback()
        missing = DamagedRecordError("the row of a mail is missing")
        return [found.get(position, missing) for position in positions]

    def has_records_from(self, at: int) -> bool:
        """Wherever: a mail gets its position together with its deliveries."""
        with self._driver() as connection, connection.cursor() as cursor:
            found = cursor.execute("SELECT 1 FROM kim_body WHERE position IS NULL LIMIT 1").fetchone()
            connection.rollback()
        return found is not None

    @contextmanager
    def _driver(self) -> Iterator[psycopg.Connection]:
        """psycopg itself: COPY and binary results cost a third of what the usual way does for 50 KB a row."""
        try:
            with self._engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert isinstance(driver, psycopg.Connection)  # noqa: S101
                yield driver
        except (SQLAlchemyError, psycopg.Error) as cause:
            raise translate(cause) from cause

    def arrived(self, connection: Connection, limit: int) -> list[Arrived]:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ROUTER_LOCK})")
        rows = connection.exec_driver_sql(
            "SELECT id, meta FROM kim_body WHERE position IS NULL ORDER BY id LIMIT %s", (limit,)
        ).all()
        if not rows:
            return []
        first = (read_cursor(connection) or 0) + 1
        connection.exec_driver_sql(
            "UPDATE kim_body SET position = given.position FROM unnest(%s::bigint[], %s::bigint[])"
            " AS given (id, position) WHERE kim_body.id = given.id",
            ([row.id for row in rows], list(range(first, first + len(rows)))),
        )
        return [Arrived(first + index, 1, decode(bytes(row.meta))) for index, row in enumerate(rows)]

    def advance(self, connection: Connection, arrived: Sequence[Arrived]) -> None:
        write_cursor(connection, arrived[-1].position)

    def erase(self, places: Sequence[tuple[int, int]]) -> None:
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(
                    "UPDATE kim_body SET content = NULL WHERE position = ANY(%s)",
                    ([position for position, _ in places],),
                )
        except SQLAlchemyError as cause:
            raise translate(cause) from cause

    def close(self) -> None:
        pass


def _checked(meta: bytes, content: bytes | None) -> Content:
    if content is None:
        return DamagedRecordError("the content of this mail was purged")
    envelope = decode(meta)
    if not seal_matches(envelope, content):
        return DamagedRecordError("the content of a mail does not match its seal")
    return envelope, content
