"""What the switch asks of a disk, beside what the journal asks: new files under names of their own, and `link`."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schleuse.journal.disk import Disk, OsDisk, write_all

#: The log is read by every role, whoever writes; the folder says who comes in (deploy/README.md).
_READABLE = 0o644


class SwitchDisk(Disk, Protocol):
    """All raise OSError."""

    def link(self, old: Path, new: Path) -> None:
        """Give the file a second name. Raises FileExistsError if that is taken."""
        ...

    def show(self, fd: int) -> None:
        """Let others read the file, whatever our umask is."""
        ...


class LinkingDisk(OsDisk):
    """The disk of this machine. Satisfies `SwitchDisk`."""

    def link(self, old: Path, new: Path) -> None:
        os.link(old, new)

    def show(self, fd: int) -> None:
        os.fchmod(fd, _READABLE)


def place(disk: SwitchDisk, path: Path, data: bytes, *, shown: bool = True) -> bool:
    """The whole file, durably, unless the name is taken. Returns whether we did. Raises OSError.

    shown: to others too, whatever our umask is.
    """
    draft = _draft(path)
    try:
        _fill(disk, draft, data, shown=shown)
        try:
            disk.link(draft, path)
        except FileExistsError:
            return False
    finally:
        with suppress(OSError):
            disk.unlink(draft)
    disk.sync_directory(path.parent)
    return True


@dataclass(frozen=True, slots=True)
class Place:
    """Which file stood under a name, and how long it was."""

    inode: int
    size: int


def place_of(path: Path) -> Place:
    """Now. Raises OSError."""
    found = os.stat(path)
    return Place(found.st_ino, found.st_size)


def put(disk: SwitchDisk, path: Path, data: bytes) -> Place:
    """The whole file, old or new; several processes may do it at once, and one of them is the last. Raises OSError."""
    draft = _draft(path)
    try:
        _fill(disk, draft, data, shown=False)
        here = place_of(draft)
        disk.rename(draft, path)
    except OSError:
        with suppress(OSError):
            disk.unlink(draft)
        raise
    disk.sync_directory(path.parent)
    return here


def extend(disk: SwitchDisk, path: Path, data: bytes, known: Place) -> Place | None:
    """Put the data at the end of the file, durably, if it is still the one that we know; else nothing, and None.

    Two processes never write to one place: whoever finds the file locked does not wait for it. Raises OSError: then a
    part of the data may stand at the end.
    """
    if not data:
        return known if place_of(path) == known else None
    fd = disk.open(path, create=False)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        # Asked under the lock; a file that was replaced meanwhile is another one.
        if place_of(path) != known or os.fstat(fd).st_ino != known.inode:
            return None
        write_all(disk, fd, data, known.size)
        disk.sync(fd)
    finally:
        disk.close(fd)
    return Place(known.inode, known.size + len(data))


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}")


def _fill(disk: SwitchDisk, path: Path, data: bytes, *, shown: bool) -> None:
    fd = disk.open(path, create=True)
    try:
        write_all(disk, fd, data, 0)
        if shown:
            disk.show(fd)
        disk.sync(fd)
    finally:
        disk.close(fd)
