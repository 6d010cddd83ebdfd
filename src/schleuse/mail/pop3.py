"""A POP3 session without a socket: bytes in, actions out (RFC 1939, 2449, 2595, 3206, 5034, 8314).

    listener --receive(bytes)--> Session --[Reply | Stream | Login | Fetch | Commit | StartTLS | Close]--> listener
             --complete(outcome)-->

A session that waits for an outcome (after Login, Fetch, Commit, StartTLS and Stream) takes no further command:
what a client pipelines meanwhile stays in the buffer, and the listener stops reading. So one session holds at
most one message, and DELE takes effect only when QUIT was read and the store has done it.

Passwords pass over TLS only (RFC 8314 § 3). Nothing here reads a clock or knows who may log in.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.mail.contracts import MailboxEntry
from schleuse.mail.passwords import TooManyGuessesError
from schleuse.mail.pop3_body import end_of_top, multi_line

MAX_LINE = 255  #: RFC 2449 § 4, with CRLF
MAX_SASL_LINE = 12_288  #: RFC 4954 § 4, to which RFC 5034 § 4 points, with CRLF
MAX_FAILED_LOGINS = 3  #: ours: a further guess costs a new connection
MAX_BAD_COMMANDS = 50  #: ours: nobody who speaks POP3 comes near
LIST_PIECE = 1_000  #: entries of LIST and UIDL made at a time


class MailboxClosedError(UnavailableError):
    """The switch lets nobody read this mailbox now; two persons open it again, its owner tries again later."""

    code = "pop3.closed"


#: The response code tells a mail program whether asking the user again helps (RFC 2449 § 8, RFC 3206).
ERROR_REPLY: Mapping[type[Error], str] = {
    MalformedError: "[AUTH] the user name is not a KIM address",
    RefusedError: "[AUTH] user name or password is wrong",
    ConflictError: "[IN-USE] another session has this mailbox open, try again when it has ended",
    MailboxClosedError: "[SYS/TEMP] temporarily closed for security reasons, nothing is lost, try again later",
    UnavailableError: "[SYS/TEMP] the mailbox cannot be reached now, nothing is lost, try again later",
    CorruptError: "[SYS/PERM] the stored message cannot be read, the operator of the mail server must look",
}

#: Why a login fails that is the client's own affair: counted, and never a line in the log each.
CLIENTS_DOING = (RefusedError, MalformedError, ConflictError, TooManyGuessesError)

_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class BadCredentialsError(RefusedError):
    """User name or password is wrong; which of both is not said."""

    code = "pop3.bad-credentials"


class MaildropInUseError(ConflictError):
    """Another session has the maildrop locked (RFC 1939 § 4)."""

    code = "pop3.in-use"


@dataclass(frozen=True, slots=True)
class Reply:
    data: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """Write every piece, as fast as the client reads, then complete(Sent())."""

    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Check the password and lock the maildrop; complete with Opened, or Failed with the error."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read one message; complete with Fetched or Failed."""

    id: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Delete these, all or none, and release the maildrop; complete with Committed or Failed."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Begin the handshake once all replies are written; complete with TLSStarted.

    Until then nothing that is received counts; a client's first command may come with its last handshake message.
    """


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection once all replies are written."""


Action = Reply | Stream | Login | Fetch | Commit | StartTLS | Close


@dataclass(frozen=True, slots=True)
class Opened:
    entries: Sequence[MailboxEntry]


@dataclass(frozen=True, slots=True, repr=False)
class Fetched:
    content: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    pass


@dataclass(frozen=True, slots=True)
class Sent:
    pass


@dataclass(frozen=True, slots=True)
class TLSStarted:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    error: Error


Outcome = Opened | Fetched | Committed | Sent | TLSStarted | Failed


class State(Enum):
    """RFC 1939 § 3. UPDATE is left only by closing."""

    AUTHORIZATION = auto()
    TRANSACTION = auto()
    UPDATE = auto()


