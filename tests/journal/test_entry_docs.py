"""The page on entries says what the code says."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from schleuse.journal.admission import REQUIRED
from schleuse.journal.entry import ExtensionType, Kind, Purpose, Result

PAGE = (Path(__file__).parents[2] / "docs" / "journal-entries.md").read_text(encoding="utf-8")
WORDS = {
    ExtensionType.SUBJECT_KEY_VERSION: "key version",
    ExtensionType.SECOND_ACTOR: "second actor",
    ExtensionType.REFERS_TO: "earlier event",
}


@pytest.mark.parametrize(("heading", "numbers"), [("Kinds", Kind), ("Results", Result), ("Purposes", Purpose)])
def test_each_number_is_explained_and_no_other(heading: str, numbers: type[IntEnum]) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (0x[0-9a-f]+|[0-9]+) \| `([A-Z_]+)` \|", section, re.MULTILINE)
    assert [(int(number, 0), name) for number, name in rows] == [(member.value, member.name) for member in numbers]


@pytest.mark.parametrize("kind", Kind)
def test_the_page_says_what_a_kind_needs(kind: Kind) -> None:
    (row,) = re.findall(rf"^\| {kind:#04x} .*\| ([a-z ]*)\|$", PAGE, re.MULTILINE)
    assert row.strip() == (WORDS[REQUIRED[kind]] if kind in REQUIRED else "")
