"""The tables of the switch in the mail store, as its migrations make them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.kim.mails import KASSE, Site, a_mail, put
from tests.postgres import fresh_database

from schleuse.database import create_engine
from schleuse.eau.store import open_store
from schleuse.holding.states import State
from schleuse.kim.store import MailStore, open_leases
from schleuse.kim.store.tables import FENCE, FOLLOWED, HOLD, METADATA, TAKEN


def test_the_migrations_make_what_the_code_uses(site: Site, store: MailStore) -> None:
    engine = create_engine(site.settings.url)
    known = {table.name for table in (FENCE, FOLLOWED, HOLD, TAKEN)}
    with engine.connect() as connection:
        assert known <= set(sa.inspect(connection).get_table_names())
        columns = {column["name"] for column in sa.inspect(connection).get_columns("kim_delivery")}
        differences = compare_metadata(
            MigrationContext.configure(
                connection, opts={"include_name": lambda name, type, _: type != "table" or name in known}
            ),
            METADATA,
        )
    engine.dispose()
    assert "epoch" in columns
    assert [one for one in differences if getattr(one[1], "name", "") in known] == []


def test_a_store_from_before_the_switch_gets_the_tables_and_keeps_its_mail(site: Site) -> None:
    with site.open() as store:
        put(store, a_mail(1))
    engine = create_engine(site.settings.url)
    with engine.begin() as connection:
        for table in (
            "switch_fence",
            "kim_hold",
            "kim_followed",
            "kim_taken",
            "kim_deferral",
            "kim_origin",
            "kim_receipt",
            "kim_suspicion",
            "kim_cleared",
        ):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        for index in ("kim_delivery_quarantined", "kim_delivery_fetched"):
            connection.execute(sa.text(f"DROP INDEX {index}"))
        connection.execute(sa.text("ALTER TABLE kim_delivery DROP COLUMN epoch"))
        connection.execute(sa.text("UPDATE schleuse_kim_migrations_version SET version_num = '0002'"))
    engine.dispose()
    with site.open() as store:
        assert store.counts() == {KASSE: {State.HELD: 1}}


@pytest.mark.postgres
def test_two_stores_in_one_database_share_one_fence() -> None:
    with fresh_database() as url:
        stores = open_leases(url, Path()), open_store(url)
        for store in stores:
            store.close()
