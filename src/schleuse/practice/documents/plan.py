"""What an eAU shall be like: the choices of the caller, and the plan that fills their gaps consistently."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Literal, TypedDict

from schleuse.practice.documents import wordlists as words
from schleuse.practice.documents.people import (
    Doctor,
    Insurer,
    Patient,
    Practice,
    random_doctor,
    random_insurer,
    random_patient,
    random_practice,
)

Version = Literal["1.1.0", "1.2"]
Kind = Literal["ERST", "FOLGE", "ERST_END", "FOLGE_END"]
Payor = Literal["GKV", "PKV", "BG", "SEL", "SKT", "UK"]
Issuer = Literal["arzt", "zahnarzt", "hebamme", "weiterbildung", "vertreter"]
Place = Literal["praxis", "zahnarztpraxis", "krankenhaus", "institution"]
Birth = Literal["day", "month", "year", "unknown"]
Lines = Literal["whole", "extra", "only-street", "only-number", "only-extra", "box", "foreign", "none"]

#: Payors under the rules of statutory care; SEL (self-payer) needs least (eau.md § 8).
WITH_CARD: frozenset[Payor] = frozenset({"GKV", "PKV", "BG", "SKT", "UK"})
STEPS = ("d_arzt", "reha", "wiedereingliederung", "sonstige")
#: Code of KBV_CS_FOR_Qualification_Type for each issuer (eau.md § 7).
QUALIFICATION: dict[Issuer, str] = {
    "arzt": "00",
    "zahnarzt": "01",
    "hebamme": "02",
    "weiterbildung": "03",
    "vertreter": "04",
}


class Choices(TypedDict, total=False):
    """What a caller may fix; the rest is drawn at random.

    kvnr False: Ersatzverfahren without Versichertennummer. krankengeld: "ab 7. AU-Woche".
    causes: of "1" Unfall, "2" Arbeitsunfall, "3" SER. steps: codes of further steps. icds: number of diagnoses, 1 to 6.
    text: diagnosis in words. number False: the issuing person has no Arztnummer. responsible: a second person
    answers for the issuing one. private: fields that only PKV documents carry. start, until, issued: dates.
    """

    kind: Kind
    payor: Payor
    issuer: Issuer
    place: Place
    birth: Birth
    lines: Lines
    legal_basis: str
    insurer: Insurer
    patient: Patient
    practice: Practice
    doctor: Doctor
    kvnr: bool
    krankengeld: bool
    asv: bool
    number: bool
    responsible: bool
    telematik_ids: bool
    private: bool
    causes: tuple[str, ...]
    steps: tuple[str, ...]
    icds: int
    text: str | None
    start: date
    until: date
    issued: date


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """One ICD-10-GM code. certainty: A, G, V, Z; side: R, L, B or None; status: whether the statuses are written."""

    code: str
    certainty: str | None
    side: str | None
    status: bool


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """All that one eAU says, decided. start is None for a Folge."""

    version: Version
    kind: Kind
    payor: Payor
    issuer: Issuer
    place: Place
    birth: Birth
    lines: Lines
    legal_basis: str | None
    insurer: Insurer
    patient: Patient
    practice: Practice
    author: Doctor
    attester: Doctor | None
    kvnr: bool
    krankengeld: bool
    asv: bool
    number: bool
    telematik_ids: bool
    private: bool
    causes: tuple[str, ...]
    steps: tuple[str, ...]
    diagnoses: tuple[Diagnosis, ...]
    text: str | None
    start: date | None
    until: date
    issued: date
    wop: str | None
    cover_ends: date | None
    personengruppe: str
    versichertenart: str
    dmp: str


def plan(version: Version, choices: Choices, rng: Random, today: date) -> Plan:
    """Fill the gaps so that the document keeps every invariant of eau.md § 8."""
    payor = choices.get("payor", "GKV" if rng.random() < 0.9 else rng.choice(("PKV", "BG", "UK", "SKT", "SEL")))
    kind = choices.get("kind", rng.choice(("ERST", "ERST", "FOLGE", "FOLGE", "ERST_END", "FOLGE_END")))
    asv = choices.get("asv", False)
    issuer = choices.get("issuer", _issuer(rng) if not asv else "arzt")
    dental = issuer == "zahnarzt"
    number = choices.get("number", not (asv and rng.random() < 0.5))
    responsible = choices.get("responsible", issuer == "weiterbildung" and (not number or rng.random() < 0.8))
    issued = choices.get("issued", today)
    start = choices.get("start", issued - timedelta(days=rng.choice((0, 0, 0, 1, 2, 3))))
    until = choices.get("until", issued + timedelta(days=rng.randrange(1, 21)))
    return Plan(
        version=version,
        kind=kind,
        payor=payor,
        issuer=issuer,
        place=choices.get("place", "zahnarztpraxis" if dental else _place(rng)),
        birth=choices.get("birth", "day" if rng.random() < 0.93 else rng.choice(("month", "year"))),
        lines=choices.get("lines", _lines(rng)),
        legal_basis=_legal_basis(choices, payor, asv, rng),
        insurer=choices["insurer"] if "insurer" in choices else random_insurer(rng),
        patient=choices["patient"] if "patient" in choices else random_patient(rng, issued),
        practice=choices["practice"] if "practice" in choices else _practice(rng, dental),
        author=choices["doctor"] if "doctor" in choices else random_doctor(rng),
        attester=random_doctor(rng) if responsible else None,
        kvnr=choices.get("kvnr", payor in WITH_CARD and rng.random() < 0.95),
        krankengeld=choices.get("krankengeld", kind.endswith("_END") or rng.random() < 0.1),
        asv=asv,
        number=number,
        telematik_ids=choices.get("telematik_ids", rng.random() < 0.3),
        private=choices.get("private", False),
        causes=choices.get("causes", _causes(rng)),
        steps=choices.get("steps", tuple(rng.sample(STEPS, rng.choice((0, 0, 1, 2))))),
        diagnoses=_diagnoses(choices.get("icds", rng.choice((1, 1, 2, 2, 3, 6))), dental, rng),
        text=choices.get("text", _text(dental, rng)),
        start=start if kind.startswith("ERST") else None,
        until=until,
        issued=issued,
        wop=rng.choice(("01", "17", "20", "38", "46", "71", "98")) if rng.random() < 0.5 else None,
        cover_ends=issued + timedelta(days=400) if rng.random() < 0.3 else None,
        personengruppe=rng.choice(("00", "00", "00", "04", "06", "09")),
        versichertenart=rng.choice(("1", "1", "1", "3", "5")),
        dmp=rng.choice(("00", "00", "00", "01", "03", "05", "11")),
    )


def _issuer(rng: Random) -> Issuer:
    issuers: tuple[Issuer, ...] = ("arzt", "zahnarzt", "weiterbildung", "vertreter")
    return rng.choices(issuers, weights=(80, 6, 7, 7))[0]


def _place(rng: Random) -> Place:
    places: tuple[Place, ...] = ("praxis", "krankenhaus", "institution")
    return rng.choices(places, weights=(88, 9, 3))[0]


def _lines(rng: Random) -> Lines:
    lines: tuple[Lines, ...] = ("whole", "extra", "only-street", "only-number", "only-extra", "box", "foreign", "none")
    return rng.choices(lines, weights=(75, 8, 3, 2, 2, 4, 4, 2))[0]


def _legal_basis(choices: Choices, payor: Payor, asv: bool, rng: Random) -> str | None:
    if "legal_basis" in choices:
        return choices["legal_basis"]
    if asv:
        return rng.choice(("01", "11"))
    if payor not in WITH_CARD:
        return None
    return "00" if rng.random() < 0.85 else rng.choice(("04", "07", "10", "14", "17"))


def _practice(rng: Random, dental: bool) -> Practice:
    return random_practice(rng, words.DENTAL_PRACTICES if dental else words.PRACTICES)


def _causes(rng: Random) -> tuple[str, ...]:
    if rng.random() < 0.75:
        return ()
    return rng.choice((("1",), ("1", "2"), ("2",), ("3",), ("1", "2", "3")))


def _diagnoses(count: int, dental: bool, rng: Random) -> tuple[Diagnosis, ...]:
    table = words.DENTAL_DIAGNOSES + words.DIAGNOSES if dental else words.DIAGNOSES
    return tuple(
        Diagnosis(
            code,
            rng.choices(("G", "V", "A", "Z", None), weights=(70, 12, 6, 6, 6))[0],
            rng.choice(("R", "L", "B")) if sided else None,
            rng.random() < 0.2,
        )
        for code, sided, _ in rng.sample(table, count)
    )


def _text(dental: bool, rng: Random) -> str | None:
    if rng.random() < 0.5:
        return None
    return rng.choice(words.DENTAL_DIAGNOSES if dental else words.DIAGNOSES)[2]
