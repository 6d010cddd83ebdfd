"""How much may be opened in an hour: releases and distinct subjects, for each of several buckets (journal.md § 14.4).

A window of sixty whole minutes slides over the entries' own times, so that reading the journal back gives exactly what
was counted when it was written, and restoring a database cannot refill a bucket.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from schleuse.config import Budget
from schleuse.identifiers import IK

WINDOW_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one bucket."""

    releases_per_hour: int
    subjects_per_hour: int


#: Used where the configuration says nothing. `eau`: the backlog of an insurer's whole day at once; its mails are
#: opened under one subject, the insurer's own identity. `insurer`: what its system may fetch.
DEFAULTS = {
    "eau": Limits(400_000, 100_000),
    "insurer": Limits(200_000, 200_000),
}


def limits_of(budgets: Iterable[Budget], role: str, ik: IK) -> Limits:
    """What the configuration grants a role at an insurer: its own line, else that for all, else the default."""
    found = {one.ik: Limits(one.releases_per_hour, one.subjects_per_hour) for one in budgets if one.role == role}
    return found.get(ik.value) or found.get(None) or DEFAULTS[role]


@dataclass(slots=True)
class _Minute:
    number: int
    releases: int = 0
    subjects: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Window:
    """The last hour of one bucket."""

    minutes: deque[_Minute] = field(default_factory=deque)
    releases: int = 0
    subjects: Counter[bytes] = field(default_factory=Counter)

    def expire(self, minute: int) -> None:
        while self.minutes and self.minutes[0].number <= minute - WINDOW_MINUTES:
            old = self.minutes.popleft()
            self.releases -= old.releases
            for subject in old.subjects:
                self.subjects[subject] -= 1
                if not self.subjects[subject]:
                    del self.subjects[subject]

    def add(self, minute: int, subject: bytes) -> None:
        if not self.minutes or self.minutes[-1].number < minute:
            self.minutes.append(_Minute(minute))
        now = self.minutes[-1]  # an entry a little older than the newest counts with it
        now.releases += 1
        self.releases += 1
        if subject not in now.subjects:
            now.subjects.add(subject)
            self.subjects[subject] += 1


class Budgets:
    """All buckets. limits: of a bucket's name, None for one without limit."""

    def __init__(self, limits: Callable[[str], Limits | None]) -> None:
        self._limits = limits
        self._windows: dict[str, _Window] = {}

    def take(self, buckets: Sequence[str], subjects: Sequence[bytes], now: datetime) -> str | None:
        """One release of each subject, counted in all buckets; or the name of an exhausted one, and nothing counted."""
        minute = _minute(now)
        new = set(subjects)
        for bucket in buckets:
            limits = self._limits(bucket)
            window = self._window(bucket)
            window.expire(minute)
            if limits is None:
                continue
            known = sum(1 for subject in new if subject in window.subjects)
            if (
                window.releases + len(subjects) > limits.releases_per_hour
                or len(window.subjects) + len(new) - known > limits.subjects_per_hour
            ):
                return bucket
        for bucket in buckets:
            self._count(bucket, subjects, minute)
        return None

    def replay(self, buckets: Sequence[str], subject: bytes, at: datetime) -> None:
        """Count a release that the journal has, whatever the limits. In the order of the journal."""
        for bucket in buckets:
            self._window(bucket).expire(_minute(at))
            self._count(bucket, [subject], _minute(at))

    def left(self, bucket: str, now: datetime) -> Limits | None:
        """What may still be released in this hour; None without limit."""
        limits = self._limits(bucket)
        if limits is None:
            return None
        window = self._window(bucket)
        window.expire(_minute(now))
        return Limits(limits.releases_per_hour - window.releases, limits.subjects_per_hour - len(window.subjects))

    def _window(self, bucket: str) -> _Window:
        return self._windows.setdefault(bucket, _Window())

    def _count(self, bucket: str, subjects: Sequence[bytes], minute: int) -> None:
        window = self._window(bucket)
        for subject in subjects:
            window.add(minute, subject)


def _minute(moment: datetime) -> int:
    return int(moment.timestamp()) // 60
