"""Conservation: nothing is missing, nothing is there twice, and what is wrong has a name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.holding.reconcile import SHOWN, Books, reconcile
from schleuse.holding.states import State

ROUTED = [state for state in State if state not in (State.ACCEPTED, State.DEFERRED)]
STATES = st.dictionaries(st.sampled_from(ROUTED), st.integers(0, 50))
GOOD = Books(
    recorded=5,
    retired=2,
    unrouted=1,
    states={"k": {State.HELD: 2, State.DELIVERED: 3}, "p": {State.CONFIRMED: 2}},
)


def test_books_that_agree_hold() -> None:
    outcome = reconcile(GOOD)
    assert outcome.holds
    assert (outcome.accepted, outcome.accounted) == (8, 8)
    assert [(account.name, account.total) for account in outcome.accounts] == [("k", 5), ("p", 2)]
    assert outcome.total(State.HELD) == 2
    assert outcome.total(State.ACCEPTED) == 1


@given(st.dictionaries(st.text(max_size=3), STATES, max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_they_hold_exactly_when_the_sums_are_equal(
    states: dict[str, dict[State, int]], unrouted: int, surplus: int
) -> None:
    total = sum(sum(each.values()) for each in states.values())
    books = Books(recorded=total + surplus, retired=0, unrouted=unrouted, states=states)
    outcome = reconcile(books)
    assert outcome.holds == (surplus == 0)
    assert sum(outcome.total(state) for state in State) == outcome.accounted


def test_a_missing_mail_and_one_too_many_are_told_apart() -> None:
    assert reconcile(replace(GOOD, recorded=6)).findings == ("9 accepted, 8 accounted for: 1 missing",)
    assert reconcile(replace(GOOD, recorded=3)).findings == ("6 accepted, 8 accounted for: 2 too many",)


@pytest.mark.parametrize("field", ["without_delivery", "without_record", "damaged", "broken_links", "unreported"])
def test_each_kind_of_fault_names_the_deliveries(field: str) -> None:
    (finding,) = reconcile(replace(GOOD, **{field: [4711, 4712]})).findings  # type: ignore[arg-type]
    assert finding.startswith("2 × ")
    assert finding.endswith(": 4711, 4712")


def test_a_long_list_is_cut_but_counted() -> None:
    (finding,) = reconcile(replace(GOOD, damaged=range(1000))).findings
    assert finding.startswith("1000 × ")
    assert finding.endswith(f"{SHOWN - 1}, …")


def test_what_heals_by_itself_is_a_remark() -> None:
    outcome = reconcile(replace(GOOD, finished_but_waiting=[1]))
    assert outcome.holds
    assert len(outcome.remarks) == 1


@pytest.mark.parametrize("state", [State.ACCEPTED, State.DEFERRED])
def test_no_delivery_is_accepted_or_deferred(state: State) -> None:
    outcome = reconcile(Books(1, 0, 0, {"k": {state: 1}}))
    assert not outcome.holds
