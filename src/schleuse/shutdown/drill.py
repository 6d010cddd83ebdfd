"""Drills: a scope is closed for real, proven, measured, and opened again (SW-15, T-22).

    <home>/switch/drills/ID/plan.json       closing and opening, signed together before the drill
    <home>/switch/drills/ID/result.json     what was measured, or why the switch is not usable

The opening is bound to the hash of this drill's closing (`standing.AFTER_DRILL`): it gives back what the drill took
and undoes nothing that an incident closed before or meanwhile. `drill_book` keeps the files, `drill_run` carries out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum

from schleuse.errors import ConflictError, MalformedError
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.documents import (
    Command,
    Kind,
    Limit,
    Reason,
    Rights,
    SignedCommand,
)
from schleuse.switch.standing import AFTER_DRILL, UNKNOWN_TIME, Standing

#: A plan is signed for so long at most: the persons who signed it know what they meant for about a month.
LONGEST_PLAN = timedelta(days=40)


class BadDrillError(MalformedError):
    """The plan of a drill is not one; it is made and signed anew."""

    code = "shutdown.bad-drill"


class DrillRefusedError(ConflictError):
    """The drill may not begin now: its scope is not open, it has run already, or another one runs."""

    code = "shutdown.drill-refused"


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """Both documents; the opening may still wait for its second signature."""

    closing: SignedCommand
    opening: SignedCommand

    @property
    def id(self) -> str:
        return self.closing.command.incident

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return self.closing.command.scopes


class Outcome(StrEnum):
    """How a drill went. left_closed: it could not be opened again, and people must."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_CLOSED = "left_closed"


@dataclass(frozen=True, slots=True)
class DrillResult:
    """epoch: of the closing. to_hold: accepted until the last worker was quiet; to_proof: until all was proven.

    None: it did not come to it. closed_for: from accepted closing to accepted opening. why: of a failure.
    """

    id: str
    scopes: tuple[str, ...]
    outcome: Outcome
    epoch: int
    started_at: datetime
    to_hold: timedelta | None
    to_proof: timedelta | None
    closed_for: timedelta | None
    why: str = ""


def plan_drill(
    id: str,
    scopes: Sequence[Scope],
    state: ScopeState,
    actor: str,
    now: datetime,
    valid: timedelta,
    before: Standing = Standing(),  # noqa: B008  frozen
) -> tuple[Command, Command]:
    """Closing and opening, to be signed: the closing by its actor, the opening by two persons. Raises BadDrillError.

    before: where the scopes stand, which the opening gives back: OPEN, or LIMITED in a stage of a restart (G-OFF).
    """
    if not before.state.begins:
        raise BadDrillError(f"a drill begins where units of work begin; it is {before.state}")
    if state.begins:
        raise BadDrillError(f"a drill closes; {state} closes nothing")
    if not timedelta(0) < valid <= LONGEST_PLAN:
        raise BadDrillError(f"a drill is signed for at most {LONGEST_PLAN.days} days")
    closing = Command(
        id=f"{id}-close",
        scopes=tuple(scopes),
        state=state,
        kind=Kind.DRILL,
        reason=Reason.DRILL,
        actor=actor,
        requested_at=now,
        text="drill of the switch (SW-15)",
        incident=id,
    )
    return closing, _opening(closing, before.state, before.limit, now + valid)


def _opening(closing: Command, state: ScopeState, limit: Limit | None, expires_at: datetime | None) -> Command:
    """What gives back all that this closing takes, and nothing else."""
    return replace(
        closing,
        id=f"{closing.incident}-open",
        state=state,
        limit=limit,
        opening=True,
        expires_at=expires_at,
        with_backlog=True,
        plan=closing.hash,
        stage=AFTER_DRILL,
    )


def check_plan(plan: DrillPlan, rights: Rights, now: datetime) -> None:
    """Raises BadDrillError, NotAuthorisedError, DrillRefusedError (expired) unless both documents suffice."""
    closing, opening = plan.closing.command, plan.opening.command
    expected = _opening(closing, opening.state, opening.limit, opening.expires_at)
    if closing.kind is not Kind.DRILL or closing.opening or closing.id != f"{plan.id}-close":
        raise BadDrillError("the first document of a drill is its closing")
    if replace(opening, actor=closing.actor, requested_at=closing.requested_at) != expected:
        raise BadDrillError("the opening does not give back this drill's closing and nothing else")
    if not opening.state.begins:
        raise BadDrillError(f"a drill gives back what was open, not {opening.state}")
    if opening.expires_at is None or opening.expires_at <= now:
        raise DrillRefusedError("the signatures of the opening have expired; it is signed anew")
    if opening.expires_at - closing.requested_at > LONGEST_PLAN:
        raise BadDrillError(f"a drill is signed for at most {LONGEST_PLAN.days} days")
    rights.check(plan.closing)
    rights.check(plan.opening)


def in_window(window: str, now: datetime) -> bool:
    """window: "02:00-04:00" UTC; one over midnight is meant when its end is before its begin."""
    begin, end = (time.fromisoformat(one) for one in window.split("-"))
    at = now.time().replace(tzinfo=None)
    return begin <= at < end if begin <= end else at >= begin or at < end


def meet(windows: Sequence[str]) -> bool:
    """Whether there is a minute of the day that is in all of these windows."""
    day = UNKNOWN_TIME
    return any(all(in_window(one, day + timedelta(minutes=minute)) for one in windows) for minute in range(1440))


def overdue(last: Mapping[str, datetime | None], days: int, now: datetime) -> list[str]:
    """Scopes that were not switched and proven for so long, or never: such a switch counts as not present (SW-15)."""
    return [text for text, at in last.items() if at is None or now - at > timedelta(days=days)]
