"""What each scope that is limited by the hour has let out in an hour of the clock (decision 0026).

Counted in the transaction that lets it out, by all processes together: who dies has used what he counted.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from schleuse.clock import to_us

_HOUR_US = 3_600_000_000
#: Counts of earlier hours, for people to look at.
_HOURS_KEPT = 48

#: Writes even where nothing is added: with PostgreSQL this locks the row.
_COUNT = sa.text(
    "INSERT INTO kim_taken (scope, hour, count) VALUES (:scope, :hour, :count)"
    " ON CONFLICT (scope, hour) DO UPDATE SET count = kim_taken.count + excluded.count"
)
_COUNTED = sa.text("SELECT count FROM kim_taken WHERE scope = :scope AND hour = :hour")
_FORGET = sa.text("DELETE FROM kim_taken WHERE hour < :before")


def hour_of(now: datetime) -> int:
    """Hours since 1970."""
    return to_us(now) // _HOUR_US


def left(connection: Connection, scope: str, hour: int, per_hour: int) -> int:
    """How many more may go out; until the transaction ends nobody else counts. Ask for scopes in order: no deadlock."""
    count(connection, scope, hour, 0)
    counted = connection.execute(_COUNTED, {"scope": scope, "hour": hour}).scalar_one()
    return max(per_hour - int(counted), 0)


def count(connection: Connection, scope: str, hour: int, units: int) -> None:
    """So many go out now; less than 0: so many that were counted did not."""
    connection.execute(_COUNT, {"scope": scope, "hour": hour, "count": units})


def forget(connection: Connection, hour: int) -> None:
    """Counts that are older than anybody looks at."""
    connection.execute(_FORGET, {"before": hour - _HOURS_KEPT})
