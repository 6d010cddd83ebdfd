"""What stops a restart although everything was signed: closings that its plan does not know, and other plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.restart.test_progress import BOTH, CANARY, MADE, NOW, PLAN, RIGHTS, SOAKED, offered, ready_for_canary, signed
from tests.switch.commands import rules_of

from schleuse.restart.entering import Look, may_enter, stop_condition
from schleuse.restart.plan import GateKind, Target, next_version
from schleuse.restart.progress import Aborted, Entered, Event, Made, Noted, Offered, Signed, fold
from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.switch.documents import Command, Kind, Reason, Role
from schleuse.switch.standing import Rule

INSURER, OTHER = "109900011", "109900022"


def closing(scopes: str, kind: Kind = Kind.MANUAL, state: ScopeState = ScopeState.HOLD) -> Command:
    return Command(f"c-{scopes}-{kind}", parse_scopes(scopes), state, kind, Reason.SECURITY_HOLD, "anna", NOW)


def opening(scopes: str, basis: int) -> Command:
    return replace(
        closing(scopes),
        id=f"o-{scopes}-{basis}",
        state=ScopeState.OPEN,
        opening=True,
        basis=basis,
        expires_at=SOAKED + timedelta(days=1),
    )


def missing(events: Sequence[Event], rules: Sequence[Rule]) -> str:
    return "; ".join(may_enter(fold(events), Look(RIGHTS, rules, 0, SOAKED)))


@pytest.mark.parametrize("scopes", ["eau_intake", f"eau_intake/{OTHER}/deliver", "eau_intake/*/accept"])
def test_a_closing_that_the_plan_does_not_know_stops_it(scopes: str) -> None:
    """P-02, SW-01: somebody knows something; two persons look and sign a newer version."""
    known = rules_of([closing("eau_intake")])
    made = replace(MADE, basis=1)
    events: list[Event] = [made, *ready_for_canary()[1:]]
    assert missing(events, known) == ""
    assert "TIME: fail" in missing(events, rules_of([closing("eau_intake"), closing(scopes)]))


def test_an_epoch_that_nobody_can_read_stops_everything() -> None:
    """SW-02."""
    assert "TIME: fail" in missing(ready_for_canary(), rules_of([None]))


@pytest.mark.parametrize("scopes", ["keys", "kim_mail/-/read"])
def test_closings_of_other_scopes_do_not_concern_it(scopes: str) -> None:
    """RS-09."""
    assert missing(ready_for_canary(), rules_of([closing(scopes)])) == ""


def test_a_new_version_takes_note_of_what_was_closed() -> None:
    rules = rules_of([closing("eau_intake"), closing(f"eau_intake/{OTHER}")])
    at = fold([MADE, *BOTH, Made(SOAKED, next_version(PLAN, SOAKED), "anna", basis=2)])
    assert stop_condition(at, rules, SOAKED) is None
    assert "two persons have to approve" in "; ".join(may_enter(at, Look(RIGHTS, rules, 0, SOAKED)))


def test_a_drill_that_left_something_closed_stops_it_until_it_is_open_again() -> None:
    """G-OFF, G-TIME."""
    opened = Scope("eau_intake", INSURER, "process")
    at = fold([*ready_for_canary(), Entered(SOAKED, CANARY, (1,))])
    assert opened in at.opened
    rules = rules_of([opening("eau_intake", 0), closing(f"eau_intake/{INSURER}", Kind.DRILL)])
    assert "was opened to OPEN and is HOLD" in str(stop_condition(at, rules, SOAKED))
    again = rules_of([*(one.command for one in rules), opening(f"eau_intake/{INSURER}", 2)])
    assert stop_condition(at, again, SOAKED) is None


def test_commands_that_open_less_or_more_than_the_stage_are_not_its_commands() -> None:
    """RO-04: whoever writes an offer of his own has it signed for nothing."""
    offer = offered(at=SOAKED)
    more = replace(offer.commands[0], scopes=(Scope("eau_intake"),))
    for commands in ((more,), (), (*offer.commands, *offer.commands)):
        other = Offered(SOAKED, CANARY, commands)
        both = [signed(other, "anna", Role.SWITCH_OFFICER, SOAKED), signed(other, "bert", Role.RELEASER, SOAKED)]
        events = [one for one in ready_for_canary() if not isinstance(one, Offered | Signed)]
        assert "HUMAN: fail" in missing([*events, other, *both], [])


@pytest.mark.parametrize("kind", [Kind.DRILL, Kind.MANUAL])
def test_what_was_signed_before_a_closing_is_signed_anew(kind: Kind) -> None:
    """SW-16: the switch would not let it open anything, so the stage must not count as entered."""
    seen = rules_of([opening("eau_intake", 0)] * 3)  # the offer's signers had seen three epochs
    assert "HUMAN" not in missing(ready_for_canary(), seen)
    drill = rules_of([*(one.command for one in seen), closing(f"eau_intake/{INSURER}/process", kind)])
    assert "HUMAN: fail: something was closed" in missing(ready_for_canary(), drill)
    elsewhere = rules_of([*(one.command for one in seen), closing(f"eau_intake/{OTHER}/process", kind)])
    assert "HUMAN" not in missing(ready_for_canary(), elsewhere)


def test_after_an_abort_the_same_version_goes_nowhere() -> None:
    """RS-06, RO-04: what people knew when they approved it is not true any more."""
    closed = rules_of([closing("eau_intake")])
    events = [*ready_for_canary(), Aborted(SOAKED, "anna", "looks wrong", 1), *BOTH]
    assert "TIME: fail" in missing(events, closed)


def test_two_plans_for_the_same_do_not_go_on_side_by_side() -> None:
    """RS-09."""
    mine = fold(ready_for_canary())
    assert mine.plan is not None
    other = fold([replace(MADE, plan=replace(PLAN, id="r2")), Entered(NOW, 0, ())])
    reasons = may_enter(mine, Look(RIGHTS, [], 0, SOAKED, {"r2": other}))
    assert "r2 brings back the same and goes on" in "; ".join(reasons)
    waits = fold([replace(MADE, plan=replace(PLAN, id="r2"))])
    assert may_enter(mine, Look(RIGHTS, [], 0, SOAKED, {"r2": waits})) == []


def test_temporary_measures_are_listed_until_they_are_ended() -> None:
    """RS-12: also behind any number of later notes."""
    measure = Noted(NOW, "anna", "fax line of the second site", "bert", SOAKED)
    notes: list[Event] = [Noted(NOW, "anna", f"note {number}") for number in range(20)]
    assert fold([MADE, measure, *notes]).measures == [measure]
    assert fold([MADE, measure, *notes, replace(measure, until=None)]).measures == []


def test_a_plan_without_targets_of_its_own_gate_still_needs_two_when_it_opens() -> None:
    """SW-01: the gate HUMAN is judged for whatever opens, also where a plan could leave it out."""
    stage = PLAN.stages[CANARY]
    assert GateKind.HUMAN in stage.gates
    assert isinstance(stage.targets[0], Target)
    unsigned = [one for one in ready_for_canary() if not isinstance(one, Signed)]
    assert "HUMAN" in missing(unsigned, [])
