"""Rules within one resource (eau.md § 8)."""

from __future__ import annotations

from dataclasses import replace

from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition, Name
from schleuse.eau.rules.invariants.words import (
    CARE_AND_PRIVATE,
    implies,
    one_of,
)
from schleuse.eau.rules.notation import Invariant
from schleuse.eau.rules.terminology import QUALIFICATION_SYSTEM


def _ten(key: str, path: str, de: str, en: str) -> Invariant:
    return Invariant(key, f"{path}.all($this.toString().length() = 10)", de, en)


_DAY_DE, _DAY_EN = "Ein Datum ist ein ganzer Tag (JJJJ-MM-TT)", "A date is a whole day (YYYY-MM-DD)"
ISSUE_DATE = _ten("-eau-begrenzungDate", "date", _DAY_DE, _DAY_EN)
COVER_END = _ten("-for-begrenzungDate", "end", _DAY_DE, _DAY_EN)
PERIOD = Invariant(
    "per-1",
    "start.hasValue().not() or end.hasValue().not() or (start <= end)",
    "Das Ende liegt nicht vor dem Beginn",
    "The end is not before the start",
)


def _extension_day(key: str, url: str) -> Invariant:
    return _ten(f"-eau-{key}", f"extension('{url}').value", _DAY_DE, _DAY_EN)


CONDITION_AU = (
    _extension_day("begrenzungDateFestgestelltAm", "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"),
    _ten("-eau-begrenzungDateStart", "onset.start", _DAY_DE, _DAY_EN),
    _ten("-eau-begrenzungDateEnd", "onset.end", _DAY_DE, _DAY_EN),
    _extension_day("begrenzungDateteilweise-arbeitsfaehig-ab", f"{KBV_STRUCTURE}/KBV_EX_EAU_partially_employable"),
    Invariant(
        "-eau-anzahlUrsache",
        "extension('http://hl7.org/fhir/StructureDefinition/condition-dueTo').value.coding.code.isDistinct()",
        "Jede Ursache steht höchstens einmal",
        "Each cause stands at most once",
    ),
)
CONDITION_ICD = (
    Invariant(
        "con-5",
        "verificationStatus.coding.where(code = 'entered-in-error').exists() implies clinicalStatus.empty()",
        "Eine irrtümliche Diagnose hat keinen klinischen Status",
        "A diagnosis entered in error has no clinical status",
    ),
)


def _only_with(key: str, name: str, codes: str, de: str, en: str) -> Invariant:
    part = f"extension('{KBV_STRUCTURE}/KBV_EX_EAU_{name}').exists()"
    return Invariant(f"-eau-{key}", implies(part, f"code.coding.where({one_of(codes)}).exists()"), de, en)


SERVICE_REQUEST = (
    _extension_day("begrenzungDateWiedereingliederung-ab", f"{KBV_STRUCTURE}/KBV_EX_EAU_reintegration_date"),
    _extension_day("begrenzungDateEntlassungsdatum", f"{KBV_STRUCTURE}/KBV_EX_EAU_discharge_date"),
    _extension_day("begrenzungDateAufnahmedatum", f"{KBV_STRUCTURE}/KBV_EX_EAU_admission_date"),
    *(
        _only_with(
            key,
            name,
            "reha stationaere_heilbehandlung",
            "Aufnahme und Entlassung gibt es nur bei Reha und stationärer Heilbehandlung",
            "Admission and discharge exist only with rehabilitation and inpatient treatment",
        )
        for key, name in (
            ("EntlassungdatumNurRehaHeilbehandlung", "discharge_date"),
            ("AufnahmedatumNurRehaHeilbehandlung", "admission_date"),
        )
    ),
    _only_with(
        "WiedereingliederungAbNurWiedereingliederung",
        "reintegration_date",
        "wiedereingliederung",
        "Dieses Datum gibt es nur bei stufenweiser Wiedereingliederung",
        "This date exists only with gradual reintegration",
    ),
)
STEP_TEXT = Invariant(
    "-eau-keinTextBeiAnderen",
    implies(
        f"coding.where({one_of('d_arzt reha wiedereingliederung stationaere_heilbehandlung')}).exists()", "text.empty()"
    ),
    "Freitext gibt es nur bei sonstigen Schritten",
    "Free text exists only with other steps",
)


