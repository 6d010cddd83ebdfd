"""The control role's part of a restart: measure gates, enter what may be entered, abort what must be (RS-06, RS-07).

    look      has all that the plan opened been closed again? then it is in S0, whoever closed it (P-02)
    decide    does a rule say abort? was something changed? is a measurement missing or growing old? may the next stage
              be entered?
    do        one thing, recorded; then look again

It opens nothing by itself: what it appends was signed by two persons, and it can sign closings only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.processes.restarting import Restarts
from schleuse.restart.book import OvertakenError
from schleuse.restart.entering import closed_since, is_over
from schleuse.restart.gates import MEASURED, VALIDITY, Evidence, Result
from schleuse.restart.plan import GateKind, RestartPlan, closes_on_abort, mandate_of
from schleuse.restart.progress import Progress
from schleuse.said import as_it_is
from schleuse.scopes import ScopeState
from schleuse.shutdown.automat import Agreed, Automat, Order
from schleuse.switch.log import Accepted, rules_of

log = structlog.get_logger()

LOOK_SECONDS = 1.0
#: A failed or inconclusive measurement is repeated after this time; a pass when a third of its validity is left.
AGAIN = timedelta(seconds=10)

#: What is measured for the next stage of a plan: blocks, may raise Error.
Measure = Callable[[RestartPlan, Progress], Evidence]
#: Why a stage must be aborted now, or "" (RS-07): a decoy touched, an error rate, a foreign target.
Trouble = Callable[[RestartPlan, Progress], str]
#: Holds what a release had let go and nobody has taken yet; returns how many mails. May raise Error (RS-06).
TakeBack = Callable[[RestartPlan], int]


def nothing_released(_plan: RestartPlan) -> int:
    """For a home without a mail store."""
    return 0


class PlanMandates:
    """`automat.Policies` of restarts: the plan that two persons approved is the agreed policy of its own abort."""

    def __init__(self, restarts: Restarts) -> None:
        self._restarts = restarts

    def valid(self, name: str, now: datetime) -> Agreed | None:
        """See `Policies.valid`. name: of the plan."""
        try:
            at = self._restarts.read(name)
        except Error:
            return None
        if at.plan is None or at.place < 0 or is_over(at, now):
            return None
        return mandate_of(at.plan)


class RestartController:
    """One in the control role. measures: by kind of gate, of MEASURED. automat: None where the platform has no key.

    take_back: after an abort.
    """

    def __init__(
        self,
        restarts: Restarts,
        epochs: Callable[[], Sequence[Accepted]],
        measures: Mapping[GateKind, Measure],
        trouble: Trouble,
        automat: Automat | None,
        now: Now,
        take_back: TakeBack = nothing_released,
    ) -> None:
        self._restarts = restarts
        self._take_back = take_back
        self._told: dict[str, str] = {}  # by plan, so that lasting trouble is one line
        self._epochs = epochs
        self._measures = measures
        self._trouble = trouble
        self._automat = automat
        self._now = now

    async def run(self) -> None:
        """For ever. Looks that take their time, such as a synthetic eAU, keep no abort waiting (T-14)."""
        await asyncio.gather(self._again(self.guard), self._again(self.go_on))

    async def _again(self, work: Callable[[], bool]) -> None:
        while True:
            if not await asyncio.to_thread(work):
                await asyncio.sleep(LOOK_SECONDS)

    def step(self) -> bool:
        """One thing for each restart that needs one; what closes comes first. Returns whether anything was done."""
        return self.guard() or self.go_on()

    def guard(self) -> bool:
        """What leads to S0, or completes it. Trouble with one restart is told and keeps no other waiting."""
        return any([self._tried(name, self._guard) for name in self._restarts.names()])  # noqa: C419

    def go_on(self) -> bool:
        """What leads up."""
        return any([self._tried(name, self._go_on) for name in self._restarts.names()])  # noqa: C419

    def _tried(self, name: str, work: Callable[[str], bool]) -> bool:
        try:
            return work(name)
        except OvertakenError:
            return True  # somebody was faster: look again
        except Error as error:
            if self._told.get(name) != str(error):
                log.error("restart.waits", plan=name, code=error.code, reason=str(error))
            self._told[name] = str(error)
            return False

    def _guard(self, name: str) -> bool:
        at = self._restarts.read(name)
        if at.plan is None:
            return False
        if at.place >= 0 and (self._is_in_s0(name, at) or self._abort(name, at.plan, at)):
            return True
        if not at.backlog_returned:
            self._restarts.returned(name, self._take_back(at.plan))
            return True
        return False

    def _go_on(self, name: str) -> bool:
        at = self._restarts.read(name)
        if at.plan is None or at.aborted is not None or is_over(at, self._now()):
            return False
        if self._restarts.see_change(name) or self._measure(name, at.plan, at):
            return True
        if at.next_stage is None or self._restarts.judged(name)[2]:
            return False
        entered = self._restarts.enter(name)
        stage = at.plan.stages[entered.place].name.value
        log.warning("restart.entered", plan=name, stage=stage, epochs=entered.epochs)
        return True

    def _is_in_s0(self, name: str, at: Progress) -> bool:
        closed = closed_since(at, rules_of(self._epochs()), self._now())
        if closed is None:
            return False
        self._restarts.closed(name, closed)
        log.error("restart.aborted", plan=name, epoch=closed.epoch, by=closed.actor)
        return True

    def _abort(self, name: str, plan: RestartPlan, at: Progress) -> bool:
        """By rule (RS-07). Closed first, recorded afterwards; a crash in between is seen by `closed_since`."""
        reason = "" if is_over(at, self._now()) else self._trouble(plan, at)
        if not reason:
            return False
        if self._automat is None:
            log.error("restart.cannot-abort", plan=name, reason=reason)  # people must, at once
            return False
        id = f"{name}.rule.{plan.version}.{at.place}.{max(at.epochs, default=0)}"
        order = Order(id, self._now(), name, closes_on_abort(plan), ScopeState.HOLD, reason, plan.incident)
        epoch = self._automat.close(order).epoch
        self._restarts.aborted(name, "automat", reason, epoch)
        log.error("restart.aborted", plan=name, epoch=epoch, by="automat", reason=reason)
        return True

    def _measure(self, name: str, plan: RestartPlan, at: Progress) -> bool:
        stage = at.next_stage or at.stage
        wanted = [kind for kind in (stage.gates if stage else ()) if kind in MEASURED and kind in self._measures]
        for kind in wanted:
            last = max((one.at for one in at.evidence if one.kind is kind), default=None)
            if last is not None and not _is_due(kind, at, last, self._now()):
                continue
            try:
                found = self._measures[kind](plan, at)
            except Error as error:  # what cannot be looked at is not known (RS-04)
                found = Evidence(
                    kind, plan.id, Result.INCONCLUSIVE, self._now(), "control", as_it_is(f"{error.code}: {error}")
                )
            if not _says_the_same(found, at):
                self._restarts.found(name, found)
                return True
        return False


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
