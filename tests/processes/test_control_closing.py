"""The loop that proves closings, over a real log, real files and workers of a test (SW-07, SW-17, § 5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.shutdown.operators import NOW, RIGHTS, Clock, close, new_log, open_again
from tests.shutdown.test_external import SYSTEM, Machine

from schleuse.errors import UnavailableError
from schleuse.processes.control_closing import RECHECK, AllEffects, Closings, Prover
from schleuse.scopes import Scope, parse_scopes
from schleuse.shutdown.closure import Answer, Check, Seen, Verdict
from schleuse.shutdown.external import ExternalSystem, SystemStandings
from schleuse.shutdown.external_keeper import ExternalKeeper
from schleuse.shutdown.probes import Sources
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.effects import EffectBook, SwitchEffect

EAU = parse_scopes("eau_intake")
ATOMS = parse_scopes("eau_intake/109900011/deliver/-") + parse_scopes("eau_intake/109900022/deliver/-")


class Site:
    """A home whose probes all see what `answer` says; every worker follows when a test lets it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "switch"
        self.log = new_log(self.folder / "log")
        self.book = EffectBook(self.folder / "effects")
        self.clock = Clock()
        self.answer: Answer | None = Answer.CLOSED
        self.told: list[Mapping[str, str | int]] = []
        self.trail_full = False
        self.exempt: set[Scope] = set()
        self.seconds = 0.0
        self.restart()

    def restart(self, *systems: ExternalSystem) -> None:
        switch = LocalSwitch(self.log, self.folder / "copies" / "control.json", self.clock)
        sources = Sources(
            self,
            AllEffects(self.folder / "effects", lambda: switch.epoch),
            lambda _: ["desk"],
            self.clock,
            "here",
            self._sleep,
            lambda: self.seconds,
        )
        self.closings = Closings(switch, ATOMS, self.folder, sources, self.clock, systems)
        self.prover = Prover(self.closings, self._tell, lambda scope: scope in self.exempt, self.clock)

    def follow(self, epoch: int, after: float = 1) -> None:
        at = self.clock() + timedelta(seconds=after)
        self.book.write(SwitchEffect("desk", epoch, at, at))

    def attempt(self) -> bool:
        return asyncio.run(self.prover.attempt())

    def verdicts(self) -> set[Verdict]:
        return {one.verdict for one in self.closings.claims(self.clock())}

    async def _sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 0.05)

    def _tell(self, facts: Mapping[str, str | int]) -> None:
        if self.trail_full:
            raise UnavailableError("no room")
        self.told.append(facts)

    async def outside(self, checks: Sequence[Check]) -> Mapping[Check, Seen]:
        return {one: Seen(self.answer, "") for one in checks}

    async def counts(self, checks: Sequence[Check]) -> Mapping[Check, int | None]:
        return dict.fromkeys(checks, 5)

    async def fences(self, scopes: Sequence[Scope]) -> Mapping[Scope, Sequence[int]]:
        return {one: [self.closings.switch.epoch] for one in scopes}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_closing_is_proven_and_told(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    assert site.attempt()
    assert site.verdicts() == {Verdict.PROVEN}
    assert [(one["epoch"], one["proven"]) for one in site.told] == [(1, 2)]


def test_what_is_proven_is_not_asked_again_also_after_a_crash(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    site.attempt()
    site.restart()
    site.attempt()
    assert len(site.told) == 1


def test_only_what_is_missing_is_tried_again(site: Site) -> None:
    close(site.log, "eau_intake/109900011")
    site.follow(1)
    site.attempt()
    close(site.log, "eau_intake/109900022", "d")
    site.follow(2)
    site.attempt()
    assert [one["epoch"] for one in site.told] == [1, 2]
    assert site.verdicts() == {Verdict.PROVEN}


def test_a_closing_without_proof_is_an_alarm_after_a_minute(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    site.answer = None
    with capture_logs() as early:
        site.attempt()
    site.clock.forward(61)
    with capture_logs() as late:
        site.attempt()
        site.attempt()
    assert "closure.not-proven" not in [one["event"] for one in early]
    [alarm] = [one for one in late if one["event"] == "closure.not-proven"]
    assert (alarm["scopes"], alarm["age_seconds"]) == (2, 61)


def test_a_trail_that_is_full_does_not_stop_proofs(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    site.trail_full = True
    assert site.attempt()
    assert site.verdicts() == {Verdict.PROVEN}


def test_time_to_hold_and_to_proof_are_measured_from_the_acceptance(site: Site) -> None:
    """§ 14; right also when its scopes are open again."""
    close(site.log, "eau_intake")
    assert site.closings.progress(EAU, 1).quiet_at is None
    site.follow(1, after=2)
    assert site.closings.progress(EAU, 1).quiet_at == NOW + timedelta(seconds=2)
    site.clock.forward(7)
    site.attempt()
    open_again(site.log, "eau_intake")
    progress = site.closings.progress(EAU, 1)
    assert (progress.quiet_at, progress.proven_at) == (NOW + timedelta(seconds=2), NOW + timedelta(seconds=7))


def test_an_epoch_that_is_none_has_no_progress(site: Site) -> None:
    assert site.closings.progress(EAU, 9).quiet_at is None


def test_the_opening_is_seen_when_every_worker_has_followed_it(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    open_again(site.log, "eau_intake")
    assert not site.closings.seen(EAU, 2)
    site.follow(2)
    assert site.closings.seen(EAU, 2)
    assert site.closings.needed() == []


def test_attempts_that_see_the_same_leave_no_further_record(site: Site) -> None:
    """A role that is away for days fills neither disk nor journal."""
    close(site.log, "eau_intake")
    site.answer = None
    for _ in range(5):
        site.attempt()
    assert len(list((site.folder / "proofs").rglob("*.json"))) == 1
    assert len(site.told) == 1
    site.follow(1)
    site.answer = Answer.CLOSED
    site.attempt()
    assert site.verdicts() == {Verdict.PROVEN}
    assert len(site.told) == 2


def test_a_path_that_opens_after_the_proof_is_an_alarm(site: Site) -> None:
    """RS-07."""
    close(site.log, "eau_intake")
    site.follow(1)
    site.attempt()
    assert asyncio.run(site.prover.recheck()) == []  # not yet due
    site.answer = Answer.PASSED
    site.clock.forward(RECHECK.total_seconds())
    with capture_logs() as logs:
        assert len(asyncio.run(site.prover.recheck())) == 2
    assert "closure.broken" in [one["event"] for one in logs]
    assert site.verdicts() == {Verdict.NOT_PROVEN}
    site.answer = Answer.CLOSED
    assert site.attempt()
    assert site.verdicts() == {Verdict.PROVEN}


def test_a_clock_that_is_set_back_puts_off_no_look(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    site.clock.forward(86_400)
    site.restart()  # begins while the clock is a day ahead
    site.attempt()
    site.answer = Answer.ACCEPTED
    site.clock.forward(-86_400)
    assert len(asyncio.run(site.prover.recheck())) == 2


def test_a_role_that_restarts_during_a_look_is_no_alarm_and_leaves_no_record(site: Site) -> None:
    close(site.log, "eau_intake")
    site.follow(1)
    site.attempt()
    site.answer = None
    site.clock.forward(RECHECK.total_seconds())
    assert asyncio.run(site.prover.recheck()) == []
    assert site.verdicts() == {Verdict.PROVEN}


def test_what_a_person_answers_for_is_no_alarm(site: Site) -> None:
    """Exception of § 5.3: it is still not shown as off."""
    close(site.log, "eau_intake")
    site.exempt = set(ATOMS)
    site.answer = None
    site.clock.forward(61)
    with capture_logs() as logs:
        site.attempt()
    assert "closure.not-proven" not in [one["event"] for one in logs]
    assert site.verdicts() == {Verdict.INCONCLUSIVE}


def keeper(site: Site, machine: Machine) -> ExternalKeeper:
    switch = site.closings.switch
    return ExternalKeeper(
        [SYSTEM], SystemStandings.of(switch), site.folder, RIGHTS, lambda _: None, site.clock, "here", machine
    )


def test_a_closing_of_others_systems_alone_is_told_and_is_an_alarm_until_it_is_proven(site: Site) -> None:
    """SW-07, SW-08, SW-17: nothing of ours is in its scope, and still it is commanded and not proven."""
    machine = Machine()
    machine.stuck = True
    site.restart(SYSTEM)
    close(site.log, "payments_support")
    asyncio.run(keeper(site, machine).step())
    site.attempt()
    assert [(one["epoch"], one["proven"], one["not_proven"]) for one in site.told] == [(1, 0, 1)]
    site.clock.forward(61)
    site.restart(SYSTEM)
    with capture_logs() as logs:
        site.attempt()
    [alarm] = [one for one in logs if one["event"] == "closure.not-proven"]
    assert (alarm["scopes"], alarm["first"]) == (1, "payments_support [payments]")
    machine.stuck = False
    asyncio.run(keeper(site, machine).step())
    assert site.attempt()
    assert site.verdicts() == {Verdict.PROVEN}
    assert [(one["proven"], one["not_proven"]) for one in site.told] == [(0, 1), (0, 1), (1, 0)]
    assert len({str(one["raw_hash"]) for one in site.told}) == 2  # of what was seen, which a restart does not change


def ours_and_theirs_are_closed(site: Site) -> None:
    """By an epoch each, and one attempt was made."""
    site.restart(SYSTEM)
    close(site.log, "eau_intake")
    site.follow(1)
    close(site.log, "payments_support", "d")
    site.follow(2)
    site.attempt()


def test_a_system_of_another_s_is_waited_for_beside_ours_and_told_when_it_is_proven_later(site: Site) -> None:
    machine = Machine()
    ours_and_theirs_are_closed(site)
    asyncio.run(keeper(site, machine).step())
    site.attempt()
    site.attempt()
    assert [(one["epoch"], one["proven"], one["inconclusive"]) for one in site.told] == [
        (1, 2, 0),
        (2, 0, 1),
        (2, 1, 0),
    ]


def test_a_system_that_never_had_a_keeper_is_an_alarm(site: Site) -> None:
    """SW-17: such as while the keeper's disk is full, or with no keeper at all."""
    site.restart(SYSTEM)
    close(site.log, "payments_support")
    site.clock.forward(61)
    with capture_logs() as logs:
        site.attempt()
    assert "closure.not-proven" in [one["event"] for one in logs]
    assert site.verdicts() == {Verdict.INCONCLUSIVE}


def test_the_prover_looks_while_only_a_system_of_another_s_is_unproven(site: Site) -> None:
    """The loop itself: what it waits for is not only ours."""
    site.restart(SYSTEM)
    close(site.log, "payments_support")
    site.clock.forward(61)

    async def run() -> None:
        task = asyncio.create_task(site.prover.run())
        async with asyncio.timeout(60):
            while not site.told:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run())
    assert [(one["epoch"], one["inconclusive"]) for one in site.told] == [(1, 1)]


def test_a_system_of_another_s_that_runs_again_is_not_done_with(site: Site) -> None:
    """RS-07: and what cannot be stopped again is told as not proven."""
    machine = Machine()
    site.restart(SYSTEM)
    close(site.log, "payments_support")
    its = keeper(site, machine)
    asyncio.run(its.step())
    site.attempt()
    machine.running = machine.stuck = True
    site.clock.forward(301)
    asyncio.run(its.step())
    assert asyncio.run(site.prover.recheck()) == ["payments_support [payments]"]
    site.attempt()
    assert [(one["proven"], one["not_proven"]) for one in site.told] == [(1, 0), (0, 1)]


def test_what_is_proven_is_rechecked_though_something_else_is_not(site: Site) -> None:
    ours_and_theirs_are_closed(site)
    site.answer = Answer.PASSED
    site.clock.forward(301)
    assert asyncio.run(site.prover.recheck())[:2] == [str(one) for one in ATOMS]
