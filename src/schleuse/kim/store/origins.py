"""By what a sender asks for his mail: its Message-ID, of which only a digest is kept, and his own address (§ 6.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import from_us, to_us
from schleuse.holding.states import State
from schleuse.kim.store.backing import Backing
from schleuse.kim.store.delivery import position_of
from schleuse.kim.store.placement import Arrived

#: Mails with one reference that are shown: a sender's machine may send the same mail again and again.
MAX_RECORDS = 200

_NOTE = sa.text(
    "INSERT INTO kim_origin (position, reference, sender, accepted_us)"
    " VALUES (:position, :reference, :sender, :accepted_us) ON CONFLICT (position) DO NOTHING"
)
# 1024 = 1 << RECIPIENT_BITS.
# The first delivery of a mail that was sent again says what became of it; its DSN says whether the sender knows.
_RECORDS = (
    "SELECT o.position, o.reference, o.sender, o.accepted_us, d.id, d.account, d.state, d.linked_to,"
    " l.state AS linked_state, r.accepted_us AS told_us"
    " FROM kim_origin AS o"
    " JOIN kim_delivery AS d ON d.id >= o.position * 1024 AND d.id < (o.position + 1) * 1024"
    " LEFT JOIN kim_delivery AS l ON l.id = d.linked_to"
    " LEFT JOIN kim_report AS r ON r.delivery = d.id AND r.action = 'delivered'"
)
_BY_REFERENCE = sa.text(_RECORDS + " WHERE o.reference = :reference ORDER BY d.id LIMIT :limit")
_BY_SENDER = sa.text(
    _RECORDS
    + " WHERE o.sender = :sender AND o.position > :after AND o.accepted_us >= :since ORDER BY d.id LIMIT :limit"
)
_BY_DELIVERY = sa.text(_RECORDS + " WHERE d.id IN :ids AND o.position IN :positions ORDER BY d.id").bindparams(
    sa.bindparam("ids", expanding=True), sa.bindparam("positions", expanding=True)
)
#: Only what is old enough to be purged is looked at, in pages.
_OLD = sa.text(
    "SELECT position FROM kim_origin WHERE accepted_us < :before AND position > :after ORDER BY position LIMIT 1000"
)
_ALIVE = sa.text(
    "SELECT id FROM kim_delivery WHERE purged_us IS NULL AND id >= :first * 1024 AND id < (:last + 1) * 1024"
)
_FORGET = sa.text("DELETE FROM kim_origin WHERE position IN :positions").bindparams(
    sa.bindparam("positions", expanding=True)
)


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One delivery as its sender may know it. account: None for another host's recipient.

    state: of the first delivery, where this one is linked to it. delivery: that one's id. told: a DSN that it is in the
    mailbox was sent.
    """

    position: int
    reference: str
    delivery: int
    account: str | None
    state: State
    accepted_at: datetime
    told: bool


def reference_of(message_id: str) -> str:
    """SHA-256 in hex of a Message-ID without its angle brackets, in UTF-8."""
    return hashlib.sha256(message_id.strip().strip("<>").encode("utf-8", "surrogatepass")).hexdigest()


def note_origins(connection: Connection, arrived: Collection[Arrived]) -> None:
    """In the transaction that makes the deliveries."""
    rows = [
        {
            "position": one.position,
            "reference": bytes.fromhex(reference_of(one.envelope.message_id)),
            "sender": one.envelope.sender.lower(),
            "accepted_us": to_us(one.envelope.accepted_at),
        }
        for one in arrived
        # Nobody asks for a DSN, and without a Message-ID nobody can ask.
        if one.envelope is not None and one.envelope.sender and one.envelope.message_id
    ]
    if rows:
        connection.execute(_NOTE, rows)


class Origins:
    """Reads what became of a sender's mail, at this moment (promise 4). Raises UnavailableError."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def by_reference(self, reference: str) -> list[Record]:
        """All deliveries of mails with this reference; the newest are left out beyond MAX_RECORDS."""
        values = {"reference": bytes.fromhex(reference), "limit": MAX_RECORDS}
        with self._backing.reading() as connection:
            return [_record(row) for row in connection.execute(_BY_REFERENCE, values)]

    def by_sender(self, sender: str, after: int, since: datetime, limit: int) -> list[Record]:
        """Deliveries of whole mails of this address, oldest first. after: position of the last one that is known."""
        values = {"sender": sender.lower(), "after": after, "since": to_us(since), "limit": limit}
        with self._backing.reading() as connection:
            found = [_record(row) for row in connection.execute(_BY_SENDER, values)]
        if len(found) < limit or found[0].position == found[-1].position:
            return found
        return [one for one in found if one.position != found[-1].position]  # its other recipients are on the next page

    def by_deliveries(self, ids: Sequence[int]) -> list[Record]:
        """Those of these deliveries that a sender may ask for."""
        if not ids:
            return []
        values = {"ids": list(ids), "positions": [*{position_of(id) for id in ids}]}
        with self._backing.reading() as connection:
            return [_record(row) for row in connection.execute(_BY_DELIVERY, values)]

    def forget(self, before: datetime) -> int:
        """Erase who sent what was accepted before a moment and has been purged. Returns how many mails."""
        forgotten, after = 0, -1
        while True:
            with self._backing.writing() as connection:
                values = {"before": to_us(before), "after": after}
                old = [int(position) for position in connection.execute(_OLD, values).scalars()]
                if not old:
                    return forgotten
                ends = {"first": old[0], "last": old[-1]}
                alive = {position_of(id) for id in connection.execute(_ALIVE, ends).scalars()}
                gone: Sequence[int] = [position for position in old if position not in alive]
                if gone:
                    connection.execute(_FORGET, {"positions": gone})
            forgotten, after = forgotten + len(gone), old[-1]


def _record(row: sa.Row[tuple[object, ...]]) -> Record:
    value = row._mapping
    return Record(
        value["position"],
        bytes(value["reference"]).hex(),
        value["id"] if value["linked_to"] is None else value["linked_to"],
        value["account"],
        State(value["linked_state"] or value["state"]),
        from_us(value["accepted_us"]),
        bool(value["told_us"]),
    )
