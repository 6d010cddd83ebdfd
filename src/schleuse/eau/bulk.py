"""Many rows into one table in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows that all have the same columns.

    PostgreSQL gets them by COPY, which costs the client and the server less than pipelined INSERTs.
    A unique key that is violated raises the same IntegrityError either way.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, table, rows)
    else:
        connection.execute(sa.insert(table), rows)


def _copy(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    columns = [table.c[name] for name in rows[0]]
    binds = [column.type.dialect_impl(_DIALECT).bind_processor(_DIALECT) for column in columns]
    names = ", ".join(f'"{column.name}"' for column in columns)
    driver: Any = connection.connection.driver_connection
    order = f'COPY "{table.name}" ({names}) FROM STDIN (FORMAT BINARY)'
    try:
        with driver.cursor() as cursor, cursor.copy(order) as copy:
            copy.set_types([_type(column) for column in columns])
            for row in rows:
                values = row.values()
                copy.write_row([bind(value) if bind else value for bind, value in zip(binds, values, strict=True)])
    except connection.dialect.loaded_dbapi.Error as cause:
        raise sa.exc.DBAPIError.instance(
            order, None, cause, connection.dialect.loaded_dbapi.Error, dialect=connection.dialect
        ) from cause


def _type(column: sa.Column[Any]) -> str:
    """What PostgreSQL calls the type, without its length."""
    return column.type.compile(_DIALECT).partition("(")[0].lower()
