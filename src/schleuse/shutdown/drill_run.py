"""Carrying a drill out: each step can be repeated, so that one which a crash cut short goes on where it stopped.

A drill never stays closed because somebody died or because its proof failed: the failure is the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.scopes import Scope
from schleuse.shutdown.drill import DrillPlan, DrillRefusedError, DrillResult, Outcome, check_plan
from schleuse.shutdown.drill_book import DrillBook
from schleuse.shutdown.order import PROOF
from schleuse.switch.documents import Rights, SignedCommand
from schleuse.switch.log import Accepted
from schleuse.switch.standing import Standing

#: From the closing on; beyond the limit of the proof the drill has failed (§ 5.2, § 14).
HOLD_LIMIT = timedelta(seconds=30)
_STEP_SECONDS = 0.05


class Log(Protocol):
    """The part of `SwitchLog` that is needed."""

    def append(self, signed: SignedCommand, now: datetime) -> Accepted: ...

    def read_all(self) -> list[Accepted]: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the closing of an epoch is. quiet_at: t_effective; proven_at: of the last proof. None: not yet."""

    quiet_at: datetime | None
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class Desk:
    """What a drill needs. atoms: the enforced ones and their standing now. prove: one attempt for the drill's scopes;
    nothing may be proven yet. progress: of the drill's scopes since this epoch. reopened: whether all workers have seen
    this epoch. down: names of systems of these scopes that are not ours and do not run."""

    book: DrillBook
    log: Log
    rights: Rights
    now: Now
    standings: Callable[[Sequence[Scope]], Mapping[Scope, Standing]]
    prove: Callable[[Sequence[Scope]], Awaitable[None]]
    progress: Callable[[Sequence[Scope], int], Progress]
    reopened: Callable[[Sequence[Scope], int], bool]
    down: Callable[[Sequence[Scope]], Awaitable[Sequence[str]]]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def run_drill(plan: DrillPlan, desk: Desk) -> DrillResult:
    """Close, prove, open, and keep the result; goes on where a crash has stopped it.

    Raises DrillRefusedError and what `check_plan` raises; then nothing was closed.
    """
    with desk.book.running():
        done = desk.book.result(plan.id)
        if done is not None:
            raise DrillRefusedError(f"the drill {plan.id} has run: {done.outcome}")
        closed = _accepted(desk.log.read_all(), plan.closing.command.id)
        if closed is None:
            check_plan(plan, desk.rights, desk.now())
            _refuse_unless_open(plan, desk)
            if down := await desk.down(plan.scopes):
                raise DrillRefusedError(
                    f"{', '.join(down)} does not run, or its probe takes longer than 1 s to say so; "
                    "a drill could not give it back as it was"
                )
            closed = desk.log.append(plan.closing, desk.now())
        progress = await _proven(plan, closed, desk)
        result = await _open_again(plan, closed, progress, desk)
        desk.book.write_result(result)
        return result


def _refuse_unless_open(plan: DrillPlan, desk: Desk) -> None:
    found = desk.standings(plan.scopes)
    if not found:
        raise DrillRefusedError("nothing on this home enforces these scopes; a drill of them would prove nothing")
    opening = plan.opening.command
    other = [str(scope) for scope, at in found.items() if (at.state, at.limit) != (opening.state, opening.limit)]
    if other:
        raise DrillRefusedError(
            f"this drill begins where all is {opening.state}; {other[0]} and {len(other) - 1} others are not"
        )


async def _proven(plan: DrillPlan, closed: Accepted, desk: Desk) -> Progress:
    deadline = closed.accepted_at + PROOF.limit
    while True:
        progress = desk.progress(plan.scopes, closed.epoch)
        if progress.proven_at is not None or desk.now() >= deadline:
            return progress
        try:
            await desk.prove(plan.scopes)
        except Error:  # a proof that could not be kept is made again
            await desk.sleep(_STEP_SECONDS)
        await desk.sleep(_STEP_SECONDS)


async def _open_again(plan: DrillPlan, closed: Accepted, progress: Progress, desk: Desk) -> DrillResult:
    """Whatever the drill has shown: senders wait for nothing that is only rehearsed."""
    to_hold = progress.quiet_at - closed.accepted_at if progress.quiet_at else None
    to_proof = progress.proven_at - closed.accepted_at if progress.proven_at else None
    scopes = tuple(map(str, plan.scopes))
    result = DrillResult(plan.id, scopes, Outcome.PASSED, closed.epoch, closed.accepted_at, to_hold, to_proof, None, "")
    try:
        opened = desk.log.append(plan.opening, desk.now())
    except Error as error:
        return replace(result, outcome=Outcome.LEFT_CLOSED, why=f"{error.code}: {error}")
    result = replace(result, closed_for=opened.accepted_at - closed.accepted_at)
    still = [
        str(scope) for scope, at in desk.standings(plan.scopes).items() if at.state is not plan.opening.command.state
    ]
    if still:  # an incident closed it meanwhile, which is as it should be
        return replace(result, outcome=Outcome.LEFT_CLOSED, why=f"{len(still)} scopes stay closed: {still[0]}")
    if not await _seen(plan, opened, desk):
        return replace(result, outcome=Outcome.FAILED, why="not every worker has seen the opening")
    if to_proof is None:
        return replace(result, outcome=Outcome.FAILED, why=f"not proven closed within {PROOF.limit.seconds} s")
    if to_hold is None or to_hold > HOLD_LIMIT:
        return replace(result, outcome=Outcome.FAILED, why=f"not quiet within {HOLD_LIMIT.seconds} s")
    return result


async def _seen(plan: DrillPlan, opened: Accepted, desk: Desk) -> bool:
    deadline = opened.accepted_at + HOLD_LIMIT
    while not desk.reopened(plan.scopes, opened.epoch):
        if desk.now() >= deadline:
            return False
        await desk.sleep(_STEP_SECONDS)
    return True


def _accepted(entries: Sequence[Accepted], id: str) -> Accepted | None:
    return next((one for one in entries if one.signed and one.signed.command.id == id), None)
