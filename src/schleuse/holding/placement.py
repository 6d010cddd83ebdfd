"""Where a mail goes that arrives for one recipient: taken, held or deferred (HD-01, HD-02, HD-03). Pure.

One mail may go to several insurers on the same port, so each recipient gets its own answer. Whatever is off, the
answer is never "your document is wrong": there is no fourth outcome, and both reasons to defer are 4xx on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from schleuse.holding.capacity import Level, has_room
from schleuse.scopes import ScopeState, Service
from schleuse.switch.standing import Standing


class Why(StrEnum):
    """Why a recipient is deferred; values are those of the metric."""

    SWITCH = "switch"  #: § 6.5: "temporarily closed for security reasons"
    ROOM = "room"  #: HD-28


@dataclass(frozen=True, slots=True)
class Taken:
    """It is accepted and goes on at once. epoch: of the last command that concerned the scope, 0 if none did."""

    state: ScopeState
    epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """It is accepted and kept until people release it."""

    state: ScopeState
    epoch: int


@dataclass(frozen=True, slots=True)
class Deferred:
    """It is not accepted; the sender's machine tries again by itself."""

    why: Why
    epoch: int


Placement = Taken | Held | Deferred


def place(service: Service, standing: Standing, level: Level) -> Placement:
    """Decide for one recipient, without opening the mail (HD-22).

    standing: of the scope (service, insurer, accept) at this moment. level: of the store.
    """
    match standing.state:
        case ScopeState.DEFER | ScopeState.CLOSED:
            return Deferred(Why.SWITCH, standing.epoch)
        case ScopeState.OPEN | ScopeState.LIMITED | ScopeState.DRAIN | ScopeState.HOLD as state:
            if not has_room(level, service):
                return Deferred(Why.ROOM, standing.epoch)
            return (Held if state is ScopeState.HOLD else Taken)(state, standing.epoch)
        case _:
            assert_never(standing.state)
