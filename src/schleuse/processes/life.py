"""How a role process lives and ends: signals, the supervisor's pipe, one instance per home."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schleuse.errors import ConflictError
from schleuse.processes.supervisor import SUPERVISED


def keep_private() -> None:
    """Databases, logs and segments name who writes to whom: nobody else on this machine may read what we make."""
    os.umask(0o077)


def open_many() -> None:
    """As many open files as we may: three thousand mail sessions need more than the 1024 that shells begin with."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # then less may be open at once, and who comes then comes again
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class AlreadyRunningError(ConflictError):
    """This role runs on this home already; stop that one first."""

    code = "process.already-running"


async def until_stopped() -> None:
    """Return at SIGTERM, SIGINT, or when the supervisor that started us is gone."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if os.environ.get(SUPERVISED):
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    await stopped.wait()
    if os.environ.get(SUPERVISED):
        loop.remove_reader(sys.stdin.fileno())


@contextmanager
def only_instance(home: Path, role: str) -> Iterator[None]:
    """Hold the role's lock file: two of one role on one home would write the same segments.

    The lock is the kernel's, so it ends with the process, however that ends. Raises AlreadyRunningError.
    """
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{role}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise AlreadyRunningError(f"the role {role} already runs on {home}; stop it first") from cause
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def collect_seldom() -> None:
    """For roles whose requests or batches make no cycles, but many objects that live until a flush.

    Looking for cycles so often costs the journal 10 %, and a worker of the `eau` role 3 %.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


#: mallopt(3). The largest that glibc takes for a block without a mapping of its own; what it keeps when all is freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_IN_THE_HEAP = 32 << 20
_KEPT = 64 << 20


def keep_freed_memory() -> None:
    """For roles whose every batch needs the same megabytes again: the C library keeps them, up to 64 MB a thread.

    It would give them back to the kernel after each batch and take them anew, a page fault and a cleared page for every
    4 KB. What was in them stays there until it is written over; for the vault `vault/memory.py` says what that means.
    Where the C library is not glibc, nothing happens.
    """
    libc = ctypes.CDLL(None)
    try:
        libc.mallopt(_M_MMAP_THRESHOLD, _IN_THE_HEAP)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    except AttributeError:
        return
