"""Refused attempts of one actor: an entry each, or one with their number if they are too many (journal.md § 14.4)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from schleuse.clock import Now
from schleuse.errors import UnavailableError
from schleuse.vault.denials import Denials

log = structlog.get_logger()

COALESCED_EVERY = timedelta(minutes=1)

T = TypeVar("T")


class Refusals(Generic[T]):
    """Called from any thread.

    of: what they are refused at, for the log. tell: records one entry, count: how many it stands for, None for one.
    """

    def __init__(self, of: str, denials: Denials, tell: Callable[[T, int | None], None], now: Now) -> None:
        self._of = of
        self._denials = denials
        self._tell = tell
        self._now = now
        self._lock = threading.Lock()
        self._coalesced: dict[str, T] = {}

    def refused(self, actor: str, what: T) -> None:
        """An attempt. Raises UnavailableError if it cannot be recorded."""
        with self._lock:
            single = self._denials.told(actor, self._now())
            if not single:
                self._coalesced[actor] = what
        if single:
            self._tell(what, None)

    def tell_coalesced(self) -> None:
        """One entry for all refusals of an actor that got none of their own."""
        with self._lock:
            due = self._denials.due(self._now())
            refused, self._coalesced = self._coalesced, {}  # addresses are as many as anybody likes
        for actor, count in due:
            try:
                self._tell(refused[actor], count)
            except UnavailableError as error:
                log.error(f"{self._of}.coalesced-waits", code=error.code, reason=str(error))
                with self._lock:
                    self._coalesced.setdefault(actor, refused[actor])
                    self._denials.again(actor, count, self._now())

    async def keep_telling(self) -> None:
        """Each minute, for ever."""
        while True:
            await asyncio.sleep(COALESCED_EVERY.total_seconds())
            self.tell_coalesced()
