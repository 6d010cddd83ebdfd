"""Closing by rule: only less open, only what was agreed, and never an opening (EW-06, SW-01, SW-03)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.shutdown.operators import BREAKERS, KEYS, NOW, RIGHTS, Clock, close, new_log, open_again, opening, signed

from schleuse.errors import Error
from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.shutdown.automat import Automat, Ended, NoMandateError, Order, ended_emergencies, mandate
from schleuse.switch.documents import Command, Kind, NotAuthorisedError, Role, SignedCommand, sign
from schleuse.switch.log import SwitchLog
from schleuse.switch.standing import standing

EAU = parse_scopes("eau_intake/109900011")
ATOMS = parse_scopes("eau_intake/109900011/process/-") + parse_scopes("eau_intake/109900011/deliver/-")
ORDER = Order("w1", NOW, "decoys", EAU, ScopeState.HOLD, "a decoy was touched")


@dataclass(frozen=True)
class Policy:
    reference: str = "decoys@3"
    scopes: Sequence[Scope] = EAU
    state: ScopeState = ScopeState.HOLD
    cost: str = "eAU of one insurer wait some minutes"
    trigger: str = "decoy touched"


class Book:
    def __init__(self, *policies: Policy) -> None:
        self.policies = policies

    def valid(self, name: str, now: datetime) -> Policy | None:
        return next((one for one in self.policies if one.reference.startswith(f"{name}@")), None)


def automat(log: SwitchLog, *policies: Policy, now: Clock | None = None) -> Automat:
    return Automat(log, "automat", lambda: KEYS["automat"], Book(*policies), now or Clock())


def state_of(log: SwitchLog, scope: Scope = EAU[0]) -> ScopeState:
    return standing([rule for one in log.read_all() if (rule := one.rule)], scope).state


def test_an_agreed_rule_closes_and_names_its_policy(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    accepted = automat(log, Policy()).close(ORDER)
    assert accepted.signed is not None
    assert accepted.signed.command.policy == "decoys@3"
    assert accepted.signed.command.kind is Kind.AUTOMATIC
    assert state_of(log) is ScopeState.HOLD


def test_the_same_event_closes_once(tmp_path: Path) -> None:
    """SW-16."""
    clock = Clock()
    one = automat(new_log(tmp_path / "log"), Policy(), now=clock)
    first = one.close(ORDER).epoch
    clock.forward(60)
    assert first == one.close(ORDER).epoch == 1


def test_without_a_valid_policy_nothing_happens(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    with pytest.raises(NoMandateError, match="no policy"):
        automat(log).close(ORDER)
    assert log.read_all() == []


@pytest.mark.parametrize(
    ("policy", "order", "words"),
    [
        (Policy(scopes=parse_scopes("eau_intake/109900022")), ORDER, "does not cover"),
        (Policy(), replace(ORDER, scopes=parse_scopes("eau_intake")), "does not cover"),
        (Policy(), replace(ORDER, state=ScopeState.CLOSED), "down to HOLD at most"),
        (Policy(), replace(ORDER, scopes=()), "names no scope"),
        (Policy(state=ScopeState.HOLD), replace(ORDER, state=ScopeState.OPEN), "closes nothing"),
        (Policy(cost=" "), ORDER, "false alarm"),
    ],
)
def test_a_policy_covers_its_scopes_and_states_only(policy: Policy, order: Order, words: str) -> None:
    assert words in mandate(policy, order)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.sampled_from(ScopeState),
    st.sampled_from(ScopeState),
    st.sampled_from(["eau_intake", "eau_intake/109900011", "kim_mail", "keys/*/admin"]),
)
def test_whatever_it_is_asked_it_never_makes_anything_more_open(
    tmp_path_factory: pytest.TempPathFactory, agreed: ScopeState, wanted: ScopeState, scopes: str
) -> None:
    log = new_log(tmp_path_factory.mktemp("log") / "log")
    close(log, scopes, state=ScopeState.DEFER)
    before = state_of(log, parse_scopes(scopes)[0])
    everything = Policy(scopes=(Scope(),), state=agreed)
    with suppress(Error):
        automat(log, everything).close(replace(ORDER, scopes=parse_scopes(scopes), state=wanted))
    assert state_of(log, parse_scopes(scopes)[0]).openness <= before.openness
    assert not any(one.signed and one.signed.command.opening for one in log.read_all())


def test_its_key_signs_no_opening_even_in_the_wrong_hands() -> None:
    """The role `automat` is in no pair that opens."""
    forged = opening("eau_intake", 0, actor="automat")
    signatures = [sign(forged, "automat", Role.AUTOMAT, KEYS["automat"])]
    with pytest.raises(NotAuthorisedError):
        RIGHTS.check(SignedCommand(forged, tuple(signatures * 2)))
    for role in (Role.SWITCH_OFFICER, Role.RELEASER, Role.BREAK_GLASS):
        with pytest.raises(NotAuthorisedError, match="does not have the role"):
            RIGHTS.check(SignedCommand(forged, (sign(forged, "automat", role, KEYS["automat"]),)))


def emergency(log: SwitchLog) -> Command:
    close(log, "eau_intake/109900011")
    command = opening("eau_intake/109900011", 1, actor="breaker-1", closes_at=NOW + timedelta(minutes=30))
    log.append(signed(command, BREAKERS), NOW)
    return command


def test_an_emergency_opening_is_closed_by_a_command_when_its_time_is_over(tmp_path: Path) -> None:
    """RS-14: time-limited towards closing."""
    log, clock = new_log(tmp_path / "log"), Clock()
    command = emergency(log)
    one = automat(log, now=clock)
    assert ended_emergencies(log.read_all(), ATOMS, clock()) == []
    clock.forward(1800)
    [ended] = ended_emergencies(log.read_all(), ATOMS, clock())
    assert ended == Ended(command, ATOMS)
    one.end_emergency(ended)
    assert {state_of(log, atom) for atom in ATOMS} == {ScopeState.HOLD}
    assert ended_emergencies(log.read_all(), ATOMS, clock()) == []


def test_ending_it_twice_is_one_closing(tmp_path: Path) -> None:
    """A crash between append and the next look repeats it."""
    log, clock = new_log(tmp_path / "log"), Clock()
    emergency(log)
    clock.forward(1800)
    [ended] = ended_emergencies(log.read_all(), ATOMS, clock())
    one = automat(log, now=clock)
    first = one.end_emergency(ended).epoch
    clock.forward(60)
    assert first == one.end_emergency(ended).epoch == 3


def test_what_two_persons_opened_properly_meanwhile_stays_open(tmp_path: Path) -> None:
    log, clock = new_log(tmp_path / "log"), Clock()
    emergency(log)
    open_again(log, "eau_intake/109900011/process", "p")
    clock.forward(1800)
    [ended] = ended_emergencies(log.read_all(), ATOMS, clock())
    assert ended.scopes == (ATOMS[1],)


def test_a_scope_that_no_role_enforces_is_ended_as_it_was_opened(tmp_path: Path) -> None:
    log, clock = new_log(tmp_path / "log"), Clock()
    emergency(log)
    clock.forward(1800)
    [ended] = ended_emergencies(log.read_all(), (), clock())
    assert ended.scopes == EAU
