"""One batch of decisions inside one transaction: what is known, and what will be recorded.

Many mails share the reads at the start and the writes at the end; between them the batch answers from memory, so that
a Storno finds an eAU of its own batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, assert_never

import sqlalchemy as sa
from sqlalchemy import bindparam

from schleuse.eau.answer_store import note_changed
from schleuse.eau.bulk import insert
from schleuse.eau.document import DocumentId, Facts, Kind, Period
from schleuse.eau.outcome import (
    DeliveredAgain,
    DocumentState,
    Faulty,
    Filed,
    InBand,
    Known,
    Memory,
    Outcome,
    Quarantined,
    StornoFiled,
    StornoPending,
    Wait,
    holding_state,
)
from schleuse.eau.prepared import PreparedLetters
from schleuse.eau.tables import CONTENT, DOCUMENT, EVENT, LETTER, RECEIVED
from schleuse.errors import ConflictError, CorruptError
from schleuse.holding.states import State
from schleuse.identifiers import IK

_T = TypeVar("_T")


class ForeignMailStoreError(CorruptError):
    """This eAU store belongs to another mail store; the operator restores the two together."""

    code = "eau.foreign-mail-store"


class LockLostError(ConflictError):
    """Documents changed under the lock of their insurer; the batch is done again by itself."""

    code = "eau.lock-lost"


@dataclass(frozen=True, slots=True, repr=False)
class Arrival:
    """One mail as the store needs it.

    delivery: id in the mail store. digest: its seal there. accepted_at: original time of acceptance, never changed.
    file_hash: SHA-256 of the XML octets. practice, person, content_key: as `vault.Pseudonyms`, of 32, 16 and 32 octets.
    held_for: by the switch, before it was taken (HD-46). period: of an eAU, for answers to employers.
    """

    delivery: int
    digest: bytes
    accepted_at: datetime
    document_id: DocumentId | None = None
    file_hash: bytes | None = None
    target: DocumentId | None = None
    practice: bytes | None = None
    person: bytes | None = None
    content_key: bytes | None = None
    held_for: timedelta = timedelta(0)
    period: Period | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """A document as it is kept: a container of the vault for this Dokumenten-ID and form ("xml", "p7s").

    The signed file is enough, for the feed takes the XML out of it; xml: for a document without one.
    """

    xml: bytes | None = None
    p7s: bytes | None = None

    def __post_init__(self) -> None:
        if self.xml is None and self.p7s is None:
            raise ValueError("a document is kept as signed file or as XML")


@dataclass(frozen=True, slots=True, repr=False)
class Letter:
    """A Fehlernachricht for the outbox. draft: client mail, in a container of the vault for this Message-ID."""

    message_id: str
    sender: str
    recipient: str
    draft: bytes


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the worker tells the mail store about one delivery. first: of a duplicate, the delivery it is linked to."""

    delivery: int
    state: State
    reason: str | None = None
    first: int | None = None


@dataclass(slots=True)
class _Pending:
    """Rows to be written when the block ends."""

    received: list[dict[str, Any]]
    documents: list[dict[str, Any]]
    contents: list[dict[str, Any]]
    events: list[dict[str, Any]]
    letters: list[dict[str, Any]]
    changes: dict[int, dict[str, Any]]
    forgotten: list[int]


