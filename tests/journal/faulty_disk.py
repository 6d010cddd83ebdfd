"""A real disk that fails on command: before its effect, after it, or with half of a write done."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from schleuse.journal.disk import OsDisk


class When(Enum):
    """Where a call fails."""

    BEFORE = "before"
    HALF = "half"  # of a write
    AFTER = "after"


#: Told the name of each call and its path if it has one; answers when it fails, or None to let it pass.
Choose = Callable[[str], When | None]


def nth(name: str, when: When, number: int = 0) -> Choose:
    """The n-th call of that name fails (0: the first), no other."""
    left = number

    def choose(called: str) -> When | None:
        nonlocal left
        if called != name:
            return None
        left -= 1
        return when if left == -1 else None

    return choose


class FaultyDisk(OsDisk):
    """Satisfies `disk.Disk`. calls: names in order. gate: when set, every `sync` waits until it is set."""

    def __init__(self, choose: Choose = lambda name: None, number: int = errno.EIO) -> None:
        self.choose = choose
        self.calls: list[str] = []
        self.gate: threading.Event | None = None
        self.in_sync = threading.Event()
        self._number = number
        self._opened: set[int] = set()

    def leave(self) -> None:
        """Close what is open, as the end of a process does; whoever failed to start has not."""
        for fd in [*self._opened]:
            self.close(fd)

    def open(self, path: Path, *, create: bool) -> int:
        self._fail_if(self._enter("open"))
        fd = super().open(path, create=create)
        self._opened.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self._opened.discard(fd)
        super().close(fd)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        when = self._enter("write")
        if when is When.HALF:
            super().write(fd, data[: len(data) // 2], offset)
            raise self._error()
        taken = super().write(fd, data[: max(1, len(data) * 2 // 3)], offset)  # fewer than asked for, always
        self._fail_if(when)
        return taken

    def sync(self, fd: int) -> None:
        when = self._enter("sync")
        if self.gate is not None:
            self.in_sync.set()
            self.gate.wait(20)
        super().sync(fd)
        self._fail_if(when)

    def rename(self, old: Path, new: Path) -> None:
        when = self._enter("rename")
        super().rename(old, new)
        self._fail_if(when)

    def sync_directory(self, path: Path) -> None:
        when = self._enter("sync_directory")
        super().sync_directory(path)
        self._fail_if(when)

    def names(self, folder: Path) -> Sequence[str]:
        return super().names(folder)

    def _enter(self, name: str) -> When | None:
        self.calls.append(name)
        when = self.choose(name)
        if when is When.BEFORE:
            raise self._error()
        return when

    def _fail_if(self, when: When | None) -> None:
        if when is not None:
            raise self._error()

    def _error(self) -> OSError:
        return OSError(self._number, os.strerror(self._number))
