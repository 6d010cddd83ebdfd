"""Who never ends his TLS handshake holds a connection for its time and no longer, whatever he sends meanwhile."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any, cast

from tests.mail.fakes import MemoryIntake, TablePolicy
from tests.mail.smtp_server import make_certificate

from schleuse.clock import utc_now
from schleuse.mail import pop3_listener
from schleuse.mail.listener import HANDSHAKE_TIMEOUT, Limits, Listener, Parts, _Connection, tls_context
from schleuse.mail.smtp import Settings

CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01"  # of a record of 512 octets


@dataclass
class Clock:
    """The loop's clock and timers, as a test moves them."""

    now: float = 0.0
    timers: list[tuple[float, Any]] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Any) -> Timer:
        self.timers.append((self.now + delay, call))
        return Timer()

    def move_to(self, now: float) -> None:
        self.now = now
        due = [call for at, call in self.timers if at <= now]
        self.timers = [(at, call) for at, call in self.timers if at > now]
        for call in due:
            call()


class Timer:
    def cancel(self) -> None:
        pass


class Wire(asyncio.Transport):
    """Notes only whether it was ended."""

    ended = False

    def write(self, _data: bytes | bytearray | memoryview) -> None:
        pass

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def context(folder: Any) -> ssl.SSLContext:
    certificate = make_certificate(folder)
    return tls_context(certificate.certificate, certificate.key)


def test_an_smtp_client_that_trickles_its_handshake_is_cut_off(tmp_path: Any) -> None:
    async def scenario() -> None:
        parts = Parts(
            Settings("kim.test"), TablePolicy(), MemoryIntake(), None, utc_now, lambda _event: None, lambda _what: None
        )
        listener = Listener(parts, tls=context(tmp_path), implicit_tls=True, limits=Limits())
        clock, wire = Clock(), Wire()
        connection = _Connection(listener, cast(asyncio.AbstractEventLoop, clock))
        connection.connection_made(wire)
        for second, octet in enumerate(CLIENT_HELLO):
            clock.now = second * HANDSHAKE_TIMEOUT / 4
            connection.check_time(clock.now)
            connection.data_received(bytes([octet]))
        assert clock.now > HANDSHAKE_TIMEOUT
        assert wire.ended

    asyncio.run(scenario())


def test_a_pop3_client_that_trickles_its_handshake_is_cut_off(tmp_path: Any) -> None:
    async def scenario() -> None:
        async def nobody(_user: str, _password: str, _peer: str) -> None:
            return None

        listener = pop3_listener.Listener(
            pop3_listener.Config("kim.test"),
            tls=context(tmp_path),
            authenticate=nobody,
            mailboxes=cast(pop3_listener.Mailboxes, None),
        )
        limit = pop3_listener.HANDSHAKE_TIMEOUT.total_seconds()
        clock, wire = Clock(), Wire()
        connection = pop3_listener._Connection(listener)
        connection._loop = cast(asyncio.AbstractEventLoop, clock)
        connection._active_at = connection._shaking_since = clock.now
        connection.connection_made(wire)
        for second, octet in enumerate(CLIENT_HELLO):
            clock.move_to(second * limit / 4)
            connection.data_received(bytes([octet]))
        assert wire.ended

    asyncio.run(scenario())
