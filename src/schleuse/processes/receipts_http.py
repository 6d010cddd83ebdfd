"""The status address of hold receipts: HTTPS, GET only, and each answer signed (incident.md § 6.4).

    GET /v1/receipts/{reference}              reference: SHA-256 in hex of the Message-ID without its angle brackets
    GET /v1/receipts?since=&after=&limit=     all of the sender who logs in (Basic, as for SMTP); next: for after
    GET /.well-known/jwks.json                the key that receipts are signed with

Whoever knows the Message-ID of a mail may ask for it; the answer names no person and no practice. With
`Accept: text/plain` a receipt comes as a text for people.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import http
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schleuse.clock import Now
from schleuse.errors import Error, MalformedError, RefusedError, UnavailableError
from schleuse.kim.receipt_text import receipt_text
from schleuse.kim.store.origins import Origins
from schleuse.mail.passwords import TooManyGuessesError
from schleuse.processes.receipts import Issuer

log = structlog.get_logger()
_T = TypeVar("_T")

#: (user, password, peer) -> account, None when wrong. Raises Error.
Authenticate = Callable[[str, str, str], Awaitable[str | None]]

#: Questions to the database at the same time; the rest waits, so that mail goes on.
AT_ONCE = 4
#: A question that waits longer is answered with 503.
WAIT_SECONDS = 20.0
MAX_LIMIT = 200
#: Without `since`, a sender sees so much.
LATEST = timedelta(days=30)

_REFERENCE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PROBLEM = "application/problem+json"
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
]


class BadReferenceError(MalformedError):
    """Not the digest of a Message-ID, or a parameter that is none; the asking program changes it."""

    code = "receipt.bad-request"


class UnknownReferenceError(RefusedError):
    """No mail with this Message-ID is here: it was never accepted, or its retention is over."""

    code = "receipt.unknown"


class LoginNeededError(RefusedError):
    """The list of a sender needs his user name and password, as for SMTP."""

    code = "receipt.login-needed"


_STATUS = {
    BadReferenceError: 400,
    UnknownReferenceError: 404,
    LoginNeededError: 401,
    TooManyGuessesError: 429,
    UnavailableError: 503,
    Error: 500,
}


def receipts_app(origins: Origins, issuer: Issuer, authenticate: Authenticate, now: Now) -> ASGIApp:
    """The application."""
    return _Headers(_Receipts(origins, issuer, authenticate, now).app())


class _Receipts:
    def __init__(self, origins: Origins, issuer: Issuer, authenticate: Authenticate, now: Now) -> None:
        self._origins = origins
        self._issuer = issuer
        self._authenticate = authenticate
        self._now = now
        self._turns = asyncio.Semaphore(AT_ONCE)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/receipts/{reference}", self._one),
                Route("/v1/receipts", self._all),
                Route("/.well-known/jwks.json", self._keys),
            ],
            exception_handlers={Error: _own, HTTPException: _http, Exception: _unexpected},
        )

    async def _one(self, request: Request) -> Response:
        reference = str(request.path_params["reference"])
        if not _REFERENCE.fullmatch(reference):
            raise BadReferenceError("a reference is 64 hexadecimal digits: SHA-256 of the Message-ID without < and >")

        def answer() -> tuple[dict[str, object], str]:
            records = self._origins.by_reference(reference)
            if not records:
                raise UnknownReferenceError(
                    "no mail with this Message-ID is here; it was never accepted, or its retention is over"
                )
            return self._issuer.receipt(records, f"{self._issuer.address}/{reference}")

        receipt, signature = await self._in_thread(answer)
        if "text/plain" in request.headers.get("accept", ""):
            return PlainTextResponse(receipt_text(receipt))
        return JSONResponse({"receipt": receipt, "signature": signature})

    async def _all(self, request: Request) -> Response:
        account = await self._login(request)
        since = _moment(request, self._now() - LATEST)
        after, limit = _number(request, "after", -1), min(max(_number(request, "limit", MAX_LIMIT), 1), MAX_LIMIT)

        def answer() -> dict[str, object]:
            records = self._origins.by_sender(account, after, since, limit)
            receipt, signature = self._issuer.receipt(records, self._issuer.address)
            return {
                "receipt": receipt,
                "signature": signature,
                "next": records[-1].position if records else after,
            }

        return JSONResponse(await self._in_thread(answer))

    async def _keys(self, _request: Request) -> Response:
        return JSONResponse(self._issuer.public, media_type="application/jwk-set+json")

    async def _login(self, request: Request) -> str:
        user, password = _basic(request.headers.get("authorization", ""))
        peer = request.client.host if request.client else ""
        try:
            account = await self._authenticate(user, password, peer)
        except MalformedError as cause:
            raise LoginNeededError("user name or password is wrong") from cause
        if account is None:
            raise LoginNeededError("user name or password is wrong")
        return account

    async def _in_thread(self, answer: Callable[[], _T]) -> _T:
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._turns:
                return await asyncio.to_thread(answer)
        except TimeoutError as cause:
            raise UnavailableError("too many ask at the same time; try again in a minute") from cause


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        user = colon = password = ""
    if scheme.lower() != "basic" or not colon or not user or not password:
        raise LoginNeededError("expected a login (Basic, RFC 7617) with the user name and password of the mailbox")
    return user, password


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        raise BadReferenceError(f"{name} is a whole number")
    return int(text)


def _moment(request: Request, default: datetime) -> datetime:
    text = request.query_params.get("since")
    if text is None:
        return default
    try:
        at = datetime.fromisoformat(text)
    except ValueError as cause:
        raise BadReferenceError("since is a time such as 2026-11-25T09:00:00Z") from cause
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _own(_request: Request, error: Exception) -> Response:
    kind = next(kind for kind in type(error).__mro__ if kind in _STATUS)
    status = _STATUS[kind]
    if status >= 500:
        log.error("receipts.failed", code=getattr(error, "code", "error"))
    headers = {401: {"WWW-Authenticate": 'Basic realm="receipts", charset="UTF-8"'}, 429: {"Retry-After": "60"},
               503: {"Retry-After": "60"}}  # fmt: skip
    detail = str(error) if status != 500 else "an error of ours; nothing was changed by this request"
    return _problem(status, getattr(error, "code", "error"), detail, headers.get(status))


def _http(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _problem(status, f"http.{status}", http.HTTPStatus(status).phrase, None)


def _unexpected(_request: Request, error: Exception) -> Response:
    log.error("receipts.crashed", error=type(error).__name__)
    return _problem(500, "internal", "an error of ours; nothing was changed by this request", None)


def _problem(status: int, code: str, detail: str, headers: dict[str, str] | None) -> Response:
    """RFC 9457."""
    body = {
        "type": f"urn:schleuse:error:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(json.dumps(body), status, headers, _PROBLEM)


class _Headers:
    """ASGI middleware: what every answer says to a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers)
