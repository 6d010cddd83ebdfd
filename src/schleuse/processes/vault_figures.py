"""What the vault counts, for Prometheus. Labels are insurers, purposes and logs; never a person or an actor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schleuse.journal.contracts import Level, Receipt
from schleuse.vault.core import Core
from schleuse.vault.ledger import Appends
from schleuse.vault.server import Door

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0)


class VaultFigures(Collector):
    """Read when somebody looks."""

    def __init__(self, core: Core, door: Door) -> None:
        self._core = core
        self._door = door

    def collect(self) -> Iterator[Metric]:
        figures, keyring, door = self._core.figures, self._core.keyring, self._door
        releases = CounterMetricFamily(
            "schleuse_vault_releases", "Granted releases by insurer and purpose", labels=["ik", "purpose"]
        )
        for (ik, purpose), number in list(figures.releases.items()):
            releases.add_metric([ik, purpose], number)
        yield releases
        denied = CounterMetricFamily("schleuse_vault_denied", "Attempts that were not granted", labels=["ik"])
        for ik, number in list(figures.denied.items()):
            denied.add_metric([ik], number)
        yield denied
        for name, help_, counted in (
            ("erased_again", "Persons erased because the store did not reflect it", figures.erased_again),
            ("versions_used_up", "Subjects whose newest key version nobody got", figures.used_up),
        ):
            family = CounterMetricFamily(f"schleuse_vault_{name}", help_, labels=["ik"])
            for ik, number in list(counted.items()):
                family.add_metric([ik], number)
            yield family
        for name, help_, number in (
            ("cache_hits", "Keys that were still in memory", keyring.hits),
            ("cache_misses", "Keys that had to be unwrapped", keyring.misses),
            ("unwraps", "Uses of the key encryption key to unwrap", keyring.kek.unwraps),
            ("strangers", "Connections of users without a role", door.strangers),
            ("requests", "Requests over the socket", door.requests),
            ("refused", "Requests answered with an error", door.refused),
        ):
            yield CounterMetricFamily(f"schleuse_vault_{name}", help_, number)
        yield GaugeMetricFamily("schleuse_vault_connections", "Open connections of roles", door.connections)
        yield from self._logs()

    def _logs(self) -> Iterator[Metric]:
        counter = GaugeMetricFamily("schleuse_vault_release_counter", "Number of the last release", labels=["log"])
        doubt = GaugeMetricFamily("schleuse_vault_in_doubt", "Entries whose fate is not known", labels=["log"])
        for origin, ledger in list(self._core.ledgers().items()):
            counter.add_metric([origin], ledger.counter)
            doubt.add_metric([origin], ledger.in_doubt)
        yield counter
        yield doubt


class TimedJournal:
    """The same journal; how long its answers took is a histogram."""

    def __init__(
        self, journal: Appends, registry: CollectorRegistry, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._monotonic = monotonic
        self._waits = Histogram(
            "schleuse_vault_journal_wait_seconds",
            "From sending a batch of entries to its being durable, or to the error",
            registry=registry,
            buckets=_BUCKETS,
        )

    async def current(self, origin: str) -> str:
        """See `JournalClient.current`."""
        return await self._journal.current(origin)

    async def append_all(
        self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE
    ) -> Sequence[Receipt]:
        """See `JournalClient.append_all`."""
        began = self._monotonic()
        try:
            return await self._journal.append_all(origin, entries, level)
        finally:
            self._waits.observe(self._monotonic() - began)
