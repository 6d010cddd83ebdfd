"""An attempt to prove closings, with a small platform in memory that can fail to close (SW-07, SW-17)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schleuse.scopes import Direction, Scope, ScopeState, Service, atom
from schleuse.shutdown.closure import Answer, Check, Need, Seen, Verdict, What, verdict_of
from schleuse.shutdown.probes import Sources, prove, prove_and_keep
from schleuse.shutdown.proofs import ProofNotKeptError, claims, last_proven, proofs, unproven
from schleuse.switch.effects import SwitchEffect

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IK = "109900011"
DELIVER = atom(Service.EAU_INTAKE, IK, Direction.DELIVER)
PROCESS = atom(Service.EAU_INTAKE, IK, Direction.PROCESS)


def need(scope: Scope, epoch: int = 3) -> Need:
    return Need(scope, ScopeState.HOLD, epoch, f"c{epoch}", NOW - timedelta(seconds=4))


@dataclass
class Platform:
    """Closed in every way, unless a test says otherwise; time passes only when somebody sleeps."""

    answer: Answer | None = Answer.CLOSED
    fence: int = 3
    leak: int = 0  # effects a second
    quiet_after: float = 0.0
    seconds: float = 0.0
    asked: list[Check] = field(default_factory=list)

    async def outside(self, checks: Sequence[Check]) -> Mapping[Check, Seen]:
        self.asked += checks
        return {one: Seen(self.answer, "said") for one in checks}

    async def counts(self, checks: Sequence[Check]) -> Mapping[Check, int | None]:
        return {one: int(self.leak * self.seconds) for one in checks}

    async def fences(self, scopes: Sequence[Scope]) -> Mapping[Scope, Sequence[int]]:
        return {one: [self.fence] for one in scopes}

    def effects(self, epoch: int) -> list[SwitchEffect]:
        quiet = NOW if self.seconds >= self.quiet_after else None
        return [SwitchEffect("worker", epoch, NOW, quiet)]

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def sources(self) -> Sources:
        return Sources(self, self.effects, lambda _: ["worker"], lambda: NOW, "here", self.sleep, lambda: self.seconds)


def verdict(one: Platform, *scopes: Scope) -> Verdict:
    made = asyncio.run(prove([need(scope) for scope in scopes], one.sources()))
    verdicts = {verdict_of(need(scope), made) for scope in scopes}
    assert len(verdicts) == 1
    return verdicts.pop()


def test_what_is_closed_in_every_way_is_proven() -> None:
    assert verdict(Platform(), DELIVER, PROCESS) is Verdict.PROVEN


def test_a_counter_that_still_moves_disproves_the_claim() -> None:
    assert verdict(Platform(leak=3), DELIVER) is Verdict.NOT_PROVEN


def test_a_door_that_still_opens_disproves_the_claim() -> None:
    assert verdict(Platform(answer=Answer.PASSED), DELIVER) is Verdict.NOT_PROVEN


@pytest.mark.parametrize("one", [Platform(answer=None), Platform(fence=2), Platform(quiet_after=60)])
def test_missing_sights_are_inconclusive(one: Platform) -> None:
    assert verdict(one, DELIVER) is Verdict.INCONCLUSIVE


def test_counters_are_looked_at_after_the_workers_became_quiet() -> None:
    """Effects before t_effective are no effects of a closed scope."""
    one = Platform(quiet_after=2)
    assert verdict(one, PROCESS) is Verdict.PROVEN
    assert one.seconds >= 3


def test_each_epoch_has_its_own_record(tmp_path: Path) -> None:
    made = asyncio.run(prove_and_keep(tmp_path, [need(DELIVER, 2), need(PROCESS, 3)], Platform().sources()))
    assert proofs(tmp_path, 2) + proofs(tmp_path, 3) == made
    assert len({one.id for one in made}) == len(made)
    assert {(one.command, one.scope) for one in proofs(tmp_path, 2)} == {("c2", str(DELIVER))}


def test_the_latest_attempt_counts_and_the_first_is_kept(tmp_path: Path) -> None:
    asyncio.run(prove_and_keep(tmp_path, [need(DELIVER)], Platform(answer=None).sources()))
    [claim] = unproven(tmp_path, [need(DELIVER)], NOW)
    assert claim.text == "commanded, not proven (inconclusive)"
    assert claim.age == timedelta(seconds=4)
    asyncio.run(prove_and_keep(tmp_path, [need(DELIVER)], Platform().sources()))
    assert unproven(tmp_path, [need(DELIVER)], NOW) == []
    assert claims(tmp_path, [need(DELIVER)], NOW)[0].proven_at == NOW
    assert len(list((tmp_path / "0000000003").iterdir())) == 2
    texts = [str(DELIVER), str(PROCESS)]
    assert last_proven(tmp_path, texts) == {str(DELIVER): NOW, str(PROCESS): None}


def test_a_proof_of_an_older_closing_says_nothing_about_a_newer_one(tmp_path: Path) -> None:
    asyncio.run(prove_and_keep(tmp_path, [need(DELIVER, 3)], Platform().sources()))
    assert len(unproven(tmp_path, [need(DELIVER, 4)], NOW)) == 1


def test_a_damaged_record_proves_nothing(tmp_path: Path) -> None:
    asyncio.run(prove_and_keep(tmp_path, [need(DELIVER)], Platform().sources()))
    [path] = (tmp_path / "0000000003").iterdir()
    table = json.loads(path.read_bytes())
    table[0]["verdict"] = "certainly"
    path.write_text(json.dumps(table))
    assert len(unproven(tmp_path, [need(DELIVER)], NOW)) == 1


def test_a_disk_that_takes_no_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "0000000003").write_text("a file where the folder should be")
    with pytest.raises(ProofNotKeptError):
        asyncio.run(prove_and_keep(tmp_path, [need(DELIVER)], Platform().sources()))


def test_nothing_is_asked_from_outside_for_a_scope_that_is_only_limited() -> None:
    one = Platform()
    limited = Need(DELIVER, ScopeState.LIMITED, 3, "c3", NOW)
    made = asyncio.run(prove([limited], one.sources()))
    assert [proof.what for proof in made] == [What.WORKERS]
    assert one.asked == []
