"""The capacity ladder (HD-28, T-18)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.holding.capacity import Level, Room, has_room
from schleuse.scopes import Service

GIB = 1 << 30


@pytest.mark.parametrize(
    ("percent", "level"),
    [
        (0, Level.PLENTY),
        (69, Level.PLENTY),
        (70, Level.WARN),
        (84, Level.WARN),
        (85, Level.SCALE_OUT),
        (94, Level.SCALE_OUT),
        (95, Level.LETTERS_WAIT),
        (100, Level.LETTERS_WAIT),
    ],
)
def test_the_steps_are_at_70_85_and_95_percent_of_what_may_be_filled(percent: int, level: Level) -> None:
    total, reserve = 104 * GIB, 4 * GIB
    assert Room(total - percent * GIB, total, reserve).level is level


def test_letters_wait_before_the_reserve_of_the_store_is_reached() -> None:
    room = Room(free=5 * GIB, total=80 * GIB, reserve=4 * GIB)
    assert (room.level, room.free > room.reserve) == (Level.LETTERS_WAIT, True)


def test_a_disk_smaller_than_its_reserve_is_full() -> None:
    assert Room(free=GIB, total=GIB, reserve=4 * GIB).level is Level.LETTERS_WAIT


@given(st.sampled_from(Level))
def test_eau_are_taken_at_every_level(level: Level) -> None:
    assert has_room(level, Service.EAU_INTAKE)
    assert has_room(level, Service.KIM_MAIL) == (level is not Level.LETTERS_WAIT)
