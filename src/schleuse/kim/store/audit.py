"""Gathers the books for `holding.reconcile`: reads every record of accepted mail and every delivery once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.database import asking, create_engine
from schleuse.holding.reconcile import Books
from schleuse.holding.states import WAITING, State
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.bodies import RowBodies, read_cursor
from schleuse.kim.store.delivery import OUTBOUND, delivery_id, position_of
from schleuse.kim.store.marks import MARKS, Mark, NoMarks, read_marks
from schleuse.kim.store.reports import NEVER
from schleuse.kim.store.tables import BODY, DELIVERY, REPORT, RETIRED
from schleuse.mail.spool import Condition, Damaged, OsDisk, SegmentReader
from schleuse.mail.spool.envelope import decode, seal_matches
from schleuse.mail.spool.segments import OFFSET_BITS
from schleuse.mail.spool.writer import scan_from


@dataclass(frozen=True, slots=True)
class Record:
    """An accepted mail as its record says. recipients: 1 for a record that cannot be read (it is one delivery)."""

    position: int
    recipients: int
    condition: Condition


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    state: State
    purged: bool


_COUNTS = sa.text("SELECT coalesce(account, :outbound), state, count(*) FROM kim_delivery GROUP BY 1, 2")
_BROKEN = sa.text(
    "SELECT id FROM kim_delivery AS d WHERE state = 'DUPLICATE_LINKED' AND linked_to IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM kim_delivery AS first WHERE first.id = d.linked_to) ORDER BY id"
)


def count_states(connection: Connection) -> dict[str, dict[State, int]]:
    """Deliveries by account and state."""
    states: dict[str, dict[State, int]] = {}
    for account, state, number in connection.execute(_COUNTS, {"outbound": OUTBOUND}):
        states.setdefault(account, {})[State(state)] = number
    return states


def read_books(url: str, spool: Path) -> Books:
    """`audit` for a process that has no store open (`schleuse hold check`)."""
    engine = create_engine(url)
    try:
        contents = RowBodies(engine) if engine.dialect.name == "postgresql" else SegmentReader(OsDisk(), spool)
        return audit(Backing(engine, contents, NoMarks()), spool)
    finally:
        engine.dispose()


def read_deliveries(url: str, accounts: Sequence[str]) -> dict[str, dict[int, State]]:
    """State of every delivery of these accounts, in one snapshot; for a process that has no store open."""
    query = sa.select(DELIVERY.c.account, DELIVERY.c.id, DELIVERY.c.state).where(DELIVERY.c.account.in_(accounts))
    found: dict[str, dict[int, State]] = {account: {} for account in accounts}
    with asking(url) as connection:
        for account, id, state in connection.execute(query):
            found[account][id] = State(state)
    return found


def audit(backing: Backing, spool: Path) -> Books:
    """Read everything. spool: directory of the segments (unused with PostgreSQL).

    The deliveries are read in one snapshot, and the records only up to its routing cursor, so that the books agree
    while mail arrives. Raises UnavailableError, CorruptError.
    """
    if backing.is_shared:
        with backing.snapshot() as connection:
            return _books(connection, _rows_of_mail(connection), None, {})
    marks = read_marks(OsDisk(), spool / MARKS)  # before the snapshot: a mark is older than its transaction
    with backing.snapshot() as connection:
        cursor = read_cursor(connection) or 0
        return _books(connection, _records(spool, cursor), cursor, marks)


def _books(connection: Connection, records: Iterable[Record], cursor: int | None, marks: Mapping[int, Mark]) -> Books:
    rows = _Deliveries(connection, marks)
    recorded = unrouted = 0
    without_delivery: list[int] = []
    for record in records:
        ids = [delivery_id(record.position, index) for index in range(record.recipients)]
        if record.position >> OFFSET_BITS in rows.retired:
            continue  # its file is about to be removed
        if record.position < 0 or (cursor is not None and record.position >= cursor):
            unrouted += len(ids)
            continue
        recorded += len(ids)
        without_delivery += [id for id in ids if not rows.take(id, record.condition)]
    rows.rest()
    columns = REPORT.c
    never = sa.select(columns.delivery).where(columns.accepted_us == NEVER).order_by(columns.delivery)
    return Books(
        recorded=recorded,
        retired=int(connection.execute(sa.select(sa.func.sum(RETIRED.c.deliveries))).scalar_one() or 0),
        unrouted=unrouted,
        states=count_states(connection),
        without_delivery=without_delivery,
        without_record=rows.without_record,
        damaged=rows.damaged,
        broken_links=list(connection.execute(_BROKEN).scalars()),
        finished_but_waiting=rows.finished_but_waiting,
        unreported=list(connection.execute(never).scalars()),
    )


class _Deliveries:
    """Walks through the deliveries in the order of their ids, beside the records in theirs: memory stays small."""

    def __init__(self, connection: Connection, marks: Mapping[int, Mark]) -> None:
        self._rows = _deliveries(connection)
        self._marks = marks
        self.retired = frozenset(connection.execute(sa.select(RETIRED.c.segment)).scalars())
        self._next = next(self._rows, None)
        self.without_record: list[int] = []
        self.damaged: list[int] = []
        self.finished_but_waiting: list[int] = []

    def take(self, id: int, condition: Condition) -> bool:
        """Whether the delivery that a record asks for is there."""
        while self._next is not None and self._next.id < id:
            self._pass_over(self._next)
        row = self._next
        if row is None or row.id != id:
            return False
        if condition is Condition.DAMAGED or (condition is Condition.ERASED and not row.purged):
            self.damaged.append(id)
        mark = self._marks.get(id)
        if mark and mark.state and mark.state not in WAITING and row.state is State.HELD:
            self.finished_but_waiting.append(id)
        self._next = next(self._rows, None)
        return True

    def rest(self) -> None:
        """No record is left."""
        while self._next is not None:
            self._pass_over(self._next)

    def _pass_over(self, row: _Row) -> None:
        if position_of(row.id) >> OFFSET_BITS not in self.retired:
            self.without_record.append(row.id)
        self._next = next(self._rows, None)


def _deliveries(connection: Connection) -> Iterator[_Row]:
    columns = DELIVERY.c
    query = sa.select(columns.id, columns.state, columns.purged_us).order_by(columns.id)
    for row in connection.execution_options(yield_per=10_000).execute(query):
        yield _Row(row.id, State(row.state), row.purged_us is not None)


def _records(spool: Path, cursor: int) -> Iterator[Record]:
    reader = SegmentReader(OsDisk(), spool)
    for item in scan_from(reader, reader.ends(cursor), 0, contents=True):
        if isinstance(item, Damaged):
            yield Record(item.position, 1, Condition.DAMAGED)
        else:
            condition = item.condition or Condition.WHOLE
            yield Record(item.position, len(item.envelope.recipients), condition)


def _rows_of_mail(connection: Connection) -> Iterator[Record]:
    """Not yet routed rows have no position; they come with -1."""
    columns = BODY.c
    query = sa.select(columns.position, columns.meta, columns.content).order_by(columns.position)
    for position, meta, content in connection.execution_options(yield_per=100).execute(query):
        envelope = decode(bytes(meta))
        if content is None:
            condition = Condition.ERASED
        else:
            condition = Condition.WHOLE if seal_matches(envelope, bytes(content)) else Condition.DAMAGED
        yield Record(-1 if position is None else position, len(envelope.recipients), condition)