class Filing:
    """See `EauStore.filing`. Not to be used after its block."""

    def __init__(
        self, connection: sa.Connection, ik: IK, arrivals: Sequence[Arrival], now: datetime, epoch: int | None
    ) -> None:
        self._connection = connection
        self._ik = ik
        self._now = now
        self._epoch = epoch
        self._recorded: dict[int, Recorded] = {}
        self._kept: dict[str, Known] = {}
        self._rejected: dict[str, Known] = {}
        self._files: dict[bytes, Known] = {}
        self._waiting: dict[str, list[Known]] = {}
        self._contents: dict[bytes, Known] = {}
        self._out = _Pending([], [], [], [], [], {}, [])
        self._reconsidered: list[int] = []
        self._prepared = PreparedLetters(connection)
        self._read(arrivals)

    def recorded(self, arrival: Arrival) -> Recorded | None:
        """The outcome of an earlier run of the same batch; None: decide.

        A quarantined mail that people put back to HELD is decided anew. Raises ForeignMailStoreError.
        """
        return self._recorded.get(arrival.delivery)

    def memory(self, arrival: Arrival) -> Memory:
        """What is known about this mail's document now, the batch's earlier mails included."""
        id = str(arrival.document_id) if arrival.document_id else None
        target = str(arrival.target) if arrival.target else None
        similar = self._contents.get(arrival.content_key) if arrival.content_key else None
        if similar is not None and similar.document_id == arrival.document_id:
            similar = None
        return Memory(
            same_file=self._files.get(arrival.file_hash) if arrival.file_hash else None,
            same_id=self._known(id),
            target=self._known(target),
            stornos=tuple(self._waiting.get(target or id or "", ())),
            similar=similar,
        )

    def keep(
        self, arrival: Arrival, outcome: Outcome, sealed: Sealed | None = None, letter: Letter | None = None
    ) -> Recorded:
        """Record one outcome; it is durable when the block has ended.

        sealed: with Filed, StornoFiled, StornoPending and a second Storno. letter: with Faulty; with
        StornoPending the one that its `refusal` is made of, if there is somebody to write to.
        """
        recorded = Recorded(arrival.delivery, holding_state(outcome), *_explain(outcome))
        if isinstance(outcome, Wait):
            return recorded
        self._keep_received(arrival, recorded)
        match outcome:
            case Filed():
                self._file_eau(arrival, outcome, _required(sealed))
            case StornoFiled(facts, target):
                self._file_storno(arrival, facts, target, _required(sealed))
            case StornoPending(facts, refusal):
                self._add(arrival, Kind.STORNO, DocumentState.PENDING, facts.target)
                self._add_content(arrival, _required(sealed))
                if refusal is not None and letter is not None:
                    self._prepared.add(self._letter_row(arrival.delivery, refusal, letter))
            case DeliveredAgain(facts=facts) if facts is not None:
                self._add(arrival, Kind.STORNO, DocumentState.ACCEPTED, facts.target)
                self._add_content(arrival, _required(sealed))
            case Faulty():
                self._reject(arrival, outcome, _required(letter))
            case DeliveredAgain() | Quarantined() | InBand():
                pass
            case _:
                assert_never(outcome)
        return recorded

    def _file_eau(self, arrival: Arrival, outcome: Filed, sealed: Sealed) -> None:
        storno = outcome.cancelled_by
        state = DocumentState.CANCELLED if storno else DocumentState.ACCEPTED
        similar = outcome.similar.delivery if outcome.similar else None
        cancelled_by = str(storno.document_id) if storno else None
        self._add(arrival, Kind.EAU, state, similar=similar, cancelled_by=cancelled_by)
        self._add_content(arrival, sealed)
        self._add_event(arrival.delivery, arrival.delivery, 0)
        if storno is not None:
            self._prepared.take(storno.delivery)
            self._change(storno, DocumentState.ACCEPTED)
            self._add_event(storno.delivery, arrival.delivery, 1)

    def _file_storno(self, arrival: Arrival, facts: Facts, target: Known, sealed: Sealed) -> None:
        self._add(arrival, Kind.STORNO, DocumentState.ACCEPTED, facts.target)
        self._add_content(arrival, sealed)
        self._change(target, DocumentState.CANCELLED, cancelled_by=str(facts.id))
        # A Storno that waited for our own sake may have the lower id; it still comes after its eAU (HD-06).
        self._add_event(arrival.delivery, max(arrival.delivery, target.delivery), 1)

    def _reject(self, arrival: Arrival, outcome: Faulty, letter: Letter) -> None:
        if arrival.document_id or arrival.file_hash:
            self._add(arrival, outcome.kind, DocumentState.REJECTED)
        self._send(self._letter_row(arrival.delivery, outcome, letter))
        for storno in outcome.stornos:
            prepared = self._prepared.take(storno.delivery)
            if prepared is not None:  # without one it goes on waiting, and people are shown it
                self._change(storno, DocumentState.REJECTED)
                self._send(prepared)

    def _letter_row(self, delivery: int, faulty: Faulty, letter: Letter) -> dict[str, Any]:
        return {
            "delivery": delivery,
            "ik": self._ik.value,
            "code": faulty.code.number,
            "message_id": letter.message_id,
            "sender": letter.sender,
            "recipient": letter.recipient,
            "draft": letter.draft,
        }

    def _send(self, row: dict[str, Any]) -> None:
        self._out.letters.append({**row, "created_at": self._now, "attempts": 0, "next_at": self._now})

    def _keep_received(self, arrival: Arrival, recorded: Recorded) -> None:
        self._recorded[arrival.delivery] = recorded
        self._out.received.append(
            {
                "delivery": arrival.delivery,
                "ik": self._ik.value,
                "digest": arrival.digest,
                "accepted_at": arrival.accepted_at,
                "state": recorded.state.value,
                "reason": recorded.reason,
                "first": recorded.first,
                "epoch": self._epoch,
            }
        )

    def _add(
        self,
        arrival: Arrival,
        kind: Kind,
        state: DocumentState,
        target: DocumentId | None = None,
        *,
        similar: int | None = None,
        cancelled_by: str | None = None,
    ) -> None:
        period = (arrival.period if state is not DocumentState.REJECTED else None) or Period()
        known = Known(kind, state, arrival.delivery, arrival.document_id, arrival.practice)
        self._learn(known, arrival.file_hash, str(target) if target else None)
        if arrival.content_key and state is DocumentState.ACCEPTED:
            self._contents.setdefault(arrival.content_key, known)
        self._out.documents.append(
            {
                "delivery": arrival.delivery,
                "ik": self._ik.value,
                "document_id": str(arrival.document_id) if arrival.document_id else None,
                "kind": kind.value,
                "state": state.value,
                "accepted_at": arrival.accepted_at,
                "file_hash": arrival.file_hash,
                "practice": arrival.practice,
                "person": arrival.person if state is not DocumentState.REJECTED else None,
                "content_key": arrival.content_key if state is not DocumentState.REJECTED else None,
                "similar": similar,
                "target": str(target) if target else None,
                "cancelled_by": cancelled_by,
                "held_us": arrival.held_for // timedelta(microseconds=1) or None,
                "au_type": period.au_type,
                "starts_on": period.starts_on,
                "ends_on": period.ends_on,
                "issued_on": period.issued_on,
            }
        )

    def _add_content(self, arrival: Arrival, sealed: Sealed) -> None:
        self._out.contents.append({"delivery": arrival.delivery, "xml": sealed.xml, "p7s": sealed.p7s})

    def _add_event(self, delivery: int, position: int, step: int) -> None:
        row = {"delivery": delivery, "ik": self._ik.value, "position": position, "step": step, "filed_at": self._now}
        self._out.events.append(row)

    def _change(self, known: Known, state: DocumentState, cancelled_by: str | None = None) -> None:
        """Of a document that is there already, or was added by this batch."""
        changed = replace(known, state=state)
        for waiting in self._waiting.values():
            waiting[:] = [storno for storno in waiting if storno.delivery != known.delivery]
        if state is DocumentState.REJECTED:
            self._forget(known)
        self._learn(changed, None, None)
        for hash, other in self._files.items():
            if other.delivery == known.delivery:
                self._files[hash] = changed
        for key in [key for key, other in self._contents.items() if other.delivery == known.delivery]:
            del self._contents[key]  # only an accepted eAU is proposed as the same certificate
        for row in self._out.documents:
            if row["delivery"] == known.delivery:
                row |= {"state": state.value, "cancelled_by": cancelled_by}
                return
        self._out.changes[known.delivery] = {
            "of": known.delivery,
            "from": known.state.value,
            "to": state.value,
            "by": cancelled_by,
        }

    def _forget(self, known: Known) -> None:
        """What is rejected keeps no content, and its Dokumenten-ID may come back."""
        self._kept.pop(str(known.document_id), None)
        kept = [row for row in self._out.contents if row["delivery"] != known.delivery]
        if len(kept) == len(self._out.contents):
            self._out.forgotten.append(known.delivery)
        self._out.contents[:] = kept

    def _known(self, id: str | None) -> Known | None:
        return None if id is None else self._kept.get(id) or self._rejected.get(id)

    def _learn(self, known: Known, file_hash: bytes | None, target: str | None) -> None:
        rejected = known.state is DocumentState.REJECTED
        if known.document_id is not None:
            (self._rejected if rejected else self._kept)[str(known.document_id)] = known
        if file_hash is not None and not (rejected and file_hash in self._files):
            self._files[file_hash] = known
        if known.state is DocumentState.PENDING and target is not None:
            self._waiting.setdefault(target, []).append(known)

    # --- SQL ---

    def _read(self, arrivals: Sequence[Arrival]) -> None:
        self._read_received(arrivals)
        ids = {str(id) for arrival in arrivals for id in (arrival.document_id, arrival.target) if id}
        hashes = {arrival.file_hash for arrival in arrivals if arrival.file_hash}
        keys = {arrival.content_key for arrival in arrivals if arrival.content_key}
        for row in self._documents(_REJECTED_BY_ID, ids):
            self._learn(_known(row), None, None)
        for row in self._documents(_KEPT_BY_ID, ids):
            self._learn(_known(row), None, None)
        for row in self._documents(_BY_FILE, hashes):
            self._learn(_known(row), row.file_hash, None)
        pending = list(self._documents(_PENDING, ids))
        for row in pending:
            self._learn(_known(row), None, row.target)
        self._prepared.read([row.delivery for row in pending])
        for row in self._documents(_BY_CONTENT, keys):
            if row.state == DocumentState.ACCEPTED:
                self._contents.setdefault(row.content_key, _known(row))

    def _read_received(self, arrivals: Sequence[Arrival]) -> None:
        digests = {arrival.delivery: arrival.digest for arrival in arrivals}
        query = sa.select(RECEIVED).where(RECEIVED.c.delivery.in_(bindparam("keys", expanding=True)))
        for row in self._connection.execute(query, {"keys": list(digests)}):
            if row.digest != digests[row.delivery] or row.ik != self._ik.value:
                raise ForeignMailStoreError(
                    f"delivery {row.delivery} was another mail before: this eAU store belongs to another mail store; "
                    "restore the two together"
                )
            if row.state == State.QUARANTINED:
                self._reconsidered.append(row.delivery)
            else:
                self._recorded[row.delivery] = Recorded(row.delivery, State(row.state), row.reason, row.first)

    def _documents(self, query: sa.Select[Any], keys: set[Any]) -> Iterator[Any]:
        return iter(self._connection.execute(query, {"ik": self._ik.value, "keys": list(keys)}) if keys else ())

    def write(self) -> None:
        """All rows of the batch; called once, at the end of the block."""
        again = [row["delivery"] for row in self._out.received if row["delivery"] in self._reconsidered]
        if again:
            self._connection.execute(sa.delete(RECEIVED).where(RECEIVED.c.delivery.in_(again)))
        # Before the new rows: a Storno that is refused here gives its id free for one that comes after it.
        self._write_changes()
        for table, rows in (
            (RECEIVED, self._out.received),
            (DOCUMENT, self._out.documents),
            (CONTENT, self._out.contents),
            (EVENT, self._out.events),
            (LETTER, self._out.letters),
        ):
            insert(self._connection, table, rows)
        persons = {row["person"] for row in self._out.documents if row["person"] and row["kind"] == Kind.EAU.value}
        note_changed(self._connection, self._ik, persons, self._out.changes)
        self._prepared.write()
        if self._out.forgotten:
            self._connection.execute(sa.delete(CONTENT).where(CONTENT.c.delivery.in_(self._out.forgotten)))

    def _write_changes(self) -> None:
        if self._out.changes:
            changed = self._connection.execute(_CHANGE, list(self._out.changes.values())).rowcount
            if changed != len(self._out.changes):
                raise LockLostError("documents of this insurer changed under the lock; the batch is done again")


