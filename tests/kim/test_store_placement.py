"""Placing one mail, as values: who gets it, what is a duplicate, what is reported."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kim.mails import ELSEWHERE, KASSE, PRAXIS, SUCCESS, a_mail, account_of

from schleuse.holding.states import WAITING, State
from schleuse.kim.store.delivery import MAX_RECIPIENTS, delivery_id, position_of, recipient_index
from schleuse.kim.store.marks import Mark, decode, encode
from schleuse.kim.store.placement import Arrived, First, Knowledge, is_kept_by, place, twin_key
from schleuse.mail.contracts import Action, Notify, Recipient
from schleuse.mail.spool import Envelope
from schleuse.mail.spool.envelope import seal

ENVELOPE = seal(a_mail(1, KASSE, ELSEWHERE, notify=SUCCESS))
ARRIVED = Arrived(7, 500, ENVELOPE)


def knowledge(firsts: dict[bytes, First] | None = None, marks: dict[int, Mark] | None = None) -> Knowledge:
    return Knowledge(account_of, firsts if firsts is not None else {}, 99, marks or {})


@given(st.integers(0, (1 << 53) - 1), st.integers(0, MAX_RECIPIENTS))
def test_a_delivery_id_holds_position_and_recipient_and_fits_a_database(position: int, index: int) -> None:
    id = delivery_id(position, index)
    assert (position_of(id), recipient_index(id)) == (position, index)
    assert id < 1 << 63


def test_the_same_arrival_is_placed_the_same_whenever_it_is_placed() -> None:
    assert place(ARRIVED, knowledge()) == place(ARRIVED, knowledge())


def test_a_placed_delivery_says_where_its_mail_is() -> None:
    local, remote = place(ARRIVED, knowledge())
    assert (local.id, local.account, local.state) == (delivery_id(7, 0), KASSE, State.HELD)
    assert (remote.id, remote.account, remote.length) == (delivery_id(7, 1), None, 500)
    assert [report.action for report in local.reports] == [Action.DELIVERED]
    assert remote.reports == ()


def kept(state: State, *, account: str | None, envelope: Envelope = ENVELOPE) -> bool:
    return is_kept_by(First(1, account, state), envelope, envelope.recipients[0])


@pytest.mark.parametrize("state", [state for state in State if state is not State.WITHDRAWN])
def test_what_an_account_ever_had_is_a_duplicate(state: State) -> None:
    assert kept(state, account=KASSE)


@pytest.mark.parametrize("state", list(State))
def test_what_its_owner_sends_himself_is_one_only_while_it_waits(state: State) -> None:
    to_himself = seal(a_mail(1, PRAXIS.upper(), sender=PRAXIS))
    assert kept(state, account=PRAXIS, envelope=to_himself) == (state in WAITING)


@pytest.mark.parametrize("state", list(State))
def test_what_could_not_be_sent_on_is_none(state: State) -> None:
    assert kept(state, account=None) == (state not in (State.RETURNED, State.WITHDRAWN))


def test_the_key_of_a_mail_ignores_the_case_of_the_address_only() -> None:
    recipient = ENVELOPE.recipients[0]
    key = twin_key(recipient, ENVELOPE)
    assert twin_key(Recipient(recipient.address.upper()), ENVELOPE) == key
    assert twin_key(Recipient(ELSEWHERE), ENVELOPE) != key
    assert twin_key(recipient, replace(ENVELOPE, message_id="<2@x>")) != key
    assert twin_key(recipient, replace(ENVELOPE, digest=bytes(32))) != key


def test_a_second_arrival_links_to_the_first_and_takes_no_key() -> None:
    known = knowledge()
    first, _ = place(ARRIVED, known)
    second, _ = place(replace(ARRIVED, position=8), known)
    assert (second.state, second.linked_to, second.twin) == (State.DUPLICATE_LINKED, first.id, None)


def test_a_new_try_takes_the_key_over() -> None:
    key = twin_key(ENVELOPE.recipients[1], ENVELOPE)
    _, again = place(ARRIVED, knowledge({key: First(3, None, State.RETURNED)}))
    assert (again.state, again.twin, again.displaces) == (State.HELD, key, 3)


def test_a_mark_decides_when_the_index_is_rebuilt() -> None:
    id = delivery_id(7, 0)
    mark = Mark(id, 5, State.QUARANTINED, "why", reported=frozenset({Action.DELIVERED}))
    local, remote = place(ARRIVED, knowledge(marks={id: mark}))
    assert (local.state, local.reason, local.changed_us) == (State.QUARANTINED, "why", 5)
    assert [report.accepted for report in local.reports] == [True]
    assert remote.state is State.HELD


def test_a_record_that_cannot_be_read_is_one_delivery_for_people() -> None:
    (placed,) = place(Arrived(7, 64, None), knowledge())
    assert (placed.state, placed.reports) == (State.QUARANTINED, ())


@given(st.sets(st.sampled_from(Notify)), st.text(max_size=3))
def test_success_is_reported_exactly_when_it_was_asked_for_and_somebody_can_be_told(
    notify: set[Notify], sender: str
) -> None:
    envelope = seal(a_mail(1, KASSE, notify=frozenset(notify), sender=sender))
    (placed,) = place(Arrived(1, 1, envelope), knowledge())
    assert bool(placed.reports) == (Notify.SUCCESS in notify and sender != "")


MARKS = st.builds(
    Mark,
    id=st.integers(0, (1 << 63) - 1),
    at_us=st.integers(0, 1 << 60),
    state=st.none() | st.sampled_from(State),
    reason=st.none() | st.text(max_size=9),
    linked_to=st.none() | st.integers(0, 1 << 60),
    reports=st.dictionaries(
        st.sampled_from(Action),
        st.tuples(st.just("5.1.1"), st.none() | st.text(max_size=5), st.integers(0, 1 << 60)),
    ),
    reported=st.frozensets(st.sampled_from(Action)),
    may_come_again=st.booleans(),
)


def test_a_mark_of_an_older_version_is_read() -> None:
    old = b'[[7,5,"RETURNED","why",null,{},["failed"]]]'
    assert list(decode(old)) == [Mark(7, 5, State.RETURNED, "why", reported=frozenset({Action.FAILED}))]


@given(st.lists(MARKS, max_size=4))
def test_marks_come_back_as_they_were_written(marks: list[Mark]) -> None:
    assert list(decode(encode(marks))) == marks
