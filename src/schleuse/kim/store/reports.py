"""DSNs that are owed, from the row to a `contracts.Report`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import as_many_as_fit
from schleuse.kim.store.delivery import PendingReport, position_of, recipient_index
from schleuse.kim.store.marks import Mark
from schleuse.kim.store.placement import OwedReport
from schleuse.kim.store.tables import DELIVERY, REPORT
from schleuse.mail.contracts import Action, Report
from schleuse.mail.spool import DamagedRecordError, Envelope
from schleuse.mail.spool.envelope import header_block

#: Enhanced status of a letter that the switch holds: "system not accepting network messages" (RFC 3463 § 3.4).
HELD_STATUS = "4.3.2"
#: Diagnostic of such a "delayed" DSN; the sender decides on phone or fax (HD-10).
HELD_TEXT = "held for security reasons, still being tried, nothing is lost; if it is urgent use phone or fax"

#: accepted_us of a DSN that can never be built, because the record of its mail is damaged.
NEVER = 0


class Reports:
    """The DSNs between the transaction that owes them and the mail that carries them."""

    def __init__(self, backing: Backing, host: str, give_up_after: timedelta) -> None:
        self._backing = backing
        self._host = host
        self._give_up_after = give_up_after

    def pending(self, limit: int) -> list[PendingReport]:
        """The oldest that no mail carries yet, as many as fit into memory. Raises UnavailableError."""
        query = (
            sa.select(REPORT, DELIVERY.c.length, DELIVERY.c.size)
            .join(DELIVERY, DELIVERY.c.id == REPORT.c.delivery)
            .where(sa.text("kim_report.accepted_us IS NULL"))
            .order_by(REPORT.c.delivery)
            .limit(limit)
        )
        with self._backing.reading() as connection:
            rows = as_many_as_fit(connection.execute(query).all())
        contents = self._backing.contents.read([(position_of(row.delivery), row.length) for row in rows])
        found: list[PendingReport] = []
        for row, content in zip(rows, contents, strict=True):
            action = Action(row.action)
            if isinstance(content, DamagedRecordError):
                self._close([(row.delivery, action)], NEVER)
            else:
                owed = OwedReport(row.delivery, action, row.status, row.diagnostic, row.created_us)
                found.append(PendingReport(row.delivery, action, self._build(owed, *content)))
        return found

    def accepted(self, pending: Sequence[PendingReport], now: datetime) -> None:
        """Mails that carry them are durable. Raises UnavailableError: then they are pending still."""
        if not pending:
            return
        now_us = to_us(now)
        self._backing.marks.write([Mark(one.delivery, now_us, reported=frozenset({one.action})) for one in pending])
        self._close([(one.delivery, one.action) for one in pending], now_us)

    def _close(self, keys: Sequence[tuple[int, Action]], at_us: int) -> None:
        statement = (
            sa.update(REPORT)
            .where(REPORT.c.delivery == sa.bindparam("d"), REPORT.c.action == sa.bindparam("a"))
            .values(accepted_us=sa.bindparam("at"))
        )
        with self._backing.writing() as connection:
            connection.execute(statement, [{"d": id, "a": action.value, "at": at_us} for id, action in keys])

    def _build(self, owed: OwedReport, envelope: Envelope, content: bytes) -> Report:
        """Only from what is stored, so that a DSN made again is the same octet for octet."""
        failed, delayed = owed.action is Action.FAILED, owed.action is Action.DELAYED
        is_held = owed.diagnostic == HELD_TEXT
        return Report(
            message_id=f"{owed.delivery:x}.{owed.action.value}@{self._host}",
            reporting_host=self._host,
            to=envelope.sender,
            recipient=envelope.recipients[recipient_index(owed.delivery)],
            action=owed.action,
            status=owed.status,
            diagnostic=owed.diagnostic,
            arrived_at=envelope.accepted_at,
            created_at=from_us(owed.created_us),
            envid=envelope.envid,
            original_message_id=envelope.message_id.strip("<>"),
            headers=header_block(content),
            content=content if failed and envelope.ret == "FULL" else None,
            # The clock of a letter that is held stands still: nobody knows until when it will be tried (HD-24).
            will_retry_until=envelope.accepted_at + self._give_up_after if delayed and not is_held else None,
        )


def owe(connection: Connection, report: OwedReport) -> None:
    """Record a DSN in the transaction that causes it; a second one of the same kind for a delivery is not recorded."""
    known = sa.select(REPORT.c.delivery).where(
        REPORT.c.delivery == report.delivery, REPORT.c.action == report.action.value
    )
    if connection.execute(known).first() is None:
        connection.execute(sa.insert(REPORT).values(**report_row(report)))


def report_row(report: OwedReport) -> dict[str, object]:
    """Its columns."""
    return {
        "delivery": report.delivery,
        "action": report.action.value,
        "status": report.status,
        "diagnostic": report.diagnostic,
        "created_us": report.created_us,
        "accepted_us": report.created_us if report.accepted else None,
    }
