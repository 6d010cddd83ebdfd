"""The resources of an eAU bundle, each from the plan (eau.md §§ 6, 7)."""

from __future__ import annotations

from random import Random

from schleuse.practice.documents.fhirxml import (
    Element,
    coding,
    concept,
    element,
    extension,
    identifier,
    optional,
    reference,
    resource,
)
from schleuse.practice.documents.people import Address, Doctor, Name, Practice, random_id
from schleuse.practice.documents.plan import QUALIFICATION, WITH_CARD, Diagnosis, Issuer, Place, Plan, Version

KBV = "https://fhir.kbv.de"
STRUCTURE = f"{KBV}/StructureDefinition"
HL7 = "http://hl7.org/fhir/StructureDefinition"
DE = "http://fhir.de"
V2_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
DE_TYPES = f"{DE}/CodeSystem/identifier-type-de-basis"
KBV_TYPES = f"{KBV}/CodeSystem/KBV_CS_Base_identifier_type"
SFHIR = f"{KBV}/CodeSystem/KBV_CS_SFHIR"

#: Type (system, code) and naming system of the one number that a place has (eau.md § 7).
PLACE_NUMBER: dict[Place, tuple[tuple[str, str], str]] = {
    "praxis": ((V2_TYPES, "BSNR"), f"{KBV}/NamingSystem/KBV_NS_Base_BSNR"),
    "zahnarztpraxis": ((DE_TYPES, "KZVA"), f"{DE}/sid/kzbv/kzvabrechnungsnummer"),
    "krankenhaus": ((KBV_TYPES, "KSN"), f"{DE}/sid/dkgev/standortnummer"),
    "institution": ((V2_TYPES, "XX"), f"{DE}/sid/arge-ik/iknr"),
}


def profile(name: str, version: Version) -> str:
    return f"{STRUCTURE}/{name}|{version}"


def patient(plan: Plan, rng: Random) -> Element:
    return resource(
        "Patient",
        random_id(rng),
        profile("KBV_PR_FOR_Patient", plan.version),
        _insured_number(plan) if plan.kvnr else None,
        human_name(plan.patient.name),
        _birth_date(plan),
        _patient_address(plan),
    )


def _insured_number(plan: Plan) -> Element:
    if plan.payor == "SKT":
        return identifier(
            "identifier", f"{DE}/sid/gkv/kvk-versichertennummer", plan.patient.kvk, type=(KBV_TYPES, "kvk")
        )
    if plan.version == "1.1.0":  # eau.md § 10: type codes and the PKV system changed with 1.2
        private = plan.payor == "PKV"
        system = f"{DE}/sid/{'pkv' if private else 'gkv'}/kvid-10"
        return identifier("identifier", system, plan.patient.kvnr, type=(DE_TYPES, "PKV" if private else "GKV"))
    return identifier("identifier", f"{DE}/sid/gkv/kvid-10", plan.patient.kvnr, type=(DE_TYPES, "KVZ10"))


def human_name(name: Name) -> Element:
    family = element("family", value=name.whole_family)
    parts = (
        (f"{DE}/StructureDefinition/humanname-namenszusatz", name.addition),
        (f"{HL7}/humanname-own-prefix", name.prefix),
        (f"{HL7}/humanname-own-name", name.family),
    )
    family.extend(extension(url, element("valueString", value=part)) for url, part in parts if part)
    title = None
    if name.title:
        qualifier = extension(f"{HL7}/iso21090-EN-qualifier", element("valueCode", value="AC"))
        title = element("prefix", qualifier, value=name.title)
    return element("name", element("use", value="official"), family, element("given", value=name.given), title)


def _birth_date(plan: Plan) -> Element:
    if plan.birth == "unknown":
        absent = extension(f"{HL7}/data-absent-reason", element("valueCode", value="unknown"))
        return element("birthDate", absent)
    length = {"day": 10, "month": 7, "year": 4}[plan.birth]
    return element("birthDate", value=plan.patient.born.isoformat()[:length])


def _line(text: str, **parts: str | None) -> Element:
    """An address line; parts: ADXP part names to their values."""
    made = element("line", value=text)
    for part, value in parts.items():
        if value is not None:
            made.append(extension(f"{HL7}/iso21090-ADXP-{part}", element("valueString", value=value)))
    return made


def _patient_address(plan: Plan) -> Element:
    home = plan.patient.address
    street, number, extra = home.street or "Lindenallee", home.number or "1", home.extra or "Hinterhaus"
    whole = _line(f"{street} {number}", streetName=street, houseNumber=number)
    lines = {
        "whole": [whole],
        "foreign": [whole],
        "extra": [whole, _line(extra, additionalLocator=extra)],
        "only-street": [_line(street, streetName=street)],
        "only-number": [_line(number, houseNumber=number)],
        "only-extra": [_line(extra, additionalLocator=extra)],
        "box": [_line("4711", postBox="4711")],
        "none": [],
    }[plan.lines]
    place = Address(None, None, None, None, "1010", "Wien", "A") if plan.lines == "foreign" else home
    return element(
        "address",
        element("type", value="postal" if plan.lines == "box" else "both"),
        *lines,
        optional("city", place.city),
        optional("postalCode", place.postal_code),
        element("country", value=place.country),
    )


