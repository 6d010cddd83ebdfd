"""A drill in a stage of a restart gives back what it took, and lets no backlog go (G-OFF, SW-15, HD-40)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.shutdown.operators import NOW
from tests.switch.commands import close, open_to, rules_of

from schleuse.eau.hold_changes import hold_changes
from schleuse.kim.store import Released
from schleuse.scopes import NONE, Direction, ScopeState, Service, atom
from schleuse.shutdown.drill import plan_drill
from schleuse.switch.documents import Command, Limit
from schleuse.switch.standing import Rule, standing

INSURER = "109900011"
PROCESS = atom(Service.EAU_INTAKE, INSURER, Direction.PROCESS, NONE)
MAILBOX = f"eau_intake/{INSURER}"


def canary(*more: Command) -> list[Rule]:
    """Held, then opened by the canary's stage: what was held waits for its release plan."""
    limited = open_to(MAILBOX, 1, ScopeState.LIMITED, limit=Limit(per_hour=100))
    return rules_of([close(MAILBOX), limited, *more])


def test_a_drill_of_the_canary_gives_the_limit_back() -> None:
    before = standing(canary(), PROCESS)
    closing, opening = plan_drill("d", close(MAILBOX).scopes, ScopeState.HOLD, "a", NOW, timedelta(days=1), before)
    assert standing(canary(closing), PROCESS).state is ScopeState.HOLD
    after = standing(canary(closing, opening), PROCESS)
    assert (after.state, after.limit, after.with_backlog) == (before.state, before.limit, False)


def test_a_drill_releases_no_backlog_that_waits_for_its_plan() -> None:
    """HD-40: the windows of the mailbox are told of an end, and of no release."""
    before = standing(canary(), PROCESS)
    closing, opening = plan_drill("d", close(MAILBOX).scopes, ScopeState.HOLD, "a", NOW, timedelta(days=1), before)
    changes = hold_changes(canary(closing, opening), PROCESS, 2, False, NOW + timedelta(hours=1))
    assert len(changes) == 2
    assert not any(isinstance(one, Released) for one in changes)


def test_an_opening_that_would_release_it_is_none() -> None:
    before = standing(canary(), PROCESS)
    closing, opening = plan_drill("d", close(MAILBOX).scopes, ScopeState.HOLD, "a", NOW, timedelta(days=1), before)
    greedy = replace(opening, with_backlog=True)
    assert standing(canary(closing, greedy), PROCESS).state is ScopeState.HOLD


def test_where_nothing_waits_what_was_held_in_the_drill_goes_on_with_it() -> None:
    closing, opening = plan_drill("d", close(MAILBOX).scopes, ScopeState.HOLD, "a", NOW, timedelta(days=1))
    assert standing(rules_of([closing, opening]), PROCESS).with_backlog
