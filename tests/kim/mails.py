"""Valid mails and a store in which to put them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from schleuse.errors import Error
from schleuse.holding.reconcile import Reconciliation, reconcile
from schleuse.kim.store import MailStore, Settings, open_mail_store
from schleuse.mail.contracts import Mail, Notify, Recipient
from schleuse.mail.spool import Disk

START = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)
KASSE = "eau@kasse.kim.telematik"
PRAXIS = "praxis@arzt.kim.telematik"
ELSEWHERE = "jemand@anderswo.kim.telematik"
SUCCESS = frozenset({Notify.SUCCESS, Notify.FAILURE})
LOCAL = frozenset({KASSE, PRAXIS, "zwei@kasse.kim.telematik"})
LEASE = timedelta(minutes=5)

RECEIVED = b"Received: from praxis by kim;\r\n\tMon, 2 Mar 2026 08:30:00 +0100\r\n"


def account_of(address: str) -> str | None:
    return address.lower() if address.lower() in LOCAL else None


def content(number: int, *, trace: bytes = RECEIVED, size: int = 200) -> bytes:
    head = b"Message-ID: <%d@praxis.example>\r\nSubject: KIM\r\n\r\n" % number
    return trace + head + (b"%08d" % number) * (size // 8) + b"\r\n"


def a_mail(number: int = 1, *to: str, notify: frozenset[Notify] = frozenset(), sender: str = PRAXIS) -> Mail:
    recipients = tuple(Recipient(address, notify) for address in to or (KASSE,))
    return Mail(sender, recipients, content(number), START, user=sender)


def again_through_another_host(mail: Mail) -> Mail:
    trace = b"Received: by other\r\nReturn-Path: <a@b>\r\nReceived: from c\r\n"
    return replace(mail, content=trace + mail.content.removeprefix(RECEIVED))


@dataclass
class Clock:
    """The time, as a test sets it."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Site:
    """Where a store lives, across openings of it."""

    settings: Settings
    clock: Clock = field(default_factory=Clock)

    @property
    def is_embedded(self) -> bool:
        return self.settings.url.startswith("sqlite")

    def open(self, disk: Disk | None = None, **more: Any) -> MailStore:
        return open_mail_store(replace(self.settings, **more), account_of, now=self.clock, disk=disk, background=False)


def offer(store: MailStore, *mails: Mail) -> list[Error | None]:
    """Accept the mails and wait for each answer."""
    answers: dict[int, Error | None] = {}
    left = threading.Semaphore(0)
    for index, mail in enumerate(mails):

        def done(error: Error | None, index: int = index) -> None:
            answers[index] = error
            left.release()

        store.accept(mail, done)
    for _ in mails:
        assert left.acquire(timeout=30)
    return [answers[index] for index in range(len(mails))]


def put(store: MailStore, *mails: Mail) -> None:
    """Accept and route the mails; all must be taken."""
    assert offer(store, *mails) == [None] * len(mails)
    store.route()


def check(store: MailStore) -> Reconciliation:
    return reconcile(store.audit())
