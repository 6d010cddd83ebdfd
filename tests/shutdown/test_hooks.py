"""Programs and HTTP hooks of others: whatever they do, the caller gets an outcome and goes on (§ 10, SW-08)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop

from schleuse.shutdown.hooks import Outcome, digest, post, run_program

LONG = timedelta(seconds=60)


def alive(pid: int) -> bool:
    """Whether it runs; who has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(done: Callable[[], bool], seconds: float = 30) -> None:
    """Poll; a generous limit for a busy machine."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_program_that_ends_before_it_reads_is_no_failure_of_ours() -> None:
    """Roles run under uvloop, whose closed pipe raises what asyncio's does not: about one time in ten."""

    async def often() -> list[Outcome]:
        return [await run_program(("true",), LONG, b"x" * size) for size in (100, 200_000) for _ in range(50)]

    assert {one.code for one in uvloop.run(often())} == {0}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize(
    "answer", [b"x" * 300_000, b"x" * 65_537, b"", b"\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 yes\r\n", b"\xff\x00\r\n"]
)
def test_an_http_hook_that_answers_with_rubbish_has_not_answered(
    answer: bytes, run: Callable[[Coroutine[None, None, Outcome]], Outcome]
) -> None:
    async def asked() -> Outcome:
        async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(answer)
            with suppress(ConnectionError):  # the other side has gone
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(says, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await post(f"http://127.0.0.1:{port}/", b"{}", LONG)

    outcome = run(asked())
    assert (outcome.code, outcome.done) == (None, False)


@pytest.mark.parametrize(("code", "done"), [(0, True), (1, False), (200, False), (255, False)])
def test_only_zero_says_that_a_program_worked(code: int, done: bool) -> None:
    """255 is what ssh says when it reached nobody: such a receiver knows nothing, such a system is not stopped."""
    outcome = asyncio.run(run_program(("sh", "-c", f"exit {code}"), LONG))
    assert (outcome.code, outcome.done) == (code, done)


@pytest.mark.parametrize(
    ("status", "done"), [(0, False), (1, False), (199, False), (200, True), (204, True), (299, True), (300, False)]
)
def test_only_2xx_says_that_a_hook_worked(status: int, done: bool) -> None:
    assert Outcome(status, "", "", http=True).done is done


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_program_that_is_too_late_is_ended_with_all_that_it_forked(
    tmp_path: Path, run: Callable[[Coroutine[None, None, Outcome]], Outcome]
) -> None:
    """A probe that hangs is asked again every few seconds for days: what it leaves behind must not add up (SW-08)."""
    pids = tmp_path / "pids"
    hangs = f"sleep 300 & echo $! > {pids}.new; mv {pids}.new {pids}; sleep 300"

    async def cut() -> Outcome:
        late = timedelta(seconds=0.3)
        while True:  # on a busy machine it may be too late before it has forked
            outcome = await run_program(("sh", "-c", hangs), late)
            if pids.exists():
                return outcome
            late *= 2

    assert run(cut()).code is None
    wait_until(lambda: not alive(int(pids.read_text())))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("leaves_nothing", [False, True])
def test_what_a_program_leaves_behind_is_not_waited_for_and_lives_on_if_it_may(
    tmp_path: Path, run: Callable[[Coroutine[None, None, Outcome]], Outcome], leaves_nothing: bool
) -> None:
    """SW-08: it has our pipe open, and a start's child is the service itself; a probe's is nobody's."""
    pids = tmp_path / "pids"
    forks = f"sleep 300 & echo $! > {pids}; echo said; exit 1"
    began = time.monotonic()
    outcome = run(run_program(("sh", "-c", forks), timedelta(seconds=120), leaves_nothing=leaves_nothing))
    assert (outcome.code, outcome.digest) == (1, digest(b"said\n"))
    assert time.monotonic() - began < 120  # it did not wait until its time was over
    left = int(pids.read_text())
    if leaves_nothing:
        wait_until(lambda: not alive(left))
    else:
        assert alive(left)
        os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("argv", [(), ("sh", "a\x00b"), ("sh\x00",), ("\ud800",)])
def test_what_is_no_program_is_an_outcome_and_no_fault(argv: tuple[str, ...]) -> None:
    """SW-01: it would end the role, and with it the closing of everything else."""
    assert asyncio.run(run_program(argv, LONG)).code is None
