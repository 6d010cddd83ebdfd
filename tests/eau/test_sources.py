"""Official lists that lack packages: our own rules stand in where they are the same, and that is told."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import structlog
from tests.eau.corpus import rich
from tests.eau.test_checks import issued

from schleuse.cli.eau_check import check as check_command
from schleuse.eau.checks import Checker
from schleuse.eau.findings import Verdict
from schleuse.eau.rules import EDITIONS, ROOTS
from schleuse.eau.sources import Fallback, RulesMissingError
from schleuse.fhir import packages
from schleuse.processes.eau import _tell_fallbacks

NEWEST = EDITIONS[-1]
LACKING = ("kbv.x-1", "the base R4 definitions")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose registry names lists and that has none of their packages."""
    return listed(
        tmp_path,
        {
            "eau.1.0.2": ("1.0.2", "2021-07-01", "2023-12-31"),
            "eau.1.1.0": ("1.1.0", "2023-07-01", "2024-09-30"),
            "eau.1.1.0-b": ("1.1.0", "2024-10-01", "2026-06-30"),
            "eau.1.2.1": ("1.2", "2026-01-27", None),
            "eau.1.3": ("1.3", "2027-01-01", None),
        },
    )


def listed(tmp_path: Path, lists: dict[str, tuple[str, str, str | None]]) -> Path:
    versions: dict[str, dict[str, list[str]]] = {}
    for name, (version, _, _) in lists.items():
        versions.setdefault(version, {"dependencyLists": []})["dependencyLists"].append(name)
    config = tmp_path / "lists.yaml"
    config.write_text(
        json.dumps(
            {
                "dependencyLists": {
                    name: {"packages": ["kbv.x-1.tgz"], "validFrom": start, **({"validTill": end} if end else {})}
                    for name, (_, start, end) in lists.items()
                },
                "supportedProfiles": {root: {"profileVersions": versions} for root in ROOTS},
            }
        )
    )
    packages.add([], tmp_path / "fhir", config=config)
    return tmp_path / "fhir"


@pytest.fixture
def checker(folder: Path, tmp_path: Path) -> Checker:
    return Checker("official", packages=folder, cache=tmp_path / "cache")


def test_the_lists_that_fall_back_are_told(checker: Checker) -> None:
    assert checker.fallbacks == (
        Fallback("eau.1.1.0", LACKING, "own 1.1.0 DMP 1.05"),
        Fallback("eau.1.1.0-b", LACKING, "own 1.1.0 DMP 1.06"),
        Fallback("eau.1.2.1", LACKING, "own 1.2.1"),
        Fallback("eau.1.3", LACKING, None),
    )


def test_own_rules_have_nothing_to_fall_back_from() -> None:
    assert Checker("own").fallbacks == ()


@pytest.mark.parametrize(
    ("day", "rules", "verdict"),
    [
        (date(2024, 9, 30), "own 1.1.0 DMP 1.05", Verdict.VALID),
        (date(2024, 10, 1), "own 1.1.0 DMP 1.06", Verdict.VALID),
        (date(2026, 7, 1), "own 1.1.0 DMP 1.06", Verdict.INVALID),
    ],
)
def test_our_own_rules_of_the_same_window_judge_instead(
    checker: Checker, day: date, rules: str, verdict: Verdict
) -> None:
    checked = checker.check(issued("1.1.0", day))
    assert (checked.rules, checked.verdict) == (rules, verdict)


def test_a_version_that_we_do_not_know_waits_for_its_packages(checker: Checker) -> None:
    newer = issued("1.2", date(2027, 2, 1)).replace(b"KBV_PR_EAU_Bundle|1.2", b"KBV_PR_EAU_Bundle|1.3")
    with pytest.raises(RulesMissingError):
        checker.check(newer)


def test_a_version_older_than_all_our_rules_is_unknown_and_does_not_wait(checker: Checker) -> None:
    older = issued("1.1.0", date(2023, 1, 1)).replace(b"KBV_PR_EAU_Bundle|1.1.0", b"KBV_PR_EAU_Bundle|1.0.2")
    checked = checker.check(older)
    assert (checked.verdict, [one.key for one in checked.errors]) == (Verdict.INVALID, ["profile.unknown"])


def test_rules_of_another_window_do_not_stand_in(tmp_path: Path) -> None:
    folder = listed(tmp_path, {"eau.1.2.2": ("1.2", "2027-01-01", None)})
    checker = Checker("official", packages=folder, cache=tmp_path / "cache")
    assert checker.fallbacks == (Fallback("eau.1.2.2", LACKING, None),)
    with pytest.raises(RulesMissingError):
        checker.check(issued("1.2", date(2027, 2, 1)))


def test_the_role_tells_it_once_at_its_start(checker: Checker) -> None:
    with structlog.testing.capture_logs() as logs:
        _tell_fallbacks(checker)
    assert [(one["log_level"], one["event"], one["list"], one.get("rules")) for one in logs] == [
        ("warning", "eau.rules-fallback", "eau.1.1.0", "own 1.1.0 DMP 1.05"),
        ("warning", "eau.rules-fallback", "eau.1.1.0-b", "own 1.1.0 DMP 1.06"),
        ("warning", "eau.rules-fallback", "eau.1.2.1", "own 1.2.1"),
        ("error", "eau.rules-missing", "eau.1.3", None),
    ]
    assert logs[0]["missing"] == LACKING


def test_the_command_tells_only_of_lists_that_its_files_needed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.xml").write_bytes(rich(NEWEST).xml)
    assert check_command(str(tmp_path / "x.xml"), rules="official", home=tmp_path) == 0
    told = capsys.readouterr()
    assert "(eAU, Regeln: own 1.2.1)" in told.out
    assert told.err.splitlines() == [
        "Hinweis: von der offiziellen Liste eau.1.2.1 fehlt kbv.x-1, die Basisdefinitionen von R4, darum "
        "haben unsere eigenen Regeln geurteilt (own 1.2.1); `schleuse fhir add` ergänzt, was fehlt"
    ]
    check_command(str(tmp_path / "x.xml"), rules="official", home=tmp_path, lang="en")
    assert capsys.readouterr().err.startswith("note: of the official list eau.1.2.1")
