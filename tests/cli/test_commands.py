"""What all commands have in common: exit codes, stderr, language, JSON lines. None needs a running platform."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.conftest import Shell

from schleuse import __version__
from schleuse.cli import EXIT_CODES, exit_code
from schleuse.config import read_config
from schleuse.eau.store import open_store
from schleuse.errors import (
    ConflictError,
    CorruptError,
    Error,
    MalformedError,
    RefusedError,
    UnavailableError,
)
from schleuse.kim.store import open_mail_store
from schleuse.mail.spool import DamagedRecordError
from schleuse.practice.faults import FAULTS
from schleuse.processes.kim import load_accounts, store_settings
from schleuse.processes.life import only_instance

USAGE = 2


@pytest.fixture
def empty(home: Path) -> Path:
    """A home whose stores exist and have nothing in them."""
    config = read_config(home)
    open_mail_store(store_settings(config), load_accounts(config).account_of, background=False).close()
    open_store(config.eau_database).close()
    return home


# Exit codes and stderr -----------------------------------------------------------------------------------


def test_each_kind_of_error_has_an_exit_code_of_its_own() -> None:
    kinds = (MalformedError, RefusedError, ConflictError, UnavailableError, CorruptError)
    assert len({EXIT_CODES[kind] for kind in kinds}) == len(kinds)
    assert 0 not in EXIT_CODES.values()


def test_a_derived_error_has_the_exit_code_of_its_kind() -> None:
    assert exit_code(DamagedRecordError("x")) == EXIT_CODES[CorruptError]
    assert exit_code(Error("x")) != 0


@pytest.mark.parametrize("arguments", [("frobnicate",), ("hold", "frobnicate"), ("run", "frobnicate")])
def test_what_is_no_command_is_an_error_of_usage_on_stderr(shell: Shell, arguments: tuple[str, ...]) -> None:
    ended = shell(*arguments)
    assert (ended.code, ended.out) == (USAGE, "")
    assert "frobnicate" in ended.err


def test_an_option_of_the_wrong_type_is_an_error_of_usage(shell: Shell) -> None:
    ended = shell("practice", "send", "--count", "many")
    assert (ended.code, ended.out) == (USAGE, "")
    assert "--count" in ended.err


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("practice", "send", "--faulty", "nonsense"), MalformedError, "--faulty nonsense: expected one of"),
        (("practice", "send", "--practice", "nobody"), RefusedError, "nobody"),
        (("practice", "send"), UnavailableError, "mail server"),
        (("eau", "check"), MalformedError, "name the files"),
        (("eau", "feed", "109900011"), UnavailableError, "feed"),
        (("fhir", "add", "missing.tgz"), MalformedError, "missing.tgz"),
        (("fhir", "add"), MalformedError, "nothing to add"),
    ],
)
def test_errors_go_to_stderr_with_the_exit_code_of_their_kind(
    shell: Shell, home: Path, arguments: tuple[str, ...], kind: type[Error], said: str
) -> None:
    ended = shell(*arguments, *(() if arguments == ("eau", "check") else ("--home", str(home))))
    assert (ended.code, ended.out) == (EXIT_CODES[kind], "")
    assert said in ended.err
    assert ended.err.startswith("schleuse: ")


@pytest.mark.parametrize("command", [("up",), ("run", "kim")])
def test_without_a_home_nothing_is_started(shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = shell(*command, "--home", str(tmp_path / "none"))
    assert ended.code in (EXIT_CODES[ConflictError], EXIT_CODES[MalformedError])
    assert "schleuse init" in ended.err
    assert not (tmp_path / "none").exists()


def test_a_role_that_runs_already_is_not_started_twice(shell: Shell, home: Path) -> None:
    with only_instance(home, "supervisor"):
        ended = shell("up", "--home", str(home))
    assert ended.code == EXIT_CODES[ConflictError]
    assert "already runs" in ended.err


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    ended = shell("--version")
    assert (ended.code, ended.out.strip()) == (0, __version__)


# hold check ----------------------------------------------------------------------------------------------


def test_hold_check_of_an_empty_platform_holds(shell: Shell, empty: Path) -> None:
    ended = shell("hold", "check", "--home", str(empty))
    assert ended.code == 0
    assert "angenommen 0 = verbucht 0" in ended.out
    assert "nichts verloren, nichts doppelt" in ended.out


def test_hold_check_for_machines_is_one_object(shell: Shell, empty: Path) -> None:
    ended = shell("hold", "check", "--home", str(empty), "--json")
    found = json.loads(ended.out)
    assert (found["holds"], found["accepted"], found["accounted"], found["findings"]) == (True, 0, 0, [])


def test_hold_check_says_when_the_stores_contradict_each_other(shell: Shell, empty: Path) -> None:
    (empty / "eau.sqlite").write_bytes(b"no database at all" * 1000)
    ended = shell("hold", "check", "--home", str(empty))
    assert ended.code in (EXIT_CODES[CorruptError], EXIT_CODES[UnavailableError])
    assert ended.err.startswith("schleuse: ")


# practice ------------------------------------------------------------------------------------------------


def test_practice_send_lists_everything_that_can_break(shell: Shell) -> None:
    ended = shell("practice", "send", "--faulty", "list")
    assert ended.code == 0
    for fault in FAULTS.values():
        assert fault.name in ended.out
        assert fault.german in ended.out
        assert str(fault.code or "-") in ended.out


# English -------------------------------------------------------------------------------------------------


def test_people_read_english_where_they_ask_for_it(shell: Shell, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHLEUSE_LANG", "en")
    assert "nothing lost, nothing twice" in shell("hold", "check", "--home", str(empty)).out
    listed = shell("practice", "send", "--faulty", "list").out
    assert FAULTS["charset"].english in listed
    assert FAULTS["charset"].german not in listed


def test_eau_check_speaks_the_same_language(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.xml").write_bytes(b"no XML")
    german = shell("eau", "check", str(tmp_path / "one.xml"), "--home", str(tmp_path))
    monkeypatch.setenv("SCHLEUSE_LANG", "en")
    english = shell("eau", "check", str(tmp_path / "one.xml"), "--home", str(tmp_path))
    assert "nicht lesbar" in german.out
    assert "not readable" in english.out
    assert german.code == english.code == 2


# JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("check-config", "--home", "HOME"), 1),
        (("hold", "check", "--home", "HOME"), 1),
        (("fhir", "list", "--home", "HOME"), 1),
        (("eau", "check", "HOME/one.xml", "HOME/two.xml", "HOME/missing.xml", "--home", "HOME"), 3),
    ],
)
def test_json_is_one_object_a_line(shell: Shell, empty: Path, arguments: tuple[str, ...], lines: int) -> None:
    for name in ("one.xml", "two.xml"):
        (empty / name).write_text(f"<x>{datetime.now(UTC)}</x>", encoding="utf-8")
    ended = shell(*(argument.replace("HOME", str(empty)) for argument in arguments), "--json")
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [type(item) for item in found] == [dict] * lines
    assert ended.err == ""


def test_packages_go_where_the_configuration_says(shell: Shell, home: Path) -> None:
    file = home / "schleuse.toml"
    file.write_text(file.read_text().replace("[eau]", '[eau]\npackages = "elsewhere/packages"', 1))
    lists = home / "lists.yaml"
    lists.write_text('{"dependencyLists": {"mine": {"packages": ["x-1.tgz"], "validFrom": "2026-01-01"}}}')
    assert shell("fhir", "add", "--config", str(lists), "--home", str(home)).code == 0
    assert (home / "elsewhere" / "packages" / "registry.json").exists()
    assert not (home / "fhir").exists()
    assert "list mine" in shell("fhir", "list", "--home", str(home)).out
    (told,) = [path.read_text() for path in (home / "trail").glob("cli-*.jsonl")]
    assert "fhir.add" in told  # an act of administration leaves its entry
    assert "lists.yaml" in told


def test_a_document_is_checked_with_the_packages_that_the_configuration_names(shell: Shell, home: Path) -> None:
    file = home / "schleuse.toml"
    file.write_text(file.read_text().replace("[eau]", '[eau]\npackages = "elsewhere/packages"', 1))
    ended = shell("eau", "check", str(file), "--rules", "official", "--home", str(home))
    assert "elsewhere/packages" in ended.err


def test_a_faulty_configuration_is_told_instead_of_guessing_the_folder(shell: Shell, home: Path) -> None:
    (home / "schleuse.toml").write_text("[eau")
    assert "TOML" in shell("fhir", "list", "--home", str(home)).err
