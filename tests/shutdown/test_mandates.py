"""A closing by rule that nobody had agreed to closes all the same, and every role says so (EW-06, SW-01)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.shutdown.operators import BREAKERS, CLOSER, KEYS, NOW, RIGHTS, close, closing, new_log, opening, signed
from tests.shutdown.test_policy import FEED, FEED_KEYS, IK, OTHER, PEOPLE, POLICY, agreed

from schleuse.journal.opening import canonical_json
from schleuse.restart.plan import PlanMandate
from schleuse.scopes import Direction, Scope, ScopeState, Service
from schleuse.shutdown.automat import Automat, Order, ended_emergencies
from schleuse.shutdown.mandates import Mandates
from schleuse.shutdown.policy import INSURER, PolicyBook
from schleuse.switch.copy import LocalSwitch, unproven
from schleuse.switch.documents import Command, Kind, Reason, Role, SignedCommand, sign
from schleuse.switch.log import Accepted, SwitchLog

EAU = (Scope("eau_intake", IK, "process"),)
ORDER = Order("w1", NOW, "abfluss", EAU, ScopeState.HOLD, "ten times the usual volume")


class Site:
    """A log, its policies, and the copy of one role."""

    def __init__(self, folder: Path) -> None:
        self.log = new_log(folder / "log")
        self.book = PolicyBook(folder / "policies", PEOPLE, FEED_KEYS)
        self.plans: dict[str, PlanMandate] = {}
        self.mandates = Mandates(self.book, self.plans.get)
        self.switch = LocalSwitch(
            SwitchLog(self.log.folder, RIGHTS), folder / "copies" / "kim.json", lambda: NOW, mandates=self.mandates
        )

    def by_rule(self, order: Order = ORDER) -> Accepted:
        return Automat(self.log, "automat", lambda: KEYS["automat"], self.book, lambda: NOW).close(order)

    def forged(self, **more: Any) -> Accepted:
        """With the platform's own key, and past the automat that asks first."""
        command = replace(
            Command("f", EAU, ScopeState.HOLD, Kind.AUTOMATIC, Reason.SECURITY_HOLD, "automat", NOW), **more
        )
        signature = sign(command, "automat", Role.AUTOMAT, KEYS["automat"])
        return self.log.append(SignedCommand(command, (signature,)), NOW)

    def alarms(self) -> list[str]:
        """What the role says when it takes what is new."""
        with structlog.testing.capture_logs() as lines:
            assert self.switch.refresh()
        return [str(one["reason"]) for one in lines if one["event"] == "switch.rule-unproven"]

    @property
    def state(self) -> ScopeState:
        return self.switch.standing(Service.EAU_INTAKE, IK, Direction.PROCESS).state


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_closing_that_was_agreed_names_policy_and_trigger_and_is_no_alarm(site: Site) -> None:
    site.book.add(agreed())
    entry = site.by_rule()
    assert entry.command is not None
    assert (entry.command.policy, entry.command.text) == ("abfluss@1", "egress.volume: ten times the usual volume")
    assert (site.alarms(), site.state) == ([], ScopeState.HOLD)


def a_policy(**changes: Any) -> Callable[[Site], None]:
    return lambda site: site.book.add(agreed(replace(POLICY, **changes)))


def half_signed(site: Site) -> None:
    one = agreed()
    site.book.add(replace(one, signatures=one.signatures[:1]))


def changed_afterwards(site: Site) -> None:
    site.book.add(agreed())
    path = next((site.log.folder.parent / "policies").glob("*.json"))
    path.write_bytes(path.read_bytes().replace(b'"state":"HOLD"', b'"state":"CLOSED"'))


def of_another_type(site: Site) -> None:
    site.book.add(agreed())
    path = next((site.log.folder.parent / "policies").glob("*.json"))
    table = json.loads(path.read_bytes())
    path.write_bytes(canonical_json({**table, "policy": {**table["policy"], "valid_from": 3}}))


def broken_plans(site: Site) -> None:
    def fail(_reference: str) -> None:
        raise AttributeError("'int' object has no attribute 'endswith'")

    site.mandates._restart = fail


def nothing(_site: Site) -> None:
    return