def _by(column: sa.Column[Any], condition: str, *order: sa.Column[Any]) -> sa.Select[Any]:
    """Documents of one insurer by keys.

    The condition is that of one partial index and fits no other: where PostgreSQL has no statistics yet it would
    read a wrong one from end to end.
    """
    return (
        sa.select(
            DOCUMENT.c.delivery,
            DOCUMENT.c.document_id,
            DOCUMENT.c.kind,
            DOCUMENT.c.state,
            DOCUMENT.c.practice,
            DOCUMENT.c.file_hash,
            DOCUMENT.c.target,
            DOCUMENT.c.content_key,
        )
        .where(DOCUMENT.c.ik == bindparam("ik"), column.in_(bindparam("keys", expanding=True)), sa.text(condition))
        .order_by(*order)
    )


_KEPT_BY_ID = _by(DOCUMENT.c.document_id, "state <> 'rejected'")
_REJECTED_BY_ID = _by(DOCUMENT.c.document_id, "state = 'rejected'", DOCUMENT.c.delivery)
_BY_FILE = _by(DOCUMENT.c.file_hash, "file_hash IS NOT NULL")
_PENDING = _by(DOCUMENT.c.target, "state = 'pending'", DOCUMENT.c.delivery)
_BY_CONTENT = _by(DOCUMENT.c.content_key, "content_key IS NOT NULL", DOCUMENT.c.delivery)

