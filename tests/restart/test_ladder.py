"""The plan that brings back what is closed now (incident.md § 9.2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.switch.commands import close, open_to, rules_of

from schleuse.restart.ladder import CANARY_PER_HOUR, ORDER, closed_scopes, default_plan
from schleuse.restart.plan import GateKind, PlanRefusedError, RestartPlan, StageName, Target
from schleuse.scopes import GROUPS, Direction, Scope, ScopeState, Service
from schleuse.switch.documents import Limit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INSURERS = [f"1099000{number:02d}" for number in range(40)]
CANARY = INSURERS[3]
PLAN = default_plan("r1", [Service.EAU_INTAKE, Service.KEYS], INSURERS, CANARY, NOW)


def targets(plan: RestartPlan, name: StageName) -> list[Target]:
    return [target for stage in plan.stages if stage.name is name for target in stage.targets]


def test_the_ladder_begins_with_the_trust_base_and_ends_with_everything() -> None:
    assert [(one.name.value, one.label) for one in PLAN.stages] == [
        ("S1", ""), ("S2", ""), ("S3", "canary"), ("S4", "5 %"), ("S4", "25 %"), ("S4", "50 %"), ("S4", "100 %"),
        ("S5", ""), ("S6", ""), ("S7", "reads"), ("S7", "writes"), ("S8", ""), ("S9", ""),
    ]  # fmt: skip
    assert {scope.service for one in targets(PLAN, StageName.S1) for scope in one.scopes} == {"keys"}
    (last,) = targets(PLAN, StageName.S9)
    assert last.scopes == (Scope("keys"), Scope("eau_intake"))


def test_the_canary_is_one_insurer_at_a_rate_and_takes_in_what_comes() -> None:
    taken, limited = targets(PLAN, StageName.S3)
    assert (taken.scopes, taken.state) == ((Scope("eau_intake", CANARY, "accept"),), ScopeState.OPEN)
    assert (limited.scopes, limited.limit) == (
        (Scope("eau_intake", CANARY, "process"),),
        Limit(per_hour=CANARY_PER_HOUR),
    )


def test_each_cohort_opens_those_that_are_not_open_yet() -> None:
    opened = [
        one.tenant for target in targets(PLAN, StageName.S4) for one in target.scopes if one.direction == "process"
    ]
    assert sorted(opened) == sorted(INSURERS)
    assert opened[0] == CANARY  # from its limit to open first


def test_a_stage_that_opens_something_needs_two_persons_whichever_it_is() -> None:
    """SW-01."""
    assert all((GateKind.HUMAN in stage.gates) == bool(stage.targets) for stage in PLAN.stages)


def test_services_come_back_in_the_agreed_order() -> None:
    plan = default_plan(
        "r1", list(reversed(Service)), INSURERS[:2], CANARY if CANARY in INSURERS[:2] else INSURERS[0], NOW
    )
    for stage in plan.stages[:-1]:
        places = [ORDER.index(Service(target.scopes[0].service)) for target in stage.targets]
        assert places == sorted(places)
    assert {one.value for one in GROUPS["all"]} <= {one.value for one in ORDER}


def test_rights_come_before_reads_and_reads_before_writes() -> None:
    """HD-13."""
    services = [Service.EPA_RIGHTS, Service.EPA_READ, Service.EPA_WRITE]
    plan = default_plan("r1", services, INSURERS[:2], INSURERS[0], NOW)
    assert [one.label for one in plan.stages if one.name is StageName.S7] == ["rights", "reads", "writes"]


def test_a_plan_of_one_insurer_has_no_empty_target() -> None:
    one = default_plan("r1", [Service.EAU_INTAKE], INSURERS[:1], INSURERS[0], NOW, whole=False)
    assert all(target.scopes for stage in one.stages for target in stage.targets)
    assert one.scopes == (Scope("eau_intake", INSURERS[0]),)


def test_mail_of_nobody_is_taken_in_with_the_last_cohort_and_leaves_with_the_outbound_stage() -> None:
    plan = default_plan("r1", [Service.KIM_MAIL], INSURERS, INSURERS[0], NOW)
    assert targets(plan, StageName.S4)[0].scopes[0] == Scope("kim_mail", "", "accept")
    assert [one.label for one in plan.stages if one.name is StageName.S4] == ["100 %"]
    assert targets(plan, StageName.S5)[0].scopes == (Scope("kim_mail", "", "deliver"),)


def test_a_canary_is_one_of_the_insurers() -> None:
    with pytest.raises(PlanRefusedError):
        default_plan("r1", [Service.EAU_INTAKE], INSURERS, "999999999", NOW)


def test_a_rehearsal_says_that_it_is_one() -> None:
    fast = default_plan("r1", [Service.EAU_INTAKE], INSURERS, INSURERS[0], NOW, fast=True)
    assert fast.fast
    assert max(stage.soak for stage in fast.stages) <= timedelta(seconds=2)


def test_what_is_open_is_not_opened_again_and_gets_no_limit() -> None:
    """Only the feed of one insurer is closed: nothing else of it goes through the canary."""
    shut = closed_scopes(rules_of([close(f"eau_intake/{CANARY}/deliver")]), INSURERS, NOW)
    assert shut == [Scope("eau_intake", CANARY, "deliver")]
    plan = default_plan("r1", [Service.EAU_INTAKE], [CANARY], CANARY, NOW, whole=False, closed=shut)
    assert [one.name for one in plan.stages] == [*map(StageName, ("S1", "S2", "S5", "S6", "S9"))]
    assert not any(target.limit for stage in plan.stages for target in stage.targets)


def test_what_was_opened_again_is_not_closed() -> None:
    rules = rules_of([close("eau"), open_to("eau_intake", 1)])
    assert {one.service for one in closed_scopes(rules, INSURERS[:2], NOW)} == {"eau_employer_answer"}
    assert closed_scopes([], INSURERS, NOW) == []


def test_an_epoch_that_nobody_can_read_closes_everything() -> None:
    found = closed_scopes(rules_of([None]), INSURERS[:1], NOW)
    assert {one.service for one in found} == {one.value for one in Service}


@given(
    st.lists(st.sampled_from(list(Service)), min_size=1, unique=True),
    st.integers(1, 6),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(list(Service)), st.sampled_from(list(Direction))), max_size=6),
)
def test_every_plan_opens_what_is_closed_once_at_most_up_to_open_and_nothing_else(
    services: list[Service], count: int, whole: bool, shut: list[tuple[Service, Direction]]
) -> None:
    """RS-09: whatever is closed, the ladder reaches all of it, and only of the services that it was asked for."""
    insurers = INSURERS[:count]
    closed = [Scope(service.value, "*", direction.value) for service, direction in shut]
    plan = default_plan("r1", services, insurers, insurers[0], NOW, whole=whole, closed=closed)
    stepwise = [stage for stage in plan.stages if stage.name is not StageName.S9]
    opened = [one for stage in stepwise for target in stage.targets for one in target.scopes]
    assert all(any(one.meets(its) for its in closed) for one in opened)
    fully = [
        one
        for stage in stepwise
        for target in stage.targets
        if target.state is ScopeState.OPEN
        for one in target.scopes
    ]
    assert len(fully) == len(set(fully))
    wanted = {one for one in closed if one.service in {service.value for service in services}}
    assert all(any(scope.meets(one) for one in fully) for scope in wanted)
