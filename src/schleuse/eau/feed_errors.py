"""How the feed answers what it cannot serve: problem details (RFC 9457), from the five kinds of error."""

from __future__ import annotations

import http
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.fence import StaleEpochError
from schleuse.switch.standing import Standing
from schleuse.vault import contracts

MEDIA_TYPE = "application/problem+json"
#: What a client may hope for: a vault comes back, a budget of an hour refills little by little.
RETRY_AFTER_S = {503: 30, 429: 300}
#: Opening takes two persons: asking again at once cannot help (SW-01).
CLOSED_RETRY_AFTER_S = 120

_log = structlog.get_logger(__name__)


class BadTokenError(RefusedError):
    """No token, or one that does not show who asks for this; the client signs one, the operator knows its key."""

    code = "eau.feed.bad-token"


class ForeignInsurerError(RefusedError):
    """This client may not read that insurer's feed; only the operator can change that."""

    code = "eau.feed.foreign-insurer"


class UnknownDocumentError(RefusedError):
    """No document with this id for this client, or one that its feed has not named yet."""

    code = "eau.feed.unknown-document"


class NoSuchFormError(MalformedError):
    """A document in a form that does not exist; the client asks for XML or .p7s."""

    code = "eau.feed.no-such-form"


class NoPersonError(MalformedError):
    """An employer's request that names nobody; the insurer's system says the KVNR or the name and birth date."""

    code = "eau.answers.no-person"


class FeedClosedError(UnavailableError):
    """The switch closed what goes out to this insurer; nothing is lost, and nothing need be asked for in another way.

    standing: of the scope. contact: how the operator is reached by another channel, "" if nobody said.
    """

    code = "eau.feed.closed"

    def __init__(self, scope: Scope, standing: Standing, contact: str) -> None:
        super().__init__("temporarily closed for security; nothing is lost, and everything follows when it opens again")
        self.scope = scope
        self.standing = standing
        self.contact = contact


class SealedDamageError(CorruptError):
    """A stored document does not open under its seal; the operator restores store and key together."""

    code = "eau.feed.damaged-document"


#: The most special kind that fits decides.
STATUS: Mapping[type[Error], int] = {
    BadTokenError: 401,
    contracts.BadTokenError: 401,
    UnknownDocumentError: 404,
    NoSuchFormError: 406,
    contracts.ErasedError: 410,
    contracts.OverBudgetError: 429,
    contracts.NotAllowedError: 503,  # of our own role by our own vault: nothing that the client could change
    StaleEpochError: 503,  # closed while it was asked; the next request says so
    MalformedError: 400,
    RefusedError: 403,
    ConflictError: 409,
    UnavailableError: 503,
    CorruptError: 500,
}


class Closed(BaseModel):
    """What is closed, since when and why (incident.md § 2.4): never an empty list, which would say "no documents".

    reason: hold reason class. epoch: of the order that closed it, for questions to the operator.
    """

    scope: str
    state: ScopeState
    reason: str
    since: datetime | None
    epoch: int
    contact: str


class Problem(BaseModel):
    """RFC 9457 § 3.1. code: of the error, never reused. closed: only where the switch closed the feed."""

    type: str = Field(examples=["urn:schleuse:error:eau.feed.unknown-document"])
    title: str
    status: int
    detail: str
    code: str
    closed: Closed | None = None


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI descriptions of these problems, and of those that every operation may give."""
    return {
        status: {
            "description": http.HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({401, 403, 408, 413, 422, 500, 503, *statuses})
    }


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, closed: Closed | None = None
) -> JSONResponse:
    """One answer."""
    body = Problem(
        type=f"urn:schleuse:error:{code}",
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        closed=closed,
    )
    content = body.model_dump(mode="json", exclude_none=closed is None)
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every kind of failure of the app."""
    app.add_exception_handler(FeedClosedError, _closed)
    app.add_exception_handler(Error, _own)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def _own(_request: Request, error: Exception) -> JSONResponse:
    kind = next(kind for kind in type(error).__mro__ if kind in STATUS)
    status = STATUS[kind]
    code = error.code if isinstance(error, Error) else "error"
    if status >= 500:
        _log.error("eau.feed.failed", code=code)
    return problem(status, code, str(error), _headers(status))


def _closed(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FeedClosedError)  # noqa: S101 -- it is installed for these
    at = error.standing
    closed = Closed(
        scope=str(error.scope), state=at.state, reason=at.reason, since=at.since, epoch=at.epoch, contact=error.contact
    )
    return problem(503, error.code, str(error), {"Retry-After": str(CLOSED_RETRY_AFTER_S)}, closed)


def _headers(status: int) -> Mapping[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(RETRY_AFTER_S[status])} if status in RETRY_AFTER_S else {}


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """Which part of the request is wrong, without quoting it."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    places = sorted({".".join(str(step) for step in item["loc"]) + f" ({item['type']})" for item in found})
    return problem(422, "eau.feed.bad-request", "not as the OpenAPI description asks: " + ", ".join(places))


def _http(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    return problem(status, f"http.{status}", http.HTTPStatus(status).description or "see the status", headers)


def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    _log.error("eau.feed.crashed", error=type(error).__name__)
    return problem(500, "internal", "an error of ours; nothing was changed by this request")
