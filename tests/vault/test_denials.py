"""Refusals are coalesced after a hundred a minute and actor (journal.md § 14.4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schleuse.vault.denials import SINGLE_PER_MINUTE, Denials

NOON = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


def told(denials: Denials, count: int, now: datetime, actor: str = "a") -> int:
    return sum(denials.told(actor, now) for _ in range(count))


def test_a_hundred_a_minute_have_their_own_entry_and_the_rest_one_together() -> None:
    denials = Denials()
    assert told(denials, 250, NOON) == SINGLE_PER_MINUTE
    assert denials.due(NOON) == [("a", 150)]
    assert denials.due(NOON) == []


def test_every_actor_has_his_own_hundred() -> None:
    denials = Denials()
    assert told(denials, 101, NOON) == 100
    assert told(denials, 5, NOON, "b") == 5
    assert denials.due(NOON) == [("a", 1)]


def test_the_next_minute_has_a_hundred_again() -> None:
    denials = Denials()
    told(denials, 150, NOON)
    assert told(denials, 150, NOON + timedelta(minutes=1)) == 100
    assert denials.due(NOON + timedelta(minutes=1)) == [("a", 100)]


def test_a_call_of_due_or_a_clock_that_goes_back_gives_no_second_hundred() -> None:
    denials = Denials()
    told(denials, 100, NOON)
    denials.due(NOON)
    assert told(denials, 1, NOON) == 0
    assert told(denials, 1, NOON - timedelta(minutes=2)) == 0
    assert denials.due(NOON) == [("a", 2)]


def test_a_count_whose_entry_could_not_be_written_is_told_later() -> None:
    denials = Denials()
    told(denials, 110, NOON)
    ((actor, count),) = denials.due(NOON)
    denials.again(actor, count, NOON)
    told(denials, 5, NOON)
    later = NOON + timedelta(minutes=1)
    assert denials.due(later) == [("a", 15)]
    denials.again("a", 15, later)
    assert denials.due(later) == [("a", 15)]


def test_actors_who_were_not_refused_for_a_minute_take_no_memory() -> None:
    denials = Denials()
    for number in range(1000):
        denials.told(str(number), NOON)
    denials.due(NOON + timedelta(minutes=1))
    assert not denials._seen


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 90), st.booleans()), max_size=100))
def test_every_refusal_is_told_once(refusals: list[tuple[str, int, bool]]) -> None:
    denials, now, single, counted = Denials(3), NOON, 0, 0
    for actor, seconds, ask in refusals:
        now += timedelta(seconds=seconds)
        single += denials.told(actor, now)
        if ask:
            counted += sum(count for _, count in denials.due(now))
    counted += sum(count for _, count in denials.due(now))
    assert single + counted == len(refusals)
