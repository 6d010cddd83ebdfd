"""What is still taken when the store fills up: letters wait first, eAU last (HD-28, T-18). Pure.

    70 %   warn                     people look, nothing changes
    85 %   more room is needed now  people act, nothing changes
    95 %   letters are deferred     eAU are taken until the reserve of the store itself is reached

Nothing is ever dropped, and nothing is called faulty because there is no room: the sender hears 4xx and comes again.
"""

from __future__ import annotations

from dataclasses import dataclass
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
