"""One request of an insurer's system: let in by the switch and by its token, for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from schleuse.eau.feed_errors import FeedClosedError
from schleuse.eau.feed_login import Asked, Logins, Session
from schleuse.eau.switched import answering, answers_begin, delivering, delivery
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

    def answering(self, ik: IK) -> Standing:
        """Of deliveries, under which an answer to an employer goes out now. Raises FeedClosedError: a deferral."""
        at = answer_standing(self.switch, ik)
        if not answers_begin(at):
            raise FeedClosedError(answering(ik), at, self.contact)
        return self._delivery(ik)

    def _delivery(self, ik: IK) -> Standing:
        at = delivery(self.switch, ik)
        if not at.state.begins:
            raise FeedClosedError(delivering(ik), at, self.contact)
        return at


_BEARER = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="Signed by the client for this one request (EdDSA)"
)


def _session(
    request: Request, presented: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Iterator[Session]:
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
            door.epoch(IK(path["ik"]))
        raise
    door.epoch(session.ik)  # what is refused is no unit of work
    with door.unit(delivering(session.ik)):
        door.epoch(session.ik)  # again: whoever closes waits for us, or is seen by us
        yield session


Client = Annotated[Session, Depends(_session)]
Insurer = Annotated[str, Path(pattern="^[0-9]{9}$", description="Institutionskennzeichen of the insurer")]
