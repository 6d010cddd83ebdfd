"""Each test of the mail store runs on both: embedded (segments and SQLite) and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kim.mails import Site
from tests.postgres import fresh_database

from schleuse.database import sqlite_url
from schleuse.kim.store import MailStore, Settings


@pytest.fixture
def embedded(tmp_path: Path) -> Site:
    """For what only segments have: torn tails, marks, a lost index."""
    return Site(
        Settings(
            url=sqlite_url(tmp_path / "kim.sqlite"),
            spool=tmp_path / "spool",
            host="kim.example",
            segment_bytes=1 << 16,
            reserve_bytes=0,
        )
    )


@pytest.fixture(params=["embedded", pytest.param("postgres", marks=pytest.mark.postgres)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "embedded":
        yield request.getfixturevalue("embedded")
    else:
        with fresh_database() as url:
            yield Site(Settings(url=url, spool=tmp_path, host="kim.example"))


@pytest.fixture
def store(site: Site) -> Iterator[MailStore]:
    with site.open() as opened:
        yield opened
