"""An outbound queue in memory; passes tests/mail/queue_contract.py like the real store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tests.mail.fake_faults import Faults

from schleuse.errors import ConflictError
from schleuse.holding.states import State
from schleuse.mail import dsn
from schleuse.mail.contracts import Action, Mail, Outgoing


@dataclass
class Row:
    mail: Outgoing
    next_at: datetime
    state: State = State.HELD
    reply: str | None = None


class MemoryQueue:
    """faults: due, delivered, retry, failed. reports: (id, action, status) of each DSN that was recorded."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.reports: list[tuple[int, Action, str]] = []
        self.faults = Faults()
        self._mutex = threading.Lock()

    def put(self, mail: Mail, message_id: str = "<1@praxis.example>") -> list[int]:
        ids = []
        for recipient in mail.recipients:
            id = len(self.rows) + 1
            outgoing = Outgoing(
                id=id,
                sender=mail.sender,
                recipient=recipient,
                accepted_at=mail.accepted_at,
                attempts=0,
                message_id=message_id,
                ret=mail.ret,
                envid=mail.envid,
                smtputf8=mail.smtputf8,
                content=mail.content,
            )
            self.rows[id] = Row(outgoing, mail.accepted_at)
            ids.append(id)
        return ids

    def due(self, now: datetime, limit: int) -> Sequence[Outgoing]:
        with self._mutex, self.faults.around("due"):
            rows = [row for row in self.rows.values() if row.state is State.HELD and row.next_at <= now]
            rows.sort(key=lambda row: (row.next_at, row.mail.id))
            for row in rows[:limit]:
                row.state = State.RELEASING
            return [row.mail for row in rows[:limit]]

    def restart(self) -> None:
        """What the process had in its hands when it ended is due again."""
        for row in self.rows.values():
            if row.state is State.RELEASING:
                row.state = State.HELD

    def delivered(self, id: int, now: datetime, reply: str, relayed_dsn: bool) -> None:
        with self._mutex, self.faults.around("delivered"):
            row = self._ours(id)
            row.state, row.reply = State.DELIVERED, reply
            if not relayed_dsn:
                self._record(row, Action.RELAYED, "2.0.0")

    def retry(self, id: int, now: datetime, next_at: datetime, reply: str, report_delay: bool) -> None:
        with self._mutex, self.faults.around("retry"):
            row = self._ours(id)
            row.state, row.next_at, row.reply = State.HELD, next_at, reply
            reported = row.mail.delay_reported or report_delay
            if report_delay and not row.mail.delay_reported:
                self._record(row, Action.DELAYED, "4.0.0")
            row.mail = replace(row.mail, attempts=row.mail.attempts + 1, delay_reported=reported)

    def failed(self, id: int, now: datetime, reply: str, status: str) -> None:
        with self._mutex, self.faults.around("failed"):
            row = self._ours(id)
            row.state, row.reply = State.RETURNED, reply
            self._record(row, Action.FAILED, status)

    def put_back(self, ids: Sequence[int]) -> None:
        with self._mutex, self.faults.around("put_back"):
            for id in ids:
                if self.rows[id].state is State.RELEASING:
                    self.rows[id].state = State.HELD

    def _ours(self, id: int) -> Row:
        row = self.rows[id]
        if row.state is not State.RELEASING:
            raise ConflictError(f"the mail is {row.state}, and was expected to be RELEASING")
        return row

    def _record(self, row: Row, action: Action, status: str) -> None:
        if dsn.wanted(action, row.mail.recipient, row.mail.sender):
            self.reports.append((row.mail.id, action, status))
