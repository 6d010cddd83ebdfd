"""`schleuse fhir add` and `schleuse fhir list`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.fhir.test_packages import CONFIG, eau_package

from schleuse.cli import fhir as command
from schleuse.cli.fhir import BadListError, app, folder
from schleuse.fhir import packages


def run(*words: str | Path) -> None:
    app(list(map(str, words)), result_action="return_value")


def test_adding_shows_what_is_installed_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    run("add", eau_package(tmp_path, "1.0", 0), "--config", config, "--home", tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "installed x.eau-1.0",
        "list old: 2025-01-01 to 2025-12-31, missing: the base R4 definitions",
        "list new: 2026-01-01 to open, missing: x.eau-1.1, x.codes-1.0, the base R4 definitions",
    ]


def test_a_list_can_be_given_by_name_and_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = eau_package(tmp_path, "1.0", 0)
    run(
        "add", package, "--list", "mine", "--valid-from", "2026-01-01", "--valid-till", "2026-12-31", "--home", tmp_path
    )
    assert "list mine: 2026-01-01 to 2026-12-31, missing: the base R4 definitions" in capsys.readouterr().out


def test_machines_get_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("add", eau_package(tmp_path, "1.0", 0), "--home", tmp_path, "--json")
    assert json.loads(capsys.readouterr().out) == {"installed": ["x.eau-1.0"]}
    run("list", "--home", tmp_path, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["packages"] == packages.installed(folder(tmp_path))
    assert shown["lists"] == []


def test_an_empty_home_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("list", "--home", tmp_path)
    assert "schleuse fhir add" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["add"],
        ["add", "x.tgz", "--list", "mine"],
        ["add", "x.tgz", "--valid-from", "2026-01-01"],
        ["add", "x.tgz", "--list", "mine", "--valid-from", "tomorrow"],
    ],
)
def test_what_does_not_fit_together_is_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadListError):
        run(*words, "--home", tmp_path)


def test_packages_are_kept_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCHLEUSE_HOME", str(tmp_path))
    assert command.folder(None) == tmp_path / "fhir"
