"""Keys stay out of core dumps and swap. Each test guards a process of its own: a guard cannot be taken back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schleuse.vault.memory import wipe

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


GUARD = "from schleuse.vault.memory import guard_memory; missing = guard_memory()\n"


def test_a_crashed_vault_leaves_no_core_dump(tmp_path: Path) -> None:
    code = (
        "import os, resource\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"
        f"{GUARD}"
        "os.abort()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []


def test_neither_the_limit_nor_the_kernel_allows_a_dump() -> None:
    code = (
        f"{GUARD}import ctypes, resource\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    assert run(code).stdout == "(0, 0) 0\n"


def test_memory_is_locked_or_it_says_that_it_is_not() -> None:
    code = f"{GUARD}print(missing); print(open('/proc/self/status').read())"
    printed = run(code).stdout
    locked = next(int(line.split()[1]) for line in printed.splitlines() if line.startswith("VmLck:"))
    assert (locked > 0) != ("may be swapped" in printed.splitlines()[0])


def test_a_finite_limit_is_told_instead_of_killing_the_vault_later() -> None:
    code = (
        "import os, resource; from schleuse.vault.memory import guard_memory\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"  # without CAP_IPC_LOCK the limit holds
        "missing = guard_memory(); kept = bytearray(64 << 20); print(missing)"
    )
    done = run(code)
    assert "at most 1048576 bytes may be locked" in done.stdout
    assert "LimitMEMLOCK=infinity" in done.stdout
    assert done.returncode == 0


def test_the_guarded_process_still_works() -> None:
    code = f"{GUARD}import threading; t = threading.Thread(target=print, args=('ok',)); t.start(); t.join()"
    assert run(code).stdout == "ok\n"


@pytest.mark.parametrize("length", [0, 1, 32])
def test_wiping_leaves_zeros_of_the_same_length(length: int) -> None:
    key = bytearray(b"k" * length)
    alias = memoryview(key)
    wipe(key)
    assert alias == bytes(length)
