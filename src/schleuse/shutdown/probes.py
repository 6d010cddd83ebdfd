"""One attempt to prove closings: workers first, then two looks at each counter with the probes between them (SW-07).

What is probed is known to the wiring only (`processes/control_probes.py`): this package knows no service. Both the
`control` role and the command line call `prove`; with `control` dead the proof is made afterwards, by whoever is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from schleuse.clock import Now
from schleuse.scopes import Scope
from schleuse.shutdown.closure import (
    METHOD,
    Check,
    ClosureProof,
    Need,
    Seen,
    Verdict,
    What,
    checks,
    effective_at,
    judge_answer,
    judge_count,
    judge_fence,
    judge_workers,
    newest,
    promised,
)
from schleuse.shutdown.proofs import keep, proofs
from schleuse.switch.effects import SwitchEffect

#: How long an attempt waits for workers. Running work may take longer (10 s, SW-10): then the next attempt sees it, and
#: what others have closed meanwhile does not wait for it.
WORKERS_SECONDS = 3.0
#: Between the two looks at a counter, at least: a worker that had not stopped would have done something by then.
WATCHED_SECONDS = 1.0
_STEP_SECONDS = 0.05

_OUTSIDE = frozenset({What.SMTP, What.POP3, What.FEED, What.ANSWERS})
_COUNTED = frozenset({What.EFFECTS, What.RELEASES})


class Probes(Protocol):
    """What the wiring provides. Nothing here raises: what cannot be seen is None."""

    async def outside(self, checks: Sequence[Check]) -> Mapping[Check, Seen]:
        """Ask from outside, in parallel, each with a timeout."""
        ...

    async def counts(self, checks: Sequence[Check]) -> Mapping[Check, int | None]:
        """The counter of each check, at this moment."""
        ...

    async def fences(self, scopes: Sequence[Scope]) -> Mapping[Scope, Sequence[int]]:
        """The epoch of each atom in every database that has a fence for it."""
        ...


#: Names of the workers that enforce an atom.
Workers = Callable[[Scope], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an attempt gets what it knows. effects: every worker's, from this epoch on. place: where we are."""

    probes: Probes
    effects: Callable[[int], Iterable[SwitchEffect]]
    workers: Workers
    now: Now
    place: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Sight:
    """One thing that was seen, judged."""

    check: Check
    expected: str
    observed: str
    verdict: Verdict
    attempts: int = 1


async def prove(needed: Sequence[Need], sources: Sources, *, patience: float = WORKERS_SECONDS) -> list[ClosureProof]:
    """One attempt for all of these atoms, of any epochs. patience: seconds for the workers."""
    started = sources.now()
    by_scope = {need.scope: need for need in needed}
    wanted = [one for need in needed for one in checks(need)]
    epoch = min((need.epoch for need in needed), default=0)
    effects = await _quiet(needed, sources, epoch, patience)
    counted = [one for one in wanted if one.what in _COUNTED]
    asked = [one for one in wanted if one.what in _OUTSIDE]
    began = sources.monotonic()
    before = await sources.probes.counts(counted)
    fences, seen = await asyncio.gather(
        sources.probes.fences([one.scope for one in wanted if one.what is What.FENCE]), sources.probes.outside(asked)
    )
    if counted:
        await sources.sleep(max(0.0, WATCHED_SECONDS - (sources.monotonic() - began)))
    after = await sources.probes.counts(counted)
    sights = [
        _sight(one, by_scope[one.scope], sources.workers(one.scope), effects, before, after, fences, seen)
        for one in wanted
    ]
    finished = sources.now()
    return [
        _proof(number, by_scope[one.check.scope], one, sources.place, started, finished)
        for number, one in enumerate(sights, 1)
    ]


