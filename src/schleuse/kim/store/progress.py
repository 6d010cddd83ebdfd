"""What became of a part of a mailbox, and what is readable of what waits: the eyes of a release (HD-41, HD-42)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from schleuse.clock import from_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.delivery import position_of
from schleuse.mail.spool import DamagedRecordError
from schleuse.mail.spool.envelope import header_block, seal_matches

#: Mails that are read into memory at once.
AT_ONCE = 50
_LABEL = re.compile(rb"^x-kim-dienstkennung:[ \t]*([^\r\n]{1,200})", re.IGNORECASE | re.MULTILINE)

_OUTCOME = sa.text(
    "SELECT state, count(*) AS number FROM kim_delivery"
    " WHERE account = :account AND id > :above AND id <= :upto GROUP BY state"
)
_WAITING = sa.text(
    "SELECT id FROM kim_delivery WHERE account = :account AND id > :above AND id <= :upto"
    " AND state IN ('HELD', 'RELEASING') ORDER BY id LIMIT :limit"
)
_ROWS = sa.text("SELECT id, length, accepted_us FROM kim_delivery WHERE id IN :ids ORDER BY id").bindparams(
    sa.bindparam("ids", expanding=True)
)


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """waiting: HELD or RELEASING. errors: RETURNED or QUARANTINED.

    damaged: of those that wait, whose seal does not match; they wait for ever. As many are looked at as fit in memory.
    """

    waiting: int
    errors: int
    damaged: int


@dataclass(frozen=True, slots=True)
class Peeked:
    """A waiting mail, unopened. label: its Dienstkennung, "" without one. whole: its seal matches (HD-45)."""

    id: int
    accepted_at: datetime
    label: str
    whole: bool


class ReleaseView:
    """Reads only. All raise UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def outcome(self, account: str, above: int, upto: int) -> PartOutcome:
        """Of the mailbox's deliveries with above < id <= upto."""
        waiting = errors = 0
        with self._backing.reading() as connection:
            for row in connection.execute(_OUTCOME, {"account": account, "above": above, "upto": upto}):
                if row.state in ("HELD", "RELEASING"):
                    waiting += row.number
                elif row.state in ("RETURNED", "QUARANTINED"):
                    errors += row.number
            values = {"account": account, "above": above, "upto": upto, "limit": AT_ONCE}
            ids = list(connection.execute(_WAITING, values).scalars()) if waiting else []
        return PartOutcome(waiting, errors, sum(not one.whole for one in self.peek(ids)))

    def peek(self, ids: Sequence[int]) -> Iterator[Peeked]:
        """Each of these, read and compared with its seal; nothing is opened (HD-22)."""
        for start in range(0, len(ids), AT_ONCE):
            with self._backing.reading() as connection:
                rows = connection.execute(_ROWS, {"ids": list(ids[start : start + AT_ONCE])}).all()
            contents = self._backing.contents.read([(position_of(row.id), row.length) for row in rows])
            for row, content in zip(rows, contents, strict=True):
                accepted_at = from_us(row.accepted_us)
                if isinstance(content, DamagedRecordError):
                    yield Peeked(row.id, accepted_at, "", False)
                    continue
                envelope, data = content
                found = _LABEL.search(header_block(data))
                label = found[1].decode("ascii", "replace").strip() if found else ""
                yield Peeked(row.id, accepted_at, label, seal_matches(envelope, data))
