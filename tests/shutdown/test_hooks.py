"""Programs and HTTP hooks of others: whatever they do, the caller gets an outcome and goes on (§ 10, SW-08)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta

import pytest
import uvloop

from schleuse.shutdown.hooks import Outcome, post, run_program

LONG = timedelta(seconds=60)


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
