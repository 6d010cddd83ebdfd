"""The shell of the SMTP server: sockets, TLS, timeouts and limits around `mail.smtp.Session`.

A bare asyncio protocol, ready for uvloop. A mail is acknowledged only after the intake has called back that it
is durable; meanwhile nothing more of that connection is executed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import traceback
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, assert_never, cast

import structlog

from schleuse.errors import Error, UnavailableError
from schleuse.mail import smtp_replies as replies
from schleuse.mail.contracts import Intake, Mail
from schleuse.mail.passwords import CheckPasswords, Outcome
from schleuse.mail.smtp import (
    Action,
    CheckPassword,
    Close,
    Deliver,
    Phase,
    Policy,
    Postponed,
    Send,
    Session,
    Settings,
    StartTLS,
)
from schleuse.mail.tls_pipe import TLSFailedError, TLSPipe, tls_context

__all__ = ["Count", "Event", "Limits", "Listener", "listen_smtp", "tls_context"]

#: What happened, for metrics. A closed set of words.
Event = Literal[
    "connection",
    "connection_refused",
    "tls_failed",
    "timeout",
    "login",
    "login_failed",
    "mail_kept",
    "mail_failed",
    "deferred",
    "own_fault",
]
Count = Callable[[Event], None]

#: No octet for so long ends the session (RFC 5321 § 4.5.3.2.7, kim.md § 17).
IDLE_TIMEOUT = 300.0
#: One mail may take so long from DATA to its end; 36 MB at 320 kbit/s. Against senders of one octet a minute.
MESSAGE_TIMEOUT = 900.0
#: From its first octet on, however many follow: nobody has to say who he is to hold a connection until then.
HANDSHAKE_TIMEOUT = 30.0
#: How long a closing connection may take to read our last words; shorter than the drain of a stopping process.
CLOSING_TIMEOUT = 5.0
SWEEP_INTERVAL = 5.0
#: A mail longer than this needs one of the slots for large mails; most mails are 50 KB (limits.md).
LARGE_MAIL = 1 << 20
#: Octets per second; who has a slot for a large mail and is slower, while others wait for one, is sent away after
#: SLOT_GRACE seconds. The rate is that of MESSAGE_TIMEOUT; without it eight silent clients would stop all large mails.
SLOT_RATE = 40_000
SLOT_GRACE = 30.0
#: Octets that may wait here while a session waits for the store.
MAX_PIPELINED = 1 << 16
#: With replies that the client does not read we stop reading what it sends.
MAX_UNSENT = 1 << 16
BACKLOG = 512
#: asyncio announces an accepted connection some turns of the loop later.
ACCEPT_TURNS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener bears. Memory is at most connections x LARGE_MAIL + large_mails x max_size."""

    connections: int = 500
    per_peer: int = 100
    large_mails: int = 8
    idle: float = IDLE_TIMEOUT  # seconds
    message: float = MESSAGE_TIMEOUT  # seconds


@dataclass(frozen=True, slots=True)
class Parts:
    """What a connection needs from the wiring. passwords is None where nobody logs in."""

    settings: Settings
    policy: Policy
    intake: Intake
    passwords: CheckPasswords | None
    now: Callable[[], datetime]
    count: Count
    postponed: Callable[[Postponed], None]


