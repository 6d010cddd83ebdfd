"""The one place that reads the time. Everything else takes `now` as an argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Now = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The current instant, with zone UTC."""
    return datetime.now(UTC)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970, as tables and entries keep an instant."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The instant, with zone UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)
