"""Whole documents: the bundle of an eAU and of a Storno, with the facts a test or a demo asks for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from random import Random
from typing import Literal, Unpack

from schleuse.practice.documents import resources as build
from schleuse.practice.documents.fhirxml import (
    Element,
    coding,
    concept,
    element,
    entry,
    extension,
    identifier,
    reference,
    resource,
    to_bytes,
)
from schleuse.practice.documents.people import Doctor, Patient, Practice, random_id
from schleuse.practice.documents.plan import Choices, Issuer, Place, Plan, Version, plan

RFC_3986 = "urn:ietf:rfc:3986"
FORMS = f"{build.SFHIR}_KBV_FORMULAR_ART"
_OWN_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://schleuse.example/practice")


@dataclass(frozen=True, slots=True, repr=False)
class Facts:
    """What a document says, for whoever compares. kind: ERST, FOLGE, ERST_END, FOLGE_END or STORNO.

    kvnr is None in the Ersatzverfahren and for a Storno; incapable_from is None for a Folge; cancels is the
    Dokumenten-ID that a Storno cancels.
    """

    kind: str
    payor: str | None
    insurer_ik: str | None
    kvnr: str | None
    family: str | None
    given: str | None
    issued_on: date
    incapable_from: date | None
    incapable_until: date | None
    diagnoses: tuple[str, ...]
    cancels: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """One finished document. xml: UTF-8 without BOM; document_id: `urn:uuid:` and a UUID of version 5 (eau.md § 3).

    Practice, doctor and patient are the invented ones behind it, to make a Folge or a Storno of the same case.
    """

    xml: bytes
    document_id: str
    version: Version
    facts: Facts
    practice: Practice
    doctor: Doctor
    patient: Patient
    issuer: Issuer
    place: Place

    def __repr__(self) -> str:
        return f"Document({self.facts.kind}, {self.document_id}, {len(self.xml)} bytes)"

    def file_name(self, prefix: Literal["E", "T"] = "E", suffix: str = ".xml") -> str:
        """Name of the file, without suffix also the subject of the mail. prefix: E productive, T test data."""
        storno = "Storno_" if self.facts.kind == "STORNO" else ""
        return f"{prefix}EAU0_{storno}{self.document_id.removeprefix('urn:uuid:')}{suffix}"


class Generator:
    """Makes valid documents. All randomness is drawn from rng; now has a zone and is the moment of issue."""

    def __init__(self, rng: Random, now: datetime) -> None:
        self._rng = rng
        self._now = now

    def eau(self, version: Version = "1.2", **choices: Unpack[Choices]) -> Document:
        """A valid eAU that follows the choices; version is the one after the bar in meta.profile.

        Choices that contradict an invariant of eau.md § 8 are followed too: the caller may want it broken.
        """
        decided = plan(version, choices, self._rng, self._now.date())
        id = self._document_id()
        root = self._bundle("KBV_PR_EAU_Bundle", version, id, self._resources(decided))
        return Document(
            xml=to_bytes(root),
            document_id=id,
            version=version,
            facts=_facts(decided),
            practice=decided.practice,
            doctor=decided.author,
            patient=decided.patient,
            issuer=decided.issuer,
            place=decided.place,
        )

    def storno(self, of: Document) -> Document:
        """A valid Storno of one eAU, by the same practice and in the same version (eau.md § 11)."""
        version = of.version
        id = self._document_id()
        author = build.practitioner(of.doctor, of.issuer, version, number=True, telematik_id=False)
        site = build.organization(of.practice, of.place, version, telematik_id=False)
        cancelled = resource(
            "List",
            random_id(self._rng),
            build.profile("KBV_PR_EAU_Storno", version),
            element("status", value="current"),
            element("mode", value="changes"),
            element(
                "entry",
                element("deleted", value="true"),
                element("item", identifier("identifier", RFC_3986, of.document_id)),
            ),
        )
        issued = self._now.date()
        composition = resource(
            "Composition",
            random_id(self._rng),
            build.profile("KBV_PR_EAU_Storno_Composition", version),
            element("status", value="final"),
            concept("type", FORMS, "e013"),
            element("date", value=issued.isoformat()),
            reference("author", author, type="Practitioner"),
            element("title", value="Storno eAU"),
            reference("custodian", site),
            element("section", reference("entry", cancelled)),
        )
        root = self._bundle("KBV_PR_EAU_Storno_Bundle", version, id, [composition, cancelled, author, site])
        facts = Facts("STORNO", None, None, None, None, None, issued, None, None, (), cancels=of.document_id)
        return Document(to_bytes(root), id, version, facts, of.practice, of.doctor, of.patient, of.issuer, of.place)

    def _document_id(self) -> str:
        return f"urn:uuid:{uuid.uuid5(_OWN_NAMESPACE, random_id(self._rng))}"

    def _bundle(self, name: str, version: Version, id: str, contents: list[Element]) -> Element:
        base = f"http://pvs.praxis-{self._rng.randrange(1000):03d}.example/fhir"
        return resource(
            "Bundle",
            random_id(self._rng),
            build.profile(name, version),
            identifier("identifier", RFC_3986, id),
            element("type", value="document"),
            element("timestamp", value=self._now.isoformat(timespec="milliseconds")),
            *(entry(base, content) for content in contents),
        )

    def _resources(self, decided: Plan) -> list[Element]:
        rng, version = self._rng, decided.version
        person = build.patient(decided, rng)
        author = build.practitioner(
            decided.author, decided.issuer, version, number=decided.number, telematik_id=decided.telematik_ids
        )
        attester = None
        if decided.attester:
            attester = build.practitioner(decided.attester, "arzt", version, number=True, telematik_id=False)
        site = build.organization(decided.practice, decided.place, version, telematik_id=decided.telematik_ids)
        cover = build.coverage(decided, person, rng)
        incapacity = build.condition_au(decided, person, author, rng)
        diagnoses = [build.condition_icd(icd, decided, person, author, rng) for icd in decided.diagnoses]
        steps = [build.service_request(step, decided, (person, author), incapacity, rng) for step in decided.steps]
        role = [build.practitioner_role(decided, author, rng)] if decided.asv else []
        text = [build.condition_text(decided, person, author, rng)] if decided.text else []
        sections = [
            ("AU_Condition", incapacity),
            *(("ICD", icd) for icd in diagnoses),
            ("Coverage", cover),
            *(("AU_weiter", step) for step in steps),
            *(("FOR_PractitionerRole", one) for one in role),
            *(("ICD_Text", one) for one in text),
        ]
        composition = self._composition(decided, (person, author, attester, site), sections)
        people = [author, attester] if attester is not None else [author]
        return [composition, person, *people, site, cover, *role, incapacity, *diagnoses, *text, *steps]

    def _composition(
        self,
        decided: Plan,
        people: tuple[Element, Element, Element | None, Element],
        sections: list[tuple[str, Element]],
    ) -> Element:
        person, author, attester, site = people
        basis = None
        if decided.legal_basis:
            value = coding("valueCoding", f"{build.SFHIR}_KBV_STATUSKENNZEICHEN", decided.legal_basis)
            basis = extension(f"{build.STRUCTURE}/KBV_EX_FOR_Legal_basis", value)
        answers = None
        if attester is not None:
            answers = element("attester", element("mode", value="legal"), reference("party", attester))
        software = identifier("identifier", f"{build.KBV}/NamingSystem/KBV_NS_FOR_Pruefnummer", "Y/400/2612/36/999")
        return resource(
            "Composition",
            random_id(self._rng),
            build.profile("KBV_PR_EAU_Composition", decided.version),
            basis,
            element("status", value="final"),
            element(
                "type",
                coding("coding", f"{build.KBV}/CodeSystem/KBV_CS_EAU_AU_Type", decided.kind),
                coding("coding", FORMS, "e010"),
            ),
            reference("subject", person),
            element("date", value=decided.issued.isoformat()),
            reference("author", author, type="Practitioner"),
            element("author", element("type", value="Device"), software),
            element("title", value="Arbeitsunfähigkeit"),
            answers,
            reference("custodian", site),
            *(_section(code, target) for code, target in sections),
        )


def _section(code: str, target: Element) -> Element:
    kind = concept("code", f"{build.KBV}/CodeSystem/KBV_CS_FOR_Section_Type", code)
    return element("section", kind, reference("entry", target))


def _facts(decided: Plan) -> Facts:
    return Facts(
        kind=decided.kind,
        payor=decided.payor,
        insurer_ik=decided.insurer.ik if decided.payor != "SEL" else None,
        kvnr=decided.patient.kvnr if decided.kvnr and decided.payor != "SKT" else None,
        family=decided.patient.name.family,
        given=decided.patient.name.given,
        issued_on=decided.issued,
        incapable_from=decided.start,
        incapable_until=decided.until,
        diagnoses=tuple(icd.code for icd in decided.diagnoses),
    )