class Listener:
    """One listening port. Made by `listen_smtp`."""

    def __init__(self, parts: Parts, *, tls: ssl.SSLContext | None, implicit_tls: bool, limits: Limits) -> None:
        self.parts = parts
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.limits = limits
        self.log = structlog.get_logger("smtp")
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._connections: set[_Connection] = set()
        self._refused: set[_Connection] = set()  # on their way out
        self._peers: Counter[str] = Counter()
        self._large: set[_Connection] = set()
        self._waiting_for_slot: deque[_Connection] = deque()
        self._finished: deque[Callable[[], None]] = deque()
        self._finished_scheduled = False
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    @property
    def port(self) -> int:
        assert self._server is not None  # noqa: S101  (started by listen_smtp)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def start(self, host: str, port: int) -> None:
        self._server = await self._loop.create_server(
            lambda: _Connection(self, self._loop), host, port, backlog=BACKLOG
        )
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    async def close(self, grace: float) -> None:
        """Take no more; let mails that are on their way end; after `grace` seconds cut the rest off."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gone.wait(), grace)
        for connection in list(self._connections):
            connection.abort()
        await self._all_gone.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper

    def sweep(self, at: float) -> None:
        """End what has taken too long. at: time of the loop's clock, in seconds."""
        for connection in list(self._connections):
            connection.check_time(at)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep(self._loop.time())

    # What connections ask ------------------------------------------------------------------------------

    def admit(self, connection: _Connection, peer: str) -> bool:
        if (
            self.draining
            or len(self._connections) >= self.limits.connections
            or self._peers[peer] >= self.limits.per_peer
        ):
            self._refused.add(connection)
            self._all_gone.clear()
            return False
        self._connections.add(connection)
        self._peers[peer] += 1
        self._all_gone.clear()
        return True

    def gone(self, connection: _Connection, peer: str) -> None:
        if connection in self._connections:
            self.give_slot_back(connection)
            self._connections.discard(connection)
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
        self._refused.discard(connection)
        if not self._connections and not self._refused:
            self._all_gone.set()

    def take_slot(self, connection: _Connection) -> bool:
        """Whether the connection may take in a large mail now; if not, it is resumed when it may."""
        if connection in self._large or len(self._large) < self.limits.large_mails:
            if connection not in self._large:
                self._large.add(connection)
                connection.slot_begins()
            return True
        self._waiting_for_slot.append(connection)
        return False

    def give_slot_back(self, connection: _Connection) -> None:
        self._large.discard(connection)
        while self._waiting_for_slot and len(self._large) < self.limits.large_mails:
            following = self._waiting_for_slot.popleft()
            if following in self._connections:
                self._large.add(following)
                following.slot_begins()
                following.slot_given()

    @property
    def large_mails(self) -> int:
        """How many have a slot."""
        return len(self._large)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for a slot for his large mail."""
        return any(connection in self._connections for connection in self._waiting_for_slot)

    def is_in_the_way(self, connection: _Connection) -> bool:
        """Whether it has a slot that others wait for."""
        return self.is_waited_for and connection in self._large

    def finish(self, call: Callable[[], None]) -> None:
        """Run a call in the loop, from any thread. Many that end together wake the loop once."""
        self._finished.append(call)
        if not self._finished_scheduled:
            self._finished_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits for the reply any more
                self._loop.call_soon_threadsafe(self._run_finished)

    def _run_finished(self) -> None:
        # First the flag, then the calls: one that is added in between wakes the loop once more.
        self._finished_scheduled = False
        while self._finished:
            call = self._finished.popleft()
            try:
                call()
            except Exception as fault:  # one connection's trouble must not keep others from their reply
                self.log.error("smtp.own_fault", kind=type(fault).__name__, where=_where(fault))


class _Connection(asyncio.Protocol):
    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._loop = loop
        self._parts = listener.parts
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._peer = ""
        self._last = loop.time()
        self._data_since: float | None = None
        self._closing_since: float | None = None
        self._writable = True
        self._needs_slot = False
        self._paused = False
        self._tls: TLSPipe | None = None
        self._tls_since = self._slot_since = self._last
        self._slot_octets = 0

    # asyncio -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not derive from it
        self._transport = transport
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]).partition("%")[0] if name else ""
        if not self._listener.admit(self, self._peer):
            self._refuse(transport)
            return
        self._parts.count("connection")
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        implicit = self._listener.implicit_tls
        self._session = Session(self._parts.settings, self._parts.policy, peer=self._peer, tls=implicit)
        if implicit:
            self._start_tls()
        else:
            self._do(self._session.greet())

    def data_received(self, data: bytes) -> None:
        session = self._session
        if session is None or self._closing_since is not None:
            return
        self._last = self._loop.time()
        self._slot_octets += len(data)
        try:
            if self._tls is not None:
                data = self._decrypt(self._tls, session, data)
            if data:
                self._do(session.receive(data, self._parts.now()))
        except TLSFailedError:
            self._tls_failed()
        except Exception as fault:
            self._own_fault(fault)
        self._regulate()

    def eof_received(self) -> bool:
        return False  # a client that closes its half has gone; an unfinished mail was never acknowledged

    def pause_writing(self) -> None:
        self._writable = False
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        self._regulate()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._in_handshake and self._closing_since is None:
            self._parts.count("tls_failed")
        self._listener.gone(self, self._peer)
        self._session = None
        self._transport = None

    # What the listener asks ----------------------------------------------------------------------------

    def drain(self) -> None:
        if self._session is None or self._closing_since is not None:
            return
        if self._in_handshake:
            self._close(unread=False)
        else:
            self._do(self._session.drain())

    def abort(self) -> None:
        if self._session is not None and self._closing_since is None:
            self._do(self._session.end(replies.SHUTTING_DOWN))
        if self._transport is not None:
            self._transport.abort()

    def slot_begins(self) -> None:
        self._slot_since, self._slot_octets = self._loop.time(), 0

    def slot_given(self) -> None:
        self._needs_slot = False
        self._last = self._data_since = self._loop.time()
        self._regulate()

    def check_time(self, at: float) -> None:
        """at: the loop's clock, in seconds."""
        if self._closing_since is not None:
            if at - self._closing_since > CLOSING_TIMEOUT and self._transport is not None:
                self._transport.abort()
            return
        if self._session is None or self._session.waiting or self._needs_slot:
            return  # it waits for us
        if self._in_handshake:
            if at - self._tls_since > HANDSHAKE_TIMEOUT:
                self._tls_failed()
            return
        limits = self._listener.limits
        mail_too_slow = self._data_since is not None and at - self._data_since > limits.message
        slot_seconds = at - self._slot_since
        too_slow_for_others = (
            self._listener.is_in_the_way(self)
            and slot_seconds > SLOT_GRACE
            and self._slot_octets < SLOT_RATE * slot_seconds
        )
        if mail_too_slow or too_slow_for_others or at - self._last > limits.idle:
            self._parts.count("timeout")
            self._do(self._session.end(replies.TIMED_OUT))

    # Inside --------------------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self._write(action.data)
                case Deliver():
                    self._deliver(action.mail)
                case CheckPassword():
                    self._check_password(action)
                case Postponed():
                    self._parts.count("deferred")
                    self._parts.postponed(action)
                case StartTLS():
                    self._start_tls()
                case Close():
                    self._close(unread=action.unread)
                case _:
                    assert_never(action)

    def _deliver(self, mail: Mail) -> None:
        def done(error: Error | None) -> None:
            self._listener.finish(lambda: self._kept(error))

        try:
            self._parts.intake.accept(mail, done)
        except Error as error:
            self._kept_later(error)
        except Exception as fault:
            self._own_fault(fault)

    def _kept_later(self, error: Error) -> None:
        # Not at once: the session is still in the middle of its own turn.
        self._listener.finish(lambda: self._kept(error))

    def _kept(self, error: Error | None) -> None:
        self._parts.count("mail_kept" if error is None else "mail_failed")
        if error is not None:
            self._listener.log.warning("smtp.not_kept", code=error.code, reason=str(error))
        if self._session is not None:
            self._go_on(lambda session: session.kept(error, self._parts.now()))

    def _check_password(self, action: CheckPassword) -> None:
        def done(outcome: Outcome) -> None:
            self._listener.finish(lambda: self._checked(outcome))

        if self._parts.passwords is None:
            done(UnavailableError("this listener has no accounts; its operator must configure them"))
        else:
            self._parts.passwords.check(action.user, action.password, self._peer, done)

    def _checked(self, outcome: Outcome) -> None:
        self._parts.count("login" if isinstance(outcome, str) else "login_failed")
        if self._session is not None:
            self._go_on(lambda session: session.password_checked(outcome, self._parts.now()))

    def _go_on(self, step: Callable[[Session], list[Action]]) -> None:
        """The session was waiting for us and goes on."""
        assert self._session is not None  # noqa: S101
        self._last = self._loop.time()
        try:
            self._do(step(self._session))
        except Exception as fault:
            self._own_fault(fault)
        self._regulate()

    def _own_fault(self, fault: Exception) -> None:
        """A bug of ours must not cost a mail: the client hears 421 and tries again."""
        self._parts.count("own_fault")
        # Kind and place only: the message of a foreign exception may quote an address.
        self._listener.log.error("smtp.own_fault", kind=type(fault).__name__, where=_where(fault))
        if self._session is not None:
            self._do(self._session.end(replies.OWN_FAULT))

    def _regulate(self) -> None:
        """Read on, or let TCP hold the client back."""
        session, transport = self._session, self._transport
        if session is None or transport is None or self._closing_since is not None:
            return
        in_data = session.phase is Phase.DATA
        if not in_data:
            self._data_since = None
            if not session.waiting:
                self._listener.give_slot_back(self)
        elif self._data_since is None:
            self._data_since = self._last
        if in_data and not self._needs_slot and session.buffered > LARGE_MAIL:
            self._needs_slot = not self._listener.take_slot(self)
        too_much = session.waiting and session.buffered > MAX_PIPELINED
        pause = too_much or self._needs_slot or not self._writable
        if pause != self._paused:
            self._paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    # TLS -----------------------------------------------------------------------------------------------

    @property
    def _in_handshake(self) -> bool:
        return self._tls is not None and not self._tls.established

    def _start_tls(self) -> None:
        """From the next octet on, the client speaks TLS."""
        assert self._listener.tls is not None  # noqa: S101  (checked by listen_smtp)
        self._tls = TLSPipe(self._listener.tls)
        self._tls_since = self._loop.time()

    def _decrypt(self, tls: TLSPipe, session: Session, data: bytes) -> bytes:
        """Plain octets. Ends the handshake, when it ends."""
        handshake = not tls.established
        plain = tls.receive(data)
        if handshake:
            self._flush_tls(tls)
            if tls.established:
                self._tls_started(session)
        if tls.ended and self._transport is not None:
            self._transport.close()
        return plain

    def _tls_started(self, session: Session) -> None:
        if self._listener.implicit_tls:
            self._do(session.greet())
        else:
            session.tls_started()
        if self._listener.draining:
            self._do(session.drain())

    def _tls_failed(self) -> None:
        self._parts.count("tls_failed")
        if self._tls is not None:
            self._flush_tls(self._tls)  # the alert
        self._close(unread=True)

    def _flush_tls(self, tls: TLSPipe) -> None:
        octets = tls.to_send()
        if octets and self._transport is not None:
            self._transport.write(octets)

    # The transport -------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._tls is not None:
            if self._tls.established:  # within the handshake there is nobody to talk to
                self._tls.send(data)
                self._flush_tls(self._tls)
        elif self._transport is not None:
            self._transport.write(data)

    def _refuse(self, transport: asyncio.Transport) -> None:
        """Too many connections. Under implicit TLS without a word: a handshake is what an attacker wants us to pay."""
        self._parts.count("connection_refused")
        if not self._listener.implicit_tls:
            transport.write(replies.TOO_MANY_CONNECTIONS.line)
        transport.close()

    def _close(self, *, unread: bool) -> None:
        self._closing_since = self._loop.time()
        if self._tls is not None:
            self._tls.close()
            self._flush_tls(self._tls)
        if self._transport is None:
            return
        if not unread:
            self._transport.close()
            return
        try:
            self._transport.write_eof()  # `data_received` drops the rest; `check_time` ends it
        except OSError:  # the client has gone already
            self._transport.abort()
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()


