"""A drill in a stage of a restart gives back what it took, and lets no backlog go (G-OFF, SW-15, HD-40)."""

from __future__ import annotations

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


def drilled() -> tuple[Command, Command]:
    before = standing(canary(), PROCESS)
    return plan_drill("d", close(MAILBOX).scopes, ScopeState.HOLD, "a", NOW, timedelta(days=1), before)


def test_a_drill_of_the_canary_gives_the_limit_back() -> None:
    closing, opening = drilled()
    before = standing(canary(), PROCESS)
    assert standing(canary(closing), PROCESS).state is ScopeState.HOLD
    after = standing(canary(closing, opening), PROCESS)
    assert (after.state, after.limit) == (before.state, before.limit)


def test_a_drill_releases_what_it_held_and_no_backlog_that_waits_for_its_plan() -> None:
    """HD-40."""
    changes = hold_changes(canary(*drilled()), PROCESS, 2, False, NOW + timedelta(hours=1))
    assert changes[-1] == Released(4, own=True)


def test_a_drill_whose_scope_was_opened_further_meanwhile_gives_nothing_back() -> None:
    """SW-15: what stands otherwise than when it was signed is left to people."""
    closing, opening = drilled()
    further = open_to(MAILBOX, 2, ScopeState.OPEN)
    assert standing(canary(further, closing, opening), PROCESS).state is ScopeState.HOLD
