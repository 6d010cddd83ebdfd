"""Writes the tables in docs/ that follow from the code, so that they cannot be out of date.

    .venv/bin/python -m tools.write_docs           rewrite the tables
    .venv/bin/python -m tools.write_docs --check   say what is out of date, change nothing

A table stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->`; all other text of a page is written by hand.
What code cannot say (what a setting is for, what to do about a waiting mail) stands in `tools/words.py`, and a key
without words, or words without a key, is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from tools import tables_of_code, tables_of_edges, tables_of_rules, tables_of_states

DOCS = Path(__file__).parents[1] / "docs"

#: page -> table -> who writes it.
PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "errors.md": {
        "kinds": tables_of_edges.kinds,
        "codes": tables_of_edges.codes,
        "fehlernachricht": tables_of_edges.fehlernachricht,
    },
    "configuration.md": {"keys": tables_of_edges.configuration},
    "states.md": {
        "diagram": tables_of_states.diagram,
        "states": tables_of_states.states,
        "moves": tables_of_states.moves,
        "quarantine": tables_of_states.quarantine,
    },
    "rules.md": {"rules": tables_of_rules.rules, "scenarios": tables_of_rules.scenarios},
    "metrics.md": {"metrics": tables_of_code.metrics, "events": tables_of_code.events},
    "operating.md": {
        "commands": tables_of_edges.commands,
        "waits": tables_of_states.waits,
        "log": tables_of_code.log_events,
    },
}


class BadPageError(Exception):
    """A page does not have the place for a table."""


def written(page: str) -> str:
    """The text of a page with its tables as the code of today makes them. Raises BadPageError."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, table in PAGES[page].items():
        text = _replaced(page, text, name, table())
    return text


def _replaced(page: str, text: str, name: str, table: str) -> str:
    place = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.S)
    if len(place.findall(text)) != 1:
        raise BadPageError(f"docs/{page} must have <!-- begin: {name} --> and <!-- end: {name} --> once")
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def main(arguments: list[str]) -> int:
    """Exit code: 0 all pages are as the code makes them, 1 one was not (with --check)."""
    stale = [page for page in PAGES if written(page) != (DOCS / page).read_text(encoding="utf-8")]
    for page in stale:
        print(f"docs/{page} {'is out of date' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            (DOCS / page).write_text(written(page), encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