def _where(fault: Exception) -> str:
    frames = traceback.extract_tb(fault.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def _count_nothing(event: Event) -> None:
    pass


def _note_nothing(what: Postponed) -> None:
    pass


@asynccontextmanager
async def listen_smtp(
    host: str,
    port: int,
    *,
    settings: Settings,
    policy: Policy,
    intake: Intake,
    now: Callable[[], datetime],
    passwords: CheckPasswords | None = None,
    tls: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    limits: Limits | None = None,
    count: Count = _count_nothing,
    postponed: Callable[[Postponed], None] = _note_nothing,
    grace: float = 8.0,
) -> AsyncIterator[Listener]:
    """Serve SMTP until the block is left, then drain for at most `grace` seconds.

    port: 0 for any free one, see `Listener.port`. implicit_tls: TLS from the first octet; else `tls` is for STARTTLS.
    postponed: hears of each recipient that was deferred; returns at once.
    """
    if (implicit_tls or settings.starttls) and tls is None:
        raise ValueError("TLS needs a context; without one, say starttls=False in the settings")
    listener = Listener(
        Parts(settings, policy, intake, passwords, now, count, postponed),
        tls=tls,
        implicit_tls=implicit_tls,
        limits=limits or Limits(),
    )
    await listener.start(host, port)
    try:
        yield listener
    finally:
        await listener.close(grace)
