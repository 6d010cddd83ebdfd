"""The journal's disk that fails on command, with what the switch needs beside; or one that dies there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.journal.faulty_disk import FaultyDisk

from schleuse.switch.disk import LinkingDisk

STEPS = ("open", "write", "show", "sync", "link", "unlink", "sync_directory")


class FaultySwitchDisk(FaultyDisk):
    """Satisfies `SwitchDisk`. Takes fewer octets than asked for, always."""

    def link(self, old: Path, new: Path) -> None:
        when = self._enter("link")
        os.link(old, new)
        self._fail_if(when)

    def show(self, fd: int) -> None:
        when = self._enter("show")
        LinkingDisk().show(fd)
        self._fail_if(when)

    def unlink(self, path: Path) -> None:
        when = self._enter("unlink")
        super().unlink(path)
        self._fail_if(when)


class DyingDisk(FaultySwitchDisk):
    """kill -9 before or after the named step."""

    def __init__(self, step: str, after: bool) -> None:
        super().__init__()
        self._step = step
        self._after = after

    def _enter(self, name: str) -> None:
        if name == self._step and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        self._last = name

    def _fail_if(self, when: object) -> None:
        if self._last == self._step and self._after:
            os.kill(os.getpid(), signal.SIGKILL)
