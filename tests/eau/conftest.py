"""Stores for the tests of this folder: the same tests run on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgres import fresh_database

from schleuse.database import sqlite_url
from schleuse.eau.store import EauStore, open_store

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "eau.sqlite")
        return
    with fresh_database() as url:
        yield url


@pytest.fixture
def open_eau(database: str) -> Iterator[Callable[[], EauStore]]:
    """Opens the same store again and again, as processes that come and go do."""
    opened: list[EauStore] = []

    def open_one() -> EauStore:
        opened.append(open_store(database))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_eau: Callable[[], EauStore]) -> EauStore:
    return open_eau()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[EauStore]:
    """For tests above the store, where the database does not matter."""
    store = open_store(sqlite_url(tmp_path / "eau.sqlite"))
    yield store
    store.close()
