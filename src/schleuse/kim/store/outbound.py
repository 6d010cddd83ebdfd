"""The outbound queue (`contracts.Queue`): mail for other hosts, with its attempts and its DSNs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from schleuse.clock import to_us
from schleuse.errors import UnavailableError
from schleuse.holding.states import State
from schleuse.kim.store import rates
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import as_many_as_fit
from schleuse.kim.store.delivery import SHARE_SQL, LeaseLostError, Under, position_of, recipient_index
from schleuse.kim.store.marks import Mark
from schleuse.kim.store.placement import OwedReport
from schleuse.kim.store.reports import owe
from schleuse.mail.contracts import Action, Outgoing
from schleuse.mail.dsn import wanted
from schleuse.mail.spool import DamagedRecordError, Envelope
from schleuse.mail.spool.envelope import opened
from schleuse.switch import fence
from schleuse.switch.documents import Limit

#: Longer than any SMTP transaction may take (RFC 5321 § 4.5.3.2); a host that died gives its mail up after it.
LEASE = timedelta(hours=1)

_ENHANCED = re.compile(r"[245][0-9]{2}[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")  # RFC 2034 § 4

_EXPIRED = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', lease_owner = NULL, lease_until_us = NULL"
    " WHERE state = 'RELEASING' AND lease_until_us <= :now AND account IS NULL"
)
_DUE = (
    "SELECT id, length, size, attempts, delay_reported FROM kim_delivery"  # noqa: S608
    f" WHERE account IS NULL AND state = 'HELD' AND not_before_us <= :now AND {SHARE_SQL} < :permille"
    " ORDER BY id LIMIT :limit"
)
_TAKE = sa.text(
    "UPDATE kim_delivery SET state = 'RELEASING', lease_owner = :owner, lease_until_us = :until WHERE id IN :ids"
).bindparams(sa.bindparam("ids", expanding=True))
_PUT_BACK = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', lease_owner = NULL, lease_until_us = NULL"
    " WHERE id IN :ids AND state = 'RELEASING' AND lease_owner = :owner"
).bindparams(sa.bindparam("ids", expanding=True))
_END = sa.text(
    "UPDATE kim_delivery SET state = :state, reason = :reason, changed_us = :now, expires_us = :expires,"
    " attempts = attempts + 1, lease_owner = NULL, lease_until_us = NULL"
    " WHERE id = :id AND state = 'RELEASING' AND lease_owner = :owner"
)
_RETRY = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', reason = :reason, not_before_us = :next, attempts = attempts + 1,"
    " delay_reported = delay_reported OR :delayed, lease_owner = NULL, lease_until_us = NULL"
    " WHERE id = :id AND state = 'RELEASING' AND lease_owner = :owner"
)
_RESET = sa.text(
    "UPDATE kim_delivery SET state = 'HELD', lease_owner = NULL, lease_until_us = NULL"
    " WHERE state = 'RELEASING' AND account IS NULL AND lease_owner = :owner"
)
_LENGTH = sa.text("SELECT length FROM kim_delivery WHERE id = :id")


def status_in(reply: str, otherwise: str) -> str:
    """The enhanced status code of an SMTP reply (RFC 2034), or the given one."""
    found = _ENHANCED.match(reply)
    return found[1] if found else otherwise


class Outbound:
    """Satisfies `contracts.Queue`. owner: of the leases; the same after a restart of this process.

    Each method raises UnavailableError, and then nothing changed; those that end an attempt raise LeaseLostError when
    another process has taken the mail over meanwhile.
    """

    def __init__(self, backing: Backing, owner: str) -> None:
        self._backing = backing
        self._owner = owner
        self._due = sa.text(_DUE + (" FOR UPDATE SKIP LOCKED" if backing.is_shared else ""))

    def due(
        self, now: datetime, limit: int, under: Under | None = None, bound: Limit | None = None
    ) -> Sequence[Outgoing]:
        """HELD -> RELEASING, oldest first; each stays ours until its attempt has ended.

        bound: of a LIMITED scope; its share is that of mails, its rate that of attempts.
        Raises StaleEpochError when the scope was switched since `under` (SW-06).
        """
        permille = 1000 if bound is None or bound.permille is None else bound.permille
        per_hour = None if under is None or bound is None else bound.per_hour
        hour = rates.hour_of(now)
        with self._backing.writing() as connection:
            if under is not None:
                fence.require(connection, under.scope, under.epoch)
            connection.execute(_EXPIRED, {"now": to_us(now)})
            if under is not None and per_hour is not None:
                limit = min(limit, rates.left(connection, str(under.scope), hour, per_hour))
            asked = {"now": to_us(now), "limit": limit, "permille": permille}
            rows = as_many_as_fit(connection.execute(self._due, asked).all())
            if not rows:
                return []
            values = {"ids": [row.id for row in rows], "owner": self._owner, "until": to_us(now + LEASE)}
            connection.execute(_TAKE, values)
            if under is not None and per_hour is not None:
                rates.count(connection, str(under.scope), hour, len(rows))
        try:
            contents = self._backing.contents.read([(position_of(row.id), row.length) for row in rows])
        except UnavailableError:
            with self._backing.writing() as connection:  # not sent, so nobody need wait for the lease to run out
                connection.execute(_PUT_BACK, {"ids": values["ids"], "owner": self._owner})
            raise
        outgoing: list[Outgoing] = []
        for row, content in zip(rows, contents, strict=True):
            if isinstance(content, DamagedRecordError):
                self._end(row.id, now, State.QUARANTINED, str(content), None)
            else:
                outgoing.append(_outgoing(row.id, row.attempts, bool(row.delay_reported), *content))
        return outgoing

    def delivered(self, id: int, now: datetime, reply: str, relayed_dsn: bool) -> None:
        """RELEASING -> DELIVERED. A success that nobody else will report is ours to report (RFC 3461 § 5.2.2)."""
        report = None if relayed_dsn else self._report(id, Action.RELAYED, "2.0.0", reply, now)
        self._end(id, now, State.DELIVERED, None, report)

    def failed(self, id: int, now: datetime, reply: str, status: str) -> None:
        """RELEASING -> RETURNED, with the reason of the next host and a failure DSN."""
        self._end(id, now, State.RETURNED, reply, self._report(id, Action.FAILED, status, reply, now))

    def retry(self, id: int, now: datetime, next_at: datetime, reply: str, report_delay: bool) -> None:
        """RELEASING -> HELD until next_at."""
        report = None
        if report_delay:
            report = self._report(id, Action.DELAYED, status_in(reply, "4.0.0"), reply, now)
            self._mark(id, now, State.HELD, None, report)
        values = {"id": id, "reason": reply, "next": to_us(next_at), "delayed": report_delay, "owner": self._owner}
        self._change(_RETRY, values, report)

    def put_back(self, ids: Sequence[int]) -> None:
        """RELEASING -> HELD, due as before."""
        if not ids:
            return
        with self._backing.writing() as connection:
            connection.execute(_PUT_BACK, {"ids": list(ids), "owner": self._owner})

    def reset(self) -> int:
        """Mail that this process had when it died is due again. Returns how many."""
        with self._backing.writing() as connection:
            return connection.execute(_RESET, {"owner": self._owner}).rowcount

    def _end(self, id: int, now: datetime, state: State, reason: str | None, report: OwedReport | None) -> None:
        # The mark first: the next host has it, so a rebuilt index must not send it again.
        self._mark(id, now, state, reason, report)
        values = {
            "id": id,
            "state": state.value,
            "reason": reason,
            "now": to_us(now),
            "expires": None if state is State.QUARANTINED else to_us(now),
            "owner": self._owner,
        }
        self._change(_END, values, report)

    def _mark(self, id: int, now: datetime, state: State, reason: str | None, report: OwedReport | None) -> None:
        reports = {report.action: (report.status, report.diagnostic, report.created_us)} if report else {}
        self._backing.marks.write([Mark(id, to_us(now), state, reason, reports=reports)])

    def _change(self, statement: sa.TextClause, values: Mapping[str, object], report: OwedReport | None) -> None:
        with self._backing.writing() as connection:
            if connection.execute(statement, values).rowcount != 1:
                raise LeaseLostError("this mail is no longer in our hands; whoever took it over will end it")
            if report is not None:
                owe(connection, report)

    def _report(self, id: int, action: Action, status: str, reply: str, now: datetime) -> OwedReport | None:
        """What the sender is to hear, if he wants to; of a damaged record nobody can say whom to tell."""
        with self._backing.reading() as connection:
            length = connection.execute(_LENGTH, {"id": id}).scalar_one()
        (content,) = self._backing.contents.read([(position_of(id), length)])
        if isinstance(content, DamagedRecordError):
            return None
        envelope = content[0]
        if not wanted(action, envelope.recipients[recipient_index(id)], envelope.sender):
            return None
        return OwedReport(id, action, status, reply, to_us(now))


def _outgoing(id: int, attempts: int, delay_reported: bool, envelope: Envelope, data: bytes) -> Outgoing:
    mail = opened(envelope, data)
    return Outgoing(
        id=id,
        sender=mail.sender,
        recipient=mail.recipients[recipient_index(id)],
        accepted_at=mail.accepted_at,
        attempts=attempts,
        message_id=envelope.message_id,
        ret=mail.ret,
        envid=mail.envid,
        smtputf8=mail.smtputf8,
        content=data,
        delay_reported=delay_reported,
    )
