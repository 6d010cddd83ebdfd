"""Which time the journal believes before it does what nobody can undo (journal.md § 17; decision 0023).

A clock may be set to anything. How long this machine has run since its last look it counts by itself, and what others
have signed (§ 8) they have signed at a time of theirs. So the present lies between two bounds: `certain`, which only
time that was counted, that a quorum of witnesses signed, or that a person vouched for can raise; and `latest`, which is
the same unless the machine was off in between and nobody knows for how long. A clock outside of them is not believed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schleuse.errors import MalformedError

#: A clock that is so far off is believed still (journal.md § 4 gives writers as much).
TOLERANCE = timedelta(seconds=120)
#: Followed from one look to the next: what a clock that runs a little fast or slow does in a minute.
DRIFT = timedelta(seconds=1)
#: After another boot nobody knows how long the machine was off; so much is believed without being asked about.
ABSENCE = timedelta(days=30)
#: A cosignature that is younger says what time it is; an older one only that it was later than that (§ 9.4).
FRESH = timedelta(minutes=15)

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
#: No clock says more, and an uptime that is added stays below what a `datetime` can hold.
FAR = datetime(9000, 1, 1, tzinfo=UTC)


class BadMarkError(MalformedError):
    """The journal's mark of the time cannot be read; then nothing is certain until witnesses or an operator say it."""

    code = "journal.bad-mark"


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clocks. wall: what the clock says. boot, uptime: which boot of the machine, and how long ago."""

    wall: datetime
    boot: str
    uptime: timedelta


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known of the time at `uptime` of `boot`.

    certain: it is not earlier. latest: it is hardly later. now: what is taken for the time.
    off: the clock said so much more (or less, if negative) than can be believed; None if it is believed.
    """

    boot: str
    uptime: timedelta
    certain: datetime
    now: datetime
    latest: datetime
    off: timedelta | None = None

    @property
    def is_doubted(self) -> bool:
        """Whether the clock is not believed."""
        return self.off is not None


def first(at: Reading) -> Belief:
    """Whoever starts a journal looks at its clock: there is nothing yet that it could contradict."""
    return vouched(at)


def vouched(at: Reading) -> Belief:
    """Somebody has said that this clock is right."""
    return Belief(at.boot, at.uptime, at.wall, at.wall, at.wall)


def unknown(at: Reading) -> Belief:
    """The mark is lost: the clock serves for everything that can be undone, and nothing is certain.

    Any later one is believed as well: this one may be the wrong one.
    """
    return Belief(at.boot, at.uptime, NEVER, at.wall, FAR)


def looked(before: Belief, at: Reading) -> Belief:
    """What is known now. A clock that is not believed changes nothing but `off`, so it may be put right at any time."""
    counted = at.uptime - before.uptime if at.boot == before.boot and at.uptime >= before.uptime else None
    passed = counted or timedelta(0)
    certain, now, latest = before.certain + passed, before.now + passed, before.latest + passed
    if counted is None:
        absent = now + ABSENCE
        if before.off is not None and before.off > TOLERANCE:  # the clock that was doubted then is doubted still
            absent = min(absent, latest + before.off - TOLERANCE - DRIFT)
        latest = max(latest, absent)
    if at.wall < certain - TOLERANCE:
        return Belief(at.boot, at.uptime, certain, now, latest, at.wall - certain)
    if at.wall > latest + TOLERANCE:
        return Belief(at.boot, at.uptime, certain, now, latest, at.wall - latest)
    drift = at.wall - now
    if counted is not None and abs(drift) <= DRIFT:
        certain, latest = certain + drift, latest + drift
    return Belief(at.boot, at.uptime, certain, at.wall, latest)


def signed(known: Belief, at: Reading, times: Collection[datetime]) -> Belief:
    """Quorums of witnesses have signed just now, at these times by their clocks. known: what was `looked` at `at`.

    One that agrees with our clock shows that it is right, whatever we counted. If none does and one is later, either
    our clock or theirs is wrong: ours is doubted until they agree again, or a person has looked.
    """
    if any(at.wall - FRESH <= time <= at.wall + TOLERANCE for time in times):
        certain = max(min(time, at.wall) for time in times if at.wall - FRESH <= time <= at.wall + TOLERANCE)
        return Belief(at.boot, at.uptime, certain, at.wall, at.wall)
    if (last := max(times, default=NEVER)) > at.wall + TOLERANCE and last > known.certain:
        later = max(known.latest, last)
        return Belief(at.boot, at.uptime, last, known.now, later, at.wall - last)
    return known


def encode(known: Belief) -> bytes:
    """The mark as a file: one line of ASCII, times in ISO 8601; `off` in microseconds behind them while doubted."""
    times = (known.certain, known.now, known.latest)
    return (
        " ".join(
            [
                "1",
                known.boot or "-",
                str(known.uptime // timedelta(microseconds=1)),
                *(one.isoformat() for one in times),
                *([] if known.off is None else [str(known.off // timedelta(microseconds=1))]),
            ]
        ).encode("ascii")
        + b"\n"
    )


def parse(data: bytes) -> Belief:
    """Raises BadMarkError."""
    try:
        version, boot, uptime, *rest = data.decode("ascii").split()
        certain, now, latest = map(datetime.fromisoformat, rest[:3])
        (off,) = (timedelta(microseconds=int(one)) for one in rest[3:]) if rest[3:] else (None,)
        whole = version == "1" and all(one.utcoffset() == timedelta(0) for one in (certain, now, latest))
        known = Belief("" if boot == "-" else boot, timedelta(microseconds=int(uptime)), certain, now, latest, off)
    except (ValueError, OverflowError, TypeError) as cause:
        raise BadMarkError("the mark of the time cannot be read by this version") from cause
    if not whole:
        raise BadMarkError("the mark of the time contradicts itself")
    return known
