"""How much room the store of the mail role has, and which step of the capacity ladder that is (HD-28)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.config import Config
from schleuse.holding.capacity import Level
from schleuse.holding.capacity import Room as Octets
from schleuse.mail.spool import Disk
from schleuse.mail.spool.writer import default_reserve

log = structlog.get_logger()

#: So often the disk is asked, however many recipients come: at 100 MB/s a disk fills by 0.1 GB meanwhile.
ASK_SECONDS = 1.0


class Room(Collector):
    """The disk of the spool. With PostgreSQL its own monitoring knows, and `level` is always PLENTY.

    clock: seconds, such as time.monotonic.
    """

    def __init__(self, config: Config, disk: Disk, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = config.kim.spool
        self._embedded = config.kim_database.startswith("sqlite")
        self._reserve = config.kim.min_free_octets
        self._disk = disk
        self._clock = clock
        self._asked_at = float("-inf")
        self._level = Level.PLENTY

    def level(self) -> Level:
        """The step of the ladder, at most ASK_SECONDS old. A disk that does not answer is the store's to refuse."""
        if self._embedded and self._clock() - self._asked_at >= ASK_SECONDS:
            self._asked_at = self._clock()
            self._look()
        return self._level

    def shortage(self) -> str:
        """Why no mail at all can be kept now, "" if it can."""
        if not self._embedded:
            return ""
        try:
            room = self.octets()
        except OSError as cause:
            return f"the disk of the spool does not answer ({cause.strerror})"
        if room.free >= room.reserve:
            return ""
        return f"{room.free >> 20} MiB are free for the spool, {room.reserve >> 20} must stay free"

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("schleuse_kim_spool_octets", "Disk of the spool, in octets", labels=["which"])
        percent = GaugeMetricFamily(
            "schleuse_kim_spool_filled_percent", "Of what may be filled: 70 warns, at 95 letters are deferred (HD-28)"
        )
        try:
            room = self.octets()
        except OSError:  # no figure is a figure, too: the disk does not answer
            pass
        else:
            family.add_metric(["free"], room.free)
            family.add_metric(["total"], room.total)
            percent.add_metric([], room.percent)
        yield family
        yield percent

    def _look(self) -> None:
        try:
            level = self.octets().level
        except OSError:
            return
        if level is not self._level:
            (log.info if level is Level.PLENTY else log.error)("spool.level", level=level.value, before=self._level)
        self._level = level

    def octets(self) -> Octets:
        """Free, total and reserved octets. Raises OSError."""
        free, total = self._disk.room(self._spool)
        return Octets(free, total, default_reserve(total) if self._reserve is None else self._reserve)
