"""Every extension that may stand in an eAU, each as a profile of its own (eau.md §§ 6, 7, 12)."""

from __future__ import annotations

from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants.resources import IK_ALTERNATIVE
from schleuse.eau.rules.notation import CodeList, Profile, Rule, extension, many, maybe, one
from schleuse.eau.rules.parts import coded, plain_identifier

HL7 = "http://hl7.org/fhir/StructureDefinition"
DE = "http://fhir.de/StructureDefinition"

ASSERTED = f"{HL7}/condition-assertedDate"
DUE_TO = f"{HL7}/condition-dueTo"
OWN_NAME = f"{HL7}/humanname-own-name"
OWN_PREFIX = f"{HL7}/humanname-own-prefix"
NAME_ADDITION = f"{DE}/humanname-namenszusatz"
QUALIFIER = f"{HL7}/iso21090-EN-qualifier"
STREET = f"{HL7}/iso21090-ADXP-streetName"
NUMBER = f"{HL7}/iso21090-ADXP-houseNumber"
LOCATOR = f"{HL7}/iso21090-ADXP-additionalLocator"
BOX = f"{HL7}/iso21090-ADXP-postBox"
ABSENT = f"{HL7}/data-absent-reason"
CERTAINTY = f"{DE}/icd-10-gm-diagnosesicherheit"
SIDE = f"{DE}/seitenlokalisation"
PERSONENGRUPPE = f"{DE}/gkv/besondere-personengruppe"
DMP = f"{DE}/gkv/dmp-kennzeichen"
VERSICHERTENART = f"{DE}/gkv/versichertenart"
WOP = f"{DE}/gkv/wop"
LEGAL_BASIS = f"{KBV_STRUCTURE}/KBV_EX_FOR_Legal_basis"
SECOND_IK = f"{KBV_STRUCTURE}/KBV_EX_FOR_Alternative_IK"
SEVEN_WEEKS = f"{KBV_STRUCTURE}/KBV_EX_EAU_7_weeks"
PARTLY_FIT = f"{KBV_STRUCTURE}/KBV_EX_EAU_partially_employable"
UNFIT_FOR_JOB = f"{KBV_STRUCTURE}/KBV_EX_EAU_unemployability"
REINTEGRATION = f"{KBV_STRUCTURE}/KBV_EX_EAU_reintegration_date"
ADMISSION = f"{KBV_STRUCTURE}/KBV_EX_EAU_admission_date"
DISCHARGE = f"{KBV_STRUCTURE}/KBV_EX_EAU_discharge_date"
FAULTY_DOCUMENT = f"{KBV_STRUCTURE}/KBV_EX_EAU_health_insurance_Practitioner_Identifier"


def _value(url: str, value: Rule) -> Profile:
    """An extension that holds one value and no further extensions."""
    return Profile(url, "Extension", (one("url", "uri", fixed=url), value), closed=True)


def _simple(url: str, type: str, *, fixed: str | bool | None = None, values: CodeList | None = None) -> Profile:
    return _value(url, one("value[x]", type, fixed=fixed, values=values))


def _coding(url: str, values: CodeList) -> Profile:
    return _value(url, coded(values, name="value[x]"))


def definitions(edition: Edition) -> tuple[Profile, ...]:
    """All extensions of an edition."""
    return (
        _simple(ASSERTED, "dateTime"),
        _value(DUE_TO, one("value[x]", "CodeableConcept", coded(codes.CAUSE), values=codes.CAUSE)),
        *(_simple(url, "string") for url in (OWN_NAME, OWN_PREFIX, NAME_ADDITION, STREET, NUMBER, LOCATOR, BOX)),
        _simple(QUALIFIER, "code", fixed="AC"),
        _simple(ABSENT, "code", fixed="unknown"),
        _coding(CERTAINTY, codes.CERTAINTY),
        _coding(SIDE, codes.SIDE),
        _coding(PERSONENGRUPPE, codes.PERSONENGRUPPE),
        _coding(DMP, codes.dmp(edition)),
        _coding(VERSICHERTENART, codes.VERSICHERTENSTATUS),
        _coding(WOP, codes.WOP),
        _coding(LEGAL_BASIS, codes.LEGAL_BASIS),
        _value(SECOND_IK, institution("value[x]", edition)),
        _simple(SEVEN_WEEKS, "boolean", fixed=True),
        _simple(PARTLY_FIT, "dateTime"),
        _simple(UNFIT_FOR_JOB, "boolean", fixed=True),
        *(_simple(url, "dateTime") for url in (REINTEGRATION, ADMISSION, DISCHARGE)),
        _faulty_document(),
    )


def institution(name: str, edition: Edition, *, second_ik: bool = False) -> Rule:
    """An Identifier that holds an IK. second_ik: whether the second one of BG and UK may hang on it."""
    loose = many(
        "coding",
        "Coding",
        maybe("system", "uri"),
        maybe("version", "string") if edition.old else None,
        maybe("code", "code"),
        maybe("display", "string") if edition.old else None,
        maybe("userSelected", "boolean") if edition.old else None,
    )
    use = maybe("use", "code", fixed="official") if edition.old else maybe("use", "code", values=codes.IDENTIFIER_USE)
    pattern = {"coding": [{"system": codes.V2_TYPES, "code": "XX"}]}
    return (maybe if second_ik else one)(
        name,
        "Identifier",
        use,
        maybe("type", "CodeableConcept", loose, pattern=pattern),
        one("system", "uri", fixed="http://fhir.de/sid/arge-ik/iknr"),
        one("value", "string", invariants=(IK_ALTERNATIVE[edition.name],)),
        extensions=(extension("second", SECOND_IK),) if second_ik else None,
    )


def _faulty_document() -> Profile:
    """Names the faulty document or mail; exactly one of the two (eau.md § 12)."""
    url = one("url", "uri", fixed=FAULTY_DOCUMENT)
    document = plain_identifier("value[x]", "urn:ietf:rfc:3986")
    mail = plain_identifier("value[x]", "https://fhir.kbv.de/NamingSystem/KBV_NS_EAU_Message_ID_KIM")
    ways = (
        Rule("Bundle-Identifier", "Extension", 0, 1, (one("url", "uri", fixed="Bundle-Identifier"), document)),
        Rule("Message-ID", "Extension", 0, 1, (one("url", "uri", fixed="Message-ID"), mail)),
    )
    return Profile(FAULTY_DOCUMENT, "Extension", (url,), extensions=ways)
