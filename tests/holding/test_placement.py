"""Taken, held or deferred, and nothing else (HD-01, HD-02, HD-03)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.holding.capacity import Level
from schleuse.holding.placement import Deferred, Held, Taken, Why, place
from schleuse.scopes import ScopeState, Service
from schleuse.switch.standing import Standing, safe_standing

EAU, LETTER = Service.EAU_INTAKE, Service.KIM_MAIL


@pytest.mark.parametrize("state", [ScopeState.OPEN, ScopeState.LIMITED, ScopeState.DRAIN])
def test_open_limited_and_draining_scopes_take_what_comes(state: ScopeState) -> None:
    assert place(EAU, Standing(state, 7), Level.PLENTY) == Taken(state, 7)


def test_a_held_scope_goes_on_accepting() -> None:
    """HD-02: the practice sees success, no paper is produced, nothing is decrypted."""
    assert place(EAU, Standing(ScopeState.HOLD, 7), Level.PLENTY) == Held(ScopeState.HOLD, 7)


@pytest.mark.parametrize("state", [ScopeState.DEFER, ScopeState.CLOSED])
def test_a_closed_scope_defers(state: ScopeState) -> None:
    """HD-03."""
    assert place(EAU, Standing(state, 7), Level.PLENTY) == Deferred(Why.SWITCH, 7)


def test_a_role_that_cannot_read_its_switch_holds() -> None:
    """SW-02: unknown means HOLD."""
    assert isinstance(place(EAU, safe_standing("damaged", 3), Level.PLENTY), Held)


def test_a_full_store_defers_letters_and_takes_eau() -> None:
    """T-18."""
    assert place(LETTER, Standing(), Level.LETTERS_WAIT) == Deferred(Why.ROOM, 0)
    assert place(EAU, Standing(), Level.LETTERS_WAIT) == Taken(ScopeState.OPEN, 0)


@given(st.sampled_from([EAU, LETTER]), st.sampled_from(ScopeState), st.sampled_from(Level))
def test_whatever_is_accepted_was_allowed_by_the_state(service: Service, state: ScopeState, level: Level) -> None:
    taken = not isinstance(place(service, Standing(state), level), Deferred)
    assert taken <= state.accepts
