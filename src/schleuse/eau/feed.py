"""The insurer's feed: its own system fetches eAU and Storno in acceptance order, and says what it has taken over.

    GET  /v1/{ik}/eau?after=&limit=     events; without `after` those that this client has not acknowledged
    GET  /v1/{ik}/eau/{document_id}     the document, XML or .p7s
    POST /v1/{ik}/eau/ack               {"cursor": n}: everything up to n is taken over

A client that stores what it fetched, then acknowledges, then asks again without `after`, has each event exactly once.
Acknowledging is cumulative: a lower cursor than before changes nothing, one beyond the end is a conflict.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import structlog
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from schleuse.eau.document import BadDocumentIdError, DocumentId
from schleuse.eau.feed_errors import (
    BadTokenError,
    ForeignInsurerError,
    NoSuchFormError,
    Problem,
    SealedDamageError,
    UnknownDocumentError,
    install,
    responses,
)
from schleuse.eau.feed_guard import Guard
from schleuse.eau.feed_store import FeedStore, StoredDocument
from schleuse.eau.feed_views import MAX_CURSOR, Ack, Acked, Page, view
from schleuse.eau.filing import context
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


@dataclass(frozen=True, slots=True, repr=False)
class FeedClient:
    """A system of an insurer. token_hash: SHA-256 of its bearer token, which has at least 128 bits of randomness."""

    name: str
    token_hash: bytes
    iks: frozenset[IK]


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


_BEARER = HTTPBearer(auto_error=False, description="Token of one client of an insurer")


def _client_of(
    request: Request, presented: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> FeedClient:
    return authenticate(request.app.state.clients, presented.credentials if presented else "")


Client = Annotated[FeedClient, Depends(_client_of)]
Insurer = Annotated[str, Path(pattern="^[0-9]{9}$", description="Institutionskennzeichen of the insurer")]


def create_app(store: FeedStore, vault: Vault, clients: Sequence[FeedClient], confirm: Confirm) -> FastAPI:
    """The ASGI application, to be served over TLS only.

    confirm: see `confirm_acknowledged`, which the wiring also calls at start and from time to time.
    """
    app = FastAPI(
        title="Schleuse eAU feed",
        version="1",
        summary="Checked eAU and Storno of one insurer, in acceptance order",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # the pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.clients = tuple(clients)
    install(app)
    app.add_middleware(Guard)

    @app.get("/v1/{ik}/eau", responses=responses(), operation_id="list_events", tags=["eau"])
    def list_events(
        ik: Insurer,
        client: Client,
        after: Annotated[int | None, Query(ge=0, le=MAX_CURSOR)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    ) -> Page:
        """Events after a cursor; without `after`, those that this client has not acknowledged."""
        insurer = _scope(client, ik)
        position = store.position(insurer, client.name)
        start = position.acked if after is None else after
        events = store.events(insurer, start, limit)
        return Page(
            events=[view(insurer, event) for event in events],
            next=events[-1].seq if events else start,
            acked=position.acked,
            last=position.last,
        )

    @app.post("/v1/{ik}/eau/ack", responses=responses(400, 409), operation_id="acknowledge", tags=["eau"])
    def acknowledge(ik: Insurer, client: Client, ack: Ack) -> Acked:
        """Everything up to the cursor is taken over. A lower cursor than before changes nothing."""
        position = store.ack(_scope(client, ik), client.name, ack.cursor)
        try:
            confirm_acknowledged(store, confirm)
        except Error as error:  # recorded already; the wiring tells the mail store later
            _log.warning("eau.feed.unconfirmed", code=error.code)
        return Acked(acked=position.acked, last=position.last)

    @app.get(
        "/v1/{ik}/eau/{document_id:path}",
        response_class=Response,
        responses=responses(404, 406) | _DOCUMENT_RESPONSES,
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
        insurer = _scope(client, ik)
        form = format or _negotiate(accept)
        content = _unsealed(vault, insurer, _find(store, insurer, document_id), form)
        digest = hashlib.sha256(content).digest()
        etag = f'"{digest.hex()}"'
        headers = {"ETag": etag, "Content-Digest": f"sha-256=:{b64encode(digest).decode()}:", "Vary": "Accept"}
        if etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=XML if form == "xml" else P7S, headers=headers)

    _complete_schema(app)
    return app


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DOCUMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The document", "content": {XML: _BINARY, P7S: _BINARY}},
    304: {"description": "Not Modified"},
}


def authenticate(clients: Sequence[FeedClient], token: str) -> FeedClient:
    """The client that a token belongs to. Takes the same time for every wrong token. Raises BadTokenError."""
    presented = hashlib.sha256(token.encode()).digest()
    found: FeedClient | None = None
    for client in clients:
        if hmac.compare_digest(client.token_hash, presented):
            found = client
    if found is None:
        raise BadTokenError("a bearer token of this feed is needed; the operator of this platform gives it out")
    return found


def _scope(client: FeedClient, ik: str) -> IK:
    """The insurer, if the client may read it; the answer does not tell whether a foreign one is served here."""
    insurer = IK(ik)
    if insurer not in client.iks:
        raise ForeignInsurerError("this token is not for that insurer; the operator of this platform can change it")
    return insurer


def _find(store: FeedStore, ik: IK, document_id: str) -> StoredDocument:
    try:
        found = store.document(ik, DocumentId(document_id))
    except BadDocumentIdError:
        found = None
    if found is None:
        raise UnknownDocumentError("the feed of this insurer has no such document; ids come from its events")
    return found


def _unsealed(vault: Vault, ik: IK, stored: StoredDocument, form: str) -> bytes:
    if form == "p7s":
        return _unseal(vault, ik, stored, "p7s", stored.p7s)
    if stored.xml is not None:
        xml = _unseal(vault, ik, stored, "xml", stored.xml)
    else:
        xml = _enveloped(_unseal(vault, ik, stored, "p7s", stored.p7s))
    if hashlib.sha256(xml).digest() != stored.sha256:
        raise SealedDamageError("a stored document is not the one that was filed; its operator must look")
    return xml


def _unseal(vault: Vault, ik: IK, stored: StoredDocument, form: str, sealed: bytes | None) -> bytes:
    if sealed is None:
        raise NoSuchFormError("this document is kept as XML only; ask for format=xml")
    try:
        return vault.unseal(ik, sealed, context(ik, stored.document_id, form))
    except SealBrokenError as cause:
        raise SealedDamageError("a stored document does not open under its seal; its operator must look") from cause


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
