"""Rules that look at more than one resource of a bundle (eau.md § 8)."""

from __future__ import annotations

from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants.words import (
    ASV_BASIS,
    ATTESTER,
    AUTHOR,
    BASIS,
    CARE,
    CARE_AND_PRIVATE,
    COMPOSITION,
    KZV_NUMBER,
    ORGANIZATION,
    PATIENT,
    PRACTITIONER,
    REQUEST,
    SOFTWARE,
    all_of,
    asv_number,
    implies,
    numbered,
    one_of,
    payor_is,
    quality,
)
from schleuse.eau.rules.notation import Invariant
from schleuse.eau.rules.terminology import AU_TYPE_SYSTEM, QUALIFICATION_SYSTEM


def bundle(edition: Edition) -> tuple[Invariant, ...]:
    """The rules that look at more than one resource."""
    return (*_document_rules(), *_required(edition), *_people(edition), *_kind(edition), *_private_only(edition))


def _document_rules() -> tuple[Invariant, ...]:
    """What FHIR itself asks of a document bundle (R4 § 2.36)."""
    return (
        Invariant(
            "bdl-7",
            "entry.fullUrl.isDistinct()",
            "Jeder Eintrag hat eine eigene Adresse (fullUrl)",
            "Every entry has an address (fullUrl) of its own",
        ),
        Invariant(
            "bdl-8",
            "entry.fullUrl.where($this.toString().indexOf('/_history/') >= 0).empty()",
            "Eine Adresse (fullUrl) nennt keine Version",
            "An address (fullUrl) names no version",
        ),
        Invariant(
            "bdl-10",
            "timestamp.hasValue()",
            "Der Zeitpunkt der Erstellung ist angegeben",
            "The time of creation is given",
        ),
        Invariant(
            "bdl-11",
            "entry.first().resource.where($this is Composition).exists()",
            "Der erste Eintrag ist die Dokumenteninformation (Composition)",
            "The first entry is the Composition",
        ),
    )


def _required(edition: Edition) -> tuple[Invariant, ...]:
    must = "" if edition.old else "Pflicht"
    german = f"{PATIENT}.address.where(country = 'D').exists()"
    rules = (
        Invariant(
            f"-eau-angabePruefnummer{must}",
            implies(payor_is(CARE), f"{COMPOSITION}.author.identifier.where(system = '{SOFTWARE}').exists()"),
            "Bei GKV, BG, SKT und UK steht die Prüfnummer der Software im Dokument",
            "For GKV, BG, SKT and UK the software's Prüfnummer is in the document",
        ),
        Invariant(
            f"-eau-angabePatientPLZ{must}",
            implies(f"{german} and {payor_is(CARE_AND_PRIVATE)}", f"{PATIENT}.address.postalCode.exists()"),
            "Zu einer Anschrift in Deutschland gehört die Postleitzahl",
            "An address in Germany has a postal code",
        ),
        Invariant(
            f"-eau-angabeRechtsgrundlage{must}",
            implies(payor_is(CARE_AND_PRIVATE), f"{BASIS}.exists()"),
            "Die Rechtsgrundlage ist angegeben, außer bei Selbstzahlern",
            "The legal basis is given, except for self-payers",
        ),
        Invariant(
            "-eau-uniqueServiceRequest",
            f"{REQUEST}.code.coding.code.isDistinct()",
            "Jeder weitere Schritt steht höchstens einmal im Dokument",
            "Each further step stands in the document at most once",
        ),
        Invariant(
            "-eau-versionComposition",
            implies(
                f"{COMPOSITION}.exists()",
                f"{COMPOSITION}.meta.profile = '{edition.canonical('KBV_PR_EAU_Composition')}'",
            ),
            "Die Dokumenteninformation nennt genau das Profil dieser Version",
            "The Composition claims exactly the profile of this version",
        ),
    )
    if edition.old:
        return rules
    return (
        *rules,
        Invariant(
            "-eau-angabePatientenAdressePflicht",
            implies(f"{PATIENT}.exists()", f"{PATIENT}.address.exists()"),
            "Die Anschrift der versicherten Person ist angegeben",
            "The insured person's address is given",
        ),
        # A birth date that is only said to be unknown breaks this rule too: so do the official packages.
        Invariant(
            "-eau-geburtsdatumPatient",
            implies(
                f"{PATIENT}.birthDate.exists() and {COMPOSITION}.date.exists()",
                f"{PATIENT}.birthDate.toString() = {COMPOSITION}.date.toString().substring(0, 4)"
                f" or {PATIENT}.birthDate.toString() = {COMPOSITION}.date.toString().substring(0, 7)"
                f" or {PATIENT}.birthDate <= {COMPOSITION}.date",
            ),
            "Das Geburtsdatum liegt nicht nach dem Ausstellungsdatum",
            "The birth date is not after the date of issue",
        ),
        *_asv(),
    )


