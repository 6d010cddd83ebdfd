"""The SMTP server's side of one session: bytes in, actions out (RFC 5321, kim.md § 9).

No socket and no clock: the shell is `mail.listener`. Whatever the client pipelines is answered in order, and
how its bytes are cut into pieces changes nothing. While a mail is being kept, a password checked or TLS
started, the session waits; the shell reports the end through `kept`, `password_checked` and `tls_started`.

Extensions: PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531), ENHANCEDSTATUSCODES (2034),
DSN (3461), STARTTLS (3207), AUTH (4954).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Final

from schleuse.errors import CorruptError, Error, RefusedError, UnavailableError
from schleuse.mail import smtp_replies as replies
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.smtp_actions import (
    Action,
    CheckPassword,
    Close,
    Deliver,
    Policy,
    Postponed,
    Send,
    Settings,
    StartTLS,
)
from schleuse.mail.smtp_data import Content, DataReader, TooBig, Unfinished, count_received, received_field
from schleuse.mail.smtp_replies import AUTH_REPLY, DeferredError, Reply, reply_for
from schleuse.mail.smtp_syntax import (
    MAX_COMMAND,
    MAX_LINE,
    MailCommand,
    helo_name,
    parse_mail,
    parse_recipient,
)

__all__ = [
    "Action",
    "CheckPassword",
    "Close",
    "Deliver",
    "Phase",
    "Policy",
    "Postponed",
    "Send",
    "Session",
    "Settings",
    "StartTLS",
]

MAX_BAD_COMMANDS = 10  #: own choice: a client that errs more often is not a mail program
MAX_IDLE_COMMANDS = 100  #: own choice: commands that lead to no mail (NOOP, RSET, VRFY, greetings, MAIL)
MAX_REFUSED_RECIPIENTS = 100  #: own choice: since the last kept mail; more is address harvesting
MAX_FAILED_LOGINS = 3  #: RFC 4954 § 6 asks for a limit


class Phase(Enum):
    """What the next octet of the client belongs to."""

    COMMAND = auto()
    AUTH_PLAIN = auto()
    AUTH_USER = auto()
    AUTH_PASSWORD = auto()
    DATA = auto()
    KEEPING = auto()  # waits for kept()
    CHECKING = auto()  # waits for password_checked()
    TLS = auto()  # waits for tls_started()
    CLOSED = auto()


WAITING: Final = (Phase.KEEPING, Phase.CHECKING)  # asked several times a mail, and a set would hash them in Python


class Session:
    """One connection. peer: the client's IP address. tls: whether TLS is already on (implicit TLS)."""

    def __init__(self, settings: Settings, policy: Policy, *, peer: str, tls: bool) -> None:
        self._settings = settings
        self._policy = policy
        self._peer = peer
        self._tls = tls
        self._phase = Phase.COMMAND
        self._buffer = bytearray()
        self._data = DataReader(settings.max_size)
        self._out = bytearray()
        self._actions: list[Action] = []
        self._helo: str | None = None
        self._esmtp = False
        self._user: str | None = None
        self._login_name = ""
        self._transaction: MailCommand | None = None
        self._recipients: list[Recipient] = []
        self._deferred: DeferredError | None = None  # of the last recipient that was
        self._bad_commands = self._idle_commands = self._refused_recipients = self._failed_logins = 0
        self._draining = False

    # What the shell asks and reports -------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def buffered(self) -> int:
        """Octets that wait here; the shell stops reading when they are too many."""
        return len(self._buffer)

    @property
    def waiting(self) -> bool:
        """Whether a report of the shell must come before more input is looked at."""
        return self._phase in WAITING

    def greet(self) -> list[Action]:
        """The first words, after the TLS handshake if TLS is implicit."""
        self._say(Reply(220, "", f"{self._settings.hostname} ESMTP"))
        return self._take()

    def receive(self, data: bytes, now: datetime) -> list[Action]:
        """The client sent these octets."""
        if self._phase in (Phase.CLOSED, Phase.TLS):  # before TLS: RFC 3207 § 4.2, nothing injected survives
            return []
        self._buffer += data
        return self._run(now)

    def kept(self, error: Error | None, now: datetime) -> list[Action]:
        """The mail of the last Deliver is durable, or why it is not."""
        if self._phase is not Phase.KEEPING:
            return []
        self._phase = Phase.COMMAND
        if error is None:
            self._idle_commands = self._refused_recipients = self._bad_commands = 0
        self._say(replies.KEPT if error is None else reply_for(error))
        self._end_if_draining()
        return self._run(now)

    def password_checked(self, outcome: str | Error, now: datetime) -> list[Action]:
        """The name of the account that logged in, or why not."""
        if self._phase is not Phase.CHECKING:
            return []
        self._phase = Phase.COMMAND
        if isinstance(outcome, str):
            self._user = outcome
            self._say(replies.AUTH_OK)
        else:
            self._failed_logins += not isinstance(outcome, (UnavailableError, CorruptError))
            failed = self._failed_logins >= MAX_FAILED_LOGINS
            self._say(replies.TOO_MANY_LOGINS if failed else reply_for(outcome, AUTH_REPLY))
        self._end_if_draining()
        return self._run(now)

    def tls_started(self) -> None:
        """All that was said before is forgotten (RFC 3207 § 4.2)."""
        self._tls = True
        self._helo = None
        self._reset()
        self._phase = Phase.COMMAND

    def drain(self) -> list[Action]:
        """We go down: say so now, or after the mail that is on its way."""
        self._draining = True
        if self._phase is Phase.COMMAND and self._transaction is None:
            self._end_if_draining()
        return self._take()

    def end(self, reply: Reply) -> list[Action]:
        """Say a last word, such as TIMED_OUT, and close. What was not acknowledged is not kept."""
        if self._phase not in (Phase.CLOSED, Phase.TLS):
            self._out += reply.line
        self._close(unread=False)
        return self._take()

    # The loop ------------------------------------------------------------------------------------------

    def _run(self, now: datetime) -> list[Action]:
        while self._buffer:
            if self._phase is Phase.DATA:
                if not self._content(now):
                    break
            elif self._phase in WAITING or self._phase in (Phase.TLS, Phase.CLOSED) or not self._line():
                break
        return self._take()

    def _line(self) -> bool:
        """Take one line off the buffer. False: it is not complete."""
        buffer = self._buffer
        end = buffer.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(buffer) >= MAX_LINE:
                self._say(replies.LINE_TOO_LONG)
                self._close()
            return False
        line = bytes(buffer[: end - 1]) if end else b""
        # Only CRLF ends a line. What else looks like an end would be read differently by another
        # server on the way, and that is what smuggling lives on.
        if end == 0 or buffer[end - 1] != 13 or b"\r" in line or b"\0" in line:
            self._say(replies.BAD_LINE)
            self._close()
            return False
        if self._phase is Phase.COMMAND:
            self._command(line)
        else:
            self._auth_line(line)
        # The CRLF of the DATA line stays: the content is read as if it began behind a line end.
        del buffer[: end - 1 if self._phase is Phase.DATA else end + 1]
        return True

    def _command(self, line: bytes) -> None:
        try:
            verb, _, rest = line.decode("utf-8").partition(" ")
        except UnicodeDecodeError:
            self._bad(replies.UNKNOWN_COMMAND)
            return
        verb = verb.upper()
        if len(line) + 2 > MAX_COMMAND and verb != "AUTH":
            self._bad(replies.LINE_TOO_LONG)
            return
        handler = _COMMANDS.get(verb)
        if self._settings.require_auth and self._user is None and verb not in _BEFORE_AUTH:
            self._bad(replies.AUTH_REQUIRED if verb in _TRANSACTION else replies.NOT_NOW)
        elif handler is None:
            self._bad(replies.UNKNOWN_COMMAND)
            if verb in _OTHER_PROTOCOLS:  # a browser was made to speak to us
                self._close()
        else:
            handler(self, rest)

    # Commands ------------------------------------------------------------------------------------------

    def _ehlo(self, rest: str) -> None:
        if not self._greeted(rest):
            return
        self._esmtp = True
        keywords = [
            self._settings.hostname,
            "PIPELINING",
            f"SIZE {self._settings.max_size}",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            *(["AUTH LOGIN PLAIN"] if self._tls and self._settings.require_auth else []),
            *(["STARTTLS"] if self._settings.starttls and not self._tls else []),
        ]
        self._out += "".join(f"250-{keyword}\r\n" for keyword in keywords).encode("ascii")
        self._out += b"250 ENHANCEDSTATUSCODES\r\n"

    def _helo_command(self, rest: str) -> None:
        if self._greeted(rest):
            self._esmtp = False
            self._say(Reply(250, "", self._settings.hostname))

    def _greeted(self, rest: str) -> bool:
        name = helo_name(rest)
        if name is None:
            self._bad(replies.BAD_SYNTAX)
            return False
        self._reset()
        self._helo = name
        return self._count_idle()

    def _mail(self, rest: str) -> None:
        if self._transaction is not None or self._helo is None:
            self._bad(replies.BAD_ORDER)
            return
        command = parse_mail(rest, max_size=self._settings.max_size)
        if isinstance(command, Reply):
            self._bad(command)
            return
        if not self._count_idle():
            return
        refusal = _asked(lambda: self._policy.sender_allowed(self._user, command.sender))
        if refusal is None:
            self._transaction = command
        self._say(replies.MAIL_OK if refusal is None else reply_for(refusal))

    def _rcpt(self, rest: str) -> None:
        if self._transaction is None:
            self._bad(replies.BAD_ORDER)
            return
        recipient = parse_recipient(rest, smtputf8=self._transaction.smtputf8)
        if isinstance(recipient, Reply):
            self._bad(recipient)
        elif len(self._recipients) >= self._settings.max_recipients:
            self._say(replies.TOO_MANY_RECIPIENTS)
        else:
            self._offer(recipient)

    def _offer(self, recipient: Recipient) -> None:
        refusal = _asked(lambda: self._policy.recipient(recipient.address))
        if refusal is None:
            self._recipients.append(recipient)
            self._say(replies.RCPT_OK)
            return
        if isinstance(refusal, DeferredError):
            self._postpone(recipient.address, refusal)
        self._refused_recipients += isinstance(refusal, RefusedError)
        harvesting = self._refused_recipients > MAX_REFUSED_RECIPIENTS
        self._say(replies.TOO_MANY_ERRORS if harvesting else reply_for(refusal))

    def _postpone(self, address: str, why: DeferredError) -> None:
        assert self._transaction is not None  # noqa: S101  (RCPT is not reached without one)
        self._deferred = why
        self._act(Postponed(self._transaction.sender, self._user, address, self._transaction.envid))

    def _data_command(self, rest: str) -> None:
        if rest:
            self._bad(replies.BAD_SYNTAX)
        elif self._transaction is None:
            self._bad(replies.BAD_ORDER)
        elif not self._recipients and self._deferred is not None:
            # A client that pipelines takes this reply for the mail's own: no 5xx may come of a shutdown (HD-01).
            self._say(reply_for(self._deferred))
        elif not self._recipients:
            self._bad(replies.NO_RECIPIENTS)
        else:
            self._say(replies.DATA_GO)
            self._phase = Phase.DATA
            self._data.start()

    def _rset(self, rest: str) -> None:
        if rest:
            self._bad(replies.BAD_SYNTAX)
            return
        self._reset()
        if self._count_idle():
            self._say(replies.OK)

    def _noop(self, rest: str) -> None:
        if self._count_idle():
            self._say(replies.OK)

    def _vrfy(self, rest: str) -> None:
        if self._count_idle():
            self._say(replies.CANNOT_VERIFY if rest else replies.BAD_SYNTAX)

    def _not_now(self, rest: str) -> None:
        self._bad(replies.NOT_NOW)

    def _quit(self, rest: str) -> None:
        self._say(replies.BYE)
        self._close(unread=False)

    def _starttls(self, rest: str) -> None:
        if rest:
            self._bad(replies.BAD_SYNTAX)
        elif self._tls or not self._settings.starttls:
            self._bad(replies.BAD_ORDER if self._tls else replies.NOT_NOW)
        else:
            self._say(replies.TLS_GO)
            self._act(StartTLS())
            self._phase = Phase.TLS
            # Pipelined behind STARTTLS: never executed under TLS (RFC 3207 § 4.2; CVE-2011-0411).
            self._buffer.clear()

    # Login (RFC 4954) ----------------------------------------------------------------------------------

    def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        mechanism = mechanism.upper()
        if not self._settings.require_auth:
            self._bad(replies.NOT_NOW)
        elif not self._tls:
            self._bad(replies.TLS_REQUIRED)
        elif self._helo is None or not self._esmtp or self._user is not None or self._transaction is not None:
            self._bad(replies.BAD_ORDER)
        elif mechanism not in ("PLAIN", "LOGIN"):
            self._bad(replies.AUTH_MECHANISM)
        else:
            self._phase = Phase.AUTH_PLAIN if mechanism == "PLAIN" else Phase.AUTH_USER
            if initial:
                self._auth_line(b"" if initial == "=" else initial.encode())
            else:
                plain = mechanism == "PLAIN"
                self._say(replies.AUTH_PLAIN_GO if plain else replies.AUTH_LOGIN_USER)

    def _auth_line(self, line: bytes) -> None:
        phase, self._phase = self._phase, Phase.COMMAND
        if line == b"*":
            self._bad(replies.AUTH_CANCELLED)
            return
        try:
            text = b64decode(line, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            self._bad(replies.AUTH_BAD_BASE64)
            return
        if phase is Phase.AUTH_USER:
            self._login_name = text
            self._phase = Phase.AUTH_PASSWORD
            self._say(replies.AUTH_LOGIN_PASSWORD)
        elif phase is Phase.AUTH_PASSWORD:
            self._check_password(self._login_name, text)
        else:
            parts = text.split("\0")  # authzid, authcid, password (RFC 4616 § 2)
            if len(parts) != 3 or parts[0] not in ("", parts[1]):
                self._bad(reply_for(RefusedError(), AUTH_REPLY))
            else:
                self._check_password(parts[1], parts[2])

    def _check_password(self, user: str, password: str) -> None:
        self._login_name = ""
        if not user or not password:
            self._bad(reply_for(RefusedError(), AUTH_REPLY))
            return
        self._act(CheckPassword(user, password))
        self._phase = Phase.CHECKING

    # Content -------------------------------------------------------------------------------------------

    def _content(self, now: datetime) -> bool:
        """Take the content off the buffer. False: it is not complete."""
        outcome = self._data.read(self._buffer)
        match outcome:
            case Unfinished():
                return False
            case TooBig(hopeless=True):  # it will not end within reason, so we do
                self._say(reply_for(replies.MailTooBigError()))
                self._close()
            case TooBig():
                self._refuse_content(replies.MailTooBigError())
            case Content():
                self._judge(outcome, now)
        return True

    def _judge(self, content: Content, now: datetime) -> None:
        assert self._transaction is not None  # noqa: S101  (DATA is not reached without one)
        if not content.clean:
            # Refused as a whole, and the rest of the connection with it: what follows may be
            # the second half of somebody else's trick (SMTP smuggling, VU#302671).
            self._say(reply_for(replies.BareLineEndError()))
            self._close()
            return
        if count_received(content.octets) >= self._settings.max_hops:
            self._refuse_content(replies.TooManyHopsError())
            return
        mail = Mail(
            sender=self._transaction.sender,
            recipients=tuple(self._recipients),
            content=self._received(now) + content.octets,
            accepted_at=now,
            ret=self._transaction.ret,
            envid=self._transaction.envid,
            user=self._user,
            smtputf8=self._transaction.smtputf8,
        )
        refusal = _asked(lambda: self._policy.content_allowed(mail))
        if refusal is not None:
            self._refuse_content(refusal)
            return
        self._reset()
        self._act(Deliver(mail))
        self._phase = Phase.KEEPING

    def _refuse_content(self, error: Error) -> None:
        self._reset()
        self._phase = Phase.COMMAND
        self._say(reply_for(error))
        self._end_if_draining()

    def _received(self, now: datetime) -> bytes:
        protocol = ("UTF8SMTP" if self._transaction and self._transaction.smtputf8 else "ESMTP") + (
            f"{'S' if self._tls else ''}{'A' if self._user else ''}"
        )
        return received_field(
            helo=None if self._user else self._helo,
            peer=None if self._user else self._peer,
            hostname=self._settings.hostname,
            protocol=protocol if self._esmtp else "SMTP",
            now=now,
        )

    # Small moves ---------------------------------------------------------------------------------------

    def _say(self, reply: Reply) -> None:
        self._out += reply.line
        if reply.closes:
            self._close()

    def _bad(self, reply: Reply) -> None:
        self._bad_commands += 1
        self._say(reply if self._bad_commands <= MAX_BAD_COMMANDS else replies.TOO_MANY_ERRORS)

    def _count_idle(self) -> bool:
        """False when the client has asked for too much without sending a mail; then all is said."""
        self._idle_commands += 1
        if self._idle_commands <= MAX_IDLE_COMMANDS:
            return True
        self._say(replies.TOO_MANY_COMMANDS)
        return False

    def _reset(self) -> None:
        self._transaction = None
        self._recipients = []
        self._deferred = None

    def _act(self, action: Action) -> None:
        self._flush()
        self._actions.append(action)

    def _flush(self) -> None:
        if self._out:
            self._actions.append(Send(bytes(self._out)))
            self._out.clear()

    def _close(self, *, unread: bool = True) -> None:
        if self._phase is not Phase.CLOSED:
            self._act(Close(unread))
            self._phase = Phase.CLOSED
        self._reset()
        self._buffer.clear()

    def _end_if_draining(self) -> None:
        if self._draining and self._phase is Phase.COMMAND:
            self._out += replies.SHUTTING_DOWN.line
            self._close(unread=False)

    def _take(self) -> list[Action]:
        self._flush()
        actions, self._actions = self._actions, []
        return actions


def _asked(question: Callable[[], Error | None]) -> Error | None:
    """A policy's answer; one that it raises counts as returned."""
    try:
        return question()
    except Error as error:
        return error


_COMMANDS: Mapping[str, Callable[[Session, str], None]] = {
    "EHLO": Session._ehlo,
    "HELO": Session._helo_command,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data_command,
    "RSET": Session._rset,
    "NOOP": Session._noop,
    "VRFY": Session._vrfy,
    "EXPN": Session._not_now,
    "HELP": Session._not_now,
    "QUIT": Session._quit,
    "STARTTLS": Session._starttls,
    "AUTH": Session._auth,
}
_BEFORE_AUTH: Final = frozenset({"EHLO", "HELO", "RSET", "NOOP", "QUIT", "STARTTLS", "AUTH"})
_TRANSACTION: Final = frozenset({"MAIL", "RCPT", "DATA"})
_OTHER_PROTOCOLS: Final = frozenset({"GET", "POST", "PUT", "CONNECT", "OPTIONS", "HOST:", "CONTENT-TYPE:"})
