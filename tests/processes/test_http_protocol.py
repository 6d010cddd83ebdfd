"""Strangers who hold connections, send heads without end or bodies without hurry cost the feed nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from schleuse.eau.feed_guard import Guard
from schleuse.processes.http_protocol import BoundedProtocol
from schleuse.processes.observe import serving

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENCE = 20.0


class Impatient(BoundedProtocol):
    max_connections = 3
    head_seconds = 0.05


class Patient(BoundedProtocol):
    max_connections = 3


async def _hello(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@asynccontextmanager
async def served(http: type[BoundedProtocol]) -> AsyncIterator[int]:
    app = Guard(Starlette(routes=[Route("/", _hello, methods=["GET", "POST"])]), body_seconds=0.05)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=http, ws="none", lifespan="off", log_config=None)
    async with serving(config) as server:
        yield server.servers[0].sockets[0].getsockname()[1]


async def _talk(port: int, *pieces: bytes) -> bytes:
    """Everything the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(4096):
                answer += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


def test_an_ordinary_request_is_answered_and_the_next_one_too() -> None:
    async def run() -> bytes:
        async with served(Patient) as port:
            return await _talk(port, REQUEST, REQUEST.replace(b"Host", b"Connection: close\r\nHost"))

    assert asyncio.run(run()).count(b"hello") == 2


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost: ", REQUEST + b"GET / HT"])
def test_a_head_that_does_not_come_ends_the_connection(beginning: bytes) -> None:
    async def run() -> bytes:
        async with served(Impatient) as port:
            return await _talk(port, beginning)

    assert asyncio.run(run()).count(b"hello") == beginning.count(b"\r\n\r\n")


def test_a_head_without_end_is_refused() -> None:
    async def run() -> bytes:
        async with served(Patient) as port:
            return await _talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X-A: " + b"a" * 60_000 + b"\r\n"] * 100)

    assert b"hello" not in asyncio.run(run())


def test_a_body_that_does_not_come_is_answered_408() -> None:
    async def run() -> bytes:
        async with served(Patient) as port:
            return await _talk(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")

    assert asyncio.run(run()).startswith(b"HTTP/1.1 408 ")


def test_more_connections_than_allowed_are_closed_and_leave_the_others_alone() -> None:
    async def run() -> tuple[bytes, bytes]:
        async with served(Patient) as port:
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for _, writer in held:
                writer.write(REQUEST)
            first = [await reader.readuntil(b"hello") for reader, _ in held]
            refused = await _talk(port, REQUEST)
            for _, writer in held:
                writer.close()
            return first[0], refused

    answered, refused = asyncio.run(run())
    assert answered.endswith(b"hello")
    assert refused == b""
