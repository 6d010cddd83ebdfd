"""What a crash leaves, and what only an older store explains (decision 0020)."""

from __future__ import annotations

import pytest

from schleuse.vault.reflected import IN_FLIGHT_US, Changes, Difference, Key, KeyChanges, Known, compare

ANNA, BERT = b"a" * 16, b"b" * 16
NOW = 10**15


def difference(
    changes: KeyChanges, versions: dict[bytes, int], *keys: Key, erased: tuple[bytes, ...] = ()
) -> Difference:
    return compare(changes, Known(versions, set(keys), set(erased)))


def test_what_the_store_reflects_is_no_difference() -> None:
    changes = KeyChanges({(ANNA, 1): NOW, (BERT, 1): NOW}, {(ANNA, 1)}, {BERT}, NOW)
    assert difference(changes, {ANNA: 1}, (ANNA, 1), erased=(BERT,)) == Difference(frozenset(), {}, frozenset())


@pytest.mark.parametrize(("age_us", "lost"), [(0, False), (IN_FLIGHT_US, False), (IN_FLIGHT_US + 1, True)])
def test_a_key_that_was_in_flight_at_the_end_is_used_up_and_an_older_one_is_lost(age_us: int, lost: bool) -> None:
    changes = KeyChanges({(ANNA, 2): NOW - age_us}, last_us=NOW)
    found = difference(changes, {ANNA: 1}, (ANNA, 1))
    assert found.used_up == {ANNA: 2}
    assert found.lost == ({(ANNA, 2)} if lost else set())


def test_a_version_that_the_store_counts_as_given_was_never_kept() -> None:
    assert not difference(KeyChanges({(ANNA, 2): 0}, last_us=NOW), {ANNA: 2}).lost


def test_a_subject_that_is_not_here_and_a_key_that_was_released_are_lost_however_new() -> None:
    changes = KeyChanges({(BERT, 1): NOW}, {(ANNA, 2)}, set(), NOW)
    assert difference(changes, {ANNA: 2}).lost == {(BERT, 1), (ANNA, 2)}


def test_of_a_person_who_was_erased_nothing_is_lost() -> None:
    changes = KeyChanges({(ANNA, 1): 0, (BERT, 1): 0}, {(ANNA, 1), (BERT, 1)}, {ANNA}, NOW)
    found = difference(changes, {ANNA: 1}, (ANNA, 1), erased=(BERT,))
    assert found == Difference(frozenset({ANNA}), {}, frozenset())


def test_the_store_reflects_nothing_above_a_change_that_is_on_its_way() -> None:
    changes = Changes()
    first = changes.begin(5)
    second = changes.begin(7)
    assert changes.reflected(9, ending=second) == 5
    changes.end(second)
    assert changes.reflected(9, ending=first) == 9
    changes.end(first)
    assert changes.reflected(12) == 12


def test_an_erasure_that_is_done_at_last_ends_the_attempts_before_it() -> None:
    changes = Changes()
    changes.begin(3, ANNA)
    other = changes.begin(4, BERT)
    retry = changes.begin(6, ANNA)
    assert changes.reflected(9, ending=retry) == 4
    changes.end(retry)
    changes.end(other)
    assert changes.reflected(9) == 9
