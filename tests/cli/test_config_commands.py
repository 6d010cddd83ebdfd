"""`schleuse init` and `schleuse check-config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Shell

from schleuse.cli import EXIT_CODES
from schleuse.config import read_config
from schleuse.errors import ConflictError, MalformedError

INIT = ("--insurer", "109900011:eins:Kasse Eins", "--practice", "praxis:Praxis Test", "--first-port", "23550")


def change(home: Path, old: str, new: str) -> None:
    file = home / "schleuse.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_init_writes_a_home_that_check_config_accepts(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "new"
    made = shell("init", "--home", str(home), *INIT)
    assert (made.code, made.out.strip()) == (0, str(home / "schleuse.toml"))
    assert "insurer 109900011 Kasse Eins" in made.err  # what it does goes to stderr, what it made to stdout
    assert shell("check-config", "--home", str(home)).code == 0
    assert read_config(home).kim.smtp_tls == "127.0.0.1:23550"


def test_init_keeps_keys_and_passwords_to_its_user(a_home: Path) -> None:
    secret = [path for path in a_home.rglob("*") if path.suffix == ".key" or path.name == "password"]
    assert len(secret) >= 8
    assert [path.name for path in [*secret, a_home] if path.stat().st_mode & 0o077] == []


def test_init_does_not_touch_a_home_that_exists(shell: Shell, home: Path) -> None:
    before = (home / "schleuse.toml").read_bytes()
    ended = shell("init", "--home", str(home), *INIT)
    assert ended.code == EXIT_CODES[ConflictError]
    assert "already has a schleuse.toml" in ended.err
    assert (home / "schleuse.toml").read_bytes() == before


@pytest.mark.parametrize(
    "insurer", ["1099:eins:Kasse", "109900011", "109900011:ei ns:Kasse", '109900011:eins:Kas"se', "109900011:eins:"]
)
def test_init_refuses_what_cannot_be_written_and_leaves_no_home(shell: Shell, tmp_path: Path, insurer: str) -> None:
    ended = shell("init", "--home", str(tmp_path / "new"), "--insurer", insurer)
    assert ended.code == EXIT_CODES[MalformedError]
    assert ended.err.startswith("schleuse: ")
    assert not (tmp_path / "new").exists()


def test_check_config_reports_all_mistakes_at_once(shell: Shell, home: Path) -> None:
    change(home, 'environment = "test"', 'environment = "testing"')
    change(home, "[kim]", '[kim]\nsmpt_tls = "127.0.0.1:1"')
    change(home, 'ik = "109900011"', 'ik = "1099"')
    ended = shell("check-config", "--home", str(home))
    assert ended.code == EXIT_CODES[MalformedError]
    assert ended.out == ""
    for mistake in ("environment", "kim.smpt_tls: is not a key that this version knows", "nine digits"):
        assert mistake in ended.err
    assert all(line.startswith("schleuse: ") for line in ended.err.splitlines())


def test_check_config_names_every_file_that_is_missing(shell: Shell, home: Path) -> None:
    (home / "pki" / "tls.key").unlink()
    (home / "insurers" / "109900011" / "osig.pem").unlink()
    ended = shell("check-config", "--home", str(home))
    assert ended.code == EXIT_CODES[MalformedError]
    assert [line.split(":")[1].strip() for line in ended.err.splitlines()] == [
        "kim.tls.key",
        "eau.feed_tls.key",
        "insurers[0].signature[0]",
    ]


def test_check_config_without_a_home_says_how_to_get_one(shell: Shell, tmp_path: Path) -> None:
    ended = shell("check-config", "--home", str(tmp_path / "none"))
    assert ended.code == EXIT_CODES[MalformedError]
    assert "`schleuse init` writes one" in ended.err


def test_check_config_takes_the_home_of_the_environment(
    shell: Shell, a_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHLEUSE_HOME", str(a_home))
    assert shell("check-config").code == 0


def test_check_config_for_machines_is_one_object(shell: Shell, home: Path) -> None:
    right = shell("check-config", "--home", str(home), "--json")
    assert (right.code, json.loads(right.out)) == (0, {"valid": True, "mistakes": []})
    (home / "pki" / "ca.pem").unlink()
    wrong = shell("check-config", "--home", str(home), "--json")
    found = json.loads(wrong.out)
    assert (wrong.code, found["valid"], wrong.err) == (EXIT_CODES[MalformedError], False, "")
    assert len(found["mistakes"]) == 2  # eau.trust and eau.submit_ca
