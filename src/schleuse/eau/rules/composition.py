"""Composition of the eAU: who says what about whom (eau.md § 6.1)."""

from __future__ import annotations

from schleuse.eau.rules import extensions as ext
from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants import resources as within
from schleuse.eau.rules.invariants import words
from schleuse.eau.rules.notation import Profile, Rule, extension, many, maybe, one, slices
from schleuse.eau.rules.parts import coding, concept, head, plain_identifier, refers

#: code of the section, profile of what it refers to, fewest and most.
_SECTIONS = (
    ("AU_Condition", "KBV_PR_EAU_Condition_AU", 1, 1),
    ("ICD", "KBV_PR_EAU_Condition_ICD", 1, 6),
    ("Coverage", "KBV_PR_FOR_Coverage", 1, 1),
    ("AU_weiter", "KBV_PR_EAU_ServiceRequest_steps", 0, 5),
    ("FOR_PractitionerRole", "KBV_PR_FOR_PractitionerRole", 0, 1),
    ("ICD_Text", "KBV_PR_EAU_Condition_Text", 0, 1),
)


def narrative() -> Rule:
    """A text for people; the one place of an eAU where one may stand."""
    return maybe("text", "Narrative", one("status", "code", values=codes.NARRATIVE_STATUS), one("div", "xhtml"))


def composition(edition: Edition) -> Profile:
    practitioner = edition.canonical("KBV_PR_FOR_Practitioner")
    software = many(
        "software",
        "Reference",
        one("type", "uri", fixed="Device"),
        plain_identifier("identifier", words.SOFTWARE, length=17),
        at_least=0 if edition.old else 1,
        at_most=1,
    )
    kind = slices(
        "coding",
        "Coding",
        "value:system",
        coding(codes.AU_TYPE_SYSTEM, values=codes.AU_TYPE, name="kind"),
        coding(codes.FORM_SYSTEM, "e010", name="form"),
        at_least=2,
        at_most=2,
    )
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Composition",
        "Composition",
        (
            *head("KBV_PR_EAU_Composition", edition),
            narrative(),
            one("status", "code", fixed="final"),
            one("type", "CodeableConcept", kind),
            refers("subject", edition.canonical("KBV_PR_FOR_Patient")),
            one("date", "dateTime"),
            slices(
                "author",
                "Reference",
                "value:type",
                refers("doctor", practitioner, type="Practitioner"),
                software,
                at_least=1,
                at_most=2,
            ),
            one("title", "string", fixed="Arbeitsunfähigkeit"),
            maybe("attester", "BackboneElement", one("mode", "code", fixed="legal"), refers("party", practitioner)),
            refers("custodian", edition.canonical("KBV_PR_FOR_Organization")),
            slices(
                "section",
                "BackboneElement",
                "value:code.coding.code",
                *(_section(edition, *each) for each in _SECTIONS),
                at_least=1,
            ),
        ),
        (within.ISSUE_DATE,),
        extensions=(extension("legal-basis", ext.LEGAL_BASIS),),
    )


def _section(edition: Edition, code: str, target: str, fewest: int, most: int) -> Rule:
    return many(
        code,
        "BackboneElement",
        concept("code", codes.SECTION_SYSTEM, code),
        refers("entry", edition.canonical(target)),
        at_least=fewest,
        at_most=most,
    )
