"""All tables of an edition, expanded."""

from __future__ import annotations

from collections.abc import Iterator

from schleuse.eau.rules import (
    bundle,
    composition,
    conditions,
    coverage,
    extensions,
    fehlernachricht,
    people,
    terminology,
)
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.expand import Resource, code_lists, code_system, structure, value_set
from schleuse.eau.rules.notation import Profile
from schleuse.fhir import Definitions

#: Profiles that a document itself may claim, by kind (eau.md §§ 6, 11, 12).
ROOTS: tuple[str, ...] = (
    f"{KBV_STRUCTURE}/KBV_PR_EAU_Bundle",
    f"{KBV_STRUCTURE}/KBV_PR_EAU_Storno_Bundle",
    f"{KBV_STRUCTURE}/KBV_PR_EAU_health_insurance_Practitioner",
)


def tables(edition: Edition) -> tuple[Profile, ...]:
    """Every profile and extension of an edition."""
    return (
        bundle.bundle(edition),
        composition.composition(edition),
        coverage.coverage(edition),
        people.patient(edition),
        people.practitioner(edition),
        people.practitioner_role(edition),
        people.organization(edition),
        conditions.condition_au(edition),
        conditions.condition_icd(edition),
        conditions.condition_text(edition),
        conditions.service_request(edition),
        bundle.storno_bundle(edition),
        bundle.storno_composition(edition),
        bundle.storno_list(edition),
        fehlernachricht.fehlernachricht(edition),
        *extensions.definitions(edition),
    )


def resources(edition: Edition) -> Iterator[Resource]:
    """The conformance resources of an edition, as plain dicts."""
    profiles = tables(edition)
    for profile in profiles:
        yield structure(profile, edition.name)
    lists = code_lists(profiles)
    systems: dict[str, set[str]] = {system: set(known) for system, known in terminology.SYSTEMS.items()}
    for codes in lists.values():
        yield value_set(codes)
        for system, members in codes.content:
            if system not in terminology.SYSTEMS and system.startswith(terminology.KBV_CS):
                systems.setdefault(system, set()).update(members)
    for system, known in systems.items():
        yield code_system(system, sorted(known))


def definitions(edition: Edition) -> Definitions:
    """What `fhir.compile_rules` takes."""
    return Definitions(resources(edition), ignored_code_systems=(terminology.ICD_SYSTEM,))
