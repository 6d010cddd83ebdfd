"""The closings of this home: what must be proven, how far it is, and the loop that proves it (SW-07, SW-17).

Used by the `control` role, and by commands when that role is dead: what is known stands in files.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.scopes import Scope
from schleuse.shutdown.closure import ClosureProof, Need, Verdict, effective_at, first_quiet, needs, proof_name
from schleuse.shutdown.drill_run import Progress
from schleuse.shutdown.external import ExternalSystem, SystemStandings, needs_of
from schleuse.shutdown.news import Due, NewsBook
from schleuse.shutdown.order import PROOF
from schleuse.shutdown.probes import Sources, prove, prove_and_keep
from schleuse.shutdown.proofs import Claim, claims, keep, proofs, unproven
from schleuse.switch.copy import LocalSwitch, standing_of
from schleuse.switch.effects import EffectBook, SwitchEffect
from schleuse.switch.log import Accepted
from schleuse.switch.standing import Standing

log = structlog.get_logger()

LOOK_SECONDS = 0.05
SETTLED_NS = 1_000_000_000
#: All states are looked at again so often without a new epoch: an opening in an emergency ends by itself (RS-14).
LOOK_AGAIN_SECONDS = 1.0
#: Between two attempts that proved nothing new, growing.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
RECHECK = timedelta(minutes=5)


class AllEffects:
    """Every worker's effects from an epoch on. What did not change is not read again: a scope may be held for weeks,
    while others are switched hundreds of times.
    """

    def __init__(self, folder: Path, head: Callable[[], int]) -> None:
        self._folder = folder
        self._book = EffectBook(folder)
        self._head = head
        self._known: dict[int, tuple[int, list[SwitchEffect]]] = {}

    def __call__(self, epoch: int) -> list[SwitchEffect]:
        return [one for number in range(epoch, self._head() + 1) for one in self._of(number)]

    def _of(self, number: int) -> list[SwitchEffect]:
        try:
            changed = (self._folder / f"{number:010d}").stat().st_mtime_ns
        except OSError:
            return []
        known = self._known.get(number)
        # A folder that changed within the clock's last ticks may change again without showing it.
        if known is None or known[0] != changed or time.time_ns() - changed < SETTLED_NS:
            known = self._known[number] = (changed, self._book.read(number))
        return known[1]


@dataclass(frozen=True)
class Closings:
    """atoms: what can be proven on this home (`closure.provable`). folder: `<home>/switch`.

    systems: those that are not ours; `ExternalKeeper` proves them, here they are counted.
    """

    switch: LocalSwitch
    atoms: Sequence[Scope]
    folder: Path
    sources: Sources
    now: Now
    systems: Sequence[ExternalSystem] = ()

    @cached_property
    def _theirs(self) -> SystemStandings:
        return SystemStandings.of(self.switch)

    @property
    def proofs(self) -> Path:
        """Where proofs are."""
        return self.folder / "proofs"

    def standings(self, scopes: Sequence[Scope] | None = None) -> dict[Scope, Standing]:
        """Of all atoms and the scopes of systems, or of those that these scopes cover."""
        atoms = {atom: standing_of(self.switch, atom) for atom in _covered(self.atoms, scopes)}
        return atoms | self._of_systems(_covered([one.scope for one in self.systems], scopes))

    def needed(self, scopes: Sequence[Scope] | None = None) -> list[Need]:
        """The atoms that are closed now."""
        return needs({atom: standing_of(self.switch, atom) for atom in _covered(self.atoms, scopes)})

    def stopped(self) -> list[Need]:
        """The systems that must be stopped now."""
        at = self._of_systems([one.scope for one in self.systems])
        return needs_of(self.systems, lambda scope: at[scope])

    def claims(self, now: datetime) -> list[Claim]:
        """How it stands with each, ours and others'."""
        return claims(self.proofs, [*self.needed(), *self.stopped()], now)

    def overdue(self, news: NewsBook, now: datetime) -> list[Due]:
        """Those that wait for information whose time has passed (CM-03)."""
        return [one for one in news.due([*self.needed(), *self.stopped()]) if one.by < now]

    def texts(self) -> list[str]:
        """All whose switch has to be exercised, as proofs name them (SW-15)."""
        return [*map(proof_name, self.atoms), *(proof_name(one.scope, one.name) for one in self.systems)]

    async def prove(self, scopes: Sequence[Scope] | None = None) -> list[ClosureProof]:
        """One attempt for what is not proven yet. Raises ProofNotKeptError."""
        waiting = await asyncio.to_thread(lambda: unproven(self.proofs, self.needed(scopes), self.now()))
        return await prove_and_keep(self.proofs, [one.need for one in waiting], self.sources)

    def progress(self, scopes: Sequence[Scope], epoch: int) -> Progress:
        """How far the closing of this epoch is, whether or not its scopes were opened again since."""
        entry = next((one for one in self.switch.entries() if one.epoch == epoch and one.signed), None)
        if entry is None or entry.signed is None:
            return Progress(None, None)
        command = entry.signed.command
        mine = [
            Need(atom, command.state, epoch, command.id, entry.accepted_at) for atom in _covered(self.atoms, scopes)
        ]
        at = Standing(command.state, epoch, None, command.id, entry.accepted_at)
        mine += [one.need(at) for one in self._systems(scopes) if not command.state.begins]
        quiet = self.quiet_at(scopes, epoch)
        found = claims(self.proofs, mine, self.now())
        if not found or any(one.verdict is not Verdict.PROVEN for one in found):
            return Progress(quiet, None)
        return Progress(quiet, max(one.proven_at for one in found if one.proven_at))

    def seen(self, scopes: Sequence[Scope], epoch: int) -> bool:
        """Whether all workers of these scopes have followed this epoch to its end."""
        return self.quiet_at(scopes, epoch) is not None

    def quiet_at(self, scopes: Sequence[Scope], epoch: int) -> datetime | None:
        """When the last worker of these scopes had followed this epoch to its end."""
        return effective_at(self._workers(scopes), first_quiet(self.sources.effects(epoch), epoch))

    def _of_systems(self, scopes: Sequence[Scope]) -> dict[Scope, Standing]:
        """Scopes of systems may be wider than an atom, so the switch's own folds do not have them."""
        now = self.now()
        return {scope: self._theirs.at(scope, now) for scope in scopes}

    def _systems(self, scopes: Sequence[Scope]) -> list[ExternalSystem]:
        return [one for one in self.systems if any(scope.covers(one.scope) for scope in scopes)]

    def _workers(self, scopes: Sequence[Scope]) -> set[str]:
        """Who has to follow a command for these scopes; a system is its own worker."""
        ours = {name for atom in _covered(self.atoms, scopes) for name in self.sources.workers(atom)}
        return ours | {one.worker for one in self._systems(scopes)}


