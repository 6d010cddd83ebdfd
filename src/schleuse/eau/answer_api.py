"""Answers to employers over the insurer's API: its own system asks for each request that it got (eau.md § 17, HD-09).

    POST /v1/{ik}/answers               {"request": …, "absent_from": …, "kvnr": …}: the answer of now, recorded
    GET  /v1/{ik}/answers?after=&limit= answers that followed by themselves; without `after` those not acknowledged
    POST /v1/{ik}/answers/ack           {"cursor": n}: everything up to n is taken over
    DELETE /v1/{ik}/answers/{id}        the employer has cancelled this request (Storno, § 17.2); again is harmless,
                                        and so is before it was asked: then it is cancelled when it comes
    GET  /v1/{ik}/answers/open          requests whose last answer was an interim one, and until when they are watched
    GET  /v1/{ik}/answers/codes         the code table, and which of them Schleuse gives

A request has one id for good: asked again, it hears what was said last, so an answer that was lost costs nothing. While
the switch closes this, everything is 503 and nothing is said: the answer is deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from schleuse.clock import Now
from schleuse.eau.answer import Answer, decode_answer
from schleuse.eau.answer import Request as Asked
from schleuse.eau.answer_store import AnswerStore
from schleuse.eau.answers import CODES, Certificate, Code, Follows
from schleuse.eau.feed_errors import NoPersonError, responses
from schleuse.eau.feed_session import AnswerClient, Client, Insurer
from schleuse.eau.feed_views import MAX_CURSOR, Ack, Acked
from schleuse.eau.references import require_no_person
from schleuse.eau.sealing import person_without_kvnr
from schleuse.eau.switched import AnswerTerms
from schleuse.errors import Error
from schleuse.identifiers import IK, KVNR
from schleuse.vault import Named, Vault

MAX_LIMIT = 1000
REQUEST_ID = r"^[A-Za-z0-9._:-]{1,64}$"
#: Whether anything of the insurer waits that could hold a certificate for an absence from this day, sent by then.
WaitsOf = Callable[[IK, date, datetime], bool]


class PersonView(BaseModel):
    """Of the Ersatzverfahren, as the eAU writes them; born may be a year or a month."""

    model_config = ConfigDict(extra="forbid")

    family: StrictStr = Field(min_length=1, max_length=200)
    given: StrictStr = Field(min_length=1, max_length=200)
    born: StrictStr = Field(pattern=r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$")


class AskView(BaseModel):
    """request: an id of the insurer's own, such as the Datensatz_ID; no personal data. absent_from: Abwesenheit_ab_AG.

    kvnr or person, or both: eAU of the Ersatzverfahren have no KVNR and are found by name and birth date.
    """

    model_config = ConfigDict(extra="forbid")

    request: StrictStr = Field(pattern=REQUEST_ID)
    absent_from: date
    kvnr: StrictStr | None = Field(default=None, pattern="^[A-Z][0-9]{9}$")
    person: PersonView | None = None


class CertificateView(BaseModel):
    """au_type: ERST, FOLGE, ERST_END or FOLGE_END. until: expected end.

    since: Nachweis_seit; None where it cannot be told without the certificate before it.
    """

    document_id: str
    accepted_at: datetime
    au_type: str | None
    since: date | None
    until: date | None
    issued_on: date | None


class AnswerView(BaseModel):
    """code: Kennzeichen_der_Rueckmeldung. until: so long another answer follows by itself if the records change.

    withdrawn: Dokumenten-IDs of an answer before, which have been cancelled: the employer gets a cancellation.
    """

    request: str
    code: int
    meaning: str
    kind: Follows
    answered_at: datetime
    until: datetime
    certificates: list[CertificateView]
    withdrawn: list[str]


class FollowUpView(BaseModel):
    seq: int
    answer: AnswerView


class FollowUps(BaseModel):
    """next: cursor to go on from and to acknowledge."""

    answers: list[FollowUpView]
    next: int
    acked: int
    last: int


class OpenView(BaseModel):
    request: str
    code: int
    asked_at: datetime
    answered_at: datetime
    until: datetime


class OpenViews(BaseModel):
    """Nearest end first."""

    requests: list[OpenView]


class CodeView(BaseModel):
    """watched_days: how long another answer may follow; from: what they are counted from."""

    code: int
    meaning: str
    kind: Follows
    watched_days: int | None
    counted_from: Literal["request", "answer"] | None
    given_by_schleuse: bool


class Codes(BaseModel):
    codes: list[CodeView]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the endpoints stand on. terms: raises FeedClosedError while answers are closed; asked before and after.
    frozen: whether nothing may be deleted now (SW-12)."""

    store: AnswerStore
    vault: Vault
    waits: WaitsOf
    terms: Callable[[IK], AnswerTerms]
    now: Now
    frozen: Callable[[], bool]


