"""How an insurer's system reaches the feed: over HTTPS, one request after the other, each with a token of its own."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now
from schleuse.eau.answer_api import FollowUps, FollowUpView, OpenView, OpenViews
from schleuse.eau.document import DocumentId
from schleuse.eau.feed_views import EventView, Page, PaperPage, PaperView
from schleuse.errors import ConflictError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.vault.tokens import make_token


class FeedUnreachableError(UnavailableError):
    """The feed does not answer; its operator must look, the same request may be repeated."""

    code = "eau.feed-client.unreachable"


class FeedRefusedError(RefusedError):
    """The feed refused this token or document; the operator of the feed knows the public keys of its clients."""

    code = "eau.feed-client.refused"


class FeedConflictError(ConflictError):
    """The acknowledgement contradicts what the feed knows; list anew without `--after`."""

    code = "eau.feed-client.conflict"


class BadFeedRequestError(MalformedError):
    """The feed did not understand the request; who typed the command changes it."""

    code = "eau.feed-client.bad-request"


TIMEOUT_S = 30
_KINDS: dict[int, type[Error]] = {401: FeedRefusedError, 403: FeedRefusedError, 404: FeedRefusedError}
_KINDS |= {409: FeedConflictError, 410: FeedRefusedError, 429: FeedUnreachableError}


@dataclass(frozen=True, slots=True, repr=False)
class Signature:
    """Who asks. name: of the client, as the feed's operator has configured it. aud: `vault.tokens.audience`."""

    name: str
    key: Ed25519PrivateKey
    aud: str
    now: Now

    def token(self, ik: IK, method: str, path: str) -> str:
        """For one request; made when it is sent, so that long lists outlive no token."""
        return make_token(self.key, self.name, ik, self.aud, "feed", (method, path), self.now())


@dataclass(frozen=True, slots=True, repr=False)
class FeedAccess:
    """Where the feed is and what opens it. url: `https://HOST:PORT`. tls: trusts the server's certificate."""

    url: str
    signature: Signature
    tls: ssl.SSLContext


class FeedConnection:
    """One connection. Every method raises UnavailableError, RefusedError, ConflictError or MalformedError."""

    def __init__(self, access: FeedAccess, ik: IK) -> None:
        parts = urlsplit(access.url)
        if parts.scheme != "https" or not parts.hostname:
            raise BadFeedRequestError("the address of a feed is https://HOST:PORT; change --url")
        self._ik = ik
        self._signature = access.signature
        self._prefix = parts.path.rstrip("/")  # of a proxy in front, which the feed does not see
        self._feed, self._papers = f"/v1/{ik}/eau", f"/v1/{ik}/paper"
        self._http = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=TIMEOUT_S, context=access.tls
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self._http.close()

    def page(self, after: int | None, limit: int) -> Page:
        """Events after a cursor; None: those that this client has not acknowledged."""
        query = urlencode({"limit": limit} | ({} if after is None else {"after": after}))
        return Page.model_validate_json(self._request("GET", self._feed, query))

    def events(self, after: int | None, page: int = 500) -> Iterator[EventView]:
        """All events up to the end of the feed, fetched page by page."""
        while (found := self.page(after, page)).events:
            yield from found.events
            after = found.next

    def document(self, id: str, form: str) -> bytes:
        """form: "xml" or "p7s". Raises BadDocumentIdError, too."""
        return self._request("GET", f"{self._feed}/{DocumentId(id)}", urlencode({"format": form}))

    def ack(self, cursor: int) -> int:
        """Everything up to the cursor is taken over. Returns where the client stands now."""
        answer = json.loads(self._request("POST", f"{self._feed}/ack", body=json.dumps({"cursor": cursor}).encode()))
        return int(answer["acked"])

    def tell_paper(self, reference: str, paper: bytes) -> PaperView:
        """paper: JSON of `feed_paper.PaperCase`. Telling it again changes nothing."""
        path = f"{self._papers}/{reference}"
        return PaperView.model_validate_json(self._request("PUT", path, body=paper))

    def papers(self, page: int = 500) -> Iterator[PaperView]:
        """All that were told, with the eAU that may be the same, fetched page by page."""
        after = 0
        while True:
            content = self._request("GET", self._papers, urlencode({"limit": page, "after": after}))
            found = PaperPage.model_validate_json(content)
            if not found.papers:
                return
            yield from found.papers
            after = found.next

    def follow_ups(self, after: int | None, page: int = 500) -> Iterator[FollowUpView]:
        """All answers that followed employers' requests, up to the end, fetched page by page."""
        while True:
            query = urlencode({"limit": page} | ({} if after is None else {"after": after}))
            found = FollowUps.model_validate_json(self._request("GET", f"/v1/{self._ik}/answers", query))
            if not found.answers:
                return
            yield from found.answers
            after = found.next

    def open_requests(self) -> list[OpenView]:
        """Employers' requests with an interim answer."""
        return OpenViews.model_validate_json(self._request("GET", f"/v1/{self._ik}/answers/open")).requests

    def _request(self, method: str, path: str, query: str = "", body: bytes | None = None) -> bytes:
        """path: as it is signed, without percent-encoding."""
        headers = {"Authorization": f"Bearer {self._signature.token(self._ik, method, path)}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        target = f"{self._prefix}{quote(path, safe='/:')}" + (f"?{query}" if query else "")
        try:
            self._http.request(method, target, body, headers)
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as cause:
            raise FeedUnreachableError(
                f"the feed cannot be reached ({cause or type(cause).__name__}); is the role eau running?"
            ) from cause
        if response.status == 200:
            return content
        kind = _KINDS.get(response.status, FeedUnreachableError if response.status >= 500 else BadFeedRequestError)
        raise kind(f"the feed answered {response.status}: {_detail(content)}")


def _detail(content: bytes) -> Any:
    try:
        return json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError):
        return "no problem details"
