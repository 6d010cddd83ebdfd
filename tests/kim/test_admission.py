"""Live traffic before backlog, and as far as a limited scope is open (HD-43)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.kim.mails import KASSE, START

from schleuse.kim.store import HoldWindow, Take
from schleuse.kim.store.admission import Range, held_for, mix, open_ranges
from schleuse.kim.store.delivery import SHARE_SQL, delivery_id, share_of
from schleuse.kim.store.holds import ALL


@dataclass(frozen=True)
class Row:
    id: int
    account: str = KASSE


#: A hold that ended at delivery 100; of its backlog nothing is released.
ENDED = HoldWindow(KASSE, 1, "c1", "drill", 40, START, 100, START + timedelta(hours=5), 2, 0, None)
HELD_NOW = replace(ENDED, to_id=None, ended_at=None, ended_epoch=None)
TAKE = Take(KASSE)


def test_without_windows_a_mailbox_is_one_range() -> None:
    assert open_ranges([TAKE], {}).live == (Range(KASSE),)
    assert open_ranges([TAKE], {}).backlog == ()


def test_of_a_mailbox_that_is_held_nothing_is_open() -> None:
    """HD-25."""
    found = open_ranges([TAKE], {KASSE: [replace(ENDED, epoch=0, released_to=ALL), HELD_NOW]})
    assert (found.live, found.backlog) == ((), ())


def test_after_a_hold_only_what_came_later_is_open() -> None:
    """HD-40: the backlog needs a release of its own."""
    found = open_ranges([TAKE], {KASSE: [ENDED]})
    assert (found.live, found.backlog) == ((Range(KASSE, above=100),), ())


def test_backlog_is_open_as_far_as_it_is_released() -> None:
    assert open_ranges([TAKE], {KASSE: [replace(ENDED, released_to=60)]}).backlog == (Range(KASSE, 0, 60),)
    whole = open_ranges([TAKE], {KASSE: [replace(ENDED, released_to=ALL)]})
    assert whole.backlog == (Range(KASSE, 0, 100),)
    assert whole.released == (replace(ENDED, released_to=ALL),)


def test_each_hold_has_its_own_release() -> None:
    second = replace(ENDED, epoch=3, to_id=200, released_to=ALL)
    found = open_ranges([TAKE], {KASSE: [ENDED, second]})
    assert found.backlog == (Range(KASSE, 100, 200),)
    assert found.live == (Range(KASSE, above=200),)


def test_live_traffic_goes_first_and_backlog_gets_its_share_of_a_full_batch() -> None:
    """HD-43."""
    live, backlog = [Row(id) for id in range(1000, 1100)], [Row(id) for id in range(100)]
    taken = mix(live, backlog, 10, {KASSE: 300})
    assert [row.id for row in taken] == [0, 1, 2, *range(1000, 1007)]


def test_what_live_traffic_leaves_free_backlog_gets() -> None:
    taken = mix([Row(1000)], [Row(id) for id in range(100)], 10, {KASSE: 300})
    assert [row.id for row in taken] == [*range(9), 1000]


def test_a_share_of_nothing_is_only_what_is_free() -> None:
    live, backlog = [Row(id) for id in range(1000, 1010)], [Row(1)]
    assert mix(live, backlog, 10, {KASSE: 0}) == live
    assert mix(live[:9], backlog, 10, {KASSE: 0}) == [Row(1), *live[:9]]


def test_a_batch_of_one_is_backlog_as_often_as_its_share_says() -> None:
    backlog = [Row(1)]
    taken = Counter(mix([Row(delivery_id(n, 0))], backlog, 1, {KASSE: 300})[0].id == 1 for n in range(1, 2001))
    assert 500 < taken[True] < 700


@given(st.sets(st.integers(0, 500)), st.sets(st.integers(501, 999)), st.integers(1, 64), st.integers(0, 1000))
def test_a_batch_is_as_full_as_it_can_be_and_in_order(old: set[int], new: set[int], limit: int, share: int) -> None:
    live, backlog = [Row(id) for id in sorted(new)], [Row(id) for id in sorted(old)]
    taken = [row.id for row in mix(live, backlog, limit, {KASSE: share})]
    assert len(taken) == min(limit, len(old) + len(new))
    assert taken == sorted(set(taken))
    of_backlog = [id for id in taken if id <= 500]
    assert of_backlog == sorted(old)[: len(of_backlog)]  # oldest first
    assert len(of_backlog) <= max(limit - len(new), limit * share // 1000 + 1)


def test_a_greater_share_is_the_smaller_one_and_more() -> None:
    """And near its number, whether positions grow by rows or by the octets of mails of one size."""
    for stride in (1, 25_000, 8192, 1000, 24_576):
        places = [share_of(delivery_id(n * stride, 0)) for n in range(1, 20_001)]
        assert 0 <= min(places) <= max(places) < 1000
        assert 160 < sum(place < 10 for place in places) < 240
        assert 5700 < sum(place < 300 for place in places) < 6300


@given(st.integers(1, (1 << 62) - 1))
def test_the_database_chooses_the_same_deliveries(id: int) -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT {SHARE_SQL} FROM (SELECT {id} AS id) AS t")).scalar_one()
    engine.dispose()
    assert found == share_of(id)


def test_how_long_a_mail_was_held_is_counted_from_the_hold_or_from_its_acceptance() -> None:
    """HD-46."""
    now = START + timedelta(hours=6)
    assert held_for(50, START + timedelta(hours=1), [ENDED], now) == timedelta(hours=5)
    assert held_for(10, START - timedelta(hours=1), [ENDED], now) == timedelta(hours=6)
    assert held_for(101, START + timedelta(hours=5), [ENDED], now) == timedelta(0)
