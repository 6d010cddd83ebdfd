"""Opening a database that is damaged, newer than we are, or not to be reached; and what its errors never say."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from schleuse.database import (
    DatabaseCorruptError,
    DatabaseMissingError,
    DatabaseTooNewError,
    DatabaseUnavailableError,
    asking,
    create_engine,
    open_database,
    sqlite_url,
)
from schleuse.kim.store.leases import MIGRATIONS


def test_a_file_that_is_no_database_is_damage_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "kim.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseCorruptError):
        open_database(sqlite_url(tmp_path / "kim.sqlite"), MIGRATIONS)


def test_tables_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "kim.sqlite")
    engine = open_database(url, MIGRATIONS)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE schleuse_kim_migrations_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(DatabaseTooNewError, match="newer version"):
        open_database(url, MIGRATIONS)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailableError):
        open_database(sqlite_url(tmp_path / "file" / "kim.sqlite"), MIGRATIONS)


def test_an_error_of_the_database_quotes_no_values(tmp_path: Path) -> None:
    engine = create_engine(sqlite_url(tmp_path / "some.sqlite"))
    with pytest.raises(sa.exc.SQLAlchemyError) as caught, engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO nowhere VALUES (:address)"), {"address": "dr.meier@praxis"})
    engine.dispose()
    assert "meier" not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailableError):
        open_database("postgresql+psycopg://nobody@127.0.0.1:1/none", MIGRATIONS)


def test_who_asks_another_role_makes_no_database_for_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "kim.sqlite"
    with pytest.raises(DatabaseMissingError), asking(sqlite_url(path)):
        pass
    assert not path.parent.exists()


def test_who_asks_waits_for_no_writer(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "kim.sqlite")
    engine = open_database(url, MIGRATIONS)
    count = sa.text("SELECT count(*) FROM kim_delivery")
    with engine.begin(), asking(url) as connection:  # BEGIN IMMEDIATE: the one writer is at work
        assert connection.execute(count).scalar_one() == 0
    engine.dispose()


def test_what_another_role_did_not_make_or_has_damaged_comes_out_as_ours(tmp_path: Path) -> None:
    create_engine(sqlite_url(tmp_path / "empty.sqlite")).connect().close()
    with pytest.raises(DatabaseUnavailableError), asking(sqlite_url(tmp_path / "empty.sqlite")) as connection:
        connection.execute(sa.text("SELECT count(*) FROM kim_delivery"))
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseCorruptError), asking(sqlite_url(tmp_path / "bad.sqlite")):
        pass
