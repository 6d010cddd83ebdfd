"""`schleuse operator …`: keys for their owners only, and nobody has rights by a command alone (§ 10, RO-02)."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.cli.test_switch import WHY, told
from tests.scenarios import switching

from schleuse.config import read_config
from schleuse.processes.operators import rights_of
from schleuse.scopes import ScopeState


def append(home: Path, text: str) -> None:
    with (home / "schleuse.toml").open("a") as file:
        file.write("\n" + text)


def test_a_new_operator_has_a_key_and_no_rights_until_it_is_configured(shell: Shell, home: Path) -> None:
    done = shell(
        "operator", "add", "neu", "--role", "lead", "--role", "analyst", "--person", "Müller", "--home", str(home)
    )
    assert done.code == 0
    key = home / "operators" / "neu.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "neu" not in rights_of(read_config(home)).people()
    append(home, done.out)
    person = rights_of(read_config(home)).people()["neu"]
    assert (person.person, sorted(person.roles)) == ("Müller", ["analyst", "lead"])
    assert shell("switch", "hold", "eau", *WHY, "--operator", "neu", "--home", str(home)).code == 0
    assert told(home)[0]["detail"]["act"] == "operator.key-made"


def test_the_private_key_may_go_where_it_belongs(shell: Shell, home: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    words = ("--role", "releaser", "--key-folder", str(stick), "--home", str(home))
    assert shell("operator", "add", "neu", *words).code == 0
    assert (stick / "neu.key").exists()
    assert not (home / "operators" / "neu.key").exists()


@pytest.mark.parametrize(("name", "role"), [("betrieb-1", "lead"), ("a/b", "lead"), ("neu", "king")])
def test_what_cannot_be_an_operator_writes_nothing(shell: Shell, home: Path, name: str, role: str) -> None:
    before = sorted((home / "operators").iterdir())
    assert shell("operator", "add", name, "--role", role, "--home", str(home)).code != 0
    assert sorted((home / "operators").iterdir()) == before


def test_the_list_says_who_may_what_and_what_is_not_filled(shell: Shell, home: Path) -> None:
    """RO-02."""
    out = shell("operator", "list", "--home", str(home)).out
    assert "lead, switch_officer" in out
    assert "nicht besetzt" not in out
    found = [json.loads(line) for line in shell("operator", "list", "--json", "--home", str(home)).out.splitlines()]
    assert {"betrieb-1", "betrieb-2", "automat"} <= {one["name"] for one in found}
    assert all(len(one["fingerprint"].split()) == 5 for one in found)


def test_a_disabled_operator_orders_nothing_and_what_was_ordered_stays(shell: Shell, home: Path) -> None:
    """SW-03: the end of a credential opens nothing."""
    epoch = switching.close(home, "eau", ScopeState.HOLD)
    done = shell("operator", "disable", "betrieb-1", "--home", str(home))
    assert done.code == 0
    assert "danach nicht besetzt (RO-02): opening" in done.out
    ended = tomllib.loads(done.out)["operators"][0]["disabled_at"]
    file = home / "schleuse.toml"
    text = file.read_text()
    mine = 'public_key = "operators/betrieb-1.pub.pem"'
    file.write_text(text.replace(mine, f"{mine}\ndisabled_at = {ended.isoformat()}"))
    assert shell("switch", "hold", "kim", *WHY, "--operator", "betrieb-1", "--home", str(home)).code == 77
    assert switching.epoch(home) == epoch
    assert "HOLD" in shell("switch", "show", "eau_intake", "--home", str(home)).out
    assert "lückenlos" in shell("switch", "verify", "--home", str(home)).out


def test_who_is_not_configured_cannot_be_disabled(shell: Shell, home: Path) -> None:
    assert shell("operator", "disable", "niemand", "--home", str(home)).code == 75
