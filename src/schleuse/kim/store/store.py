"""The mail store of the `kim` role: accept, route, mailboxes, outbound queue, reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from schleuse.holding.states import State
from schleuse.kim.store.delivery import PendingReport
from schleuse.kim.store.leases import Leases
from schleuse.mail.contracts import Done, Mail, Maildrop, Queue

#: The account that an address belongs to (any case), or None when the mail must leave by the outbound queue.
AccountOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """url: database (`sqlite:///…` embedded, `postgresql+psycopg://…`). spool: directory of the segments.

    host: our name in DSNs and their Message-IDs. owner: name of this process among those that share a PostgreSQL.
    """

    url: str
    spool: Path
    host: str
    owner: str = "kim"
    segment_bytes: int = 128 << 20
    retention: timedelta = timedelta(days=90)
    give_up_after: timedelta = timedelta(days=5)


class MailStore:
    """Durable mail of the platform. Thread-safe. Satisfies `contracts.Intake`; `.queue` is a `contracts.Queue`,
    `.leases` the worker's side."""

    queue: Queue
    leases: Leases

    def accept(self, mail: Mail, done: Done) -> None:
        """Keep it durably, then call done (from the commit thread). Returns at once; many mails share one flush."""
        raise NotImplementedError

    def route(self) -> int:
        """Turn accepted mail that has none yet into deliveries. Returns how many mails; runs by itself, too."""
        raise NotImplementedError

    def maildrop(self, account: str) -> Maildrop:
        """Lock the mailbox for one POP3 session. Raises MaildropLockedError, UnavailableError."""
        raise NotImplementedError

    def pending_reports(self, limit: int) -> Sequence[PendingReport]:
        """DSNs that are to be built (`mail.dsn.build`) and accepted. The same ones until `report_accepted`."""
        raise NotImplementedError

    def report_accepted(self, pending: Sequence[PendingReport]) -> None:
        """Their DSNs are durable. Call it after `done(None)`; a crash between is harmless."""
        raise NotImplementedError

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """Deliveries per account and state; OUTBOUND stands for the outbound queue."""
        raise NotImplementedError

    def purge(self, now: datetime) -> int:
        """Erase the bodies of finished mail whose retention is over. Returns how many."""
        raise NotImplementedError

    def close(self) -> None:
        """Commit what was accepted, then stop."""


def open_mail_store(settings: Settings, account_of: AccountOf) -> MailStore:
    """Open (recover, upgrade, start routing).

    Raises UnavailableError (database), ConflictError (another process has the spool), CorruptError.
    """
    raise NotImplementedError
