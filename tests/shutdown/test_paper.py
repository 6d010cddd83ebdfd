"""The page for the safe fits on a page, whatever the home is called and how many insurers it has (SW-05)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.shutdown.paper import HEIGHT, WIDTH, PaperFacts, PaperOperator, fingerprint, paper

FACTS = PaperFacts(
    Path("/var/lib/schleuse"),
    "kim.example.kim.telematik",
    "/opt/schleuse/schleuse",
    [PaperOperator("betrieb-1", ("lead", "switch_officer"), "ab12 cd34 ab12 cd34 ab12")],
    [("109500969", "Kasse Eins"), ("109900011", "Kasse Zwei"), ("109905003", "Kasse Drei")],
    12,
    hashlib.sha256(b"").hexdigest(),
    datetime(2026, 3, 1, 12, tzinfo=UTC),
)
MANY = replace(
    FACTS,
    home=Path("/srv/" + "sehr-langer-name/" * 6),
    program="/opt/eine/lange/umgebung/mit/versionen/3.11/bin/python -m schleuse",
    operators=[PaperOperator(f"operator-{n}" * 5, ("security_officer",) * 9, "ab12 " * 5) for n in range(40)],
    insurers=[(f"10990{n:04}", "Krankenkasse mit einem sehr langen Namen") for n in range(80)],
)


@pytest.mark.parametrize("facts", [FACTS, MANY, replace(FACTS, operators=[], insurers=[], epoch=0, digest="")])
def test_it_is_one_page(facts: PaperFacts) -> None:
    lines = paper(facts).splitlines()
    assert len(lines) <= HEIGHT
    assert max(map(len, lines)) <= WIDTH


@given(st.text("abc/-", min_size=1, max_size=150), st.integers(0, 60), st.integers(0, 100))
def test_it_is_one_page_for_any_home(name: str, operators: int, insurers: int) -> None:
    facts = replace(
        FACTS, home=Path("/" + name), operators=list(FACTS.operators) * operators, insurers=[("1", name)] * insurers
    )
    lines = paper(facts).splitlines()
    assert len(lines) <= HEIGHT
    assert max(map(len, lines)) <= WIDTH


def test_it_says_all_that_somebody_needs_who_has_nothing_else() -> None:
    text = paper(FACTS)
    for needed in (
        "export SCHLEUSE_HOME=/var/lib/schleuse",
        's() { /opt/schleuse/schleuse "$@"; }',
        "switch hold all --reason security_hold --operator NAME --operator-key",
        "switch import",
        "systemctl stop schleuse.target",
        "kill -9 -- -NUMMER",
        "betrieb-1",
        "ab12 cd34",
        "109500969",
        FACTS.digest,
        "Unterschrift",
        "zwei Personen",
    ):
        assert needed in text


def test_a_path_that_is_longer_than_a_line_is_put_together_again() -> None:
    lines = paper(MANY).splitlines()
    start = next(n for n, line in enumerate(lines) if "export SCHLEUSE_HOME" in line)
    assert lines[start].endswith("↩")
    assert lines[start].strip().removesuffix("↩") + lines[start + 1].strip() == f"export SCHLEUSE_HOME={MANY.home}"


def test_a_long_command_is_continued_as_a_shell_reads_it() -> None:
    program = "/opt/eine/umgebung/mit/versionen/und/namen/3.11/bin/python3.11 -X utf8 -m schleuse"
    text = paper(replace(FACTS, program=program))
    assert f's() {{ {program} "$@"; }}' in text.replace(" \\\n    ", "")


def test_what_does_not_fit_is_said() -> None:
    text = paper(MANY)
    assert "30 weitere: operator list" in text
    assert "72 weitere: switch show" in text


def test_a_fingerprint_can_be_compared_by_eye() -> None:
    assert fingerprint(bytes(range(32))) == "0001 0203 0405 0607 0809"
