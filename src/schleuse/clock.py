"""The one place that reads the time. Everything else takes `now` as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Uptime:
    """Which boot of the machine, "" if it cannot be told, and how long ago that was, sleep included."""

    boot: str
    since: timedelta


def machine_uptime() -> Uptime:
    """Counted by the kernel, whatever the clock is set to."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Uptime(_boot(), timedelta(microseconds=time.clock_gettime_ns(clock) // 1000))


def boot_id(proc: Path = Path("/proc")) -> str:
    """Of this start of the machine; "" where the kernel does not tell."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


#: No process outlives its boot.
_boot = cache(boot_id)
