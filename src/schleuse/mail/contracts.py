"""What the wire needs from a store, and the values that pass between them.

The store of the platform is `schleuse.kim.store.MailStore`; tests use the fakes of tests/mail/fakes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Protocol

from schleuse.errors import Error


class Notify(StrEnum):
    """NOTIFY values of RFC 3461 § 4.1; an empty set means that the sender said nothing (failure and delay)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted RCPT TO. address: addr-spec as sent; orcpt: the xtext-decoded `type;address` of RFC 3461 § 4.2."""

    address: str
    notify: frozenset[Notify] = frozenset()
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class AcceptedUnder:
    """Where a recipient's scope stood when the mail was accepted (incident.md § 6.3).

    epoch: of the last command of the switch that concerned it, 0 if none did. state: a `ScopeState`.
    """

    epoch: int
    state: str


@dataclass(frozen=True, slots=True, repr=False)
class Mail:
    """One mail as SMTP handed it over: the envelope and the content with CRLF line ends, dots unstuffed.

    sender: reverse path, "" for a DSN. user: authenticated account, None for a relaying host.
    content includes the Received line that we put on top. under: one for each recipient; empty where no switch was
    asked, as for our own DSNs.
    """

    sender: str
    recipients: tuple[Recipient, ...]
    content: bytes
    accepted_at: datetime
    ret: Literal["FULL", "HDRS"] | None = None
    envid: str | None = None
    user: str | None = None
    smtputf8: bool = False
    under: tuple[AcceptedUnder, ...] = ()


#: Called once, from any thread: None when the mail is durable, else why it is not (then nothing was kept).
Done = Callable[[Error | None], None]


class Intake(Protocol):
    """Where the SMTP listener puts a finished mail."""

    def accept(self, mail: Mail, done: Done) -> None:
        """Keep it durably, then call done. Returns at once; many mails share one flush."""
        ...


class MailboxEntry(Protocol):
    """A message as POP3 lists it."""

    @property
    def id(self) -> int: ...
    @property
    def uidl(self) -> str: ...
    @property
    def size(self) -> int: ...


class Maildrop(Protocol):
    """One account's mailbox for one POP3 session (RFC 1939 § 4: locked for the session by the store)."""

    def entries(self) -> Sequence[MailboxEntry]:
        """The messages at the moment of the lock, oldest first; fixed for the session."""
        ...

    def content(self, id: int) -> bytes:
        """Raises UnavailableError, CorruptError."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """UPDATE state of RFC 1939 § 6: all or none. Raises UnavailableError, and then none is deleted."""
        ...

    def close(self) -> None:
        """Give the lock back."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Outgoing:
    """One mail for one remote recipient that is due for an attempt."""

    id: int
    sender: str
    recipient: Recipient
    accepted_at: datetime
    attempts: int
    message_id: str
    ret: Literal["FULL", "HDRS"] | None
    envid: str | None
    smtputf8: bool
    content: bytes
    delay_reported: bool = False


class Queue(Protocol):
    """The outbound queue. Each method is one transaction; a DSN that it causes is recorded in the same one."""

    def due(self, now: datetime, limit: int) -> Sequence[Outgoing]:
        """Mails whose time has come, oldest first, each under a lease: nobody else is handed it meanwhile."""
        ...

    def delivered(self, id: int, now: datetime, reply: str, relayed_dsn: bool) -> None:
        """The next host took it. relayed_dsn: that host speaks DSN, so it will report success itself."""
        ...

    def retry(self, id: int, now: datetime, next_at: datetime, reply: str, report_delay: bool) -> None: ...

    def failed(self, id: int, now: datetime, reply: str, status: str) -> None:
        """Given up for good. status: enhanced status code (RFC 3463)."""
        ...

    def put_back(self, ids: Sequence[int]) -> None:
        """Due again as before, because their attempts were cut; no attempt is counted."""
        ...


class Gate(Protocol):
    """What the switch says to the outbound queue."""

    def may_begin(self) -> bool:
        """Whether a mail may be sent now."""
        ...

    def unit(self) -> AbstractContextManager[object]:
        """Entered while a mail is being sent."""
        ...

    def held_between(self, since: datetime, until: datetime) -> timedelta:
        """For how long nothing might be sent: as long the clocks of retries stand still (HD-24)."""
        ...


class OpenGate:
    """Where no switch rules."""

    def may_begin(self) -> bool:
        return True

    def unit(self) -> AbstractContextManager[object]:
        return nullcontext()

    def held_between(self, since: datetime, until: datetime) -> timedelta:
        return timedelta(0)


class Action(StrEnum):
    """Action field of RFC 3464 § 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """All that a DSN is made of (RFC 3464); built by `mail.dsn.build`.

    headers: header block of the reported mail. status: such as "2.0.0" (RFC 3463).
    message_id: of the DSN itself; derived from the delivery, so that a DSN made twice is one mail.
    """

    message_id: str
    reporting_host: str
    to: str
    recipient: Recipient
    action: Action
    status: str
    diagnostic: str | None
    arrived_at: datetime
    created_at: datetime
    envid: str | None
    original_message_id: str
    headers: bytes
    content: bytes | None = field(default=None)  # whole mail when RET=FULL and the action is failed
    will_retry_until: datetime | None = None
