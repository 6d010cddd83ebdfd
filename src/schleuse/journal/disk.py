"""The few things that the journal asks of a disk, so that a test can fail each of them before and after its effect.

The same small seam as that of the mail spool; the journal stands below `mail` and may not import it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """All raise OSError. None of them retries: what a failed call left behind is the caller's to judge."""

    def open(self, path: Path, *, create: bool) -> int:
        """A descriptor to read and write; creates the file if asked to and it is not there."""
        ...

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Fewer bytes than asked for only at the end of the file."""
        ...

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """How many bytes were taken, which may be fewer than given (journal.md § 19)."""
        ...

    def sync(self, fd: int) -> None:
        """The file's bytes and length are on the medium."""
        ...

    def truncate(self, fd: int, length: int) -> None: ...

    def size(self, fd: int) -> int: ...

    def names(self, folder: Path) -> Sequence[str]:
        """Names of the files in a folder, sorted."""
        ...

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None:
        """Names created, changed or removed in this folder are on the medium."""
        ...

    def close(self, fd: int) -> None: ...


class OsDisk:
    """The disk of this machine (Linux)."""

    def open(self, path: Path, *, create: bool) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        data = os.pread(fd, length, offset)
        while 0 < len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def names(self, folder: Path) -> Sequence[str]:
        return sorted(os.listdir(folder))

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        os.close(fd)


def write_all(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Write all of it, however little the disk takes at a time. Raises OSError."""
    taken = disk.write(fd, data, offset)
    while taken < len(data):
        more = disk.write(fd, data[taken:], offset + taken)
        if more <= 0:
            raise OSError(f"the disk takes no more than {taken} of {len(data)} bytes")
        taken += more


def erase(disk: Disk, path: Path) -> None:
    """Overwrite a small file with zeros and remove it, durably. Raises OSError; then it may be called again.

    What the medium itself keeps beside (a journalling file system, flash) nobody can reach from here.
    """
    fd = disk.open(path, create=False)
    try:
        write_all(disk, fd, bytes(disk.size(fd)), 0)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.unlink(path)
    disk.sync_directory(path.parent)


def replace(disk: Disk, path: Path, data: bytes, *, durable: bool = True) -> None:
    """The whole file, old or new, never half of it: temporary file, sync, rename, sync of the folder.

    Without `durable` a power cut may bring the old file back, or an empty one. Raises OSError.
    """
    temporary = path.with_name(path.name + ".tmp")
    fd = disk.open(temporary, create=True)
    try:
        disk.truncate(fd, 0)
        write_all(disk, fd, data, 0)
        if durable:
            disk.sync(fd)
    finally:
        disk.close(fd)
    disk.rename(temporary, path)
    if durable:
        disk.sync_directory(path.parent)
