"""A program or an HTTP hook that somebody else keeps: called without a shell, ended after a time, its answer hashed."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

#: Of an output this much is read and hashed; the rest is thrown away.
MAX_OUTPUT = 65_536

#: A program with its arguments, or the URL of a hook that gets a POST.
Action = tuple[str, ...] | str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one action. code: exit code or, with http, status; None: no answer in time, or no such program. digest:
    SHA-256 of the output, in hex."""

    code: int | None
    digest: str
    note: str
    http: bool = False

    @property
    def done(self) -> bool:
        """Whether it says that it worked."""
        return self.code is not None and 200 <= self.code < 300 if self.http else self.code == 0


async def run_program(argv: tuple[str, ...], timeout: timedelta, data: bytes = b"") -> Outcome:
    """Run a program with `data` on its standard input. Raises nothing."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if data else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as cause:
        return nothing(cause.strerror or type(cause).__name__)
    try:
        output = await asyncio.wait_for(_output(process, data), timeout.total_seconds())
    except TimeoutError:
        return nothing(_late(timeout))
    finally:
        if process.returncode is None:  # too late, or we are going down ourselves: it is called again
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        # asyncio has no public way to let go of a pipe that a grandchild may keep open for ever.
        process._transport.close()  # type: ignore[attr-defined]
        await asyncio.sleep(0)  # the pipes close in the next round of the loop
    return Outcome(process.returncode, digest(output), f"exit code {process.returncode}")


async def _output(process: asyncio.subprocess.Process, data: bytes) -> bytes:
    """What it writes until it ends. A child that it leaves behind may keep the pipe open; that is not waited for."""
    kept = bytearray()
    reading = asyncio.create_task(_drain(process.stdout, kept))
    try:
        if process.stdin is not None:
            # It need not read what it is given; RuntimeError is uvloop's word for a pipe that has closed.
            with suppress(ConnectionError, RuntimeError):
                process.stdin.write(data)
                await process.stdin.drain()
                process.stdin.close()
        await process.wait()
        await asyncio.wait({reading}, timeout=0.2)
        return bytes(kept)
    finally:
        reading.cancel()


async def _drain(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    while stream is not None and (piece := await stream.read(MAX_OUTPUT)):
        kept += piece[: MAX_OUTPUT - len(kept)]


async def post(
    url: str,
    data: bytes,
    timeout: timedelta,
    headers: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> Outcome:
    """POST JSON; follows no redirect. timeout: of all of it, however slowly the other side drips. Raises nothing.

    trust: for https; None: the CAs of this machine.
    """
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await _post(url, data, headers or {}, trust)
    except TimeoutError:
        return nothing(_late(timeout))
    except ssl.SSLCertVerificationError as cause:
        return nothing(f"certificate: {cause.verify_message}")
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as cause:
        return nothing(type(cause).__name__)


async def _post(url: str, data: bytes, headers: Mapping[str, str], trust: ssl.SSLContext | None) -> Outcome:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return nothing("the hook is no URL of http or https")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    tls = (trust or ssl.create_default_context()) if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=MAX_OUTPUT)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = {
            "Host": parts.netloc.rpartition("@")[2],
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Connection": "close",
            **headers,
        }
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(head.encode("ascii") + b"\r\n" + data)
        await writer.drain()
        first = await reader.readuntil(b"\r\n")
        status = int(first.split()[1]) if first.startswith(b"HTTP/1.") and len(first.split()) > 1 else None
        return Outcome(status, digest(first), f"status {status}", http=True)
    finally:
        writer.transport.abort()  # the answer has come: nobody waits for a polite end of TLS
        with suppress(OSError):
            await writer.wait_closed()


def digest(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def nothing(note: str) -> Outcome:
    """No answer."""
    return Outcome(None, digest(b""), note)


def _late(timeout: timedelta) -> str:
    return f"no end within {timeout.total_seconds():.0f} s"