def add_answers(app: FastAPI, answers: Answers) -> None:
    """The endpoints."""
    store = answers.store

    @app.post("/v1/{ik}/answers", responses=responses(400, 409, 429), operation_id="ask", tags=["answers"])
    def ask(request: Request, ik: Insurer, client: AnswerClient, asked: AskView) -> AnswerView:
        """What an employer is told now. Nothing found is 4 only if nothing waits that could be it; else 7."""
        require_no_person(asked.request)
        terms = answers.terms(client.ik)
        person, other = _pseudonyms(answers.vault, client.ik, asked)
        found = store.answer(
            client.ik,
            Asked(asked.request, person, other, asked.absent_from),
            answers.now(),
            waits=lambda day, upto: answers.waits(client.ik, day, upto),
            terms=terms,
        )
        request.app.state.logins.tell_answer(client, len(found.certificates), asked.request, str(int(found.code)))
        answers.terms(client.ik)  # closed meanwhile: it is not said
        return answer_view(found)

    @app.get("/v1/{ik}/answers", responses=responses(), operation_id="list_follow_ups", tags=["answers"])
    def list_follow_ups(
        request: Request,
        ik: Insurer,
        client: AnswerClient,
        after: Annotated[int | None, Query(ge=0, le=MAX_CURSOR)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    ) -> FollowUps:
        """Answers that followed an earlier one; without `after`, those that this client has not acknowledged."""
        answers.terms(client.ik)
        acked, last = store.position(client.ik, client.client)
        start = acked if after is None else after
        found = [(seq, decode_answer(text)) for seq, text in store.follow_ups(client.ik, start, limit)]
        if found:
            request.app.state.logins.tell_answer(client, sum(len(one.certificates) for _, one in found))
        return FollowUps(
            answers=[FollowUpView(seq=seq, answer=answer_view(one)) for seq, one in found],
            next=_end_of(found, start, last if len(found) < limit else 0),
            acked=acked,
            last=last,
        )

    @app.delete(
        "/v1/{ik}/answers/{request_id}",
        status_code=204,
        responses={**responses(400), 202: {"description": "Remembered: no request of this id has come yet"}},
        operation_id="cancel",
        tags=["answers"],
    )
    def cancel(
        request: Request,
        ik: Insurer,
        client: AnswerClient,
        request_id: Annotated[str, Path(pattern=REQUEST_ID, description="As it was asked")],
    ) -> Response:
        """Nothing follows this request any more, and what did is no longer listed. Its id stays used, also if the
        request has not come yet (202): then it is cancelled when it comes."""
        require_no_person(request_id)
        came = store.ends.cancel(
            client.ik,
            request_id,
            answers.now(),
            answers.terms(client.ik),
            tell=lambda: request.app.state.logins.tell_cancelled(client, request_id),
            frozen=answers.frozen(),
        )
        return Response(status_code=204 if came else 202)

    @app.post(
        "/v1/{ik}/answers/ack", responses=responses(400, 409), operation_id="acknowledge_answers", tags=["answers"]
    )
    def acknowledge_answers(ik: Insurer, client: AnswerClient, ack: Ack) -> Acked:
        """Everything up to the cursor is taken over. A lower cursor than before changes nothing."""
        acked, last = store.ack(client.ik, client.client, ack.cursor, answers.terms(client.ik))
        return Acked(acked=acked, last=last)

    @app.get("/v1/{ik}/answers/open", responses=responses(), operation_id="list_open", tags=["answers"])
    def list_open(ik: Insurer, client: AnswerClient) -> OpenViews:
        """Requests whose last answer was an interim one and that are still watched, 1000 at most."""
        answers.terms(client.ik)
        return OpenViews(
            requests=[
                OpenView(
                    request=one.id,
                    code=int(one.code),
                    asked_at=one.asked_at,
                    answered_at=one.answered_at,
                    until=one.until,
                )
                for one in store.open(client.ik, answers.now(), MAX_LIMIT)
            ]
        )

    @app.get("/v1/{ik}/answers/codes", responses=responses(), operation_id="list_codes", tags=["answers"])
    def list_codes(ik: Insurer, client: Client) -> Codes:
        """All codes of the procedure (eau.md § 17.4)."""
        return Codes(codes=[_code_view(code) for code in CODES])


def _end_of(found: Sequence[tuple[int, Answer]], start: int, last: int) -> int:
    """Where a list ends; last: of all where this is all of it, because the newest may have been cancelled."""
    return max(found[-1][0] if found else start, last)


def answer_view(answer: Answer) -> AnswerView:
    """As the client reads it."""
    rule = CODES[answer.code]
    return AnswerView(
        request=answer.request,
        code=int(answer.code),
        meaning=rule.meaning,
        kind=rule.follows,
        answered_at=answer.answered_at,
        until=answer.until,
        certificates=[_certificate_view(one) for one in answer.certificates],
        withdrawn=[one.value for one in answer.withdrawn],
    )


def _certificate_view(one: Certificate) -> CertificateView:
    return CertificateView(
        document_id=one.document_id.value,
        accepted_at=one.accepted_at,
        au_type=one.period.au_type,
        since=one.period.starts_on,
        until=one.period.ends_on,
        issued_on=one.period.issued_on,
    )


def _code_view(code: Code) -> CodeView:
    rule = CODES[code]
    return CodeView(
        code=int(code),
        meaning=rule.meaning,
        kind=rule.follows,
        watched_days=None if rule.watched is None else rule.watched.days,
        counted_from=None if rule.watched is None else "request" if rule.from_request else "answer",
        given_by_schleuse=rule.ours,
    )


def _pseudonyms(vault: Vault, ik: IK, asked: AskView) -> tuple[bytes, bytes | None]:
    """Of the KVNR, and of the Ersatzverfahren; of one of them where only one is given."""
    keys = [KVNR(asked.kvnr).value.encode()] if asked.kvnr else []
    if asked.person:
        keys.append(person_without_kvnr(asked.person.family, asked.person.given, asked.person.born))
    if not keys:
        raise NoPersonError("a request names the insured person by kvnr, or by family, given and born")
    subjects: list[bytes] = []
    for found in vault.pseudonyms(ik, [Named(key, b"") for key in keys]):
        if isinstance(found, Error):
            raise found
        subjects.append(found.subject)
    return subjects[0], subjects[1] if len(subjects) > 1 else None
