"""What a monitor remembers of one log, in an SQLite file of its own: it is larger than a witness's, and replaceable.

Lost, the monitor reads the whole log again. All SQL of the monitor stands here.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.note import Note, parse_note
from schleuse.witness.alarm import Alarm, Finding
from schleuse.witness.rules import Gap, Memory
from schleuse.witness.store import immediate, open_sqlite

_TABLES = (
    """
CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint TEXT, read INTEGER NOT NULL,
    since_s INTEGER, counter BLOB, counts TEXT NOT NULL) STRICT;
CREATE TABLE event (event BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE spooled (object BLOB PRIMARY KEY, stage INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE alarm (id INTEGER PRIMARY KEY, finding TEXT NOT NULL, text TEXT NOT NULL, at INTEGER,
    found_s INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX alarm_untold ON alarm (id) WHERE told = 0;
INSERT INTO position VALUES (1, NULL, 0, NULL, NULL, '{}');
""",
    """
ALTER TABLE position ADD COLUMN note BLOB;
ALTER TABLE position ADD COLUMN reported BLOB;
ALTER TABLE position ADD COLUMN reread INTEGER NOT NULL DEFAULT 0;
CREATE TABLE denials (actor BLOB PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE person (
    actor BLOB NOT NULL, subject BLOB NOT NULL, at_us INTEGER NOT NULL, PRIMARY KEY (actor, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE over_budget (actor BLOB PRIMARY KEY, told_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
    """
CREATE TABLE release_gap (first BLOB PRIMARY KEY, last BLOB NOT NULL, at_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""",
)


@dataclass(frozen=True, slots=True)
class Position:
    """How far the monitor is. note: of the last checkpoint that it verified. read: entries that it has looked at.

    since_s: when the checkpoint before those that are not read yet had its quorum.
    """

    note: Note | None
    read: int
    since_s: int | None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """That of the note."""
        return None if self.note is None else parse_checkpoint(self.note.text)


class MonitorStore:
    """The database file of one log's monitor; used by one thread at a time. Raises as `witness.store` does."""

    def __init__(self, path: Path, origin: str) -> None:
        self._origin = origin
        self._connection = open_sqlite(path, _TABLES)
        self._connection.row_factory = sqlite3.Row

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """What is written inside becomes durable together at the end, or not at all."""
        with immediate(self._connection):
            yield

    def position(self) -> Position:
        """See `Position`."""
        row = self._connection.execute("SELECT checkpoint, note, read, since_s FROM position").fetchone()
        note = None if row["note"] is None else parse_note(row["note"])
        if note is None and row["checkpoint"] is not None:  # of a version that did not keep the signatures
            note = Note(row["checkpoint"], ())
        return Position(note, row["read"], row["since_s"])

    def memory(self) -> Memory:
        """What the rules remember, as it was at the position."""
        row = self._connection.execute("SELECT counter, reported, counts FROM position").fetchone()
        memory = Memory(Counter(json.loads(row["counts"])), _number(row["counter"]), _number(row["reported"]))
        memory.denials = dict(self._connection.execute("SELECT actor, count FROM denials").fetchall())
        for one in self._connection.execute("SELECT actor, subject, at_us FROM person ORDER BY at_us"):
            memory.persons.setdefault(one["actor"], OrderedDict())[one["subject"]] = one["at_us"]
        gaps = self._connection.execute("SELECT first, last, at_us FROM release_gap ORDER BY first").fetchall()
        memory.gaps = [Gap(int.from_bytes(one["first"]), int.from_bytes(one["last"]), one["at_us"]) for one in gaps]
        memory.over = dict(self._connection.execute("SELECT actor, told_us FROM over_budget").fetchall())
        return memory

    def move(self, position: Position, memory: Memory) -> None:
        """The monitor stands here now."""
        note = position.note
        self._connection.execute(
            "UPDATE position"
            " SET checkpoint = ?, note = ?, read = ?, since_s = ?, counter = ?, reported = ?, counts = ?",
            (
                None if note is None else note.text,
                None if note is None or not note.lines else note.encode(),
                position.read,
                position.since_s,
                _octets(memory.counter),
                _octets(memory.reported),
                json.dumps(memory.counts),
            ),
        )
        self._replace("denials", memory.denials.items())
        self._replace("person", ((actor, *one) for actor, persons in memory.persons.items() for one in persons.items()))
        self._replace("over_budget", memory.over.items())
        self._replace("release_gap", ((_octets(one.first), _octets(one.last), one.at_us) for one in memory.gaps))

    def _replace(self, name: str, rows: Iterable[tuple[object, ...]]) -> None:
        """All rows of a table of the rules' memory, which is small: a limit bounds the persons of an actor."""
        self._connection.execute(f"DELETE FROM {name}")  # noqa: S608
        values = list(rows)
        if values:
            places = ", ".join("?" * len(values[0]))
            self._connection.executemany(f"INSERT INTO {name} VALUES ({places})", values)  # noqa: S608

    def reread(self) -> int:
        """The entry bundle from which on the monitor reads again what it has read before."""
        (bundle,) = self._connection.execute("SELECT reread FROM position").fetchone()
        return int(bundle)

    def read_again(self, bundle: int) -> None:
        """It goes on with this bundle."""
        with self.step():
            self._connection.execute("UPDATE position SET reread = ?", (bundle,))

    def is_new_event(self, event: bytes) -> bool:
        """See `rules.Known`."""
        return self._connection.execute("INSERT OR IGNORE INTO event VALUES (?)", (event,)).rowcount == 1

    def spool(self, obj: bytes, stage: int) -> bool:
        """See `rules.Known`."""
        row = self._connection.execute("SELECT stage FROM spooled WHERE object = ?", (obj,)).fetchone()
        self._connection.execute("INSERT OR REPLACE INTO spooled VALUES (?, ?)", (obj, stage))
        return (row["stage"] if row else -1) == stage - 1

    def found(self, alarm: Alarm, found_s: int) -> None:
        """Keep an alarm that has not been told yet."""
        self._connection.execute(
            "INSERT INTO alarm (finding, text, at, found_s) VALUES (?, ?, ?, ?)",
            (alarm.finding.value, alarm.text, alarm.index, found_s),
        )

    def untold(self) -> list[tuple[int, Alarm]]:
        """Alarms that nobody may have heard of yet, with their ids."""
        rows = self._connection.execute("SELECT id, finding, text, at FROM alarm WHERE told = 0 ORDER BY id").fetchall()
        return [(row["id"], Alarm(Finding(row["finding"]), self._origin, row["text"], row["at"])) for row in rows]

    def told(self, ids: list[int]) -> None:
        """These were told."""
        with self.step():
            self._connection.executemany("UPDATE alarm SET told = 1 WHERE id = ?", [(one,) for one in ids])

    def alarms(self) -> Counter[str]:
        """How many of each finding there were."""
        rows = self._connection.execute("SELECT finding, count(*) AS n FROM alarm GROUP BY finding").fetchall()
        return Counter({row["finding"]: row["n"] for row in rows})


def _number(data: bytes | None) -> int | None:
    return None if data is None else int.from_bytes(data)


def _octets(number: int | None) -> bytes | None:
    return None if number is None else number.to_bytes(8)  # may be above SQLite's integers
