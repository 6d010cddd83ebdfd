"""One round trip for a batch, and one thing that cannot be served holds up no other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.eau.findings import Trouble
from schleuse.eau.trips import FIRST_REST, LONGEST_REST, Rests, ask, trouble_of
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.mail.smime.trust import NoTrustAnchorError
from schleuse.vault.contracts import (
    BadRequestError,
    CounterAheadError,
    ErasedError,
    KeyMissingError,
    NotAllowedError,
    OverBudgetError,
    VaultUnavailableError,
)

KASSE, ANDERE = IK("109900011"), IK("109900022")
NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)


class Server:
    """Doubles numbers. bad: cannot be served. budget: how many it serves at once."""

    def __init__(self, bad: dict[int, Exception] | None = None, budget: int = 1000) -> None:
        self.bad = bad or {}
        self.budget = budget
        self.trips: list[int] = []

    def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        self.trips.append(len(numbers))
        if len(numbers) > self.budget:
            raise OverBudgetError("too many")
        for number in numbers:
            if number in self.bad:
                raise self.bad[number]
        self.budget -= len(numbers)
        return [2 * number for number in numbers]


def test_nothing_to_ask_is_no_round_trip() -> None:
    server = Server()
    assert ask(server, []).answers == []
    assert server.trips == []


@pytest.mark.parametrize("error", [VaultUnavailableError("x"), KeyMissingError("x"), NotAllowedError("x"),
                                   CounterAheadError("x")])  # fmt: skip
def test_what_concerns_all_is_asked_once(error: Error) -> None:
    server = Server({2: error})
    trip = ask(server, [1, 2, 3])
    assert (trip.answers, trip.refused, server.trips) == ([error] * 3, error, [3])


@given(st.sets(st.integers(0, 9)))
def test_what_concerns_one_item_is_answered_for_it_alone(bad: set[int]) -> None:
    errors: dict[int, Exception] = {
        number: [ErasedError("x"), BadRequestError("x"), RecursionError()][number % 3] for number in bad
    }
    trip = ask(Server(errors), range(10))
    assert trip.answers == [errors.get(number, 2 * number) for number in range(10)]
    assert trip.refused is None


@given(st.integers(0, 12), st.integers(0, 12))
def test_over_the_budget_some_are_served_as_long_as_there_is_any(number: int, budget: int) -> None:
    server = Server(budget=budget)
    trip = ask(server, range(number))
    served = [answer for answer in trip.answers if not isinstance(answer, Exception)]
    assert served == [2 * one for one in range(len(served))]
    assert len(trip.answers) == number
    assert (len(served) > 0) == (number > 0 and budget > 0)
    assert isinstance(trip.refused, OverBudgetError) == (number > budget)


def test_a_vault_that_answers_too_little_is_a_mistake_of_ours() -> None:
    trip = ask(lambda numbers: [1], ["a", "b"])
    assert trip.answers == [1, 1]
    (alone,) = ask(lambda numbers: [], ["a"]).answers
    assert isinstance(alone, Exception)
    assert trouble_of(alone) is Trouble.INTERNAL


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (VaultUnavailableError("x"), Trouble.KEY),
        (OverBudgetError("x"), Trouble.BUDGET),
        (NoTrustAnchorError("x"), Trouble.TRUST),
        (ValueError("x"), Trouble.INTERNAL),
    ],
)
def test_each_error_is_the_trouble_of_a_part_of_ours(error: Exception, trouble: Trouble) -> None:
    assert trouble_of(error) is trouble


def test_an_insurer_rests_longer_from_time_to_time_and_others_do_not() -> None:
    rests, now, pauses = Rests(), NOW, []
    for _ in range(6):
        rests.note(KASSE, True, now)
        assert not rests.resting(ANDERE, now)
        start = now
        while rests.resting(KASSE, now):
            now += timedelta(seconds=1)
        pauses.append(now - start)
    assert pauses == [min(FIRST_REST * 2**n, LONGEST_REST) for n in range(6)]


def test_an_insurer_that_was_served_again_starts_anew() -> None:
    rests = Rests()
    rests.note(KASSE, True, NOW)
    rests.note(KASSE, True, NOW)
    rests.note(KASSE, False, NOW)
    assert not rests.resting(KASSE, NOW)
    rests.note(KASSE, True, NOW)
    assert not rests.resting(KASSE, NOW + FIRST_REST)
