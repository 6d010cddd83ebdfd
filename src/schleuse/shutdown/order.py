"""In which order a closing is carried out, and how long each step of it may take (SW-09, SW-10, § 5.2). Pure.

A closing is one command with one epoch: every worker sees all of it at the same moment, whatever it names, and no step
waits for the one before it. The order counts wherever something is done one after the other: the scopes of the command
stand in it, supplier sessions are cut first, foreign systems are stopped and proofs are made along it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from schleuse.errors import MalformedError
from schleuse.scopes import ANY, Direction, Scope, ScopeState, Service


class BadBudgetError(MalformedError):
    """The time for running work does not fit under what ends the process anyway; the operator lowers the budget."""

    code = "shutdown.bad-budget"


class Step(IntEnum):
    """What attackers use first is closed first; accepting is last and preferably stays open as HOLD (SW-09)."""

    ACCESS = 1  #: administration, supplier access, support, and what leaves towards foreign systems
    PROCESS = 2  #: decrypting, processing, and everything about keys
    DELIVER = 3
    READ = 4  #: and write
    ACCEPT = 5


_OF_DIRECTION: Mapping[Direction, Step] = {
    Direction.ADMIN: Step.ACCESS,
    Direction.MAINTENANCE: Step.ACCESS,
    Direction.SUPPORT: Step.ACCESS,
    Direction.PROCESS: Step.PROCESS,
    Direction.DELIVER: Step.DELIVER,
    Direction.READ: Step.READ,
    Direction.WRITE: Step.READ,
    Direction.ACCEPT: Step.ACCEPT,
}


def steps_of(scope: Scope) -> frozenset[Step]:
    """All steps that this scope has a part in."""
    directions = Direction if scope.direction == ANY else (Direction(scope.direction),)
    return frozenset(_step(scope.service, one) for one in directions)


def _step(service: str, direction: Direction) -> Step:
    """Whatever is done with keys comes before other work, unless it is administration."""
    step = _OF_DIRECTION[direction]
    return min(step, Step.PROCESS) if service == Service.KEYS else step


def ordered(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """The scopes of a command as it names them: by their first step, each once."""
    return tuple(sorted(dict.fromkeys(scopes), key=lambda one: min(steps_of(one))))


def by_step(scopes: Sequence[Scope]) -> Iterator[tuple[Step, tuple[Scope, ...]]]:
    """What each step closes, in order: scopes of all directions are taken apart. Together they are the same atoms."""
    apart = [
        Scope(one.service, one.tenant, direction.value, one.path)
        for one in scopes
        for direction in (Direction if one.direction == ANY else (Direction(one.direction),))
    ]
    for step in Step:
        mine = tuple(dict.fromkeys(one for one in apart if steps_of(one) == {step}))
        if mine:
            yield step, mine


def kept(state: ScopeState, scope: Scope) -> bool:
    """Whether what arrives in this scope is still taken in after a closing to this state (HD-02)."""
    return state.accepts and Step.ACCEPT in steps_of(scope)


@dataclass(frozen=True, slots=True)
class Span:
    """A time that a closing may take: target and hard limit of § 5.2."""

    name: str
    target: timedelta
    limit: timedelta

    def judge(self, took: timedelta) -> bool | None:
        """True within the target, None between target and limit, False beyond."""
        if took <= self.target:
            return True
        return None if took <= self.limit else False


#: From the accepted command to each worker's own copy.
STATE = Span("t_state", timedelta(seconds=2), timedelta(seconds=10))
#: From there until nothing new begins.
QUIET = Span("t_quiet", timedelta(seconds=1), timedelta(seconds=5))
#: Until running work has ended or is cut.
DRAIN = Span("t_drain", timedelta(seconds=10), timedelta(seconds=30))
#: Until a probe from outside confirms it.
PROOF = Span("t_proof", timedelta(seconds=30), timedelta(seconds=60))


def whole_budget(units: timedelta) -> timedelta:
    """How long a closing takes at most until the last worker is quiet, given the budget of running units (SW-10)."""
    return STATE.limit + max(QUIET.limit, units)


def check_budget(units: timedelta, killed_after: timedelta) -> None:
    """Running work must end or be cut before the platform kills the process (§ 5.4: 30 s of common orchestrators).

    Raises BadBudgetError.
    """
    if units > DRAIN.limit:
        raise BadBudgetError(f"running work gets at most {DRAIN.limit.seconds} s, found {units.total_seconds():.0f} s")
    if units >= killed_after:
        raise BadBudgetError(
            f"the process is killed {killed_after.total_seconds():.0f} s after its stop; running work needs"
            f" {units.total_seconds():.0f} s and less must be configured"
        )