@pytest.mark.parametrize(
    ("before", "more", "why"),
    [
        (nothing, {}, "cannot be read"),
        (nothing, {"policy": ""}, "cannot be read"),
        (of_another_type, {}, "cannot be read"),
        (broken_plans, {"policy": "restart r1@1"}, "cannot be read"),
        (half_signed, {}, "two persons"),
        (changed_afterwards, {}, "two persons"),
        (a_policy(cosign=True), {}, f"the cosignature of {IK}"),
        (a_policy(valid_from=NOW + timedelta(seconds=1)), {}, "its begin"),
        (a_policy(valid_from=NOW - timedelta(days=2), valid_until=NOW), {}, "a new version"),
        (a_policy(), {"scopes": (Scope("eau_intake", OTHER),)}, "does not cover"),
        (a_policy(), {"scopes": EAU, "state": ScopeState.CLOSED}, "closes down to HOLD"),
        (a_policy(), {"text": "login.failures: many"}, "triggered by 'egress.volume'"),
        (a_policy(), {"policy": "restart r1@1"}, "was approved"),
        (a_policy(), {"id": "ends-o"}, "no opening in an emergency"),
    ],
)
def test_a_closing_that_nobody_had_agreed_to_closes_and_is_an_alarm(
    site: Site, before: Callable[[Site], None], more: dict[str, Any], why: str
) -> None:
    """SW-01: off is always allowed."""
    before(site)
    entry = site.forged(**{"policy": "abfluss@1", "text": "egress.volume: much", **more})
    (alarm,) = site.alarms()
    assert why in alarm
    assert entry.command is not None
    assert entry.fault == ""
    at = site.switch.standing(Service.EAU_INTAKE, entry.command.scopes[0].tenant, Direction.PROCESS)
    assert at.state is entry.command.state
    assert unproven(entry, (), site.mandates) == alarm  # whoever looks later sees the same
    assert site.switch.unproven(entry) == alarm


def test_a_policy_that_ended_since_was_in_force_when_it_was_used(site: Site) -> None:
    policy = replace(POLICY, valid_until=NOW + timedelta(seconds=1))
    site.book.add(agreed(policy))
    entry = site.by_rule()
    site.switch = LocalSwitch(site.log, site.log.folder.parent / "late.json", lambda: NOW + timedelta(days=9))
    assert unproven(entry, (), site.mandates) == ""


def test_a_cosigned_policy_is_agreed(site: Site) -> None:
    one = agreed(replace(POLICY, cosign=True))
    site.book.add(one.signed("kasse", f"{INSURER}{IK}", FEED[IK, "kasse"]))
    site.by_rule()
    assert site.alarms() == []


def test_the_abort_of_an_approved_restart_has_its_mandate(site: Site) -> None:
    """RS-07."""
    site.plans["restart r1@2"] = PlanMandate("restart r1@2", EAU)
    site.forged(policy="restart r1@2")
    site.forged(id="g", policy="restart r1@2", scopes=(Scope("eau_intake", OTHER),))
    (alarm,) = site.alarms()
    assert "does not cover" in alarm


def test_the_end_of_an_emergency_opening_has_the_mandate_of_the_opening(site: Site) -> None:
    """RS-14."""
    close(site.log, f"eau_intake/{IK}", "c")
    command = opening(f"eau_intake/{IK}", 1, "o", "breaker-1", closes_at=NOW)
    site.log.append(signed(replace(command, policy="p"), BREAKERS), NOW)
    site.switch.refresh()
    (ended,) = ended_emergencies(site.log.read_all(), EAU, NOW)
    Automat(site.log, "automat", lambda: KEYS["automat"], site.book, lambda: NOW).end_emergency(ended)
    assert (site.alarms(), site.state) == ([], ScopeState.HOLD)
    site.forged(id="ends-o2", policy="p")
    assert "no opening in an emergency" in site.alarms()[0]
    site.forged(id="ends-c", policy="p")  # a closing is no opening
    assert "no opening in an emergency" in site.alarms()[0]


def test_what_a_person_has_signed_asks_for_no_policy(site: Site) -> None:
    site.log.append(signed(replace(closing("eau"), policy="none@1"), CLOSER), NOW)
    assert (site.alarms(), site.state) == ([], ScopeState.HOLD)


@pytest.mark.parametrize("text", ["much more than usual", "Volumen: much more", "", "egress.volume: much"])
def test_a_closing_from_before_triggers_were_named_is_agreed(site: Site, text: str) -> None:
    """It stands in the log for good, and would be an alarm for good."""
    site.book.add(agreed())
    site.forged(policy="abfluss@1", text=text)
    assert site.alarms() == []
