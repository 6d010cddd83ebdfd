"""What people wrote by hand: links lead somewhere, files and commands exist, fragments have a kind."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tools.tables_of_edges import command_lines

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "README.md"])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
SOURCE = ROOT / "src" / "schleuse"
PACKAGES = "|".join(sorted(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page: Path) -> None:
    found = re.findall(
        rf"`((?:(?:{PACKAGES})/[\w./-]+|(?:tests|docs|tools|deploy|bench)/[\w./-]+))`", page.read_text("utf-8")
    )
    # A key is a file of a home, never of ours; so is what a home keeps of its switch.
    found = [name for name in found if not name.endswith(".key") and not re.fullmatch(r"switch/[a-z]+", name)]
    missing = [name for name in found if not any((base / name).exists() for base in (SOURCE, ROOT))]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    known = {tuple(name.split())[:2] for name, _ in command_lines()} | {("test",), ("lint",), ("--version",)}
    shown = re.findall(r"schleuse/?schleuse ([a-z -]+)|\./schleuse ([a-z-]+(?: [a-z-]+)?)", page.read_text("utf-8"))
    unknown = []
    for first, second in shown:
        words = (first or second).split()
        if tuple(words[:1]) not in known and tuple(words[:2]) not in known:
            unknown.append(" ".join(words))
    assert unknown == []


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
def test_a_decision_says_what_forced_it_what_was_chosen_and_what_it_costs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]} ")
    assert [
        part for part in ("**What forced a choice.**", "**What we chose.**", "**What it costs.**") if part not in text
    ] == []


def test_decisions_that_are_cited_exist() -> None:
    cited: dict[str, str] = {}
    for path in [*PAGES, *SOURCE.rglob("*.py")]:
        for number in re.findall(r"[dD]ecisions? (\d{4})", path.read_text(encoding="utf-8")):
            cited[number] = path.name
    assert {number: name for number, name in cited.items() if number not in {path.name[:4] for path in DECISIONS}} == {}


def test_the_tour_has_the_steps_of_an_eau_and_of_an_entry() -> None:
    steps = re.findall(r"^(\d+)\. \*\*", (ROOT / "docs" / "tour.md").read_text(encoding="utf-8"), re.M)
    assert [int(step) for step in steps] == [*range(1, 14), *range(1, 9)]


def test_every_package_is_in_the_tour_or_the_glossary() -> None:
    told = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("tour.md", "glossary.md"))
    assert [
        name for name in ("mail", "kim", "eau", "fhir", "holding", "vault", "practice") if f"`{name}" not in told
    ] == []


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.M)
    words = [word.strip() for word in rows if not set(word) <= set("-")][1:]
    assert words == sorted(words, key=lambda word: re.sub(r"\W", "", word).casefold())
    assert len(words) == len(set(words))


def test_changelog_fragments_have_a_kind_that_towncrier_knows() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    kinds = {kind["directory"] for kind in settings["type"]}
    fragments = sorted((ROOT / "changelog.d").glob("*.md"))
    assert fragments
    assert [path.name for path in fragments if path.name.split(".")[-2] not in kinds] == []
    assert [path.name for path in fragments if not path.read_text(encoding="utf-8").strip()] == []