def coverage(edition: Edition) -> tuple[Invariant, ...]:
    must = "" if edition.old else "Pflicht"
    cared = f"type.coding.where({one_of(CARE_AND_PRIVATE)}).exists()"
    gkv = "http://fhir.de/StructureDefinition/gkv"
    second = f"payor.identifier.extension('{KBV_STRUCTURE}/KBV_EX_FOR_Alternative_IK')"
    parts = (
        ("angabeIKzustaendigeKrankenkasseEGK", "payor.identifier", "das IK", "the IK"),
        ("angabeVersichertenart", f"extension('{gkv}/versichertenart')", "die Versichertenart", "the Versichertenart"),
        (
            "angabeBesonderePersonengruppe",
            f"extension('{gkv}/besondere-personengruppe')",
            "die besondere Personengruppe",
            "the besondere Personengruppe",
        ),
        ("angabeDMP", f"extension('{gkv}/dmp-kennzeichen')", "das DMP-Kennzeichen", "the DMP code"),
    )
    return (
        *(
            Invariant(
                f"-for-{key}{must}",
                implies(cared, f"{part}.exists()"),
                f"Außer bei Selbstzahlern ist {de} angegeben",
                f"Except for self-payers {en} is given",
            )
            for key, part, de, en in parts
        ),
        Invariant(
            "-for-angabeIKKostentraegerVerbot",
            implies(f"type.coding.where({one_of('GKV SKT SEL PKV')}).exists()", f"{second}.empty()"),
            "Ein zweites IK gibt es nur bei BG und UK",
            "A second IK exists only with BG and UK",
        ),
    )


def practitioner(edition: Edition) -> tuple[Invariant, ...]:
    must = "" if edition.old else "Pflicht"

    def is_one_of(codes: str) -> str:
        return f"qualification.code.coding.where(system = '{QUALIFICATION_SYSTEM}').all({one_of(codes)})"

    def of_type(code: str) -> str:
        return f"identifier.where(type.coding.code = '{code}')"

    return (
        Invariant(
            f"-for-angabeArztnummer{must}",
            implies(f"{is_one_of('00 03 04')} and identifier.exists()", f"{of_type('LANR')}.exists()"),
            "Ein Arzt wird mit der Arztnummer (LANR) genannt",
            "A doctor is named by a LANR",
        ),
        Invariant(
            f"-for-angabeZahnarztnummer{must}",
            implies(f"{is_one_of('01')} and identifier.exists()", f"{of_type('ZANR')}.exists()"),
            "Ein Zahnarzt wird mit der Zahnarztnummer genannt",
            "A dentist is named by a Zahnarztnummer",
        ),
        Invariant(
            "-for-angabeIdentifikatorAusstellende-VerantwortlichePersonVerbot",
            implies(is_one_of("02"), "identifier.empty()"),
            "Eine Hebamme hat hier keine Nummer",
            "A midwife has no number here",
        ),
        Invariant(
            "-for-anzahlIdentifikatorAusstellende-VerantwortlichePerson",
            implies("identifier.exists()", f"({of_type('LANR')} | {of_type('ZANR')}).count() = 1"),
            "Es steht genau eine Arzt- oder Zahnarztnummer",
            "There is exactly one LANR or Zahnarztnummer",
        ),
    )


def _matches(key: str, pattern: str, de: str, en: str) -> Invariant:
    return Invariant(key, f"$this.toString().matches('{pattern}')", de, en)


def nine(key: str, *, warning: bool = False) -> Invariant:
    """Exactly nine digits.

    warning: where the reference validator only warns, because it checks an expression once per element and the base
    profile has the same one as a warning (limits.md § 4). Rejecting there would reject what others accept.
    """
    text = "Diese Nummer hat genau neun Ziffern", "This number has exactly nine digits"
    return replace(_matches(key, "^[0-9]{9}$", *text), warning=warning)


def nine_signs(key: str) -> Invariant:
    """1.1.0 counts the signs of an IK and does not look at them."""
    return Invariant(
        key, "$this.toString().length() = 9", "Diese Nummer hat neun Stellen", "This number has nine signs"
    )


IK_ALTERNATIVE: dict[Name, Invariant] = {
    "1.1.0": nine_signs("-for-LaengeIK"),
    "1.2.0": nine("-for-laengeIK", warning=True),
    "1.2.1": nine("-for-laengeIK", warning=True),
}
ASV_TEAM = _matches(
    "-for-laengeASVnummer",
    "[0-9]{9}",
    "Die ASV-Teamnummer enthält neun Ziffern",
    "The ASV team number holds nine digits",
)
KVK = _matches("kvk-1", "^[0-9]{6,12}$", "Die KVK-Nummer hat 6 bis 12 Ziffern", "The KVK number has 6 to 12 digits")
COUNTRY = _matches(
    "-for-laengeWohnsitzlaendercode",
    "^[A-Z]{1,3}$",
    "Ein Länderkennzeichen hat einen bis drei Großbuchstaben",
    "A country code has one to three capital letters",
)


def kvnr(key: str) -> Invariant:
    return _matches(
        key,
        "^[A-Z][0-9]{9}$",
        "Die Versichertennummer ist ein Großbuchstabe und neun Ziffern",
        "The insurance number is one capital letter and nine digits",
    )


ORGANIZATION_NUMBERS = Invariant(
    "-for-anzahlIdentifikatorOrganizationRessource",
    "identifier.exists() implies identifier.where("
    + " or ".join(f"type.coding.code = '{code}'" for code in ("BSNR", "XX", "KZVA", "KSN"))
    + ").count() = 1",
    "Die Einrichtung hat genau eine Nummer: BSNR, IK, KZV-Nummer oder Standortnummer",
    "The institution has exactly one number: BSNR, IK, KZV number or site number",
)