def organization(practice: Practice, place: Place, version: Version, *, telematik_id: bool) -> Element:
    kind, system = PLACE_NUMBER[place]
    contacts = (("phone", practice.phone), ("fax", practice.fax), ("email", practice.email))
    return resource(
        "Organization",
        practice.id,
        profile("KBV_PR_FOR_Organization", version),
        identifier("identifier", system, practice.number, type=kind),
        _telematik_id(practice.telematik_id) if telematik_id else None,
        element("name", value=practice.name),
        *(
            element("telecom", element("system", value=kind), element("value", value=value))
            for kind, value in contacts
            if value
        ),
        _practice_address(practice.address, version),
    )


def _telematik_id(value: str) -> Element:
    return identifier("identifier", "https://gematik.de/fhir/sid/telematik-id", value, type=(V2_TYPES, "PRN"))


def _practice_address(site: Address, version: Version) -> Element:
    number = site.number or "N/A"
    whole = f"{site.street}" if number == "N/A" and version == "1.2" else f"{site.street} {number}"
    return element(
        "address",
        element("type", value="both"),
        _line(whole, streetName=site.street, houseNumber=number),
        _line(site.extra, additionalLocator=site.extra) if site.extra else None,
        optional("city", site.city),
        optional("postalCode", site.postal_code),
        element("country", value=site.country),
    )


def practitioner(doctor: Doctor, issuer: Issuer, version: Version, *, number: bool, telematik_id: bool) -> Element:
    """number: whether the Arztnummer is written (never for a Hebamme); without it an ASV-Fachgruppennummer stands."""
    if issuer == "zahnarzt":
        own = identifier("identifier", f"{DE}/sid/kzbv/zahnarztnummer", doctor.number, type=(DE_TYPES, "ZANR"))
    else:
        own = identifier("identifier", f"{KBV}/NamingSystem/KBV_NS_Base_ANR", doctor.number, type=(V2_TYPES, "LANR"))
    written = number and issuer != "hebamme"
    code_system = f"{KBV}/CodeSystem/KBV_CS_FOR_Qualification_Type"
    profession = concept(
        "code", f"{KBV}/CodeSystem/KBV_CS_FOR_Berufsbezeichnung", "Berufsbezeichnung", text=doctor.profession
    )
    asv = concept("code", f"{KBV}/NamingSystem/KBV_NS_FOR_Fachgruppennummer_ASV", doctor.asv_group)
    needs_asv = not number and issuer in ("arzt", "vertreter")
    return resource(
        "Practitioner",
        doctor.id,
        profile("KBV_PR_FOR_Practitioner", version),
        own if written else None,
        _telematik_id(doctor.telematik_id) if written and telematik_id else None,
        human_name(doctor.name),
        element("qualification", concept("code", code_system, QUALIFICATION[issuer])),
        element("qualification", profession),
        element("qualification", asv) if needs_asv else None,
    )


def practitioner_role(plan: Plan, author: Element, rng: Random) -> Element:
    return resource(
        "PractitionerRole",
        random_id(rng),
        profile("KBV_PR_FOR_PractitionerRole", plan.version),
        reference("practitioner", author),
        element("organization", identifier("identifier", f"{DE}/NamingSystem/asv/teamnummer", plan.practice.asv_team)),
    )


def coverage(plan: Plan, person: Element, rng: Random) -> Element:
    gkv = f"{DE}/StructureDefinition/gkv"
    marks = (
        ("besondere-personengruppe", "KBV_PERSONENGRUPPE", plan.personengruppe),
        ("dmp-kennzeichen", "KBV_DMP", plan.dmp),
        ("wop", "ITA_WOP", plan.wop),
        ("versichertenart", "KBV_VERSICHERTENSTATUS", plan.versichertenart),
    )
    kbv_type = plan.payor in ("SKT", "UK")
    kinds = f"{KBV}/CodeSystem/KBV_CS_FOR_Payor_Type_KBV" if kbv_type else f"{DE}/CodeSystem/versicherungsart-de-basis"
    ends = plan.cover_ends.isoformat() if plan.cover_ends else None
    return resource(
        "Coverage",
        random_id(rng),
        profile("KBV_PR_FOR_Coverage", plan.version),
        *(
            extension(f"{gkv}/{name}", coding("valueCoding", f"{SFHIR}_{system}", code))
            for name, system, code in marks
            if code and plan.payor in WITH_CARD
        ),
        element("status", value="active"),
        concept("type", kinds, plan.payor),
        reference("beneficiary", person),
        element("period", element("end", value=ends)) if ends else None,
        element("payor", _payor_number(plan), element("display", value=plan.insurer.name)),
    )


