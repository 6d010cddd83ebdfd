"""What a running stage asks each second (RS-07)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from tests.eau.samples import eau, faulty, file

from schleuse.database import create_engine, sqlite_url
from schleuse.eau.store import open_store
from schleuse.processes.restart_evidence import DECIDED


def test_decisions_of_a_stage_are_counted_without_reading_all_that_was_ever_decided(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "eau.sqlite")
    with closing(open_store(url)) as store:
        file(store, eau(1), faulty(2), eau(3))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE eau_received SET epoch = delivery"))
        values = {"epoch": 2, "probe": "-"}
        row = connection.execute(DECIDED, values).one()
        assert (row.decided, row.errors) == (2, 1)
        plan = connection.execute(sa.text(f"EXPLAIN QUERY PLAN {DECIDED.text}"), values).all()
        assert ["SEARCH" in step[3] for step in plan] == [True]
    engine.dispose()
