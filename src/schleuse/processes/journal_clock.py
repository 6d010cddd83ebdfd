"""The journal's clock, and whether it is believed: a durable mark, the alarm, an operator's word (decision 0023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace as replace_fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog

from schleuse.clock import Now, Uptime, machine_uptime, to_us
from schleuse.errors import UnavailableError
from schleuse.journal import believed
from schleuse.journal.believed import BadMarkError, Belief, Reading
from schleuse.journal.disk import Disk, OsDisk, replace
from schleuse.journal.policy import NONE, Policy
from schleuse.journal.store import LOGS_FOLDER, Journal

log = structlog.get_logger()

MARK, ORDER = "believed-time", "believed-time.order"
#: An operator's word is about the clock as it was when he gave it; the role looks each minute.
ORDER_HOLDS = timedelta(minutes=10)


class NoMarkError(UnavailableError):
    """The journal has never run in this home, or its mark of the time is gone; its next start makes one."""

    code = "journal.no-mark"


class Order(NamedTuple):
    """An operator's word. time: what his clock said; by: who says he gave it, "" if he does not."""

    time: datetime
    by: str


class Clock:
    """One for the role. A start counts as another boot where the machine cannot tell its boots apart.

    folder: `<home>/journal`. vouched: told before an operator's word counts, for the entry about it.
    """

    def __init__(self, folder: Path, now: Now, uptime: Callable[[], Uptime] = machine_uptime, disk: Disk | None = None):
        self._mark, self._order = folder / MARK, folder / ORDER
        self._now = now
        self._uptime = uptime
        self._disk = disk or OsDisk()
        self._signed: dict[str, int] | None = None
        self._known = self._begin()

    def present(self) -> datetime:
        """What is taken for the time: the clock while it is believed, else what was counted since it was."""
        return self._look().now

    def certain(self) -> datetime:
        """It is not earlier than this."""
        return self._look().certain

    def counted_us(self) -> int | None:
        """While the clock is not believed: the time that is counted, in microseconds since 1970; else None."""
        known = self._look()
        return to_us(known.now) if known.is_doubted else None

    def is_doubted(self) -> bool:
        """Whether the clock is not believed now."""
        return self._look().is_doubted

    @property
    def was_doubted(self) -> bool:
        """Whether the clock was not believed at the last look."""
        return self._known.is_doubted

    def ahead(self) -> timedelta:
        """By how much the clock is ahead of what is certain; negative: behind it."""
        return self._now() - self.certain()

    def finding(self) -> str | None:
        """What is wrong with the clock, and who can change it; None while it is believed."""
        known = self._look()
        if known.off is None:
            return None
        way = "ahead of" if known.off > timedelta(0) else "behind"
        return (
            f"the clock says {_text(self._now())}, which is {abs(known.off)} {way} what can be believed; it is taken "
            f"for {_text(known.now)}. Entries go on into the logs of {known.now.year}, and nothing is closed or "
            "deleted. Whoever runs this machine sets its clock right; if it is right, `schleuse journal clock "
            "--believe` says so"
        )

    def look(self, signed: Mapping[str, int]) -> None:
        """Once a minute: count on, hear what witnesses have signed since the last look, and make it durable.

        signed: latest time (seconds since 1970) that the quorum of each log has signed, by origin. Raises OSError.
        """
        at, was = self._reading(), self._known
        known = believed.looked(was, at)
        # What is there at the start may be of any age; only what comes while we look says what time it is.
        before = signed if self._signed is None else self._signed
        fresh = [time_s for origin, time_s in signed.items() if time_s != before.get(origin)]
        known = believed.signed(known, at, [datetime.fromtimestamp(time_s, UTC) for time_s in fresh])
        self._signed = dict(signed)
        self._keep(known)
        if known.is_doubted:
            log.error("journal.clock-doubted", found=self.finding())
        elif was.is_doubted:
            log.info("journal.clock-believed", now=_text(known.now))

    def keep(self) -> None:
        """A start that came so far takes this for the time: not before, or a wrong clock would count ever after.

        Raises OSError.
        """
        self._keep(self._known)

    def order(self) -> Order | None:
        """The time for which an operator vouches; None without an order that counts. One that does not is removed."""
        try:
            text = self._order.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        now = self._now()
        try:
            said, _, by = text.partition(" ")
            time = datetime.fromisoformat(said)
            fits = abs(now - time) <= ORDER_HOLDS
        except (ValueError, TypeError):
            fits = False
        if not fits:
            log.warning("journal.clock-order-old", ordered=text[:40], now=_text(now))
            self._disk.unlink(self._order)
            return None
        return Order(time, by)

    def obey(self) -> None:
        """The clock is right, for an operator says so; when that is durable, his order is done. Raises OSError."""
        self._keep(believed.vouched(self._reading()))
        self._disk.unlink(self._order)
        log.warning("journal.clock-vouched", now=_text(self._known.now))

    def _begin(self) -> Belief:
        at = self._reading()
        try:
            before = believed.parse(self._mark.read_bytes())
            if not before.boot:
                before = replace_fields(before, boot="?")
            return believed.looked(before, at)
        except FileNotFoundError:
            if not _has_logs(self._mark.parent):
                return believed.first(at)
            reason = "there are logs, but no mark of the time"
        except BadMarkError as error:
            reason = str(error)
        log.error("journal.clock-mark-lost", reason=reason)
        return believed.unknown(at)

    def _keep(self, known: Belief) -> None:
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        replace(self._disk, self._mark, believed.encode(known))
        self._known = known

    def _look(self) -> Belief:
        return believed.looked(self._known, self._reading())

    def _reading(self) -> Reading:
        return reading(self._now(), self._uptime())


