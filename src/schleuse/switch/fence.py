"""The fence: a role's own database knows the epoch of each atom, and refuses effects of an older one (SW-06).

`raise_to` is called by whoever learns of a new epoch first; `require` stands in the transaction of each effect. A
worker that slept through a closing is refused there, whatever it believes. Each database has the table by its own
migration (`create_table` of this file).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.errors import ConflictError
from schleuse.scopes import Scope

#: Row of the highest epoch that this database has seen, below which no copy of the switch is believed.
HEAD = "head"

#: scope: text of an atom, or HEAD. epoch: of the last command that concerned it.
TABLE_NAME = "switch_fence"
COLUMNS = (("scope", sa.Text, True), ("epoch", sa.BigInteger, False))

_RAISE = sa.text(
    "INSERT INTO switch_fence (scope, epoch) VALUES (:scope, :epoch)"
    " ON CONFLICT (scope) DO UPDATE SET epoch = excluded.epoch WHERE switch_fence.epoch < excluded.epoch"
)
_READ = sa.text("SELECT epoch FROM switch_fence WHERE scope = :scope")
#: Shared by effects, exclusive for the one that raises it: after `raise_to` has committed, no older effect can commit.
_READ_SHARED = sa.text("SELECT epoch FROM switch_fence WHERE scope = :scope FOR SHARE")
_READ_MANY = sa.text("SELECT scope, epoch FROM switch_fence WHERE scope IN :scopes").bindparams(
    sa.bindparam("scopes", expanding=True)
)
_READ_MANY_SHARED = sa.text(
    "SELECT scope, epoch FROM switch_fence WHERE scope IN :scopes ORDER BY scope FOR SHARE"
).bindparams(sa.bindparam("scopes", expanding=True))


class StaleEpochError(ConflictError):
    """The effect carries an older epoch than the store: its scope was switched meanwhile. Nothing was done."""

    code = "switch.stale-epoch"


def define_table(metadata: sa.MetaData) -> sa.Table:
    """The table as a part of this metadata."""
    return sa.Table(
        TABLE_NAME, metadata, *(sa.Column(name, kind, primary_key=key, nullable=False) for name, kind, key in COLUMNS)
    )


def raise_to(connection: Connection, epochs: Mapping[Scope, int], head: int) -> None:
    """From now on nothing older. epochs: of each atom of this role; head: the highest of all. Never lowers."""
    rows = [{"scope": str(scope), "epoch": epoch} for scope, epoch in sorted(epochs.items())]  # one order: no deadlock
    connection.execute(_RAISE, [*rows, {"scope": HEAD, "epoch": head}])


def require(connection: Connection, scope: Scope, epoch: int) -> None:
    """Refuse an effect of this atom that was decided under an older epoch. Raises StaleEpochError."""
    query = _READ_SHARED if connection.dialect.name == "postgresql" else _READ
    found = connection.execute(query, {"scope": str(scope)}).scalar_one_or_none()
    if found is None and connection.dialect.name == "postgresql":
        # No row, no lock: make one, so that whoever raises it meets us.
        connection.execute(_RAISE, {"scope": str(scope), "epoch": 0})
        found = connection.execute(query, {"scope": str(scope)}).scalar_one()
    if found is not None and found > epoch:
        raise StaleEpochError(f"{scope} was switched at epoch {found}; this work began at epoch {epoch}")


def stale(connection: Connection, epochs: Mapping[Scope, int]) -> frozenset[Scope]:
    """Those of these atoms that were switched since: `require` for the work of several at once, which goes on for the
    others (T-24)."""
    shared = connection.dialect.name == "postgresql"
    query = _READ_MANY_SHARED if shared else _READ_MANY
    names = {str(scope): scope for scope in epochs}
    found: dict[str, int] = {}
    if names:
        found = _read(connection, query, names)
    if shared and len(found) < len(names):  # no row, no lock: see `require`
        connection.execute(_RAISE, [{"scope": name, "epoch": 0} for name in sorted(names.keys() - found.keys())])
        found = _read(connection, query, names)
    return frozenset(names[name] for name, epoch in found.items() if epoch > epochs[names[name]])


def _read(connection: Connection, query: sa.TextClause, names: Iterable[str]) -> dict[str, int]:
    return {row.scope: row.epoch for row in connection.execute(query, {"scopes": sorted(names)})}


def head(connection: Connection) -> int:
    """The highest epoch that this database has seen, 0 if none."""
    return connection.execute(_READ, {"scope": HEAD}).scalar_one_or_none() or 0
