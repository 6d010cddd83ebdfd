"""What keeps keys out of core dumps, debuggers and swap, as far as this system allows (journal.md § 14.2 step 7).

What is not kept out of the process's own memory is plaintext: the C library keeps what was freed for the next batch, up
to 64 MB a thread (`processes/life.keep_freed_memory`), so that of documents may lie there until it is written over or
the vault ends, large ones too. Whoever can read it there can read the keys as well, which opens much more.
"""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4  #: linux/prctl.h
#: MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT (sys/mman.h): all that is ever touched, and not all of each thread's stack
#: at once, which took 180 MB more with 20 threads.
_ALL_THAT_IS_TOUCHED = 1 | 2 | 4


def guard_memory() -> list[str]:
    """No core dump, no debugger of the same user, no swap. Returns what could not be done, a sentence each.

    Call it in the process itself: neither dumpable nor locks survive exec, and locks are not inherited by fork.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return [complaint for complaint in (_no_core(), _not_dumpable(libc), _locked(libc)) if complaint]


def wipe(buffer: bytearray) -> None:
    """Overwrite a key that is no longer needed. Copies that Python or OpenSSL made are beyond us."""
    buffer[:] = bytes(len(buffer))


def _no_core() -> str | None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as cause:
        return f"core dumps cannot be switched off ({cause})"
    return None


def _not_dumpable(libc: ctypes.CDLL) -> str | None:
    # RLIMIT_CORE does not bind a core_pattern that pipes to a program; this does, and it stops ptrace of the same user.
    try:
        failed = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except AttributeError:
        return "this system has no prctl; a debugger of the same user can read keys"
    return f"the process cannot be made undumpable ({os.strerror(ctypes.get_errno())})" if failed else None


def _locked(libc: ctypes.CDLL) -> str | None:
    # With a finite limit, MCL_FUTURE makes each later mmap fail once the limit is full: better swap than a dead vault.
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and not _may_lock_all():
        return f"memory may be swapped: at most {limit} bytes may be locked; LimitMEMLOCK=infinity of the service helps"
    if libc.mlockall(_ALL_THAT_IS_TOUCHED):
        return f"memory may be swapped ({os.strerror(ctypes.get_errno())}); LimitMEMLOCK=infinity of the service helps"
    return None


def _may_lock_all() -> bool:
    """Whether CAP_IPC_LOCK (bit 14) lifts the limit."""
    try:
        with open("/proc/self/status", "rb") as status:
            effective = next(line for line in status if line.startswith(b"CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective.split()[1], 16) >> 14 & 1)
