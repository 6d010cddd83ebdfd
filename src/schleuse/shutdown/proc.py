"""What /proc says of processes (Linux); what ended while we looked is left out, never an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """proc_pid_stat(5). state: one letter, "Z" and "X" are dead. session: pid of its leader. started: clock ticks since
    the machine's start."""

    pid: int
    state: str
    parent: int
    session: int
    started: int

    @property
    def lives(self) -> bool:
        """A zombie is gone."""
        return self.state not in ("Z", "X")


def process(pid: int, proc: Path = PROC) -> Process | None:
    """None: it is gone. Fields 3 to 6 and 22 stand after the name, which may contain blanks and brackets."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return Process(pid, fields[0].decode("ascii"), int(fields[1]), int(fields[3]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def processes(proc: Path = PROC) -> Iterator[Process]:
    """All that we may see, by pid."""
    for pid in sorted(int(one.name) for one in proc.iterdir() if one.name.isdigit()):
        found = process(pid, proc)
        if found is not None:
            yield found


def descendants(roots: set[int], among: dict[int, Process]) -> set[int]:
    """These and all that they forked."""
    found = set(roots)
    while more := {pid for pid, one in among.items() if one.parent in found} - found:
        found |= more
    return found


def read(path: Path) -> bytes:
    """A file of /proc; b"" if its process ended while we looked."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