_CHANGE = (
    sa.update(DOCUMENT)
    .where(DOCUMENT.c.delivery == bindparam("of"), DOCUMENT.c.state == bindparam("from"))
    .values(state=bindparam("to"), cancelled_by=sa.func.coalesce(bindparam("by"), DOCUMENT.c.cancelled_by))
)


def _known(row: Any) -> Known:
    return Known(
        Kind(row.kind),
        DocumentState(row.state),
        row.delivery,
        DocumentId(row.document_id) if row.document_id else None,
        row.practice,
    )


def _explain(outcome: Outcome) -> tuple[str | None, int | None]:
    """(reason, delivery it is linked to): short words from closed sets, no personal data."""
    match outcome:
        case DeliveredAgain(first, again):
            return again.value, first.delivery
        case Faulty(code):
            return f"fehlernachricht {code.number}", None
        case Quarantined(reason) | Wait(reason):
            return reason.value, None
        case InBand(kind):
            return kind.value, None
        case StornoPending():
            return "storno_pending", None
        case Filed(again=True):
            return "delivered_again", None
        case Filed() | StornoFiled():
            return None, None
        case _:
            assert_never(outcome)


def _required(value: _T | None) -> _T:
    if value is None:
        raise TypeError("this outcome is kept with its sealed document, or with its letter")
    return value
