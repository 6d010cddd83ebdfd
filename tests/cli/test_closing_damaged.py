"""Off works whatever file of ours is damaged, missing or of a newer version (promise 3; SW-01, SW-02, SW-05, RS-06)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.cli.test_hold_release import approve, planned
from tests.processes.test_reconciling import Place

from schleuse.cli import EXIT_CODES
from schleuse.config import LAST, keep_last_config, read_config
from schleuse.errors import ConflictError, CorruptError, MalformedError, UnavailableError
from schleuse.kim.store import Take
from schleuse.processes.releasing import open_releases, release_book
from schleuse.processes.switch_orders import MendingLog
from schleuse.processes.switching import open_switch, switch_log
from schleuse.scopes import Direction, ScopeState, Service
from schleuse.switch.documents import parse_signed

IK = "109900011"
WHY = ("--reason", "security_hold", "--operator", "betrieb-1")
BEFORE = datetime.now(UTC) - timedelta(hours=2)
EPOCH = "switch/log/0000000002.json"


def process(home: Path) -> ScopeState:
    """As a role of this home has it when it starts."""
    return open_switch(read_config(home), "kim").standing(Service.EAU_INTAKE, IK, Direction.PROCESS).state


def damage(path: Path, text: str | None) -> None:
    """None: something else is in its place, as after a repair gone wrong."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)


@pytest.fixture
def switched(shell: Shell, home: Path) -> Path:
    """A home with two closings, which a role has seen."""
    for scope in ("kim_mail", "epa_read"):
        assert shell("switch", "hold", scope, *WHY, "--home", str(home)).code == 0
    keep_last_config(read_config(home))
    assert process(home) is ScopeState.OPEN
    return home


@pytest.mark.parametrize("text", ["{", None], ids=["damaged", "unreadable"])
@pytest.mark.parametrize(
    "name",
    [
        *("schleuse.toml", EPOCH, "switch/log/0000000001.json", "switch/copies/kim.json", "switch/copies/command.json"),
        *("trail/cli-actors.json", f"trail/cli-{datetime.now(UTC).year}.jsonl", "trail", "switch/effects"),
        *("switch/proofs", "switch/news", "run/maintenance", "eau.sqlite"),
    ],
)
def test_a_closing_closes(shell: Shell, switched: Path, name: str, text: str | None) -> None:
    damage(switched / name, text)
    done = shell("switch", "hold", f"eau_intake/{IK}", *WHY, "--home", str(switched))
    assert (done.code, "Epoche 3 angeordnet" in done.out) == (0, True), done
    if name == "schleuse.toml":
        assert "schleuse.toml ist nicht lesbar" in done.err
        assert "Wer die Konfiguration pflegt" in done.err
        damage(switched / name, (switched / LAST).read_text())
    if name.startswith("switch/log"):
        assert "Das Protokoll des Schalters ist beschädigt" in done.err
    assert process(switched) is ScopeState.HOLD


def test_without_any_configuration_a_closing_says_who_restores_it(shell: Shell, home: Path) -> None:
    damage(home / "schleuse.toml", "{")
    done = shell("switch", "hold", "eau", *WHY, "--home", str(home))
    assert (done.code, "stellt sie aus der Sicherung wieder her" in done.err) == (EXIT_CODES[MalformedError], True)


@pytest.mark.parametrize("text", ["[new]\n", None], ids=["newer", "gone"])
def test_a_closing_that_was_signed_elsewhere_closes_too(
    shell: Shell, switched: Path, tmp_path: Path, text: str | None
) -> None:
    file, key = tmp_path / "order.json", str(switched / "operators" / "betrieb-1.key")
    words = ("--reason", "security_hold", "--operator", "betrieb-1", "--operator-key", key, "--out", str(file))
    shell("switch", "sign", "eau", "--state", "HOLD", *words)
    damage(switched / "schleuse.toml", text)
    assert shell("switch", "import", str(file), "--home", str(switched)).code == 0


def test_a_log_that_is_gone_is_made_again_from_the_copies_of_the_roles(shell: Shell, switched: Path) -> None:
    before = [one.data for one in switch_log(read_config(switched)).read_all()]
    shutil.rmtree(switched / "switch" / "log")
    done = shell("switch", "hold", f"eau_intake/{IK}", *WHY, "--home", str(switched))
    assert "Epoche 3 angeordnet" in done.out
    assert [one.data for one in switch_log(read_config(switched)).read_all()][:2] == before
    assert process(switched) is ScopeState.HOLD


def test_a_log_that_is_gone_with_all_copies_is_made_again_closed(shell: Shell, switched: Path) -> None:
    """SW-02, SW-03: a log with this one closing in it would open all else to a role that starts without a copy."""
    shutil.rmtree(switched / "switch" / "log")
    for path in (switched / "switch" / "copies").glob("*.json"):
        damage(path, "{")
    assert shell("switch", "hold", "kim", *WHY, "--home", str(switched)).code == 0
    for path in (switched / "switch" / "copies").glob("*.json"):
        path.unlink()
    assert process(switched) is ScopeState.HOLD


