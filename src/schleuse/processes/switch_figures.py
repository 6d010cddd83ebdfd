"""What every role shows and tells of the switch: the figures of its copy, and the effect of an epoch in the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.processes.trail import PLATFORM, Act, Trail
from schleuse.scopes import Scope
from schleuse.switch.copy import LocalSwitch, standing_of
from schleuse.switch.documents import time_text
from schleuse.switch.effects import SwitchEffect


class SwitchFigures(Collector):
    """Counted when somebody looks. atoms: what the role enforces."""

    def __init__(self, switch: LocalSwitch, atoms: Sequence[Scope]) -> None:
        self._switch = switch
        self._atoms = atoms

    def collect(self) -> Iterator[GaugeMetricFamily]:
        epoch = self._switch.epoch
        yield GaugeMetricFamily("schleuse_switch_epoch", "Highest epoch of the switch that was seen", epoch)
        yield GaugeMetricFamily(
            "schleuse_switch_safe_state", "1 while the role keeps to the safe state (SW-02)", bool(self._switch.safe)
        )
        states = GaugeMetricFamily(
            "schleuse_switch_openness",
            "State of each enforced scope: 0 CLOSED, 1 DEFER, 2 HOLD, 3 DRAIN, 4 LIMITED, 5 OPEN",
            labels=["service", "tenant", "direction"],
        )
        for one in self._atoms:
            at = standing_of(self._switch, one)
            states.add_metric([one.service, one.tenant, one.direction], at.state.openness)
        yield states


def tell_effect(trail: Trail, effect: SwitchEffect) -> None:
    """An entry of the platform's log: this worker has seen this epoch, and what became of what ran (SW-10)."""
    detail: dict[str, Json] = {
        "act": "switch.effect",
        "worker": effect.worker,
        "epoch": effect.epoch,
        "seen_at": time_text(effect.seen_at),
        "quiet_at": time_text(effect.quiet_at) if effect.quiet_at else "",
        "inflight": effect.inflight,
        "finished": effect.finished,
        "cut": effect.cut,
        "uncertain": list(effect.uncertain),
        "safe": effect.safe,
    }
    result = Result.FAILED if effect.safe else Result.GRANTED
    trail.tell(Act(PLATFORM, Kind.ADMINISTRATION, result, Purpose.OPERATION, detail=detail))
