"""An opening that was signed before its drill gives back that drill's closing and nothing else (SW-01, SW-15)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from schleuse.scopes import Direction, ScopeState, Service, atom, parse_scopes
from schleuse.switch.documents import Command, Kind, Limit, Reason
from schleuse.switch.standing import AFTER_DRILL, Rule, standing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINE = atom(Service.EAU_INTAKE, "109900011", Direction.PROCESS)
CLOSING = Command("d1", parse_scopes("eau_intake"), ScopeState.HOLD, Kind.DRILL, Reason.DRILL, "a", NOW)
OPENING = replace(
    CLOSING,
    id="d2",
    state=ScopeState.OPEN,
    opening=True,
    expires_at=NOW + timedelta(days=1),
    with_backlog=True,
    plan=CLOSING.hash,
    stage=AFTER_DRILL,
)
INCIDENT = replace(CLOSING, id="i", kind=Kind.MANUAL, reason=Reason.SECURITY_HOLD)


def state(*commands: Command | None) -> ScopeState:
    return standing([Rule(epoch, NOW, one) for epoch, one in enumerate(commands, 1)], MINE).state


def test_it_opens_what_its_drill_closed() -> None:
    assert state(CLOSING, OPENING) is ScopeState.OPEN


def test_it_is_good_at_any_epoch_because_others_switch_meanwhile() -> None:
    elsewhere = replace(INCIDENT, scopes=parse_scopes("kim_mail"))
    assert state(elsewhere, CLOSING, elsewhere, OPENING) is ScopeState.OPEN


def test_it_opens_nothing_without_its_drill() -> None:
    assert state(INCIDENT, OPENING) is ScopeState.HOLD
    assert state(INCIDENT, replace(OPENING, basis=1)) is ScopeState.HOLD


def test_an_incident_during_the_drill_stays_closed() -> None:
    assert state(CLOSING, INCIDENT, OPENING) is ScopeState.HOLD


def test_what_was_held_before_the_drill_stays_held() -> None:
    assert state(INCIDENT, CLOSING, OPENING) is ScopeState.HOLD


def test_an_epoch_that_nobody_can_read_stays_closed() -> None:
    assert state(CLOSING, None, OPENING) is ScopeState.HOLD


def test_it_does_not_open_further_than_before() -> None:
    limited = replace(CLOSING, id="l", state=ScopeState.LIMITED, limit=Limit(permille=50))
    assert state(limited, CLOSING, OPENING) is ScopeState.HOLD


def test_another_drill_s_opening_does_not_fit() -> None:
    assert state(replace(CLOSING, id="other"), OPENING) is ScopeState.HOLD
