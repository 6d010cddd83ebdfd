"""Budgets of the vault (journal.md § 14.4), against a reference that keeps every release and counts anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.config import Budget
from schleuse.identifiers import IK
from schleuse.vault.budgets import (
    DEFAULTS,
    MEMORY,
    WINDOW_MINUTES,
    Budgets,
    Limits,
    limits_of,
    platform_limits,
    tenant_limits,
)

START = datetime(2027, 3, 1, 8, 0, 30, tzinfo=UTC)
KASSE, OTHER = IK("109519005"), IK("101575519")
SUBJECTS = [bytes([number]) * 16 for number in range(6)]
LIMITS = {"actor": Limits(6, 3), "insurer": Limits(9, 5), "platform": platform_limits(12), "nobody": Limits(0, 0)}
ALL = ("actor", "insurer", "platform")


class Reference:
    """Keeps every release for good."""

    def __init__(self) -> None:
        self.releases: list[tuple[str, bytes, datetime]] = []
        self.newest = 0

    def take(self, buckets: list[str], subjects: list[bytes], now: datetime) -> str | None:
        if minute(now) <= self.newest - WINDOW_MINUTES:  # the clock was put right by so much
            back = timedelta(minutes=self.newest - minute(now))
            self.releases = [(bucket, subject, at - back) for bucket, subject, at in self.releases]
            self.newest = minute(now)
        self.newest = max(self.newest, minute(now))
        for bucket in buckets:
            inside = self.inside(bucket)
            after = [*inside, *subjects]
            limits = LIMITS.get(bucket)
            if limits is None or not subjects:
                continue
            if len(after) > limits.releases_per_hour or (
                len(set(after)) > limits.subjects_per_hour and set(after) != set(inside)
            ):
                return bucket
        self.releases += [(bucket, subject, now) for bucket in buckets for subject in subjects]
        return None

    def inside(self, bucket: str) -> list[bytes]:
        return [
            subject
            for name, subject, at in self.releases
            if name == bucket and minute(at) > self.newest - WINDOW_MINUTES
        ]


def minute(at: datetime) -> int:
    return int(at.timestamp()) // 60


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


requests = st.lists(
    st.tuples(
        st.lists(st.sampled_from([*ALL, "unlimited"]), unique=True, min_size=1, max_size=4),
        st.lists(st.sampled_from(SUBJECTS), max_size=5),
        st.integers(-3, 40) | st.sampled_from([-400, -62, -61, -60]),  # minutes since the one before; back, if wrong
    ),
    max_size=40,
)


@given(requests)
def test_every_answer_is_that_of_the_reference(asked: list[tuple[list[str], list[bytes], int]]) -> None:
    budgets, reference, now = Budgets(LIMITS.get), Reference(), START
    for buckets, subjects, minutes in asked:
        now += timedelta(minutes=minutes)
        assert budgets.take(buckets, subjects, now) == reference.take(buckets, subjects, now)
        for bucket in ALL:
            left, inside = budgets.left(bucket, now), reference.inside(bucket)
            assert left is not None
            assert left.releases_per_hour == LIMITS[bucket].releases_per_hour - len(inside)
            if bucket != "platform":
                assert left.subjects_per_hour == LIMITS[bucket].subjects_per_hour - len(set(inside))


@given(requests, st.randoms(use_true_random=False), requests)
def test_what_was_read_back_in_any_order_answers_as_what_was_live(
    before: list[tuple[list[str], list[bytes], int]],
    order: Random,
    after: list[tuple[list[str], list[bytes], int]],
) -> None:
    live, now, journal = Budgets(LIMITS.get), START, []
    for buckets, subjects, minutes in before:
        now += timedelta(minutes=abs(minutes))
        if live.take(buckets, subjects, now) is None:
            journal += [(buckets, subject, now) for subject in subjects]
    journal = [one for one in journal if one[2] >= now - MEMORY]
    order.shuffle(journal)
    rebuilt = Budgets(LIMITS.get)
    for buckets, subject, when in journal:
        rebuilt.replay(buckets, subject, when, now)
    for buckets, subjects, minutes in after:
        now += timedelta(minutes=abs(minutes))
        assert rebuilt.take(buckets, subjects, now) == live.take(buckets, subjects, now)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_no_sixty_minutes_have_more_than_the_limit(seconds: list[int]) -> None:
    budgets, now, granted = Budgets(LIMITS.get), START, []
    for pause in seconds:
        now += timedelta(seconds=pause)
        if budgets.take(["actor"], [SUBJECTS[0]], now) is None:
            granted.append(now)
    hour = timedelta(hours=1)
    assert max(sum(1 for one in granted if 0 * hour <= one - first < hour) for first in granted) <= 6


def test_a_batch_that_is_too_large_for_one_bucket_is_counted_in_none() -> None:
    budgets = Budgets(LIMITS.get)
    assert budgets.take(("platform", "actor"), [SUBJECTS[0]] * 7, START) == "actor"
    assert budgets.left("platform", START) == Limits(12, 12)
    assert budgets.take(("platform", "actor"), [SUBJECTS[0]] * 6, START) is None
    assert budgets.left("platform", START) == Limits(6, 6)


def test_more_subjects_than_allowed_are_refused_and_known_ones_are_not() -> None:
    budgets = Budgets(LIMITS.get)
    assert budgets.take(["actor"], SUBJECTS[:3], START) is None
    assert budgets.take(["actor"], SUBJECTS[3:4], START) == "actor"
    assert budgets.take(["actor"], SUBJECTS[:3], START) is None


def test_whoever_may_nothing_gets_nothing() -> None:
    assert Budgets(LIMITS.get).take(["nobody"], SUBJECTS[:1], START) == "nobody"


def test_a_bucket_is_whole_again_after_an_hour_and_the_minute_it_began_in() -> None:
    budgets = Budgets(LIMITS.get)
    assert budgets.take(["actor"], [SUBJECTS[0]] * 6, START) is None
    assert budgets.take(["actor"], [SUBJECTS[1]], at(60)) == "actor"
    assert budgets.take(["actor"], [SUBJECTS[1]] * 6, at(61)) is None


def test_a_subject_counts_until_an_hour_after_its_latest_release() -> None:
    budgets = Budgets(LIMITS.get)
    budgets.take(["actor"], [SUBJECTS[0]], START)
    budgets.take(["actor"], [SUBJECTS[0]], at(30))
    assert budgets.left("actor", at(61)) == Limits(5, 2)
    assert budgets.left("actor", at(91)) == Limits(6, 3)


def test_an_actor_whose_limit_becomes_known_after_the_journal_was_read_is_limited_by_what_was_read() -> None:
    limits: dict[str, Limits] = {}
    budgets = Budgets(limits.get)
    for subject in SUBJECTS[:3]:
        budgets.replay(["actor"], subject, START, START)
    limits["actor"] = LIMITS["actor"]
    assert budgets.take(["actor"], SUBJECTS[3:4], at(1)) == "actor"


@pytest.mark.parametrize("ahead", [61, 180, 366 * 24 * 60])
@pytest.mark.parametrize("released", [1, 6])
def test_a_clock_that_was_ahead_and_was_put_right_grants_neither_more_nor_nothing_for_long(
    ahead: int, released: int
) -> None:
    budgets = Budgets(LIMITS.get)
    for _ in range(released):
        assert budgets.take(["actor"], [SUBJECTS[0]], at(ahead)) is None
    granted = [budgets.take(["actor"], [SUBJECTS[0]], at(0)) for _ in range(10)].count(None)
    assert granted == 6 - released
    assert budgets.take(["actor"], [SUBJECTS[0]] * 6, at(61)) is None


def test_what_is_read_back_from_a_time_that_has_not_come_counts_as_of_now() -> None:
    budgets = Budgets(LIMITS.get)
    budgets.replay(["actor"], SUBJECTS[0], at(366 * 24 * 60), START)
    budgets.replay(["actor"], SUBJECTS[1], at(-30), START)
    assert budgets.left("actor", START) == Limits(4, 1)
    assert budgets.left("actor", at(61)) == Limits(6, 3)


def test_reading_back_what_just_became_too_old_moves_nothing() -> None:
    budgets = Budgets(LIMITS.get)
    budgets.take(["actor"], [SUBJECTS[0]], START)
    budgets.replay(["actor"], SUBJECTS[1], at(-61), START)
    assert budgets.left("actor", at(60)) == Limits(5, 2)


def test_buckets_that_nobody_used_for_an_hour_take_no_memory() -> None:
    budgets = Budgets(LIMITS.get)
    for number in range(1000):
        budgets.replay([f"actor {number}"], SUBJECTS[0], START, START)
    budgets.take(["platform"], SUBJECTS[:1], at(61))
    assert list(budgets._windows) == ["platform"]


def test_subjects_are_not_kept_where_their_number_cannot_matter() -> None:
    budgets = Budgets(LIMITS.get)
    budgets.take(["platform"], SUBJECTS, START)
    assert not budgets._windows["platform"].subjects


def test_the_line_of_an_insurer_goes_before_that_for_all_and_both_before_the_default() -> None:
    all_, own = (
        Budget(role="eau", releases_per_hour=10, subjects_per_hour=2),
        Budget(role="eau", ik=KASSE.value, releases_per_hour=20, subjects_per_hour=3),
    )
    assert limits_of([all_, own], "eau", KASSE) == Limits(20, 3)
    assert limits_of([own, all_], "eau", OTHER) == Limits(10, 2)
    assert limits_of([own, all_], "insurer", OTHER) == DEFAULTS["insurer"]


def test_an_insurer_may_as_much_as_one_actor_of_each_role_together() -> None:
    own = Budget(role="insurer", ik=KASSE.value, releases_per_hour=20, subjects_per_hour=3)
    assert tenant_limits([own], KASSE) == Limits(400_020, 1_003)


def test_by_default_the_backlog_of_a_day_of_one_insurer_is_opened_in_an_hour() -> None:
    budgets = Budgets(lambda _bucket: DEFAULTS["eau"])
    assert budgets.take(["actor"], [SUBJECTS[0]] * 400_000, START) is None
    assert budgets.take(["actor"], [SUBJECTS[0]], START) == "actor"


def test_subjects_are_counted_while_a_budget_is_raised_for_lower_limits_come_back() -> None:
    limits = {"actor": Limits(6, 2)}
    budgets = Budgets(limits.get)
    limits["actor"] = limits["actor"].at_least(6)
    assert limits["actor"] == Limits(6, 6, counted=True)
    assert budgets.take(["actor"], SUBJECTS[:3], START) is None
    limits["actor"] = Limits(6, 2)
    assert budgets.take(["actor"], SUBJECTS[3:4], START) == "actor"
    assert budgets.take(["actor"], SUBJECTS[:1], START) is None, "one that was there before"


def test_raising_makes_nothing_less_and_counts_no_subjects_needlessly() -> None:
    assert Limits(9, 2).at_least(5) == Limits(9, 5, counted=True)
    assert Limits(3, 3).at_least(5) == Limits(5, 5)
    assert Limits(7, 7).at_least(5) == Limits(7, 7)
