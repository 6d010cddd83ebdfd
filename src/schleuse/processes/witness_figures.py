"""Metrics of a witness: what it cosigned, what it was told, whether it still reaches its logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.errors import Error
from schleuse.witness.alarm import Alarm, Finding
from schleuse.witness.store import WitnessStore


class Figures(Collector):
    """Counted when somebody looks. trouble: "what origin" of each task that fails now, kept by the role."""

    def __init__(self, store: WitnessStore, origins: Sequence[str], registry: CollectorRegistry) -> None:
        self._store = store
        self._origins = origins
        self.trouble: dict[tuple[str, str], str] = {}
        self._alarms = Counter(
            "schleuse_witness_alarms", "Alarms told since the start, by finding", ["finding"], registry=registry
        )
        for finding in Finding:
            self._alarms.labels(finding.value)
        registry.register(self)

    def told(self, alarm: Alarm) -> None:
        """Count an alarm."""
        self._alarms.labels(alarm.finding.value).inc()

    def ready(self) -> bool | str:
        """Whether the memory answers: without it nothing may be cosigned. Logs may be out of reach meanwhile."""
        try:
            self._store.origins()
        except Error as error:
            return str(error)
        return True

    def collect(self) -> Iterator[GaugeMetricFamily]:
        size = GaugeMetricFamily("schleuse_witness_size", "Entries that we have cosigned", labels=["origin"])
        at = GaugeMetricFamily(
            "schleuse_witness_cosigned_seconds", "Time of our last cosignature, since 1970", labels=["origin"]
        )
        for origin in self._origins:
            last = self._store.last(origin)
            size.add_metric([origin], last.checkpoint.size if last else 0)
            at.add_metric([origin], last.time_s if last else 0)
        yield size
        yield at
        trouble = GaugeMetricFamily(
            "schleuse_witness_trouble", "1 while a log cannot be pulled or monitored", labels=["task", "origin"]
        )
        for task, origin in list(self.trouble):
            trouble.add_metric([task, origin], 1)
        yield trouble
        yield GaugeMetricFamily(
            "schleuse_witness_evidence", "Pieces of evidence that are kept", len(self._store.evidence())
        )
