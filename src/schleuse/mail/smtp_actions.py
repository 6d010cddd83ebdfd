"""What goes into and comes out of an SMTP session: its settings, the policy it asks, the actions of its shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schleuse.errors import Error
from schleuse.mail.contracts import Mail

#: Octets; kim.md § 9.1 asks for at least this: a mail of 15 MiB (kim.md § 17) after two base64 encodings.
MAX_MAIL = 35_882_577


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server announces and bears.

    hostname: our name in greetings and Received fields. max_size: octets of a mail (RFC 1870).
    require_auth: submission of accounts; False for hosts that relay to us. starttls: whether we have a certificate.
    """

    hostname: str
    require_auth: bool = True
    starttls: bool = True
    max_size: int = MAX_MAIL
    max_recipients: int = 1000  # RFC 5321 § 4.5.3.1.8: at least 100
    max_hops: int = 100  # RFC 5321 § 6.3: at least 100


class Policy(Protocol):
    """Who may send what to whom; the wiring knows. Each answer is None for yes, or why not.

    The methods decide at once from what they have in memory; they may raise or return any `Error`.
    """

    def sender_allowed(self, user: str | None, sender: str) -> Error | None:
        """user: the account that logged in, None for a relaying host. sender: "" is the null reverse path."""
        ...

    def recipient(self, address: str) -> Error | None:
        """A `DeferredError` is counted, and makes DATA without recipients a 4xx, too."""
        ...

    def content_allowed(self, mail: Mail) -> Error | None:
        """Last look before the mail is kept, such as the header checks of kim.md § 9.4."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Send:
    """Write these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Deliver:
    """Keep this mail durably, then call `Session.kept`."""

    mail: Mail


@dataclass(frozen=True, slots=True, repr=False)
class CheckPassword:
    """Check a login, then call `Session.password_checked`."""

    user: str
    password: str


@dataclass(frozen=True, slots=True, repr=False)
class Postponed:
    """A recipient was deferred: count it. user: as in `Mail`; recipient: address as it was sent."""

    sender: str
    user: str | None
    recipient: str
    envid: str | None


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Upgrade the connection, then call `Session.tls_started`."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection once all is written.

    unread: more of the client's input may be on its way. It is read and dropped for a moment, because a TCP
    reset for unread input would also throw away our last reply.
    """

    unread: bool


Action = Send | Deliver | CheckPassword | Postponed | StartTLS | Close
