"""OperationOutcome of the Fehlernachricht Kasse-Arzt (eau.md § 12)."""

from __future__ import annotations

from schleuse.eau.rules import extensions as ext
from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.notation import Profile, extension, one
from schleuse.eau.rules.parts import head


def fehlernachricht(edition: Edition) -> Profile:
    error = one(
        "coding",
        "Coding",
        one("system", "uri"),
        one("code", "code"),
        one("display", "string"),
        values=codes.ERROR,
    )
    issue = one(
        "issue",
        "BackboneElement",
        one("severity", "code", fixed="fatal"),
        one("code", "code", values=codes.ISSUE_TYPE),
        one("details", "CodeableConcept", error),
        extensions=(extension("document", ext.FAULTY_DOCUMENT, at_least=1),),
    )
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_health_insurance_Practitioner",
        "OperationOutcome",
        (*head("KBV_PR_EAU_health_insurance_Practitioner", edition), issue),
    )
