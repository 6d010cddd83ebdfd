"""Faults on order, for crash tests and drills: a role kills itself at a named step, or its disk fails.

    SCHLEUSE_KILL_AT="filing:0.2,finished:0.05"     step:probability, each time the step is reached
    SCHLEUSE_DISK_FAULTS="sync:0.02,write:0.02"     call:probability; EIO or ENOSPC, before or after the effect
    SCHLEUSE_DISK_ROOM="free:20e9,total:100e9"      octets that the disk of the spool is said to have

Without the variables nothing happens. The kill is SIGKILL, so nothing gets to clean up.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from schleuse.errors import MalformedError
from schleuse.mail.spool import Disk, OsDisk
from schleuse.mail.spool.disk import Buffer

_T = TypeVar("_T")

KILL_AT = "SCHLEUSE_KILL_AT"
DISK_FAULTS = "SCHLEUSE_DISK_FAULTS"
DISK_ROOM = "SCHLEUSE_DISK_ROOM"


class BadInjectionError(MalformedError):
    """A fault on order that cannot be read; who set the variable changes it."""

    code = "process.bad-injection"


def parse_injection(text: str) -> Mapping[str, float]:
    """{"filing": 0.2} out of "filing:0.2"; a bare name is certain. Raises BadInjectionError."""
    found: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        step, separator, chance = item.partition(":")
        try:
            found[step.strip()] = float(chance) if separator else 1.0
        except ValueError as cause:
            raise BadInjectionError(f"{item!r} is not name:number") from cause
    return found


def kills_are_injected() -> bool:
    """Whether this process is meant to die; then a master starts it again without a pause."""
    return bool(os.environ.get(KILL_AT))


def injected_steps() -> Callable[[str], None]:
    """What a role calls at each named step."""
    chances = parse_injection(os.environ.get(KILL_AT, ""))
    if not chances:
        return lambda _step: None
    dice = _dice()

    def reached(step: str) -> None:
        if dice.random() < chances.get(step, 0.0):
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def injected_disk() -> Disk:
    """The operating system's disk, or one that fails now and then or says that it has more or less room."""
    chances = parse_injection(os.environ.get(DISK_FAULTS, ""))
    room = parse_injection(os.environ.get(DISK_ROOM, ""))
    if room.keys() - {"free", "total"}:
        raise BadInjectionError(f"{DISK_ROOM}: only free and total can be said, not {', '.join(room)}")
    return _OrderedDisk(chances, room, _dice()) if chances or room else OsDisk()


def _dice() -> random.Random:
    return random.Random(os.urandom(8))  # noqa: S311 -- forked workers must not die in step


class _OrderedDisk:
    """Each call named in `chances` fails with that probability, half of the time after it took effect.

    said: what of `room` is said instead of what is; in octets.
    """

    def __init__(self, chances: Mapping[str, float], said: Mapping[str, float], dice: random.Random) -> None:
        self._disk = OsDisk()
        self._said = said
        self._chances = chances
        self._dice = dice

    def create(self, path: Path) -> int:
        return self._maybe("create", lambda: self._disk.create(path), effect_can_stay=False)

    def open(self, path: Path, *, write: bool) -> int:
        return self._disk.open(path, write=write)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        return self._maybe("read", lambda: self._disk.read(fd, length, offset))

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return self._maybe("write", lambda: self._disk.write(fd, buffers, offset))

    def sync(self, fd: int) -> None:
        self._maybe("sync", lambda: self._disk.sync(fd))

    def truncate(self, fd: int, length: int) -> None:
        self._maybe("truncate", lambda: self._disk.truncate(fd, length))

    def erase(self, fd: int, offset: int, length: int) -> None:
        self._maybe("erase", lambda: self._disk.erase(fd, offset, length))

    def sync_directory(self, path: Path) -> None:
        self._maybe("sync_directory", lambda: self._disk.sync_directory(path))

    def unlink(self, path: Path) -> None:
        self._maybe("unlink", lambda: self._disk.unlink(path))

    def close(self, fd: int) -> None:
        self._disk.close(fd)

    def room(self, path: Path) -> tuple[int, int]:
        free, total = self._disk.room(path)
        return int(self._said.get("free", free)), int(self._said.get("total", total))

    def _maybe(self, name: str, call: Callable[[], _T], *, effect_can_stay: bool = True) -> _T:
        if self._dice.random() >= self._chances.get(name, 0.0):
            return call()
        if effect_can_stay and self._dice.random() < 0.5:
            call()
        code = self._dice.choice((errno.EIO, errno.ENOSPC))
        raise OSError(code, os.strerror(code))
