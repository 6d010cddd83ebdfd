"""Refusals that would flood the log become one entry with a count (journal.md § 14.4)."""

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
    """Counts refusals by actor. Not thread-safe beyond what the interpreter lock gives; a lost count is one refusal."""

    def __init__(self, single_per_minute: int = SINGLE_PER_MINUTE) -> None:
        self._limit = single_per_minute
        self._seen: dict[str, _Seen] = {}

    def told(self, actor: str, now: datetime) -> bool:
        """Whether this refusal gets an entry of its own; if not, it is in a later one of `due`."""
        minute = int(now.timestamp()) // 60
        seen = self._seen.setdefault(actor, _Seen(minute))
        if seen.minute != minute:
            seen.minute, seen.single = minute, 0
        if seen.single < self._limit:
            seen.single += 1
            return True
        seen.coalesced += 1
        return False

    def due(self, now: datetime) -> list[tuple[str, int]]:
        """(actor, count) of what was coalesced since the last call. Call it once a minute and at the end."""
        found = [(actor, seen.coalesced) for actor, seen in self._seen.items() if seen.coalesced]
        for actor, _ in found:
            self._seen[actor].coalesced = 0
        minute = int(now.timestamp()) // 60
        self._seen = {actor: seen for actor, seen in self._seen.items() if seen.minute >= minute - 1}
        return found
