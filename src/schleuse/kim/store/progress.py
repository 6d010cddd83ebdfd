"""What became of a part of a mailbox, and what is readable of what waits: the eyes of a release (HD-41, HD-42)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import as_many_as_fit
from schleuse.kim.store.delivery import position_of
from schleuse.kim.store.suspicions import UNSUSPECTED_SQL
from schleuse.mail.spool import DamagedRecordError
from schleuse.mail.spool.envelope import header_block, seal_matches

#: Mails that are read into memory at once, unless they are large (`as_many_as_fit`).
AT_ONCE = 50
_LABEL = re.compile(rb"^x-kim-dienstkennung:[ \t]*([^\r\n]{1,200})", re.IGNORECASE | re.MULTILINE)

# A worker that meets our own trouble puts a mail back with a time before which nobody takes it again.
_OUTCOME = sa.text(
    "SELECT state, count(*) AS number, sum(CASE WHEN not_before_us > :now THEN 1 ELSE 0 END) AS put_back"  # noqa: S608
    " FROM kim_delivery WHERE account = :account AND id > :above AND id <= :upto"
    # What is suspected was kept aside unopened, and says nothing about how the release goes (HD-47).
    f" AND NOT (state = 'QUARANTINED' AND NOT {UNSUSPECTED_SQL}) GROUP BY state"
)
_WAITING = sa.text(
    "SELECT id FROM kim_delivery WHERE account = :account AND id > :above AND id <= :upto"
    " AND state IN ('HELD', 'RELEASING') ORDER BY id LIMIT :limit"
)
_ROWS = sa.text("SELECT id, length, size, accepted_us FROM kim_delivery WHERE id IN :ids ORDER BY id").bindparams(
    sa.bindparam("ids", expanding=True)
)
_SENT_AGAIN = sa.text(
    "SELECT linked_to FROM kim_delivery"
    " WHERE account = :account AND state = 'DUPLICATE_LINKED' AND id > :above AND linked_to > :above"
)


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """waiting: HELD or RELEASING. failed: RETURNED or QUARANTINED. put_back: of those that wait, HELD again for a time
    because of some trouble of ours.

    damaged: of the first AT_ONCE that wait, whose seal does not match; they wait for ever.
    """

    waiting: int
    failed: int
    put_back: int
    damaged: int


@dataclass(frozen=True, slots=True, repr=False)
class Peeked:
    """A mail, unopened. label: its Dienstkennung, "" without one. whole: its seal matches (HD-45).

    message_id: of its outer header, "" if it has none or the record is damaged or purged.
    """

    id: int
    accepted_at: datetime
    label: str
    whole: bool
    message_id: str = ""


class ReleaseView:
    """Reads only. All raise UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def outcome(self, account: str, above: int, upto: int, now: datetime) -> PartOutcome:
        """Of the mailbox's deliveries with above < id <= upto."""
        waiting = failed = put_back = 0
        with self._backing.reading() as connection:
            values = {"account": account, "above": above, "upto": upto, "now": to_us(now)}
            for row in connection.execute(_OUTCOME, values):
                if row.state in ("HELD", "RELEASING"):
                    waiting += row.number
                    put_back += int(row.put_back) if row.state == "HELD" else 0
                elif row.state in ("RETURNED", "QUARANTINED"):
                    failed += row.number
            values = {"account": account, "above": above, "upto": upto, "limit": AT_ONCE}
            ids = list(connection.execute(_WAITING, values).scalars()) if waiting else []
        return PartOutcome(waiting, failed, put_back, sum(not one.whole for one in self.peek(ids)))

    def peek(self, ids: Sequence[int]) -> Iterator[Peeked]:
        """Each of these, read and compared with its seal; nothing is opened (HD-22)."""
        wanted, start = sorted(ids), 0
        while start < len(wanted):
            part = wanted[start : start + AT_ONCE]
            with self._backing.reading() as connection:
                rows = as_many_as_fit(connection.execute(_ROWS, {"ids": part}).all())
            start = bisect_right(wanted, rows[-1].id) if rows else start + len(part)
            contents = self._backing.contents.read([(position_of(row.id), row.length) for row in rows])
            for row, content in zip(rows, contents, strict=True):
                accepted_at = from_us(row.accepted_us)
                if isinstance(content, DamagedRecordError):
                    yield Peeked(row.id, accepted_at, "", False)
                    continue
                envelope, data = content
                found = _LABEL.search(header_block(data))
                label = found[1].decode("ascii", "replace").strip() if found else ""
                yield Peeked(row.id, accepted_at, label, seal_matches(envelope, data), envelope.message_id)

    def sent_again(self, account: str, above: int) -> frozenset[int]:
        """Deliveries of the mailbox with id > above whose mail came once more and was linked to them (HD-26)."""
        with self._backing.reading() as connection:
            return frozenset(connection.execute(_SENT_AGAIN, {"account": account, "above": above}).scalars())
