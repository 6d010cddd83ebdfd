"""The tables of the eAU store, and nothing else. Their history is in `migrations`.

Every row that a mail causes has the id of its delivery as key: delivery ids are stable for ever, unique in the mail
store beside this one, and grow in acceptance order, so repeating a batch after a crash finds the same rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.switch import fence

METADATA = sa.MetaData()


#: SQLite's own rowid is the fastest key it has, and it takes only the type INTEGER.
_Delivery = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Instant(sa.types.TypeDecorator[datetime]):
    """A moment as microseconds since 1970; always with zone UTC in Python."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else to_us(value)

    def process_result_value(self, value: Any | None, dialect: Any) -> datetime | None:
        return None if value is None else from_us(value)


class Octets(sa.LargeBinary):
    """Bytes as they are: both drivers take them, and wrapping each one was a sixth of what a batch costs in Python."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> None:
        return None


#: What became of each mail that was decided; a repeat of its batch finds the answer here.
#: digest: seal of the mail, so that an eAU store beside a foreign mail store is noticed.
#: epoch: of the switch under which it was decided, None before there was one (SW-06); the same in EVENT (published)
#: and LETTER (sent).
RECEIVED = sa.Table(
    "eau_received",
    METADATA,
    sa.Column("delivery", _Delivery, primary_key=True, autoincrement=False),
    sa.Column("ik", sa.String(9), nullable=False),
    sa.Column("digest", Octets, nullable=False),
    sa.Column("accepted_at", Instant, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64)),
    sa.Column("first", sa.BigInteger),
    sa.Column("epoch", sa.BigInteger),
)

sa.Index("eau_received_epoch", RECEIVED.c.epoch)

#: eAU and Storno. Only what duplicates, Storno and the feed ask for is readable; all else is sealed.
#: practice, person, content_key: pseudonyms of the vault. target, cancelled_by: Dokumenten-IDs.
#: au_type to issued_on: `document.Period` of an eAU, None of all others and of those filed before there were answers.
#: held_us: how long the switch held it, as a mail or before it was published (HD-46); None: it did not.
DOCUMENT = sa.Table(
    "eau_document",
    METADATA,
    sa.Column("delivery", _Delivery, primary_key=True, autoincrement=False),
    sa.Column("ik", sa.String(9), nullable=False),
    sa.Column("document_id", sa.String(255)),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("accepted_at", Instant, nullable=False),
    sa.Column("file_hash", Octets),
    sa.Column("practice", Octets),
    sa.Column("person", Octets),
    sa.Column("content_key", Octets),
    sa.Column("similar", sa.BigInteger),
    sa.Column("target", sa.String(255)),
    sa.Column("cancelled_by", sa.String(255)),
    sa.Column("held_us", sa.BigInteger),
    sa.Column("au_type", sa.String(16)),
    sa.Column("starts_on", sa.Date),
    sa.Column("ends_on", sa.Date),
    sa.Column("issued_on", sa.Date),
)

_KEPT = sa.text("state <> 'rejected'")
_REJECTED = sa.text("state = 'rejected'")


def _partial(name: str, column: str, where: sa.TextClause, *, unique: bool = False) -> sa.Index:
    return sa.Index(
        name,
        DOCUMENT.c[column],
        DOCUMENT.c.ik,
        unique=unique,
        sqlite_where=where,
        postgresql_where=where,
    )


# One kept document per Dokumenten-ID, whatever the code above believes.
_partial("eau_document_kept", "document_id", _KEPT, unique=True)
_partial("eau_document_rejected", "document_id", _REJECTED)
_partial("eau_document_file", "file_hash", sa.text("file_hash IS NOT NULL"))
_partial("eau_document_content", "content_key", sa.text("content_key IS NOT NULL"))
_partial("eau_document_person", "person", sa.text("person IS NOT NULL"))
_partial("eau_document_pending", "target", sa.text("state = 'pending'"))

#: Sealed octets, apart from the rows that every batch reads. A signed file holds the XML, so one of the two is enough:
#: keeping both would double what a batch writes.
CONTENT = sa.Table(
    "eau_content",
    METADATA,
    sa.Column("delivery", _Delivery, primary_key=True, autoincrement=False),
    sa.Column("xml", Octets),
    sa.Column("p7s", Octets),
)

#: What the insurer's system is told, one row a document at most. seq: place in the feed, NULL until published.
#: position, step: order of publication; a Storno is never before its eAU (HD-06).
EVENT = sa.Table(
    "eau_event",
    METADATA,
    sa.Column("delivery", _Delivery, primary_key=True, autoincrement=False),
    sa.Column("ik", sa.String(9), nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("step", sa.SmallInteger, nullable=False),
    sa.Column("seq", sa.BigInteger),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("filed_at", Instant),
    sa.Column("published_at", Instant),
)
sa.Index("eau_event_seq", EVENT.c.ik, EVENT.c.seq, unique=True)
_UNPUBLISHED = sa.text("seq IS NULL")
sa.Index(
    "eau_event_unpublished",
    EVENT.c.ik,
    EVENT.c.position,
    EVENT.c.step,
    sqlite_where=_UNPUBLISHED,
    postgresql_where=_UNPUBLISHED,
)

#: Fehlernachrichten on their way. draft: sealed client mail. wire: the finished KIM mail, once it was made;
#: what is sent again after a crash is that one, octet for octet. out_at: when it went out or, under a rate, was last
#: let go out, which is before it does.
LETTER = sa.Table(
    "eau_letter",
    METADATA,
    sa.Column("delivery", _Delivery, primary_key=True, autoincrement=False),
    sa.Column("ik", sa.String(9), nullable=False),
    sa.Column("code", sa.SmallInteger, nullable=False),
    sa.Column("message_id", sa.String(255), nullable=False),
    sa.Column("sender", sa.String(320), nullable=False),
    sa.Column("recipient", sa.String(320), nullable=False),
    sa.Column("draft", Octets, nullable=False),
    sa.Column("wire", Octets),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", Instant, nullable=False),
    sa.Column("sent_at", Instant),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("out_at", Instant),
)
_UNSENT = sa.text("sent_at IS NULL")
sa.Index("eau_letter_unsent", LETTER.c.next_at, sqlite_where=_UNSENT, postgresql_where=_UNSENT)
sa.Index("eau_letter_out", LETTER.c.ik, LETTER.c.out_at)

#: Fehlernachrichten that are sent only if the eAU that a Storno waits for is rejected; keyed by the Storno's delivery.
#: draft: sealed as in LETTER.
PREPARED = sa.Table(
    "eau_prepared",
    METADATA,
    sa.Column("delivery", _Delivery, primary_key=True, autoincrement=False),
    sa.Column("ik", sa.String(9), nullable=False),
    sa.Column("code", sa.SmallInteger, nullable=False),
    sa.Column("message_id", sa.String(255), nullable=False),
    sa.Column("sender", sa.String(320), nullable=False),
    sa.Column("recipient", sa.String(320), nullable=False),
    sa.Column("draft", Octets, nullable=False),
)

#: Certificates that came on paper, as the insurer's system told; nothing of them but what matching needs (HD-05).
#: reference: the insurer's own name of the scan. content_key: as in DOCUMENT. client: who told it.
PAPER = sa.Table(
    "eau_paper",
    METADATA,
    sa.Column("number", _Delivery, primary_key=True),
    sa.Column("ik", sa.String(9), nullable=False),
    sa.Column("reference", sa.String(64), nullable=False),
    sa.Column("content_key", Octets, nullable=False),
    sa.Column("client", sa.String(64), nullable=False),
    sa.Column("told_at", Instant, nullable=False),
    sa.Column("epoch", sa.BigInteger),
)
sa.Index("eau_paper_reference", PAPER.c.ik, PAPER.c.reference, unique=True)
sa.Index("eau_paper_content", PAPER.c.content_key, PAPER.c.ik)

#: How far each client of an insurer has taken the feed over, and how far the mail store knows it.
CURSOR = sa.Table(
    "eau_cursor",
    METADATA,
    sa.Column("ik", sa.String(9), primary_key=True),
    sa.Column("client", sa.String(64), primary_key=True),
    sa.Column("acked", sa.BigInteger, nullable=False),
    sa.Column("confirmed", sa.BigInteger, nullable=False),
)

#: Requests of employers, as the insurer's system passed them on (eau.md § 17). id: the insurer's own, such as the
#: Datensatz_ID. person, other: pseudonyms of the vault, by KVNR and of the Ersatzverfahren. code: answered last;
#: deliveries: of the certificates in that answer, JSON. until: up to when it is watched (`answers.CODES`).
#: due: 1 when certificates of the person have changed since somebody looked. Once cancelled it names no person (b"").
REQUEST = sa.Table(
    "eau_request",
    METADATA,
    sa.Column("ik", sa.String(9), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("person", Octets, nullable=False),
    sa.Column("other", Octets),
    sa.Column("absent_from", sa.Date, nullable=False),
    sa.Column("asked_at", Instant, nullable=False),
    sa.Column("code", sa.SmallInteger, nullable=False),
    sa.Column("answered_at", Instant, nullable=False),
    sa.Column("deliveries", sa.Text, nullable=False),
    sa.Column("until", Instant, nullable=False),
    sa.Column("due", sa.SmallInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("cancelled_at", Instant),
)
sa.Index("eau_request_code", REQUEST.c.ik, REQUEST.c.code, REQUEST.c.absent_from, REQUEST.c.asked_at)
sa.Index("eau_request_until", REQUEST.c.ik, REQUEST.c.until)
sa.Index("eau_request_person", REQUEST.c.person, REQUEST.c.ik)
sa.Index("eau_request_other", REQUEST.c.other, REQUEST.c.ik)
_IS_DUE = sa.text("due = 1")
sa.Index("eau_request_due", REQUEST.c.ik, REQUEST.c.id, sqlite_where=_IS_DUE, postgresql_where=_IS_DUE)

#: Answers that follow an earlier one by themselves, in order. answer: JSON as the insurer's system gets it; "" where
#: only the number is left (`answer_ends`).
FOLLOW_UP = sa.Table(
    "eau_follow_up",
    METADATA,
    sa.Column("ik", sa.String(9), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("made_at", Instant, nullable=False),
    sa.Column("epoch", sa.BigInteger),
)

sa.Index("eau_follow_up_request", FOLLOW_UP.c.ik, FOLLOW_UP.c.request)

#: How far each client has taken over the follow-ups.
FOLLOW_UP_CURSOR = sa.Table(
    "eau_follow_up_cursor",
    METADATA,
    sa.Column("ik", sa.String(9), primary_key=True),
    sa.Column("client", sa.String(64), primary_key=True),
    sa.Column("acked", sa.BigInteger, nullable=False),
)

#: The epoch of each atom, below which no effect is recorded (SW-06).
FENCE = fence.define_table(METADATA)