def _covered(known: Sequence[Scope], scopes: Sequence[Scope] | None) -> list[Scope]:
    """Those that these scopes cover; None: all."""
    return [one for one in known if scopes is None or any(scope.covers(one) for scope in scopes)]


class Prover:
    """Proves until all is proven, for ever, and looks from time to time whether it still is.

    tell: gets a line for the journal; it may raise Error. exempted: whether a person answers for this scope's staying
    open; then its missing proof is no alarm.
    """

    def __init__(
        self,
        closings: Closings,
        tell: Callable[[Mapping[str, str | int]], None],
        exempted: Callable[[Scope], bool],
        now: Now,
    ) -> None:
        self._closings = closings
        self._tell = tell
        self._exempted = exempted
        self._now = now
        self._done: set[tuple[str, int]] = set()
        self._told: dict[int, Mapping[str, str | int]] = {}
        self._alarmed: datetime | None = None
        self._rechecked = now()

    async def run(self) -> None:
        """Look, decide, do one step."""
        pause, tried = FIRST_PAUSE, -1
        while True:
            epoch = self._closings.switch.epoch
            if not self._waiting():
                await self.recheck()
                await self._pause(LOOK_AGAIN_SECONDS, epoch)
                continue
            if epoch != tried:
                pause, tried = FIRST_PAUSE, epoch
            progressed = await self.attempt()
            await self.recheck()  # what is proven does not go unseen because something else never is
            pause = FIRST_PAUSE if progressed else min(pause * 2, LONGEST_PAUSE)
            await self._pause(pause, epoch)

    async def attempt(self) -> bool:
        """One; returns whether something more is proven now."""
        before = len(self._done)
        try:
            made = await self._closings.prove()
        except Error as error:
            log.error("closure.not-kept", code=error.code, reason=str(error))
            return False
        found = await asyncio.to_thread(self._closings.claims, self._now())
        for claim in found:
            if claim.verdict is Verdict.PROVEN:
                self._done.add((claim.need.text, claim.need.epoch))
        self._report(made, found)
        return len(self._done) > before

    async def recheck(self) -> list[str]:
        """What is proven is looked at again each RECHECK: a path that opens behind our back is an alarm (RS-07).

        Returns the scopes that are not closed any more; they are proven anew.
        """
        if not self._done or timedelta(0) <= self._now() - self._rechecked < RECHECK:
            return []
        self._rechecked = self._now()
        needed = [one for one in self._closings.needed() if (one.text, one.epoch) in self._done]
        made = await prove(needed, self._closings.sources)
        broken = [one for one in made if one.verdict is Verdict.NOT_PROVEN]
        for epoch in {one.epoch for one in broken}:
            await asyncio.to_thread(keep, self._closings.proofs, epoch, [one for one in broken if one.epoch == epoch])
        scopes = sorted({one.scope for one in broken})
        if scopes:
            log.error("closure.broken", scopes=len(scopes), first=scopes[0], what=broken[0].what)
        # Systems that are not ours have their own keeper, who looks and says so.
        theirs = await asyncio.to_thread(self._closings.claims, self._now())
        scopes += [one.need.text for one in theirs if one.need.external and one.verdict is not Verdict.PROVEN]
        self._done = {one for one in self._done if one[0] not in scopes}
        return scopes

    def _waiting(self) -> list[Need]:
        """Ours, and systems that are not ours: their keeper proves them, here it is told or is an alarm (SW-17)."""
        wanted = [*self._closings.needed(), *self._closings.stopped()]
        return [one for one in wanted if (one.text, one.epoch) not in self._done]

    async def _pause(self, seconds: float, epoch: int) -> None:
        """Cut short by a new epoch, whose proof must not wait for that of an old one."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline and self._closings.switch.epoch == epoch:
            await asyncio.sleep(LOOK_SECONDS)

    def _report(self, made: Sequence[ClosureProof], found: Sequence[Claim]) -> None:
        theirs = {one.need.text: one.need.epoch for one in found if one.need.external}
        for epoch in sorted({one.epoch for one in made} | set(theirs.values())):
            mine = Counter(one.verdict for one in found if one.need.epoch == epoch)
            numbers: dict[str, str | int] = {verdict.value: mine[verdict] for verdict in Verdict}
            if self._told.get(epoch) == numbers:
                continue
            log.info("closure.attempt", epoch=epoch, **numbers)
            kept = [one for one in proofs(self._closings.proofs, epoch) if theirs.get(one.scope) == epoch]
            digest = digest_of([*(one for one in made if one.epoch == epoch), *kept])
            try:
                self._tell({"act": "switch.proof", "epoch": epoch, **numbers, "raw_hash": digest})
                self._told[epoch] = numbers
            except Error as error:
                log.error("closure.not-told", code=error.code, reason=str(error))
        self._alarm(found)

    def _alarm(self, found: Sequence[Claim]) -> None:
        late = late_claims(found, self._exempted)
        now = self._now()
        # Again each time this passes; a clock that was set back puts nothing off.
        if not late or (self._alarmed is not None and timedelta(0) <= now - self._alarmed < PROOF.limit):
            return
        self._alarmed = now
        ages = [one.age for one in late if one.age is not None]
        log.error(
            "closure.not-proven",
            scopes=len(late),
            first=late[0].need.text,
            age_seconds=int(max(ages).total_seconds()) if ages else -1,
        )


def late_claims(found: Sequence[Claim], exempted: Callable[[Scope], bool]) -> list[Claim]:
    """Those without a proof beyond the hard limit of § 5.2, and without a person who answers for it: an alarm."""
    return [
        one
        for one in found
        if one.verdict is not Verdict.PROVEN
        and (one.age is None or one.age > PROOF.limit)
        and not exempted(one.need.scope)
    ]


def digest_of(made: Sequence[ClosureProof]) -> str:
    """One SHA-256 for an attempt, in hex."""
    return hashlib.sha256("\n".join(f"{one.id} {one.verdict} {one.raw_hash}" for one in made).encode()).hexdigest()


def is_closing(entry: Accepted) -> bool:
    """Whether it closes something; an epoch that nobody can read does."""
    return entry.signed is None or (entry.command is not None and not entry.command.opening)
