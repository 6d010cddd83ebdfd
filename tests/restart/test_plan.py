"""The plan of a restart (incident.md § 9.2, § 9.4): what it may say, and what it is bound to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schleuse.restart.plan import (
    BadPlanError,
    GateKind,
    PlanRefusedError,
    RestartPlan,
    StageName,
    Target,
    commands_of,
    default_plan,
    next_version,
    parse_plan,
    refuse_cycles,
)
from schleuse.scopes import Scope, ScopeState, Service
from schleuse.switch.documents import Limit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INSURERS = [f"1099000{number:02d}" for number in range(40)]
PLAN = default_plan("r1", [Service.EAU_INTAKE, Service.KEYS], INSURERS, INSURERS[3], NOW)


def test_the_ladder_begins_with_one_insurer_and_a_rate_and_ends_with_everything() -> None:
    names = [(one.name.value, one.label) for one in PLAN.stages]
    assert names == [
        ("S1", ""), ("S2", ""), ("S3", "canary"), ("S4", "5 %"), ("S4", "25 %"), ("S4", "50 %"), ("S4", "100 %"),
        ("S5", ""), ("S6", ""), ("S7", ""), ("S8", ""), ("S9", ""),
    ]  # fmt: skip
    (canary,) = PLAN.stages[2].targets
    assert {scope.tenant for scope in canary.scopes} == {INSURERS[3]}
    assert (canary.state, canary.limit) == (ScopeState.LIMITED, Limit(per_hour=100))
    (last,) = PLAN.stages[-1].targets
    assert last.scopes == (Scope("eau_intake"), Scope("keys"))


def test_each_cohort_opens_those_that_are_not_open_yet() -> None:
    opened = [
        scope.tenant
        for stage in PLAN.stages
        if stage.name is StageName.S4
        for scope in stage.targets[0].scopes
        if scope.service == "eau_intake"
    ]
    assert sorted([*opened]) == sorted(INSURERS)
    assert opened[0] == INSURERS[3]  # the canary goes from its limit to open first


def test_a_plan_of_one_insurer_has_no_empty_stage() -> None:
    one = default_plan("r1", [Service.EAU_INTAKE], INSURERS[:1], INSURERS[0], NOW, whole=False)
    assert all(target.scopes for stage in one.stages for target in stage.targets)
    assert one.scopes == (Scope("eau_intake", INSURERS[0]),)


def test_mail_of_nobody_goes_with_the_outbound_stage() -> None:
    plan = default_plan("r1", [Service.KIM_MAIL], INSURERS, INSURERS[0], NOW)
    outbound = next(one for one in plan.stages if one.name is StageName.S5)
    assert outbound.targets[0].scopes == (Scope("kim_mail", "", "deliver"),)


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


def test_a_canary_is_one_of_the_insurers() -> None:
    with pytest.raises(PlanRefusedError):
        default_plan("r1", [Service.EAU_INTAKE], INSURERS, "999999999", NOW)


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
    (command,) = commands_of(PLAN, 2, "betrieb-1", 7, NOW, timedelta(hours=4))
    assert (command.plan, command.stage, command.basis) == (PLAN.hash, "S3 canary", 7)
    assert command.opening
    assert command.expires_at == NOW + timedelta(hours=4)
    (other,) = commands_of(next_version(PLAN, NOW), 2, "betrieb-1", 7, NOW, timedelta(hours=4))
    assert other.hash != command.hash
    assert commands_of(PLAN, 0, "betrieb-1", 7, NOW, timedelta(hours=4)) == []


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


def test_a_rehearsal_says_that_it_is_one() -> None:
    fast: RestartPlan = default_plan("r1", [Service.EAU_INTAKE], INSURERS, INSURERS[0], NOW, fast=True)
    assert fast.fast
    assert max(stage.soak for stage in fast.stages) <= timedelta(seconds=2)
