"""What `control` counts: unproven closings with their age, drills, exceptions, external systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.clock import Now
from schleuse.processes.control_closing import Closings, is_closing
from schleuse.processes.control_drills import Freshness
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.drill import DrillResult
from schleuse.shutdown.exceptions import SignedExemption
from schleuse.shutdown.external import Runs
from schleuse.shutdown.external_keeper import ExternalKeeper
from schleuse.shutdown.news import NewsBook


class ControlFigures(Collector):
    """Read when somebody looks. exemptions, results: those that are kept now."""

    def __init__(
        self,
        closings: Closings,
        freshness: Freshness,
        external: ExternalKeeper,
        exemptions: Callable[[], Sequence[SignedExemption]],
        results: Callable[[], Sequence[DrillResult]],
        news: NewsBook,
        now: Now,
    ) -> None:
        self._closings = closings
        self._freshness = freshness
        self._external = external
        self._exemptions = exemptions
        self._results = results
        self._news = news
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._closures()
        yield from self._last_closing()
        yield from self._drills()
        yield from self._others()
        yield from self._overdue()

    def _closures(self) -> Iterator[GaugeMetricFamily]:
        now = self._now()
        found = self._closings.claims(now)
        numbers = Counter(one.verdict for one in found)
        family = GaugeMetricFamily(
            "schleuse_control_closures", "Scopes that are ordered less than open, by verdict", labels=["verdict"]
        )
        for verdict in Verdict:
            family.add_metric([verdict.value], numbers[verdict])
        yield family
        ages = [one.age.total_seconds() for one in found if one.verdict is not Verdict.PROVEN and one.age is not None]
        yield GaugeMetricFamily(
            "schleuse_control_unproven_seconds",
            "Age of the oldest closing that is commanded and not proven; 0 if all are",
            max(ages, default=0),
        )

    def _last_closing(self) -> Iterator[GaugeMetricFamily]:
        last = next((one for one in reversed(self._closings.switch.entries()) if is_closing(one) and one.signed), None)
        if last is None or last.signed is None:
            return
        progress = self._closings.progress(last.signed.command.scopes, last.epoch)
        for name, help_, at in (
            ("hold", "Of the last closing: accepted until the last worker was quiet", progress.quiet_at),
            ("proof", "Of the last closing: accepted until all of it was proven", progress.proven_at),
        ):
            if at is not None:
                seconds = (at - last.accepted_at).total_seconds()
                yield GaugeMetricFamily(f"schleuse_control_time_to_{name}_seconds", help_, seconds)

    def _drills(self) -> Iterator[GaugeMetricFamily]:
        now = self._now()
        ages = GaugeMetricFamily(
            "schleuse_control_switched_days",
            "Days since a scope was closed for real and proven (SW-15); absent: never",
            labels=["scope"],
        )
        for text, at in self._freshness.last().items():
            if at is not None:
                ages.add_metric([text], (now - at).total_seconds() / 86_400)
        yield ages
        yield GaugeMetricFamily(
            "schleuse_control_stale_switches",
            "Scopes whose switch counts as not present, because it was not drilled in time",
            len(self._freshness.stale(now)),
        )
        drills = GaugeMetricFamily("schleuse_control_drills", "Drills that have ended, by outcome", labels=["outcome"])
        for outcome, number in Counter(one.outcome for one in self._results()).items():
            drills.add_metric([outcome.value], number)
        yield drills

    def _others(self) -> Iterator[GaugeMetricFamily]:
        now = self._now()
        known = [one for one in self._exemptions() if not one.exemption.ended]
        exceptions = GaugeMetricFamily(
            "schleuse_control_exceptions", "What stays open though ordered closed", labels=["overdue"]
        )
        late = sum(one.overdue(now) for one in known)
        exceptions.add_metric(["no"], len(known) - late)
        exceptions.add_metric(["yes"], late)
        yield exceptions
        states = GaugeMetricFamily(
            "schleuse_control_external",
            "1 for the state in which an external system was seen",
            labels=["name", "state"],
        )
        for name, state in list(self._external.states.items()):
            for one in Runs:
                states.add_metric([name, one.value], float(one is state))
        yield states
        yield GaugeMetricFamily(
            "schleuse_control_external_unsure",
            "External systems that only two persons start: nobody knows whether they ran, or a limit came first",
            len(self._external.unsure()),
        )

    def _overdue(self) -> Iterator[GaugeMetricFamily]:
        now = self._now()
        late = self._closings.overdue(self._news, now)
        yield GaugeMetricFamily(
            "schleuse_control_news_overdue", "Closed scopes whose next information is overdue (CM-03)", len(late)
        )
        ages = [(now - one.by).total_seconds() for one in late]
        yield GaugeMetricFamily(
            "schleuse_control_news_overdue_seconds", "For how long the oldest of them is", max(ages, default=0)
        )
