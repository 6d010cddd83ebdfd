"""`schleuse up` and `schleuse run ROLE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Literal, assert_never

import structlog
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from schleuse.clock import utc_now
from schleuse.config import FILE_NAME, BadConfigError, Config, default_home, keep_last_config, read_config
from schleuse.errors import ConflictError
from schleuse.processes.life import keep_private, only_instance, open_many
from schleuse.processes.observe import configure_log
from schleuse.processes.supervisor import Role, Supervisor, role_command, witness_command

log = structlog.get_logger()

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
ROLES = ("journal", "vault", "kim", "eau", "control")

#: A role that starts in order needs less; then one wants to know why.
TELL_AFTER_SECONDS = 5.0


class NoHomeError(ConflictError):
    """There is no configuration in this folder; `schleuse init` or `up --demo` writes one."""

    code = "cli.no-home"


def run(role: Literal["journal", "vault", "kim", "eau", "control"], *, home: Home = None) -> None:
    """Run one role in the foreground; systemd and `schleuse up` start it like this."""
    keep_private()
    open_many()
    folder = home or default_home()
    config = read_config(folder)
    configure_log(role)
    # Named one by one: an import brings a role's libraries, and no role needs another's.
    match role:
        case "journal":
            from schleuse.processes.journal import main
        case "vault":
            from schleuse.processes.vault import main
        case "kim":
            from schleuse.processes.kim import main
        case "eau":
            from schleuse.processes.eau import main
        case "control":
            from schleuse.processes.control import main
        case _:
            assert_never(role)
    with only_instance(config.home, role):
        try:
            keep_last_config(config)
        except (OSError, BadConfigError) as cause:  # the role itself needs it not
            log.warning("config.not-kept", reason=str(cause))
        main(config)


def up(*, demo: bool = False, home: Home = None) -> None:
    """Run all roles on this machine.

    Parameters
    ----------
    demo
        On the first start, make a home with three insurers, two practices and a development PKI.
    """
    keep_private()
    folder = home or default_home()
    console = Console(stderr=True)
    if not (folder / FILE_NAME).exists():
        if not demo:
            raise NoHomeError(
                f"{folder} has no {FILE_NAME}; write one with `schleuse init`, or try `schleuse up --demo`"
            )
        from schleuse.processes.demo import create_demo

        with _Steps(console) as steps:
            create_demo(folder, steps.next)
    config = read_config(folder)
    with only_instance(config.home, "supervisor"):
        configure_log("supervisor")
        if config.witnesses:
            from schleuse.processes.home_witnesses import renew_witnesses

            renew_witnesses(config, utc_now().year)
        asyncio.run(_up(config, console))


async def _up(config: Config, console: Console) -> None:
    roles = [Role(name, role_command(name, config.home), config.home / "log" / f"{name}.log") for name in ROLES]
    roles += [
        Role(
            f"witness {folder.parent.name}",
            witness_command(folder),
            config.home / "log" / f"witness-{folder.parent.name}.log",
        )
        for folder in config.witnesses
    ]
    supervisor = Supervisor(roles, os.environ, lambda line: console.print(f"[yellow]![/] {line}"))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    running = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(_announce(config, console))
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel() if running.done() else None
    await running
    console.print("Schleuse: alles angehalten." if german() else "Schleuse: everything has stopped.")


async def _announce(config: Config, console: Console) -> None:
    from schleuse.processes.answering import why_not_ready, working_roles

    ports = {**working_roles(config), "control": config.control.metrics}
    with _Steps(console) as steps:
        for role, listen in ports.items():
            steps.next(role)
            begun, said_last = time.monotonic(), ""
            while (reason := await asyncio.to_thread(why_not_ready, listen, 2.0)) is not None:
                if reason and reason != said_last and time.monotonic() - begun > TELL_AFTER_SECONDS:
                    console.print(f"[yellow]![/] {role} {said('wartet', 'waits')}: {escape(reason)}", highlight=False)
                    said_last = reason
                await asyncio.sleep(0.1)
    from schleuse.processes.demo import what_runs_where

    console.print(what_runs_where(config, german()), soft_wrap=True)
    sys.stderr.flush()


class _Steps:
    """A line for each step, with its time; the running one spins."""

    def __init__(self, console: Console) -> None:
        columns = (SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._task: TaskID | None = None

    def next(self, step: str) -> None:
        """The step before is done, this one runs."""
        self._finish()
        self._task = self._progress.add_task(step, total=1)

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=1)

    def __enter__(self) -> _Steps:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()


def german() -> bool:
    """Operators read German unless SCHLEUSE_LANG says en."""
    return os.environ.get("SCHLEUSE_LANG", "de").lower() != "en"


def said(de: str, en: str) -> str:
    """The one in the language of this shell."""
    return de if german() else en
