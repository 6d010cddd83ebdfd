"""What commands of the switch mean for the hold windows of one insurer (HD-25, HD-40)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.eau.samples import AN_INSURER, NOON

from schleuse.eau.hold_changes import held_between, hold_changes
from schleuse.eau.switched import processing
from schleuse.kim.store import Began, Change, Ended, Released
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.switch.documents import Command, Kind, Limit, Reason
from schleuse.switch.standing import AFTER_DRILL, Rule, standing

SCOPE = processing(AN_INSURER)
ALL_EAU = f"eau_intake/{AN_INSURER}"


def at(minutes: int) -> Any:
    return NOON + timedelta(minutes=minutes)


def rule(epoch: int, state: ScopeState, scopes: str = ALL_EAU, **more: Any) -> Rule:
    limit = Limit(permille=10) if state is ScopeState.LIMITED else None
    opening = more.pop("opening", state.begins)
    if opening:
        more = {"opening": True, "basis": epoch - 1, "expires_at": at(600), **more}
    command = Command(
        f"c{epoch}", parse_scopes(scopes), state, Kind.DRILL, Reason.DRILL, "x", at(epoch), limit=limit, **more
    )
    return Rule(epoch, at(epoch), command)


def changes(*rules: Rule, after: int = 0, is_open: bool = False, now: int = 500) -> list[Change]:
    return hold_changes(rules, SCOPE, after, is_open, at(now))


BEGAN = Began(1, "c1", "drill", at(1))
CLOSE = rule(1, ScopeState.HOLD)


def test_a_closing_begins_a_window_and_an_opening_ends_it() -> None:
    assert changes(CLOSE) == [BEGAN]
    assert changes(CLOSE, rule(2, ScopeState.OPEN)) == [BEGAN, Ended(2, BEGAN, at(2))]
    assert changes(CLOSE, rule(2, ScopeState.OPEN), after=1, is_open=True) == [Ended(2, BEGAN, at(2))]


def test_whoever_saw_neither_closing_nor_opening_still_knows_the_hold() -> None:
    """The role was down for both."""
    found = changes(rule(1, ScopeState.OPEN), rule(2, ScopeState.HOLD), rule(3, ScopeState.OPEN), after=1)
    assert [type(one) for one in found] == [Began, Ended]


def test_another_closing_changes_no_window_that_is_open() -> None:
    assert changes(CLOSE, rule(2, ScopeState.CLOSED), rule(3, ScopeState.DEFER)) == [BEGAN]


def test_the_stages_of_an_opening_end_the_hold_once() -> None:
    found = changes(CLOSE, rule(2, ScopeState.LIMITED), rule(3, ScopeState.OPEN))
    assert found == [BEGAN, Ended(2, BEGAN, at(2))]


def test_backlog_goes_on_with_the_opening_that_says_so_and_with_no_closing() -> None:
    opened = rule(2, ScopeState.LIMITED)
    with_backlog = rule(3, ScopeState.OPEN, with_backlog=True)
    assert changes(CLOSE, opened, with_backlog)[2:] == [Released(3)]
    tighter = rule(3, ScopeState.LIMITED, opening=False)  # its standing has no word of backlog
    assert changes(CLOSE, opened, tighter)[2:] == []
    both = changes(CLOSE, rule(2, ScopeState.OPEN, with_backlog=True))
    assert both == [BEGAN, Ended(2, BEGAN, at(2)), Released(2)]


def test_the_opening_after_a_drill_lets_only_what_the_drill_held_go_on() -> None:
    """SW-15: a rehearsal in a stage of a restart releases no backlog of the incident."""
    drill = rule(3, ScopeState.HOLD, opening=False)
    assert drill.command is not None
    back = rule(4, ScopeState.OPEN, with_backlog=True, stage=AFTER_DRILL, plan=drill.command.hash)
    found = changes(CLOSE, rule(2, ScopeState.OPEN), drill, back)
    assert found[-1] == Released(4, own=True)


def test_an_opening_that_a_newer_closing_overtook_changes_nothing() -> None:
    """SW-16."""
    late = rule(3, ScopeState.OPEN, basis=1, with_backlog=True)
    assert changes(CLOSE, rule(2, ScopeState.HOLD), late) == [BEGAN]


def test_an_epoch_that_nobody_can_read_holds() -> None:
    """SW-02."""
    (found,) = changes(Rule(1, at(1), None))
    assert found == Began(1, "", "security_hold", at(1))


def test_commands_of_others_change_nothing() -> None:
    assert changes(rule(1, ScopeState.HOLD, "eau_intake/999999999"), rule(2, ScopeState.HOLD, "epa")) == []
    assert changes(rule(1, ScopeState.HOLD, f"eau_intake/{AN_INSURER}/accept")) == []


def test_an_emergency_opening_that_has_ended_is_a_hold_again() -> None:
    """RS-14: without an epoch of its own."""
    opened = rule(2, ScopeState.OPEN, closes_at=at(30))
    running = changes(CLOSE, opened, after=2, now=29)
    lapsed = changes(CLOSE, opened, after=2, now=30)
    assert running == []
    assert lapsed == [Began(2, "c2", "security_hold", at(30))]
    assert changes(CLOSE, opened, after=2, is_open=True, now=40) == []


def test_what_came_in_between_the_end_of_an_emergency_opening_and_the_next_is_backlog() -> None:
    again = Rule(3, at(60), rule(3, ScopeState.OPEN).command)
    found = changes(CLOSE, rule(2, ScopeState.OPEN, closes_at=at(30)), again, after=2)
    assert found == [Ended(3, Began(2, "c2", "security_hold", at(30)), at(60))]


def test_how_long_something_was_held_is_the_time_in_which_nothing_might_begin() -> None:
    """HD-46: over several closings, and from the end of an emergency opening on (RS-14)."""
    rules = [CLOSE, rule(2, ScopeState.OPEN, closes_at=at(30)), Rule(3, at(60), rule(3, ScopeState.OPEN).command)]

    def held(start: int, end: int) -> timedelta:
        return held_between(rules, SCOPE, at(start), at(end))

    assert held(0, 90) == timedelta(minutes=1 + 30)
    assert held(40, 90) == timedelta(minutes=20)
    assert held(61, 90) == timedelta(0)
    assert held_between([], SCOPE, at(0), at(90)) == timedelta(0)


STATES = st.lists(st.sampled_from(ScopeState), max_size=8)


@given(STATES, st.data())
def test_however_often_it_is_followed_the_window_is_open_exactly_while_nothing_may_begin(
    states: list[ScopeState], data: st.DataObject
) -> None:
    rules = [rule(epoch, state) for epoch, state in enumerate(states, 1)]
    is_open, after = False, 0
    while after < len(rules):
        head = data.draw(st.integers(after + 1, len(rules)))
        for change in hold_changes(rules[:head], SCOPE, after, is_open, at(500)):
            is_open = isinstance(change, Began) or (is_open and not isinstance(change, Ended))
        after = head
        assert is_open is not standing(rules[:head], SCOPE).state.begins
