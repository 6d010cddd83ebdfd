"""A master that forks its children and forks them again when they die.

What is expensive to build (compiled rules) is built once before the fork and shared. The master itself has no
threads, no sockets and no database, so that forking stays safe at any time.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from schleuse.processes.supervisor import SUPERVISED, WELL_AFTER_SECONDS, pause_after

log = structlog.get_logger()

#: From SIGTERM to SIGKILL for the children; the role as a whole has 8 s (`supervisor.STOP_SECONDS`).
STOP_SECONDS = 6.0
_TICK_SECONDS = 0.5
_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})


@dataclass(slots=True)
class _Child:
    name: str
    main: Callable[[], None]
    pid: int = 0
    crashes: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


class Master:
    """Runs each child's `main` in a process of its own until the master is told to stop.

    pause: seconds to wait after so many crashes in a row.
    """

    def __init__(self, children: Mapping[str, Callable[[], None]], pause: Callable[[int], float] = pause_after) -> None:
        self._pause = pause
        self._children = [_Child(name, main) for name, main in children.items()]

    def run(self) -> None:
        """Return when SIGTERM or SIGINT came, or the supervisor is gone, and all children have ended."""
        # What exists now is never garbage; freezing it keeps the collector from copying shared pages.
        gc.collect()
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            while True:
                self._start_due()
                caught = signal.sigtimedwait(_SIGNALS, _TICK_SECONDS)
                self._reap()
                if (caught and caught.si_signo != signal.SIGCHLD) or _supervisor_is_gone():
                    return
        finally:
            self._stop()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _start_due(self) -> None:
        for child in self._children:
            if child.pid == 0 and time.monotonic() >= child.start_at:
                child.started_at = time.monotonic()
                child.pid = os.fork()
                if child.pid == 0:
                    _become(child.main)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._died(child, os.waitstatus_to_exitcode(status))

    def _died(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        child.pid = 0
        child.crashes = 1 if now - child.started_at > WELL_AFTER_SECONDS else child.crashes + 1
        # The first death costs no time: a worker that was killed is back while its lease still stands.
        pause = 0.0 if child.crashes == 1 else self._pause(child.crashes - 1)
        child.start_at = now + pause
        log.error("child.ended", name=child.name, code=code, restart_in_seconds=pause)

    def _stop(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        self._signal_all(signal.SIGTERM)
        while any(child.pid for child in self._children) and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
            self._reap_quietly()
        self._signal_all(signal.SIGKILL)
        for child in self._children:
            if child.pid:
                os.waitpid(child.pid, 0)

    def _reap_quietly(self) -> None:
        for child in self._children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                child.pid = 0

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)


def _become(main: Callable[[], None]) -> None:
    code = 1
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        main()
        code = 0
    except BaseException:
        log.exception("child.failed")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _supervisor_is_gone() -> bool:
    return bool(os.environ.get(SUPERVISED)) and bool(select.select([sys.stdin.fileno()], [], [], 0)[0])


class ParentWatch:
    """Tells a child that its master is gone, so that no worker outlives the role that would restart it."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def gone(self) -> bool:
        return os.getppid() != self._parent
