"""What the eau role shows of a store: numbers by insurer, and what has waited too long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, NOON, eau, faulty, file, storno

from schleuse.database import sqlite_url
from schleuse.eau.document import Kind
from schleuse.eau.findings import FileName
from schleuse.eau.outcome import DocumentState, Policy
from schleuse.eau.store import EauStore, open_store
from schleuse.processes.eau import Figures

IK = {"ik": str(AN_INSURER)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EauStore]:
    opened = open_store(sqlite_url(tmp_path / "eau.sqlite"))
    yield opened
    opened.close()


def shown(store: EauStore, after: timedelta) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Figures(store, [AN_INSURER, ANOTHER_INSURER], lambda: NOON + after))
    return registry


def test_mails_are_counted_by_insurer_and_state(store: EauStore) -> None:
    file(store, eau(1), eau(2), faulty(3))
    figures = shown(store, timedelta(0))
    assert figures.get_sample_value("schleuse_eau_mails", {**IK, "state": "DELIVERED"}) == 2
    assert figures.get_sample_value("schleuse_eau_mails", {**IK, "state": "RETURNED"}) == 1


@pytest.mark.parametrize(("minutes", "late"), [(59, 0), (61, 1)])
def test_a_fehlernachricht_is_late_after_an_hour_and_until_it_is_sent(store: EauStore, minutes: int, late: int) -> None:
    file(store, faulty(1))
    figures = shown(store, timedelta(minutes=minutes))
    assert figures.get_sample_value("schleuse_eau_fehlernachrichten_waiting") == 1
    assert figures.get_sample_value("schleuse_eau_fehlernachrichten_late") == late
    store.letters.sent(1, NOON)
    assert shown(store, timedelta(days=2)).get_sample_value("schleuse_eau_fehlernachrichten_late") == 0


def test_a_storno_that_waits_for_its_eau_is_overdue_after_a_day_and_until_it_is_settled(store: EauStore) -> None:
    file(store, storno(1, of=50), storno(2, of=51))
    name, day = "schleuse_eau_stornos_overdue", timedelta(days=1, minutes=1)
    assert shown(store, timedelta(hours=23)).get_sample_value(name, IK) == 0
    assert shown(store, day).get_sample_value(name, IK) == 2
    assert shown(store, day).get_sample_value(name, {"ik": str(ANOTHER_INSURER)}) == 0
    file(store, eau(3, id=50), faulty(4, id=51))
    assert shown(store, day).get_sample_value(name, IK) == 0


def test_probes_of_practices_are_counted_apart_and_not_filed(store: EauStore) -> None:
    """HD-07."""
    probe = eau(1, file_name=FileName("T", Kind.EAU))
    file(store, probe, eau(2), policy=Policy(prefix="E"))
    figures = shown(store, timedelta(0))
    assert figures.get_sample_value("schleuse_eau_probes", IK) == 1
    assert store.documents(AN_INSURER) == {(Kind.EAU, DocumentState.ACCEPTED): 1}
