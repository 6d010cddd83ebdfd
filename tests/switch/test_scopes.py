"""Scopes: what covers what, and that a scope's text reads as the same scope again (incident.md § 1.4, appendix A)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.scopes import (
    ANY,
    GROUPS,
    NONE,
    BadScopeError,
    Direction,
    Scope,
    ScopeState,
    Service,
    atom,
    parse_scopes,
)

IKS = ("109500969", "109900011")
SCOPES = st.builds(
    Scope,
    st.sampled_from([*(one.value for one in Service), ANY]),
    st.sampled_from([*IKS, NONE, ANY]),
    st.sampled_from([*(one.value for one in Direction), ANY]),
    st.sampled_from(["", "smtp", "a.b:c@d-e_f", ANY]),
)
ATOMS = st.builds(
    atom, st.sampled_from(Service), st.sampled_from([*IKS, NONE]), st.sampled_from(Direction), st.just(NONE)
)


def test_the_order_of_openness_is_that_of_appendix_a() -> None:
    order = ["CLOSED", "DEFER", "HOLD", "DRAIN", "LIMITED", "OPEN"]
    assert sorted(ScopeState, key=lambda one: one.openness) == [ScopeState(one) for one in order]


def test_hold_takes_in_and_begins_nothing_and_drain_begins_nothing_either() -> None:
    """HD-02; § 1.4."""
    assert {one for one in ScopeState if one.accepts} == {
        ScopeState.HOLD,
        ScopeState.DRAIN,
        ScopeState.LIMITED,
        ScopeState.OPEN,
    }
    assert {one for one in ScopeState if one.begins} == {ScopeState.LIMITED, ScopeState.OPEN}


@given(SCOPES)
def test_the_text_of_a_scope_is_read_as_the_same_scope(scope: Scope) -> None:
    if scope.service == ANY:
        assert {one.service for one in parse_scopes(str(scope))} == {one.value for one in GROUPS["all"]}
    else:
        assert parse_scopes(str(scope)) == (scope,)


@given(SCOPES, ATOMS)
def test_a_scope_covers_an_atom_exactly_if_they_meet(scope: Scope, one: Scope) -> None:
    assert one.is_atom
    assert scope.covers(one) == scope.meets(one)


@given(SCOPES, SCOPES, SCOPES)
def test_covering_is_transitive_and_what_covers_meets(a: Scope, b: Scope, c: Scope) -> None:
    assert a.covers(a)
    if a.covers(b):
        assert a.meets(b)
    if a.covers(b) and b.covers(c):
        assert a.covers(c)
    if a.covers(b) and b.covers(a):
        assert a == b
    assert a.meets(b) == b.meets(a)


def test_everything_leaves_the_status_channel_open() -> None:
    """RS-10."""
    closed = {one.service for one in parse_scopes("*")}
    assert closed == {one.service for one in parse_scopes("all")}
    assert {one.value for one in Service} - closed == {"status", "contact"}


def test_a_group_stands_for_its_services_with_the_same_rest() -> None:
    assert parse_scopes("eau/109500969/accept") == (
        Scope("eau_intake", "109500969", "accept"),
        Scope("eau_employer_answer", "109500969", "accept"),
    )


def test_a_dash_is_nobody_and_what_is_left_out_is_everybody() -> None:
    assert parse_scopes("kim_mail/-/accept/-") == (atom(Service.KIM_MAIL, NONE, Direction.ACCEPT),)
    assert parse_scopes("kim_mail") == (Scope("kim_mail"),)


@pytest.mark.parametrize(
    "text",
    ["", "/", "eau_intake/1", "eau_intake/10950096٣", "eau_intake/*/open", "fax", "a/b/c/d/e", "eau_intake/*/accept/ä"]
    + ["eau_intake/109500969\n", "eau_intake/*/accept/" + "x" * 129],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(BadScopeError):
        parse_scopes(text)


@given(st.text(max_size=40))
def test_any_text_is_scopes_or_refused(text: str) -> None:
    try:
        found = parse_scopes(text)
    except BadScopeError:
        return
    assert found


def test_an_atom_has_exactly_one_scope_without_wildcards() -> None:
    atoms = [atom(service, NONE, direction) for service, direction in product(Service, Direction)]
    assert len(set(atoms)) == len(atoms) == 13 * 8
