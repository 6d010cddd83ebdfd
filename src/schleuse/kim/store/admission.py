"""What of a mailbox may be taken now: live traffic, and backlog as far as it is released. Pure.

Live traffic goes first. While it alone could fill a batch, a backlog gets its share of it; else it gets what is free
(HD-43).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from schleuse.kim.store.delivery import Take, share_of
from schleuse.kim.store.holds import ALL, HoldWindow, spans


class Row(Protocol):
    """A delivery that may be taken."""

    @property
    def id(self) -> int: ...
    @property
    def account(self) -> str: ...


_R = TypeVar("_R", bound=Row)


@dataclass(frozen=True, slots=True)
class Range:
    """Deliveries of one mailbox with above < id <= upto. permille: see `Take`."""

    account: str
    above: int = 0
    upto: int = ALL
    permille: int | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Where a claim looks. drained: windows that are released and may be empty."""

    live: tuple[Range, ...]
    backlog: tuple[Range, ...]
    released: tuple[HoldWindow, ...]


def open_ranges(takes: Sequence[Take], windows: Mapping[str, Sequence[HoldWindow]]) -> Open:
    """Where to look. windows: those of each mailbox that must be minded, oldest first.

    Of a mailbox that is held now nothing is open, whatever whoever takes believes (HD-25).
    """
    live: list[Range] = []
    backlog: list[Range] = []
    released: list[HoldWindow] = []
    for take in takes:
        minded = windows.get(take.account, ())
        if any(window.is_open for window in minded):
            continue
        above = 0
        for part in spans(minded):
            if part.released > part.above:
                backlog.append(Range(take.account, part.above, part.released, take.permille))
            if part.window.is_released:
                released.append(part.window)
            above = part.end
        live.append(Range(take.account, above, ALL, take.permille))
    return Open(tuple(live), tuple(backlog), tuple(released))


def mix(live: Sequence[_R], backlog: Sequence[_R], limit: int, permille: Mapping[str, int]) -> list[_R]:
    """At most `limit` of both, in acceptance order. permille: share of a backlog by mailbox, while live wants all.

    A share that is no whole number is rounded up as often as it must be, by the place of the first live delivery: a
    batch of one would have no backlog, or nothing else.
    """
    free = limit - min(len(live), limit)
    share = max((permille[row.account] for row in backlog), default=0)
    dice = share_of(live[0].id) if live else 0
    wanted = min(len(backlog), limit, max(free, (limit * share + dice) // 1000))
    return sorted([*live[: limit - wanted], *backlog[:wanted]], key=lambda row: row.id)


def held_for(id: int, accepted_at: datetime, windows: Sequence[HoldWindow], now: datetime) -> timedelta:
    """Since when the switch has held a delivery that is taken now; zero for live traffic (HD-46)."""
    began = min((window.began_at for window in windows if window.to_id is not None and window.to_id >= id), default=now)
    return max(now - max(began, accepted_at), timedelta(0))
