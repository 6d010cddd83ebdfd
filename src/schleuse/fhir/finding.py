"""What a check found: where, which rule, what was there and what should have been. Never patient data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Language = Literal["de", "en"]


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation from a rule.

    path: of the element in the document, e.g. "Bundle.entry[3].resource.onsetPeriod.start" (indexes from 0).
    key: of the rule: a constraint's own key ("-eau-angabePruefnummerPflicht") or one of ours ("cardinality.min", ...).
    found, expected: structural facts only: counts, lengths, type and element names, codes of bound elements.
    human: the constraint's text from the profile, empty for structural rules.
    profile: canonical URL of the StructureDefinition that holds the rule.
    """

    severity: Severity
    path: str
    key: str
    found: str = ""
    expected: str = ""
    human: str = ""
    profile: str = ""

    def message(self, language: Language = "de") -> str:
        """One sentence for people: path, rule key, found, expected."""
        raise NotImplementedError
