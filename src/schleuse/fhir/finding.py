"""What a check found: where, which rule, what was there and what should have been. Never patient data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from schleuse.fhir.german import BASE_INVARIANTS, PHRASES

Language = Literal["de", "en"]


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation from a rule.

    path: of the element in the document, e.g. "Bundle.entry[3].resource.onsetPeriod.start" (indexes from 0).
        For something missing, the path that it would have; a slice stands after a colon ("identifier:LANR").
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
        words = _WORDS[language]
        base = BASE_INVARIANTS.get(self.key) if language == "de" else None
        said = words.rules.get(self.key) or base or self.human
        parts = [f"{words.severity[self.severity]} {self.path} [{self.key}]"]
        if said:
            parts.append(f": {said.rstrip('.')}")
        if self.found:
            parts.append(f"; {words.found} {_in(language, self.found)}")
        if self.expected:
            parts.append(f"; {words.expected} {_in(language, self.expected)}")
        return "".join(parts) + "."


def has_errors(findings: list[Finding]) -> bool:
    """Whether a document with these findings is invalid; warnings do not reject."""
    return any(finding.severity is Severity.ERROR for finding in findings)


@dataclass(frozen=True, slots=True)
class _Words:
    severity: dict[Severity, str]
    found: str
    expected: str
    rules: dict[str, str]


_WORDS: Final[dict[Language, _Words]] = {
    "en": _Words(
        severity={Severity.ERROR: "error", Severity.WARNING: "warning"},
        found="found:",
        expected="expected:",
        rules={
            "binding": "the code is not in the value set",
            "charset.bom": "the file starts with a BOM",
            "charset.bytes": "the file is not in UTF-8",
            "charset.declared": "the file declares another character set",
            "cardinality.max": "there are too many",
            "cardinality.min": "something that is required is missing",
            "code.display": "the display text is not that of the code system",
            "code.unknown": "the code system does not have this code",
            "date.window": "the date of issue is outside the validity of this version",
            "element.empty": "the element is empty",
            "element.order": "the element stands in the wrong place",
            "element.unknown": "the element is not known here",
            "ext-1": "an extension has either a value or further extensions",
            "extension.context": "the extension is not meant for this place",
            "extension.modifier": "a modifier and an ordinary extension have been interchanged",
            "extension.unknown": "the extension is not known",
            "fixed": "the value is not the one that is prescribed",
            "maxLength": "the text is too long",
            "maxValue": "the number is too high",
            "minValue": "the number is too low",
            "narrative.markup": "the text has markup that is not allowed",
            "pattern": "the value does not have what is prescribed",
            "profile.missing": "the resource names no profile",
            "profile.unknown": "the profile is not known",
            "reference.target": "the reference points to something that is not allowed here",
            "reference.type": "the type given for the reference is not that of its target",
            "reference.unresolved": "the reference points to nothing in this document",
            "slice.closed": "the element is none of those that are allowed here",
            "type": "the resource is of another type",
            "type.value": "the value is not one of this type",
            "xml": "the XML cannot be read",
            "xml.attribute": "the element has an attribute that is not allowed, or an empty one",
            "xml.order": "repetitions of an element do not stand together",
            "xml.text": "there is text between the elements",
        },
    ),
    "de": _Words(
        severity={Severity.ERROR: "Fehler", Severity.WARNING: "Warnung"},
        found="gefunden:",
        expected="erwartet:",
        rules={
            "binding": "der Code gehört nicht zur Wertliste",
            "charset.bom": "die Datei beginnt mit einem BOM",
            "charset.bytes": "die Datei ist nicht in UTF-8",
            "charset.declared": "die Datei gibt einen anderen Zeichensatz an",
            "cardinality.max": "das Element kommt zu oft vor",
            "cardinality.min": "eine Pflichtangabe fehlt",
            "code.display": "der Anzeigetext ist nicht der des Codesystems",
            "code.unknown": "das Codesystem kennt diesen Code nicht",
            "date.window": "das Ausstellungsdatum liegt außerhalb der Gültigkeit dieser Version",
            "element.empty": "das Element ist leer",
            "element.order": "das Element steht an der falschen Stelle",
            "element.unknown": "das Element ist hier nicht bekannt",
            "ext-1": "eine Extension hat entweder einen Wert oder weitere Extensions",
            "extension.context": "die Extension ist für diese Stelle nicht vorgesehen",
            "extension.modifier": "extension und modifierExtension sind verwechselt",
            "extension.unknown": "die Extension ist nicht bekannt",
            "fixed": "der Wert ist nicht der vorgeschriebene",
            "maxLength": "der Text ist zu lang",
            "maxValue": "die Zahl ist zu groß",
            "minValue": "die Zahl ist zu klein",
            "narrative.markup": "der Text enthält Auszeichnungen, die nicht erlaubt sind",
            "pattern": "dem Wert fehlt Vorgeschriebenes",
            "profile.missing": "die Ressource nennt kein Profil",
            "profile.unknown": "das Profil ist nicht bekannt",
            "reference.target": "die Referenz zeigt auf etwas, das hier nicht erlaubt ist",
            "reference.type": "der angegebene Typ der Referenz ist nicht der des Ziels",
            "reference.unresolved": "die Referenz zeigt auf nichts in diesem Dokument",
            "slice.closed": "das Element ist keines der hier erlaubten",
            "type": "die Ressource ist von einem anderen Typ",
            "type.value": "der Wert hat nicht die Form dieses Typs",
            "xml": "das XML ist nicht lesbar",
            "xml.attribute": "das Element hat ein unerlaubtes oder ein leeres Attribut",
            "xml.order": "Wiederholungen eines Elements stehen nicht beieinander",
            "xml.text": "zwischen den Elementen steht Text",
        },
    ),
}


def _in(language: Language, text: str) -> str:
    return text if language == "en" else PHRASES.translate(text)
