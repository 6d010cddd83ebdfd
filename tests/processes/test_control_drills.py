"""Which drill is due, and how fresh each switch is (SW-15)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.processes.test_control_closing import Site as Home
from tests.shutdown.operators import CLOSER, NOW, OPENERS, RIGHTS, Clock, close, signed
from tests.shutdown.test_external import SYSTEM, Machine

from schleuse.journal.opening import Json
from schleuse.processes.control_drills import Freshness, Scheduler, desk, windows_of
from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.shutdown.drill import DrillPlan, Outcome, plan_drill
from schleuse.shutdown.external import SystemStandings
from schleuse.shutdown.external_keeper import ExternalKeeper

NOON, NIGHT = "11:00-13:00", "02:00-04:00"


class Site:
    def __init__(self, folder: Path, window: str = NOON) -> None:
        self.home = Home(folder)
        self.told: list[Mapping[str, Json]] = []
        closings = self.home.closings
        self.down: list[str] = []
        self.desk = desk(closings, self.home.log, RIGHTS, self.home.clock, self._down)
        self.freshness = Freshness(closings, 31)
        self.scheduler = Scheduler(
            self.desk,
            windows_of(closings, window),
            self.freshness,
            lambda facts, _: self.told.append(facts),
            self.home.clock,
        )

    def plan(self, id: str = "d1", both: bool = True, scopes: str = "eau_intake") -> DrillPlan:
        closing, opening = plan_drill(id, parse_scopes(scopes), ScopeState.HOLD, "officer", NOW, timedelta(days=30))
        made = DrillPlan(signed(closing, CLOSER), signed(opening, OPENERS if both else CLOSER))
        self.desk.book.write_plan(made)
        return made

    def due(self) -> str | None:
        found = next(self.scheduler.due(self.home.clock()), None)
        return found.id if found else None

    async def _down(self, _scopes: Sequence[Scope]) -> Sequence[str]:
        return self.down


def test_a_signed_drill_runs_in_the_window(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.plan()
    assert site.due() == "d1"


def test_outside_the_window_it_waits(tmp_path: Path) -> None:
    site = Site(tmp_path, NIGHT)
    site.plan()
    assert site.due() is None


def test_one_that_has_begun_goes_on_whenever_we_come_back(tmp_path: Path) -> None:
    """It must not stay closed until the next night."""
    site = Site(tmp_path, NIGHT)
    site.home.log.append(site.plan().closing, NOW)
    assert site.due() == "d1"


def test_one_that_lacks_a_signature_is_passed_over_and_told_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.plan("d1", both=False)
    site.plan("d2")
    with capture_logs() as logs:
        assert [site.due(), site.due()] == ["d2", "d2"]
    assert [one["event"] for one in logs] == ["drill.not-ready"]


def test_a_drill_of_this_home_closes_proves_and_opens(tmp_path: Path) -> None:
    site = Site(tmp_path)
    home = site.home

    async def workers() -> None:
        """Follow each epoch, as roles do."""
        followed = 0
        while followed < 2:
            while followed < home.closings.switch.epoch:
                followed += 1
                home.follow(followed, after=0)
            await asyncio.sleep(0)

    async def both() -> Outcome:
        following = asyncio.create_task(workers())
        result = await site.scheduler.carry_out(site.plan())
        await following
        return result.outcome

    assert asyncio.run(both()) is Outcome.PASSED
    assert site.told[-1]["outcome"] == "passed"
    assert home.closings.needed() == []
    assert site.freshness.stale(home.clock()) == []
    assert site.due() is None


def test_a_drill_of_a_system_of_somebody_else_stops_proves_and_starts_it(tmp_path: Path) -> None:
    """SW-08, SW-15: in its own window, measured like the others, and fresh afterwards."""
    site, machine = Site(tmp_path, NIGHT), Machine()
    system = replace(SYSTEM, drill_window=NOON)
    closings = replace(site.home.closings, systems=[system])
    home = site.home
    keeper = ExternalKeeper(
        [system], SystemStandings(home.log.read_all), home.folder, RIGHTS, lambda _: None, home.clock, "here", machine
    )
    freshness = Freshness(closings, 31)
    text = "payments_support [payments]"
    assert text in freshness.stale(NOW)
    scheduler = Scheduler(
        replace(desk(closings, home.log, RIGHTS, home.clock, keeper.not_running), sleep=keeps(keeper, home.clock)),
        windows_of(closings, NIGHT), freshness, lambda facts, _: site.told.append(facts), home.clock,
    )  # fmt: skip
    site.plan(scopes="payments_support")

    machine.running = False
    assert asyncio.run(scheduler.step()) is None
    assert home.log.read_all() == []
    machine.running = True
    result = asyncio.run(scheduler.step())

    assert result is not None
    assert (result.outcome, result.why) == (Outcome.PASSED, "")
    assert result.to_proof is not None
    assert machine.running
    assert [one for one in machine.done if one != "probe"] == ["stop", "start"]
    assert text not in freshness.stale(home.clock())
    home.clock.forward(32 * 86_400)
    assert text in freshness.stale(home.clock())


def keeps(keeper: ExternalKeeper, clock: Clock) -> Callable[[float], Awaitable[None]]:
    """The loop of `control` beside a drill."""

    async def sleep(seconds: float) -> None:
        clock.forward(1)
        await keeper.step()

    return sleep


def test_a_switch_that_was_never_used_is_told_once_a_day(tmp_path: Path) -> None:
    site = Site(tmp_path, NIGHT)
    with capture_logs() as logs:
        asyncio.run(site.scheduler.step())
        asyncio.run(site.scheduler.step())
        site.home.clock.forward(86_401)
        asyncio.run(site.scheduler.step())
    assert [one["scopes"] for one in logs if one["event"] == "drill.stale"] == [2, 2]


def test_a_real_closing_that_was_proven_counts_as_well(tmp_path: Path) -> None:
    site = Site(tmp_path)
    close(site.home.log, "eau_intake/109900011")
    site.home.follow(1)
    site.home.attempt()
    assert [text for text, at in site.freshness.last().items() if at is None] == ["eau_intake/109900022/deliver/-"]
    site.home.clock.forward(32 * 86_400)
    assert len(site.freshness.stale(site.home.clock())) == 2


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LEFT_CLOSED])
def test_a_drill_that_fails_says_that_the_switch_is_not_usable(tmp_path: Path, outcome: Outcome) -> None:
    """T-22."""
    site = Site(tmp_path)
    made = site.plan()
    site.home.log.append(made.closing, NOW)
    if outcome is Outcome.LEFT_CLOSED:
        close(site.home.log, "eau_intake", "incident")
    site.home.clock.forward(61)
    site.home.follow(1)
    site.home.follow(2)
    site.home.follow(3)
    site.home.answer = None
    with capture_logs() as logs:
        result = asyncio.run(site.scheduler.carry_out(made))
    assert result.outcome is outcome
    assert "drill.switch-not-usable" in [one["event"] for one in logs]


def test_a_proof_of_what_was_closed_long_ago_is_seen(tmp_path: Path) -> None:
    """SW-15: only what can still change is looked at again, and what is still closed can."""
    site = Site(tmp_path)
    close(site.home.log, "eau_intake/109900011")
    for number in range(20):
        close(site.home.log, "eau_intake/109900022", f"d{number}")
    assert len(site.freshness.stale(NOW)) == 2
    site.home.follow(21)
    site.home.attempt()
    assert site.freshness.stale(NOW) == []
