"""When a mail that could not be passed on is tried again, and when it is given up (RFC 5321 § 4.5.4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Schedule:
    """Doubling waits from first to longest, then every longest, until give_up_after since acceptance.

    RFC 5321 proposes 30 minutes and 4-5 days. We begin sooner: a practice looks for its receipt the same day
    (eau.md), and the first failure is mostly a restart of the other side.
    """

    first: timedelta = timedelta(minutes=1)
    longest: timedelta = timedelta(hours=1)
    give_up_after: timedelta = timedelta(days=5)
    report_delay_after: timedelta = timedelta(hours=4)


def next_attempt(
    schedule: Schedule, *, attempts: int, accepted_at: datetime, now: datetime, jitter: float
) -> datetime | None:
    """The moment of the next attempt, or None when the time is over and the mail has failed.

    attempts: made before the one that just failed. jitter: 0 to 1; spreads the wait by a fifth to both sides, so
    that what failed together does not come back together. The last attempt is made when the time is over.
    """
    deadline = accepted_at + schedule.give_up_after
    if now >= deadline:
        return None
    wait = min(schedule.first * (1 << min(max(attempts, 0), 20)), schedule.longest)
    return min(now + wait * (0.8 + 0.4 * jitter), deadline)


def delay_is_due(schedule: Schedule, *, accepted_at: datetime, now: datetime) -> bool:
    """Whether the sender should hear that his mail still waits."""
    return now - accepted_at >= schedule.report_delay_after
