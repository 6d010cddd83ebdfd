"""Stops, starts and proves the systems that are not ours; one loop a system, so that none waits for another (SW-08).

    <home>/switch/external/NAME.json     up to which epoch this system was switched, and what was seen of it before

Record, then act: whether a system ran is durable before it is stopped, and who ordered its start before it is started.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.scopes import Scope
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.external import (
    Cause,
    ExternalSystem,
    Record,
    RecordBook,
    Runs,
    SystemStandings,
    Wanted,
    proof_of,
    runs,
    wanted,
)
from schleuse.shutdown.external_start import StartBook, order_of
from schleuse.shutdown.hooks import Action, Outcome, nothing, post, run_program
from schleuse.shutdown.proofs import keep, proofs
from schleuse.switch.documents import Rights
from schleuse.switch.effects import EffectBook, SwitchEffect
from schleuse.switch.standing import Standing

log = structlog.get_logger()

#: What was proven stopped is looked at again so often: somebody may have started it by hand.
LOOK_AGAIN = timedelta(seconds=60)
#: A stop or start that did not work is tried again after this.
TRY_AGAIN = timedelta(seconds=5)
#: Whether it runs before its first stop is asked for so long at most: a closing waits for nothing (SW-01).
LOOK_BEFORE = timedelta(seconds=1)
STEP_SECONDS = 0.1

#: Performs an action: what, name of the step, facts for a hook, timeout. Raises nothing.
Perform = Callable[[Action, str, Mapping[str, str], timedelta], Awaitable[Outcome]]


async def perform(action: Action, step: str, facts: Mapping[str, str], timeout: timedelta) -> Outcome:
    """Run the program, or post to the hook."""
    if isinstance(action, str):
        return await post(action, json.dumps({**facts, "step": step}).encode(), timeout)
    return await run_program(action, timeout, leaves_nothing=step == "probe")


class ExternalKeeper:
    """folder: `<home>/switch`. rights: whose signatures start what nobody knows.

    tell: gets each action for the journal, with its facts. place: where it runs, for the proofs.
    """

    def __init__(
        self,
        systems: Sequence[ExternalSystem],
        standings: SystemStandings,
        folder: Path,
        rights: Rights,
        tell: Callable[[Mapping[str, str | int]], None],
        now: Now,
        place: str,
        perform: Perform = perform,
    ) -> None:
        self._systems = systems
        self._standings = standings
        self._folder = folder
        self._records = RecordBook(folder)
        self._starts = StartBook(folder, rights)
        self._book = EffectBook(folder / "effects")
        self._tell = tell
        self._now = now
        self._place = place
        self._perform = perform
        self._next: dict[str, tuple[tuple[int, bool, Cause, bool], datetime]] = {}  # by name: with this due not before
        self._unwritten: dict[str, Record] = {}  # by name: for which the disk had no room
        self._kept: dict[str, tuple[int, Verdict | None]] = {}  # by name: epoch and verdict of the newest proof
        self.states: dict[str, Runs] = {}

    async def not_running(self, scopes: Sequence[Scope]) -> list[str]:
        """Names of the systems of these scopes that do not run now, or do not say so as soon as a closing would have to
        know: no drill of them begins (SW-15), because what it stops it must be able to give back."""
        now = self._now()
        mine = [one for one in self._systems if any(scope.covers(one.scope) for scope in scopes)]
        looks = (self._do(one.probe, "probe", one, self._standings.at(one.scope, now), LOOK_BEFORE) for one in mine)
        found = await asyncio.gather(*looks)
        return [one.name for one, outcome in zip(mine, found, strict=True) if runs(outcome) is not Runs.RUNNING]

    def unsure(self) -> list[str]:
        """Names of the systems that only two persons start (`Record.waits`)."""
        now = self._now()
        at = {one.name: self._standings.at(one.scope, now) for one in self._systems}
        return [
            one.name
            for one in self._systems
            if self._read(one).waits(at[one.name], self._standings.cause(at[one.name]))
        ]

    async def run(self) -> None:
        """For ever: a system that hangs keeps no other one open."""
        async with asyncio.TaskGroup() as group:
            for one in self._systems:
                group.create_task(self._for_ever(one))

    async def step(self) -> None:
        """Look at each system once, and do what is due. Raises nothing."""
        now = self._now()
        await asyncio.gather(*(self._one(one, self._standings.at(one.scope, now)) for one in self._systems))

    async def _for_ever(self, system: ExternalSystem) -> None:
        while True:
            try:
                await self._cut_by_a_closing(system)
            except Exception as fault:  # whatever it is, it is tried again, and the other roles' closings are proven
                log.error("external.fault", name=system.name, reason=type(fault).__name__)
                await asyncio.sleep(TRY_AGAIN.total_seconds())
            await asyncio.sleep(STEP_SECONDS)

    async def _cut_by_a_closing(self, system: ExternalSystem) -> None:
        """One look; what it does while the system is open, such as a start that hangs, is cut as soon as a closing
        comes (SW-01). A stop is never cut."""
        at = self._standings.at(system.scope, self._now())
        task = asyncio.create_task(self._one(system, at))
        try:
            while not (await asyncio.wait({task}, timeout=STEP_SECONDS))[0]:
                if at.state.begins and not self._standings.at(system.scope, self._now()).state.begins:
                    log.warning("external.cut", name=system.name)
                    return
            task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _one(self, system: ExternalSystem, at: Standing) -> None:
        now, record = self._now(), self._read(system)
        cause = self._standings.cause(at)
        wish = wanted(record, at, cause)
        ordered = wish is Wanted.ASK and self._starts.suffices(order_of(system, at), now)
        key = (at.epoch, at.state.begins, cause, ordered)
        due = self._next.get(system.name)
        # No pause is longer: a clock that was set back since puts nothing off.
        if due is not None and due[0] == key and now < due[1] <= now + LOOK_AGAIN:
            return
        again = TRY_AGAIN
        try:
            match wish:
                case Wanted.STOP:
                    again = LOOK_AGAIN if await self._stop(system, at) else TRY_AGAIN
                case Wanted.START:
                    again = LOOK_AGAIN if await self._start(system, at) else TRY_AGAIN
                case Wanted.LEAVE:
                    self._leave(system, at)
                    again = LOOK_AGAIN
                case Wanted.ASK if ordered:
                    again = LOOK_AGAIN if await self._start_by_order(system, at, record) else TRY_AGAIN
                case Wanted.ASK:
                    await self._ask(system, at, record)
                    again = LOOK_AGAIN
                case Wanted.NOTHING:
                    # Where nobody ordered anything, there is nothing to keep stopped, whatever a damaged record says.
                    kept = record.stopped and (at.epoch > 0 or bool(at.safe))
                    again = LOOK_AGAIN if not kept or await self._look(system, at) else TRY_AGAIN
        except (OSError, Error) as cause:
            log.error("external.not-recorded", name=system.name, reason=type(cause).__name__)
        self._next[system.name] = (key, self._now() + again)

    async def _stop(self, system: ExternalSystem, at: Standing) -> bool:
        """Look, record, stop, probe, and record. Returns whether it is known to be stopped."""
        seen_at = self._now()
        before = self._read(system)
        if not before.stopped:
            looked = await self._do(system.probe, "probe", system, at, LOOK_BEFORE)
            before = Record(before.epoch, True, runs(looked))
            if before.before is Runs.UNKNOWN:  # its keeper hears it now: after the stop nobody can look any more
                log.error("external.unsure", name=system.name, scope=str(system.scope), reason=looked.note)
        # Before the act: after a crash in between it counts as stopped by us, as it was seen.
        try:
            self._write(system, before)
        except OSError as cause:  # nothing waits for a disk (SW-01); until there is room we remember it ourselves
            self._unwritten[system.name] = before
            log.error("external.not-recorded", name=system.name, reason=type(cause).__name__)
        self._told("stop", system, at, await self._do(system.stop, "stop", system, at))
        found = await self._probe(system, at)
        stopped = found is Runs.STOPPED
        quiet = self._now() if stopped else None
        self._book.write(SwitchEffect(system.worker, at.epoch, seen_at, quiet))
        if stopped:
            self._write(system, dataclasses.replace(before, epoch=at.epoch))
        else:
            log.error("external.not-stopped", name=system.name, scope=str(system.scope), found=found)
        return stopped

    async def _start(self, system: ExternalSystem, at: Standing) -> bool:
        outcome = await self._do(system.start, "start", system, at)
        self._told("start", system, at, outcome)
        self.states[system.name] = found = runs(await self._do(system.probe, "probe", system, at))
        if found is not Runs.RUNNING:
            log.error("external.not-started", name=system.name, scope=str(system.scope), found=found)
            return False
        self._follows(system, at)
        return True

    async def _start_by_order(self, system: ExternalSystem, at: Standing, record: Record) -> bool:
        """Two persons have signed it; from now on that counts, whenever their signatures end."""
        who = ", ".join(self._starts.signers(order_of(system, at), self._now()))
        self._write(system, dataclasses.replace(record, ordered=at.epoch))
        self._told("ordered", system, at, nothing(who))
        return await self._start(system, at)

    async def _ask(self, system: ExternalSystem, at: Standing, record: Record) -> None:
        """Tell that two persons are needed, and see whether its own keeper has started it meanwhile."""
        why = "limited before it was started" if record.before is Runs.RUNNING else "nobody knows whether it ran"
        log.error("external.waits", name=system.name, scope=str(system.scope), epoch=at.epoch, reason=why)
        outcome = await self._do(system.probe, "probe", system, at)
        self.states[system.name] = runs(outcome)
        if runs(outcome) is Runs.RUNNING:
            self._told("runs", system, at, outcome)
            self._follows(system, at)

    def _leave(self, system: ExternalSystem, at: Standing) -> None:
        """Whoever keeps the system starts it; the opening is only not in the way any more."""
        self._told("left", system, at, nothing("did not run when it was closed"))
        self._follows(system, at)

    def _follows(self, system: ExternalSystem, at: Standing) -> None:
        now = self._now()
        self._book.write(SwitchEffect(system.worker, at.epoch, now, now))
        self._write(system, Record(at.epoch))

    async def _look(self, system: ExternalSystem, at: Standing) -> bool:
        """Whether what we stopped is still stopped; else it was not proven (RS-07), and is stopped again."""
        found = await self._probe(system, at, only_known=True)
        if found is not Runs.RUNNING:
            return found is Runs.STOPPED
        log.error("external.runs-again", name=system.name, scope=str(system.scope))
        return await self._stop(system, at)

    async def _probe(self, system: ExternalSystem, at: Standing, only_known: bool = False) -> Runs:
        """Ask, and keep what changed as a proof: one that hangs for days must not fill the disk.

        only_known: what nobody knows takes no proof away.
        """
        started = self._now()
        outcome = await self._do(system.probe, "probe", system, at)
        self.states[system.name] = found = runs(outcome)
        folder, need = self._folder / "proofs", system.need(at)
        made = proof_of(need, outcome, self._place, started, self._now())
        if self._kept.get(system.name, (0, None))[0] != at.epoch:
            known = [one.verdict for one in proofs(folder, at.epoch) if one.scope == need.text]
            self._kept[system.name] = (at.epoch, known[-1] if known else None)
        if made.verdict is not self._kept[system.name][1] and not (only_known and found is Runs.UNKNOWN):
            keep(folder, at.epoch, [made])
            self._kept[system.name] = (at.epoch, made.verdict)
        return found

    async def _do(
        self, action: Action, step: str, system: ExternalSystem, at: Standing, at_most: timedelta = timedelta.max
    ) -> Outcome:
        facts = {"name": system.name, "scope": str(system.scope), "state": at.state.value, "epoch": str(at.epoch)}
        return await self._perform(action, step, facts, min(system.timeout, at_most))

    def _told(self, step: str, system: ExternalSystem, at: Standing, outcome: Outcome) -> None:
        log.info(f"external.{step}", name=system.name, epoch=at.epoch, outcome=outcome.note)
        self._tell(
            {
                "act": f"external.{step}",
                "name": system.name,
                "scope": str(system.scope),
                "epoch": at.epoch,
                "outcome": outcome.note,
                "output_sha256": outcome.digest,
            }
        )

    def _read(self, system: ExternalSystem) -> Record:
        return self._unwritten.get(system.name) or self._records.read(system.name)

    def _write(self, system: ExternalSystem, record: Record) -> None:
        self._records.write(system.name, record, self._now())
        self._unwritten.pop(system.name, None)
