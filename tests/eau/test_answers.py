"""Which certificates an employer's request meets, and what is said about it (eau.md § 17)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eau.samples import an_id

from schleuse.eau.answers import CODES, Answered, Certificate, Code, Follows, decide, follow_up, match, watched_until
from schleuse.eau.document import Period

NOON = datetime(2026, 2, 2, 12, tzinfo=UTC)
MONDAY = date(2026, 2, 2)


def day(number: int) -> date:
    """Days after that Monday."""
    return MONDAY + timedelta(days=number)


def erst(number: int, start: int, end: int) -> Certificate:
    return Certificate(number, an_id(number), NOON, Period("ERST", day(start), day(end), day(start)))


def folge(number: int, issued: int, end: int) -> Certificate:
    return Certificate(number, an_id(number), NOON, Period("FOLGE", None, day(end), day(issued)))


def found(*certificates: Certificate, on: int) -> list[int]:
    return [one.delivery for one in match(certificates, day(on)).found]


def test_the_first_rule_that_hits_counts_and_all_that_it_hits_are_said() -> None:
    """eau.md § 17.5."""
    starts, also_starts, runs, later = erst(1, 0, 4), erst(2, 0, 2), erst(3, -3, 4), erst(4, 3, 9)
    assert sorted(found(later, runs, starts, also_starts, on=0)) == [1, 2]
    assert found(later, runs, on=0) == [3]
    assert found(later, on=0) == [4]
    assert found(erst(5, 5, 9), on=0) == [5]
    assert found(erst(6, 6, 9), on=0) == []
    assert found(erst(7, -9, -1), on=0) == []


def test_a_folge_begins_after_the_end_of_the_certificate_before_it() -> None:
    first, second = erst(1, 0, 4), folge(2, issued=4, end=11)
    assert found(second, first, on=5) == [2]
    (one,) = match([first, second], day(8)).found
    assert one.period.starts_on == day(5)
    assert found(first, folge(3, issued=10, end=18), second, on=12) == [3], "a Folge of a Folge"


def test_a_folge_whose_erst_is_not_there_meets_the_days_from_its_issue_and_leaves_those_before_unclear() -> None:
    alone = folge(1, issued=4, end=11)
    assert found(alone, on=6) == [1]
    for on in (0, 3):
        result = match([alone], day(on))
        assert (result.found, result.unclear) == ((), (alone,))
        assert decide(result, waits=False) is Code.IN_REVIEW
    assert match([alone], day(12)).unclear == ()
    assert match([alone], day(-60)).unclear == ()


def test_a_folge_is_not_joined_to_a_case_of_long_ago() -> None:
    assert found(erst(1, -90, -80), folge(2, issued=4, end=11), on=0) == []


def test_an_eau_that_was_filed_before_days_were_kept_is_unclear_never_nothing() -> None:
    old = Certificate(1, an_id(1), NOON, Period())
    assert decide(match([old], MONDAY), waits=False) is Code.IN_REVIEW
    assert decide(match([old, erst(2, 0, 4)], MONDAY), waits=False) is Code.AU


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 30))), st.integers(-40, 40))
def test_while_anything_waits_it_is_never_4(periods: list[tuple[int, int]], on: int) -> None:
    """T-08, HD-09."""
    certificates = [erst(number, start, start + length) for number, (start, length) in enumerate(periods, 1)]
    result = match(certificates, day(on))
    assert decide(result, waits=True) is not Code.NONE
    assert (decide(result, waits=False) is Code.AU) == bool(result.found)


def test_schleuse_gives_three_codes_and_each_of_them_is_watched() -> None:
    """eau.md § 17.4."""
    assert [code for code, rule in CODES.items() if rule.ours] == [Code.AU, Code.NONE, Code.IN_REVIEW]
    assert {code for code, rule in CODES.items() if rule.follows is Follows.INTERIM} == {4, 7, 9}
    later = NOON + timedelta(days=20)
    assert watched_until(Code.IN_REVIEW, NOON, later) == NOON + timedelta(days=28)
    assert watched_until(Code.NONE, NOON, later) == later + timedelta(days=14)


@pytest.mark.parametrize("code", [Code.NONE, Code.IN_REVIEW])
def test_a_certificate_that_comes_later_follows(code: Code) -> None:
    said = follow_up(Answered(code), [erst(1, 0, 4)], MONDAY, waits=True)
    assert said is not None
    assert (said.code, [one.delivery for one in said.found]) == (Code.AU, [1])


def test_in_review_ends_when_nothing_waits_any_more_and_never_before() -> None:
    """HD-09."""
    assert follow_up(Answered(Code.IN_REVIEW), [], MONDAY, waits=True) is None
    said = follow_up(Answered(Code.IN_REVIEW), [], MONDAY, waits=False)
    assert said is not None
    assert said.code is Code.NONE
    assert follow_up(Answered(Code.NONE), [], MONDAY, waits=False) is None
    assert follow_up(Answered(Code.NONE), [], MONDAY, waits=True) is None


def test_an_answer_is_withdrawn_when_its_eau_is_cancelled() -> None:
    """eau.md § 17.5: Storno'd eAU do not count, also after they did."""
    assert follow_up(Answered(Code.AU, (1,)), [erst(1, 0, 4), erst(2, 0, 9)], MONDAY, waits=False) is None
    said = follow_up(Answered(Code.AU, (1,)), [erst(2, 0, 9)], MONDAY, waits=False)
    assert said is not None
    assert (said.code, said.withdrawn, [one.delivery for one in said.found]) == (Code.AU, (1,), [2])
    gone = follow_up(Answered(Code.AU, (1,)), [], MONDAY, waits=True)
    assert gone is not None
    assert (gone.code, gone.withdrawn) == (Code.IN_REVIEW, (1,))


@pytest.mark.parametrize("edge", [date.min, date.max])
@pytest.mark.parametrize("other", [date.min, date(2026, 2, 2), date.max])
def test_days_at_the_ends_of_the_calendar_are_days_like_others(edge: date, other: date) -> None:
    """What one practice wrote, or one insurer's system asked for, must not stop the answers of all."""
    for on, starts, issued in ((edge, other, other), (other, edge, edge), (other, other, edge)):
        periods = [
            Period("ERST", starts, starts, issued),
            Period("FOLGE", None, starts, issued),
            Period("FOLGE", None, date.max, issued),
        ]
        known = [Certificate(number, an_id(number), NOON, one) for number, one in enumerate(periods)]
        assert (0 in {one.delivery for one in match(known, on).found}) is (on == starts)
