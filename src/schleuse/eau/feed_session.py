"""One request of an insurer's system: let in by the switch and by its token, for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from schleuse.eau.feed_errors import FeedClosedError
from schleuse.eau.feed_login import Asked, Logins, Session
from schleuse.eau.switched import AnswerTerms, answer_terms, answering, answers_begin, delivering, delivery
from schleuse.eau.switched import answers as answer_standing
from schleuse.errors import MalformedError, RefusedError
from schleuse.identifiers import IK, BadIKError
from schleuse.scopes import Scope
from schleuse.switch.copy import Switch
from schleuse.switch.standing import Standing


@dataclass(frozen=True, slots=True)
class Door:
    """Lets requests in while the switch does. contact: see `FeedClosedError`. unit: entered while a request runs."""

    switch: Switch
    contact: str = ""
    unit: Callable[[Scope], AbstractContextManager[object]] = nullcontext

    def epoch(self, ik: IK) -> int:
        """Under which a request of this insurer is served now. Raises FeedClosedError."""
        return self._delivery(ik).epoch

    def answering(self, ik: IK) -> AnswerTerms:
        """Under which an answer to an employer goes out now. Raises FeedClosedError: a deferral."""
        at = answer_standing(self.switch, ik)
        if not answers_begin(at):
            raise FeedClosedError(answering(ik), at, self.contact)
        return answer_terms(at, self._delivery(ik))

    def _delivery(self, ik: IK) -> Standing:
        at = delivery(self.switch, ik)
        if not at.state.begins:
            raise FeedClosedError(delivering(ik), at, self.contact)
        return at


_BEARER = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="Signed by the client for this one request (EdDSA)"
)


Presented = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def _session(request: Request, presented: Presented) -> Iterator[Session]:
    """Of the feed."""
    yield from _let_in(request, presented, Door.epoch, [delivering])


def _answer_session(request: Request, presented: Presented) -> Iterator[Session]:
    """Of answers to employers, which are closed apart from the feed, and with it."""
    yield from _let_in(request, presented, Door.answering, [answering, delivering])


def _let_in(
    request: Request,
    presented: HTTPAuthorizationCredentials | None,
    ask: Callable[[Door, IK], object],
    scopes: Sequence[Callable[[IK], Scope]],
) -> Iterator[Session]:
    """ask: raises FeedClosedError. scopes: of which this request is a unit of work."""
    path = request.path_params
    asked = Asked(
        request.method,
        request.scope["path"],
        path["ik"],
        path.get("document_id"),
        request.client.host if request.client else "",
    )
    logins: Logins = request.app.state.logins
    door: Door = request.app.state.door
    try:
        session = logins.admit(presented.credentials if presented else "", asked)
    except (RefusedError, MalformedError):
        # That it is closed hears everybody, also the probe of the closing, which has no token (SW-07).
        with suppress(BadIKError):
            ask(door, IK(path["ik"]))
        raise
    ask(door, session.ik)  # what is refused is no unit of work
    with ExitStack() as units:
        for scope in scopes:
            units.enter_context(door.unit(scope(session.ik)))
        ask(door, session.ik)  # again: whoever closes waits for us, or is seen by us
        yield session


Client = Annotated[Session, Depends(_session)]
AnswerClient = Annotated[Session, Depends(_answer_session)]
Insurer = Annotated[str, Path(pattern="^[0-9]{9}$", description="Institutionskennzeichen of the insurer")]
