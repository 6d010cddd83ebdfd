"""What roles ask of the process that they run in."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_BATCHES = """
import resource
from schleuse.processes.life import keep_freed_memory
{first}
def faults(batches):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(batches):
        blocks = [bytearray(2 << 20) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(3)
print(faults(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_a_role_that_keeps_freed_memory_does_not_take_it_from_the_kernel_again() -> None:
    def faults(first: str) -> int:
        command = [sys.executable, "-c", _BATCHES.format(first=first)]
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, check=True, env=os.environ | path)
        return int(done.stdout)

    assert faults("keep_freed_memory()") * 10 < faults("")


def test_a_role_may_have_as_many_files_open_as_the_system_allows() -> None:
    code = (
        "import resource as r; _, most = r.getrlimit(r.RLIMIT_NOFILE); r.setrlimit(r.RLIMIT_NOFILE, (256, most));"
        "from schleuse.processes.life import open_many; open_many();"
        "print(r.getrlimit(r.RLIMIT_NOFILE) == (most, most))"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | path)
    assert done.stdout == b"True\n"
