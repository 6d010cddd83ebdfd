"""`schleuse restart`, typed by two operators of a home in which nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ended, Shell

from schleuse.clock import utc_now
from schleuse.config import read_config
from schleuse.processes.switching import switch_log
from schleuse.restart.documents import SIGNERS
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.switch.documents import Command, Kind, Reason, Role, SignedCommand, sign
from schleuse.switch.standing import Rule, standing
from schleuse.vault.tokens import read_token_key

Restart = Callable[..., Ended]


@pytest.fixture
def restart(shell: Shell, home: Path) -> Restart:
    """`schleuse restart WORDS` in a home whose eAU are held."""
    config = read_config(home)
    now = utc_now()
    command = Command("c1", parse_scopes("eau"), ScopeState.HOLD, Kind.MANUAL, Reason.SECURITY_HOLD, "betrieb-1", now)
    key = read_token_key(home / "operators" / "betrieb-1.key")
    switch_log(config).append(SignedCommand(command, (sign(command, "betrieb-1", Role.LEAD, key),)), now)
    return lambda *words: shell("restart", *words, "--home", str(home))


def status(restart: Restart, name: str = "r1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(restart("status", name, "--json").out)[name]
    return found


def made(restart: Restart, *more: str) -> None:
    assert restart("plan", "r1", "--scopes", "eau/*", "--fast", *more, "--yes").code == 0


def test_a_plan_is_shown_before_it_is_made(restart: Restart) -> None:
    shown = restart("plan", "r1", "--scopes", "eau/*", "--fast")
    assert "PROBE" in shown.out
    assert "S3 canary" in shown.out
    assert "--yes" in shown.out
    assert "kein Wiederanlauf" in restart("status").out
    made(restart)
    assert status(restart)["stage"] == "S0"
    assert restart("show", "r1").out.count("S4") >= 1


def test_without_scopes_it_is_all_that_is_closed_and_nothing_else(restart: Restart) -> None:
    plan = json.loads(restart("plan", "r1", "--json").out)
    assert plan["scopes"] == ["eau_intake", "eau_employer_answer"]
    nothing = restart("plan", "r1", "--scopes", "keys")
    assert (nothing.code, "nothing of keys is closed" in nothing.err) == (75, True)


def test_the_status_says_who_must_act_by_name(restart: Restart) -> None:
    made(restart)
    text = restart("status", "r1").out
    assert "am Zug" in text
    assert "switch_officer (betrieb-1)" in text
    assert "releaser (betrieb-2)" in text
    for operator in ("betrieb-1", "betrieb-2"):
        assert "--yes" in restart("approve", "r1", "--operator", operator).out  # shown, and nothing done
        assert restart("approve", "r1", "--operator", operator, "--yes").code == 0
    found = status(restart)
    assert found["plan_approved"]
    assert any("forensic_lead (betrieb-3)" in turn for turn in found["to_act"])


def test_a_role_that_nobody_has_is_seen(restart: Restart, home: Path) -> None:
    """RO-02."""
    made(restart)
    file = home / "schleuse.toml"
    file.write_text(file.read_text().replace('"releaser", ', ""))
    assert "releaser (NIEMAND)" in restart("status", "r1").out


def test_one_person_does_not_approve_twice(restart: Restart) -> None:
    """T-12."""
    made(restart)
    assert restart("approve", "r1", "--operator", "betrieb-1", "--yes").code == 0
    again = restart("approve", "r1", "--operator", "betrieb-1", "--yes")
    assert (again.code, "none of the roles releaser" in again.err) == (77, True)
    assert not status(restart)["plan_approved"]


def test_documents_are_signed_and_say_what_they_are_worth(restart: Restart, tmp_path: Path) -> None:
    """RS-05, RS-13, T-19."""
    made(restart)
    report = tmp_path / "report.pdf"
    report.write_bytes(b"findings")
    words = ("evidence", "r1", "EVID", "--text", "nothing persists", "--operator", "betrieb-2")
    assert "inconclusive" in restart(*words).out  # it refers to nothing
    full = (*words, "--file", str(report), "--method", "memory", "--method", "image")
    assert "pass" in restart(*full).out
    assert "inconclusive" in restart(*full, "--basis", "restore").out
    assert "fail" in restart(*full, "--host", "web-3=collected").out
    assert restart(*full, "--host", "web-3=unknown").code == 65
    refused = restart("evidence", "r1", "EVID", "--text", "fine", "--operator", "betrieb-1", "--file", str(report))
    assert refused.code == 77  # who opens does not say himself that it is clean
    shown = restart("gate", "r1", "EVID").out
    assert shown.count("nothing persists") == 4


def test_a_gate_is_waived_by_two_in_the_same_words(restart: Restart) -> None:
    """RS-03."""
    made(restart)
    until = (utc_now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    words = ("waive", "r1", "CRED", "--reason", "list is on paper", "--until", until)
    assert "--yes" in restart(*words, "--operator", "betrieb-1").out
    for operator in ("betrieb-1", "betrieb-2"):
        assert restart(*words, "--operator", operator, "--yes").code == 0
    (gate,) = [one for one in status(restart)["gates"] if one["kind"] == "CRED"]
    assert gate["result"] == "waived"
    assert "list is on paper" in restart("status", "r1").out
    assert restart(*words[:-1], "tomorrow", "--operator", "betrieb-1", "--yes").code == 65


def test_temporary_measures_and_notes_are_listed(restart: Restart) -> None:
    """RS-08, RS-12."""
    made(restart)
    words = ("measure", "r1", "fax line", "--operator", "betrieb-1", "--owner", "betrieb-2")
    assert restart(*words, "--until", "2026-01-01T00:00:00Z").code == 0
    assert restart("note", "r1", "night shift: quiet", "--operator", "betrieb-1").code == 0
    text = restart("status", "r1").out
    assert "fax line" in text
    assert "ÜBERFÄLLIG" in text
    assert "night shift" in text
    assert restart("note", "r1", "see [/evidence/host7], [red]", "--operator", "betrieb-1").code == 0
    assert "see [/evidence/host7], [red]" in restart("status", "r1").out  # what somebody typed is no markup
    assert restart(*words).code == 65
    assert restart(*words, "--ended").code == 0
    assert status(restart)["measures"] == []


def test_the_canary_opens_with_two_signatures_when_every_gate_lets_in(restart: Restart, home: Path) -> None:
    """SW-01, RS-01: by command alone, while `control` is away; what nothing can look at is waived by two."""
    made(restart)
    until = (utc_now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    both = ("betrieb-1", "betrieb-2")
    for operator in both:
        restart("approve", "r1", "--operator", operator, "--yes")
        for kind in (*sorted(SIGNERS), "WATCH", "DATA", "OFF"):
            words = ("waive", "r1", kind, "--reason", "test", "--until", until, "--operator", operator)
            assert restart(*words, "--yes").code == 0
    early = restart("advance", "r1", "--operator", "betrieb-1", "--yes")
    assert early.code == 75  # S1 opens nothing, so there is nothing to sign
    assert "--yes" in restart("enter", "r1").out
    assert restart("enter", "r1", "--yes").out.startswith("S1")
    while restart("enter", "r1", "--yes").code:  # a rehearsal soaks for two seconds
        assert status(restart)["stage"] == "S1"
    assert restart("advance", "r1", "--operator", "betrieb-1", "--yes").code == 0
    assert restart("approve", "r1", "--operator", "betrieb-1", "--yes").code == 0
    alone = restart("enter", "r1", "--yes")
    assert (alone.code, "releaser" in alone.err) == (75, True)
    assert restart("approve", "r1", "--operator", "betrieb-2", "--yes").code == 0
    while restart("enter", "r1", "--yes").code:
        assert status(restart)["stage"] == "S2"
    assert status(restart)["stage"] == "S3 canary"
    assert process(home) is ScopeState.LIMITED

    aborted = restart("abort", "r1", "--reason", "looks wrong", "--operator", "betrieb-1")
    assert aborted.out.startswith("abgebrochen")
    assert process(home) is ScopeState.HOLD
    assert status(restart)["stage"] == "S0"
    assert restart("plan", "r1", "--again", "--yes").code == 0
    assert status(restart)["version"] == 2
    assert not status(restart)["plan_approved"]


def process(home: Path) -> ScopeState:
    rules: list[Rule] = [rule for one in switch_log(read_config(home)).read_all() if (rule := one.rule) is not None]
    return standing(rules, parse_scopes("eau_intake/109900011/process/-")[0]).state


def test_a_plan_of_ones_own_is_a_file_and_may_wait_for_another(restart: Restart, tmp_path: Path) -> None:
    """RS-09."""
    file = tmp_path / "plan.json"
    made(restart)
    file.write_text(restart("plan", "r2", "--scopes", "eau/*", "--json").out)
    assert restart("plan", "--file", str(file), "--needs", "r1:S1", "--yes").code == 0
    assert any("r1 has not reached S1" in one for one in status(restart, "r2")["missing"])
    assert restart("plan", "--file", str(file), "--needs", "r1-S1").code == 65
    assert restart("plan", "--file", str(tmp_path / "none.json")).code == 69
    cycle = restart("plan", "r1", "--again", "--needs", "r2:S1", "--yes")
    assert (cycle.code, "wait for itself" in cycle.err) == (77, True)
