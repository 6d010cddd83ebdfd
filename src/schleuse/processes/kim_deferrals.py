"""The mail role counts deferred attempts by sender, mailbox and hour (incident.md § 6.5).

They are gathered in memory and written once a second, so that a closed door costs no transaction for each knock. That
somebody knocked survives the death of the role (`kim/deferral_notes.py`), how often in its last second may not; whether
somebody came back is recorded with the delivery itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.kim.deferral_notes import Notes
from schleuse.kim.deferred import AccountOf, Gathered
from schleuse.kim.store.deferrals import Deferrals
from schleuse.mail.contracts import Mail
from schleuse.mail.smtp_actions import Postponed

log = structlog.get_logger()

WRITE_SECONDS = 1.0
#: The list names practices; whoever did not come back within a year is no longer asked.
KEEP = timedelta(days=365)


class DeferralDesk(Collector):
    """What SMTP tells, on its way to the table. notes: a folder of this role."""

    def __init__(self, deferrals: Deferrals, account_of: AccountOf, now: Now, notes: Path) -> None:
        self._deferrals = deferrals
        self._gathered = Gathered(account_of, Notes(notes))
        self._now = now
        self._writing = threading.Lock()

    def postponed(self, what: Postponed) -> None:
        """One recipient was deferred at RCPT."""
        self._gathered.note(what.sender, what.recipient, what.envid, self._now())

    def deferred(self, mail: Mail) -> None:
        """A mail was deferred as a whole, because its scope closed after RCPT."""
        for recipient in mail.recipients:
            self._gathered.note(mail.sender, recipient.address, mail.envid, self._now())

    def accepted(self, mail: Mail) -> None:
        """A mail was kept."""
        self._gathered.came_back(mail.sender, [one.address for one in mail.recipients], mail.accepted_at)

    def write(self) -> None:
        """Raises UnavailableError; nothing is lost by it."""
        with self._writing:  # or one that is done removes the notes of another that then fails
            taken = self._gathered.take()
            try:
                self._deferrals.write(taken)
            except Error:
                self._gathered.put_back(taken)
                raise
            self._gathered.written()

    async def keep_writing(self) -> None:
        """For ever; once more at the end."""
        try:
            while True:
                await asyncio.sleep(WRITE_SECONDS)
                await asyncio.to_thread(self._try)
        finally:
            self._try()

    def forget(self) -> None:
        """Erase what is too old. Raises UnavailableError."""
        self._deferrals.forget(self._now() - KEEP)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "schleuse_kim_deferred_away",
            "Pairs of sender and mailbox that were deferred and have not come back (§ 6.5)",
        )
        with suppress(Error):  # readiness says why
            family.add_metric([], self._deferrals.count_away())
        yield family

    def _try(self) -> None:
        try:
            self.write()
        except Error as error:
            log.error("deferrals.waiting", code=error.code, reason=str(error))
