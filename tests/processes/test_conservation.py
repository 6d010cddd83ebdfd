"""Conservation over both stores: what the comparison finds, and what it lets heal (HD-21)."""

from __future__ import annotations

import pytest

from schleuse.holding.states import State
from schleuse.processes.conservation import compare, undecided

KASSE = "eau@kasse.kim.telematik-test"


def found(delivered: dict[int, State], decided: dict[int, State]) -> list[str]:
    return list(compare(KASSE, delivered, decided))


@pytest.mark.parametrize("open_state", [State.HELD, State.RELEASING, State.QUARANTINED])
def test_a_decision_that_the_mail_store_has_not_heard_of_heals(open_state: State) -> None:
    assert found({1: open_state}, {1: State.DELIVERED}) == []


def test_what_the_insurer_confirmed_was_decided_as_delivered() -> None:
    assert found({1: State.CONFIRMED}, {1: State.DELIVERED}) == []
    assert found({1: State.CONFIRMED}, {1: State.RETURNED}) != []


def test_two_stores_that_differ_are_found() -> None:
    [finding] = found({1: State.DELIVERED, 2: State.DELIVERED}, {1: State.RETURNED, 2: State.DELIVERED})
    assert "different things of 1: 1" in finding


@pytest.mark.parametrize("state", [State.RETURNED, State.CONFIRMED])
def test_nobody_but_the_eau_role_returns_or_confirms(state: State) -> None:
    [finding] = found({5: state}, {})
    assert "without a decision" in finding


def test_a_decision_about_an_unknown_delivery_is_found() -> None:
    [finding] = found({}, {9: State.DELIVERED})
    assert "unknown to the mail store: 1: 9" in finding


def test_a_duplicate_that_the_mail_store_linked_itself_needs_no_decision() -> None:
    assert found({1: State.DUPLICATE_LINKED}, {}) == []


def test_mail_that_an_insurer_took_out_by_pop3_is_a_remark() -> None:
    [remark] = undecided(KASSE, {3: State.DELIVERED, 4: State.HELD}, {})
    assert "taken out by POP3" in remark