def test_a_rule_closes_in_a_log_that_was_gone_as_well(shell: Shell, switched: Path, tmp_path: Path) -> None:
    """EW-06."""
    file, key = tmp_path / "order.json", str(switched / "operators" / "betrieb-1.key")
    words = ("--reason", "security_hold", "--operator", "betrieb-1", "--operator-key", key, "--out", str(file))
    shell("switch", "sign", "eau", "--state", "HOLD", *words)
    shutil.rmtree(switched / "switch" / "log")
    order = parse_signed(file.read_bytes())
    assert MendingLog(read_config(switched)).append(order, order.command.requested_at).epoch == 3
    assert process(switched) is ScopeState.HOLD


def test_a_home_that_never_had_a_switch_gets_no_log(shell: Shell, switched: Path) -> None:
    """`switch init` makes it; a wrong --home is no closing."""
    shutil.rmtree(switched / "switch")
    done = shell("switch", "hold", "eau", *WHY, "--home", str(switched))
    assert (done.code, "switch init" in done.err) == (69, True)


# --- releases ---


@pytest.fixture
def place(shell: Shell, home: Path) -> Iterator[tuple[Place, str]]:
    """Two of three mails were let go, and nobody has taken them."""
    made = Place(home)
    with made.store:
        made.accept(1, 2, 3, at=BEFORE)
        made.hold()
        made.store.leases.holds.end(made.account, 2, BEFORE + timedelta(hours=1))
        id = planned(shell, home)
        assert approve(shell, home, id) == [0, 0]
        with open_releases(read_config(home), lambda _facts, _granted: None) as releases:
            assert releases.step(id).released == 2
        keep_last_config(read_config(home))
        yield made, id


def taken(place: Place) -> int:
    now = datetime.now(UTC)
    return len(place.store.leases.claim([Take(place.account)], 9, "w", now, timedelta(minutes=1)).mails)


@pytest.mark.parametrize("text", ["{", None], ids=["damaged", "unreadable"])
@pytest.mark.parametrize(
    ("name", "whole"),
    [
        *(("plan.json", True), ("progress.json", False), ("stop.json", False), ("../.lock", False)),
        *(("../../../schleuse.toml", True), ("../../../trail/cli-actors.json", False)),
    ],
)
def test_a_release_stops(
    shell: Shell, home: Path, place: tuple[Place, str], name: str, whole: bool, text: str | None
) -> None:
    """HD-42. whole: nothing is left to do, even though it is damaged."""
    made, id = place
    damage((home / "switch" / "releases" / id / name).resolve(), text)
    done = shell("hold", "release", "stop", id, "--reason", "odd", "--operator", "betrieb-1", "--home", str(home))
    if whole:
        assert done.code == 0, done
    if done.code or "plan.json" in name:
        assert "beschädigt" in done.err or "Nicht alles ist erledigt" in done.err
        assert "Betrieb" in done.err
    assert taken(made) == 0
    damage(home / "schleuse.toml", (home / LAST).read_text())
    config = read_config(home)
    assert release_book(config).stop_order(id) is not None


def test_a_release_is_ordered_to_stop_without_its_store(
    shell: Shell, home: Path, place: tuple[Place, str], tmp_path: Path
) -> None:
    """Whoever carries its steps out does the rest when the store is there again."""
    _, id = place
    other = Path(shutil.copytree(home, tmp_path / "other"))
    damage(other / "kim.sqlite", None)
    done = shell("hold", "release", "stop", id, "--reason", "odd", "--operator", "betrieb-1", "--home", str(other))
    assert (done.code, "kein weiteres Los geht" in done.err) == (EXIT_CODES[UnavailableError], True)
    shutil.copy(other / "switch" / "releases" / id / "stop.json", home / "switch" / "releases" / id)
    with open_releases(read_config(home), lambda _facts, _granted: None) as releases:
        assert releases.step(id, alone=True).stopped == "odd"


def test_a_name_that_is_none_stops_nothing(shell: Shell, home: Path, place: tuple[Place, str]) -> None:
    done = shell("hold", "release", "stop", "none", "--reason", "r", "--operator", "betrieb-1", "--home", str(home))
    assert done.code == EXIT_CODES[ConflictError]
    assert not (home / "switch" / "releases" / "none").exists()


# --- restarts ---


@pytest.mark.parametrize("name", ["trail/cli-actors.json", "schleuse.toml", EPOCH])
def test_an_abort_closes(shell: Shell, switched: Path, name: str) -> None:
    """RS-06."""
    plan = ("restart", "plan", "r1", "--scopes", "kim_mail", "--fast", "--yes", "--home", str(switched))
    assert shell(*plan).code == 0
    damage(switched / name, None)
    done = shell("restart", "abort", "r1", "--reason", "odd", "--operator", "betrieb-1", "--home", str(switched))
    assert (done.code, "abgebrochen, Epoche 3" in done.out) == (0, True), done


def test_an_abort_of_a_damaged_plan_says_what_is_closed_and_who_mends_it(shell: Shell, switched: Path) -> None:
    plan = ("restart", "plan", "r1", "--scopes", "kim_mail", "--fast", "--yes", "--home", str(switched))
    assert shell(*plan).code == 0
    damage(switched / "switch" / "restart" / "r1" / "00001.json", "{")
    abort = ("restart", "abort", "r1", "--reason", "odd", "--operator", "betrieb-1", "--home", str(switched))
    done = shell(*abort)
    assert (done.code, "es ist nichts zu schließen" in done.err) == (EXIT_CODES[CorruptError], True)
    assert "Der Betrieb stellt" in done.err