class Session:
    """One connection. tls: it is encrypted already. stls: STLS may be offered while it is not."""

    def __init__(self, *, hostname: str, tls: bool, stls: bool = False) -> None:
        self._hostname = hostname
        self._tls = tls
        self._stls = stls
        self._state = State.AUTHORIZATION
        self._buffer = bytearray()
        self._skipping = False  # the rest of a line that was too long
        self._sasl = False  # the next line is the answer to "+ "
        self._pending: Action | None = None
        self._closed = False
        self._user: str | None = None
        self._failed_logins = 0
        self._bad_commands = 0
        self._entries: Sequence[MailboxEntry] = ()
        self._deleted: set[int] = set()  # message numbers, from 1
        self._octets = 0  # of all messages that are not deleted
        self._top: int | None = None  # lines that the running Fetch is for; None: all

    @property
    def waiting(self) -> bool:
        """An outcome is due; the listener should read no more meanwhile."""
        return self._pending is not None

    @property
    def logged_in(self) -> bool:
        return self._state is not State.AUTHORIZATION

    def greeting(self) -> bytes:
        return f"+OK {self._hostname} POP3 ready\r\n".encode()

    def receive(self, data: bytes) -> list[Action]:
        """Take bytes in any portions. Never raises, whatever they are."""
        if not self._closed and not isinstance(self._pending, StartTLS):
            self._buffer += data
        return self._proceed([])

    def complete(self, outcome: Outcome) -> list[Action]:
        """The outcome of the action that the session waits for, then whatever was buffered meanwhile."""
        action, self._pending = self._pending, None
        return self._proceed(self._completed(action, outcome))

    # -- lines ---------------------------------------------------------------------------------------------

    def _proceed(self, actions: list[Action]) -> list[Action]:
        self._note(actions)
        while not self._pending and not self._closed:
            line = self._next_line()
            if line is None:
                break
            new = self._line(line)
            self._note(new)
            actions += new
        return _joined(actions)

    def _note(self, actions: Sequence[Action]) -> None:
        match actions[-1] if actions else None:
            case Close():
                self._closed = True
                self._buffer.clear()
            case StartTLS() as action:
                # What comes in clear after STLS may be an attacker's (RFC 2595 § 4, RFC 8314 § 7.5).
                self._buffer.clear()
                self._pending = action
            case Stream() | Login() | Fetch() | Commit() as action:
                self._pending = action
            case _:
                pass

    def _next_line(self) -> bytes | None:
        """The next line without its end, b"\\n" for one that was too long, None while there is none.

        POP3 commands are passed on to nobody, so a bare LF may end a line without harm.
        """
        while True:
            end = self._buffer.find(b"\n")
            if self._skipping:
                del self._buffer[: end + 1 if end >= 0 else len(self._buffer)]
                self._skipping = end < 0
                if self._skipping:
                    return None
                continue
            limit = MAX_SASL_LINE if self._sasl or self._buffer[:5].upper() == b"AUTH " else MAX_LINE
            if end >= limit or (end < 0 and len(self._buffer) >= limit):
                self._skipping = True
                return b"\n"
            if end < 0:
                return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            return line.removesuffix(b"\r")

    def _line(self, line: bytes) -> list[Action]:
        sasl, self._sasl = self._sasl, False
        if line == b"\n":
            return self._bad("the line is too long")
        if sasl:
            return self._sasl_answer(line)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._bad("the line is not UTF-8")
        if "\0" in text:
            return self._bad("the line holds a NUL")
        keyword, _, argument = text.partition(" ")
        handler = _HANDLERS[self._state].get(keyword.upper())
        if handler is None:
            return self._bad("the command is unknown or not allowed now")
        return handler(self, argument)

    def _bad(self, text: str) -> list[Action]:
        self._bad_commands += 1
        if self._bad_commands >= MAX_BAD_COMMANDS:
            return [_err("too many errors"), Close()]
        return [_err(text)]

    # -- AUTHORIZATION -------------------------------------------------------------------------------------

    def _capa(self, argument: str) -> list[Action]:
        """RFC 2449 § 5. What is listed holds at this moment: no log-in before TLS."""
        if argument:
            return self._bad("CAPA takes no argument")
        lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
        if self._tls:
            lines += ["USER", "SASL PLAIN"]
        elif self._stls:
            lines.append("STLS")
        return [Reply(("+OK\r\n" + "".join(f"{line}\r\n" for line in lines) + ".\r\n").encode())]

    def _stls_command(self, argument: str) -> list[Action]:
        if argument or self._tls or not self._stls:
            return self._bad("STLS is not possible here")
        return [_ok("begin TLS"), StartTLS()]

    def _user_command(self, argument: str) -> list[Action]:
        if not self._tls:
            return self._bad("log in over TLS only")
        user = mailbox_user(argument)
        if not user:
            return self._bad("USER needs a name")
        self._user = user
        return [_ok("password?")]  # the same for a user that does not exist (RFC 1939 § 13)

    def _pass_command(self, argument: str) -> list[Action]:
        user, self._user = self._user, None
        if user is None:
            return self._bad("USER comes first")
        return [Login(user, argument)]

    def _auth_command(self, argument: str) -> list[Action]:
        """RFC 5034 § 4, PLAIN (RFC 4616) only: kim.md § 9.2."""
        mechanism, _, initial = argument.partition(" ")
        if not self._tls:
            return self._bad("log in over TLS only")
        if mechanism.upper() != "PLAIN":
            return self._bad("the only mechanism is PLAIN")
        if not initial:
            self._sasl = True
            return [Reply(b"+ \r\n")]
        return self._sasl_answer(initial.encode())

    def _sasl_answer(self, line: bytes) -> list[Action]:
        if line == b"*":
            return [_err("cancelled")]
        try:
            authorize, user, password = base64.b64decode(line, validate=True).decode("utf-8").split("\0")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return self._bad("this is no PLAIN response")
        if authorize not in {"", user} or not mailbox_user(user):
            return self._bad("the name is missing, or acting for another user was asked for")
        return [Login(mailbox_user(user), password)]

    # -- TRANSACTION ---------------------------------------------------------------------------------------

    def _stat(self, argument: str) -> list[Action]:
        if argument:
            return self._bad("STAT takes no argument")
        return [_ok(f"{len(self._entries) - len(self._deleted)} {self._octets}")]

    def _list(self, argument: str) -> list[Action]:
        return self._listing(argument, lambda entry: str(entry.size))

    def _uidl(self, argument: str) -> list[Action]:
        return self._listing(argument, lambda entry: entry.uidl)

    def _listing(self, argument: str, show: Callable[[MailboxEntry], str]) -> list[Action]:
        if not argument:
            return [Stream(self._list_pieces(show))]
        number = self._number(argument)
        if number is None:
            return self._bad("there is no such message")
        return [_ok(f"{number} {show(self._entries[number - 1])}")]

    def _list_pieces(self, show: Callable[[MailboxEntry], str]) -> Iterator[bytes]:
        # Lazy on purpose; the session waits until all is sent, so nothing changes under it.
        yield b"+OK\r\n"
        for start in range(0, len(self._entries), LIST_PIECE):
            chunk = enumerate(self._entries[start : start + LIST_PIECE], start + 1)
            yield "".join(f"{n} {show(entry)}\r\n" for n, entry in chunk if n not in self._deleted).encode()
        yield b".\r\n"

    def _retr(self, argument: str) -> list[Action]:
        number = self._number(argument)
        if number is None:
            return self._bad("there is no such message")
        self._top = None
        return [Fetch(self._entries[number - 1].id)]

    def _top_command(self, argument: str) -> list[Action]:
        first, _, second = argument.partition(" ")
        number = self._number(first)
        if number is None or not _NUMBER.fullmatch(second):
            return self._bad("TOP needs the number of a message and of lines")
        self._top = int(second)
        return [Fetch(self._entries[number - 1].id)]

    def _dele(self, argument: str) -> list[Action]:
        number = self._number(argument)
        if number is None:
            return self._bad("there is no such message")
        self._deleted.add(number)
        self._octets -= self._entries[number - 1].size
        return [_ok("marked, QUIT deletes")]

    def _rset(self, argument: str) -> list[Action]:
        if argument:
            return self._bad("RSET takes no argument")
        self._octets += sum(self._entries[number - 1].size for number in self._deleted)
        self._deleted.clear()
        return [_ok()]

    def _noop(self, argument: str) -> list[Action]:
        return self._bad("NOOP takes no argument") if argument else [_ok()]

    def _quit(self, argument: str) -> list[Action]:
        if argument:
            return self._bad("QUIT takes no argument")
        if self._state is State.AUTHORIZATION:
            return [_ok("bye"), Close()]
        self._state = State.UPDATE
        return [Commit(tuple(self._entries[number - 1].id for number in sorted(self._deleted)))]

    def _number(self, text: str) -> int | None:
        """The number of a message that exists and is not marked as deleted."""
        text = text.strip()
        if not _NUMBER.fullmatch(text):
            return None
        number = int(text)
        return number if 1 <= number <= len(self._entries) and number not in self._deleted else None

    # -- outcomes ------------------------------------------------------------------------------------------

    def _completed(self, action: Action | None, outcome: Outcome) -> list[Action]:
        match outcome:
            case Opened(entries):
                self._state = State.TRANSACTION
                self._entries = entries
                self._octets = sum(entry.size for entry in entries)
                return [_ok(f"{len(entries)} messages ({self._octets} octets)")]
            case Fetched(content):
                end = len(content) if self._top is None else end_of_top(content, self._top)
                return [Stream(_message_pieces(content, end))]
            case Committed():
                return [_ok("bye"), Close()]
            case Sent():
                return []
            case TLSStarted():
                self._tls, self._user = True, None
                return []
            case Failed(error):
                return self._failed(action, error)
            case _:
                assert_never(outcome)

    def _failed(self, action: Action | None, error: Error) -> list[Action]:
        actions: list[Action] = [_err(error_text(error))]
        if isinstance(error, MailboxClosedError):  # the session has nothing more to do, and deletes nothing (SW-10)
            actions.append(Close())
        elif isinstance(action, Login) and isinstance(error, CLIENTS_DOING):
            self._failed_logins += 1
            if self._failed_logins >= MAX_FAILED_LOGINS:
                actions.append(Close())
        elif isinstance(action, Commit):  # nothing was deleted, and the session ends (RFC 1939 § 6)
            actions.append(Close())
        return actions


