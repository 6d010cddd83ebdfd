"""Reconciliation (incident.md § 6.8): for each practice a definite answer, from records."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schleuse.holding.resend import Account, Deferred, Received, accounts, statement, totals
from schleuse.holding.states import State

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
MAIL = Received("praxis@praxis.example", "109900011", "<1@praxis>", NOW, State.DELIVERED, held=True)
ATTEMPT = Deferred("praxis@praxis.example", "109900011", NOW, 3, came_back=True)


def the_account(*received: Received, deferred: tuple[Deferred, ...] = ()) -> Account:
    (account,) = accounts(received, deferred)
    return account


def test_whoever_sent_into_a_hold_has_nothing_to_resend() -> None:
    account = the_account(*(replace(MAIL, state=state) for state in (State.HELD, State.RELEASING, State.CONFIRMED)))
    assert not account.must_resend
    assert (account.numbers["accepted"], account.numbers["held"], account.open) == (3, 3, 2)


def test_a_returned_mail_is_named_with_its_reason() -> None:
    account = the_account(MAIL, replace(MAIL, reference="<2@praxis>", state=State.RETURNED, reason="102"))
    assert account.must_resend
    assert account.resend == [("<2@praxis>", "102")]


def test_a_duplicate_needs_nobody() -> None:
    assert not the_account(MAIL, replace(MAIL, state=State.DUPLICATE_LINKED)).must_resend


def test_attempts_that_were_deferred_and_never_came_back_are_an_answer_too() -> None:
    """§ 6.5: these practices tried and never came back."""
    assert not the_account(deferred=(ATTEMPT,)).must_resend
    lost = the_account(deferred=(replace(ATTEMPT, came_back=False),))
    assert lost.must_resend
    assert lost.deferred == 1


def test_what_a_cut_worker_left_is_listed_and_not_resent() -> None:
    """SW-10: it is in our store, whatever became of it."""
    account = the_account(replace(MAIL, state=State.HELD, uncertain=True))
    assert account.uncertain == ["<1@praxis>"]
    assert not account.must_resend


def test_each_practice_and_insurer_has_its_own_answer() -> None:
    made = accounts(
        [MAIL, replace(MAIL, ik="109900022", state=State.RETURNED, reason="101"), replace(MAIL, sender="b@x")], []
    )
    assert [(one.sender, one.ik, one.must_resend) for one in made] == [
        ("b@x", "109900011", False),
        ("praxis@praxis.example", "109900011", False),
        ("praxis@praxis.example", "109900022", True),
    ]
    assert totals(made)["must_resend"] == 1


@given(st.lists(st.tuples(st.sampled_from([one for one in State if one is not State.DEFERRED]), st.booleans())))
def test_the_numbers_of_an_account_add_up(states: list[tuple[State, bool]]) -> None:
    """HD-21: every accepted mail is counted in exactly one state."""
    made = accounts([replace(MAIL, state=state, held=held) for state, held in states], [])
    for account in made:
        apart = {"accepted", "held"}
        assert sum(n for name, n in account.numbers.items() if name not in apart) == account.numbers["accepted"]


def test_a_statement_says_yes_or_no_and_for_when() -> None:
    made = statement(the_account(MAIL), "kim.test", NOW - timedelta(days=1), NOW, NOW)
    assert made["must_resend"] == "no"
    assert made["resend"] == []
    assert (made["from"], made["to"]) == ("2026-11-24T12:00:00.000Z", "2026-11-25T12:00:00.000Z")
