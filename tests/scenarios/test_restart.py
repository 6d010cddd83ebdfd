"""The way back on the real platform, typed by two operators, measured and entered by `control` (incident.md § 9)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until

from schleuse.clock import utc_now
from schleuse.processes.control_drills import drill_book
from schleuse.processes.switching import switch_log
from schleuse.scopes import Direction, ScopeState, Service, atom
from schleuse.shutdown.drill import Outcome
from schleuse.switch.documents import time_text
from schleuse.switch.standing import Rule, standing

CANARY = 0  #: number of the first insurer


class Way:
    """What two operators type for the plan r1."""

    def __init__(self, one: Platform) -> None:
        self.one = one
        self._report = one.home / "report.txt"
        self._report.write_text("what was found")

    def type(self, *words: str, check: bool = True) -> str:
        answer = self.one.command("restart", *words, "--home", str(self.one.home), check=False)
        assert answer.returncode == 0 or not check, (words, answer.stdout, answer.stderr)
        return answer.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.type("status", "r1", "--json"))["r1"]
        return found

    def plan(self, *more: str) -> None:
        self.type("plan", "r1", *more, "--yes")
        for operator in ("betrieb-1", "betrieb-2"):
            self.type("approve", "r1", "--operator", operator, "--yes")

    def documents(self) -> None:
        by = {"EVID": "betrieb-3", "CRED": "betrieb-2", "BASE": "betrieb-2", "LEGAL": "betrieb-3", "PART": "betrieb-3"}
        for kind, operator in by.items():
            words = ("--text", "as it should be", "--operator", operator, "--file", str(self._report))
            given = self.type("evidence", "r1", kind, *words, "--method", "memory", "--method", "image")
            assert "pass" in given

    def sign(self) -> None:
        self.type("advance", "r1", "--operator", "betrieb-1", "--yes")
        for operator in ("betrieb-1", "betrieb-2"):
            self.type("approve", "r1", "--operator", operator, "--yes")

    def rehearse(self, scope: str) -> None:
        """G-OFF: close what this stage has opened, prove it, open it again."""
        home = ("--home", str(self.one.home))
        id = self.one.command("drill", "plan", scope, "--operator", "betrieb-1", *home).stdout.strip()
        self.one.command("drill", "sign", id, "--operator", "betrieb-2", "--yes", *home)
        ran = self.one.command("drill", "run", id, "--yes", *home, check=False)
        if ran.returncode:  # from 02:00 to 04:00 UTC control runs what is signed by itself, and may be faster
            results = drill_book(self.one.config.switch_folder).results
            said = ran.stdout + ran.stderr
            until(lambda: any(one.id == id and one.outcome is Outcome.PASSED for one in results()), said)

    def reach(self, stage: str) -> None:
        def there() -> bool:
            return bool(self.status()["stage"] == stage)

        deadline = time.monotonic() + 90
        while not there():
            assert time.monotonic() < deadline, (stage, self.status(), self.one.log("control")[-3000:])
            time.sleep(0.2)

    def state(self, insurer: int, direction: Direction = Direction.PROCESS) -> ScopeState:
        entries = switch_log(self.one.config).read_all()
        rules: list[Rule] = [rule for one in entries if (rule := one.rule) is not None]
        ik = self.one.config.insurers[insurer].ik
        return standing(rules, atom(Service.EAU_INTAKE, ik, direction)).state


def started(one: Platform) -> Way:
    one.start_all()
    for insurer in range(2):
        one.start_witness(insurer)
    one.start("control")
    until(lambda: one.ready("control"), "control")
    return Way(one)


@pytest.mark.slow
def test_from_held_to_the_second_cohort_and_back_at_a_touched_decoy(base_home: Path, tmp_path: Path) -> None:
    """RS-01, RS-06, RS-07, RS-08, G-TECH, G-OFF, T-14: every gate is really looked at; `control` dies on the way."""
    with platform(base_home, tmp_path / "home") as one:
        way = started(one)
        switching.close(one.home, "eau", ScopeState.HOLD)
        one.send_until_accepted(one.mails(one.order(5)))
        way.plan("--scopes", "eau/*", "--fast")
        way.documents()
        way.reach("S2")
        way.sign()
        way.reach("S3 canary")
        assert (way.state(0), way.state(1)) == (ScopeState.LIMITED, ScopeState.HOLD)
        with one.feed() as client:
            assert client.get("eau").status_code == 503  # outbound comes later (S5)

        way.sign()
        time.sleep(3)  # the soak of a rehearsal; nothing is entered without a closing that was rehearsed in it
        assert way.status()["stage"] == "S3 canary"
        one.kill("control")
        one.start("control")
        until(lambda: one.ready("control"), "control again")
        way.rehearse(f"eau_intake/{one.config.insurers[CANARY].ik}/process")
        assert way.status()["stage"] == "S3 canary"  # what was signed before the drill counts no more (SW-16)
        way.sign()
        way.reach("S4 5 %")
        assert (way.state(0), way.state(1)) == (ScopeState.OPEN, ScopeState.HOLD)

        warnings = one.home / "switch" / "warnings"
        warnings.mkdir()
        begun = time.monotonic()
        text = {"at": time_text(utc_now()), "rule": "decoy-mailbox", "action": "auto_hold"}
        (warnings / "w1.json").write_text(json.dumps(text))
        until(lambda: way.state(0) is ScopeState.HOLD, "the abort", 60)
        assert time.monotonic() - begun < 60  # T-14
        way.reach("S0")
        assert "decoy-mailbox" in way.status()["aborted"]
        assert one.conservation().holds


@pytest.mark.slow
def test_the_whole_way_back_until_everything_is_open(base_home: Path, tmp_path: Path) -> None:
    """RS-01 to RS-09, HD-40: each opening signed by two, the backlog by a plan of its own, nothing lost."""
    with platform(base_home, tmp_path / "home") as one:
        way = started(one)
        switching.close(one.home, "eau", ScopeState.HOLD)
        one.send_until_accepted(one.mails(one.order(5)))
        way.plan("--scopes", "eau/*", "--fast")
        way.documents()
        way.reach("S2")
        way.sign()
        for stage, rehearsed in (("S3 canary", CANARY), ("S4 5 %", CANARY)):
            way.reach(stage)
            way.rehearse(f"eau_intake/{one.config.insurers[rehearsed].ik}/process")
            way.sign()
        way.reach("S4 100 %")
        assert (way.state(0), way.state(1)) == (ScopeState.OPEN, ScopeState.OPEN)
        way.sign()
        way.reach("S6")  # outbound was signed; the backlog's stage opens nothing
        assert any("backlog are left" in gate["reason"] for gate in way.status()["gates"])

        home = ("--home", str(one.home))
        made = one.command("hold", "release", "plan", "--yes", *home).stdout.split()[-1]
        for operator, role in (("betrieb-1", "switch_officer"), ("betrieb-2", "service_owner")):
            key = ("--operator-key", str(one.home / "operators" / f"{operator}.key"), "--role", role)
            one.command("hold", "release", "approve", made, "--operator", operator, *key, "--yes", *home)
        one.command("hold", "release", "run", made, *home)
        for stage in ("S7 reads", "S7 writes", "S8", "S9"):
            way.sign()
            way.reach(stage)
        status = way.status()
        assert status["done"]
        assert [taken[0] for taken in status["measured"]][:2] == ["S1", "S2"]  # RS-15
        assert one.command("closure", "list", *home, check=False).returncode == 0  # nothing is ordered closed any more
        until(lambda: len(one.events()) >= 5, "what was held")
        assert one.conservation().holds
