"""Identifiers: shapes, check digits, and that personal data does not leak by being printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.identifiers import IK, KVNR, BadIKError, BadKVNRError, kvnr_check_digit


def test_a_kvnr_hides_itself_when_printed() -> None:
    kvnr = KVNR("A123456780")
    assert repr(kvnr) == str(kvnr) == "KVNR('A********0')"
    assert f"{kvnr}" == "KVNR('A********0')"


def test_the_published_example_has_the_right_check_digit() -> None:
    assert KVNR("A123456780").has_check_digit


def test_a_wrong_check_digit_is_told_and_not_refused() -> None:
    assert not KVNR("A123456781").has_check_digit


@given(st.from_regex(r"[A-Z][0-9]{8}", fullmatch=True))
def test_one_changed_digit_changes_the_check_digit(first_nine: str) -> None:
    changed = first_nine[:-1] + str((int(first_nine[-1]) + 1) % 10)
    assert kvnr_check_digit(first_nine) != kvnr_check_digit(changed)


@pytest.mark.parametrize("value", ["", "A12345678", "a123456780", "A12345678٣", "A123456780 "])
def test_other_shapes_are_no_kvnr(value: str) -> None:
    with pytest.raises(BadKVNRError):
        KVNR(value)


@pytest.mark.parametrize("value", ["", "12345678", "1234567890", "12345678x", "１２３４５６７８９"])
def test_other_shapes_are_no_ik(value: str) -> None:
    with pytest.raises(BadIKError):
        IK(value)
