"""The codes of the Fehlernachricht and the only faults that may be answered with one (eau.md § 12.1, § 13.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schleuse.eau.document import Kind

#: CodeSystem of `issue.details.coding`, the same for both versions of the message (eau.md § 12).
CODE_SYSTEM = "https://fhir.kbv.de/CodeSystem/KBV_CS_SFHIR_EAU_AU_ERROR_KASSE"


class Fault(StrEnum):
    """What may be wrong with a document or its KIM mail.

    This set is closed on purpose: business questions (a Folge before its Erst, overlaps, unclear insurance, a wrong
    Dienstkennung) are forbidden reasons, and what is off at our side is not in it at all (HD-01).
    """

    NOT_INSURED = "not_insured"
    UNREADABLE = "unreadable"  # payload missing, not CMS, not XML, against the profile, or a virus
    CHARSET = "charset"
    STORNO_OF_REJECTED = "storno_of_rejected"
    CERTIFICATE = "certificate"
    SIGNED_DATA_DIFFER = "signed_data_differ"
    ENCRYPTION_FORMAT = "encryption_format"
    MAIL_UNSIGNED = "mail_unsigned"
    MAIL_SIGNATURE_FORMAT = "mail_signature_format"
    MAIL_CONTENT_DIFFERS = "mail_content_differs"
    KEY_NOT_AVAILABLE = "key_not_available"


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the code system.

    display: must be sent letter for letter, typing errors of the code system included.
    by_message_id: the message must name the bad mail, because its content could not be read.
    new_file: the practice must create a new document; otherwise it may send the same file again.
    """

    number: int
    target: Kind
    display: str
    by_message_id: bool = False
    new_file: bool = False


_EAU, _STORNO = Kind.EAU, Kind.STORNO

_ROWS = (
    Code(100, _EAU, "Der Patient ist nicht bei der adressierten Krankenkasse versichert.", new_file=True),
    Code(
        101,
        _EAU,
        "Die übermittelte eAU entspricht nicht den Vorgaben und ist nicht lesbar.",
        new_file=True,
    ),
    Code(
        102,
        _STORNO,
        "Die übermittelte Stornomeldung entspricht nicht den Vorgaben und ist nicht lesbar.",
        new_file=True,
    ),
    Code(103, _EAU, "Die übermittelte eAU besitzt einen falschen Zeichensatz.", new_file=True),
    Code(104, _STORNO, "Die übermittelte Stornomeldung besitzt einen falschen Zeichensatz.", new_file=True),
    Code(
        105,
        _STORNO,
        "Die zu stornierende eAU wurde von der Krankenkasse bereits als fehlerhaft abgewiesen.",
        new_file=True,
    ),
    Code(
        201,
        _EAU,
        "Die Signatur der eAU ist nicht gültig, da ein fehlerhaftes Zertifikat verwendet wurde.",
    ),
    Code(
        202,
        _EAU,
        "Die Signatur der eAU ist nicht gültig, da die übermittelten Daten nicht den signierten Daten entsprechen.",
    ),
    Code(
        203,
        _STORNO,
        "Die Signatur der Stornomeldung ist nicht gültig, da ein fehlerhaftes Zertifikat verwendet wurde.",
    ),
    Code(
        204,
        _STORNO,
        "Die Signatur der Stornomeldung ist nicht gültig, da die übermittelten Daten nicht den signierten Daten "
        "entsprechen.",
    ),
    Code(
        301,
        _STORNO,
        "Die KIM-Nachricht für die Stornomeldung ist in einem falschen Format verschlüsselt.",
        by_message_id=True,
    ),
    Code(303, _STORNO, "KIM-Nachricht der Stornomeldung besitzt keine Signatur."),
    Code(304, _STORNO, "Die Signatur für die KIM-Nachricht der Stornomeldung hat das falsche Format."),
    Code(
        305,
        _STORNO,
        "Die Signaturprüfung der KIM-Nachricht der Stornomeldung hat ergeben, dass der Nachrichteninhalt nicht mit "
        "der Signatur übereinstimmt.",
    ),
    Code(
        307,
        _EAU,
        "Die KIM-Nachricht für der eAU ist in einem falschen Format verschlüsselt.",
        by_message_id=True,
    ),
    Code(309, _EAU, "KIM-Nachricht der eAU besitzt keine Signatur."),
    Code(310, _EAU, "Die Signatur für die KIM-Nachricht der eAU hat das falsche Format."),
    Code(
        311,
        _EAU,
        "Die Signaturprüfung der KIM-Nachricht der eAU hat ergeben, dass der Nachrichteninhalt nicht mit der "
        "Signatur übereinstimmt.",
    ),
    Code(
        313,
        _EAU,
        "Die KIM-Nachricht der eAU konnte aufgrund es nicht verfügbaren Schlüssels nicht entschlüsselt werden.",
        by_message_id=True,
    ),
    Code(
        314,
        _STORNO,
        "Die KIM-Nachricht der Stornomeldung konnte aufgrund es nicht verfügbaren Schlüssels nicht entschlüsselt "
        "werden.",
        by_message_id=True,
    ),
)

CODES: Mapping[int, Code] = {row.number: row for row in _ROWS}

#: Code of each fault for an eAU and for a Storno; None: this fault cannot be one of that kind.
CODE_OF: Mapping[Fault, tuple[int | None, int | None]] = {
    Fault.NOT_INSURED: (100, None),
    Fault.UNREADABLE: (101, 102),
    Fault.CHARSET: (103, 104),
    Fault.STORNO_OF_REJECTED: (None, 105),
    Fault.CERTIFICATE: (201, 203),
    Fault.SIGNED_DATA_DIFFER: (202, 204),
    Fault.ENCRYPTION_FORMAT: (307, 301),
    Fault.MAIL_UNSIGNED: (309, 303),
    Fault.MAIL_SIGNATURE_FORMAT: (310, 304),
    Fault.MAIL_CONTENT_DIFFERS: (311, 305),
    Fault.KEY_NOT_AVAILABLE: (313, 314),
}


def code_of(fault: Fault, kind: Kind) -> Code:
    """The row for a fault of a document of this kind. Raises ValueError for a pair that cannot occur."""
    number = CODE_OF[fault][0 if kind is Kind.EAU else 1]
    if number is None:
        raise ValueError(f"a {kind} has no code for {fault}")
    return CODES[number]