def _asv() -> tuple[Invariant, ...]:
    team = f"{COMPOSITION}.section.code.coding.where(code = 'FOR_PractitionerRole').exists()"
    return (
        Invariant(
            "-eau-angabeAsvTeamnummerPflicht",
            implies(ASV_BASIS, team),
            "Bei Rechtsgrundlage 01 oder 11 ist die ASV-Teamnummer angegeben",
            "With legal basis 01 or 11 the ASV team number is given",
        ),
        Invariant(
            "-eau-angabeAsvTeamnummerVerbot",
            implies(team, ASV_BASIS),
            "Die ASV-Teamnummer steht nur bei Rechtsgrundlage 01 oder 11",
            "The ASV team number stands only with legal basis 01 or 11",
        ),
        Invariant(
            "-eau-referenzAufAusstellendePerson-2",
            implies(
                f"{COMPOSITION}.exists() and {all_of('PractitionerRole')}.exists()",
                f"{all_of('PractitionerRole')}.practitioner.reference.distinct() = {COMPOSITION}.author.reference",
            ),
            "Die ASV-Ausübung gehört zur ausstellenden Person",
            "The ASV role belongs to the issuing person",
        ),
    )


def _people(edition: Edition) -> tuple[Invariant, ...]:
    must = "" if edition.old else "Pflicht"
    private = payor_is(CARE_AND_PRIVATE)
    answering = ATTESTER if edition.old else f"{COMPOSITION}.attester.party.reference"
    rules = [
        Invariant(
            f"-eau-angabeIdentifikatorAusstellendePerson{must}",
            implies(f"{private} and {quality(AUTHOR, '00 01 04')}", numbered(AUTHOR)),
            "Die ausstellende Person (Arzt, Zahnarzt, Vertreter) hat eine Nummer",
            "The issuing person (doctor, dentist, substitute) has a number",
        ),
        Invariant(
            "-eau-angabeVerantwortlichePersonVerbot-1",
            implies(
                f"{answering}.exists()",
                _others_in_training(edition),
            ),
            "Eine verantwortliche Person steht nur bei Weiterbildung oder Vertretung",
            "A responsible person stands only with a doctor in training or a substitute",
        ),
        Invariant(
            "-eau-angabeVerantwortlichePersonVerbot-2",
            implies(f"{COMPOSITION}.attester.party.reference.exists()", quality(ATTESTER, "00 01 04")),
            "Die verantwortliche Person ist weder Hebamme noch in Weiterbildung",
            "The responsible person is neither a midwife nor in training",
        ),
        Invariant(
            f"-eau-angabeIdentifikatorVerantwortlichePerson{must}",
            implies(
                f"{payor_is(CARE)} and {ATTESTER}.exists() and {quality(ATTESTER, '00 01 04')}",
                numbered(ATTESTER),
            ),
            "Die verantwortliche Person hat eine Nummer",
            "The responsible person has a number",
        ),
        *(
            Invariant(
                f"-eau-angabeFachgruppennummerAsv{name}Verbot",
                implies(
                    f"{asv_number(person)} and {BASIS}.exists()",
                    f"{ASV_BASIS} and {quality(person, '00 04')} and {person}.identifier.empty()",
                ),
                "Eine ASV-Fachgruppennummer steht nur bei ASV und statt der Arztnummer",
                "An ASV group number stands only with ASV and in place of the doctor's number",
            )
            for name, person in (("AusstellendePerson", AUTHOR), ("VerantwortlichePerson", ATTESTER))
        ),
        Invariant(
            f"-eau-referenzAufAusstellendePerson{'' if edition.old else '-1'}",
            f"{all_of('Condition')}.asserter.all(reference = %context.{COMPOSITION}.author.reference)",
            "Alle Diagnosen und Angaben stammen von der ausstellenden Person",
            "All conditions are asserted by the issuing person",
        ),
        Invariant(
            f"-eau-angabeIdentifikatorEinrichtung{must}",
            implies(
                f"{ORGANIZATION}.exists() and {private} and {quality(AUTHOR, '00 01 03 04')}",
                f"{ORGANIZATION}.identifier.exists()",
            ),
            "Die Einrichtung hat eine Nummer (BSNR, IK, KZV-Nummer oder Standortnummer)",
            "The institution has a number (BSNR, IK, KZV number or site number)",
        ),
    ]
    if not edition.old:
        rules.append(
            Invariant(
                "-eau-angabeVerantwortlichePersonPflicht",
                implies(
                    f"{quality(AUTHOR, '03')} and {AUTHOR}.identifier.empty()",
                    f"{COMPOSITION}.attester.party.exists()",
                ),
                "Wer in Weiterbildung ist und keine Arztnummer hat, braucht eine verantwortliche Person",
                "A doctor in training without a number needs a responsible person",
            )
        )
    if edition.name == "1.2.0":
        rules += _kzv_of_1_2_0()
    return tuple(rules)


