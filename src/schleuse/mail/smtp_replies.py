"""Replies of the SMTP server, and the one table from our errors to them (RFC 5321 § 4.2, RFC 2034, RFC 3463).

No reply quotes what the client sent: nothing can be injected, and no address reaches a log of the other side.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply line. status: enhanced status code, "" where RFC 2034 § 4 has none (220, 250 of EHLO, 354, 334)."""

    code: int
    status: str
    text: str

    @property
    def line(self) -> bytes:
        """As it goes on the wire, with CRLF."""
        return f"{self.code} {self.status}{' ' if self.status else ''}{self.text}\r\n".encode("ascii")

    @property
    def closes(self) -> bool:
        """421 means that the server closes the channel (RFC 5321 § 3.8)."""
        return self.code == 421


class BareLineEndError(MalformedError):
    """A CR or LF that is not part of a CRLF, or a NUL: nobody may read an end of data into it."""

    code = "mail.bare-line-end"


class TooManyHopsError(RefusedError):
    """The mail runs in a circle."""

    code = "mail.too-many-hops"


class MailTooBigError(RefusedError):
    """The mail is bigger than the limit; its sender makes it smaller."""

    code = "mail.too-big"


class UnknownRecipientError(RefusedError):
    """No such mailbox here, and no route to its domain."""

    code = "mail.unknown-recipient"


class SenderNotYoursError(RefusedError):
    """The account may not send as this address (kim.md § 9.4)."""

    code = "mail.sender-not-yours"


class DeferredError(UnavailableError):
    """A recipient is not accepted now; its sender's machine tries again, and each attempt is counted (§ 6.5)."""

    code = "mail.deferred"


class ClosedError(DeferredError):
    """The switch has closed the recipient's intake (HD-03); two persons open it, the sender need do nothing."""

    code = "mail.closed"


class NoRoomError(DeferredError):
    """The store is so full that letters wait and only eAU are taken (HD-28); the operator makes room."""

    code = "mail.no-room"


#: Text of incident.md § 6.5, for senders whose scope is in DEFER or CLOSED.
CLOSED_TEXT = "temporarily closed for security reasons, please retry automatically"

#: From the kind of an error to what the other side hears. What is off at our side is 4xx and never 5xx (HD-01).
SMTP_REPLY: Mapping[type[Error], Reply] = {
    MalformedError: Reply(554, "5.6.0", "The content breaks its format"),
    RefusedError: Reply(550, "5.7.1", "Not allowed"),
    ConflictError: Reply(451, "4.3.0", "Try again later"),
    UnavailableError: Reply(451, "4.3.2", "Cannot be kept now, try again later"),
    CorruptError: Reply(421, "4.3.0", "Service stopped, try again later"),
    Error: Reply(451, "4.3.0", "Try again later"),
    # Finer words for the same kinds.
    BareLineEndError: Reply(554, "5.6.0", "Line ends other than CRLF, or NUL, in the content"),
    TooManyHopsError: Reply(554, "5.4.6", "Too many Received fields, the mail runs in a circle"),
    MailTooBigError: Reply(552, "5.3.4", "The mail is bigger than the limit"),
    UnknownRecipientError: Reply(550, "5.1.1", "No such mailbox"),
    ClosedError: Reply(451, "4.3.2", CLOSED_TEXT),
    NoRoomError: Reply(452, "4.3.1", "No room now, try again later"),
    SenderNotYoursError: Reply(553, "5.7.1", "The sender is not an address of this account"),
}

#: The same for the outcome of a login (RFC 4954 § 6, kim.md § 9.2).
AUTH_REPLY: Mapping[type[Error], Reply] = {
    MalformedError: Reply(501, "5.5.4", "The user name is incomplete or malformed"),
    RefusedError: Reply(535, "5.7.8", "Wrong user name or password"),
    Error: Reply(454, "4.7.0", "Login not possible now, try again later"),
}


#: A full disk has its own status (RFC 3463 § 3.4): the operator of the sending host sees that waiting helps.
STORAGE_FULL = Reply(452, "4.3.1", "No room now, try again later")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def reply_for(error: Error, table: Mapping[type[Error], Reply] = SMTP_REPLY) -> Reply:
    """The reply of the error's own class, else of the nearest class it derives from."""
    if table is SMTP_REPLY and isinstance(error, UnavailableError) and _is_full(error):
        return STORAGE_FULL
    for kind in type(error).__mro__:
        reply = table.get(kind)
        if reply is not None:
            return reply
    return table[Error]


def _is_full(error: BaseException) -> bool:
    """Whether the error was raised `from` a full disk or an exhausted quota."""
    cause = error.__cause__
    return cause is not None and ((isinstance(cause, OSError) and cause.errno in _FULL) or _is_full(cause))


MAIL_OK = Reply(250, "2.1.0", "Sender ok")
RCPT_OK = Reply(250, "2.1.5", "Recipient ok")
DATA_GO = Reply(354, "", "End with CRLF.CRLF")
KEPT = Reply(250, "2.0.0", "Kept durably")
OK = Reply(250, "2.0.0", "Ok")
BYE = Reply(221, "2.0.0", "Bye")
CANNOT_VERIFY = Reply(252, "2.0.0", "Cannot verify, but will take mail for it")
TLS_GO = Reply(220, "2.0.0", "Ready to start TLS")
AUTH_OK = Reply(235, "2.7.0", "Logged in")
AUTH_PLAIN_GO = Reply(334, "", "")
AUTH_LOGIN_USER = Reply(334, "", "VXNlcm5hbWU6")
AUTH_LOGIN_PASSWORD = Reply(334, "", "UGFzc3dvcmQ6")

UNKNOWN_COMMAND = Reply(500, "5.5.1", "Unknown command")
NOT_NOW = Reply(502, "5.5.1", "Not possible here")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BAD_LINE = Reply(500, "5.5.2", "Line ends other than CRLF, or NUL, in a command")
BAD_SYNTAX = Reply(501, "5.5.4", "Bad syntax of the arguments")
BAD_ORDER = Reply(503, "5.5.1", "Bad order of commands")
BAD_SENDER = Reply(501, "5.1.7", "Bad syntax of the sender's address")
BAD_RECIPIENT = Reply(501, "5.1.3", "Bad syntax of the recipient's address")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "The address needs SMTPUTF8")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Unknown parameter")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients in one transaction")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")
TLS_REQUIRED = Reply(538, "5.7.11", "Encryption required for authentication")
AUTH_MECHANISM = Reply(504, "5.7.4", "Unknown mechanism")
AUTH_CANCELLED = Reply(501, "5.7.0", "Login cancelled")
AUTH_BAD_BASE64 = Reply(501, "5.5.2", "Not base64")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands without a mail")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later")
TIMED_OUT = Reply(421, "4.4.2", "Timeout")
SHUTTING_DOWN = Reply(421, "4.3.2", "Going down, try again later")
OWN_FAULT = Reply(421, "4.3.0", "Own fault, try again later")
