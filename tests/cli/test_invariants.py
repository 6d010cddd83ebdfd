"""`schleuse invariants check`: one language on the screen, and an exit code for whoever watches (appendix B)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.scenarios import switching

from schleuse.cli.invariants import UNKNOWN, VIOLATED
from schleuse.config import read_config
from schleuse.eau.store import open_store
from schleuse.kim.store import open_leases
from schleuse.scopes import ScopeState


@pytest.fixture(autouse=True)
def stores(home: Path) -> None:
    config = read_config(home)
    open_leases(config.kim_database, config.kim.spool).close()
    open_store(config.eau_database).close()


def test_what_cannot_be_asked_now_is_not_said_to_hold(shell: Shell, home: Path) -> None:
    """RS-04."""
    ended = shell("invariants", "check", "--home", str(home))
    assert ended.code == UNKNOWN
    lines = ended.out.splitlines()
    assert any(line.startswith("✓  1  nichts verloren, nichts doppelt: 0 angenommen, 0 nachgewiesen") for line in lines)
    assert any(
        line.startswith("?  7  Journal lückenlos und bezeugt: kann jetzt nicht gefragt werden") for line in lines
    )


def test_on_request_all_is_english(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHLEUSE_LANG", "en")
    out = shell("invariants", "check", "--home", str(home)).out
    assert "✓  1  conservation: 0 accepted, 0 accounted for" in out
    assert "nicht" not in out


def test_what_is_violated_is_named_with_its_cases(shell: Shell, home: Path) -> None:
    folder = read_config(home).switch_folder
    switching.close(home, "eau/*", ScopeState.HOLD)
    (folder / "exceptions").mkdir(parents=True, exist_ok=True)
    (folder / "exceptions" / "e[1].json").write_text("{}")
    ended = shell("invariants", "check", "--home", str(home))
    assert ended.code == VIOLATED
    assert "✗ 13  jede Ausnahme hat Person und Ende: 0 Ausnahmen" in ended.out
    assert "e[1].json" in ended.out
    found = json.loads(shell("invariants", "check", "--home", str(home), "--json").out)
    assert {one["number"]: one["answer"] for one in found}[13] == "violated"
    assert {one["number"]: one["text"] for one in found}[13] == "0 exceptions"
