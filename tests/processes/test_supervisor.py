"""The supervisor: real processes that die, hang and stop."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from schleuse.processes.supervisor import LONGEST_PAUSE_SECONDS, MAX_LOG_OCTETS, Role, Supervisor, pause_after


def a_role(tmp_path: Path, name: str, program: str) -> Role:
    return Role(name, [sys.executable, "-c", program], tmp_path / f"{name}.log")


async def until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def test_the_pause_doubles_and_has_an_end() -> None:
    pauses = [pause_after(crashes) for crashes in range(1, 12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(pauses) == LONGEST_PAUSE_SECONDS


def test_one_role_dies_and_comes_back_while_the_other_works_on(tmp_path: Path) -> None:
    dying = a_role(tmp_path, "dying", "raise SystemExit(3)")
    steady = a_role(tmp_path, "steady", "import time; time.sleep(600)")
    said: list[str] = []

    async def scenario() -> None:
        supervisor = Supervisor([dying, steady], os.environ, said.append)
        running = asyncio.create_task(supervisor.run())
        await until(lambda: dying.starts >= 2)
        assert steady.process is not None
        assert steady.process.returncode is None
        supervisor.stop()
        await running
        assert steady.process.returncode == -15

    asyncio.run(scenario())
    assert steady.starts == 1
    assert said[0].startswith("dying ended with 3")


def test_a_role_ends_when_the_supervisor_is_gone(tmp_path: Path) -> None:
    """The pipe on its standard input ends, and `until_stopped` returns."""
    program = (
        "import asyncio, schleuse.processes.life as life; print('up', flush=True);"
        "asyncio.run(life.until_stopped()); print('down', flush=True)"
    )
    role = a_role(tmp_path, "orphan", program)

    async def scenario() -> None:
        supervisor = Supervisor([role], {**os.environ, "PYTHONPATH": "src"}, print)
        running = asyncio.create_task(supervisor.run())
        await until(lambda: role.log.exists() and b"up" in role.log.read_bytes())
        assert role.process is not None
        assert role.process.stdin is not None
        role.process.stdin.close()  # what the kernel does for a killed supervisor
        await until(lambda: b"down" in role.log.read_bytes())
        supervisor.stop()
        await running

    asyncio.run(scenario())


def test_two_of_one_role_on_one_home_are_refused(tmp_path: Path) -> None:
    from schleuse.processes.life import AlreadyRunningError, only_instance

    refused = pytest.raises(AlreadyRunningError, match="already runs")
    with only_instance(tmp_path, "kim"), refused, only_instance(tmp_path, "kim"):
        pass
    with only_instance(tmp_path, "kim"):
        pass


def test_a_role_that_cannot_be_started_stops_no_other(tmp_path: Path) -> None:
    missing = Role("missing", [str(tmp_path / "nowhere")], tmp_path / "missing.log")
    steady = a_role(tmp_path, "steady", "import time; time.sleep(600)")

    async def scenario() -> None:
        supervisor = Supervisor([missing, steady], os.environ, lambda _line: None)
        running = asyncio.create_task(supervisor.run())
        await until(lambda: missing.starts >= 2 and steady.process is not None)
        assert steady.process is not None
        assert steady.process.returncode is None
        supervisor.stop()
        await running

    asyncio.run(scenario())
    assert steady.starts == 1


def test_a_log_that_grew_too_long_is_put_aside_at_a_start(tmp_path: Path) -> None:
    role = a_role(tmp_path, "chatty", "print('new')")
    with role.log.open("wb") as file:
        file.truncate(MAX_LOG_OCTETS + 1)

    async def scenario() -> None:
        supervisor = Supervisor([role], os.environ, print)
        running = asyncio.create_task(supervisor.run())
        await until(lambda: role.log.exists() and b"new" in role.log.read_bytes())
        supervisor.stop()
        await running

    asyncio.run(scenario())
    assert (tmp_path / "chatty.log.1").stat().st_size > MAX_LOG_OCTETS
