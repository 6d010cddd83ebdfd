"""Drills: closed for real, measured, opened by what two persons signed before (SW-15, T-22)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.shutdown.operators import CLOSER, KEYS, NOW, OPENERS, RIGHTS, Clock, close, new_log, signed

from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.shutdown.drill import (
    BadDrillError,
    DrillPlan,
    DrillRefusedError,
    Outcome,
    check_plan,
    in_window,
    meet,
    overdue,
    plan_drill,
)
from schleuse.shutdown.drill_book import DrillBook
from schleuse.shutdown.drill_run import Desk, Progress, run_drill
from schleuse.switch.documents import Kind, Limit, NotAuthorisedError, Role, sign
from schleuse.switch.standing import Standing, standing

EAU = parse_scopes("eau_intake/109900011")
ATOMS = parse_scopes("eau_intake/109900011/process/-") + parse_scopes("eau_intake/109900011/deliver/-")
DAY = timedelta(days=1)


def plan(id: str = "d1", openers: Sequence[tuple[str, Role]] = OPENERS) -> DrillPlan:
    closing, opening = plan_drill(id, EAU, ScopeState.HOLD, "officer", NOW, 30 * DAY)
    return DrillPlan(signed(closing, CLOSER), signed(opening, openers))


class Site:
    """A switch log on disk and workers that are quiet after a second, unless a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.log = new_log(folder / "log")
        self.book = DrillBook(folder / "drills")
        self.clock = Clock()
        self.quiet_after = 1.0
        self.proof_after = 3.0
        self.workers_follow = True
        self.meanwhile: Callable[[], object] = lambda: None
        self.attempts = 0
        self.down: list[str] = []

    def desk(self) -> Desk:
        return Desk(
            self.book,
            self.log,
            RIGHTS,
            self.clock,
            self.standings,
            self.prove,
            self.progress,
            lambda _scopes, _epoch: self.workers_follow,
            self.looks,
            self.sleep,
        )

    def standings(self, scopes: Sequence[Scope]) -> Mapping[Scope, Standing]:
        rules = [rule for one in self.log.read_all() if (rule := one.rule)]
        return {one: standing(rules, one) for one in ATOMS if any(scope.covers(one) for scope in scopes)}

    async def looks(self, scopes: Sequence[Scope]) -> Sequence[str]:
        return self.down

    async def prove(self, scopes: Sequence[Scope]) -> None:
        self.attempts += 1
        self.meanwhile()

    def progress(self, scopes: Sequence[Scope], epoch: int) -> Progress:
        began = self.log.read_all()[epoch - 1].accepted_at
        times = [began + timedelta(seconds=one) for one in (self.quiet_after, self.proof_after)]
        quiet, proven = (one if one <= self.clock() else None for one in times)
        return Progress(quiet, proven)

    async def sleep(self, seconds: float) -> None:
        self.clock.forward(1)

    def run(self, one: DrillPlan | None = None) -> Outcome:
        return asyncio.run(run_drill(one or plan(), self.desk())).outcome

    @property
    def states(self) -> set[ScopeState]:
        return {at.state for at in self.standings(EAU).values()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_drill_closes_for_real_measures_and_opens_again(site: Site) -> None:
    assert site.run() is Outcome.PASSED
    assert site.states == {ScopeState.OPEN}
    result = site.book.result("d1")
    assert result is not None
    assert (result.to_hold, result.to_proof) == (timedelta(seconds=1), timedelta(seconds=3))
    assert result.closed_for == timedelta(seconds=3)
    assert [one.signed.command.kind for one in site.log.read_all() if one.signed] == ["drill", "drill"]


def test_what_is_never_proven_is_a_switch_that_is_not_usable_and_is_opened_all_the_same(site: Site) -> None:
    """T-22: else alarm."""
    site.proof_after = 1000
    assert site.run() is Outcome.FAILED
    assert site.states == {ScopeState.OPEN}


def test_workers_that_do_not_become_quiet_in_time_fail_it(site: Site) -> None:
    site.quiet_after, site.proof_after = 40, 41
    assert site.run() is Outcome.FAILED


def test_workers_that_do_not_come_back_fail_it(site: Site) -> None:
    site.workers_follow = False
    assert site.run() is Outcome.FAILED


def test_an_incident_during_the_drill_stays_closed(site: Site) -> None:
    site.meanwhile = lambda: close(site.log, "eau_intake", "incident")
    assert site.run() is Outcome.LEFT_CLOSED
    assert site.states == {ScopeState.HOLD}


def test_it_does_not_begin_where_something_is_held(site: Site) -> None:
    close(site.log, "eau_intake/109900011/deliver", "incident")
    with pytest.raises(DrillRefusedError, match="begins where all is OPEN"):
        site.run()
    assert len(site.log.read_all()) == 1


def test_it_does_not_begin_where_a_system_of_somebody_else_is_down(site: Site) -> None:
    """What was down by itself the drill could not give back, and would not open."""
    site.down = ["payments"]
    with pytest.raises(DrillRefusedError, match="payments does not run"):
        site.run()
    assert site.log.read_all() == []


@pytest.mark.parametrize(
    ("windows", "found"),
    [
        (["02:00-04:00", "03:59-05:00"], True),
        (["02:00-04:00", "04:00-05:00"], False),
        (["22:00-02:00", "01:00-03:00"], True),
    ],
)
def test_a_drill_needs_a_minute_that_is_in_all_its_windows(windows: list[str], found: bool) -> None:
    assert meet(windows) is found


def test_in_a_stage_of_a_restart_it_gives_back_the_limit(site: Site) -> None:
    """G-OFF: what is rehearsed in a canary is a canary again, with its limit."""
    close(site.log, "eau_intake/109900011")
    limited = replace(plan().opening.command, id="stage", state=ScopeState.LIMITED, limit=Limit(per_hour=100))
    stage = replace(limited, kind=Kind.RECOVERY, basis=1, plan="", stage="S3", with_backlog=False)
    site.log.append(signed(stage, OPENERS), site.clock())
    before = site.standings(EAU)[ATOMS[0]]
    assert (before.state, before.limit) == (ScopeState.LIMITED, Limit(per_hour=100))
    closing, opening = plan_drill("d9", EAU, ScopeState.HOLD, "officer", NOW, 30 * DAY, before)
    made = DrillPlan(signed(closing, CLOSER), signed(opening, OPENERS))
    assert asyncio.run(run_drill(made, site.desk())).outcome is Outcome.PASSED
    after = site.standings(EAU)[ATOMS[0]]
    assert (after.state, after.limit) == (before.state, before.limit)


def test_others_may_switch_between_signing_and_running(site: Site) -> None:
    close(site.log, "kim_mail", "elsewhere")
    assert site.run() is Outcome.PASSED


def test_it_works_directly_after_a_failed_change_of_the_switch(site: Site) -> None:
    """T-22: an epoch without authority changes nothing, and the drill after it works."""
    good = close(site.log, "kim_mail", "x")
    forged = good.data.replace(b'"value":"', b'"value":"00', 1).replace(b'"epoch":1', b'"epoch":2')
    forged = forged.replace(b"0" * 64, good.digest.encode())
    assert site.log.restore(2, forged)
    assert site.log.read_all()[1].fault
    assert site.run() is Outcome.PASSED


def test_it_runs_once(site: Site) -> None:
    site.run()
    with pytest.raises(DrillRefusedError, match="has run"):
        site.run()


def test_one_that_a_crash_cut_short_goes_on_and_opens(site: Site) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    site.meanwhile = crash
    with pytest.raises(KeyboardInterrupt):
        site.run()
    assert site.states == {ScopeState.HOLD}
    site.meanwhile = lambda: None
    assert site.run() is Outcome.PASSED
    assert site.states == {ScopeState.OPEN}


def test_a_crash_after_the_opening_opens_nothing_twice(site: Site) -> None:
    site.log.append(plan().closing, NOW)
    site.log.append(plan().opening, NOW)
    assert site.run() is Outcome.PASSED
    assert len(site.log.read_all()) == 2


def test_an_opening_that_has_expired_meanwhile_leaves_it_to_people(site: Site) -> None:
    site.log.append(plan().closing, NOW)
    site.clock.forward(40 * 86_400)
    assert site.run() is Outcome.LEFT_CLOSED
    assert site.states == {ScopeState.HOLD}


def test_two_drills_at_once_are_refused(site: Site) -> None:
    with site.book.running(), pytest.raises(DrillRefusedError, match="another drill"):
        site.run()


def test_one_person_cannot_plan_the_opening_of_a_drill_alone(site: Site) -> None:
    """SW-01, RO-01: found before anything is closed."""
    with pytest.raises(NotAuthorisedError):
        site.run(plan(openers=CLOSER))
    assert site.log.read_all() == []


def test_the_second_person_signs_later(site: Site) -> None:
    site.book.write_plan(plan(openers=CLOSER))
    opening = site.book.read_plan("d1").opening.command
    site.book.add_signature("d1", sign(opening, "releaser", Role.RELEASER, KEYS["releaser"]))
    check_plan(site.book.read_plan("d1"), RIGHTS, NOW)
    assert site.run(site.book.read_plan("d1")) is Outcome.PASSED


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": parse_scopes("eau_intake")},
        {"plan": "0" * 64},
        {"stage": "S9"},
        {"incident": "d2"},
        {"with_backlog": False},
        {"closes_at": NOW + DAY},
    ],
)
def test_an_opening_that_is_more_than_the_way_back_of_this_drill_is_none(change: Mapping[str, object]) -> None:
    one = plan()
    wider = signed(replace(one.opening.command, **change), OPENERS)  # type: ignore[arg-type]
    with pytest.raises(BadDrillError):
        check_plan(replace(one, opening=wider), RIGHTS, NOW)


