"""A program or an HTTP hook that somebody else keeps: called without a shell, ended after a time, its answer hashed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import ssl
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

#: Of an output this much is read and hashed; the rest is thrown away.
MAX_OUTPUT = 65_536
#: For the kernel to end what was killed. What hangs in the kernel, such as on a dead file server, is left to it.
KILL_SECONDS = 2.0

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


async def run_program(
    argv: tuple[str, ...], timeout: timedelta, data: bytes = b"", *, leaves_nothing: bool = False
) -> Outcome:
    """Run a program with `data` on its standard input. Raises nothing.

    One that is too late, or that is cut when its caller is, is killed with all that it forked into its own session: a
    probe that hangs is tried again for days and must not leave processes each time. leaves_nothing: so is what it
    leaves behind when it ends in time; else that is its own affair, such as a service that it was to start.
    """
    output = _Output()
    try:
        process = await _begun(argv, data, output)
    except OSError as cause:
        return nothing(cause.strerror or type(cause).__name__)
    except (ValueError, TypeError) as cause:  # no words at all, or a zero octet in one
        return nothing(f"no program: {type(cause).__name__}")
    try:
        with output:
            async with asyncio.timeout(timeout.total_seconds()):  # wait_for may swallow that we are cut (Python 3.11)
                await process.wait()
    except TimeoutError:
        return nothing(_late(timeout))
    finally:
        late = process.returncode is None  # or we are going down ourselves, or are cut: it is called again
        if late or leaves_nothing:
            with suppress(ProcessLookupError, PermissionError):  # it leads its session, unless it is somebody else's
                os.killpg(process.pid, signal.SIGKILL)
        if late:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_SECONDS):
                    await process.wait()
    return Outcome(process.returncode, digest(bytes(output.kept)), f"exit code {process.returncode}")


class _Output:
    """What a program writes until it ends. A child that it leaves behind may keep the pipe open for ever; that is not
    waited for, so the pipe is our own: asyncio's own would be.
    """

    def __init__(self) -> None:
        self.kept = bytearray()
        self._read = -1

    def pipe(self) -> int:
        """The end to write to. Raises OSError."""
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        return write

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_reader(self._read, self._take)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read)
        while self._take() and len(self.kept) < MAX_OUTPUT:
            pass
        self.close()

    def close(self) -> None:
        """Nobody reads any more."""
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def _take(self) -> bool:
        """Read what is there; returns whether something was."""
        try:
            piece = os.read(self._read, MAX_OUTPUT)
        except BlockingIOError:
            return False
        if not piece:  # everybody has closed it
            asyncio.get_running_loop().remove_reader(self._read)
        self.kept += piece[: MAX_OUTPUT - len(self.kept)]
        return bool(piece)


async def _begun(argv: tuple[str, ...], data: bytes, output: _Output) -> asyncio.subprocess.Process:
    """Raises OSError, ValueError, TypeError."""
    with ExitStack() as ours:
        stdin = asyncio.subprocess.DEVNULL
        if data:  # a file in memory: it need not read what it is given, and a full pipe would keep it waiting
            stdin = os.memfd_create("stdin")
            ours.callback(os.close, stdin)
            os.write(stdin, data)
            os.lseek(stdin, 0, os.SEEK_SET)
        stdout = output.pipe()
        ours.callback(os.close, stdout)
        begun = ours.enter_context(ExitStack())
        begun.callback(output.close)
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=stdin, stdout=stdout, stderr=asyncio.subprocess.STDOUT, start_new_session=True
        )
        begun.pop_all()
        return process


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
