"""Systems that are not ours and are switched with their scope: a service, a deployment, a firewall (issue 4 A, SW-08).

    <home>/switch/external/NAME.json     up to which epoch this system was switched, and what came of it

A closing stops it, as often as it takes; only an opening that two persons signed starts it again, and only if we had
stopped it: what was down by itself before stays down. Nothing passes a shell. A system of a wide scope is stopped by a
closing of the whole of it: one insurer's closing does not take away what others use, too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.journal.disk import OsDisk, replace
from schleuse.scopes import Scope
from schleuse.shutdown.closure import METHOD, ClosureProof, Need, Verdict, What
from schleuse.shutdown.hooks import Action, Outcome, nothing, post, run_program
from schleuse.shutdown.proofs import keep
from schleuse.switch.documents import time_text
from schleuse.switch.effects import EffectBook, SwitchEffect
from schleuse.switch.log import Accepted, rules_of
from schleuse.switch.standing import Standing, standing

log = structlog.get_logger()

#: What was proven stopped is looked at again so often: somebody may have started it by hand.
LOOK_AGAIN = timedelta(seconds=60)
#: A stop or start that did not work is tried again after this.
TRY_AGAIN = timedelta(seconds=5)
#: Whether it runs before its first stop is asked for so long at most: a closing waits for nothing (SW-01).
LOOK_BEFORE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ExternalSystem:
    """See `config.External`. drill_window: as of `control.drill_window`; "" for that one."""

    name: str
    scope: Scope
    stop: Action
    start: Action
    probe: Action
    timeout: timedelta
    drill_window: str = ""

    @property
    def worker(self) -> str:
        """As effects name it."""
        return f"external-{self.name}"

    def need(self, at: Standing) -> Need:
        """What has to be proven of it while it is closed."""
        return Need(self.scope, at.state, at.epoch, at.command, at.since, self.name)


class Runs(StrEnum):
    """What a probe says."""

    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


#: Performs an action: what, name of the step, facts for a hook, timeout. Raises nothing.
Perform = Callable[[Action, str, Mapping[str, str], timedelta], Awaitable[Outcome]]


async def perform(action: Action, step: str, facts: Mapping[str, str], timeout: timedelta) -> Outcome:
    """Run the program, or post to the hook."""
    if isinstance(action, str):
        return await post(action, json.dumps({**facts, "step": step}).encode(), timeout)
    return await run_program(action, timeout)


def runs(outcome: Outcome) -> Runs:
    """0 of a program or 2xx of a hook: it runs; 1 or 503: it is stopped; all else nobody knows."""
    if outcome.done:
        return Runs.RUNNING
    return Runs.STOPPED if outcome.code == (503 if outcome.http else 1) else Runs.UNKNOWN


@dataclass(frozen=True, slots=True)
class Record:
    """How far a system follows. epoch: that was carried out to the end; 0: none. stopped: whether it is kept stopped.

    was_down: it did not run before we stopped it, so it is not ours to start. What nobody knew counts as having run: a
    probe that takes longer than LOOK_BEFORE must not leave a system down after every drill.
    """

    epoch: int = 0
    stopped: bool = False
    was_down: bool = False


class Wanted(StrEnum):
    """What is to be done about a system."""

    NOTHING = "nothing"
    STOP = "stop"
    START = "start"
    LEAVE = "leave"  # open again, and it was down before we came


def wanted(record: Record, at: Standing, opened_by_two: bool) -> Wanted:
    """opened_by_two: whether the command that its state comes from is an opening (SW-01, SW-03). Pure."""
    if at.epoch == 0 and not at.safe:
        return Wanted.NOTHING
    if not at.state.begins:
        return Wanted.STOP if record.epoch < at.epoch or not record.stopped else Wanted.NOTHING
    if not record.stopped or not opened_by_two:
        return Wanted.NOTHING
    return Wanted.LEAVE if record.was_down else Wanted.START


def needs_of(systems: Sequence[ExternalSystem], standing: Callable[[Scope], Standing]) -> list[Need]:
    """Those that must be proven stopped. Pure."""
    return [one.need(at) for one in systems if not (at := standing(one.scope)).state.begins]


class ExternalKeeper:
    """folder: `<home>/switch`. entries: the accepted commands. tell: gets each action for the journal, with its facts.

    place: where it runs, for the proofs.
    """

    def __init__(
        self,
        systems: Sequence[ExternalSystem],
        entries: Callable[[], Sequence[Accepted]],
        folder: Path,
        tell: Callable[[Mapping[str, str | int]], None],
        now: Now,
        place: str,
        perform: Perform = perform,
    ) -> None:
        self._systems = systems
        self._entries = entries
        self._folder = folder
        self._book = EffectBook(folder / "effects")
        self._tell = tell
        self._now = now
        self._place = place
        self._perform = perform
        self._next: dict[str, tuple[int, datetime]] = {}  # by name: at this epoch not before
        self._unwritten: dict[str, Record] = {}  # by name: for which the disk had no room
        self.states: dict[str, Runs] = {}

    async def not_running(self, scopes: Sequence[Scope]) -> list[str]:
        """Names of the systems of these scopes that do not run now, or of which nobody knows: no drill of them begins
        (SW-15), because what it stops it must be able to give back."""
        rules, now = rules_of(self._entries()), self._now()
        mine = [one for one in self._systems if any(scope.covers(one.scope) for scope in scopes)]
        looks = (self._do(one.probe, "probe", one, standing(rules, one.scope).at(now)) for one in mine)
        found = await asyncio.gather(*looks)
        return [one.name for one, outcome in zip(mine, found, strict=True) if runs(outcome) is not Runs.RUNNING]

    async def step(self) -> None:
        """Look at each system once, and do what is due. Raises nothing."""
        entries, now = self._entries(), self._now()
        rules = rules_of(entries)
        await asyncio.gather(*(self._one(one, standing(rules, one.scope).at(now), entries) for one in self._systems))

    async def _one(self, system: ExternalSystem, at: Standing, entries: Sequence[Accepted]) -> None:
        record = self._read(system)
        due = self._next.get(system.name, (-1, self._now()))
        if due[0] == at.epoch and self._now() < due[1]:
            return
        again = TRY_AGAIN
        try:
            match wanted(record, at, _is_opening(at, entries)):
                case Wanted.STOP:
                    again = LOOK_AGAIN if await self._stop(system, at) else TRY_AGAIN
                case Wanted.START:
                    again = LOOK_AGAIN if await self._start(system, at) else TRY_AGAIN
                case Wanted.LEAVE:
                    self._leave(system, at)
                    again = LOOK_AGAIN
                case Wanted.NOTHING:
                    again = LOOK_AGAIN if not record.stopped or await self._look(system, at) else TRY_AGAIN
        except (OSError, Error) as cause:
            log.error("external.not-recorded", name=system.name, reason=type(cause).__name__)
        self._next[system.name] = (at.epoch, self._now() + again)

    async def _stop(self, system: ExternalSystem, at: Standing) -> bool:
        """Stop, probe, and record. Returns whether it is known to be stopped."""
        seen_at = self._now()
        before = self._read(system)
        if not before.stopped:
            looked = await self._do(system.probe, "probe", system, at, LOOK_BEFORE)
            before = dataclasses.replace(before, stopped=True, was_down=runs(looked) is Runs.STOPPED)
            if runs(looked) is Runs.UNKNOWN:  # its keeper hears it now: after the stop nobody can look any more
                log.error("external.unsure", name=system.name, scope=str(system.scope), reason=looked.note)
        # Before the act: after a crash in between it counts as stopped by us, so that an opening starts it again.
        try:
            self._write(system, before)
        except OSError as cause:  # nothing waits for a disk (SW-01); until there is room we remember it ourselves
            self._unwritten[system.name] = before
            log.error("external.not-recorded", name=system.name, reason=type(cause).__name__)
        self._told("stop", system, at, await self._do(system.stop, "stop", system, at))
        found = await self._probe(system, at, seen_at)
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

    def _leave(self, system: ExternalSystem, at: Standing) -> None:
        """Whoever keeps the system starts it; the opening is only not in the way any more."""
        self._told("left", system, at, nothing("was down before it was closed"))
        self._follows(system, at)

    def _follows(self, system: ExternalSystem, at: Standing) -> None:
        now = self._now()
        self._book.write(SwitchEffect(system.worker, at.epoch, now, now))
        self._write(system, Record(at.epoch))

    async def _look(self, system: ExternalSystem, at: Standing) -> bool:
        """Whether what we stopped is still stopped; else it is stopped again."""
        found = runs(await self._do(system.probe, "probe", system, at))
        self.states[system.name] = found
        if found is not Runs.RUNNING:
            return found is Runs.STOPPED
        log.error("external.runs-again", name=system.name, scope=str(system.scope))
        return await self._stop(system, at)

    async def _probe(self, system: ExternalSystem, at: Standing, started: datetime) -> Runs:
        outcome = await self._do(system.probe, "probe", system, at)
        self.states[system.name] = found = runs(outcome)
        need = system.need(at)
        keep(self._folder / "proofs", at.epoch, [_proof(need, found, outcome, self._place, started, self._now())])
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
        """Without a readable record nothing was stopped by us, so nothing is started either."""
        if system.name in self._unwritten:
            return self._unwritten[system.name]
        try:
            table = json.loads(self._path(system).read_bytes())
            return Record(int(table["epoch"]), table["stopped"] is True, table.get("was_down") is True)
        except (OSError, ValueError, KeyError, TypeError):
            return Record()

    def _write(self, system: ExternalSystem, record: Record) -> None:
        path = self._path(system)
        path.parent.mkdir(parents=True, exist_ok=True)
        table: dict[str, Any] = {**dataclasses.asdict(record), "at": time_text(self._now())}
        replace(OsDisk(), path, json.dumps(table).encode())
        self._unwritten.pop(system.name, None)

    def _path(self, system: ExternalSystem) -> Path:
        return self._folder / "external" / f"{system.name}.json"


def _is_opening(at: Standing, entries: Sequence[Accepted]) -> bool:
    """Whether the state comes from a command that two persons signed."""
    return any(one.command is not None and one.command.opening and one.epoch == at.epoch for one in entries)


def _proof(
    need: Need, found: Runs, outcome: Outcome, place: str, started: datetime, finished: datetime
) -> ClosureProof:
    verdicts = {Runs.STOPPED: Verdict.PROVEN, Runs.RUNNING: Verdict.NOT_PROVEN, Runs.UNKNOWN: Verdict.INCONCLUSIVE}
    return ClosureProof(
        id=f"{need.epoch}-{int(started.timestamp() * 1000)}-{need.external}",
        command=need.command,
        epoch=need.epoch,
        scope=need.text,
        what=What.EXTERNAL,
        method=METHOD[What.EXTERNAL],
        expected=Runs.STOPPED,
        observed=f"{found}: {outcome.note}",
        attempts=1,
        place=place,
        started_at=started,
        finished_at=finished,
        verdict=verdicts[found],
        raw_hash=outcome.digest,
    )
