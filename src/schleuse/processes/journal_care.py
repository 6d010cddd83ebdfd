"""What the journal role does beside writing: figures, readiness, alarms, and the deletion of what is old enough."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.journal.entry import parse_entry
from schleuse.journal.store import Journal
from schleuse.processes.journal_clock import Clock

log = structlog.get_logger()

WATCH_SECONDS = 60.0
#: Without a new quorum for so long, somebody must look (journal.md § 9.4).
QUORUM_LATE = timedelta(minutes=15)
#: journal.md § 12.3: below this an alarm; one more is kept ready (`journal.spare_segments`).
FEW_SPARES = 3
PRUNE_EVERY = timedelta(days=1)


def readiness(journal: Journal) -> bool | str:
    """True, or why no entry is taken."""
    health = journal.health()
    if health["state"] == "RUNNING" and health["full"] is None:
        return True
    return "; ".join(health["findings"]) or health["full"] or str(health["state"])


class Figures(Collector):
    """Of all logs, read when somebody looks. clock: the role's, None where only logs are looked at."""

    def __init__(self, journal: Journal, clock: Clock | None = None) -> None:
        self._journal = journal
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        health = self._journal.health()
        sizes = GaugeMetricFamily(
            "schleuse_journal_entries", "Entries of a log that have reached a level", labels=["log", "level"]
        )
        for origin, figures in health["logs"].items():
            for level in ("durable", "published", "witnessed", "minimum"):
                sizes.add_metric([origin, level], figures[level])
        yield sizes
        yield GaugeMetricFamily("schleuse_journal_pending", "Entries that wait for a flush", health["pending"])
        yield GaugeMetricFamily(
            "schleuse_journal_flush_seconds", "How long a flush takes, smoothed", health["flush_ms"] / 1000
        )
        yield GaugeMetricFamily(
            "schleuse_journal_spare_segments", "Write-ahead segments made ahead of need", health["spare_segments"]
        )
        yield GaugeMetricFamily(
            "schleuse_journal_quarantined",
            "1 while the journal is in QUARANTINE",
            float(health["state"] == "QUARANTINE"),
        )
        if self._clock is not None:
            yield GaugeMetricFamily(
                "schleuse_journal_clock_doubted",
                "1 while the clock is not believed",
                float(self._clock.is_doubted()),
            )
            yield GaugeMetricFamily(
                "schleuse_journal_clock_ahead_seconds",
                "By how much the clock is ahead of the time that is certain",
                self._clock.ahead().total_seconds(),
            )


class Care:
    """frozen: a file that stops all deletion while it exists (SW-12).

    proven: which time is certain for a log's tenant, before anything of it is deleted (decision 0023).
    """

    def __init__(self, journal: Journal, frozen: Path, years: int, now: Now, proven: Callable[[str], datetime]) -> None:
        self._journal = journal
        self._frozen = frozen
        self._years = years
        self._now = now
        self._proven = proven
        self._satisfied: dict[str, tuple[int, datetime]] = {}

    async def watch(self) -> None:
        """Look each minute, for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.look()

    def look(self) -> list[str]:
        """The alarms of this moment, each told as one event."""
        health, now, alarms = self._journal.health(), self._now(), list[str]()
        for origin, figures in health["logs"].items():
            size, since = self._satisfied.get(origin, (-1, now))
            if figures["witnessed"] != size or figures["witnessed"] >= figures["published"]:
                self._satisfied[origin] = figures["witnessed"], now
            elif now - since > QUORUM_LATE:
                log.error("journal.no-quorum", origin=origin, witnessed=size, published=figures["published"])
                alarms.append(f"no-quorum {origin}")
        if health["spare_segments"] < FEW_SPARES or health["full"] is not None:
            log.error("journal.few-spares", spare=health["spare_segments"], full=health["full"])
            alarms.append("few-spares")
        return alarms

    async def prune_daily(self) -> None:
        """Delete what is older than the period, at the start and each day (§ 17)."""
        while True:
            try:
                await self.prune()
            except (Error, OSError) as error:
                log.error("journal.prune-waits", reason=str(error))
            await asyncio.sleep(PRUNE_EVERY.total_seconds())

    async def prune(self) -> dict[str, int]:
        """New minimum by log, of those where something was deleted."""
        if self._frozen.exists():
            log.warning("journal.prune-frozen", file=self._frozen.name)
            return {}
        pruned: dict[str, int] = {}
        for one in list(self._journal.logs()):  # a new year's log may be opened meanwhile
            year = one.origin.rpartition("/")[2]
            if re.fullmatch("[0-9]{4}", year) is None or self._journal.findings:  # not of a calendar year (§ 17)
                continue
            before = years_before(min(self._now(), self._proven(one.origin)), self._years)
            if int(year) > before.year:
                continue
            index = await asyncio.to_thread(self._first_younger, one.origin, before)
            if index > one.minimum:
                await self._journal.prune(one.origin, index)
                log.info("journal.pruned", origin=one.origin, minimum=index)
                pruned[one.origin] = index
        return pruned

    def _first_younger(self, origin: str, before: datetime) -> int:
        """Index of the first entry that must stay. One by one: times need not grow where a clock was wrong once."""
        one = self._journal.log(origin)
        stop = one.served.checkpoint.size if one.served else one.minimum
        for index, data in enumerate(self._journal.read(origin, one.minimum, stop), one.minimum):
            # An entry's time may be two minutes off (§ 4).
            if parse_entry(data).at.astimezone(UTC) + timedelta(minutes=2) >= before:
                return index
        return stop


def years_before(now: datetime, years: int) -> datetime:
    """The same day and time so many calendar years ago; of 29 February the day before, which deletes less."""
    try:
        return now.replace(year=now.year - years)
    except ValueError:
        return now.replace(year=now.year - years, day=28)