Handler = Callable[[Session, str], list[Action]]

#: Which command is allowed in which state (RFC 1939 § 4-6, RFC 2449 § 5, RFC 2595 § 4, RFC 5034 § 4).
_HANDLERS: Mapping[State, Mapping[str, Handler]] = {
    State.AUTHORIZATION: {
        "CAPA": Session._capa,
        "STLS": Session._stls_command,
        "USER": Session._user_command,
        "PASS": Session._pass_command,
        "AUTH": Session._auth_command,
        "QUIT": Session._quit,
    },
    State.TRANSACTION: {
        "CAPA": Session._capa,
        "STAT": Session._stat,
        "LIST": Session._list,
        "UIDL": Session._uidl,
        "RETR": Session._retr,
        "TOP": Session._top_command,
        "DELE": Session._dele,
        "RSET": Session._rset,
        "NOOP": Session._noop,
        "QUIT": Session._quit,
    },
    State.UPDATE: {},
}


def mailbox_user(name: str) -> str:
    """The mailbox user out of `user#host:port#Mandant#…`, as a Clientmodul's client writes it (kim.md § 9.2)."""
    return name.partition("#")[0].strip()


def error_text(error: Error) -> str:
    """What a client is told; nothing of the error's own text, which is for the operator."""
    known = (text for kind, text in ERROR_REPLY.items() if isinstance(error, kind))
    return next(known, ERROR_REPLY[UnavailableError])


def _message_pieces(content: bytes, end: int) -> Iterator[bytes]:
    yield f"+OK {len(content)} octets\r\n".encode()
    yield from multi_line(content, end)


def _ok(text: str = "") -> Reply:
    return Reply(f"+OK {text}\r\n".encode() if text else b"+OK\r\n")


def _err(text: str) -> Reply:
    return Reply(f"-ERR {text}\r\n".encode())


def _joined(actions: Sequence[Action]) -> list[Action]:
    """Neighbouring replies as one, so that pipelined commands are answered in one write (RFC 2449 § 6.6)."""
    joined: list[Action] = []
    run: list[bytes] = []
    for action in actions:
        if isinstance(action, Reply):
            run.append(action.data)
            continue
        if run:
            joined.append(Reply(b"".join(run)))
            run = []
        joined.append(action)
    return [*joined, Reply(b"".join(run))] if run else joined
