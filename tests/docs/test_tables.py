"""The docs say what the code says: tables are compared, names are looked up, links are followed."""

from __future__ import annotations

import re

import pytest
from tools.tables_of_code import counted, families, logged
from tools.tables_of_edges import KINDS, command_lines, configuration_keys, error_classes
from tools.write_docs import DOCS, PAGES, written

from schleuse.eau.findings import Trouble
from schleuse.eau.outcome import Quarantine
from schleuse.holding.states import MOVES

HOW = "run `.venv/bin/python -m tools.write_docs`, and read what has changed"


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def named(page: str, words: list[str]) -> list[str]:
    """Which of the words the page does not have in code quotes."""
    quoted = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text(page), flags=re.S)))
    return [word for word in words if word not in quoted]


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_those_of_the_code(page: str) -> None:
    assert written(page) == text(page), f"docs/{page} is out of date: {HOW}"


def test_every_error_code_is_unique_and_has_an_area() -> None:
    codes = [error.code for error in error_classes()]
    assert sorted({code for code in codes if codes.count(code) > 1}) == []
    assert [code for code in codes if not re.fullmatch(r"[a-z0-9]+(\.[a-z0-9]+(-[a-z0-9]+)*)+", code)] == []


def test_every_error_has_a_code_and_a_line_of_its_own() -> None:
    assert [error.__qualname__ for error in error_classes() if "code" not in vars(error)] == []
    assert [error.code for error in error_classes() if not (vars(error).get("__doc__") or "").strip()] == []


def test_every_error_is_of_one_kind() -> None:
    assert [error.code for error in error_classes() if sum(issubclass(error, kind) for kind in KINDS) != 1] == []


def test_every_error_code_is_in_the_docs() -> None:
    assert named("errors.md", [error.code for error in (*error_classes(), *KINDS)]) == []


def test_every_setting_is_in_the_docs() -> None:
    assert named("configuration.md", configuration_keys()) == []


def test_every_command_is_in_the_docs() -> None:
    assert named("operating.md", [f"./schleuse {name}" for name, _ in command_lines()]) == []


def test_every_metric_event_and_log_line_is_in_the_docs() -> None:
    assert named("metrics.md", [*families(), *counted()]) == []
    assert named("operating.md", list(logged())) == []


def test_every_move_is_in_the_diagram() -> None:
    lines = {line.strip() for line in text("states.md").splitlines()}
    assert [f"{a} --> {b}" for a, bs in MOVES.items() for b in bs if f"{a} --> {b}" not in lines] == []


def test_every_reason_to_wait_or_to_look_is_in_the_docs() -> None:
    assert named("operating.md", [trouble.value for trouble in Trouble]) == []
    assert named("states.md", [reason.value for reason in Quarantine]) == []
