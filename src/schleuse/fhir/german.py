"""German for what findings say in words. The English stands where the finding is made, and goes to the logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final


class Phrases:
    """A closed set of English phrases with their German. `{}` stands for a number, a name, or another phrase."""

    def __init__(self, german: Mapping[str, str]) -> None:
        self.german: Mapping[str, str] = german
        self._patterns = [
            (re.compile("(.+?)".join(map(re.escape, english.split("{}"))), re.DOTALL), text)
            for english, text in german.items()
            if "{}" in english
        ]

    def translate(self, english: str) -> str:
        """The German of a phrase; what is none of them stays."""
        known = self.german.get(english)
        if known is not None:
            return known
        for pattern, text in self._patterns:
            found = pattern.fullmatch(english)
            if found is not None:
                return text.format(*(self.translate(part) for part in found.groups()))
        return english


#: `found` and `expected` of findings.
FINDINGS: Final = {
    "a code of its code system": "ein Code des Codesystems",
    "a code of the list {}": "ein Code der Liste {}",
    "a date of issue inside the period of version {}": "ein Ausstellungsdatum im Zeitraum der Version {}",
    "a profile that these rules know": "ein Profil, das diese Regeln kennen",
    "a resource of this Bundle": "eine Ressource dieses Bundles",
    "a value or content": "ein Wert oder Inhalt",
    "an extension that is defined": "eine definierte Extension",
    "an extension that is defined for this place": "eine für diese Stelle definierte Extension",
    "both": "beides",
    "eAU, Storno or Fehlernachricht in a version of the TA": "eAU, Storno oder Fehlernachricht in einer Version der TA",
    "either extension or value[x]": "entweder extension oder value[x]",
    "elements in the order of the definition": "Elemente in der Reihenfolge der Definition",
    "modifierExtension for modifiers, extension for all others": "modifierExtension nur für Modifier",
    "neither": "keines von beiden",
    "no text between elements": "kein Text zwischen Elementen",
    "one of: {}": "eines von: {}",
    "only elements of the definition": "nur Elemente der Definition",
    "only the attributes value, id and url, never empty": "nur die Attribute value, id und url, nie leer",
    "only the markup that a Narrative allows": "nur in Narrative erlaubte Auszeichnungen",
    "repetitions of an element next to each other": "Wiederholungen eines Elements beieinander",
    "the display text of the code system": "der Anzeigetext des Codesystems",
    "the type of the resource referred to": "der Typ der Zielressource",
    "UTF-8 without BOM": "UTF-8 ohne BOM",
}

#: Why XML cannot be read: ours (`node`), and what expat says.
XML: Final = {
    "the document has {} bytes, allowed are {}": "das Dokument hat {} Bytes, erlaubt sind {}",
    "the document has more than {} elements": "das Dokument hat mehr als {} Elemente",
    "the document is not UTF-8": "das Dokument ist nicht in UTF-8",
    "the XML is not well formed in line {}: {}": "das XML ist nicht wohlgeformt, Zeile {}: {}",
    "the XML has a character that is not allowed in line {}": "das XML hat in Zeile {} ein unerlaubtes Zeichen",
    "the root element is not a FHIR resource": "das Wurzelelement ist keine FHIR-Ressource",
    "the document is more than {} levels deep in line {}": "das Dokument ist tiefer als {} Ebenen, Zeile {}",
    "an element in line {} is not in the namespace of FHIR": "ein Element in Zeile {} ist nicht im Namensraum von FHIR",
    "a DTD is not allowed (line {})": "eine DTD ist nicht erlaubt (Zeile {})",
    "the XML declares an encoding other than UTF-8": "das XML gibt einen anderen Zeichensatz als UTF-8 an",
    "the markup is more than {} levels deep in line {}": "die Auszeichnungen sind tiefer als {} Ebenen, Zeile {}",
    "out of memory": "zu groß",
    "syntax error": "Syntaxfehler",
    "no element found": "kein Element gefunden",
    "not well-formed (invalid token)": "ungültiges Zeichen im Markup",
    "unclosed token": "nicht abgeschlossenes Markup",
    "partial character": "unvollständiges Zeichen",
    "mismatched tag": "Endtag passt nicht zum Starttag",
    "duplicate attribute": "doppeltes Attribut",
    "junk after document element": "Inhalt nach dem Wurzelelement",
    "undefined entity": "nicht definierte Entität",
    "reference to invalid character number": "Verweis auf ein ungültiges Zeichen",
    "XML or text declaration not at start of entity": "XML-Deklaration steht nicht am Anfang",
    "unknown encoding": "unbekannter Zeichensatz",
    "encoding specified in XML declaration is incorrect": "angegebener Zeichensatz trifft nicht zu",
    "unclosed CDATA section": "nicht abgeschlossener CDATA-Abschnitt",
    "document is not standalone": "Dokument ist nicht eigenständig",
    "unbound prefix": "Präfix ohne Namensraum",
    "must not undeclare prefix": "ein Präfix wird aufgehoben",
    "XML declaration not well-formed": "XML-Deklaration nicht wohlgeformt",
    "parsing aborted": "abgebrochen",
    "reserved prefix (xml) must not be undeclared or bound to another namespace name": "Präfix xml ist reserviert",
    "reserved prefix (xmlns) must not be declared or undeclared": "Präfix xmlns ist reserviert",
    "prefix must not be bound to one of the reserved namespace names": "Namensraum ist reserviert",
}
#: Last, because they fit the most.
_LENGTHS: Final = {"{} characters": "{} Zeichen"}

PHRASES: Final = Phrases({**FINDINGS, **XML, **_LENGTHS})

#: Invariants of the base R4 definitions, whose own text is English in every package (those that an eAU can break).
BASE_INVARIANTS: Final = {
    "att-1": "ein Anhang mit Daten nennt seinen Inhaltstyp",
    "bdl-1": "total steht nur in Suchergebnissen und Historien",
    "bdl-2": "entry.search steht nur in Suchergebnissen",
    "bdl-3": "entry.request steht nur in Batches, Transaktionen und Historien, dort immer",
    "bdl-4": "entry.response steht nur in Antworten auf Batches und Transaktionen und in Historien, dort immer",
    "bdl-5": "ein Eintrag hat eine Ressource, einen request oder eine response",
    "bdl-7": "fullUrl ist im Bundle eindeutig",
    "bdl-8": "fullUrl nennt keine bestimmte Version",
    "bdl-9": "ein Dokument hat einen Identifier mit System und Wert",
    "bdl-10": "ein Dokument hat ein Datum",
    "bdl-11": "die erste Ressource eines Dokuments ist die Composition",
    "bdl-12": "die erste Ressource einer Nachricht ist der MessageHeader",
    "cmp-1": "ein Abschnitt hat Text, Einträge oder Unterabschnitte",
    "cmp-2": "nur ein leerer Abschnitt hat einen emptyReason",
    "con-1": "stage hat summary oder assessment",
    "con-2": "evidence hat code oder detail",
    "con-4": "eine beendete Diagnose hat den clinicalStatus inactive, resolved oder remission",
    "con-5": "mit dem verificationStatus entered-in-error steht kein clinicalStatus",
    "cpt-2": "ein Kontakt mit Wert nennt sein System",
    "dom-2": "eine enthaltene Ressource enthält keine weiteren",
    "dom-3": "auf eine enthaltene Ressource wird verwiesen, oder sie verweist auf die enthaltende",
    "dom-4": "eine enthaltene Ressource hat weder meta.versionId noch meta.lastUpdated",
    "dom-5": "eine enthaltene Ressource hat kein meta.security",
    "dom-6": "eine Ressource sollte eine Textdarstellung haben",
    "ele-1": "jedes Element hat einen Wert oder Inhalt",
    "lst-1": "nur eine leere Liste hat einen emptyReason",
    "lst-2": "deleted steht nur in Listen des Modus changes",
    "lst-3": "ein Datum am Eintrag steht nur in Listen des Modus working",
    "org-1": "eine Organisation hat einen Namen oder einen Identifier",
    "org-2": "die Anschrift einer Organisation ist keine private",
    "org-3": "der Kontakt einer Organisation ist kein privater",
    "pat-1": "ein Ansprechpartner hat Angaben oder eine Organisation",
    "per-1": "der Beginn eines Zeitraums liegt nicht nach dem Ende",
    "qty-3": "eine codierte Einheit nennt ihr System",
    "ref-1": "ein lokaler Verweis zeigt auf eine enthaltene Ressource",
    "txt-1": "die Textdarstellung enthält nur die erlaubten Auszeichnungen",
    "txt-2": "die Textdarstellung hat sichtbaren Inhalt",
}
