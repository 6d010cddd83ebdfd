"""The POP3 listener: sockets, TLS, timeouts and threads around `pop3.Session` (RFC 1939, RFC 8314).

One bare asyncio protocol per connection; no task while nothing is to be waited for. Calls into the store
block, so they run in threads, at most one per session and thus per account; the loop never waits for a disk.
A connection that ends without QUIT deletes nothing, whoever ended it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar, assert_never, cast

import structlog

from schleuse.errors import Error, UnavailableError
from schleuse.mail import pop3
from schleuse.mail.contracts import MailboxEntry, Maildrop
from schleuse.mail.tls_pipe import TLSFailedError, TLSPipe

_log = structlog.get_logger()

#: (user, password, peer address) -> account, or None when user or password is wrong. Raises UnavailableError.
Authenticate = Callable[[str, str, str], Awaitable[str | None]]

_T = TypeVar("_T")

#: From its first octet on, however many follow.
HANDSHAKE_TIMEOUT = timedelta(seconds=30)
#: Pieces (64 KiB) written before other connections get their turn, when a client reads as fast as we write.
STEPS_PER_TURN = 16


class Mailboxes(Protocol):
    """Where maildrops come from. Called in a thread, may block."""

    def open(self, account: str) -> Maildrop:
        """Lock it for one session. Raises ConflictError (another session has it), UnavailableError."""
        ...


class Signal(StrEnum):
    """What is counted; closed set, no personal data."""

    CONNECTED = "pop3.connected"
    TURNED_AWAY = "pop3.turned_away"
    LOGGED_IN = "pop3.logged_in"
    LOGIN_FAILED = "pop3.login_failed"
    FETCHED = "pop3.fetched"
    COMMITTED = "pop3.committed"
    STORE_FAILED = "pop3.store_failed"
    TIMED_OUT = "pop3.timed_out"
    CLOSED = "pop3.closed"  # by the switch
    CUT = "pop3.cut"  # by the switch, in the middle of something


@dataclass(frozen=True, slots=True)
class Config:
    """implicit_tls: TLS from the first octet (port 995, RFC 8314 § 3.3); else STLS must come before the log-in.

    port: 0 lets the system choose. threads: store calls at the same time, over all sessions.
    """

    hostname: str
    host: str = "127.0.0.1"
    port: int = 995
    implicit_tls: bool = True
    idle_timeout: timedelta = timedelta(minutes=10)  # RFC 1939 § 3: at least 10 minutes
    max_sessions_per_peer: int = 20
    max_sessions: int = 2_000
    threads: int = 8


class Listener:
    """All sessions of one port. Made by `listen_pop3`."""

    def __init__(
        self,
        config: Config,
        *,
        tls: ssl.SSLContext,
        authenticate: Authenticate,
        mailboxes: Mailboxes,
        count: Callable[[Signal], None] = lambda signal: None,
    ) -> None:
        self.config = config
        self.tls = tls
        self.authenticate = authenticate
        self.mailboxes = mailboxes
        self.count = count
        self._pool = ThreadPoolExecutor(config.threads, "pop3-store")
        self._server: asyncio.Server | None = None
        self._bound_port = config.port
        self._connections: set[_Connection] = set()
        self._peers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def port(self) -> int:
        """The bound port, also when 0 was configured."""
        return self._bound_port

    @property
    def sessions(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), self.config.host, self.config.port
        )
        self._bound_port = int(self._server.sockets[0].getsockname()[1])

    async def drain(self, grace: timedelta) -> None:
        """Take no new session, let those that are logged in finish, cut the rest after grace."""
        if self._server is not None:
            self._server.close()
        for connection in [*self._connections]:
            connection.close_unless_logged_in()
        try:
            await asyncio.wait_for(self._empty.wait(), grace.total_seconds())
        except TimeoutError:
            for connection in [*self._connections]:
                connection.abort()
        await self._empty.wait()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._pool.shutdown)

    def end(self, closed: Callable[[str], bool]) -> None:
        """End the sessions of these accounts: at once, or when what runs for them has been answered (SW-10)."""
        for connection in [*self._connections]:
            if connection.account is not None and closed(connection.account):
                connection.end_when_answered()

    def cut(self, closed: Callable[[str], bool]) -> int:
        """End what is left of them in the middle; nothing is deleted. Returns how many."""
        left = [one for one in self._connections if one.account is not None and closed(one.account)]
        for connection in left:
            self.count(Signal.CUT)
            connection.abort()
        return len(left)

    def admit(self, connection: _Connection, peer: str) -> bool:
        full = len(self._connections) >= self.config.max_sessions
        if full or self._peers[peer] >= self.config.max_sessions_per_peer:
            self.count(Signal.TURNED_AWAY)
            return False
        self._connections.add(connection)
        self._peers[peer] += 1
        self._empty.clear()
        self.count(Signal.CONNECTED)
        return True

    def dismiss(self, connection: _Connection, peer: str) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
        if not self._connections:
            self._empty.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Own a task until it is done; drain waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


@asynccontextmanager
async def listen_pop3(
    config: Config,
    *,
    tls: ssl.SSLContext,
    authenticate: Authenticate,
    mailboxes: Mailboxes,
    count: Callable[[Signal], None] = lambda signal: None,
    grace: timedelta = timedelta(seconds=5),
) -> AsyncIterator[Listener]:
    """Serve POP3 while the block lasts; leaving it drains for at most grace."""
    listener = Listener(config, tls=tls, authenticate=authenticate, mailboxes=mailboxes, count=count)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.drain(grace)


class _Connection(asyncio.Protocol):
    """Carries out what one session asks for, in order, and reads only while nothing is outstanding."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        config = listener.config
        self._session = pop3.Session(hostname=config.hostname, tls=config.implicit_tls, stls=not config.implicit_tls)
        self._transport: asyncio.Transport | None = None
        self._pipe: TLSPipe | None = None
        self._peer = ""
        self._actions: deque[pop3.Action] = deque()
        self.account: str | None = None  # that has logged in
        self._ending = False
        self._maildrop: Maildrop | None = None
        self._working = False  # a task runs for this session
        self._blocked = False  # the client does not read
        self._reading = True
        self._lost = False
        self._admitted = False
        self._active_at = self._shaking_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # -- called by asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is not derived from it
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if name else "unknown"
        self._admitted = self._listener.admit(self, self._peer)
        if not self._admitted:
            self._refuse(self._transport)
            return
        if self._listener.config.implicit_tls:
            self._pipe = TLSPipe(self._listener.tls)
        else:
            self._write(self._session.greeting())
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._lost or not self._admitted or self._transport is None or self._transport.is_closing():
            return
        self._active_at = self._loop.time()
        if self._pipe is not None:
            data = self._decrypted(self._pipe, data)
        if data:
            self._take(self._session.receive(data))

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._active_at = self._loop.time()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._actions.clear()
        if self._timer is not None:
            self._timer.cancel()
        if not self._working:  # else the running task gives it back when it is done
            self._give_back()
        self._listener.dismiss(self, self._peer)

    # -- called by the listener ----------------------------------------------------------------------------

    def close_unless_logged_in(self) -> None:
        if not self._session.logged_in and not self._working:
            self._close()

    def end_when_answered(self) -> None:
        self._ending = True
        self._end_if_answered()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- the wire ------------------------------------------------------------------------------------------

    def _refuse(self, transport: asyncio.Transport) -> None:
        """Under implicit TLS without a word: a handshake is what an attacker wants us to pay."""
        if not self._listener.config.implicit_tls:
            transport.write(b"-ERR [SYS/TEMP] too many connections, try again later\r\n")
        transport.close()

    def _decrypted(self, pipe: TLSPipe, data: bytes) -> bytes:
        """Plain octets. The session hears that TLS has begun before it gets the first of them."""
        shaking = not pipe.established
        try:
            plain = pipe.receive(data)
        except TLSFailedError:
            self._flush(pipe)
            self._end_wire()
            return b""
        self._flush(pipe)
        if shaking and pipe.established:
            self._watch()
            if self._listener.config.implicit_tls:
                self._write(self._session.greeting())
            else:
                self._take(self._session.complete(pop3.TLSStarted()))
        if pipe.ended:
            self._end_wire()
        return plain

    def _write(self, data: bytes) -> None:
        if self._pipe is not None:
            self._pipe.send(data)
            self._flush(self._pipe)
        elif self._transport is not None:
            self._transport.write(data)

    def _flush(self, pipe: TLSPipe) -> None:
        if self._transport is not None and (data := pipe.to_send()):
            self._transport.write(data)

    def _close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._flush(self._pipe)
        self._end_wire()

    def _end_wire(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- actions -------------------------------------------------------------------------------------------

    def _take(self, actions: list[pop3.Action]) -> None:
        self._actions.extend(actions)
        self._advance()

    def _advance(self) -> None:
        for _ in range(STEPS_PER_TURN):
            if self._lost or self._blocked or self._working or not self._actions:
                break
            self._carry_out(self._actions[0])
        else:
            self._loop.call_soon(self._advance)
        self._end_if_answered()
        self._gate()

    def _end_if_answered(self) -> None:
        if self._ending and not (self._lost or self._working or self._blocked or self._actions):
            self._close()

    def _carry_out(self, action: pop3.Action) -> None:
        match action:
            case pop3.Reply(data):
                self._actions.popleft()
                self._write(data)
            case pop3.Stream(pieces):
                piece = next(pieces, None)
                if piece is not None:
                    self._write(piece)
                    return
                self._actions.popleft()
                self._actions.extend(self._session.complete(pop3.Sent()))
            case pop3.Close():
                self._actions.clear()
                self._close()
            case pop3.StartTLS():
                self._actions.popleft()
                self._pipe = TLSPipe(self._listener.tls)
                self._shaking_since = self._loop.time()
                self._watch()
            case pop3.Login() | pop3.Fetch() | pop3.Commit():
                self._actions.popleft()
                self._working = True
                self._listener.spawn(self._work(action))
            case _:
                assert_never(action)

    def _gate(self) -> None:
        """Stop reading while anything is outstanding: the client's pipeline waits in its own machine."""
        wanted = not (self._working or self._blocked or self._actions)
        if self._lost or self._transport is None or self._transport.is_closing() or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    async def _work(self, action: pop3.Login | pop3.Fetch | pop3.Commit) -> None:
        outcome = await self._outcome(action)
        self._working = False
        self._active_at = self._loop.time()
        if self._lost:
            self._give_back()
        else:
            self._take(self._session.complete(outcome))

    async def _outcome(self, action: pop3.Login | pop3.Fetch | pop3.Commit) -> pop3.Outcome:
        try:
            match action:
                case pop3.Login(user, password):
                    return await self._log_in(user, password)
                case pop3.Fetch(id):
                    return await self._fetch(id)
                case pop3.Commit(ids):
                    return await self._commit(ids)
        except pop3.CLIENTS_DOING as error:  # no line each, or a guesser would fill the log
            self._listener.count(Signal.LOGIN_FAILED)
            return pop3.Failed(error)
        except pop3.MailboxClosedError as error:  # no line each: every mailbox of a closed scope asks again and again
            self._listener.count(Signal.CLOSED)
            return pop3.Failed(error)
        except Error as error:
            self._listener.count(Signal.STORE_FAILED)
            _log.warning("pop3.store_failed", code=error.code)
            return pop3.Failed(error)
        except Exception:
            # A fault of ours must not end the listener, and is never the client's fault.
            self._listener.count(Signal.STORE_FAILED)
            _log.exception("pop3.unexpected")
            return pop3.Failed(UnavailableError("an unexpected fault, see the log; the operator must look"))

    async def _log_in(self, user: str, password: str) -> pop3.Outcome:
        account = await self._listener.authenticate(user, password, self._peer)
        if account is None:
            raise pop3.BadCredentialsError("user name or password is wrong")
        self.account = account
        self._maildrop, entries = await self._listener.in_thread(lambda: self._open(account))
        self._listener.count(Signal.LOGGED_IN)
        return pop3.Opened(entries)

    def _open(self, account: str) -> tuple[Maildrop, list[MailboxEntry]]:
        maildrop = self._listener.mailboxes.open(account)
        try:
            return maildrop, [*maildrop.entries()]
        except BaseException:
            maildrop.close()
            raise

    async def _fetch(self, id: int) -> pop3.Outcome:
        maildrop = self._locked()
        content = await self._listener.in_thread(lambda: maildrop.content(id))
        self._listener.count(Signal.FETCHED)
        return pop3.Fetched(content)

    async def _commit(self, ids: tuple[int, ...]) -> pop3.Outcome:
        """Delete, then unlock, then answer: a client that comes back at once must find it unlocked."""
        maildrop, self._maildrop = self._locked(), None
        await self._listener.in_thread(lambda: _delete_and_close(maildrop, ids))
        self._listener.count(Signal.COMMITTED)
        return pop3.Committed()

    def _locked(self) -> Maildrop:
        if self._maildrop is None:
            raise UnavailableError("no maildrop is open for this session; the operator must look")
        return self._maildrop

    # -- the end -------------------------------------------------------------------------------------------

    def _give_back(self) -> None:
        maildrop, self._maildrop = self._maildrop, None
        if maildrop is not None:
            self._listener.spawn(self._listener.in_thread(lambda: _close(maildrop)))

    def _watch(self) -> None:
        """Autologout of RFC 1939 § 3: no reply, no UPDATE. It also bounds a client that stops reading."""
        if self._timer is not None:
            self._timer.cancel()
        shaking = self._pipe is not None and not self._pipe.established
        idle = self._loop.time() - (self._shaking_since if shaking else self._active_at)
        limit = (HANDSHAKE_TIMEOUT if shaking else self._listener.config.idle_timeout).total_seconds()
        if idle >= limit:
            self._listener.count(Signal.TIMED_OUT)
            self.abort()
            return
        self._timer = self._loop.call_later(limit - idle, self._watch)


def _delete_and_close(maildrop: Maildrop, ids: tuple[int, ...]) -> None:
    try:
        if ids:
            maildrop.delete(ids)
    finally:
        _close(maildrop)


def _close(maildrop: Maildrop) -> None:
    try:
        maildrop.close()
    except Error as error:  # the store's lock runs out by itself; what was deleted stays deleted
        _log.warning("pop3.unlock_failed", code=error.code)
