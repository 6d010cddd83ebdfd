"""Statements about the many rows of a batch, as texts of a few sizes, which the driver keeps prepared.

A list in SQLAlchemy's own statement is written anew with each call, and its `executemany` gives the interpreter's lock
away for every row and waits for it again while requests are served. All names in the texts are ours, all values are
bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter

import sqlalchemy as sa

#: Rows of one INSERT, or values of one list; SQLite binds at most 32,766 values.
_AT_ONCE = 256


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows with a value for every column."""
    _insert(connection, table, rows, "")


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> int:
    """The same, but what is there already stays as it is. Returns how many were not."""
    return _insert(connection, table, rows, " ON CONFLICT DO NOTHING")


def among(
    connection: sa.Connection, query: str, keys: Sequence[bytes], *first: object, end: str = ""
) -> Iterator[sa.Row[tuple[object, ...]]]:
    """Rows of a query that goes on with a list of these keys. first: values bound before; end: text after the list."""
    mark = _mark(connection)
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        size = 1 << (len(some) - 1).bit_length()
        filled = [*some, *[some[0]] * (size - len(some))]  # a key twice changes nothing
        yield from connection.exec_driver_sql(_with_list(query, size, mark, end), (*first, *filled))


def raise_versions(connection: sa.Connection, versions: Mapping[bytes, int]) -> None:
    """Of subjects; another batch may have raised one further already. In order, so that two never wait crosswise."""
    rows = sorted(versions.items())
    for start, count in _portions(len(rows)):
        values = tuple(chain.from_iterable(rows[start : start + count]))
        connection.exec_driver_sql(_raise(count, _mark(connection)), values)


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]], end: str) -> int:
    in_order, done = itemgetter(*(column.name for column in table.columns)), 0
    for start, count in _portions(len(rows)):
        values = chain.from_iterable(map(_as_tuple, map(in_order, rows[start : start + count])))
        done += connection.exec_driver_sql(_insertion(table, count, _mark(connection), end), tuple(values)).rowcount
    return done


def _as_tuple(values: object) -> tuple[object, ...]:
    """`itemgetter` of one name gives the value itself."""
    return values if isinstance(values, tuple) else (values,)


def _portions(rows: int) -> Iterator[tuple[int, int]]:
    """(start, count) with counts of 1, 2, 4 …"""
    start = 0
    while start < rows:
        count = min(1 << (rows - start).bit_length() - 1, _AT_ONCE)
        yield start, count
        start += count


def _mark(connection: sa.Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


@cache
def _insertion(table: sa.Table, count: int, mark: str, end: str) -> str:
    row = f"({', '.join([mark] * len(table.columns))})"
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    return f"INSERT INTO {table.name} ({columns}) VALUES {', '.join([row] * count)}{end}"  # noqa: S608  see above


@cache
def _with_list(query: str, size: int, mark: str, end: str) -> str:
    return f"{query.replace('?', mark)} ({', '.join([mark] * size)}){end}"


@cache
def _raise(count: int, mark: str) -> str:
    rows = ", ".join([f"({mark}, {mark})"] * count)
    return (
        f"WITH given(subject, version) AS (VALUES {rows}) "  # noqa: S608  see above
        "UPDATE vault_subject SET last_version = given.version FROM given "
        "WHERE pseudonym = given.subject AND last_version < given.version"
    )
