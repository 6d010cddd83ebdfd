"""What stands in front of every request to the feed: a bound on its size, and headers on its answer."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schleuse.eau.feed_errors import problem

#: The only body that the feed takes is a cursor.
MAX_BODY = 4096
#: How long its sender may take over it.
BODY_SECONDS = 10.0

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
]


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        try:
            async with asyncio.timeout(self._body_seconds):
                body = await _read(receive)
        except TimeoutError:
            answer = problem(408, "http.408", "the request did not arrive in time", {"Connection": "close"})
            await answer(scope, receive, guarded)
            return
        if body is None:
            answer = problem(413, "http.413", f"a request has at most {MAX_BODY} octets")
            await answer(scope, receive, guarded)
            return
        await self._app(scope, _replay(body, receive), guarded)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """First the body, then what the server says (that the client has gone)."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
