"""Dienstkennungen: which application a KIM mail belongs to, readable without opening it (kim.md § 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schleuse.errors import MalformedError
from schleuse.mail.head import Head

FIELD = "X-KIM-Dienstkennung"
_SIGNS = re.compile(r"[\x21-\x3a\x3c-\x7e]+(?: [\x21-\x3a\x3c-\x7e]+)*")
MAX_PART = 100


class BadDienstkennungError(MalformedError):
    """Not three parts joined by semicolons."""

    code = "kim.bad-dienstkennung"


@dataclass(frozen=True, slots=True)
class Dienstkennung:
    """application;type;version, spelt as found. Dispatch with `same_service`; the version is a hint only."""

    application: str
    type: str
    version: str

    def __post_init__(self) -> None:
        for part in (self.application, self.type, self.version):
            if len(part) > MAX_PART or not _SIGNS.fullmatch(part):
                raise BadDienstkennungError("a part of a Dienstkennung is empty or has signs that no header may carry")

    def same_service(self, other: Dienstkennung) -> bool:
        """Whether application and type are the same, whatever the case and the version."""
        return (self.application.casefold(), self.type.casefold()) == (
            other.application.casefold(),
            other.type.casefold(),
        )

    def __str__(self) -> str:
        return f"{self.application};{self.type};{self.version}"


DEFAULT = Dienstkennung("KIM-Mail", "Default", "V1.0")
EAU_LIEFERUNG = Dienstkennung("eAU", "Lieferung", "V1.2")
EAU_STORNO_ARZT = Dienstkennung("eAU", "Storno-Arzt", "V1.2")
EAU_FEHLER_KASSE = Dienstkennung("eAU", "Fehler-Kasse", "V1.2")
ARZTBRIEF_VERSAND = Dienstkennung("Arztbrief", "VHitG-Versand", "V1.2")


def parse_dienstkennung(text: str) -> Dienstkennung:
    """Tolerant of white space around the parts and of unknown values. Raises BadDienstkennungError."""
    parts = [" ".join(part.split()) for part in text.split(";")]
    if len(parts) == 4 and not parts[3]:
        parts.pop()  # a semicolon at the end
    if len(parts) != 3:
        raise BadDienstkennungError(f"a Dienstkennung has three parts joined by semicolons, found {len(parts)}")
    return Dienstkennung(*parts)


def dienstkennung_of(head: Head) -> Dienstkennung | None:
    """The Dienstkennung of a mail; None if it is absent, unreadable or ambiguous, which is never a reason to refuse."""
    try:
        found = {parse_dienstkennung(value) for value in head.all(FIELD)}
    except BadDienstkennungError:
        return None
    return found.pop() if len(found) == 1 else None
