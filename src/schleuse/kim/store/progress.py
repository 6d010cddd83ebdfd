"""What became of a part of a mailbox, and what is readable of what waits: the eyes of a release (HD-41, HD-42)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.holding.states import State
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import as_many_as_fit
from schleuse.kim.store.delivery import position_of
from schleuse.kim.store.suspicions import UNSUSPECTED_SQL
from schleuse.mail.spool import DamagedRecordError
from schleuse.mail.spool.envelope import header_block, seal_matches

#: Mails that are read into memory at once, unless they are large (`as_many_as_fit`).
AT_ONCE = 50
_WAITING, _FAILED = frozenset({State.HELD, State.RELEASING}), frozenset({State.RETURNED, State.QUARANTINED})
_LABEL = re.compile(rb"^x-kim-dienstkennung:[ \t]*([^\r\n]{1,200})", re.IGNORECASE | re.MULTILINE)

# A worker that meets our own trouble puts a mail back with a time before which nobody takes it again.
_OUTCOME = (
    "SELECT :a{0} AS account, state, count(*) AS number, sum(CASE WHEN not_before_us > 0 THEN 1 ELSE 0 END) AS met,"  # noqa: S608
    " sum(CASE WHEN not_before_us > :now THEN 1 ELSE 0 END) AS put_back"
    " FROM kim_delivery WHERE account = :a{0} AND id > :v{0} AND id <= :u{0}"
    # What is suspected was kept aside unopened, and says nothing about how the release goes (HD-47).
    f" AND NOT (state = 'QUARANTINED' AND NOT {UNSUSPECTED_SQL}) GROUP BY state"
)
#: Parts of one statement; SQLite takes 500.
_PARTS = 100
_MET = sa.text(
    "SELECT id FROM kim_delivery WHERE account = :account AND id > :above AND id <= :upto"
    " AND state IN ('HELD', 'RELEASING') AND not_before_us > 0 ORDER BY id LIMIT :limit"
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

    damaged: of the first AT_ONCE that a worker has met and that wait again, whose seal does not match: for ever.
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
        return self.outcomes({account: (above, upto)}, now)[account]

    def outcomes(self, parts: Mapping[str, tuple[int, int]], now: datetime) -> dict[str, PartOutcome]:
        """Of each mailbox's deliveries with above < id <= upto. parts: (above, upto) by account."""
        found = dict.fromkeys(parts, PartOutcome(0, 0, 0, 0))
        owner: dict[int, str] = {}
        with self._backing.reading() as connection:
            wanted = list(parts.items())
            for some in (wanted[start : start + _PARTS] for start in range(0, len(wanted), _PARTS)):
                for row in connection.execute(_outcomes(len(some)), {**dict(_values(some)), "now": to_us(now)}):
                    found[row.account] = _with(found[row.account], row)
                    if row.state in _WAITING and row.met:
                        ids = connection.execute(_MET, _range(row.account, *parts[row.account])).scalars().all()
                        owner |= dict.fromkeys(ids, row.account)
        for one in self.peek(list(owner)):
            if not one.whole:
                was = found[owner[one.id]]
                found[owner[one.id]] = replace(was, damaged=was.damaged + 1)
        return found

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


def _with(found: PartOutcome, row: sa.Row[Any]) -> PartOutcome:
    if row.state in _WAITING:
        put_back = int(row.put_back) if row.state == State.HELD else 0
        return replace(found, waiting=found.waiting + row.number, put_back=found.put_back + put_back)
    return replace(found, failed=found.failed + row.number) if row.state in _FAILED else found


@lru_cache(maxsize=_PARTS)
def _outcomes(count: int) -> sa.TextClause:
    return sa.text(" UNION ALL ".join(_OUTCOME.format(index) for index in range(count)))


def _values(parts: Sequence[tuple[str, tuple[int, int]]]) -> Iterator[tuple[str, object]]:
    for index, (account, (above, upto)) in enumerate(parts):
        yield from ((f"a{index}", account), (f"v{index}", above), (f"u{index}", upto))


def _range(account: str, above: int, upto: int) -> dict[str, object]:
    return {"account": account, "above": above, "upto": upto, "limit": AT_ONCE}
