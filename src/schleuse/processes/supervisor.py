"""`schleuse up`: all roles on this machine under one supervisor.

Each role is a process of its own. They start in any order, a crash of one leaves the others working, and one
that dies comes back after a pause that doubles while it keeps dying. SIGTERM or Ctrl-C ends all within 10 s.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

#: Set for a role whose standard input is the supervisor's pipe (`processes.life`).
SUPERVISED = "SCHLEUSE_SUPERVISED"
#: From SIGTERM to SIGKILL; the whole stop takes less than 10 s.
STOP_SECONDS = 8.0
#: A role's log that is longer when the role starts is put aside.
MAX_LOG_OCTETS = 50_000_000
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
#: A role that ran this long was well; its next crash starts again with the first pause.
WELL_AFTER_SECONDS = 60.0


def pause_after(crashes: int) -> float:
    """Seconds to wait before the restart that follows the given number of crashes in a row."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** max(crashes - 1, 0), LONGEST_PAUSE_SECONDS)


@dataclass(slots=True)
class Role:
    """One supervised process."""

    name: str
    command: Sequence[str]
    log: Path
    process: Process | None = None
    crashes: int = 0
    starts: int = 0
    started_at: float = field(default=0.0)


class Supervisor:
    """Keeps roles running until `stop`."""

    def __init__(self, roles: Sequence[Role], environment: Mapping[str, str], announce: Callable[[str], None]) -> None:
        self._roles = roles
        self._environment = dict(environment)
        self._announce = announce
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin the orderly stop; safe to call twice."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, restart what dies, return when all have ended."""
        async with asyncio.TaskGroup() as group:
            for role in self._roles:
                group.create_task(self._keep(role))

    async def _keep(self, role: Role) -> None:
        while not self._stopping.is_set():
            try:
                process = await self._start(role)
            except OSError as cause:  # no memory, no descriptor, no room for the log: the others work on
                await self._pause_after_crash(role, cause.strerror or type(cause).__name__)
                continue
            ended = asyncio.create_task(process.wait())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                stopping.cancel()
                await _end(process, ended)
                return
            stopping.cancel()
            await self._pause_after_crash(role, ended.result())

    async def _pause_after_crash(self, role: Role, code: int | str) -> None:
        if time.monotonic() - role.started_at > WELL_AFTER_SECONDS:
            role.crashes = 0
        role.crashes += 1
        pause = pause_after(role.crashes)
        log.error("role.ended", name=role.name, code=code, restart_in_seconds=pause)
        self._announce(f"{role.name} ended with {code}; restart in {pause:.1f} s (log: {role.log})")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)

    async def _start(self, role: Role) -> Process:
        role.started_at = time.monotonic()
        role.starts += 1
        role.log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(role.log)
        with role.log.open("ab") as output:
            role.process = await asyncio.create_subprocess_exec(
                *role.command,
                stdin=asyncio.subprocess.PIPE,  # its end tells the role that the supervisor is gone
                stdout=output,
                stderr=output,
                env={**self._environment, SUPERVISED: "1"},
                start_new_session=True,
            )
        return role.process


def _rotate(log: Path) -> None:
    """Keep one older log. At a start only: a role writes to the file itself; under systemd the journal rotates."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_OCTETS:
            log.replace(log.with_suffix(".log.1"))


async def _end(process: Process, ended: asyncio.Task[int]) -> None:
    # Each role is a session of its own, so that workers it forked end with it whatever happens to it.
    _signal_group(process, signal.SIGTERM)
    done, _ = await asyncio.wait({ended}, timeout=STOP_SECONDS)
    if not done:
        _signal_group(process, signal.SIGKILL)
        await ended


def _signal_group(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def role_command(name: str, home: Path) -> list[str]:
    """The command line of one role, run by this interpreter."""
    return [sys.executable, "-m", "schleuse", "run", name, "--home", str(home)]


def witness_command(folder: Path) -> list[str]:
    """The command line of a witness that runs beside the platform, as in the demo; a real one runs at its insurer."""
    return [sys.executable, "-m", "schleuse", "witness", "run", "--config", str(folder)]
