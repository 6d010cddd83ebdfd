"""What is told of records, and the box in which it waits: nothing typed, nothing lost, nothing twice (§ 10, RS-14)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from tests.shutdown.operators import BREAKERS, CLOSER, NOW, close, closing, new_log, open_again, opening, signed

from schleuse.config import EventKind
from schleuse.shutdown.drill import DrillResult
from schleuse.shutdown.drill import Outcome as DrillOutcome
from schleuse.shutdown.informing import Event, Outbox, What, of_command, of_drill

AN_EVENT = Event("closed-1", What.CLOSED, NOW, {"epoch": 1})


def test_the_configuration_knows_the_same_events() -> None:
    assert set(get_args(EventKind)) == {one.value for one in What}


def test_commands_become_what_receivers_can_choose(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    close(log, "eau_intake")
    open_again(log, "eau_intake")
    emergency = opening("eau_intake", 2, "e", actor="breaker-1", closes_at=NOW + timedelta(minutes=5))
    log.append(signed(emergency, BREAKERS), NOW)
    events = [of_command(one) for one in log.read_all()]
    assert [one.what for one in events] == [What.CLOSED, What.OPENED, What.EMERGENCY_OPENED]
    assert [one.id for one in events] == ["closed-1", "opened-2", "emergency-3"]
    assert events[2].facts["closes_at"] == "2026-03-01T12:05:00.000Z"


def test_an_event_quotes_nothing_that_somebody_typed_and_names_nobody(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    command = replace(
        closing("eau_intake"), text="Frau Muster", expected="Muster", incident="Muster-1", told=("muster@example.org",)
    )
    body = of_command(log.append(signed(command, CLOSER), NOW)).body("host").decode()
    assert "uster" not in body
    assert "officer" not in body
    assert json.loads(body)["id"] == "host/closed-1"


def test_a_drill_is_told_only_when_the_switch_is_not_usable() -> None:
    failed = DrillResult("d1", ("eau_intake",), DrillOutcome.FAILED, 3, NOW, None, None, None, "some words")
    event = of_drill(failed)
    assert event is not None
    assert (event.what, event.facts["epoch"]) == (What.DRILL_FAILED, 3)
    assert of_drill(replace(failed, outcome=DrillOutcome.PASSED)) is None


def test_an_event_waits_for_each_receiver_and_is_recorded_once(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    assert box.record(AN_EVENT, ["a", "b"])
    assert not box.record(AN_EVENT, ["a", "b"])
    box.heard(AN_EVENT, "a")
    [waiting] = Outbox(tmp_path).waiting()
    assert (waiting.event, waiting.receivers) == (AN_EVENT, ("b",))
    box.heard(AN_EVENT, "b")
    again = Outbox(tmp_path)
    assert again.waiting() == []
    assert not again.record(AN_EVENT, ["a", "b"])


def test_a_crash_between_the_last_answer_and_putting_away_is_mended(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.record(AN_EVENT, ["a"])
    box._write(box._heard(AN_EVENT.id, "a"), {})
    again = Outbox(tmp_path)
    assert [one.receivers for one in again.waiting()] == [()]
    again.settle()
    assert again.waiting() == []
    assert (tmp_path / "told" / "closed-1.json").exists()


def test_what_happened_before_somebody_asked_is_not_told(tmp_path: Path) -> None:
    assert Outbox(tmp_path).since(NOW) == NOW
    assert Outbox(tmp_path).since(NOW + timedelta(days=9)) == NOW


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_waits_and_cannot_be_read_is_counted_and_can_be_recorded_again(tmp_path: Path, data: bytes) -> None:
    """A torn file must not pass for an event that all have heard."""
    box = Outbox(tmp_path)
    box.record(AN_EVENT, ["a"])
    assert box.unreadable() == []
    (tmp_path / "waits" / "closed-1.json").write_bytes(data)
    assert (box.waiting(), box.unreadable()) == ([], ["closed-1"])
    assert Outbox(tmp_path).record(AN_EVENT, ["a"])
    assert [one.event for one in box.waiting()] == [AN_EVENT]
    assert box.unreadable() == []