def _others_in_training(edition: Edition) -> str:
    """Whose qualification must explain a responsible person: the author's; in 1.1.0 that of everybody else."""
    if edition.old:
        other = f"{PRACTITIONER}.where(('Practitioner/' + id) != %context.{COMPOSITION}.attester.party.reference)"
        return quality(other, "03 04")
    return quality(AUTHOR, "03 04")


def _kzv_of_1_2_0() -> tuple[Invariant, ...]:
    """Two rules that only 1.2.0 had (eau.md § 10)."""
    quality = f"{AUTHOR}.qualification.code.coding.where(system = '{QUALIFICATION_SYSTEM}').code"
    number = f"{ORGANIZATION}.identifier.where(system = '{KZV_NUMBER}').exists()"
    return (
        Invariant(
            "-eau-angabeKZV-AbrechnungsnummerPflicht",
            implies(f"{quality} = '01' and {ORGANIZATION}.identifier.exists()", number),
            "Die Einrichtung eines Zahnarztes hat eine KZV-Abrechnungsnummer",
            "A dentist's institution has a KZV-Abrechnungsnummer",
        ),
        Invariant(
            "-eau-angabeKZV-AbrechnungsnummerVerbot",
            implies(f"{quality} != '01' and {ORGANIZATION}.identifier.exists()", f"{number}.not()"),
            "Eine KZV-Abrechnungsnummer steht nur bei Zahnärzten",
            "A KZV-Abrechnungsnummer stands only with dentists",
        ),
    )


def _kind(edition: Edition) -> tuple[Invariant, ...]:
    kind = f"{COMPOSITION}.type.coding.where(system = '{AU_TYPE_SYSTEM}')"
    start = f"{all_of('Condition')}.onset.start"
    has_number = f"{PATIENT}.identifier.exists()"
    gkv, pkv = ("GKV", "PKV") if edition.old else ("KVZ10", "KVZ10")
    skt_key, skt_types = ("KVK", "kvk") if edition.old else ("SKT", "kvk KVZ10")

    def number_type(key: str, payor: str, types: str, name: str) -> Invariant:
        return Invariant(
            f"-eau-{key}",
            implies(
                f"{payor_is(payor)} and {has_number}",
                f"{PATIENT}.identifier.type.coding.where({one_of(types)}).exists()",
            ),
            f"Die Versichertennummer hat die Art, die zum Kostenträger {name} gehört",
            f"The insurance number is of the type that belongs to {name}",
        )

    return (
        Invariant(
            "-eau-angabeAUseitErstbescheinigung",
            implies(f"{kind}.where(code = 'ERST' or code = 'ERST_END').exists()", f"{start}.exists()"),
            "Eine Erstbescheinigung sagt, seit wann",
            "A first certificate says since when",
        ),
        Invariant(
            "-eau-angabeAUseitFolgebescheinigung",
            implies(f"{kind}.where(code = 'FOLGE' or code = 'FOLGE_END').exists()", f"{start}.empty()"),
            "Eine Folgebescheinigung nennt keinen Beginn",
            "A follow-up certificate has no start",
        ),
        number_type("angabeVersichertenIDbeiGKV", "GKV", gkv, "GKV"),
        number_type("angabeVersichertenIDbeiPKV", "PKV", pkv, "PKV"),
        number_type(f"angabeVersichertennummerBei{skt_key}", "SKT", skt_types, "SKT"),
    )


def _private_only(edition: Edition) -> tuple[Invariant, ...]:
    """What only documents for private insurers may hold."""
    del edition  # the same in all
    extension = f"extension('{KBV_STRUCTURE}/KBV_EX_EAU_"
    parts = (
        ("angabeTeilweiseArbeitsfaehigPKV", f"{all_of('Condition')}.{extension}partially_employable')"),
        ("angabeBerufsunfaehigPKV", f"{all_of('Condition')}.{extension}unemployability')"),
        ("angabeAufnahmedatumNurPKV", f"{REQUEST}.{extension}admission_date')"),
        ("angabeEntlassdatumNurPKV", f"{REQUEST}.{extension}discharge_date')"),
        ("angabeStationaereHeilbehandlungPKV", f"{REQUEST}.code.coding.where(code = 'stationaere_heilbehandlung')"),
        ("angabeWiedereingliederungabPKV", f"{REQUEST}.{extension}reintegration_date')"),
    )
    return tuple(
        Invariant(
            f"-eau-{key}",
            implies(f"{part}.exists()", payor_is("PKV")),
            "Diese Angabe gibt es nur für private Versicherungen (PKV)",
            "This is only for private insurance (PKV)",
        )
        for key, part in parts
    )


STORNO_VERSION = "-eau-versionComposition"


def storno_bundle(edition: Edition) -> tuple[Invariant, ...]:
    return (
        *_document_rules(),
        Invariant(
            STORNO_VERSION,
            f"{COMPOSITION}.meta.profile = '{edition.canonical('KBV_PR_EAU_Storno_Composition')}'",
            "Die Dokumenteninformation nennt genau das Profil dieser Version",
            "The Composition claims exactly the profile of this version",
        ),
    )
