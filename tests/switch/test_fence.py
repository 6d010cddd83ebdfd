"""The epoch in a role's own database: an effect of an older one is refused in its transaction (SW-06, T-05).

The stores of the services test the same on both of their databases; this is the rule alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import Connection
from tests.switch.test_scopes import ATOMS

from schleuse.scopes import Direction, Scope, Service, atom
from schleuse.switch import fence

EAU = atom(Service.EAU_INTAKE, "109500969", Direction.DELIVER)
OTHER = atom(Service.EAU_INTAKE, "109900011", Direction.DELIVER)


@pytest.fixture
def connection() -> Iterator[Connection]:
    yield from connect()


def connect() -> Iterator[Connection]:
    engine = sa.create_engine("sqlite://")
    metadata = sa.MetaData()
    fence.define_table(metadata)
    metadata.create_all(engine)
    with engine.connect() as found:
        yield found
    engine.dispose()


def test_a_late_worker_is_refused_at_the_store(connection: Connection) -> None:
    """T-05."""
    fence.require(connection, EAU, 0)
    fence.raise_to(connection, {EAU: 7}, 7)
    with pytest.raises(fence.StaleEpochError, match="epoch 7"):
        fence.require(connection, EAU, 6)
    fence.require(connection, EAU, 7)
    fence.require(connection, EAU, 8)


def test_another_insurers_work_goes_on(connection: Connection) -> None:
    """T-24."""
    fence.raise_to(connection, {EAU: 7, OTHER: 3}, 7)
    fence.require(connection, OTHER, 3)
    assert fence.stale(connection, {EAU: 6, OTHER: 6}) == {EAU}
    assert fence.stale(connection, {}) == frozenset()


@given(st.lists(st.tuples(ATOMS, st.integers(0, 9)), max_size=8))
def test_a_fence_only_rises(raised: list[tuple[Scope, int]]) -> None:
    for connection in connect():
        for one, epoch in raised:
            fence.raise_to(connection, {one: epoch}, epoch)
        assert fence.head(connection) == max((epoch for _, epoch in raised), default=0)
        for one in {one for one, _ in raised}:
            highest = max(epoch for other, epoch in raised if other == one)
            fence.require(connection, one, highest)
            assert fence.stale(connection, {one: highest - 1}) == {one}
