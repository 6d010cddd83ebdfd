"""The table of rules: where each stands in the code, and which tests ask for it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.markdown import table
from tools.rules import LATER, RULES, SCENARIOS

ROOT = Path(__file__).parents[1]
_ID = re.compile(r"\b((?:SW|HD|RS|RO|T)-\d{2})\b")


def cited(folder: Path) -> Mapping[str, list[str]]:
    """id -> files under this folder that cite it, relative to it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for id in sorted(set(_ID.findall(path.read_text(encoding="utf-8")))):
            found[id].append(path.relative_to(folder).as_posix())
    return found


def rules() -> str:
    """Every rule of the switch, of holding, of the way back and of roles."""
    code, tests = cited(ROOT / "src" / "schleuse"), cited(ROOT / "tests")
    return table(
        ("rule", "asks", "in the code", "asked for by"),
        [(id, asks, _files(id, code), _files(id, tests, "tests/")) for id, asks in RULES.items()],
    )


def scenarios() -> str:
    """Every scenario of § 16."""
    tests = cited(ROOT / "tests")
    return table(
        ("scenario", "what happens", "rehearsed by"),
        [(id, what, _files(id, tests, "tests/")) for id, what in SCENARIOS.items()],
    )


def _files(id: str, found: Mapping[str, Iterable[str]], folder: str = "") -> str:
    if id in found:
        return ", ".join(f"`{folder}{name}`" for name in found[id])
    return f"later: {LATER[id]}" if id in LATER else "**missing**"
