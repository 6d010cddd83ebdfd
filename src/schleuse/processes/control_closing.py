"""The closings of this home: what must be proven, how far it is, and the loop that proves it (SW-07, SW-17).

Used by the `control` role, and by commands when that role is dead: what is known stands in files.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.scopes import Direction, Scope, Service
from schleuse.shutdown.closure import ClosureProof, Need, Verdict, effective_at, needs, newest
from schleuse.shutdown.drill_run import Progress
from schleuse.shutdown.probes import Sources, prove_and_keep
from schleuse.shutdown.proofs import Claim, claims, unproven
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.effects import EffectBook, SwitchEffect
from schleuse.switch.log import Accepted
from schleuse.switch.standing import Standing

log = structlog.get_logger()

LOOK_SECONDS = 0.05
#: All states are looked at again so often without a new epoch: an opening in an emergency ends by itself (RS-14).
LOOK_AGAIN_SECONDS = 1.0
#: Between two attempts that proved nothing new, growing.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
#: The hard limit of § 5.2; then it is an alarm, again each time this passes.
PROOF_LIMIT = timedelta(seconds=60)


def all_effects(book: EffectBook, head: Callable[[], int]) -> Callable[[int], list[SwitchEffect]]:
    """Every worker's effects from an epoch on."""

    def effects(epoch: int) -> list[SwitchEffect]:
        return [one for number in range(epoch, head() + 1) for one in book.read(number)]

    return effects


@dataclass(frozen=True, slots=True)
class Closings:
    """atoms: what can be proven on this home (`closure.provable`). folder: `<home>/switch`."""

    switch: LocalSwitch
    atoms: Sequence[Scope]
    folder: Path
    sources: Sources
    now: Now

    @property
    def proofs(self) -> Path:
        """Where proofs are."""
        return self.folder / "proofs"

    def standings(self, scopes: Sequence[Scope] | None = None) -> dict[Scope, Standing]:
        """Of all atoms, or of those that these scopes cover."""
        return {
            atom: self.switch.standing(Service(atom.service), atom.tenant, Direction(atom.direction), atom.path)
            for atom in self.atoms
            if scopes is None or any(scope.covers(atom) for scope in scopes)
        }

    def needed(self, scopes: Sequence[Scope] | None = None) -> list[Need]:
        """What is closed now."""
        return needs(self.standings(scopes))

    def claims(self, now: datetime) -> list[Claim]:
        """How it stands with each."""
        return claims(self.proofs, self.needed(), now)

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
            Need(atom, command.state, epoch, command.id, entry.accepted_at)
            for atom in self.atoms
            if any(scope.covers(atom) for scope in scopes)
        ]
        expected = {name for need in mine for name in self.sources.workers(need.scope)}
        quiet = effective_at(expected, newest(self.sources.effects(epoch), epoch))
        found = claims(self.proofs, mine, self.now())
        if not found or any(one.verdict is not Verdict.PROVEN for one in found):
            return Progress(quiet, None)
        return Progress(quiet, max(one.proven_at for one in found if one.proven_at))

    def seen(self, scopes: Sequence[Scope], epoch: int) -> bool:
        """Whether all workers of these scopes have followed this epoch to its end."""
        expected = {name for atom in self.standings(scopes) for name in self.sources.workers(atom)}
        return effective_at(expected, newest(self.sources.effects(epoch), epoch)) is not None


class Prover:
    """Proves until all is proven, for ever. tell: gets a line for the journal; it may raise Error."""

    def __init__(self, closings: Closings, tell: Callable[[Mapping[str, str | int]], None], now: Now) -> None:
        self._closings = closings
        self._tell = tell
        self._now = now
        self._done: set[tuple[str, int]] = set()
        self._alarmed: datetime | None = None

    async def run(self) -> None:
        """Look, decide, do one step."""
        pause, tried = FIRST_PAUSE, -1
        while True:
            epoch = self._closings.switch.epoch
            if not self._waiting():
                await self._pause(LOOK_AGAIN_SECONDS, epoch)
                continue
            if epoch != tried:
                pause, tried = FIRST_PAUSE, epoch
            progressed = await self.attempt()
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

    def _waiting(self) -> list[Need]:
        return [one for one in self._closings.needed() if (one.text, one.epoch) not in self._done]

    async def _pause(self, seconds: float, epoch: int) -> None:
        """Cut short by a new epoch, whose proof must not wait for that of an old one."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline and self._closings.switch.epoch == epoch:
            await asyncio.sleep(LOOK_SECONDS)

    def _report(self, made: Sequence[ClosureProof], found: Sequence[Claim]) -> None:
        for epoch in sorted({one.epoch for one in made}):
            mine = [one for one in found if one.need.epoch == epoch]
            numbers = {verdict: sum(one.verdict is verdict for one in mine) for verdict in Verdict}
            line: dict[str, str | int] = {
                "act": "switch.proof",
                "epoch": epoch,
                **{verdict.value: number for verdict, number in numbers.items()},
                "raw_hash": digest_of([one for one in made if one.epoch == epoch]),
            }
            log.info("closure.attempt", **{str(name): value for name, value in line.items() if name != "act"})
            try:
                self._tell(line)
            except Error as error:
                log.error("closure.not-told", code=error.code, reason=str(error))
        self._alarm([one for one in found if one.verdict is not Verdict.PROVEN])

    def _alarm(self, open_claims: Sequence[Claim]) -> None:
        late = [one for one in open_claims if one.age is None or one.age > PROOF_LIMIT]
        now = self._now()
        if not late or (self._alarmed is not None and now - self._alarmed < PROOF_LIMIT):
            return
        self._alarmed = now
        ages = [one.age for one in late if one.age is not None]
        log.error(
            "closure.not-proven",
            scopes=len(late),
            first=late[0].need.text,
            age_seconds=int(max(ages).total_seconds()) if ages else -1,
        )


def digest_of(made: Sequence[ClosureProof]) -> str:
    """One SHA-256 for an attempt, in hex."""
    return hashlib.sha256("\n".join(f"{one.id} {one.verdict} {one.raw_hash}" for one in made).encode()).hexdigest()


def is_closing(entry: Accepted) -> bool:
    """Whether it closes something; an epoch that nobody can read does."""
    return entry.signed is None or (not entry.fault and not entry.signed.command.opening)
