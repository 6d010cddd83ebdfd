"""One way to open a database: SQLite embedded, PostgreSQL by URL (design.md § 6).

SQLite runs in WAL with `synchronous=FULL`: what is committed survives a power cut. Transactions begin with
BEGIN IMMEDIATE, so that a read-then-write decision inside one is never overtaken by another writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from schleuse.errors import CorruptError, UnavailableError


class DatabaseUnavailableError(UnavailableError):
    """The database cannot serve now (full disk, lock, lost server); the operator mends it, the work is repeated."""

    code = "database.unavailable"


class DatabaseMissingError(DatabaseUnavailableError):
    """The embedded database of another role is not there yet; that role makes it when it first starts."""

    code = "database.missing"


class DatabaseTooNewError(UnavailableError):
    """A newer version of this program has changed the tables; nothing is touched."""

    code = "database.too-new"


class DatabaseCorruptError(CorruptError):
    """A database file is damaged; the operator restores it before the role goes on."""

    code = "database.corrupt"


#: Another process may hold the single SQLite writer for one batch; longer than any batch of ours takes.
BUSY_TIMEOUT_MS = 30_000
#: A PostgreSQL server that does not answer is unavailable after so long; without a limit threads would wait for ever.
CONNECT_SECONDS = 10
#: A sealed document of 25 KB takes two pages instead of seven, which saves a quarter of the cost of filing it.
PAGE_OCTETS = 16_384
#: SQLite copies its write-ahead file into the database when that has grown to this: its own 1,000 pages at our size of
#: a page. With smaller pages it would come so often that a batch's random pages are copied one by one.
WAL_OCTETS = 1_000 * PAGE_OCTETS


def sqlite_url(path: Path) -> str:
    """URL of an embedded database file."""
    return f"sqlite:///{path}"


def open_database(url: str, migrations: str, page_octets: int = PAGE_OCTETS) -> Engine:
    """Open the database and bring its tables to the newest version.

    url: `sqlite:///PATH` or `postgresql+psycopg://…`.
    migrations: package of an Alembic environment, such as "schleuse.kim.migrations"; its name is
        also that of the version table, so that several stores can share one PostgreSQL database.
    page_octets: of a new SQLite file.
    Raises: DatabaseUnavailableError, DatabaseCorruptError, DatabaseTooNewError.
    """
    engine = create_engine(url, page_octets)
    try:
        _upgrade(engine, migrations)
    except DBAPIError as cause:
        engine.dispose()
        raise translate(cause) from cause
    except DatabaseTooNewError:
        engine.dispose()
        raise
    return engine


def create_engine(url: str, page_octets: int = PAGE_OCTETS) -> Engine:
    """An engine with our pragmas, without touching the tables. No error of it quotes values: they name people."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        patience = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_SECONDS}
        return sa.create_engine(parsed, pool_pre_ping=True, hide_parameters=True, connect_args=patience)
    if parsed.database and parsed.database != ":memory:":
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise DatabaseUnavailableError(f"the folder of the database cannot be made ({cause.strerror})") from cause
    engine = sa.create_engine(parsed, connect_args={"check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute(f"PRAGMA page_size={page_octets}")  # of a new file; no effect on an old one
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA wal_autocheckpoint={WAL_OCTETS // page_octets}")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def reading(engine: Engine) -> Engine:
    """The same database for transactions that only read; they never wait for the writer."""
    return engine.execution_options(read_only=True)


@contextmanager
def transaction(engine: Engine) -> Iterator[sa.Connection]:
    """One transaction, undone if the block raises; a driver's error comes out as ours (see `translate`)."""
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as cause:
        raise translate(cause) from cause


def open_existing(url: str) -> Engine:
    """An engine for a process that only reads what another role keeps: it makes neither tables nor a file.

    Raises DatabaseMissingError, DatabaseUnavailableError.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        raise DatabaseMissingError("the database is not there yet; its role makes it when it first starts")
    return create_engine(url)


@contextmanager
def asking(url: str) -> Iterator[sa.Connection]:
    """One transaction that only reads another role's database, beside that role; it never waits for the writer.

    Raises DatabaseUnavailableError, DatabaseCorruptError.
    """
    engine = open_existing(url)
    try:
        with transaction(reading(engine)) as connection:
            yield connection
    finally:
        engine.dispose()


def translate(cause: BaseException) -> DatabaseUnavailableError | DatabaseCorruptError:
    """Our error for a driver's. Damage is Corrupt, all else (full disk, lock, lost server) is Unavailable."""
    original = cause.orig if isinstance(cause, DBAPIError) else cause
    if isinstance(original, sqlite3.DatabaseError) and (
        getattr(original, "sqlite_errorname", "").split("_")[0:2] in (["SQLITE", "CORRUPT"], ["SQLITE", "NOTADB"])
    ):
        return DatabaseCorruptError("the database file is damaged; restore it before this role goes on")
    return DatabaseUnavailableError(f"the database cannot serve now ({type(original).__name__})")


def _upgrade(engine: Engine, migrations: str) -> None:
    from alembic import command
    from alembic.config import Config as AlembicConfig
    from alembic.util import CommandError

    config = AlembicConfig()
    package, _, folder = migrations.partition(".")
    config.set_main_option("script_location", f"{package}:{folder.replace('.', '/')}")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # two roles may start at the same moment
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7231404)"))
        config.attributes["connection"] = connection
        config.attributes["version_table"] = migrations.replace(".", "_") + "_version"
        try:
            command.upgrade(config, "head")
        except CommandError as cause:  # tables of a version that this program does not have
            raise DatabaseTooNewError(
                f"the tables of {migrations} were made by a newer version of this program; install that one"
            ) from cause


def run_migrations(target_metadata: sa.MetaData) -> None:
    """What the `env.py` of each Alembic environment calls."""
    from alembic import context

    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=target_metadata,
        version_table=context.config.attributes["version_table"],
        transactional_ddl=False,  # the transaction is the caller's
    )
    context.run_migrations()
