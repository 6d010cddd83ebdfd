"""How much may be opened in an hour: releases and distinct subjects, for each of several buckets (journal.md § 14.4).

A window of whole minutes slides over the times that stand in the entries. What is counted is a function of the set of
releases alone, in whatever order they come; so reading the journal back gives exactly what was counted when it was
written, and restoring a database cannot refill a bucket. A bucket that refills by and by could not promise this: what
is in it depends on the order and on when it began.

A clock that was ahead by more than the window and was put right takes all windows back with it: what was released
meanwhile counts as if it had been released until now, for an hour. A smaller step needs nothing, both times are inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schleuse.clock import Now
from schleuse.config import Budget
from schleuse.identifiers import IK

#: The minute that runs and the sixty before it, so that no sixty minutes have more than the limit.
WINDOW_MINUTES = 61
#: How far back a rebuild must read.
MEMORY = timedelta(minutes=WINDOW_MINUTES)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one bucket. With as many subjects as releases the subjects need not be counted, and are not.

    counted: they are all the same, for lower limits come back.
    """

    releases_per_hour: int
    subjects_per_hour: int
    counted: bool = False

    def at_least(self, releases: int) -> Limits:
        """So many releases, and as many subjects; nothing becomes less."""
        more = max(self.releases_per_hour, releases), max(self.subjects_per_hour, releases)
        return Limits(*more, counted=_counts_subjects(self))


#: Used where the configuration says nothing. `eau`: the backlog of an insurer's whole day at once; mails, letters and
#: signatures have subjects of the insurer's own, which are few. `insurer`: what one system of it may fetch.
DEFAULTS = {
    "eau": Limits(400_000, 1_000),
    "insurer": Limits(100_000, 100_000),
}


def limits_of(budgets: Iterable[Budget], role: str, ik: IK) -> Limits:
    """What the configuration grants an actor of a role at an insurer: its line, else that for all, else the default."""
    found = {one.ik: Limits(one.releases_per_hour, one.subjects_per_hour) for one in budgets if one.role == role}
    return found.get(ik.value) or found.get(None) or DEFAULTS[role]


def tenant_limits(budgets: Sequence[Budget], ik: IK) -> Limits:
    """Of all actors of an insurer together: as if it had one of each role."""
    each = [limits_of(budgets, role, ik) for role in DEFAULTS]
    return Limits(sum(one.releases_per_hour for one in each), sum(one.subjects_per_hour for one in each))


def platform_limits(releases_per_hour: int) -> Limits:
    """Of all insurers together. releases_per_hour: `config.VaultSection.releases_per_hour`."""
    return Limits(releases_per_hour, releases_per_hour)


@dataclass(slots=True)
class _Minute:
    """releases: in this minute. latest: subjects that were released in it and not again later."""

    releases: int = 0
    latest: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Window:
    """What one bucket remembers: at most WINDOW_MINUTES minutes, and each subject once."""

    newest: int
    releases: int = 0
    minutes: dict[int, _Minute] = field(default_factory=dict)
    subjects: dict[bytes, int] = field(default_factory=dict)

    def move_to(self, minute: int) -> None:
        """Forget what is too old. minute: later than any before."""
        self.newest = minute
        for old in [number for number in self.minutes if number <= minute - WINDOW_MINUTES]:
            gone = self.minutes.pop(old)
            self.releases -= gone.releases
            for subject in gone.latest:
                del self.subjects[subject]

    def move_back(self, minutes: int) -> None:
        """All of it, with what it counts."""
        self.newest -= minutes
        self.minutes = {number - minutes: minute for number, minute in self.minutes.items()}
        self.subjects = {subject: number - minutes for subject, number in self.subjects.items()}

    def add(self, number: int, releases: int, subjects: Iterable[bytes]) -> None:
        if number <= self.newest - WINDOW_MINUTES:
            return
        minute = self.minutes.get(number)
        if minute is None:
            minute = self.minutes[number] = _Minute()
        minute.releases += releases
        self.releases += releases
        for subject in subjects:
            before = self.subjects.get(subject, -1)
            if before < number:
                if before >= 0:
                    self.minutes[before].latest.discard(subject)
                self.subjects[subject] = number
                minute.latest.add(subject)

    def exceeds(self, limits: Limits, releases: int, subjects: Iterable[bytes]) -> bool:
        """Whether so much more would be too much."""
        if self.releases + releases > limits.releases_per_hour:
            return True
        if not _counts_subjects(limits):
            return False
        new = sum(1 for subject in subjects if subject not in self.subjects)
        return new > 0 and len(self.subjects) + new > limits.subjects_per_hour


