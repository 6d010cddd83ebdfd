"""What a witness's metrics and readiness say."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from tests.journal.samples import ORIGIN, leaves
from tests.witness.parties import FakeLog, Party

from schleuse.processes.witness_figures import Figures
from schleuse.witness.alarm import Alarm, Finding


def test_figures_are_counted_when_somebody_looks(tmp_path: Path) -> None:
    party, registry = Party(tmp_path), CollectorRegistry()
    figures = Figures(party.store, [ORIGIN], registry)
    assert f'schleuse_witness_size{{origin="{ORIGIN}"}} 0.0' in generate_latest(registry).decode()
    party.witness.add_checkpoint(FakeLog(leaves(9)).request(0, 9))
    figures.told(Alarm(Finding.STALE, ORIGIN, "old"))
    figures.trouble["pull", ORIGIN] = "witness.remote"
    text = generate_latest(registry).decode()
    assert f'schleuse_witness_size{{origin="{ORIGIN}"}} 9.0' in text
    assert 'schleuse_witness_alarms_total{finding="stale"} 1.0' in text
    assert 'schleuse_witness_alarms_total{finding="fork"} 0.0' in text
    assert f'schleuse_witness_trouble{{origin="{ORIGIN}",task="pull"}} 1.0' in text
    assert "schleuse_witness_evidence 0.0" in text


def test_a_witness_without_its_memory_is_not_ready(tmp_path: Path) -> None:
    party = Party(tmp_path)
    figures = Figures(party.store, [ORIGIN], CollectorRegistry())
    assert figures.ready() is True
    party.store.close()
    assert isinstance(figures.ready(), str)
