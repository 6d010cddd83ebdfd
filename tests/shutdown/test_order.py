"""What a closing reaches first, and what fits into its time (SW-09, SW-10, § 5.2)."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.switch.test_scopes import ATOMS, SCOPES

from schleuse.config import ControlSection
from schleuse.scopes import ANY, Direction, Scope, ScopeState, Service, parse_scopes
from schleuse.shutdown.order import (
    DRAIN,
    PROOF,
    STATE,
    BadBudgetError,
    Step,
    by_step,
    check_budget,
    kept,
    ordered,
    steps_of,
    whole_budget,
)

SECOND = timedelta(seconds=1)


def test_what_attackers_use_first_is_first_and_accepting_is_last() -> None:
    """SW-09."""
    scopes = [Scope("eau_intake", ANY, one.value) for one in Direction] + [Scope("keys", ANY, "read")]
    assert [(one.service, one.direction) for one in ordered(scopes)] == [
        ("eau_intake", "admin"),
        ("eau_intake", "maintenance"),
        ("eau_intake", "support"),
        ("eau_intake", "process"),
        ("keys", "read"),
        ("eau_intake", "deliver"),
        ("eau_intake", "read"),
        ("eau_intake", "write"),
        ("eau_intake", "accept"),
    ]


@pytest.mark.parametrize("direction", Direction)
def test_every_direction_has_one_step(direction: Direction) -> None:
    assert len(steps_of(Scope("eau_intake", ANY, direction.value))) == 1


def test_keys_are_never_later_than_processing() -> None:
    """SW-13: backups and keys are scopes, too."""
    for direction in Direction:
        assert max(steps_of(Scope("keys", ANY, direction.value))) <= Step.PROCESS


@given(st.lists(SCOPES, max_size=5))
def test_the_order_takes_nothing_away_and_doubles_nothing(scopes: list[Scope]) -> None:
    assert set(ordered(scopes)) == set(scopes)
    assert len(ordered(scopes)) == len(set(scopes))
    assert ordered(ordered(scopes)) == ordered(scopes)
    firsts = [min(steps_of(one)) for one in ordered(scopes)]
    assert firsts == sorted(firsts)


@given(st.lists(SCOPES, max_size=4), ATOMS)
def test_the_steps_together_close_the_same_atoms(scopes: list[Scope], atom: Scope) -> None:
    parts = list(chain.from_iterable(mine for _, mine in by_step(scopes)))
    assert any(one.covers(atom) for one in parts) == any(one.covers(atom) for one in scopes)


def test_steps_come_in_order_and_each_has_its_own() -> None:
    steps = list(by_step(parse_scopes("all")))
    assert [step for step, _ in steps] == list(Step)
    assert {one.direction for one in steps[0][1]} == {"admin", "maintenance", "support"}
    assert {one.direction for one in steps[-1][1]} == {"accept"}
    assert Scope(Service.KEYS, ANY, "deliver") in steps[1][1]


def test_hold_keeps_what_arrives() -> None:
    """HD-02."""
    assert kept(ScopeState.HOLD, Scope("eau_intake"))
    assert not kept(ScopeState.CLOSED, Scope("eau_intake"))
    assert not kept(ScopeState.HOLD, Scope("eau_intake", ANY, "process"))


def test_times_are_judged_by_target_and_limit() -> None:
    assert [STATE.judge(seconds * SECOND) for seconds in (2, 3, 10, 11)] == [True, None, None, False]
    assert PROOF.limit == 60 * SECOND


def test_running_work_ends_before_its_process_is_killed() -> None:
    """SW-10, § 5.4: the budget is below the kill timer of common platforms; whatever is configured."""
    largest = 25 * SECOND
    assert ControlSection.model_validate({"unit_budget_seconds": 25}).unit_budget_seconds * SECOND == largest
    with pytest.raises(ValueError, match="25"):
        ControlSection.model_validate({"unit_budget_seconds": 25.1})
    check_budget(largest, 30 * SECOND)
    with pytest.raises(BadBudgetError, match="killed"):
        check_budget(largest, largest)
    with pytest.raises(BadBudgetError, match="at most 30"):
        check_budget(DRAIN.limit + SECOND, timedelta(hours=1))


def test_the_whole_of_a_closing_fits_into_the_limits() -> None:
    """§ 14: time to hold at most 30 s with the default budget of 10 s."""
    assert whole_budget(10 * SECOND) <= 30 * SECOND
