"""The few things that segments ask of a disk, so that a test can fail each of them before and after its effect."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Buffer = bytes | memoryview


class Disk(Protocol):
    """All raise OSError. None of them retries: what a failed call left behind is the caller's to judge."""

    def create(self, path: Path) -> int:
        """A new file; its descriptor (read and write). Fails if the file exists."""
        ...

    def open(self, path: Path, *, write: bool) -> int: ...

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Fewer bytes than asked for only at the end of the file."""
        ...

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """One vectored write. Returns how many bytes were taken, which may be fewer than given."""
        ...

    def sync(self, fd: int) -> None:
        """The file's bytes and length are on the medium."""
        ...

    def truncate(self, fd: int, length: int) -> None: ...

    def erase(self, fd: int, offset: int, length: int) -> None:
        """These bytes read as zeros from now on; gives their room back where the file system can."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Names created or removed in this directory are on the medium."""
        ...

    def unlink(self, path: Path) -> None: ...

    def close(self, fd: int) -> None: ...

    def room(self, path: Path) -> tuple[int, int]:
        """Bytes free for us, and bytes that we may ever have, on the file system of `path`."""
        ...


class OsDisk:
    """The disk of this machine (Linux)."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, *, write: bool) -> int:
        return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        data = os.pread(fd, length, offset)
        while 0 < len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def erase(self, fd: int, offset: int, length: int) -> None:
        if not _punch_hole(fd, offset, length):
            for start in range(offset, offset + length, _ZEROS):
                os.pwrite(fd, bytes(min(_ZEROS, offset + length - start)), start)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def close(self, fd: int) -> None:
        os.close(fd)

    def room(self, path: Path) -> tuple[int, int]:
        status = os.statvfs(path)
        # As `df` counts: what is kept from us (reserved blocks, quotas of a pool) is neither free nor filled.
        used = status.f_blocks - status.f_bfree
        return status.f_bavail * status.f_frsize, (used + status.f_bavail) * status.f_frsize


_ZEROS = 1 << 20

_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h


def _punch_hole(fd: int, offset: int, length: int) -> bool:
    """False where the file system has no holes; Python's os module does not offer this call."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate"):
        return False
    result = libc.fallocate(fd, _KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_longlong(offset), ctypes.c_longlong(length))
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))
