"""What each rule key says, in German and English."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

from schleuse.eau.rules.edition import EDITIONS
from schleuse.eau.rules.expand import VALUE_SETS, code_lists
from schleuse.eau.rules.notation import Invariant, Profile, Rule
from schleuse.eau.rules.profiles import tables


def invariants(profiles: tuple[Profile, ...]) -> Iterator[Invariant]:
    """Every invariant of some tables, repeated where it is used more than once."""

    def within(rule: Rule) -> Iterator[Invariant]:
        yield from rule.invariants
        for each in (*rule.children, *rule.alternatives, *(rule.extensions or ())):
            yield from within(each)

    for profile in profiles:
        yield from profile.invariants
        for rule in (*profile.children, *(profile.extensions or ())):
            yield from within(rule)


@cache
def _texts() -> dict[str, tuple[str, str]]:
    return {each.key: (each.de, each.en) for edition in EDITIONS for each in invariants(tables(edition))}


def invariant_text(key: str, language: Literal["de", "en"] = "de") -> str | None:
    """One sentence for people, None for a key that is not an invariant of ours."""
    found = _texts().get(key)
    return None if found is None else found[language == "en"]


@cache
def _titles() -> dict[str, str]:
    return {
        f"{VALUE_SETS}/{each.name}": each.title for edition in EDITIONS for each in code_lists(tables(edition)).values()
    }


def list_title(url: str) -> str | None:
    """German name of one of our value lists; None for a URL that is none of ours, and so means something to others."""
    return _titles().get(url)