def _payor_number(plan: Plan) -> Element | None:
    if plan.payor not in WITH_CARD:
        return None
    iknr = f"{DE}/sid/arge-ik/iknr"
    number = identifier("identifier", iknr, plan.insurer.ik, type=(V2_TYPES, "XX"))
    if plan.payor in ("BG", "UK") and plan.insurer.second_ik:
        second = identifier("valueIdentifier", iknr, plan.insurer.second_ik, type=(V2_TYPES, "XX"))
        number.insert(0, extension(f"{STRUCTURE}/KBV_EX_FOR_Alternative_IK", second))
    return number


def condition_au(plan: Plan, person: Element, author: Element, rng: Random) -> Element:
    cause_system = f"{KBV}/CodeSystem/KBV_CS_FOR_Ursache_Type"
    issued = plan.issued.isoformat()
    onset = element("onsetPeriod", optional("start", plan.start.isoformat() if plan.start else None))
    onset.append(element("end", value=plan.until.isoformat()))
    yes = element("valueBoolean", value="true")
    return resource(
        "Condition",
        random_id(rng),
        profile("KBV_PR_EAU_Condition_AU", plan.version),
        extension(f"{HL7}/condition-assertedDate", element("valueDateTime", value=issued)),
        extension(f"{STRUCTURE}/KBV_EX_EAU_7_weeks", yes) if plan.krankengeld else None,
        *(
            extension(f"{HL7}/condition-dueTo", concept("valueCodeableConcept", cause_system, cause))
            for cause in plan.causes
        ),
        *(_private_marks(plan) if plan.private else ()),
        concept("clinicalStatus", "http://terminology.hl7.org/CodeSystem/condition-clinical", "active"),
        concept("verificationStatus", "http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed"),
        concept("code", f"{SFHIR}_KBV_FHIR_DOKUMENTTYPE", "eAU"),
        reference("subject", person),
        onset,
        reference("asserter", author),
    )


def _private_marks(plan: Plan) -> tuple[Element, Element]:
    until = element("valueDateTime", value=plan.until.isoformat())
    return (
        extension(f"{STRUCTURE}/KBV_EX_EAU_partially_employable", until),
        extension(f"{STRUCTURE}/KBV_EX_EAU_unemployability", element("valueBoolean", value="true")),
    )


def condition_icd(diagnosis: Diagnosis, plan: Plan, person: Element, author: Element, rng: Random) -> Element:
    marks = (
        ("seitenlokalisation", "ICD_SEITENLOKALISATION", diagnosis.side),
        ("icd-10-gm-diagnosesicherheit", "ICD_DIAGNOSESICHERHEIT", diagnosis.certainty),
    )
    code = coding("coding", f"{DE}/CodeSystem/bfarm/icd-10-gm", diagnosis.code, version=str(plan.issued.year))
    for place, (name, system, value) in enumerate(mark for mark in marks if mark[2]):
        code.insert(
            place,
            extension(f"{DE}/StructureDefinition/{name}", coding("valueCoding", f"{SFHIR}_{system}", str(value))),
        )
    clinical = concept("clinicalStatus", "http://terminology.hl7.org/CodeSystem/condition-clinical", "active")
    verified = concept("verificationStatus", "http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed")
    return resource(
        "Condition",
        random_id(rng),
        profile("KBV_PR_EAU_Condition_ICD", plan.version),
        clinical if diagnosis.status else None,
        verified if diagnosis.status else None,
        element("code", code),
        reference("subject", person),
        reference("asserter", author),
    )


def condition_text(plan: Plan, person: Element, author: Element, rng: Random) -> Element:
    return resource(
        "Condition",
        random_id(rng),
        profile("KBV_PR_EAU_Condition_Text", plan.version),
        concept("verificationStatus", "http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed"),
        element("code", element("text", value=plan.text)),
        reference("subject", person),
        reference("asserter", author),
    )


def service_request(step: str, plan: Plan, people: tuple[Element, Element], reason: Element, rng: Random) -> Element:
    """people: the patient and the issuing person. reason: the Condition AU."""
    person, author = people
    text = "Vorstellung in der Sprechstunde für Berufskrankheiten" if step == "sonstige" else None
    return resource(
        "ServiceRequest",
        random_id(rng),
        profile("KBV_PR_EAU_ServiceRequest_steps", plan.version),
        *(_private_dates(step, plan) if plan.private else ()),
        element("status", value="active"),
        element("intent", value="proposal"),
        concept("code", f"{KBV}/CodeSystem/KBV_CS_EAU_WeitereSchritte_Type", step, text=text),
        reference("subject", person),
        reference("requester", author),
        reference("reasonReference", reason),
    )


def _private_dates(step: str, plan: Plan) -> list[Element]:
    names = {
        "wiedereingliederung": ("reintegration_date",),
        "reha": ("admission_date", "discharge_date"),
        "stationaere_heilbehandlung": ("admission_date", "discharge_date"),
    }.get(step, ())
    day = plan.until.isoformat()
    return [extension(f"{STRUCTURE}/KBV_EX_EAU_{name}", element("valueDateTime", value=day)) for name in names]
