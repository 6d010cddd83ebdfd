"""The mail store of the `kim` role: accept, route, mailboxes, outbound queue, reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from schleuse.clock import Now, from_us, utc_now
from schleuse.errors import Error
from schleuse.holding.reconcile import Books
from schleuse.holding.states import State
from schleuse.kim.store.audit import audit, count_states
from schleuse.kim.store.bodies import read_cursor
from schleuse.kim.store.deferrals import Deferrals
from schleuse.kim.store.delivery import MAX_RECIPIENTS, Acceptance, PendingReport, TooManyRecipientsError, Under
from schleuse.kim.store.held_letters import HeldLetters
from schleuse.kim.store.leases import Leases
from schleuse.kim.store.maildrop import Mailbox
from schleuse.kim.store.origins import Origins
from schleuse.kim.store.outbound import Outbound
from schleuse.kim.store.parts import Parts, Settings, open_parts, require_index
from schleuse.kim.store.placement import AccountOf
from schleuse.kim.store.rebuild import rebuild
from schleuse.kim.store.receipt_mails import ReceiptMails
from schleuse.kim.store.reports import Reports
from schleuse.kim.store.retention import expired, purge_bodies, remove_segments
from schleuse.kim.store.router import BATCH, Router
from schleuse.kim.store.tables import DELIVERY
from schleuse.mail.contracts import Done, Mail
from schleuse.mail.spool import Disk, Envelope, GroupCommit, OsDisk
from schleuse.switch.documents import Limit

__all__ = ["AccountOf", "MailStore", "Settings", "open_mail_store", "rebuild_index"]

log = structlog.get_logger()

Step = Callable[[str], None]

#: After an error, and for mail that another host accepted and died before routing it (PostgreSQL).
ROUTE_EVERY = timedelta(seconds=1)


class MailStore:
    """Durable mail of the platform. Thread-safe. Satisfies `contracts.Intake`.

    queue: the outbound queue (`contracts.Queue`). leases: the worker's side. deferrals: who was told to come again.
    held_letters: what waits for other hosts because the switch holds it. origins, receipt_mails: for hold receipts.
    Methods raise UnavailableError when the store cannot serve now.
    """

    def __init__(
        self,
        parts: Parts,
        settings: Settings,
        account_of: AccountOf,
        now: Now,
        *,
        background: bool,
        step: Step,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._now = now
        backing = parts.backing
        self.queue = Outbound(backing, settings.owner)
        self.leases = Leases(backing, settings.retention)
        self.deferrals = Deferrals(backing)
        self.held_letters = HeldLetters(backing)
        self.origins = Origins(backing)
        self.receipt_mails = ReceiptMails(backing)
        self._reports = Reports(backing, settings.host, settings.give_up_after)
        self._router = Router(backing, parts.bodies, account_of, now, retention=settings.retention, step=step)
        self._routing = threading.Lock()
        self._purging = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._commit = GroupCommit(self._keep, step=step)
        self._thread = threading.Thread(target=self._route_for_ever, name="mail-router", daemon=True)
        if background:
            self._wake.set()
            self._thread.start()

    def accept(self, mail: Mail, done: Done) -> None:
        """Keep it durably, then call done (from the commit thread). Returns at once; many mails share one flush."""
        if len(mail.recipients) > MAX_RECIPIENTS:
            done(TooManyRecipientsError(f"a mail has at most {MAX_RECIPIENTS} recipients; its sender must split it"))
        else:
            self._commit.accept(mail, done)

    def route(self) -> int:
        """Turn all accepted mail that has none yet into deliveries. Returns how many mails; runs by itself, too."""
        routed = 0
        with self._routing:
            while count := self._router.route():
                routed += count
        return routed

    def maildrop(self, account: str, under: Under | None = None, limit: Limit | None = None) -> Mailbox:
        """Lock the mailbox for one POP3 session. limit: of a LIMITED scope, see `Mailbox`.

        Raises MaildropLockedError, StaleEpochError, UnavailableError.
        """
        return Mailbox(self._parts.backing, account, self._parts.locks.take(account), self._now, under, limit)

    def pending_reports(self, limit: int) -> Sequence[PendingReport]:
        """DSNs that are to be built (`mail.dsn.envelope`) and accepted. The same ones until `report_accepted`."""
        return self._reports.pending(limit)

    def report_accepted(self, pending: Sequence[PendingReport]) -> None:
        """Their DSNs are durable. Call it after `done(None)`; a crash between is harmless."""
        self._reports.accepted(pending, self._now())

    def reconsider(self, ids: Sequence[int], now: datetime) -> int:
        """QUARANTINED -> HELD, by the decision of people. Returns how many moved."""
        return self.leases.reconsider(ids, now)

    def acceptances(self, after: int, limit: int) -> list[Acceptance]:
        """Deliveries into mailboxes with greater ids than `after`, in acceptance order. Raises UnavailableError.

        One router places all mails, so ids come in order and nothing is ever put below one that was returned.
        """
        columns = DELIVERY.c
        query = (
            sa.select(columns.id, columns.account, columns.digest, columns.accepted_us)
            .where(columns.id > after, columns.account.is_not(None))
            .order_by(columns.id)
            .limit(limit)
        )
        with self._parts.backing.reading() as connection:
            rows = connection.execute(query).all()
        return [Acceptance(row.id, row.account, row.digest, from_us(row.accepted_us)) for row in rows]

    def ask(self) -> None:
        """Raises UnavailableError when the database does not answer."""
        with self._parts.backing.reading() as connection:
            read_cursor(connection)

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """Deliveries per account and state; OUTBOUND stands for the outbound queue."""
        with self._parts.backing.reading() as connection:
            return count_states(connection)

    def audit(self) -> Books:
        """What `holding.reconcile` compares; reads every record. Raises CorruptError."""
        with self._purging:
            return audit(self._parts.backing, self._settings.spool)

    def purge(self, now: datetime) -> int:
        """Erase the bodies of finished mail whose retention is over; remove segments without any. Returns how many.

        Nothing while retention is frozen, and nothing of a mailbox that is held (SW-12).
        """
        parts, frozen = self._parts, self._settings.frozen
        if frozen is not None and frozen.exists():
            return 0
        with self._purging:
            if parts.spool is None:
                return purge_bodies(parts.backing, parts.bodies, now, before=None)
            # The end of the newest segment is judged from its records after a crash, so these stay untouched in it.
            purged = purge_bodies(parts.backing, parts.bodies, now, before=parts.spool.newest)
            if expired(parts.backing, now, before=None, limit=1):
                parts.spool.start_anew()
            remove_segments(parts.backing, parts.spool, parts.disk)
            return purged

    def close(self) -> None:
        """Commit what was accepted, then stop."""
        self._commit.close()
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._parts.close()

    def __enter__(self) -> MailStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        self._parts.bodies.keep(batch)
        self._wake.set()

    def _route_for_ever(self) -> None:
        patience = ROUTE_EVERY.total_seconds() if self._parts.backing.is_shared else None
        wait = patience
        while not self._closing.wait(self._settings.gather.total_seconds()):
            self._wake.wait(wait)
            self._wake.clear()
            wait = patience
            try:
                with self._routing:
                    # What comes meanwhile wakes the next round: a transaction for a few costs as much as one for many.
                    while self._router.route() == BATCH and not self._closing.is_set():
                        pass
            except Error as error:
                log.error("mail.routing-waits", code=error.code, reason=str(error))
                wait = ROUTE_EVERY.total_seconds()
            except Exception as cause:  # accepted mail stays where it is; the next round begins where this one did
                log.error("mail.routing-waits", code="kim.routing-failed", kind=type(cause).__name__)
                wait = ROUTE_EVERY.total_seconds()


def open_mail_store(
    settings: Settings,
    account_of: AccountOf,
    *,
    now: Now = utc_now,
    disk: Disk | None = None,
    background: bool = True,
    step: Step = lambda name: None,
) -> MailStore:
    """Open: recover the segments, upgrade the tables, take outbound mail back that was on its way, start routing.

    background: False: only `route` routes. disk, step: where a test makes it fail.
    Raises DatabaseUnavailableError, SpoolLockedError (another process has the spool), IndexMissingError, CorruptError.
    """
    parts = open_parts(settings, disk or OsDisk())
    try:
        if parts.spool is not None:
            require_index(parts.backing, parts.spool)
        Outbound(parts.backing, settings.owner).reset()
        return MailStore(parts, settings, account_of, now, background=background, step=step)
    except BaseException:
        parts.close()
        raise


def rebuild_index(settings: Settings, account_of: AccountOf, *, now: Now = utc_now, disk: Disk | None = None) -> int:
    """Rebuild the index of an embedded store that no process has open (see `rebuild`). Returns how many mails.

    Raises NothingToRebuildError, SpoolLockedError, UnavailableError, CorruptError.
    """
    parts = open_parts(settings, disk or OsDisk())
    try:
        router = Router(parts.backing, parts.bodies, account_of, now, retention=settings.retention)
        return rebuild(parts.backing, parts.spool, parts.disk, router)
    finally:
        parts.close()
