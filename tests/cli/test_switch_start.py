"""`schleuse switch start`: what nobody saw run is started by two persons, and shown until then (SW-01, RO-01)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.cli.test_switch import CONFLICT, MALFORMED, NOT_AUTHORISED, rows, told
from tests.scenarios import switching

from schleuse.clock import utc_now
from schleuse.config import read_config
from schleuse.processes.control import external_of
from schleuse.processes.operators import rights_of
from schleuse.processes.switching import open_switch
from schleuse.scopes import ScopeState
from schleuse.shutdown.external import Record, RecordBook, Runs


@pytest.fixture
def site(home: Path, tmp_path: Path) -> Path:
    """A home with a system that was stopped by a closing which could not see whether it ran."""
    up = str(tmp_path / "up")
    actions = {"stop": ["rm", "-f", up], "start": ["touch", up], "probe": ["test", "-e", up]}
    lines = [f"{name} = {json.dumps(argv)}\n" for name, argv in actions.items()]
    with (home / "schleuse.toml").open("a") as file:
        file.write(f'\n[[control.external]]\nname = "firewall"\nscope = "payments_support"\n{"".join(lines)}')
    switching.close(home, "payments_support", ScopeState.HOLD)
    RecordBook(home / "switch").write("firewall", Record(1, True, Runs.UNKNOWN), utc_now())
    return home


def shown(shell: Shell, home: Path) -> dict[str, object]:
    [row] = [one for one in rows(shell, home, "payments_support") if one["system"] == "firewall"]
    return row


def carry_out(home: Path) -> None:
    """What the `control` role does at one look."""
    config = read_config(home)
    asyncio.run(external_of(config, open_switch(config, "control"), rights_of(config), lambda *_: None).step())


def test_two_persons_start_what_nobody_saw_run(shell: Shell, site: Path, tmp_path: Path) -> None:
    at = ("--home", str(site))
    assert "firewall: unsicher, ob es vor der Abschaltung lief; öffnen startet es" in shell("switch", "show", *at).out
    switching.open(site, "payments_support")
    carry_out(site)
    assert (shown(shell, site)["state"], shown(shell, site)["unsure"]) == ("OPEN", True)
    assert "es steht, bis zwei Personen es starten: switch start firewall" in shell("switch", "show", *at).out

    plan = shell("switch", "start", "firewall", "--operator", "betrieb-1", *at)
    assert (plan.code, "--yes unterschreibt" in plan.out) == (0, True)
    first = shell("switch", "start", "firewall", "--operator", "betrieb-1", "--yes", *at)
    assert "es fehlt eine zweite Person" in first.out
    carry_out(site)
    assert not (tmp_path / "up").exists()
    second = shell("switch", "start", "firewall", "--operator", "betrieb-2", "--yes", *at)
    assert "die Rolle control startet es" in second.out
    carry_out(site)
    assert (tmp_path / "up").exists()
    signed = [one["detail"] for one in told(site) if one["tenant"] == "platform"]
    assert [one["who"] for one in signed if one["act"] == "external.start-signed"] == ["betrieb-1", "betrieb-2"]
    assert shown(shell, site)["unsure"] is False
    assert shell("switch", "start", "firewall", "--operator", "betrieb-1", "--yes", *at).code == CONFLICT


def test_who_may_not_what_is_closed_and_what_is_not_there(shell: Shell, site: Path) -> None:
    at = ("--home", str(site))
    closed = shell("switch", "start", "firewall", "--operator", "betrieb-1", "--yes", *at)
    assert (closed.code, "nobody has opened it" in closed.err) == (CONFLICT, True)
    missing = shell("switch", "start", "walls", "--operator", "betrieb-1", "--yes", *at)
    assert (missing.code, "firewall" in missing.err) == (MALFORMED, True)
    switching.open(site, "payments_support")
    refused = shell("switch", "start", "firewall", "--operator", "nobody", "--yes", *at)
    assert refused.code == NOT_AUTHORISED


def test_one_that_was_limited_before_it_was_started_is_shown_and_started_by_two(
    shell: Shell, site: Path, tmp_path: Path
) -> None:
    """SW-17: it ran before; without a word it would stay down for good."""
    at = ("--home", str(site))
    RecordBook(site / "switch").write("firewall", Record(1, True, Runs.RUNNING), utc_now())
    switching.open(site, "payments_support")
    why = ("--permille", "10", "--reason", "security_hold", "--operator", "betrieb-1")
    assert shell("switch", "limit", "payments_support", *why, *at).code == 0
    carry_out(site)
    assert not (tmp_path / "up").exists()
    assert shown(shell, site)["unsure"] is True
    text = shell("switch", "show", *at).out
    assert "firewall: lief vor der Abschaltung; bevor es wieder lief, wurde payments_support eingeschränkt" in text
    for operator in ("betrieb-1", "betrieb-2"):
        assert not (tmp_path / "up").exists()
        assert shell("switch", "start", "firewall", "--operator", operator, "--yes", *at).code == 0
        carry_out(site)
    assert (tmp_path / "up").exists()
    assert shown(shell, site)["unsure"] is False
