"""Refusals that would flood the log become one entry with a count (journal.md § 14.4, ext 3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

SINGLE_PER_MINUTE = 100


@dataclass(slots=True)
class _Seen:
    minute: int
    single: int = 0
    coalesced: int = 0


class Denials:
    """Counts refusals by actor and minute. For one thread, or an event loop."""

    def __init__(self, single_per_minute: int = SINGLE_PER_MINUTE) -> None:
        self._limit = single_per_minute
        self._seen: dict[str, _Seen] = {}

    def told(self, actor: str, now: datetime) -> bool:
        """Whether this refusal gets an entry of its own; if not, it is in a later count of `due`."""
        minute = _minute(now)
        seen = self._seen.setdefault(actor, _Seen(minute))
        if seen.minute < minute:  # a clock that goes back gives no new hundred
            seen.minute, seen.single = minute, 0
        if seen.single < self._limit:
            seen.single += 1
            return True
        seen.coalesced += 1
        return False

    def due(self, now: datetime) -> list[tuple[str, int]]:
        """(actor, count) of what was coalesced since the last call. Call it once a minute, and at the end.

        Whoever calls writes the entries; if that fails, he gives the counts back with `again`.
        """
        found = [(actor, seen.coalesced) for actor, seen in self._seen.items() if seen.coalesced]
        for seen in self._seen.values():
            seen.coalesced = 0
        self._seen = {actor: seen for actor, seen in self._seen.items() if seen.minute >= _minute(now)}
        return found

    def again(self, actor: str, count: int, now: datetime) -> None:
        """Count refusals once more whose entry could not be written."""
        self._seen.setdefault(actor, _Seen(_minute(now))).coalesced += count


def _minute(moment: datetime) -> int:
    return int(moment.timestamp()) // 60
