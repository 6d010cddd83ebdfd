"""A real disk that fails on command: before its effect, after it, or with half of a write done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from schleuse.mail.spool.disk import Buffer, OsDisk


class When(Enum):
    """Where a call fails."""

    BEFORE = "before"
    HALF = "half"  # of a write
    AFTER = "after"


@dataclass(frozen=True)
class Fault:
    """One failure. number: such as errno.ENOSPC."""

    number: int = errno.EIO
    when: When = When.BEFORE


#: Told the name of each call; answers with a fault, or None to let it pass. May also kill the process.
Choose = Callable[[str], Fault | None]


class Once:
    """The n-th call of that name fails (0: the first); those that come later do not."""

    def __init__(self, name: str, fault: Fault, nth: int = 0) -> None:
        self._name = name
        self._fault = fault
        self._left = nth

    def __call__(self, name: str) -> Fault | None:
        if name != self._name:
            return None
        self._left -= 1
        return self._fault if self._left == -1 else None


class FaultyDisk:
    """Satisfies `spool.Disk`. room: what it says is free; None: the truth."""

    def __init__(self, choose: Choose = lambda name: None) -> None:
        self.choose = choose
        self.calls: list[str] = []
        self.free: int | None = None
        self._real = OsDisk()

    def create(self, path: Path) -> int:
        fault = self._enter("create")
        fd = self._real.create(path)
        if fault is not None:
            os.close(fd)  # the file stays behind, as when its process dies here
            raise OSError(fault.number, os.strerror(fault.number))
        return fd

    def open(self, path: Path, *, write: bool) -> int:
        self._leave(self._enter("open"))
        return self._real.open(path, write=write)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        self._leave(self._enter("read"))
        return self._real.read(fd, length, offset)

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        fault = self._enter("write")
        if fault is not None and fault.when is When.HALF:
            whole = b"".join(buffers)
            return self._real.write(fd, [whole[: len(whole) // 2]], offset)
        taken = self._real.write(fd, buffers, offset)
        self._leave(fault)
        return taken

    def sync(self, fd: int) -> None:
        fault = self._enter("sync")
        self._real.sync(fd)
        self._leave(fault)

    def truncate(self, fd: int, length: int) -> None:
        fault = self._enter("truncate")
        self._real.truncate(fd, length)
        self._leave(fault)

    def erase(self, fd: int, offset: int, length: int) -> None:
        fault = self._enter("erase")
        self._real.erase(fd, offset, length)
        self._leave(fault)

    def sync_directory(self, path: Path) -> None:
        fault = self._enter("sync_directory")
        self._real.sync_directory(path)
        self._leave(fault)

    def unlink(self, path: Path) -> None:
        fault = self._enter("unlink")
        self._real.unlink(path)
        self._leave(fault)

    def close(self, fd: int) -> None:
        self._real.close(fd)

    def room(self, path: Path) -> tuple[int, int]:
        self._leave(self._enter("room"))
        free, total = self._real.room(path)
        return (free if self.free is None else self.free), total

    def _enter(self, name: str) -> Fault | None:
        """A fault that strikes later; one that strikes before the effect is raised here."""
        self.calls.append(name)
        fault = self.choose(name)
        if fault is not None and fault.when is When.BEFORE:
            raise OSError(fault.number, os.strerror(fault.number))
        return fault

    def _leave(self, fault: Fault | None) -> None:
        if fault is not None:
            raise OSError(fault.number, os.strerror(fault.number))
