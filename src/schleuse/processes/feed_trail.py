"""What the feed tells the journals: who logged in, who could not, which lists were given out, what came on paper."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from schleuse.clock import Now
from schleuse.eau.feed_login import FeedEvent, Happened
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.processes.refusals import Refusals
from schleuse.processes.trail import PLATFORM, Act, Trail
from schleuse.vault.denials import Denials

#: Each request carries a token of its own; one login an hour says as much as thousands. Documents have entries anyway.
LOGIN_EVERY = timedelta(hours=1)


class FeedTrail:
    """Called from the feed's threads. Raises UnavailableError: then nothing is given out (RP-01)."""

    def __init__(self, trail: Trail, denials: Denials, now: Now) -> None:
        self._trail = trail
        self._now = now
        self._lock = threading.Lock()
        self._logins: dict[tuple[str, str], datetime] = {}
        self.refusals = Refusals("feed", denials, self._refused, now)

    def told(self, event: FeedEvent) -> None:
        """See `feed_login.Told`."""
        match event.what:
            case Happened.LOGIN:
                self._login(event)
            case Happened.LISTING if event.count:  # an empty list shows nothing of anybody
                self._tell(event, Kind.SEARCH, Result.GRANTED, event.count)
            case Happened.PAPER:
                self._tell(event, Kind.ADMINISTRATION, Result.GRANTED, None, Purpose.CLEARING)
            case Happened.ANSWER:  # also one that found nothing: somebody's absence was asked for
                self._tell(event, Kind.SEARCH, Result.GRANTED, event.count, Purpose.EAU_EMPLOYER)
            case Happened.ANSWER_CANCELLED:
                self._tell(event, Kind.ADMINISTRATION, Result.GRANTED, None, Purpose.EAU_EMPLOYER)
            case Happened.LOGIN_FAILED | Happened.DENIED:
                # A token that shows nobody is counted by where it came from.
                self.refusals.refused(f"{event.ik} {event.home or ''} {event.client or event.peer}", event)
            case _:
                pass

    def _login(self, event: FeedEvent) -> None:
        key, now = (event.client, str(event.ik)), self._now()
        with self._lock:
            last = self._logins.get(key)
            if last is not None and timedelta(0) <= now - last < LOGIN_EVERY:  # a clock that was ahead hides nobody
                return
            self._tell(event, Kind.LOGIN, Result.GRANTED, None)
            self._logins[key] = now

    def _refused(self, event: FeedEvent, count: int | None) -> None:
        self._tell(event, Kind.LOGIN_FAILED, Result.DENIED, count)

    def _tell(
        self,
        event: FeedEvent,
        kind: Kind,
        result: Result,
        count: int | None,
        purpose: Purpose = Purpose.EAU_DELIVERY,
    ) -> None:
        tenant = PLATFORM if event.ik is None else str(event.ik)
        detail: dict[str, Json] = {"peer": event.peer}
        for name, value in (
            ("token", event.token),
            ("code", event.code),
            ("of", str(event.home or "")),
            ("request", event.request),
        ):
            if value:
                detail[name] = value
        if event.paper:
            detail |= {"act": "paper.told", "paper": event.paper}
        if event.what is Happened.ANSWER_CANCELLED:
            detail["act"] = "answer.cancelled"
        who = f"insurer's system {event.client}" if event.client else ""
        self._trail.tell(Act(tenant, kind, result, purpose, who, detail, count))
