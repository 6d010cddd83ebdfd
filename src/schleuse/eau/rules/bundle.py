"""The bundle of an eAU and all of a Storno (eau.md §§ 6, 11)."""

from __future__ import annotations

from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants import bundle as across
from schleuse.eau.rules.notation import Profile, Rule, many, one, slices
from schleuse.eau.rules.parts import concept, head, plain_identifier, refers

RFC_3986 = "urn:ietf:rfc:3986"

#: name of the slice, type and profile of the resource, fewest and most (eau.md § 6).
_ENTRIES = (
    ("composition", "Composition", "KBV_PR_EAU_Composition", 1, 1),
    ("coverage", "Coverage", "KBV_PR_FOR_Coverage", 1, 1),
    ("patient", "Patient", "KBV_PR_FOR_Patient", 1, 1),
    ("organization", "Organization", "KBV_PR_FOR_Organization", 1, 1),
    ("practitioner", "Practitioner", "KBV_PR_FOR_Practitioner", 1, 2),
    ("asv", "PractitionerRole", "KBV_PR_FOR_PractitionerRole", 0, 1),
    ("incapacity", "Condition", "KBV_PR_EAU_Condition_AU", 1, 1),
    ("icd", "Condition", "KBV_PR_EAU_Condition_ICD", 1, 6),
    ("step", "ServiceRequest", "KBV_PR_EAU_ServiceRequest_steps", 0, 5),
    ("text", "Condition", "KBV_PR_EAU_Condition_Text", 0, 1),
)
_STORNO_ENTRIES = (
    ("composition", "Composition", "KBV_PR_EAU_Storno_Composition", 1, 1),
    ("cancelled", "List", "KBV_PR_EAU_Storno", 1, 1),
    ("organization", "Organization", "KBV_PR_FOR_Organization", 1, 1),
    ("practitioner", "Practitioner", "KBV_PR_FOR_Practitioner", 1, 1),
)


def _entry(edition: Edition, name: str, type: str, profile: str, fewest: int, most: int) -> Rule:
    return many(
        name,
        "BackboneElement",
        one("fullUrl", "uri"),
        one("resource", type, profile=edition.canonical(profile)),
        at_least=fewest,
        at_most=most,
    )


def _document(entries: Rule) -> tuple[Rule, ...]:
    return (
        plain_identifier("identifier", RFC_3986),
        one("type", "code", fixed="document"),
        one("timestamp", "instant"),
        entries,
    )


def bundle(edition: Edition) -> Profile:
    entries = (_entry(edition, *each) for each in _ENTRIES)
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Bundle",
        "Bundle",
        (
            *head("KBV_PR_EAU_Bundle", edition, last_updated=True, single=True),
            *_document(slices("entry", "BackboneElement", "profile:resource", *entries, at_least=7, at_most=20)),
        ),
        across.bundle(edition),
    )


def storno_bundle(edition: Edition) -> Profile:
    entries = (_entry(edition, *each) for each in _STORNO_ENTRIES)
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Storno_Bundle",
        "Bundle",
        (
            *head("KBV_PR_EAU_Storno_Bundle", edition, last_updated=True),
            *_document(slices("entry", "BackboneElement", "profile:resource", *entries, at_least=4, at_most=4)),
        ),
        across.storno_bundle(edition),
    )


def storno_composition(edition: Edition) -> Profile:
    section = one("section", "BackboneElement", refers("entry", edition.canonical("KBV_PR_EAU_Storno")))
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Storno_Composition",
        "Composition",
        (
            *head("KBV_PR_EAU_Storno_Composition", edition),
            one("status", "code", fixed="final"),
            concept("type", codes.FORM_SYSTEM, "e013"),
            one("date", "dateTime"),
            refers("author", edition.canonical("KBV_PR_FOR_Practitioner"), type="Practitioner"),
            one("title", "string", fixed="Storno eAU"),
            refers("custodian", edition.canonical("KBV_PR_FOR_Organization")),
            section,
        ),
    )


def storno_list(edition: Edition) -> Profile:
    item = one("item", "Reference", plain_identifier("identifier", RFC_3986))
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_EAU_Storno",
        "List",
        (
            *head("KBV_PR_EAU_Storno", edition),
            one("status", "code", fixed="current"),
            one("mode", "code", fixed="changes"),
            one("entry", "BackboneElement", one("deleted", "boolean", fixed=True), item),
        ),
    )
