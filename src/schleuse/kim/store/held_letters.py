"""Mail for other hosts that the switch holds: who must hear that it is delayed, and how long it has waited (HD-10)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from schleuse.clock import to_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.delivery import position_of, recipient_index
from schleuse.kim.store.marks import Mark
from schleuse.kim.store.placement import OwedReport
from schleuse.kim.store.reports import HELD_STATUS, HELD_TEXT, owe
from schleuse.mail.contracts import Action
from schleuse.mail.dsn import wanted
from schleuse.mail.spool import DamagedRecordError

_UNTOLD = sa.text(
    "SELECT id, length FROM kim_delivery WHERE account IS NULL AND state = 'HELD' AND NOT delay_reported"
    " AND accepted_us <= :before ORDER BY id LIMIT :limit"
)
_TOLD = sa.text(
    "UPDATE kim_delivery SET delay_reported = :true WHERE id = :id AND account IS NULL AND state = 'HELD'"
    " AND NOT delay_reported"
)
_OLDER = sa.text(
    "SELECT count(*) AS number, max(id) AS last FROM kim_delivery"
    " WHERE account IS NULL AND state = 'HELD' AND accepted_us <= :before AND id > :after"
)


@dataclass(frozen=True, slots=True)
class Older:
    """How many have waited for so long, and the id of the last of them."""

    number: int
    last: int


class HeldLetters:
    """Raises UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def tell_delayed(self, before: datetime, now: datetime, limit: int = 256) -> int:
        """Owe a "delayed" DSN for each letter that was accepted before a moment and has none, if its sender wants it.

        Once for each letter, also after a crash: the DSN and the mark that it is owed are one transaction. Returns how
        many letters were looked at.
        """
        with self._backing.reading() as connection:
            rows = connection.execute(_UNTOLD, {"before": to_us(before), "limit": limit}).all()
        reports = [(int(row.id), self._report(row.id, row.length, now)) for row in rows]
        # The marks first, as for every report: a rebuilt index must not tell it twice.
        self._backing.marks.write([_mark(one, now) for _, one in reports if one is not None])
        with self._backing.writing() as connection:
            for id, report in reports:
                told = connection.execute(_TOLD, {"id": id, "true": True}).rowcount
                if told and report is not None:
                    owe(connection, report)
        return len(rows)

    def older(self, before: datetime, after: int) -> Older:
        """Letters accepted before a moment with greater ids than `after`."""
        with self._backing.reading() as connection:
            row = connection.execute(_OLDER, {"before": to_us(before), "after": after}).one()
        return Older(int(row.number), int(row.last or after))

    def _report(self, id: int, length: int, now: datetime) -> OwedReport | None:
        (content,) = self._backing.contents.read([(position_of(id), length)])
        if isinstance(content, DamagedRecordError):
            return None  # nobody knows whom to tell; it is quarantined when it is taken
        envelope = content[0]
        if not wanted(Action.DELAYED, envelope.recipients[recipient_index(id)], envelope.sender):
            return None
        return OwedReport(id, Action.DELAYED, HELD_STATUS, HELD_TEXT, to_us(now))


def _mark(report: OwedReport, now: datetime) -> Mark:
    # Without a state: the hold may have ended meanwhile, and the letter be on its way.
    told = {report.action: (report.status, report.diagnostic, report.created_us)}
    return Mark(report.delivery, to_us(now), reports=told)
