"""What an insurer looks for in the entries of its own log; pure (journal.md § 16).

Entries come in their order, each once. What must be remembered between them is `Memory`, which is kept with the
position in the log, and a question to the store whether an event or a spooled object was there before.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from schleuse.errors import MalformedError
from schleuse.journal.entry import NOBODY, Entry, Kind, Purpose, Result, parse_entry
from schleuse.witness.alarm import Alarm, Finding

CLOCK_OFF = timedelta(minutes=10)  #: between an entry and the cosignatures that cover it (§ 16)
WINDOW = timedelta(hours=1)  #: of the budget of persons, at every moment the hour before it
LATE = timedelta(minutes=10)  #: so long a release number may be missing: a vault settles what is in doubt in minutes
MAX_GAPS = 1000  #: more at once are told at once
_LATE_US = LATE // timedelta(microseconds=1)
_WINDOW_US = WINDOW // timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TWO_ACTORS = frozenset({Kind.BREAK_GLASS, Kind.BUDGET_OVERRIDE})
_OPENS = frozenset({Kind.READ, Kind.EXPORT, Kind.KEY_RELEASED})


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """canaries: subject pseudonyms that nobody may access; secret, so repr() shows nothing.

    subjects_per_hour: per actor; None for no limit. denials_in_series: so many make one alarm.
    """

    canaries: frozenset[bytes] = frozenset()
    subjects_per_hour: int | None = None
    denials_in_series: int = 20


@dataclass(frozen=True, slots=True)
class Gap:
    """Release numbers of which no entry has come, both included. at_us: time of the entry that showed it."""

    first: int
    last: int
    at_us: int

    def __str__(self) -> str:
        return f"release {self.first}" if self.first == self.last else f"releases {self.first} to {self.last}"


@dataclass(slots=True)
class Memory:
    """What the entries so far have left behind.

    counts: entries by kind and result, for `reconcile`. counter: highest release counter of the vault; gaps: what
    is missing below it; reported: what it said last about it by itself (§ 14.5). denials: by actor, since his last
    success. persons: by actor, whom he opened within the last hour and when, in µs since 1970, the longest ago
    first. over: when an actor was last told about. All of it is kept over a restart, so that nobody's hour begins
    anew with ours.
    """

    counts: Counter[str] = field(default_factory=Counter)
    counter: int | None = None
    reported: int | None = None
    denials: dict[bytes, int] = field(default_factory=dict)
    persons: dict[bytes, OrderedDict[bytes, int]] = field(default_factory=dict)
    over: dict[bytes, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Between:
    """When what is looked at was cosigned: after `low_s` and not later than `high_s`; None where nobody knows."""

    low_s: int | None = None
    high_s: int | None = None

    def off_s(self, at_s: float) -> float:
        """How many seconds a time is outside."""
        low = 0.0 if self.low_s is None else self.low_s - at_s
        high = 0.0 if self.high_s is None else at_s - self.high_s
        return max(low, high, 0.0)


class Known:
    """Which events and spooled objects the log has had; a fake for tests, and the interface of `monitor_store`."""

    def __init__(self) -> None:
        self.events: set[bytes] = set()
        self.spooled: dict[bytes, int] = {}

    def is_new_event(self, event: bytes) -> bool:
        """Remember an event; False if it was there."""
        new = event not in self.events
        self.events.add(event)
        return new

    def spool(self, obj: bytes, stage: int) -> bool:
        """A spooled object reaches stage 0, 1 or 2; False if it was not at the stage before (§ 15)."""
        fits = self.spooled.get(obj, -1) == stage - 1
        self.spooled[obj] = stage
        return fits


class Watcher:
    """Looks at the entries of one log. is_new_event, spool: see `Known`."""

    def __init__(
        self,
        origin: str,
        settings: Settings,
        memory: Memory,
        is_new_event: Callable[[bytes], bool],
        spool: Callable[[bytes, int], bool],
    ) -> None:
        self._origin = origin
        self._settings = settings
        self._memory = memory
        self._is_new_event = is_new_event
        self._spool = spool

    def look(self, index: int, data: bytes, cosigned: Between) -> Iterator[Alarm]:
        """What does not fit about entry `index`."""
        try:
            entry = parse_entry(data)
        except MalformedError as cause:
            self._memory.counts["UNKNOWN"] += 1
            yield Alarm(Finding.UNKNOWN_ENTRY, self._origin, str(cause), index)
            return
        self._memory.counts[f"{entry.kind.name} {entry.result.name}"] += 1
        if entry.kind is Kind.KEY_ROTATED:  # one entry for many keys, each of which was unwrapped once
            self._memory.counts[ROTATED] += entry.count or 1
        for finding, text in self._findings(entry, cosigned):
            yield Alarm(finding, self._origin, text, index)

    def _findings(self, entry: Entry, cosigned: Between) -> Iterator[tuple[Finding, str]]:
        if not self._is_new_event(entry.event.bytes):
            yield Finding.REPEATED_EVENT, f"event {entry.event} stands twice"
        if (off := cosigned.off_s(entry.at.timestamp())) > CLOCK_OFF.total_seconds():
            yield Finding.CLOCK, f"the entry says a time {round(off)} s off the cosignatures"
        if entry.subject in self._settings.canaries and entry.purpose is not Purpose.CANARY:
            yield Finding.CANARY, f"{entry.kind.name} by actor {entry.actor.hex()} on a person who does not exist"
        if entry.kind in _TWO_ACTORS and entry.second_actor in {None, NOBODY, entry.actor}:
            yield Finding.NO_SECOND_ACTOR, f"{entry.kind.name} by actor {entry.actor.hex()} alone"
        if entry.kind in _OPENS and entry.result is Result.GRANTED and entry.purpose is Purpose.NONE:
            yield Finding.NO_PURPOSE, f"{entry.kind.name} by actor {entry.actor.hex()} without purpose"
        yield from self._counter(entry)
        yield from self._denials(entry)
        yield from self._budget(entry)
        yield from self._spooled(entry)

    def _counter(self, entry: Entry) -> Iterator[tuple[Finding, str]]:
        """The vault numbers its releases without gaps (§ 14.5); a gap is a release whose entry is missing.

        Batches in flight together change places when a connection breaks, so what is missing may still come for a
        while. At each start the vault says its number by itself, and then there must be so many entries of releases at
        least.
        """
        at_us = _at_us(entry)
        for gap in self._overdue(at_us):
            yield Finding.COUNTER_GAP, f"no entry of {gap} has come"
        if entry.kind is Kind.LOG_OPENED:  # numbers begin with each log
            self._memory.counter = self._memory.counter or 0
        found, last = entry.release_counter, self._memory.counter
        if entry.kind is Kind.ADMINISTRATION and found is not None:
            self._memory.reported = found
            if found > (entries := releases(self._memory.counts)):
                yield Finding.COUNTS_DIFFER, f"the vault reports {found} releases, there are {entries} entries of them"
        if entry.kind is not Kind.KEY_RELEASED or found is None:
            return
        if last is None or found > last:
            if last is not None and found > last + 1:
                self._memory.gaps.append(Gap(last + 1, found - 1, at_us))
            self._memory.counter = found
        elif not self._fill(found):
            yield Finding.COUNTER_GAP, f"release {found} stands twice, or long after its place"

    def _fill(self, number: int) -> bool:
        """Whether this number was missing: batches in flight together change places when a connection breaks."""
        gaps = self._memory.gaps
        for place, gap in enumerate(gaps):
            if gap.first <= number <= gap.last:
                around = Gap(gap.first, number - 1, gap.at_us), Gap(number + 1, gap.last, gap.at_us)
                gaps[place : place + 1] = [one for one in around if one.first <= one.last]
                return True
        return False

    def _overdue(self, now_us: int) -> list[Gap]:
        gaps = self._memory.gaps
        late = [one for one in gaps if one.at_us <= now_us - _LATE_US] or gaps[:-MAX_GAPS]
        for one in late:
            gaps.remove(one)
        return late

    def _denials(self, entry: Entry) -> Iterator[tuple[Finding, str]]:
        denials = self._memory.denials
        if entry.result is not Result.DENIED and entry.kind is not Kind.LOGIN_FAILED:
            if entry.result is not Result.FAILED:  # whoever mixes in what cannot succeed hides nothing
                denials.pop(entry.actor, None)
            return
        limit = self._settings.denials_in_series
        before = denials.get(entry.actor, 0)
        # One entry may stand for many: denials are counted together when they flood (§ 14.4).
        denials[entry.actor] = before + (entry.count or 1)
        if before < limit <= denials[entry.actor]:
            yield Finding.DENIALS, f"{denials[entry.actor]} refusals in a row for actor {entry.actor.hex()}"

    def _budget(self, entry: Entry) -> Iterator[tuple[Finding, str]]:
        limit, memory = self._settings.subjects_per_hour, self._memory
        if limit is None or entry.kind not in _OPENS or NOBODY in {entry.actor, entry.subject}:
            return
        at_us = _at_us(entry)
        persons = memory.persons.setdefault(entry.actor, OrderedDict())
        persons[entry.subject] = at_us
        persons.move_to_end(entry.subject)
        while next(iter(persons.values())) <= at_us - _WINDOW_US:
            persons.popitem(last=False)
        if len(persons) <= limit:
            return
        persons.popitem(last=False)  # the longest ago: whether too many are left, the others still tell
        if at_us - memory.over.get(entry.actor, 0) >= _WINDOW_US:
            memory.over[entry.actor] = at_us
            yield Finding.OVER_BUDGET, f"more than {limit} persons within an hour by actor {entry.actor.hex()}"

    def _spooled(self, entry: Entry) -> Iterator[tuple[Finding, str]]:
        stage = _STAGES.get(entry.kind)
        if stage is not None and entry.result is Result.GRANTED and not self._spool(entry.object, stage):
            yield Finding.SPOOL_GAP, f"{entry.kind.name} without the step before it, or twice"


_STAGES: Mapping[Kind, int] = {Kind.SPOOL_ACCEPTED: 0, Kind.SPOOL_OPENED: 1, Kind.SPOOL_DELIVERED: 2}


#: Among the counts: keys that were brought under a new key encryption key.
ROTATED = "KEYS ROTATED"


def releases(counts: Mapping[str, int]) -> int:
    """Entries of releases that were granted; a release of the vault is one of them."""
    return counts.get(f"{Kind.KEY_RELEASED.name} {Result.GRANTED.name}", 0)


def reconcile(origin: str, counts: Mapping[str, int], *, vault: int, hsm: int | None) -> list[Alarm]:
    """Compare the three numbers of § 14.5: entries, the vault's counter, the HSM's own.

    The log is an upper bound (§ 1): there may be entries without a release, and never a release without an entry.
    hsm: how often it unwrapped, for releases and for rotations; fewer than releases is normal, because the vault
    remembers keys for a minute (§ 14.3).
    """
    entries = releases(counts)
    found = []
    if vault > entries:
        found.append(f"the vault counts {vault} releases, the log {entries}")
    explained = entries + counts.get(ROTATED, 0)
    if hsm is not None and hsm > explained:
        found.append(f"the HSM counts {hsm} unwraps, the log explains {explained}")
    return [Alarm(Finding.COUNTS_DIFFER, origin, text) for text in found]


def _at_us(entry: Entry) -> int:
    return (entry.at - _EPOCH) // timedelta(microseconds=1)
