"""A next host for tests: a small SMTP server on loopback that fails as it is told, before or after the effect."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Plan = bytes | Literal["drop", "keep and drop"]
EXTENSIONS = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


@dataclass
class Taken:
    mail: str
    rcpt: str
    content: bytes
    user: str | None


@dataclass
class FakeSMTPServer:
    """plans: what to answer to the next EHLO, MAIL, RCPT, DATA, CONTENT … instead; "CONNECT" for the greeting.

    "drop": end the connection before any effect; "keep and drop": keep the mail and lose the reply.
    """

    extensions: tuple[str, ...] = EXTENSIONS
    implicit: ssl.SSLContext | None = None
    starttls: ssl.SSLContext | None = None
    login: tuple[str, str] | None = None
    plans: dict[str, deque[Plan]] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0
    hold: asyncio.Event | None = None  # CONTENT waits for it
    port: int = 0

    def plan(self, verb: str, *plans: Plan) -> None:
        self.plans.setdefault(verb, deque()).extend(plans)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeSMTPServer]:
        sessions: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            sessions.add(task)
            try:
                await _Session(self, reader, writer).run()
            except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                pass
            finally:
                sessions.discard(task)
                self.open -= 1
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self.implicit, limit=1 << 22)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in [*sessions]:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)


class _Session:
    def __init__(self, server: FakeSMTPServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._secure = server.implicit is not None
        self._user: str | None = None
        self._mail = ""
        self._rcpt = ""

    async def run(self) -> None:
        self._server.connections += 1
        self._server.open += 1
        self._server.most_open = max(self._server.most_open, self._server.open)
        if not await self._say("CONNECT", b"220 next.example ESMTP"):
            return
        while line := await self._reader.readline():
            text = line.decode().rstrip("\r\n")
            self._server.commands.append(text)
            verb = text.split(" ")[0].upper()
            if not await self._command(verb, text):
                return

    async def _command(self, verb: str, text: str) -> bool:
        match verb:
            case "EHLO":
                return await self._say(verb, self._hello())
            case "STARTTLS" if self._server.starttls is not None:
                if await self._say(verb, b"220 go"):
                    await self._writer.start_tls(self._server.starttls)
                    self._secure = True
                return True
            case "AUTH":
                user, password = base64.b64decode(text.split(" ")[2]).decode().split("\0")[1:]
                good = (user, password) == self._server.login
                self._user = user if good else None
                return await self._say(verb, b"235 2.7.0 ok" if good else b"535 5.7.8 no")
            case "MAIL":
                self._mail = text
                if self._server.login and not self._user:
                    return await self._say(verb, b"530 5.7.0 log in")
                return await self._say(verb, b"250 2.1.0 ok")
            case "RCPT":
                self._rcpt = text
                return await self._say(verb, b"250 2.1.5 ok")
            case "DATA":
                return await self._data()
            case "QUIT":
                await self._say(verb, b"221 bye")
                return False
            case _:
                return await self._say(verb, b"250 ok")

    async def _data(self) -> bool:
        if not await self._say("DATA", b"354 go"):
            return False
        if self._last[:1] != b"3":
            return True
        lines = []
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                return False  # the client went without an end of the content
            lines.append(line[1:] if line.startswith(b".") else line)
        if self._server.hold is not None:
            await self._server.hold.wait()
        content = b"".join(lines)
        queue = self._server.plans.get("CONTENT")
        plan = queue.popleft() if queue else b"250 2.0.0 kept"
        if plan == "drop":
            return False
        if plan == "keep and drop" or plan[:1] == b"2":
            self._server.taken.append(Taken(self._mail, self._rcpt, content, self._user))
        if isinstance(plan, str):
            return False
        return await self._write(plan)

    def _hello(self) -> bytes:
        lines = ["next.example", *self._server.extensions]
        if self._server.starttls is not None and not self._secure:
            lines.append("STARTTLS")
        if self._server.login is not None:
            lines.append("AUTH PLAIN")
        return "\r\n".join(f"250{' ' if i == len(lines) - 1 else '-'}{line}" for i, line in enumerate(lines)).encode()

    async def _say(self, verb: str, usual: bytes) -> bool:
        queue = self._server.plans.get(verb)
        plan = queue.popleft() if queue else usual
        return False if isinstance(plan, str) else await self._write(plan)

    async def _write(self, reply: bytes) -> bool:
        self._last = reply
        self._writer.write(reply + b"\r\n")
        await self._writer.drain()
        return not reply.startswith(b"421")
