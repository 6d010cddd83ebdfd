"""The plan of a restart (incident.md § 9.2, § 9.4): what it may say, and what it is bound to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import (
    BadPlanError,
    GateKind,
    PlanRefusedError,
    StageName,
    Target,
    commands_of,
    next_version,
    parse_plan,
    refuse_cycles,
)
from schleuse.scopes import Scope, ScopeState, Service

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INSURERS = [f"1099000{number:02d}" for number in range(40)]
PLAN = default_plan("r1", [Service.EAU_INTAKE, Service.KEYS], INSURERS, INSURERS[3], NOW)


def test_a_stage_that_opens_always_needs_two_persons() -> None:
    """SW-01: no plan can leave the gate HUMAN out."""
    stage = PLAN.stages[2]
    lonely = replace(stage, gates=tuple(one for one in stage.gates if one is not GateKind.HUMAN))
    with pytest.raises(PlanRefusedError, match="two persons"):
        replace(PLAN, stages=(lonely,))


def test_a_plan_opens_only_what_it_brings_back() -> None:
    stage = PLAN.stages[2]
    foreign = replace(stage, targets=(Target((Scope("epa_read"),), ScopeState.OPEN),))
    with pytest.raises(PlanRefusedError, match="not part"):
        replace(PLAN, stages=(foreign,))


def test_stages_go_up_only() -> None:
    with pytest.raises(BadPlanError):
        replace(PLAN, stages=(PLAN.stages[3], PLAN.stages[0]))


def test_plans_that_wait_for_each_other_are_refused() -> None:
    """RS-09."""
    first = replace(PLAN, id="a", needs=(("b", StageName.S4),))
    second = replace(PLAN, id="b", needs=(("a", StageName.S4),))
    with pytest.raises(PlanRefusedError, match="itself"):
        refuse_cycles(first, [second])
    with pytest.raises(PlanRefusedError, match="not there"):
        refuse_cycles(first, [])
    refuse_cycles(first, [replace(second, needs=())])


def test_the_commands_of_a_stage_are_bound_to_plan_stage_and_what_was_seen() -> None:
    """RO-04: a changed plan has other commands, so nobody's signature is used for what he did not see."""
    (_, command) = commands_of(PLAN, 2, "betrieb-1", 7, NOW, timedelta(hours=4))
    assert (command.plan, command.stage, command.basis) == (PLAN.hash, "S3 canary", 7)
    assert command.opening
    assert command.expires_at == NOW + timedelta(hours=4)
    (_, other) = commands_of(next_version(PLAN, NOW), 2, "betrieb-1", 7, NOW, timedelta(hours=4))
    assert other.hash != command.hash
    assert commands_of(PLAN, 1, "betrieb-1", 7, NOW, timedelta(hours=4)) == []


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = replace(PLAN, needs=(("other", StageName.S4),), fast=True)
    assert parse_plan(plan.encode()) == plan
    assert parse_plan(plan.encode()).hash == plan.hash


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"more": 1}, {"stages": []}, {"scopes": ["nonsense"]}, {"stages": [{"name": "S1"}]}]
)
def test_what_is_no_plan_is_refused_with_a_sentence(change: dict[str, object]) -> None:
    with pytest.raises((BadPlanError, PlanRefusedError)):
        parse_plan(json.dumps({**json.loads(PLAN.encode()), **change}).encode())
