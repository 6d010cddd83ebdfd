"""What a sender of the largest mails can make the store hold in memory at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.kim.mails import ELSEWHERE, KASSE, LEASE, START, SUCCESS, Site, a_mail, content, put

from schleuse.kim.store import Take
from schleuse.kim.store.bodies import MAX_READ, as_many_as_fit


@dataclass
class Row:
    size: int


def test_as_many_rows_as_fit_are_taken_in_order() -> None:
    rows = [Row(4), Row(5), Row(2), Row(1)]
    assert as_many_as_fit(rows, 9) == rows[:2]
    assert as_many_as_fit(rows, 12) == rows


def test_one_row_is_taken_however_large_it_is_and_none_of_none() -> None:
    assert as_many_as_fit([Row(7), Row(1)], 3) == [Row(7)]
    assert as_many_as_fit([], 3) == []


def test_three_mails_of_half_the_bound_come_in_two_batches_to_everybody_who_reads_them(embedded: Site) -> None:
    with embedded.open(segment_bytes=MAX_READ) as store:
        for number in range(3):
            mail = a_mail(number, KASSE, ELSEWHERE, notify=SUCCESS)
            put(store, replace(mail, content=content(number, size=MAX_READ // 2 - 1000)))
        assert len(store.pending_reports(10)) == 2
        assert [len(store.queue.due(START, 10)) for _ in range(3)] == [2, 1, 0]
        assert [len(store.leases.claim([Take(KASSE)], 10, "w", START, LEASE).mails) for _ in range(3)] == [2, 1, 0]