def _has_logs(folder: Path) -> bool:
    logs = folder / LOGS_FOLDER
    return logs.is_dir() and any(logs.iterdir())


def reading(now: datetime, uptime: Uptime) -> Reading:
    """Both clocks at once."""
    return Reading(now.astimezone(UTC), uptime.boot, uptime.since)


def read_mark(folder: Path) -> Belief:
    """What the role kept at its last look. folder: `<home>/journal`. Raises NoMarkError, BadMarkError, OSError."""
    try:
        return believed.parse((folder / MARK).read_bytes())
    except FileNotFoundError as cause:
        raise NoMarkError(f"{folder / MARK} is not there; the journal role makes it at its first start") from cause


def give_order(folder: Path, now: datetime, by: str = "") -> None:
    """An operator vouches for the clock; the role obeys when it looks. folder: `<home>/journal`. by: his user name.

    Raises OSError.
    """
    replace(OsDisk(), folder / ORDER, f"{now.astimezone(UTC).isoformat()} {by}".strip().encode("ascii", "replace"))


class Proven:
    """Which time is certain for the logs of a tenant, before one of them is closed, or entries of them are deleted.

    Where witnesses watch a log of this year or of the last one, it is what a quorum of them has signed; our own
    counting does not replace it. Where none do, it is what we have counted ourselves.
    """

    def __init__(self, journal: Journal, policies: Mapping[str, Policy], clock: Clock) -> None:
        self._journal = journal
        self._policies = policies
        self._clock = clock

    def __call__(self, origin: str) -> datetime:
        """What is certain for the tenant of this log; 1970 while the clock is doubted or nobody has signed."""
        if self._clock.is_doubted():
            return believed.NEVER
        since, prefix = self._clock.present().year - 1, origin.rpartition("/")[0] + "/"
        watched = [
            one
            for one, policy in self._policies.items()
            if one.startswith(prefix) and policy.quorum != NONE and int(one.removeprefix(prefix)) >= since
        ]
        if not watched:
            return self._clock.certain()
        times = self.signed()
        return datetime.fromtimestamp(max((times.get(one, 0) for one in watched), default=0), UTC)

    def signed(self) -> dict[str, int]:
        """By origin of each log that witnesses watch: the latest time that a quorum of them has signed (§ 8, § 10)."""
        times: dict[str, int] = {}
        for one in list(self._journal.logs()):
            policy = self._policies.get(one.origin)
            if policy is not None and one.served is not None:
                time_s = policy.signed_until(one.served.note)
                if time_s is not None:
                    times[one.origin] = time_s
        return times


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
