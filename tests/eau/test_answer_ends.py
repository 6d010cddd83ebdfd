"""How employers' requests end: over, or cancelled; what is left names nobody, and numbers go on (eau.md § 17)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, NOON, file, storno
from tests.eau.test_answer_store import ANOTHER, ASKED, LATER, PERSON, au, followed, nothing, something

from schleuse.database import transaction
from schleuse.eau.answer_ends import KEPT
from schleuse.eau.answer_store import RequestCancelledError
from schleuse.eau.answers import CODES, Code
from schleuse.eau.store import EauStore
from schleuse.eau.switched import AnswerTerms, answering
from schleuse.eau.tables import FOLLOW_UP, REQUEST
from schleuse.switch.fence import StaleEpochError


def kept(store: EauStore) -> tuple[int, int]:
    """Rows of requests, and of what followed."""
    with transaction(store._engine) as connection:
        return len(connection.execute(REQUEST.select()).all()), len(connection.execute(FOLLOW_UP.select()).all())


def test_nothing_follows_a_request_that_was_cancelled_and_what_did_is_withdrawn(store: EauStore) -> None:
    """Also not after a Storno, which would withdraw its answer."""
    for id, person in (("ds-1", PERSON), ("ds-2", ANOTHER)):
        store.answers.answer(AN_INSURER, replace(ASKED, id=id, person=person), NOON, waits=something)
    file(store, au(1))
    assert [one.request for one in followed(store)] == ["ds-1", "ds-2"]
    file(store, au(3, ANOTHER))
    store.answers.ends.cancel(AN_INSURER, "ds-2", LATER)
    store.answers.ends.cancel(AN_INSURER, "ds-2", LATER)
    file(store, storno(2, of=1), au(4, ANOTHER))
    assert [(one.request, one.code) for one in followed(store)] == [("ds-1", Code.AU), ("ds-1", Code.NONE)]
    assert [seq for seq, _ in store.answers.follow_ups(AN_INSURER, 0, 10)] == [1, 3]
    assert [one.id for one in store.answers.open(AN_INSURER, LATER)] == ["ds-1"]


def test_of_a_cancelled_request_no_pseudonym_is_left_and_its_id_is_used_for_good(store: EauStore) -> None:
    """A POST that was under way comes too late, and is no new request."""
    by_name = replace(ASKED, other=ANOTHER)
    store.answers.answer(AN_INSURER, by_name, NOON, waits=nothing)
    store.answers.ends.cancel(AN_INSURER, ASKED.id, LATER)
    with transaction(store._engine) as connection:
        (row,) = connection.execute(REQUEST.select())
    assert (row.person, row.other, row.deliveries) == (b"", None, "[]")
    with pytest.raises(RequestCancelledError):
        store.answers.answer(AN_INSURER, by_name, LATER, waits=nothing)


def test_a_cancellation_that_overtakes_its_request_is_remembered_as_long_as_that_of_any(store: EauStore) -> None:
    """The network may bring the DELETE first: the POST that comes late is cancelled, and not answered for ever."""
    store.answers.answer(AN_INSURER, replace(ASKED, id="ds-2"), NOON, waits=something)
    for _ in range(2):
        assert not store.answers.ends.cancel(AN_INSURER, ASKED.id, NOON)
    with pytest.raises(RequestCancelledError):
        store.answers.answer(AN_INSURER, ASKED, LATER, waits=something)
    assert not store.answers.ends.cancel(AN_INSURER, ASKED.id, LATER)
    assert [one.id for one in store.answers.open(AN_INSURER, LATER)] == ["ds-2"]
    assert store.answers.counts(AN_INSURER, LATER) == {Code.IN_REVIEW: 1}
    store.answers.answer(ANOTHER_INSURER, ASKED, NOON, waits=something)  # its ids are its own
    file(store, au(1))
    assert [one.request for one in followed(store)] == ["ds-2"]
    assert store.answers.ends.forget(AN_INSURER, NOON + KEPT - timedelta(seconds=1)) == 0
    assert store.answers.ends.forget(AN_INSURER, NOON + KEPT) == 1
    assert store.answers.answer(AN_INSURER, ASKED, NOON + KEPT, waits=something).code is Code.AU


def test_while_retention_is_frozen_a_cancellation_takes_nothing_away_and_afterwards_it_does(store: EauStore) -> None:
    """SW-12: who asks for whom with a stolen key, and cancels it, must not take the traces away."""
    store.answers.answer(AN_INSURER, replace(ASKED, other=ANOTHER), NOON, waits=something)
    assert len(followed(store)) == 1
    file(store, au(1))
    assert store.answers.ends.cancel(AN_INSURER, ASKED.id, LATER, frozen=True)
    with transaction(store._engine) as connection:
        (row,), (said,) = connection.execute(REQUEST.select()), connection.execute(FOLLOW_UP.select())
    assert (row.person, row.other, bool(said.answer)) == (ASKED.person, ANOTHER, True)
    assert followed(store) == []
    assert store.answers.open(AN_INSURER, LATER) == []
    with pytest.raises(RequestCancelledError):
        store.answers.answer(AN_INSURER, replace(ASKED, other=ANOTHER), LATER, waits=nothing)
    assert store.answers.ends.forget(AN_INSURER, LATER) == 0
    with transaction(store._engine) as connection:
        (row,), (said,) = connection.execute(REQUEST.select()), connection.execute(FOLLOW_UP.select())
    assert (row.person, row.other, row.deliveries, said.answer) == (b"", None, "[]", "")


def test_a_request_that_is_over_is_kept_as_long_as_replies_are_and_goes_with_what_followed(store: EauStore) -> None:
    """eau.md § 17.1: 42 days after the end of its time."""
    for id, person in (("ds-1", PERSON), ("ds-2", ANOTHER)):
        store.answers.answer(AN_INSURER, replace(ASKED, id=id, person=person), NOON, waits=something)
    file(store, au(1))
    assert [one.code for one in followed(store)] == [Code.AU, Code.NONE]
    none, au_ = (LATER + (CODES[code].watched or timedelta()) + KEPT for code in (Code.NONE, Code.AU))
    assert store.answers.ends.forget(AN_INSURER, none - timedelta(seconds=1)) == 0
    assert store.answers.ends.forget(ANOTHER_INSURER, au_) == 0
    assert kept(store) == (2, 2)
    assert store.answers.ends.forget(AN_INSURER, none) == 1
    assert [one.request for one in followed(store, now=none)] == ["ds-1"]
    assert store.answers.ends.forget(AN_INSURER, au_) == 1
    assert kept(store) == (0, 1)  # the newest number keeps its place, without an answer
    with transaction(store._engine) as connection:
        (row,) = connection.execute(FOLLOW_UP.select())
    assert (row.seq, row.request, row.answer) == (2, "", "")


def test_numbers_go_on_after_everything_was_forgotten(store: EauStore) -> None:
    """A cursor of yesterday must not skip the answers of today."""
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    assert len(followed(store)) == 1
    assert store.answers.ack(AN_INSURER, "benefits", 1) == (1, 1)
    end = LATER + timedelta(days=365)
    assert store.answers.ends.forget(AN_INSURER, end) == 1
    assert store.answers.position(AN_INSURER, "benefits") == (1, 1)
    store.answers.answer(AN_INSURER, ASKED, end, waits=something)
    assert store.answers.follow(AN_INSURER, end, waits=nothing) == 1
    assert [seq for seq, _ in store.answers.follow_ups(AN_INSURER, 1, 10)] == [2]
    assert store.answers.ends.forget(AN_INSURER, end) == 0
    assert kept(store) == (1, 1)


def test_nothing_ends_under_an_epoch_that_has_passed(store: EauStore) -> None:
    """SW-06, SW-12: what was closed meanwhile loses nothing."""
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=nothing)
    store.raise_fence({answering(AN_INSURER): 5}, 5)
    end = NOON + timedelta(days=365)
    with pytest.raises(StaleEpochError):
        store.answers.ends.forget(AN_INSURER, end, AnswerTerms(4, 0))
    with pytest.raises(StaleEpochError):
        store.answers.ends.cancel(AN_INSURER, ASKED.id, LATER, AnswerTerms(4, 0))
    assert kept(store) == (1, 0)
    assert store.answers.ends.forget(AN_INSURER, end, AnswerTerms(5, 0)) == 1


def test_nothing_follows_a_request_that_is_cancelled_while_its_answer_is_being_made(store: EauStore) -> None:
    """The desk has looked at it as one in review, and the employer is faster (HD-09)."""

    @contextmanager
    def overtaken() -> Iterator[None]:
        store.answers.ends.cancel(AN_INSURER, ASKED.id, LATER)
        yield

    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    assert store.answers.follow(AN_INSURER, LATER, waits=nothing, unit=overtaken) == 0
    assert store.answers.follow_ups(AN_INSURER, 0, 10) == []
    assert store.answers.open(AN_INSURER, LATER) == []


def test_a_request_that_was_cancelled_is_not_looked_at_when_the_clock_is_set_back(store: EauStore) -> None:
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    store.answers.ends.cancel(AN_INSURER, ASKED.id, LATER)
    before = LATER - timedelta(hours=1)
    assert store.answers.open(AN_INSURER, before) == []
    assert store.answers.counts(AN_INSURER, before) == {}
    assert store.answers.follow(AN_INSURER, before, waits=nothing) == 0
