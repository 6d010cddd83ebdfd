"""Who was deferred since the last transaction, in files: the death of the process forgets nobody (incident.md § 6.5).

    FOLDER/0000000007     one line for each sender and mailbox, and one for each that came back

A line is with the operating system when the sender is answered; nothing is flushed to the disk, so that a closed door
costs no wait. What a power cut takes is what the last second had, or the time since the database went away. A file is
begun with each transaction, and those before it are removed when that is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

#: Lines since the last transaction: a flood while the database is away must not fill the disk.
MAX_LINES = 100_000


class Notes:
    """Not thread-safe: `Gathered` asks under its lock. What cannot be written is not: memory has it as well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = max(self._numbers(), default=0)
        self._fd: int | None = None
        self._lines = 0

    def read(self) -> Iterator[Sequence[object]]:
        """What an earlier process had noted, in order; a line that its death has cut is none."""
        for number in self._numbers():
            with suppress(OSError):
                for line in self._path(number).read_bytes().splitlines():
                    with suppress(ValueError):
                        found = json.loads(line)
                        if isinstance(found, list):
                            yield found

    def write(self, *fields: str | int | None) -> None:
        """One line."""
        if self._lines >= MAX_LINES:
            return
        self._lines += 1
        with suppress(OSError):
            if self._fd is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._number += 1
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._path(self._number), flags, 0o600)
            line = json.dumps(fields).encode() + b"\n"
            if os.write(self._fd, line) < len(line):  # the disk is full; what comes next is no part of this line
                self.begin()

    def begin(self) -> int:
        """What comes now is in a new file. Returns the number of the last one before it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        return self._number

    def done(self, upto: int) -> None:
        """The database has what these files have."""
        for number in self._numbers():
            if number <= upto:
                with suppress(OSError):
                    self._path(number).unlink()
        self._lines = 0

    def _numbers(self) -> list[int]:
        try:
            return sorted(int(name) for name in os.listdir(self._folder) if name.isdigit())
        except OSError:
            return []

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010d}"
