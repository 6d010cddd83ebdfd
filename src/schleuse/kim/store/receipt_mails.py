"""Receipts that go out as mails: one for each held delivery, recorded before it is sent (HD-30).

A rebuilt index has forgotten which went out; what is held then is told once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.delivery import position_of
from schleuse.mail.spool import DamagedRecordError

#: accepted_us of a receipt that will not be sent: the mail goes on meanwhile, or its sender is unknown.
NEVER = 0

_UNTOLD = sa.text(
    "SELECT d.id FROM kim_delivery AS d LEFT JOIN kim_receipt AS r ON r.delivery = d.id"
    " WHERE d.account = :account AND d.state = 'HELD' AND d.id > :after AND r.delivery IS NULL"
    " ORDER BY d.id LIMIT :limit"
)
_RECORD = sa.text(
    "INSERT INTO kim_receipt (delivery, token, created_us) VALUES (:delivery, :token, :created_us)"
    " ON CONFLICT (delivery) DO NOTHING"
)
_WAITING = sa.text(
    "SELECT r.delivery, r.token, r.created_us, d.account, d.state, d.length FROM kim_receipt AS r"
    " JOIN kim_delivery AS d ON d.id = r.delivery WHERE r.accepted_us IS NULL ORDER BY r.delivery LIMIT :limit"
)
_END = sa.text("UPDATE kim_receipt SET accepted_us = :at WHERE delivery = :delivery AND accepted_us IS NULL")


@dataclass(frozen=True, slots=True, repr=False)
class WaitingReceipt:
    """A receipt that no mail carries yet. sender: of the held mail, "" if nobody knows. state: of the delivery."""

    delivery: int
    account: str | None
    state: str
    token: str
    created_at: datetime
    sender: str
    message_id: str


class ReceiptMails:
    """Each method is one transaction. All raise UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def untold(self, account: str, after: int, limit: int) -> list[int]:
        """HELD deliveries of a mailbox without a receipt, in acceptance order."""
        values = {"account": account, "after": after, "limit": limit}
        with self._backing.reading() as connection:
            return [int(id) for id in connection.execute(_UNTOLD, values).scalars()]

    def record(self, tokens: Sequence[tuple[int, str]], now: datetime) -> None:
        """(delivery, signed receipt): from now on exactly these are sent."""
        rows = [{"delivery": id, "token": token, "created_us": to_us(now)} for id, token in tokens]
        if rows:
            with self._backing.writing() as connection:
                connection.execute(_RECORD, rows)

    def waiting(self, limit: int) -> list[WaitingReceipt]:
        """The oldest that are recorded and not sent."""
        with self._backing.reading() as connection:
            rows = connection.execute(_WAITING, {"limit": limit}).all()
        contents = self._backing.contents.read([(position_of(row.delivery), row.length) for row in rows])
        found = []
        for row, content in zip(rows, contents, strict=True):
            envelope = None if isinstance(content, DamagedRecordError) else content[0]
            sender, message_id = (envelope.sender, envelope.message_id) if envelope else ("", "")
            created = from_us(row.created_us)
            found.append(WaitingReceipt(row.delivery, row.account, row.state, row.token, created, sender, message_id))
        return found

    def sent(self, deliveries: Sequence[int], now: datetime) -> None:
        """Mails that carry them are durable."""
        self._end(deliveries, to_us(now))

    def drop(self, deliveries: Sequence[int]) -> None:
        """They are not sent."""
        self._end(deliveries, NEVER)

    def _end(self, deliveries: Sequence[int], at_us: int) -> None:
        if deliveries:
            with self._backing.writing() as connection:
                connection.execute(_END, [{"delivery": id, "at": at_us} for id in deliveries])
