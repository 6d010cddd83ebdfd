"""The capacity ladder (HD-28, T-18)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.holding.capacity import Arrival, HoldPlan, Level, Room, has_room, lasts
from schleuse.scopes import Service

GIB = 1 << 30


@pytest.mark.parametrize(
    ("percent", "level"),
    [
        (0, Level.PLENTY),
        (69, Level.PLENTY),
        (70, Level.WARN),
        (84, Level.WARN),
        (85, Level.SCALE_OUT),
        (94, Level.SCALE_OUT),
        (95, Level.LETTERS_WAIT),
        (100, Level.LETTERS_WAIT),
    ],
)
def test_the_steps_are_at_70_85_and_95_percent_of_what_may_be_filled(percent: int, level: Level) -> None:
    total, reserve = 104 * GIB, 4 * GIB
    assert Room(total - percent * GIB, total, reserve).level is level


def test_letters_wait_before_the_reserve_of_the_store_is_reached() -> None:
    room = Room(free=5 * GIB, total=80 * GIB, reserve=4 * GIB)
    assert (room.level, room.free > room.reserve) == (Level.LETTERS_WAIT, True)


def test_a_disk_smaller_than_its_reserve_is_full() -> None:
    assert Room(free=GIB, total=GIB, reserve=4 * GIB).level is Level.LETTERS_WAIT


@given(st.sampled_from(Level))
def test_eau_are_taken_at_every_level(level: Level) -> None:
    assert has_room(level, Service.EAU_INTAKE)
    assert has_room(level, Service.KIM_MAIL) == (level is not Level.LETTERS_WAIT)


HOUSE = Arrival(per_second=2.0, octets=50_000, repeats=0.0)
HOURS_54 = timedelta(hours=54)


@pytest.mark.parametrize(("times", "hours"), [(1.5, 108), (3, 27), (5, 13.5)])
def test_a_backlog_drains_as_the_reference_says(times: float, hours: float) -> None:
    """§ 6.7, RS-20: 54 h of hold at so many times the arrival rate."""
    assert HoldPlan(HOURS_54).drained_in(HOUSE, 2.0 * times) == timedelta(hours=hours)


def test_live_traffic_that_takes_all_there_is_lets_no_backlog_drain() -> None:
    assert HoldPlan(HOURS_54).drained_in(HOUSE, 2.0) is None


def test_who_processes_as_fast_as_planned_is_done_in_the_wished_time() -> None:
    """RS-20: hold and drain time decide about the capacity."""
    plan = HoldPlan(timedelta(days=14), timedelta(hours=24))
    assert plan.capacity(HOUSE) == 30.0
    assert plan.drained_in(HOUSE, plan.capacity(HOUSE)) == plan.drain


def test_backlog_and_repeated_sendings_are_planned_together() -> None:
    """HD-08: each mail comes twice more, as its sender's retry and generated anew; live traffic goes on as before."""
    plan, twice_more = HoldPlan(timedelta(days=14)), replace(HOUSE, repeats=2.0)
    assert plan.backlog(twice_more) == 3 * plan.backlog(HOUSE)
    assert plan.octets(twice_more) == 3 * 14 * 86_400 * 2 * 50_000
    assert Arrival(2.0, 50_000).repeats == 2.0, "nobody has to think of it"
    room = Room(free=10**12, total=10**12, reserve=0)
    assert lasts(room, twice_more) == approximately(lasts(room, HOUSE), 1 / 3)


def test_the_store_lasts_until_each_step_of_the_ladder() -> None:
    """HD-28, RS-20: 100 kB a second come in, and half of what may be filled is filled."""
    room = Room(free=60_000_000, total=110_000_000, reserve=10_000_000)
    assert room.percent == 50
    steps = [lasts(room, HOUSE, percent) for percent in (40, 70, 85, 95, 100)]
    assert steps == [timedelta(seconds=seconds) for seconds in (0, 200, 350, 450, 500)]


def test_where_nothing_comes_the_store_lasts_for_ever() -> None:
    assert lasts(Room(1, 1, 0), replace(HOUSE, per_second=0.0)) is None
    assert lasts(Room(1 << 60, 1 << 60, 0), replace(HOUSE, per_second=1e-12)) == timedelta(days=365_000)


def approximately(time: timedelta | None, factor: float) -> object:
    assert time is not None
    return pytest.approx(time * factor, abs=timedelta(seconds=1))
