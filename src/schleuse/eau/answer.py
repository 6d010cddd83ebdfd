"""What is asked for an employer and what is said: values, and an answer as it is kept. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime

from schleuse.eau.answers import Certificate, Code
from schleuse.eau.document import DocumentId, Period


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """An employer's question. person, other: pseudonyms, by KVNR and of the Ersatzverfahren."""

    id: str
    person: bytes
    other: bytes | None
    absent_from: date


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said. request: its id. until: up to when another answer may follow. withdrawn: Dokumenten-IDs that an
    answer before named, and that have been cancelled since."""

    request: str
    code: Code
    answered_at: datetime
    until: datetime
    certificates: tuple[Certificate, ...] = ()
    withdrawn: tuple[DocumentId, ...] = ()


def encode_answer(answer: Answer) -> str:
    """As a follow-up is kept: what was said does not change when documents do."""
    return json.dumps(
        {
            "request": answer.request,
            "code": int(answer.code),
            "answered_at": answer.answered_at.isoformat(),
            "until": answer.until.isoformat(),
            "certificates": [
                [one.delivery, one.document_id.value, one.accepted_at.isoformat(), one.period.au_type]
                + [day and day.isoformat() for day in (one.period.starts_on, one.period.ends_on, one.period.issued_on)]
                for one in answer.certificates
            ],
            "withdrawn": [one.value for one in answer.withdrawn],
        }
    )


def decode_answer(text: str) -> Answer:
    """What `encode_answer` made."""
    table = json.loads(text)
    return Answer(
        table["request"],
        Code(table["code"]),
        datetime.fromisoformat(table["answered_at"]),
        datetime.fromisoformat(table["until"]),
        tuple(
            Certificate(
                delivery, DocumentId(id), datetime.fromisoformat(at), Period(kind, _day(start), _day(end), _day(issued))
            )
            for delivery, id, at, kind, start, end, issued in table["certificates"]
        ),
        tuple(DocumentId(one) for one in table["withdrawn"]),
    )


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
