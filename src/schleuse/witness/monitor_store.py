"""What a monitor remembers of one log, in an SQLite file of its own: it is larger than a witness's, and replaceable.

Lost, the monitor reads the whole log again. All SQL of the monitor stands here.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.witness.alarm import Alarm, Finding
from schleuse.witness.rules import Memory
from schleuse.witness.store import immediate, open_sqlite

VERSION = 1

_TABLES = """
CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint TEXT, read INTEGER NOT NULL,
    since_s INTEGER, counter BLOB, counts TEXT NOT NULL) STRICT;
CREATE TABLE event (event BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE spooled (object BLOB PRIMARY KEY, stage INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE alarm (id INTEGER PRIMARY KEY, finding TEXT NOT NULL, text TEXT NOT NULL, at INTEGER,
    found_s INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX alarm_untold ON alarm (id) WHERE told = 0;
INSERT INTO position VALUES (1, NULL, 0, NULL, NULL, '{}');
"""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the monitor is. checkpoint: the last that it verified. read: entries that it has looked at.

    since_s: when the checkpoint before those that are not read yet had its quorum.
    """

    checkpoint: Checkpoint | None
    read: int
    since_s: int | None


class MonitorStore:
    """The database file of one log's monitor; used by one thread at a time. Raises as `witness.store` does."""

    def __init__(self, path: Path, origin: str) -> None:
        self._origin = origin
        self._connection = open_sqlite(path, _TABLES, VERSION)
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
        row = self._connection.execute("SELECT checkpoint, read, since_s FROM position").fetchone()
        checkpoint = None if row["checkpoint"] is None else parse_checkpoint(row["checkpoint"])
        return Position(checkpoint, row["read"], row["since_s"])

    def memory(self) -> Memory:
        """What the rules remember; denials in series and the hour's persons begin anew."""
        row = self._connection.execute("SELECT counter, counts FROM position").fetchone()
        counter = None if row["counter"] is None else int.from_bytes(row["counter"])
        return Memory(Counter(json.loads(row["counts"])), counter)

    def move(self, position: Position, memory: Memory) -> None:
        """The monitor stands here now."""
        text = None if position.checkpoint is None else position.checkpoint.text
        counter = None if memory.counter is None else memory.counter.to_bytes(8)  # may be above SQLite's integers
        self._connection.execute(
            "UPDATE position SET checkpoint = ?, read = ?, since_s = ?, counter = ?, counts = ?",
            (text, position.read, position.since_s, counter, json.dumps(memory.counts)),
        )

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
