"""What a rate by the hour counts in the feed and of letters: what went out in the hour before now (decision 0026)."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

_HOUR = timedelta(hours=1)


def lately(at: sa.Column[datetime], now: datetime) -> sa.ColumnElement[bool]:
    """Whether this was in the hour before now; what lies far in the future is of a clock that was set back since."""
    return at.between(now - _HOUR + timedelta(microseconds=1), now + _HOUR)