def test_an_expired_plan_is_signed_anew() -> None:
    with pytest.raises(DrillRefusedError, match="expired"):
        check_plan(plan(), RIGHTS, NOW + 31 * DAY)
    with pytest.raises(BadDrillError, match="at most"):
        plan_drill("d1", EAU, ScopeState.HOLD, "officer", NOW, 60 * DAY)


def test_a_drill_closes_something() -> None:
    with pytest.raises(BadDrillError, match="closes nothing"):
        plan_drill("d1", EAU, ScopeState.OPEN, "officer", NOW, DAY)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{text}:00Z")


def test_the_window_may_pass_midnight() -> None:
    assert in_window("02:00-04:00", at("02:00"))
    assert not in_window("02:00-04:00", at("04:00"))
    assert in_window("23:00-01:00", at("00:30"))
    assert not in_window("23:00-01:00", at("12:00"))


def test_a_switch_that_was_not_used_for_a_month_counts_as_not_present() -> None:
    last = {"old": NOW - 32 * DAY, "fresh": NOW - 31 * DAY, "never": None}
    assert overdue(last, 31, NOW) == ["old", "never"]


@pytest.mark.parametrize("id", ["../up", "", ".hidden", "a/b"])
def test_an_id_is_no_path(site: Site, id: str) -> None:
    closing, opening = plan_drill(id, EAU, ScopeState.HOLD, "officer", NOW, DAY)
    with pytest.raises(BadDrillError):
        site.book.write_plan(DrillPlan(signed(closing, CLOSER), signed(opening, OPENERS)))


def test_a_damaged_result_counts_as_a_failure(site: Site) -> None:
    site.run()
    path = next(site.book._folder.glob("*/result.json"))
    path.write_text("{")
    result = site.book.result("d1")
    assert result is not None
    assert result.outcome is Outcome.FAILED
