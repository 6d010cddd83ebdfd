"""The control role's part of a restart: measure gates, enter what may be entered, abort what must be (RS-06, RS-07).

    look      has anything that the plan opened been closed again? then it is in S0, whoever closed it (P-02)
    decide    does a rule say abort? is a measurement missing or growing old? may the next stage be entered?
    do        one thing, recorded; then look again

It opens nothing by itself: what it appends was signed by two persons, and it can sign closings only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from schleuse.clock import Now
from schleuse.errors import ConflictError, Error
from schleuse.processes.restarting import Restarts
from schleuse.restart.gates import MEASURED, VALIDITY, Evidence, Result
from schleuse.restart.plan import GateKind, RestartPlan
from schleuse.restart.progress import Progress
from schleuse.scopes import Scope, ScopeState
from schleuse.shutdown.automat import Agreed, Automat, Order
from schleuse.switch.documents import Kind
from schleuse.switch.log import Accepted

log = structlog.get_logger()

LOOK_SECONDS = 1.0
TROUBLE_SECONDS = 5.0
#: A failed or inconclusive measurement is repeated after this time; a pass when a third of its validity is left.
AGAIN = timedelta(seconds=10)

#: What is measured for the next stage of a plan: blocks, may raise Error.
Measure = Callable[[RestartPlan, Progress], Evidence]
#: Why a stage must be aborted now, or "" (RS-07): a decoy touched, an error rate, a foreign target.
Trouble = Callable[[RestartPlan, Progress], str]


@dataclass(frozen=True, slots=True)
class Mandate:
    """What an approved plan lets the platform close by itself: what it brings back (EW-06, RS-07)."""

    reference: str
    scopes: Sequence[Scope]
    state: ScopeState = ScopeState.HOLD
    cost: str = "what has arrived waits again; nothing is lost or refused"


class PlanMandates:
    """`automat.Policies` of restarts: the plan that two persons approved is the agreed policy of its own abort."""

    def __init__(self, restarts: Restarts) -> None:
        self._restarts = restarts

    def valid(self, name: str, now: datetime) -> Agreed | None:
        """See `Policies.valid`. name: of the plan."""
        at = self._restarts.all().get(name)
        if at is None or at.plan is None or at.place < 0:
            return None
        return Mandate(f"restart {at.plan.id}@{at.plan.version}", at.plan.scopes)


class RestartController:
    """One in the control role. measures: by kind of gate, of MEASURED. automat: None where the platform has no key."""

    def __init__(
        self,
        restarts: Restarts,
        epochs: Callable[[], Sequence[Accepted]],
        measures: Mapping[GateKind, Measure],
        trouble: Trouble,
        automat: Automat | None,
        now: Now,
    ) -> None:
        self._restarts = restarts
        self._epochs = epochs
        self._measures = measures
        self._trouble = trouble
        self._automat = automat
        self._now = now

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                worked = await asyncio.to_thread(self.step)
            except ConflictError:
                worked = True  # somebody was faster: look again
            except Error as error:
                log.error("restart.waits", code=error.code, reason=str(error))
                await asyncio.sleep(TROUBLE_SECONDS)
                continue
            if not worked:
                await asyncio.sleep(LOOK_SECONDS)

    def step(self) -> bool:
        """One thing for the first restart that needs one. Returns whether anything was done."""
        return any(self._step(name, at) for name, at in self._restarts.all().items() if at.plan is not None)

    def _step(self, name: str, at: Progress) -> bool:
        plan = at.plan
        if plan is None:
            return False
        if at.place >= 0:
            closed = closed_since(plan, at, self._epochs())
            if closed is not None:
                self._restarts.aborted(name, closed.actor, f"closed by {closed.id}", closed.epoch)
                log.error("restart.aborted", plan=name, epoch=closed.epoch, by=closed.actor)
                return True
            reason = self._trouble(plan, at)
            if reason and self._automat is not None:
                order = Order(f"{name}.rule.{at.place}.{max(at.epochs, default=0)}", self._now(), name, plan.scopes,
                              ScopeState.HOLD, reason, plan.incident)  # fmt: skip
                epoch = self._automat.close(order).epoch
                self._restarts.aborted(name, "automat", reason, epoch)
                log.error("restart.aborted", plan=name, epoch=epoch, by="automat", reason=reason)
                return True
        if at.aborted is not None or at.next_stage is None:
            return False
        if self._measure(name, plan, at):
            return True
        _, _, missing = self._restarts.judged(name)
        if missing:
            return False
        entered = self._restarts.enter(name)
        log.warning("restart.entered", plan=name, stage=plan.stages[entered.place].name.value, epochs=entered.epochs)
        return True

    def _measure(self, name: str, plan: RestartPlan, at: Progress) -> bool:
        stage = at.next_stage
        wanted = [kind for kind in (stage.gates if stage else ()) if kind in MEASURED and kind in self._measures]
        for kind in wanted:
            last = max((one.at for one in at.evidence if one.kind is kind), default=None)
            if last is not None and not _is_due(kind, at, last, self._now()):
                continue
            try:
                found = self._measures[kind](plan, at)
            except Error as error:  # what cannot be looked at is not known (RS-04)
                found = Evidence(kind, plan.id, Result.INCONCLUSIVE, self._now(), "control", f"{error.code}: {error}")
            if not _says_the_same(found, at):
                self._restarts.found(name, found)
                return True
        return False


@dataclass(frozen=True, slots=True)
class Closing:
    """A closing of what a plan has opened."""

    id: str
    actor: str
    epoch: int


def closed_since(plan: RestartPlan, at: Progress, epochs: Sequence[Accepted]) -> Closing | None:
    """The first closing of a plan's scopes after its stage was entered; a drill gives back what it took (G-OFF)."""
    after = max(at.epochs, default=0)
    opened = [scope for stage in plan.stages[: at.place + 1] for target in stage.targets for scope in target.scopes]
    for one in epochs:
        if one.epoch <= after or one.signed is None or one.fault:
            continue
        command = one.signed.command
        if command.opening or command.kind is Kind.DRILL:
            continue
        if at.entered_at is not None and one.accepted_at < at.entered_at:
            continue
        if any(scope.meets(mine) for scope in command.scopes for mine in opened):
            return Closing(command.id, command.actor, one.epoch)
    return None


def _is_due(kind: GateKind, at: Progress, last: datetime, now: datetime) -> bool:
    newest = max((one for one in at.evidence if one.kind is kind), key=lambda one: one.at)
    validity = VALIDITY[kind]
    if kind is GateKind.OFF and at.entered_at is not None and newest.at < at.entered_at:
        return True  # it was rehearsed in an earlier stage
    if newest.result is not Result.PASS:
        return now - last >= AGAIN
    return validity is not None and now - last >= validity * 2 / 3


def _says_the_same(found: Evidence, at: Progress) -> bool:
    """An inconclusive look that was inconclusive before is no event: nobody learns anything from it."""
    newest = max((one for one in at.evidence if one.kind is found.kind), key=lambda one: one.at, default=None)
    return (
        newest is not None
        and found.result is not Result.PASS
        and (newest.result, newest.text) == (found.result, found.text)
    )
