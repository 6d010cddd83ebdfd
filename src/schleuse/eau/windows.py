"""Which rules judge a document of which version and date of issue (eau.md § 10). Data: the next version moves it.

These bounds are those of the reference validator, by Composition.date. Until when a version may be *sent* is
another bound, by the Date of the KIM mail, and stands in `versions.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from schleuse.eau.rules import EDITIONS, Edition


@dataclass(frozen=True, slots=True)
class Window:
    """Rules for documents of one version issued from valid_from to valid_till, both inclusive; None is open."""

    edition: Edition
    valid_from: date
    valid_till: date | None = None

    @property
    def name(self) -> str:
        """Such as "1.2.1", or "1.1.0 DMP 1.05" for the edition that two lists of DMP have served."""
        return f"{self.edition.name} DMP {self.edition.dmp}" if self.edition.old else self.edition.name

    def covers(self, day: date) -> bool:
        return self.valid_from <= day and (self.valid_till is None or day <= self.valid_till)


_OLD_DMP, _OLD, _INTERIM, _NEWEST = EDITIONS

WINDOWS: tuple[Window, ...] = (
    Window(_OLD_DMP, date(2023, 7, 1), date(2024, 9, 30)),
    Window(_OLD, date(2024, 10, 1), date(2026, 6, 30)),
    Window(_INTERIM, date(2025, 10, 1), date(2026, 1, 26)),
    Window(_NEWEST, date(2026, 1, 27)),
)


def choose(windows: Sequence[Window], version: str, issued: date | None) -> tuple[Window | None, bool]:
    """The window that judges a document, and whether its date lies inside.

    issued None: the date cannot be read, so the newest rules of the version judge (and find that).
    (None, False): no rules of that version at all.
    """
    known = sorted((one for one in windows if one.edition.version == version), key=lambda one: one.valid_from)
    if not known:
        return None, False
    if issued is None:
        return known[-1], True
    for one in reversed(known):
        if one.covers(issued):
            return one, True
    begun = [one for one in known if one.valid_from <= issued]
    return (begun or known[:1])[-1], False
