"""The insurer's feed: its own system fetches eAU and Storno in acceptance order, and says what it has taken over.

    GET  /v1/{ik}/eau?after=&limit=     events; without `after` those that this client has not acknowledged
    GET  /v1/{ik}/eau/{document_id}     the document, XML or .p7s
    POST /v1/{ik}/eau/ack               {"cursor": n}: everything up to n is taken over
    PUT, GET /v1/{ik}/paper             certificates that came on paper (feed_paper.py)

A client that stores what it fetched, then acknowledges, then asks again without `after`, has each event exactly once.
Acknowledging is cumulative: a lower cursor than before changes nothing, one beyond the end is a conflict.

While the switch closes what goes out to an insurer, its system gets 503 with a body that says so, on every path, and
never a list without its events (incident.md § 2.4); it has been told who it is by then, so the journal has the login.

Each request carries a token of its own (feed_login.py). A document is opened by the vault, which judges the token again
and writes before it opens; so nothing is opened that the client has already (If-None-Match).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import structlog
from fastapi import FastAPI, Header, Path, Query, Response

from schleuse.clock import Now
from schleuse.eau.answer_api import Answers, WaitsOf, add_answers
from schleuse.eau.answer_store import AnswerStore
from schleuse.eau.document import BadDocumentIdError, DocumentId
from schleuse.eau.feed_errors import (
    NoSuchFormError,
    Problem,
    SealedDamageError,
    UnknownDocumentError,
    install,
    responses,
)
from schleuse.eau.feed_guard import Guard
from schleuse.eau.feed_login import FeedClient, Logins, Session, Told, tell_nobody
from schleuse.eau.feed_paper import add_paper
from schleuse.eau.feed_session import Client, Door, Insurer
from schleuse.eau.feed_store import FeedStore, StoredDocument
from schleuse.eau.feed_views import MAX_CURSOR, Ack, Acked, Page, view
from schleuse.errors import Error, MalformedError
from schleuse.identifiers import IK
from schleuse.mail.smime.signed import parse_signed
from schleuse.vault import Vault
from schleuse.vault.contracts import SealBrokenError

MAX_LIMIT = 1000
XML, P7S = "application/fhir+xml", "application/pkcs7-mime"
_FORM_OF = {
    XML: "xml",
    "application/xml": "xml",
    "text/xml": "xml",
    "application/*": "xml",
    "*/*": "xml",
    P7S: "p7s",
    "application/pkcs7-signature": "p7s",
}

#: Acknowledged deliveries become CONFIRMED in the mail store. False: not yet, for some are still with a worker that
#: filed them and has not said so there. Must bear repetition; raises any `Error`.
Confirm = Callable[[IK, Sequence[int]], bool]

_log = structlog.get_logger(__name__)


def confirm_acknowledged(store: FeedStore, confirm: Confirm) -> int:
    """Tell the mail store what clients have acknowledged, as far as it may not know. Returns how many deliveries.

    The acknowledgement was recorded first, so this may be repeated after a crash. Raises what `confirm` raises.
    """
    told = 0
    for unconfirmed in store.unconfirmed():
        if confirm(unconfirmed.ik, unconfirmed.deliveries):
            store.confirmed(unconfirmed)
            told += len(unconfirmed.deliveries)
    return told


@dataclass(frozen=True, slots=True)
class AnswersOf:
    """Where answers to employers come from. waits: see `answer_api.WaitsOf`. frozen: whether nothing is deleted now."""

    store: AnswerStore
    waits: WaitsOf
    frozen: Callable[[], bool] = lambda: False


def create_app(
    store: FeedStore,
    vault: Vault,
    clients: Sequence[FeedClient],
    confirm: Confirm,
    *,
    aud: str,
    now: Now,
    door: Door,
    told: Told = tell_nobody,
    answers: AnswersOf | None = None,
) -> FastAPI:
    """The ASGI application, to be served over TLS only.

    confirm: see `confirm_acknowledged`, which the wiring also calls at start and from time to time.
    aud: `vault.tokens.audience` of this platform. door: asked for each request. told: gets every login, refusal and
    listing or answer. answers: of employers' requests, None where there are none.
    """
    app = FastAPI(
        title="Schleuse eAU feed",
        version="1",
        summary="Checked eAU and Storno of one insurer, in acceptance order",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # the pages would load scripts from elsewhere
        redoc_url=None,
    )
    logins = app.state.logins = Logins(clients, aud, now, told)
    app.state.door = door
    install(app)
    app.add_middleware(Guard)

    @app.get("/v1/{ik}/eau", responses=responses(), operation_id="list_events", tags=["eau"])
    def list_events(
        ik: Insurer,  # judged by the session, here for the description
        client: Client,
        after: Annotated[int | None, Query(ge=0, le=MAX_CURSOR)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    ) -> Page:
        """Events after a cursor; without `after`, those that this client has not acknowledged."""
        position = store.position(client.ik, client.client)
        start = position.acked if after is None else after
        events = store.events(client.ik, start, limit)
        logins.tell_listing(client, len(events))
        return Page(
            events=[view(client.ik, event) for event in events],
            next=events[-1].seq if events else start,
            acked=position.acked,
            last=position.last,
        )

    @app.post("/v1/{ik}/eau/ack", responses=responses(400, 409), operation_id="acknowledge", tags=["eau"])
    def acknowledge(ik: Insurer, client: Client, ack: Ack) -> Acked:
        """Everything up to the cursor is taken over. A lower cursor than before changes nothing."""
        position = store.ack(client.ik, client.client, ack.cursor, door.epoch(client.ik))
        try:
            confirm_acknowledged(store, confirm)
        except Error as error:  # recorded already; the wiring tells the mail store later
            _log.warning("eau.feed.unconfirmed", code=error.code)
        return Acked(acked=position.acked, last=position.last)

    @app.get(
        "/v1/{ik}/eau/{document_id:path}",
        response_class=Response,
        responses=responses(404, 406, 410, 429) | _DOCUMENT_RESPONSES,
        operation_id="get_document",
        tags=["eau"],
    )
    def get_document(
        ik: Insurer,
        client: Client,
        document_id: Annotated[str, Path(description="Dokumenten-ID, with or without urn:uuid:")],
        format: Annotated[Literal["xml", "p7s"] | None, Query()] = None,
        accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
        if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> Response:
        """The XML that was signed, or the signed file itself."""
        form = format or _negotiate(accept)
        stored = _find(store, client.ik, document_id)
        etag = _etag(stored, form)
        headers = {"ETag": etag, "Vary": "Accept"}
        if etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
            return Response(status_code=304, headers=headers)
        content = _opened(vault, client, stored, form)
        door.epoch(client.ik)  # closed while it was opened: it is not given out
        headers["Content-Digest"] = f"sha-256=:{b64encode(hashlib.sha256(content).digest()).decode()}:"
        return Response(content, media_type=XML if form == "xml" else P7S, headers=headers)

    add_paper(app, store, vault, logins, door, now)
    if answers is not None:
        standing_on = Answers(answers.store, vault, answers.waits, door.answering, now, answers.frozen)
        add_answers(app, standing_on)
    _complete_schema(app)
    return app


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DOCUMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The document", "content": {XML: _BINARY, P7S: _BINARY}},
    304: {"description": "Not Modified"},
}


def _find(store: FeedStore, ik: IK, document_id: str) -> StoredDocument:
    try:
        found = store.document(ik, DocumentId(document_id))
    except BadDocumentIdError:
        found = None
    if found is None:
        raise UnknownDocumentError("the feed of this insurer has no such document; ids come from its events")
    return found


def _etag(stored: StoredDocument, form: str) -> str:
    """Known without opening anything: a 304 must not cost an entry in the journal for nothing (decision 0017)."""
    if form == "xml":
        return f'"{stored.sha256.hex()}"'
    if stored.p7s is None:
        raise NoSuchFormError("this document is kept as XML only; ask for format=xml")
    return f'"p7s-{hashlib.sha256(stored.p7s).hexdigest()}"'


def _opened(vault: Vault, client: Session, stored: StoredDocument, form: str) -> bytes:
    kept = "xml" if form == "xml" and stored.xml is not None else "p7s"
    container = stored.xml if kept == "xml" else stored.p7s
    if container is None:
        raise SealedDamageError("a stored document has no content; its operator must look")
    try:
        content = vault.fetch(client.ik, client.token, stored.document_id.value, kept, container)
    except SealBrokenError as cause:
        raise SealedDamageError("a stored document does not open under its seal; its operator must look") from cause
    if form == "p7s":
        return content
    xml = content if kept == "xml" else _enveloped(content)
    if hashlib.sha256(xml).digest() != stored.sha256:
        raise SealedDamageError("a stored document is not the one that was filed; its operator must look")
    return xml


def _enveloped(p7s: bytes) -> bytes:
    try:
        return parse_signed(p7s).content
    except MalformedError as cause:
        raise SealedDamageError("a stored signed file cannot be read any more; its operator must look") from cause


def _negotiate(accept: str) -> str:
    """The first known type of an Accept header with the highest weight (RFC 9110 § 12.5.1)."""
    best: tuple[float, str] = (0.0, "")
    for item in accept.split(","):
        type, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if type in _FORM_OF and weight > best[0]:
            best = (weight, _FORM_OF[type])
    if not best[1]:
        raise NoSuchFormError(f"documents are served as {XML} and {P7S}")
    return best[1]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _complete_schema(app: FastAPI) -> None:
    """FastAPI describes failures as it would write them; ours are problem details."""
    schema = app.openapi()
    schemas = schema["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schema["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