async def prove_and_keep(
    folder: Path, needed: Sequence[Need], sources: Sources, *, patience: float = WORKERS_SECONDS
) -> list[ClosureProof]:
    """An attempt, and its record under `<home>/switch/proofs`. Raises ProofNotKeptError.

    Recorded is each check that is seen for the first time or otherwise than before: a role that is away for days must
    not fill the disk.
    """
    made = await prove(needed, sources, patience=patience) if needed else []
    for epoch in sorted({one.epoch for one in made}):
        await asyncio.to_thread(_keep_changes, folder, epoch, [one for one in made if one.epoch == epoch])
    return made


def _keep_changes(folder: Path, epoch: int, made: Sequence[ClosureProof]) -> None:
    known = {(one.scope, one.what): one.verdict for one in proofs(folder, epoch)}
    changed = [one for one in made if known.get((one.scope, one.what)) is not one.verdict]
    if changed:
        keep(folder, epoch, changed)


async def _quiet(needed: Sequence[Need], sources: Sources, epoch: int, patience: float) -> dict[str, SwitchEffect]:
    """The workers' effects, as soon as all are quiet or our patience ends."""
    expected = sorted({name for need in needed for name in sources.workers(need.scope)})
    deadline = sources.monotonic() + patience
    while True:
        effects = newest(await asyncio.to_thread(lambda: list(sources.effects(epoch))), epoch)
        if effective_at(expected, effects) is not None or not expected or sources.monotonic() >= deadline:
            return effects
        await sources.sleep(_STEP_SECONDS)


def _sight(
    check: Check,
    need: Need,
    workers: Sequence[str],
    effects: Mapping[str, SwitchEffect],
    before: Mapping[Check, int | None],
    after: Mapping[Check, int | None],
    fences: Mapping[Scope, Sequence[int]],
    seen: Mapping[Check, Seen],
) -> _Sight:
    if check.what is What.WORKERS:
        return _workers(check, need, workers, effects)
    if check.what is What.FENCE:
        found = fences.get(check.scope, ())
        observed = ", ".join(map(str, found)) or "no fence"
        return _Sight(check, f"epoch {need.epoch} or later", observed, judge_fence(found, need.epoch))
    if check.what in _COUNTED:
        first, second = before.get(check), after.get(check)
        return _Sight(check, "no effect after all were quiet", f"{first} then {second}", judge_count(first, second))
    expected = promised(check, need.state)
    answer = seen.get(check, Seen(None, "not asked", 0))
    verdict = judge_answer(expected, answer)
    return _Sight(check, expected, f"{answer.answer or 'no answer'}: {answer.text}", verdict, answer.attempts)


def _workers(check: Check, need: Need, workers: Sequence[str], effects: Mapping[str, SwitchEffect]) -> _Sight:
    told = [_told(name, effects.get(name)) for name in workers]
    mine = {name: effects[name] for name in workers if name in effects and effects[name].epoch >= need.epoch}
    return _Sight(check, f"all quiet at epoch {need.epoch}", "; ".join(told), judge_workers(workers, mine))


def _told(name: str, effect: SwitchEffect | None) -> str:
    if effect is None:
        return f"{name}: not seen"
    quiet = "running" if effect.quiet_at is None else effect.quiet_at.isoformat(timespec="milliseconds")
    return f"{name}: epoch {effect.epoch}, quiet {quiet}, cut {effect.cut}, uncertain {len(effect.uncertain)}"


def _proof(number: int, need: Need, sight: _Sight, place: str, started: datetime, finished: datetime) -> ClosureProof:
    return ClosureProof(
        id=f"{need.epoch}-{int(started.timestamp() * 1000)}-{number}",
        command=need.command,
        epoch=need.epoch,
        scope=need.text,
        what=sight.check.what,
        method=METHOD[sight.check.what],
        expected=str(sight.expected),
        observed=sight.observed,
        attempts=sight.attempts,
        place=place,
        started_at=started,
        finished_at=finished,
        verdict=sight.verdict,
        raw_hash=hashlib.sha256(f"{sight.expected}\n{sight.observed}".encode()).hexdigest(),
    )
