"""What the feed tells the journals: who logged in, who could not, and which lists were given out."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import structlog

from schleuse.clock import Now
from schleuse.eau.feed_login import FeedEvent, Happened
from schleuse.errors import UnavailableError
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.processes.trail import PLATFORM, Act, Trail
from schleuse.vault.denials import Denials

log = structlog.get_logger()

#: Each request carries a token of its own; one login an hour says as much as thousands. Documents have entries anyway.
LOGIN_EVERY = timedelta(hours=1)


class FeedTrail:
    """Called from the feed's threads. Raises UnavailableError: then nothing is given out (RP-01)."""

    def __init__(self, trail: Trail, denials: Denials, now: Now) -> None:
        self._trail = trail
        self._denials = denials
        self._now = now
        self._lock = threading.Lock()
        self._logins: dict[tuple[str, str], datetime] = {}
        self._refused: dict[str, FeedEvent] = {}

    def told(self, event: FeedEvent) -> None:
        """See `feed_login.Told`."""
        match event.what:
            case Happened.LOGIN:
                self._login(event)
            case Happened.LISTING if event.count:  # an empty list shows nothing of anybody
                self._tell(event, Kind.SEARCH, Result.GRANTED, event.count)
            case Happened.LOGIN_FAILED | Happened.DENIED:
                self._refuse(event)
            case _:
                pass

    def tell_coalesced(self) -> None:
        """One entry for all refusals of an actor that got none of their own; call it every minute."""
        with self._lock:
            due = self._denials.due(self._now())
            refused, self._refused = self._refused, {}  # addresses are as many as anybody likes
        for actor, count in due:
            try:
                self._tell(refused[actor], Kind.LOGIN_FAILED, Result.DENIED, count)
            except UnavailableError as error:
                log.error("feed.coalesced-waits", code=error.code, reason=str(error))
                with self._lock:
                    self._refused.setdefault(actor, refused[actor])
                    self._denials.again(actor, count, self._now())

    def _login(self, event: FeedEvent) -> None:
        key, now = (event.client, str(event.ik)), self._now()
        with self._lock:
            last = self._logins.get(key)
            if last is not None and now - last < LOGIN_EVERY:
                return
            self._tell(event, Kind.LOGIN, Result.GRANTED, None)
            self._logins[key] = now

    def _refuse(self, event: FeedEvent) -> None:
        # A token that shows nobody is counted by where it came from.
        actor = f"{event.ik} {event.home or ''} {event.client or event.peer}"
        with self._lock:
            single = self._denials.told(actor, self._now())
            if not single:
                self._refused[actor] = event
        if single:
            self._tell(event, Kind.LOGIN_FAILED, Result.DENIED, None)

    def _tell(self, event: FeedEvent, kind: Kind, result: Result, count: int | None) -> None:
        tenant = PLATFORM if event.ik is None else str(event.ik)
        detail: dict[str, Json] = {"peer": event.peer}
        for name, value in (("token", event.token), ("code", event.code), ("of", str(event.home or ""))):
            if value:
                detail[name] = value
        who = f"insurer's system {event.client}" if event.client else ""
        self._trail.tell(Act(tenant, kind, result, Purpose.EAU_DELIVERY, who, detail, count))
