"""The memory of a witness: one checkpoint a log, and evidence, in an SQLite file. All SQL of cosigning stands here.

Durable when `Turn.record` has been left through the end of `WitnessStore.turn`: WAL with synchronous=FULL. Triggers
hold the promise a second time, should a later version of the code forget it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from schleuse.database import DatabaseTooNewError, translate
from schleuse.errors import CorruptError, MalformedError
from schleuse.journal.checkpoint import parse_checkpoint
from schleuse.journal.note import Note, parse_note
from schleuse.witness.alarm import Finding
from schleuse.witness.decision import Remembered

BUSY_TIMEOUT_S = 5.0  #: longer than any transaction here; a log waits 2 s for an answer (§ 9.4)

#: One script a version of the tables; the number of those that were run is PRAGMA user_version.
_TABLES = (
    """
CREATE TABLE log (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, time_s INTEGER NOT NULL, note BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
    id INTEGER PRIMARY KEY, origin TEXT NOT NULL, finding TEXT NOT NULL, digest BLOB NOT NULL, kept_s INTEGER NOT NULL,
    reason TEXT NOT NULL, ours BLOB, theirs BLOB NOT NULL, request BLOB NOT NULL, UNIQUE (origin, finding, digest)
) STRICT;
CREATE TRIGGER log_only_grows BEFORE UPDATE ON log
WHEN NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root <> OLD.root) OR NEW.origin <> OLD.origin
BEGIN SELECT RAISE(ABORT, 'a witness never goes back'); END;
CREATE TRIGGER log_is_not_forgotten BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'a witness never forgets'); END;
CREATE TRIGGER evidence_is_not_changed BEFORE UPDATE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is kept as it came'); END;
CREATE TRIGGER evidence_is_not_deleted BEFORE DELETE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is kept for ever'); END;
""",
)


class UnreadableMemoryError(CorruptError):
    """A row of the witness's database is not what we write; restore the newest copy, or retire the key."""

    code = "witness.unreadable-memory"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two notes of a log that do not fit together, verbatim.

    ours: what we had cosigned or been shown. request: the whole body, empty if we asked for `theirs` ourselves.
    """

    origin: str
    finding: Finding
    reason: str
    kept_s: int
    ours: bytes | None
    theirs: bytes
    request: bytes


class Turn:
    """One transaction about one log: nobody else decides about it meanwhile, nor in another process."""

    def __init__(self, connection: sqlite3.Connection, origin: str) -> None:
        self._connection = connection
        self._origin = origin
        self.last = _remembered(connection, origin)

    def record(self, new: Remembered) -> None:
        """Remember this instead of `last`."""
        checkpoint = new.checkpoint
        values = (checkpoint.size, checkpoint.root, new.time_s, new.note.encode())
        if self.last is None:
            self._connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", (self._origin, *values))
            return
        done = self._connection.execute(
            "UPDATE log SET size = ?, root = ?, time_s = ?, note = ? WHERE origin = ? AND size = ?",
            (*values, self._origin, self.last.checkpoint.size),
        )
        if done.rowcount != 1:
            raise UnreadableMemoryError(f"the row of {self._origin} changed inside a transaction")

    def keep(self, evidence: Evidence) -> bool:
        """Keep evidence; False if this text of the log is kept already.

        What the log did not sign (further lines, the proof) does not count: a stranger could fill the disk with it.
        """
        digest = sha256(parse_note(evidence.theirs).text.encode()).digest()
        done = self._connection.execute(
            "INSERT OR IGNORE INTO evidence (origin, finding, digest, kept_s, reason, ours, theirs, request)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                evidence.origin,
                evidence.finding.value,
                digest,
                evidence.kept_s,
                evidence.reason,
                evidence.ours,
                evidence.theirs,
                evidence.request,
            ),
        )
        return done.rowcount == 1


class WitnessStore:
    """The database file. For several threads; one transaction at a time.

    Raises DatabaseUnavailableError, DatabaseCorruptError, DatabaseTooNewError, here and from every method.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = open_sqlite(path, _TABLES)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    @contextmanager
    def turn(self, origin: str) -> Iterator[Turn]:
        """Decide about a log. Left without an error, all of it is durable; with one, nothing was done."""
        with self._lock, immediate(self._connection):
            yield Turn(self._connection, origin)

    def last(self, origin: str) -> Remembered | None:
        """What we cosigned last for this log."""
        with self._lock, _translated():
            return _remembered(self._connection, origin)

    def origins(self) -> list[str]:
        """All logs that we have ever cosigned."""
        with self._lock, _translated():
            return [origin for (origin,) in self._connection.execute("SELECT origin FROM log ORDER BY origin")]

    def evidence(self) -> list[Evidence]:
        """All evidence, oldest first."""
        with self._lock, _translated():
            rows = self._connection.execute(
                "SELECT origin, finding, reason, kept_s, ours, theirs, request FROM evidence ORDER BY id"
            ).fetchall()
        return [Evidence(row[0], Finding(row[1]), *row[2:]) for row in rows]


def open_sqlite(path: Path, scripts: Sequence[str]) -> sqlite3.Connection:
    """A database file with the tables of these scripts, made or upgraded; what is committed survives a power cut."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path, scripts)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as cause:
        raise translate(cause) from cause
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, scripts: Sequence[str]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    with immediate(connection):
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > len(scripts):
            raise DatabaseTooNewError(f"{path.name} was made by a newer version of this program; install that one")
        for script in scripts[found:]:
            for statement in _statements(script):
                connection.execute(statement)
        if found < len(scripts):
            connection.execute(f"PRAGMA user_version = {len(scripts)}")
    # SQLite syncs what is in its files; that a new file has its name is the folder's matter.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit in the middle of our transaction.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """One writing transaction, undone if the block raises; SQLite's errors come out as ours."""
    with _translated():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as cause:
        raise translate(cause) from cause


def _remembered(connection: sqlite3.Connection, origin: str) -> Remembered | None:
    row = connection.execute("SELECT size, root, time_s, note FROM log WHERE origin = ?", (origin,)).fetchone()
    if row is None:
        return None
    size, root, time_s, data = row
    try:
        note: Note = parse_note(data)
        checkpoint = parse_checkpoint(note.text)
    except MalformedError as cause:
        raise UnreadableMemoryError(f"the note of {origin} cannot be read") from cause
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (origin, size, root):
        raise UnreadableMemoryError(f"the row of {origin} contradicts its own note")
    return Remembered(checkpoint, time_s, note)
