"""`schleuse hold release …`: what an operator types from the plan to the end (§ 6.6)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.processes.test_reconciling import Place
from tests.scenarios import switching

from schleuse.cli import EXIT_CODES
from schleuse.cli.hold_release import STOPPED
from schleuse.config import read_config
from schleuse.errors import ConflictError, CorruptError, MalformedError, RefusedError, UnavailableError
from schleuse.processes.releasing import release_book
from schleuse.scopes import ScopeState

BEFORE = datetime.now(UTC) - timedelta(hours=2)
TWO = (("betrieb-1", "switch_officer"), ("betrieb-2", "service_owner"))


@pytest.fixture
def place(home: Path) -> Iterator[Place]:
    """Three mails are backlog."""
    made = Place(home)
    with made.store:
        made.accept(1, 2, 3, at=BEFORE)
        made.hold()
        made.store.leases.holds.end(made.account, 2, BEFORE + timedelta(hours=1))
        yield made


def planned(shell: Shell, home: Path) -> str:
    out = shell("hold", "release", "plan", "--home", str(home), "--first", "2", "--yes").out
    return out.splitlines()[-1]


def approve(shell: Shell, home: Path, id: str, *who: tuple[str, str]) -> list[int]:
    codes = []
    for name, role in who or TWO:
        key = str(home / "operators" / f"{name}.key")
        codes.append(
            shell(
                "hold", "release", "approve", id, "--operator", name, "--operator-key", key, "--role", role, "--yes",
                "--home", str(home),
            ).code
        )  # fmt: skip
    return codes


def test_a_plan_is_shown_first_and_made_with_yes(shell: Shell, home: Path, place: Place) -> None:
    shown = shell("hold", "release", "plan", "--home", str(home), "--first", "2")
    assert "Lose: 2 + 1" in shown.out
    assert "Siegel verletzt: 0" in shown.out
    assert "--yes legt ihn an" in shown.out
    assert shell("hold", "release", "status", "--home", str(home)).out == ""
    id = planned(shell, home)
    assert shell("hold", "release", "status", "--home", str(home)).out == f"{id}  0/3  wartet\n"
    table = json.loads(shell("hold", "release", "plan", "--home", str(home), "--json").out)
    assert (table["plan"]["mailboxes"][0]["count"], table["dry_run"]["count"]) == (3, 3)


def test_nothing_held_and_an_unknown_insurer_are_said(shell: Shell, home: Path) -> None:
    with Place(home).store:
        assert shell("hold", "release", "plan", "--home", str(home)).code == EXIT_CODES[MalformedError]
        unknown = shell("hold", "release", "plan", "--home", str(home), "--insurer", "109999999")
        assert unknown.code == EXIT_CODES[RefusedError]


def test_without_two_approvals_nothing_goes(shell: Shell, home: Path, place: Place) -> None:
    id = planned(shell, home)
    assert shell("hold", "release", "run", id, "--home", str(home)).code == EXIT_CODES[RefusedError]
    assert approve(shell, home, id, TWO[0]) == [0]
    assert shell("hold", "release", "run", id, "--home", str(home)).code == EXIT_CODES[RefusedError]
    assert len(place.store.leases.holds.backlog(place.account)) == 3


def test_an_approval_is_shown_first_and_one_in_a_foreign_role_is_refused(
    shell: Shell, home: Path, place: Place
) -> None:
    id = planned(shell, home)
    key = str(home / "operators" / "betrieb-1.key")
    words = ("--operator", "betrieb-1", "--operator-key", key, "--role", "switch_officer", "--home", str(home))
    assert "--yes gibt frei" in shell("hold", "release", "approve", id, *words).out
    assert release_book(read_config(home)).approvals(id) == []
    assert approve(shell, home, id, ("betrieb-1", "tenant_delegate")) == [EXIT_CODES[RefusedError]]


def test_a_held_insurer_lets_nothing_go(shell: Shell, home: Path, place: Place) -> None:
    id = planned(shell, home)
    assert approve(shell, home, id) == [0, 0]
    switching.close(home, "eau/*", ScopeState.HOLD)
    assert shell("hold", "release", "run", id, "--home", str(home)).code == EXIT_CODES[UnavailableError]


def test_one_person_stops_it_and_run_says_so(shell: Shell, home: Path, place: Place) -> None:
    id = planned(shell, home)
    assert approve(shell, home, id) == [0, 0]
    words = ("hold", "release", "stop", id, "--reason", "sieht komisch aus", "--operator", "betrieb-1")
    assert shell(*words, "--home", str(home)).code == 0
    ended = shell("hold", "release", "run", id, "--home", str(home))
    assert (ended.code, ended.out) == (STOPPED, "angehalten: sieht komisch aus\n")
    status = json.loads(shell("hold", "release", "status", id, "--home", str(home), "--json").out)
    assert (status["approved"], status["stopped"]) == (True, "sieht komisch aus")


def test_one_that_is_damaged_hides_no_other(shell: Shell, home: Path, place: Place) -> None:
    id = planned(shell, home)
    broken = release_book(read_config(home))
    broken.keep(replace(broken.read(id), id="r0"))
    (home / "switch" / "releases" / "r0" / "progress.json").write_text("{")
    status = ("hold", "release", "status", "--home", str(home))
    other, damaged = shell(*status).out.splitlines()
    assert (other, damaged[:4]) == (f"{id}  0/3  wartet", "r0  ")
    assert [json.loads(line)["id"] for line in shell(*status, "--json").out.splitlines()] == [id, "r0"]
    assert shell("hold", "release", "status", "r0", "--home", str(home)).code == EXIT_CODES[CorruptError]


def test_every_act_is_in_the_trail_with_who_typed_it(shell: Shell, home: Path, place: Place) -> None:
    id = planned(shell, home)
    approve(shell, home, id)
    shell("hold", "release", "stop", id, "--reason", "r", "--operator", "betrieb-1", "--home", str(home))
    trail = "".join(path.read_text() for path in (home / "trail").glob("cli-*.jsonl"))
    acts = re.findall(r"release\.[a-z]+", trail)
    assert acts == ["release.planned", "release.approved", "release.approved", "release.stopped"]
    assert "user" in trail


def test_a_plan_that_is_not_there(shell: Shell, home: Path, place: Place) -> None:
    for word in ("run", "status"):
        assert shell("hold", "release", word, "none", "--home", str(home)).code == EXIT_CODES[ConflictError]
