"""What a plan may never do, and how it may change while it is carried out (RS-09, RS-10, RO-04)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import (
    BadPlanError,
    GateKind,
    PlanRefusedError,
    Stage,
    StageName,
    Target,
    closes_on_abort,
    next_version,
    refuse_change,
    shares,
)
from schleuse.scopes import Scope, ScopeState, Service
from schleuse.switch.documents import Limit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
IKS = ["109900011", "109900022"]
PLAN = default_plan("r1", [Service.EAU_INTAKE], IKS, IKS[0], NOW)
STATUS, CONTACT, EAU = Scope("status"), Scope("contact"), Scope("eau_intake")


def with_target(target: Target) -> Stage:
    return Stage(StageName.S4, "", (target,), (GateKind.HUMAN,), timedelta(0))


@pytest.mark.parametrize("scope", [STATUS, CONTACT])
@pytest.mark.parametrize(
    ("state", "limit"), [(ScopeState.HOLD, None), (ScopeState.LIMITED, Limit(permille=10)), (ScopeState.OPEN, None)]
)
def test_status_and_contact_are_never_less_than_open(scope: Scope, state: ScopeState, limit: Limit | None) -> None:
    """RS-10."""
    changed = {"scopes": (EAU, scope), "stages": (with_target(Target((scope,), state, limit)),)}
    if state is ScopeState.OPEN:
        replace(PLAN, **changed)  # type: ignore[arg-type]
    else:
        with pytest.raises(PlanRefusedError, match="RS-10"):
            replace(PLAN, **changed)  # type: ignore[arg-type]


def test_an_abort_leaves_the_ways_to_reach_us_open() -> None:
    """RS-10."""
    plan = replace(PLAN, scopes=(EAU, STATUS, CONTACT))
    assert closes_on_abort(plan) == (EAU,)


def test_a_plan_names_each_service() -> None:
    with pytest.raises(BadPlanError, match="RS-10"):
        replace(PLAN, scopes=(Scope("*"),))


def test_what_was_entered_stays_as_it_was_approved() -> None:
    """RO-04: a new version may change what comes, and nothing that was done."""
    later = next_version(PLAN, NOW, stages=PLAN.stages[:-1])
    refuse_change(PLAN, later, 3)
    with pytest.raises(PlanRefusedError, match="entered"):
        refuse_change(PLAN, next_version(PLAN, NOW, stages=PLAN.stages[1:]), 3)
    refuse_change(PLAN, next_version(PLAN, NOW, stages=PLAN.stages[1:]), -1)


def test_versions_are_counted_without_a_gap() -> None:
    with pytest.raises(PlanRefusedError, match="version"):
        refuse_change(PLAN, PLAN, -1)
    with pytest.raises(PlanRefusedError, match="version"):
        refuse_change(PLAN, next_version(next_version(PLAN, NOW), NOW), -1)


def test_a_new_version_forgets_nothing_that_is_open_by_it() -> None:
    """RS-06: an abort closes all that the plan has opened, whichever version opened it."""
    narrow = tuple(Scope("eau_intake", ik) for ik in IKS[1:])
    stages = (*PLAN.stages[:3], with_target(Target(narrow, ScopeState.OPEN)))
    with pytest.raises(PlanRefusedError):  # the canary's scope would be part of no abort any more
        refuse_change(PLAN, next_version(PLAN, NOW, stages=stages, scopes=narrow), 2)


def test_plans_of_different_scopes_share_nothing() -> None:
    """RS-09: independent groups advance independently."""
    other = default_plan("r2", [Service.EAU_INTAKE], IKS[:1], IKS[0], NOW, whole=False)
    assert shares(PLAN, other)
    assert not shares(PLAN, default_plan("r3", [Service.KEYS], IKS, IKS[0], NOW))
