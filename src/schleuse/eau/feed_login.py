"""Who is at the feed: an insurer's system that signs each request with its own key (decision 0017).

The vault judges the token of a document once more by itself; what is decided here is only what the feed tells without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schleuse.clock import Now
from schleuse.eau.document import BadDocumentIdError, DocumentId
from schleuse.eau.feed_errors import BadTokenError, ForeignInsurerError
from schleuse.identifiers import IK, BadIKError
from schleuse.vault import contracts
from schleuse.vault.tokens import Claims, verify_token


@dataclass(frozen=True, slots=True, repr=False)
class FeedClient:
    """A system of an insurer; with several insurers it is as many clients. public_key: of its tokens."""

    name: str
    ik: IK
    public_key: Ed25519PublicKey


class Happened(StrEnum):
    """What is told about requests."""

    LOGIN = "login"  #: the token is good and for this request
    LOGIN_FAILED = "login-failed"  #: no token, or none that shows who asks for this
    DENIED = "denied"  #: a known system asked for the feed of an insurer that is not its own
    LISTING = "listing"  #: events are given out
    PAPER = "paper"  #: a certificate that came on paper is told
    ANSWER_CANCELLED = "answer-cancelled"  #: an employer's request was cancelled
    ANSWER = "answer"  #: an employer's request was looked up, or follow-ups are given out


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """For the journal. ik: whose feed was asked for; None: no insurer of this platform.

    client, home: name of the system and its insurer, "" and None if the token does not show it. token: its `jti`.
    peer: address that the request came from. code: of the error. count: events or certificates given out. paper: the
    insurer's own name of a certificate on paper. request: of an employer, as the insurer names it.
    """

    what: Happened
    ik: IK | None
    client: str = ""
    home: IK | None = None
    token: str = ""
    peer: str = ""
    code: str = ""
    count: int | None = None
    paper: str = ""
    request: str = ""


#: Called from any thread before the answer goes out; if it raises UnavailableError, nothing is given (RP-01).
Told = Callable[[FeedEvent], None]


def tell_nobody(_event: FeedEvent) -> None:
    """For a feed without a journal."""


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """A request as far as a login needs it. ik, document_id: as the path has them."""

    method: str
    path: str
    ik: str
    document_id: str | None
    peer: str

    def names(self) -> Sequence[tuple[str, str]]:
        """What a token for this request may say (htm, htu): a document has two paths, with and without `urn:uuid:`."""
        if self.document_id is None:
            return ((self.method, self.path),)
        try:
            paths = contracts.feed_paths(IK(self.ik), DocumentId(self.document_id).value)
        except (BadIKError, BadDocumentIdError):
            paths = (self.path,)
        return tuple((self.method, path) for path in paths)


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """One request of a client that may make it. token: for the vault."""

    client: str
    ik: IK
    token: str
    token_id: str
    peer: str


class Logins:
    """aud: `vault.tokens.audience` of this platform."""

    def __init__(self, clients: Sequence[FeedClient], aud: str, now: Now, told: Told) -> None:
        self._keys = {(client.name, client.ik.value): client.public_key for client in clients}
        self._served = {client.ik.value: client.ik for client in clients}
        self._aud = aud
        self._now = now
        self._told = told

    def admit(self, token: str, asked: Asked) -> Session:
        """Raises BadTokenError, ForeignInsurerError; every outcome is told."""
        try:
            claims = verify_token(token, self._keys, aud=self._aud, purpose="feed", now=self._now())
        except contracts.BadTokenError as cause:
            error = BadTokenError(f"a signed token is needed: {cause}")
            self._tell(Happened.LOGIN_FAILED, asked, code=error.code)
            raise error from cause
        if claims.ik.value != asked.ik:
            # Told the same whether that insurer is served here or not.
            self._tell(Happened.DENIED, asked, claims, ForeignInsurerError.code)
            raise ForeignInsurerError("this token is not for that insurer; the operator of this platform can change it")
        if claims.what not in asked.names():
            self._tell(Happened.LOGIN_FAILED, asked, claims, BadTokenError.code)
            raise BadTokenError("the token is for another request; make one for this method and path (htm, htu)")
        self._tell(Happened.LOGIN, asked, claims)
        return Session(claims.name, claims.ik, token, claims.id, asked.peer)

    def tell_listing(self, session: Session, count: int) -> None:
        """Raises UnavailableError: then the list must not be given."""
        self._tell_of(session, Happened.LISTING, count=count)

    def tell_paper(self, session: Session, reference: str) -> None:
        """Raises UnavailableError: then nothing must be kept."""
        self._tell_of(session, Happened.PAPER, paper=reference)

    def tell_answer(self, session: Session, count: int, request: str = "", code: str = "") -> None:
        """Raises UnavailableError: then nothing must be said. code: number of the answer."""
        self._tell_of(session, Happened.ANSWER, code=code, count=count, request=request)

    def tell_cancelled(self, session: Session, request: str) -> None:
        """Raises UnavailableError: then it is not cancelled."""
        self._tell_of(session, Happened.ANSWER_CANCELLED, request=request)

    def _tell_of(self, session: Session, what: Happened, **more: Any) -> None:
        who = (session.ik, session.client, session.ik, session.token_id, session.peer)
        self._told(FeedEvent(what, *who, **more))

    def _tell(self, what: Happened, asked: Asked, claims: Claims | None = None, code: str = "") -> None:
        ik = self._served.get(asked.ik)
        if claims is None:
            self._told(FeedEvent(what, ik, peer=asked.peer, code=code))
        else:
            self._told(FeedEvent(what, ik, claims.name, claims.ik, claims.id, asked.peer, code))
