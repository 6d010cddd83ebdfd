"""Drills of this home: the desk that carries one out, the scheduler, and how fresh each switch is (SW-15, T-22)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.journal.opening import Json
from schleuse.processes.control_closing import Closings
from schleuse.scopes import Scope
from schleuse.shutdown.drill import DrillPlan, DrillRefusedError, DrillResult, Outcome, check_plan, in_window, overdue
from schleuse.shutdown.drill_book import DrillBook
from schleuse.shutdown.drill_run import Desk, run_drill
from schleuse.shutdown.proofs import last_proven
from schleuse.switch.documents import Rights
from schleuse.switch.log import SwitchLog

log = structlog.get_logger()

SCHEDULE_SECONDS = 5.0
#: A proof that was under way when its scope was opened is written so many epochs later at most. Of older ones only
#: those are looked at that are still closed: a scrape must not count the proofs of ten years.
LATE_EPOCHS = 10
#: How often a stale switch is told again.
ALARM_EVERY = timedelta(days=1)


def windows_of(closings: Closings, window: str) -> Callable[[Sequence[Scope]], list[str]]:
    """The windows in which a drill of these scopes may begin: each system's own, and ours (window) for all else."""

    def windows(scopes: Sequence[Scope]) -> list[str]:
        systems = [one for one in closings.systems if any(scope.covers(one.scope) for scope in scopes)]
        ours = any(scope.covers(atom) for scope in scopes for atom in closings.atoms) or not systems
        return sorted({one.drill_window or window for one in systems} | ({window} if ours else set()))

    return windows


def drill_book(folder: Path) -> DrillBook:
    """folder: `<home>/switch`."""
    return DrillBook(folder / "drills")


def desk(
    closings: Closings,
    switch_log: SwitchLog,
    rights: Rights,
    now: Now,
    down: Callable[[Sequence[Scope]], Awaitable[Sequence[str]]],
) -> Desk:
    """What a drill of this home works with. down: see `Desk`."""

    async def prove(scopes: Sequence[Scope]) -> None:
        await closings.prove(scopes)

    return Desk(
        book=drill_book(closings.folder),
        log=switch_log,
        rights=rights,
        now=now,
        standings=closings.standings,
        prove=prove,
        progress=closings.progress,
        reopened=closings.seen,
        down=down,
    )


class Freshness:
    """When each atom and each system that is not ours was last closed for real and proven.

    Read from the proofs, so it is right whoever made them.
    """

    def __init__(self, closings: Closings, days: int) -> None:
        self._closings = closings
        self._days = days
        self._seen: tuple[int, Sequence[int]] = (-1, ())
        self._last: dict[str, datetime | None] = {}

    def last(self) -> Mapping[str, datetime | None]:
        """By `Need.text`; None: never."""
        head = self._closings.switch.epoch
        open_needs = [*self._closings.needed(), *self._closings.stopped()]
        growing = sorted({*(one.epoch for one in open_needs), *range(max(head - LATE_EPOCHS, 0), head + 1)})
        key = (head, [_files(self._closings.proofs, one) for one in growing])
        if key != self._seen:
            self._last = last_proven(self._closings.proofs, self._closings.texts())
            self._seen = key
        return self._last

    def stale(self, now: datetime) -> list[str]:
        """Those whose switch counts as not present."""
        return overdue(self.last(), self._days, now)


def _files(folder: Path, epoch: int) -> int:
    try:
        return len(os.listdir(folder / f"{epoch:010d}"))
    except OSError:
        return 0


class Scheduler:
    """Runs signed plans in their window, one after the other. windows: of these scopes, UTC; all of them must be."""

    def __init__(
        self,
        desk: Desk,
        windows: Callable[[Sequence[Scope]], Sequence[str]],
        freshness: Freshness,
        tell: Callable[[Mapping[str, Json], bool], None],
        now: Now,
    ) -> None:
        self._desk = desk
        self._windows = windows
        self._freshness = freshness
        self._tell = tell
        self._now = now
        self._told: set[str] = set()
        self._alarmed: datetime | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.step()
            except Error as error:
                log.error("drill.waits", code=error.code, reason=str(error))
            await asyncio.sleep(SCHEDULE_SECONDS)

    async def step(self) -> DrillResult | None:
        """Run the next drill that is due, and tell what is stale. Raises Error."""
        now = self._now()
        if self._alarmed is None or now - self._alarmed > ALARM_EVERY:
            self._alarmed = now
            stale = await asyncio.to_thread(self._freshness.stale, now)
            if stale:
                log.error("drill.stale", scopes=len(stale), first=stale[0])
        for plan in await asyncio.to_thread(lambda: list(self.due(now))):
            try:
                return await self.carry_out(plan)
            except DrillRefusedError as error:  # the others do not wait for it
                self._tell_once(plan.id, error)
        return None

    def due(self, now: datetime) -> Iterator[DrillPlan]:
        """One that a crash cut short goes on at once, in the window or not, and before all others."""
        waiting = [id for id in self._desk.book.ids() if self._desk.book.result(id) is None]
        if not waiting:
            return
        begun = {one.signed.command.id for one in self._desk.log.read_all() if one.signed}
        ready: list[DrillPlan] = []
        for id in waiting:
            try:
                plan = self._desk.book.read_plan(id)
                if plan.closing.command.id in begun:
                    yield plan
                elif all(in_window(one, now) for one in self._windows(plan.scopes)):
                    check_plan(plan, self._desk.rights, now)
                    ready.append(plan)
            except Error as error:
                self._tell_once(id, error)
        yield from ready

    async def carry_out(self, plan: DrillPlan) -> DrillResult:
        """Run it and tell how it went. Raises what `run_drill` raises."""
        result = await run_drill(plan, self._desk)
        tell_result(result, self._tell)
        return result

    def _tell_once(self, id: str, error: Error) -> None:
        if id not in self._told:
            self._told.add(id)
            log.warning("drill.not-ready", drill=id, code=error.code, reason=str(error))


def tell_result(result: DrillResult, tell: Callable[[Mapping[str, Json], bool], None]) -> None:
    """In the log and in the journal; a failure says that the switch is not usable (T-22)."""
    facts: dict[str, Json] = {
        "drill": result.id,
        "outcome": result.outcome.value,
        "epoch": result.epoch,
        "to_hold_ms": _ms(result.to_hold),
        "to_proof_ms": _ms(result.to_proof),
        "why": result.why,
    }
    if result.outcome is Outcome.PASSED:
        log.warning("drill.passed", **facts)
    else:
        log.error("drill.switch-not-usable", **facts)
    tell({"act": "switch.drill", **facts}, result.outcome is Outcome.PASSED)


def _ms(value: timedelta | None) -> int:
    return -1 if value is None else int(value.total_seconds() * 1000)
