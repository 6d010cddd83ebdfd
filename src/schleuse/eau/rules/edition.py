"""The editions of the eAU that our rules cover, and what a table asks about them (eau.md § 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["1.1.0", "1.2.0", "1.2.1"]


@dataclass(frozen=True, slots=True)
class Edition:
    """One rule set. version: what stands after the bar in meta.profile; 1.2.0 and 1.2.1 share it.

    dmp: whether the DMP list with combined programmes (V1.06) is in force, or the one before it (V1.05).
    """

    name: Name
    version: str
    dmp: Literal["1.05", "1.06"] = "1.06"

    @property
    def old(self) -> bool:
        """1.1.0: fewer checks, other types of insurance numbers."""
        return self.name == "1.1.0"

    @property
    def newest(self) -> bool:
        """1.2.1: house numbers compared literally, BSNR of nine digits, no rules for the KZV number."""
        return self.name == "1.2.1"

    def canonical(self, name: str) -> str:
        """`URL|version` of a KBV profile."""
        return f"{KBV_STRUCTURE}/{name}|{self.version}"


KBV_STRUCTURE = "https://fhir.kbv.de/StructureDefinition"

EDITIONS: tuple[Edition, ...] = (
    Edition("1.1.0", "1.1.0", dmp="1.05"),
    Edition("1.1.0", "1.1.0"),
    Edition("1.2.0", "1.2"),
    Edition("1.2.1", "1.2"),
)
