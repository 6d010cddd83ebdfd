"""The fold: closing is monotone and in no order, and no opening undoes a closing that its signers had not seen."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shutdown.operators import NOW
from tests.switch.commands import HOLD, LIMITED, OPEN, close, commands, open_to, rules_of
from tests.switch.test_scopes import ATOMS, SCOPES

from schleuse.scopes import Direction, Scope, ScopeState, Service, atom, parse_scopes
from schleuse.switch.documents import Command, Limit
from schleuse.switch.standing import AFTER_DRILL, ByTenant, Folded, Standing, fold, refused, standing, standings

EAU = atom(Service.EAU_INTAKE, "109500969", Direction.ACCEPT)
CLOSED, DEFER, DRAIN = ScopeState.CLOSED, ScopeState.DEFER, ScopeState.DRAIN
CLOSINGS = st.lists(commands(opening=False), max_size=6)
MIXED = st.lists(commands() | st.none(), max_size=8)


@given(CLOSINGS, ATOMS)
def test_closings_lead_to_the_most_closed_of_them_in_any_order(ordered: list[Command], one: Scope) -> None:
    """SW-16."""
    found = standing(rules_of(ordered), one)
    again = standing(rules_of(ordered[::-1]), one)
    mine = [command for command in ordered if any(scope.covers(one) for scope in command.scopes)]
    expected = min((command.state for command in mine), key=lambda state: state.openness, default=OPEN)
    assert (found.state, found.limit) == (again.state, again.limit)
    assert found.state is expected


@given(MIXED, commands(opening=False), ATOMS)
def test_a_further_closing_never_makes_anything_more_open_at_any_time(
    ordered: list[Command | None], further: Command, one: Scope
) -> None:
    """SW-16, RS-14: also not later, when an emergency opening has ended."""
    before = standing(rules_of(ordered), one)
    after = standing(rules_of([*ordered, further]), one)
    for now in (NOW, NOW + timedelta(days=40_000)):
        assert after.at(now).state.openness <= before.at(now).state.openness
    assert not (after.with_backlog and not before.with_backlog)


@given(MIXED, ATOMS)
def test_repeating_every_command_changes_no_state(ordered: list[Command | None], one: Scope) -> None:
    """SW-16: idempotent. An opening that comes again is older than the closings that come again."""
    closings = [command for command in ordered if command is None or not command.opening]
    once = standing(rules_of(closings), one)
    twice = standing(rules_of([*closings, *closings]), one)
    assert (once.state, once.limit, once.since) == (twice.state, twice.limit, twice.since)


@given(MIXED, commands(opening=True), ATOMS)
def test_an_opening_does_nothing_where_something_was_closed_after_its_basis(
    ordered: list[Command | None], opened: Command, one: Scope
) -> None:
    rules = rules_of(ordered)
    newer = [
        rule
        for rule in rules
        if rule.epoch > opened.basis
        and (
            rule.command is None
            or (not rule.command.opening and any(scope.covers(one) for scope in rule.command.scopes))
        )
    ]
    if newer:
        assert standing(rules_of([*ordered, opened]), one) == standing(rules, one)


@settings(max_examples=60)
@given(MIXED, ATOMS, st.integers(0, 8))
def test_the_fold_may_be_continued_anywhere(ordered: list[Command | None], one: Scope, cut: int) -> None:
    rules = rules_of(ordered)
    assert fold(fold(Folded(), rules[:cut], one), rules[cut:], one).at == standing(rules, one)


@given(MIXED, ATOMS)
def test_the_epoch_is_that_of_the_last_command_that_concerned_the_atom(
    ordered: list[Command | None], one: Scope
) -> None:
    """SW-06: also of a closing that was less closed than what was there."""
    closings = [command for command in ordered if command is None or not command.opening]
    concerned = [
        rule.epoch
        for rule in rules_of(closings)
        if rule.command is None or any(scope.covers(one) for scope in rule.command.scopes)
    ]
    assert standing(rules_of(closings), one).epoch == max(concerned, default=0)


def test_what_nobody_can_read_holds_everything_until_two_open_it() -> None:
    """SW-02."""
    held = standing(rules_of([None]), EAU)
    assert (held.state, held.reason) == (HOLD, "security_hold")
    assert standing(rules_of([None, open_to("eau_intake", 0)]), EAU).state is HOLD
    assert standing(rules_of([None, open_to("eau_intake", 1)]), EAU).state is OPEN


def test_an_opening_for_a_wide_scope_leaves_closed_what_was_closed_meanwhile() -> None:
    at = rules_of([close("*"), close("eau_intake/109500969"), open_to("eau_intake", 1)])
    assert standing(at, EAU).state is HOLD
    assert standing(at, atom(Service.EAU_INTAKE, "109900011", Direction.ACCEPT)).state is OPEN


def test_nobody_signs_for_what_comes_later() -> None:
    """A basis that nobody can have seen is no basis."""
    assert standing(rules_of([close("*"), open_to("eau_intake", 1_000_000)]), EAU).state is HOLD


def test_an_opening_may_lead_down_the_ladder_too() -> None:
    """RS-06: from LIMITED further, and back."""
    at = [close("eau_intake", CLOSED), open_to("eau_intake", 1, LIMITED, limit=Limit(10))]
    assert standing(rules_of(at), EAU).state is LIMITED
    at.append(open_to("eau_intake", 2, LIMITED, limit=Limit(500)))
    assert standing(rules_of(at), EAU).limit == Limit(500)
    at.append(close("eau_intake", LIMITED, Limit(100, 60)))
    assert standing(rules_of(at), EAU).limit == Limit(100, 60)
    at.append(close("eau_intake", LIMITED, Limit(None, 90)))
    assert standing(rules_of(at), EAU).limit == Limit(100, 60)


def test_an_emergency_ends_by_itself_towards_closing_only() -> None:
    """RS-14, SW-03: the clock never opens, also not from CLOSED to HOLD."""
    until = NOW + timedelta(hours=1)
    emergency = standing(rules_of([close("eau_intake"), open_to("eau_intake", 1, closes_at=until)]), EAU)
    assert emergency.at(until - timedelta(seconds=1)).state is OPEN
    assert emergency.at(until).state is HOLD
    deferred = [close("eau_intake", CLOSED), open_to("eau_intake", 1, DEFER, closes_at=until)]
    assert standing(rules_of(deferred), EAU).at(until).state is DEFER


def test_a_closing_during_an_emergency_does_not_make_it_last() -> None:
    """RS-14."""
    until = NOW + timedelta(hours=1)
    for state, limit in ((LIMITED, Limit(5)), (DRAIN, None)):
        at = [close("eau_intake"), open_to("eau_intake", 1, closes_at=until), close("eau_intake", state, limit)]
        assert standing(rules_of(at), EAU).at(until).state is HOLD
    closed = [close("eau_intake"), open_to("eau_intake", 1, closes_at=until), close("eau_intake", CLOSED)]
    assert standing(rules_of(closed), EAU).at(until).state is CLOSED


def test_a_closing_does_not_let_a_backlog_go() -> None:
    """HD-40."""
    at = [close("eau_intake"), open_to("eau_intake", 1), close("eau_intake", LIMITED, Limit(5))]
    assert not standing(rules_of(at), EAU).with_backlog


def test_the_opening_of_a_drill_gives_back_what_the_drill_took_and_nothing_else() -> None:
    """SW-15."""
    drill = close("eau_intake")
    back = open_to("eau_intake", 0, stage=AFTER_DRILL, plan=drill.hash)
    assert standing(rules_of([drill, back]), EAU).state is OPEN
    assert standing(rules_of([drill, close("eau_intake", DEFER), back]), EAU).state is DEFER
    assert standing(rules_of([close("*", CLOSED), drill, back]), EAU).state is CLOSED
    until = NOW + timedelta(hours=1)
    emergency = [close("*"), open_to("eau_intake", 1, closes_at=until), drill, back]
    assert standing(rules_of(emergency), EAU).state is HOLD


def test_a_command_that_changes_nothing_is_recorded_as_refused() -> None:
    """SW-16: the more closed state wins."""
    rules = rules_of([close("eau_intake", CLOSED), close("eau_intake", HOLD)])
    assert refused(rules, rules[1]) == parse_scopes("eau_intake")
    assert refused(rules, rules[0]) == ()


def test_nothing_ordered_is_open() -> None:
    assert standing([], EAU) == Standing()


@given(MIXED, MIXED, st.lists(ATOMS | SCOPES, min_size=1, max_size=4))
def test_folding_by_tenant_is_the_same_as_folding_all(
    ordered: list[Command | None], more: list[Command | None], scopes: list[Scope]
) -> None:
    """Also in two steps, and for scopes with wildcards: what is left out never concerned the scope."""
    rules = rules_of([*ordered, *more])
    sorted_out = ByTenant().with_more(rules[: len(ordered)]).with_more(rules[len(ordered) :])
    expected = {scope: standing(rules, scope) for scope in scopes}
    assert {scope: standing(sorted_out.of(scope.tenant), scope) for scope in scopes} == expected
    assert standings(rules, scopes) == expected