@dataclass(frozen=True, slots=True)
class Raise:
    """releases: an hour. until: when it ends; ends_s: the same by a clock that nobody sets."""

    releases: int
    until: datetime
    ends_s: float


class Raised:
    """What two persons allowed beyond the limits for a while, by insurer and role (`overrides.Overrides`).

    Nothing of it outlives the process, and no clock prolongs it: it ends by the wall's or by the monotonic one
    (seconds), whichever comes first, for one may be set back and the other stands still while the machine sleeps.
    """

    def __init__(self, now: Now, monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._by: dict[tuple[IK, str], Raise] = {}

    def begin(self, ik: IK, role: str, releases: int, until: datetime) -> None:
        """In place of what was allowed before."""
        ends_s = self._monotonic() + (until - self._now()).total_seconds()
        self._by[ik, role] = Raise(releases, until, ends_s)

    def end(self, ik: IK, role: str) -> bool:
        """Whether there was anything to end."""
        return self.in_force().pop((ik, role), None) is not None

    def in_force(self) -> dict[tuple[IK, str], Raise]:
        """What has not ended."""
        now, monotonic = self._now(), self._monotonic()
        for key in [key for key, one in self._by.items() if now >= one.until or monotonic >= one.ends_s]:
            del self._by[key]
        return self._by

    def over(self, limits: Limits, ik: IK, role: str | None) -> Limits:
        """These limits of a role at an insurer, raised; role None: of all actors of the insurer together."""
        if not self._by:
            return limits
        found = [one.releases for key, one in self.in_force().items() if key[0] == ik and role in (None, key[1])]
        return limits.at_least(max(found)) if found else limits


class Budgets:
    """All buckets. limits: of a bucket's name, None while it has none; asked anew each time.

    Constant time a release and bucket. A bucket keeps 61 numbers, and its subjects (some 200 bytes each) unless its
    limits make them needless; limits bound them, so a bucket without any must not be common.
    """

    def __init__(self, limits: Callable[[str], Limits | None]) -> None:
        self._limits = limits
        self._windows: dict[str, _Window] = {}
        self._swept = 0

    def take(self, buckets: Sequence[str], subjects: Sequence[bytes], now: datetime) -> str | None:
        """One release of each subject, counted in all buckets; or the name of an exhausted one, and nothing counted.

        subjects: one for each release, repeated where a subject is released twice. now: what the entries will say.
        """
        minute, distinct = _minute(now), set(subjects)
        windows = [(self._window(bucket, minute), self._limits(bucket)) for bucket in buckets]
        for bucket, (window, limits) in zip(buckets, windows, strict=True):
            if limits is not None and window.exceeds(limits, len(subjects), distinct):
                return bucket
        for window, limits in windows:
            window.add(minute, len(subjects), distinct if limits is None or _counts_subjects(limits) else ())
        return None

    def replay(self, buckets: Sequence[str], subject: bytes, at: datetime, now: datetime) -> None:
        """Count a release that the journal has, whatever the limits.

        at: as its entry says. If that has not come yet, a clock was ahead, and the release counts as one of now.
        """
        for bucket in buckets:
            newest = self._window(bucket, _minute(now)).newest
            self._count(bucket, min(_minute(at), newest), 1, (subject,))

    def left(self, bucket: str, now: datetime) -> Limits | None:
        """What may still be released now, not below zero; None without limit."""
        limits = self._limits(bucket)
        if limits is None:
            return None
        window = self._window(bucket, _minute(now))
        releases = max(0, limits.releases_per_hour - window.releases)
        if not _counts_subjects(limits):
            return Limits(releases, releases)
        return Limits(releases, max(0, limits.subjects_per_hour - len(window.subjects)))

    def _count(self, bucket: str, minute: int, releases: int, subjects: Iterable[bytes]) -> None:
        limits = self._limits(bucket)
        counted = limits is None or _counts_subjects(limits)
        self._windows[bucket].add(minute, releases, subjects if counted else ())

    def _window(self, bucket: str, minute: int) -> _Window:
        if minute <= self._swept - WINDOW_MINUTES:
            for window in self._windows.values():
                window.move_back(self._swept - minute)
            self._swept = minute
        elif minute > self._swept:  # once a minute, for all
            self._swept = minute
            for name in list(self._windows):
                self._windows[name].move_to(minute)
                if not self._windows[name].minutes:
                    del self._windows[name]
        found = self._windows.get(bucket)
        if found is None:
            found = self._windows[bucket] = _Window(self._swept)
        return found


def _counts_subjects(limits: Limits) -> bool:
    return limits.counted or limits.subjects_per_hour < limits.releases_per_hour


def _minute(moment: datetime) -> int:
    return int(moment.timestamp()) // 60
