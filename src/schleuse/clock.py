"""The one place that reads the time. Everything else takes `now` as an argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """The current instant, with zone UTC."""
    return datetime.now(UTC)
