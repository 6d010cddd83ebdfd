"""Marks: what became of deliveries, written beside the segments, so that a lost index can be rebuilt.

Segments say what was accepted; marks say what was finished. Whoever finishes deliveries (each process has its own
file) appends one record for many marks and flushes it:

- *before* the transaction, where the effect has happened already (filed by the eau role, taken by the next host): once
  marked, a rebuild never hands the mail out again, even if the transaction was lost;
- *after* the transaction, where the transaction is the effect (an owner deletes from his mailbox): a mail
  whose deletion was not committed must not vanish in a rebuild.

With PostgreSQL mails and states are in one database, and there is nothing to mark (`NoMarks`).
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from schleuse.holding.states import State
from schleuse.kim.store.delivery import position_of
from schleuse.mail.contracts import Action
from schleuse.mail.spool.disk import Disk
from schleuse.mail.spool.record import Entry, Kind, SegmentHeader
from schleuse.mail.spool.segments import (
    OFFSET_BITS,
    SegmentFile,
    SegmentReader,
    SegmentWriteError,
    segment_path,
)

#: Directory of the marks, inside that of the segments.
MARKS = "marks"

#: A file of marks is left for a new one beyond this size.
MAX_FILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of one delivery.

    state: None when only a report is noted. reports: DSNs that became owed: action -> (status, diagnostic, time).
    reported: DSNs that were accepted as mails. may_come_again: it went back unopened, and the same mail is a new try.
    """

    id: int
    at_us: int
    state: State | None = None
    reason: str | None = None
    linked_to: int | None = None
    reports: Mapping[Action, tuple[str, str | None, int]] = field(default_factory=dict)
    reported: frozenset[Action] = frozenset()
    may_come_again: bool = False

    def owes(self, action: Action) -> bool:
        """Whether a DSN of this kind was ever due."""
        return action in self.reports


class Marks(Protocol):
    """Where marks go."""

    def write(self, marks: Sequence[Mark]) -> None:
        """Durable when it returns. Raises SegmentWriteError: none is."""
        ...

    def write_later(self, marks: Sequence[Mark]) -> None:
        """As `write`, but a mark that the disk refuses now goes out with the next ones."""
        ...

    def close(self) -> None: ...


class NoMarks:
    """For PostgreSQL."""

    def write(self, marks: Sequence[Mark]) -> None:
        pass

    def write_later(self, marks: Sequence[Mark]) -> None:
        pass

    def close(self) -> None:
        pass


class MarkFiles:
    """One growing file of this process in the directory of marks. Thread-safe."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self._guarded = threading.Lock()
        self._file: SegmentFile | None = None
        self._lock: int | None = None
        self._late: list[Mark] = []

    def write(self, marks: Sequence[Mark]) -> None:
        if marks:
            with self._guarded:
                self._append([*self._late, *marks])
                self._late = []

    def write_later(self, marks: Sequence[Mark]) -> None:
        with self._guarded:
            self._late.extend(marks)
            try:
                self._append(self._late)
            except SegmentWriteError:
                return
            self._late = []

    def close(self) -> None:
        """Write what is late, and leave the file."""
        if self._late:
            self.write_later([])
        with self._guarded:
            self._leave()

    def _append(self, marks: Sequence[Mark]) -> None:
        if not marks:
            return
        if self._file is not None and self._file.end > MAX_FILE:
            self._leave()
        if self._file is None:
            self._file = self._new_file()
        try:
            self._file.append([Entry(Kind.MARK, encode(marks))])
        except SegmentWriteError:
            self._file = None
            self._unlock()
            raise

    def _new_file(self) -> SegmentFile:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max(SegmentReader(self._disk, self._directory).numbers(), default=0) + 1
        while segment_path(self._directory, number).exists():  # another process was faster
            number += 1
        path = segment_path(self._directory, number)
        file = SegmentFile.create(self._disk, path, SegmentHeader(number, 0, 0, os.urandom(16)), 0)
        self._lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)  # says "still being written" to `remove_obsolete`
        return file

    def _leave(self) -> None:
        if self._file is not None:
            self._file.seal()
            self._file = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_marks(disk: Disk, directory: Path) -> dict[int, Mark]:
    """All that the marks say, one entry a delivery."""
    reader = SegmentReader(disk, directory)
    everything = [mark for number in reader.numbers() for mark in _marks_of(reader, number)]
    everything.sort(key=lambda mark: (mark.at_us, mark.state is State.CONFIRMED))
    folded: dict[int, Mark] = {}
    for mark in everything:
        before = folded.get(mark.id)
        folded[mark.id] = mark if before is None else _later(before, mark)
    return folded


def remove_obsolete(disk: Disk, directory: Path, oldest_segment: int) -> int:
    """Remove the files that speak only of segments older than this one and are no longer written."""
    reader = SegmentReader(disk, directory)
    removed = 0
    for number in reader.numbers():
        fd = os.open(segment_path(directory, number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marks = _marks_of(reader, number)
            if all(position_of(mark.id) >> OFFSET_BITS < oldest_segment for mark in marks):
                reader.unlink(number)
                removed += 1
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return removed


def encode(marks: Sequence[Mark]) -> bytes:
    """One record for many marks."""
    return json.dumps(
        [
            [
                mark.id,
                mark.at_us,
                mark.state,
                mark.reason,
                mark.linked_to,
                dict(mark.reports),
                sorted(mark.reported),
                mark.may_come_again,
            ]
            for mark in marks
        ],
        separators=(",", ":"),
    ).encode()


def decode(meta: bytes) -> Iterator[Mark]:
    """What `encode` wrote; an older version ended with `reported`."""
    rows: list[list[Any]] = json.loads(meta)
    for id, at_us, state, reason, linked_to, reports, reported, *again in rows:
        yield Mark(
            id,
            at_us,
            None if state is None else State(state),
            reason,
            linked_to,
            {Action(action): (status, why, at) for action, (status, why, at) in reports.items()},
            frozenset(Action(action) for action in reported),
            any(again),
        )


def _marks_of(reader: SegmentReader, number: int) -> Iterator[Mark]:
    if reader.header(number) is None:
        return
    for meta in reader.marks(number):
        yield from decode(meta)


def _later(before: Mark, mark: Mark) -> Mark:
    """A confirmation adds to what was said before; any other state replaces it."""
    newer = before if mark.state is None else mark
    if mark.state is State.CONFIRMED and before.state is not None:
        newer = replace(before, state=State.CONFIRMED)
    return Mark(
        mark.id,
        newer.at_us,
        newer.state,
        newer.reason,
        newer.linked_to,
        {**before.reports, **mark.reports},
        before.reported | mark.reported,
        newer.may_come_again,
    )
