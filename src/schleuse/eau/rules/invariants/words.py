"""Pieces of FHIRPath that the rules are made of. T is Coverage.type, Q the qualification of a person."""

from __future__ import annotations

from schleuse.eau.rules.edition import KBV_STRUCTURE
from schleuse.eau.rules.terminology import QUALIFICATION_SYSTEM

ASV_GROUP = "https://fhir.kbv.de/NamingSystem/KBV_NS_FOR_Fachgruppennummer_ASV"
SOFTWARE = "https://fhir.kbv.de/NamingSystem/KBV_NS_FOR_Pruefnummer"
KZV_NUMBER = "http://fhir.de/sid/kzbv/kzvabrechnungsnummer"
ADXP = "http://hl7.org/fhir/StructureDefinition/iso21090-ADXP"


def all_of(type: str) -> str:
    """The resources of a type in the bundle."""
    return f"entry.resource.where($this is {type})"


COMPOSITION, COVERAGE, PATIENT = all_of("Composition"), all_of("Coverage"), all_of("Patient")
PRACTITIONER, ORGANIZATION, REQUEST = all_of("Practitioner"), all_of("Organization"), all_of("ServiceRequest")
AUTHOR = f"{COMPOSITION}.author.reference.resolve()"
ATTESTER = f"{COMPOSITION}.attester.party.reference.resolve()"
BASIS = f"{COMPOSITION}.extension('{KBV_STRUCTURE}/KBV_EX_FOR_Legal_basis')"


def one_of(codes: str) -> str:
    return " or ".join(f"code = '{code}'" for code in codes.split())


def payor_is(codes: str) -> str:
    """T is one of these."""
    return f"{COVERAGE}.type.coding.where({one_of(codes)}).exists()"


def quality(person: str, codes: str) -> str:
    """Q of a person is one of these, or the person has none."""
    return f"{person}.qualification.code.coding.where(system = '{QUALIFICATION_SYSTEM}').all({one_of(codes)})"


def asv_number(person: str) -> str:
    return f"{person}.qualification.code.coding.where(system = '{ASV_GROUP}').exists()"


def numbered(person: str) -> str:
    """A person has a number of its own or an ASV-Fachgruppennummer."""
    return f"({person}.identifier.exists() or {asv_number(person)})"


def implies(condition: str, consequence: str) -> str:
    return f"({condition}) implies ({consequence})"


CARE = "GKV BG SKT UK"
CARE_AND_PRIVATE = "GKV BG SKT UK PKV"
ASV_BASIS = f"{BASIS}.where(value.code = '01' or value.code = '11').exists()"
