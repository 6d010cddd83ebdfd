"""Random bytes that are read many at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schleuse.vault.drawn import Drawn


@given(st.integers(1, 64), st.lists(st.integers(0, 200), max_size=40))
def test_a_draw_is_never_short_whatever_was_drawn_before(portion: int, sizes: list[int]) -> None:
    random = Drawn(portion)
    assert [len(random(size)) for size in sizes] == sizes


def test_nothing_is_given_out_twice() -> None:
    random = Drawn(100)
    found = [random(16) for _ in range(10_000)]
    assert len(set(found)) == len(found)


def test_two_of_them_differ() -> None:
    assert Drawn()(32) != Drawn()(32)
