"""A listener on loopback in a thread of its own, so that tests may be plain blocking clients."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.mail.fakes import MemoryIntake, TablePolicy

from schleuse.clock import utc_now
from schleuse.mail.listener import Event, Limits, Listener, listen_smtp
from schleuse.mail.passwords import CheckPasswords
from schleuse.mail.smtp import Settings

T = TypeVar("T")
HOST = "127.0.0.1"
PATIENCE = 20.0  # seconds until a test that hangs fails


@dataclass
class Server:
    """What a test sees of the running listener."""

    loop: asyncio.AbstractEventLoop
    intake: MemoryIntake
    policy: TablePolicy
    counts: Counter[str] = field(default_factory=Counter)
    port: int = 0
    listener: Listener | None = None
    stop: asyncio.Event | None = None
    stopped: Future[None] = field(default_factory=Future)

    def call(self, function: Callable[[Listener], T]) -> T:
        """Run in the loop's thread."""

        async def step() -> T:
            assert self.listener is not None
            return function(self.listener)

        return asyncio.run_coroutine_threadsafe(step(), self.loop).result(PATIENCE)

    def later(self, seconds: float) -> None:
        """Look at all timeouts as if so much time had passed."""
        self.call(lambda listener: listener.sweep(self.loop.time() + seconds))

    def begin_stop(self) -> None:
        """Ask the listener to drain; `stopped` is done when it has."""
        assert self.stop is not None
        self.loop.call_soon_threadsafe(self.stop.set)

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), PATIENCE)


@contextmanager
def running(
    *,
    settings: Settings,
    intake: MemoryIntake | None = None,
    policy: TablePolicy | None = None,
    passwords: CheckPasswords | None = None,
    tls: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    limits: Limits | None = None,
    grace: float = PATIENCE,
    with_uvloop: bool = False,
) -> Iterator[Server]:
    loop = uvloop.new_event_loop() if with_uvloop else asyncio.new_event_loop()
    server = Server(loop, intake or MemoryIntake(), policy or TablePolicy())
    ready = threading.Event()

    def count(event: Event) -> None:
        server.counts[event] += 1

    async def serve() -> None:
        server.stop = asyncio.Event()
        async with listen_smtp(
            HOST,
            0,
            settings=settings,
            policy=server.policy,
            intake=server.intake,
            now=utc_now,
            passwords=passwords,
            tls=tls,
            implicit_tls=implicit_tls,
            limits=limits,
            count=count,
            grace=grace,
        ) as listener:
            server.listener, server.port = listener, listener.port
            ready.set()
            await server.stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
            loop.run_until_complete(loop.shutdown_asyncgens())
            server.stopped.set_result(None)
        except BaseException as fault:
            server.stopped.set_exception(fault)
            ready.set()
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(PATIENCE)
    try:
        yield server
    finally:
        if not server.stopped.done():
            server.begin_stop()
        thread.join(PATIENCE)
        server.stopped.result(0)


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


def make_certificate(folder: Path) -> Certificate:
    """A self-signed one for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(folder / "server.crt", folder / "server.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
