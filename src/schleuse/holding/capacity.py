"""What is still taken when the store fills up (HD-28, T-18), and how long a hold it is planned for (RS-20). Pure.

Letters wait first, eAU last:

    70 %   warn                     people look, nothing changes
    85 %   more room is needed now  people act, nothing changes
    95 %   letters are deferred     eAU are taken until the reserve of the store itself is reached

Nothing is ever dropped, and nothing is called faulty because there is no room: the sender hears 4xx and comes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from schleuse.scopes import Service

WARN_PERCENT, SCALE_OUT_PERCENT, DEFER_PERCENT = 70, 85, 95  #: HD-28

#: Services that go on until the store itself has no room left; all others wait from DEFER_PERCENT on.
_LAST = frozenset({Service.EAU_INTAKE})


class Level(StrEnum):
    """How full the store is; values are those of the metric."""

    PLENTY = "plenty"
    WARN = "warn"
    SCALE_OUT = "scale_out"
    LETTERS_WAIT = "letters_wait"


@dataclass(frozen=True, slots=True)
class Room:
    """The disk of the store, in octets. reserve: what the store never fills, because repairs need room, too."""

    free: int
    total: int
    reserve: int

    @property
    def percent(self) -> float:
        """How much of what may be filled is filled; 100 and more when the reserve is reached."""
        capacity = self.total - self.reserve
        return 100.0 if capacity <= 0 else (self.total - self.free) * 100 / capacity

    @property
    def level(self) -> Level:
        """The step of the ladder."""
        percent = self.percent
        if percent >= DEFER_PERCENT:
            return Level.LETTERS_WAIT
        if percent >= SCALE_OUT_PERCENT:
            return Level.SCALE_OUT
        return Level.WARN if percent >= WARN_PERCENT else Level.PLENTY


def has_room(level: Level, service: Service) -> bool:
    """Whether mail of this service is taken at this level."""
    return level is not Level.LETTERS_WAIT or service in _LAST


#: RS-20: the planned longest hold, and how long its backlog may take to drain.
PLANNED_HOLD, PLANNED_DRAIN = timedelta(days=14), timedelta(hours=24)
#: HD-05, HD-08: a certificate comes as held original, as its sender's retry, and generated anew: two mails on top.
REPEATS = 2.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes in. per_second: mails on the busiest day. octets: of the store that each of them takes.

    repeats: mails on top of each one, by senders who send again while it is held and when it ends (HD-08).
    """

    per_second: float
    octets: float
    repeats: float = REPEATS

    @property
    def with_repeats(self) -> float:
        """Mails a second that a hold is planned for."""
        return self.per_second * (1 + self.repeats)


@dataclass(frozen=True, slots=True)
class HoldPlan:
    """What the store is planned for (RS-20)."""

    hold: timedelta = PLANNED_HOLD
    drain: timedelta = PLANNED_DRAIN

    def backlog(self, arrival: Arrival) -> float:
        """Mails at the end of the hold (incident.md § 6.7)."""
        return arrival.with_repeats * self.hold.total_seconds()

    def octets(self, arrival: Arrival) -> float:
        """Room that they take."""
        return self.backlog(arrival) * arrival.octets

    def capacity(self, arrival: Arrival) -> float:
        """eAU a second that have to be processed, so that the backlog is gone in time beside live traffic."""
        return arrival.per_second + self.backlog(arrival) / self.drain.total_seconds()

    def drained_in(self, arrival: Arrival, capacity: float) -> timedelta | None:
        """Backlog / (capacity - arrival); None: never, because live traffic takes all there is. capacity: eAU/s."""
        spare = capacity - arrival.per_second
        return timedelta(seconds=self.backlog(arrival) / spare) if spare > 0 else None


def lasts(room: Room, arrival: Arrival, percent: float = 100.0) -> timedelta | None:
    """How long the store takes what comes until so much of it is filled; None: for ever, as nothing comes.

    At 100 percent eAU are deferred, too; the steps before are those of the ladder above.
    """
    left = (room.total - room.reserve) * percent / 100 - (room.total - room.free)
    filling = arrival.with_repeats * arrival.octets
    return timedelta(seconds=min(max(left, 0.0) / filling, _LONG)) if filling > 0 else None


#: A thousand years: what lasts longer is not a figure any more.
_LONG = timedelta(days=365_000).total_seconds()
