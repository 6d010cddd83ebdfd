"""Production or test: the two never mix (kim.md § 1, § 3)."""

from __future__ import annotations

from enum import StrEnum


class Environment(StrEnum):
    """Production (PU), or test (RU, TU) with a suffix and a prefix letter of its own (kim.md § 1, § 3)."""

    PRODUCTION = "production"
    TEST = "test"

    @property
    def suffix(self) -> str:
        """Domain suffix of every KIM address of this environment."""
        return ".kim.telematik" if self is Environment.PRODUCTION else ".kim.telematik-test"

    @property
    def prefix(self) -> str:
        """First letter of eAU file names: E productive, T test data (eau.md § 3)."""
        return "E" if self is Environment.PRODUCTION else "T"
