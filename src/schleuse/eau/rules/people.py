"""Patient, Practitioner, PractitionerRole and Organization (eau.md § 7)."""

from __future__ import annotations

from schleuse.eau.rules import extensions as ext
from schleuse.eau.rules import terminology as codes
from schleuse.eau.rules.edition import KBV_STRUCTURE, Edition
from schleuse.eau.rules.invariants import names as lines
from schleuse.eau.rules.invariants import resources as within
from schleuse.eau.rules.invariants import words
from schleuse.eau.rules.notation import Profile, Rule, extension, many, maybe, one, slices
from schleuse.eau.rules.parts import head, plain_identifier, refers, typed_identifier


def _text_extension(name: str, url: str, length: int | None, *, at_least: int = 0) -> Rule:
    """A use of an extension with one string of limited length."""
    value = one("value[x]", "string", length=length)
    return Rule(name, "Extension", at_least, 1, (one("url", "uri", fixed=url), value), profile=url, closed=True)


def _name(title_length: int, *, others: bool = False) -> Rule:
    """others: whether parts of the name may carry further extensions (patients of 1.1.0)."""
    family = (
        _text_extension("addition", ext.NAME_ADDITION, 20),
        _text_extension("own", ext.OWN_NAME, 45, at_least=1),
        _text_extension("prefix", ext.OWN_PREFIX, 20),
    )
    title = extension("qualifier", ext.QUALIFIER, at_least=1)
    official = one(
        "official",
        "HumanName",
        one("use", "code", fixed="official"),
        one("family", "string", extensions=family, others=others),
        one("given", "string", length=45),
        maybe("prefix", "string", length=title_length, extensions=(title,), others=others),
        invariants=lines.NAME_PARTS,
    )
    return slices("name", "HumanName", "value:use", official, at_least=1, at_most=1)


def _place(*, city_required: bool, country: Rule) -> tuple[Rule, ...]:
    return (
        (one if city_required else maybe)("city", "string", length=40),
        maybe("postalCode", "string", length=10),
        country,
    )


def patient(edition: Edition) -> Profile:
    country = maybe("country", "string", invariants=() if edition.old else (within.COUNTRY,))
    place = _place(city_required=False, country=country)
    street = maybe(
        "street",
        "Address",
        one("type", "code", fixed="both"),
        many("line", "string", at_most=2, extensions=_line_parts(40), others=edition.old),
        *place,
        closed=not edition.old,
        invariants=lines.LINE_PARTS,
    )
    box = maybe(
        "box",
        "Address",
        one("type", "code", fixed="postal"),
        maybe("line", "string", extensions=(_text_extension("box", ext.BOX, 8, at_least=1),), others=edition.old),
        *place,
        closed=not edition.old,
        invariants=(*lines.LINE_PARTS, lines.BOX_LINE),
    )
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_FOR_Patient",
        "Patient",
        (
            *head("KBV_PR_FOR_Patient", edition),
            slices("identifier", "Identifier", "value:type", *_insured_numbers(edition), at_most=1),
            _name(20, others=edition.old),
            one("birthDate", "date", extensions=(extension("absent", ext.ABSENT),), others=edition.old),
            slices("address", "Address", "value:type", street, box, at_least=int(edition.old), at_most=1),
        ),
        lines.patient_lines(edition),
        closed=not edition.old,
    )


def _insured_numbers(edition: Edition) -> tuple[Rule, ...]:
    kvk = typed_identifier("kvk", (codes.KBV_TYPES, "kvk"), "http://fhir.de/sid/gkv/kvk-versichertennummer", within.KVK)
    gkv = "http://fhir.de/sid/gkv/kvid-10"
    if edition.old:
        return (
            typed_identifier("gkv", (codes.DE_TYPES, "GKV"), gkv, within.kvnr("-for-LaengeVersichertenIdGKV")),
            typed_identifier(
                "pkv",
                (codes.DE_TYPES, "PKV"),
                "http://fhir.de/sid/pkv/kvid-10",
                within.kvnr("-for-LaengeVersichertenIdPKV"),
            ),
            kvk,
        )
    return (typed_identifier("kvnr", (codes.DE_TYPES, "KVZ10"), gkv, within.kvnr("-for-laengeVersichertenId")), kvk)


def _line_parts(locator_length: int | None) -> tuple[Rule, ...]:
    return (
        _text_extension("street", ext.STREET, 46),
        _text_extension("number", ext.NUMBER, 9),
        _text_extension("locator", ext.LOCATOR, locator_length),
    )


def practitioner(edition: Edition) -> Profile:
    small = "L" if edition.old else "l"  # the key was written with a capital in 1.1.0
    lanr = typed_identifier(
        "lanr",
        (codes.V2_TYPES, "LANR"),
        "https://fhir.kbv.de/NamingSystem/KBV_NS_Base_ANR",
        within.nine(f"-for-{small}aengeLANR", warning=not edition.old),
        use="official",
    )
    zanr = typed_identifier(
        "zanr",
        (codes.DE_TYPES, "ZANR"),
        "http://fhir.de/sid/kzbv/zahnarztnummer",
        within.nine(f"-for-{small}aengeZANR", warning=not edition.old),
        use="official",
    )
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_FOR_Practitioner",
        "Practitioner",
        (
            *head("KBV_PR_FOR_Practitioner", edition),
            slices("identifier", "Identifier", "value:type", lanr, zanr, _telematik_id(), at_most=2),
            _name(100),
            _qualifications(),
        ),
        within.practitioner(edition),
        closed=True,
    )


def _telematik_id() -> Rule:
    return typed_identifier(
        "telematik", (codes.V2_TYPES, "PRN"), "https://gematik.de/fhir/sid/telematik-id", length=128
    )


def _qualifications() -> Rule:
    """What the person is, what it is called, and the ASV group: told apart by the system of the code."""

    def of(name: str, system: str, *text: Rule, code: str | None = None, least: int = 1, **more: object) -> Rule:
        kind = one("coding", "Coding", one("system", "uri", fixed=system), one("code", "code", fixed=code))
        return many(
            name,
            "BackboneElement",
            one("code", "CodeableConcept", kind, *text, **more),
            at_least=least,
            at_most=1,
        )

    return slices(
        "qualification",
        "BackboneElement",
        "value:code.coding.system",
        of("kind", codes.QUALIFICATION_SYSTEM, values=codes.QUALIFICATION),
        of("profession", codes.PROFESSION_SYSTEM, one("text", "string", length=100), code="Berufsbezeichnung"),
        of("asv", words.ASV_GROUP, least=0),
        at_least=2,
        at_most=3,
    )


def practitioner_role(edition: Edition) -> Profile:
    team = plain_identifier(
        "identifier",
        "http://fhir.de/NamingSystem/asv/teamnummer",
        invariants=(within.ASV_TEAM,),
        without_id=True,
    )
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_FOR_PractitionerRole",
        "PractitionerRole",
        (
            *head("KBV_PR_FOR_PractitionerRole", edition),
            refers("practitioner", edition.canonical("KBV_PR_FOR_Practitioner")),
            one("organization", "Reference", team),
        ),
        closed=not edition.old,
    )


def organization(edition: Edition) -> Profile:
    return Profile(
        f"{KBV_STRUCTURE}/KBV_PR_FOR_Organization",
        "Organization",
        (
            *head("KBV_PR_FOR_Organization", edition),
            slices("identifier", "Identifier", "value:type", *_institution_numbers(edition), at_most=2),
            maybe("name", "string", length=60),
            slices(
                "telecom",
                "ContactPoint",
                "value:system",
                _contact("phone", 30, at_least=1),
                _contact("fax", 30),
                _contact("email", 256),
                at_least=1,
                at_most=3,
            ),
            slices("address", "Address", "value:type", _site(), at_least=1, at_most=1),
        ),
        (*lines.organization_lines(edition), within.ORGANIZATION_NUMBERS),
        closed=True,
    )


def _institution_numbers(edition: Edition) -> tuple[Rule, ...]:
    only_told = edition.name == "1.2.0"
    ik = within.nine_signs("-for-laengeIK") if edition.old else within.nine("-for-laengeIK", warning=only_told)
    kzv = within.nine(f"-for-{'L' if edition.old else 'l'}aengeKZVA", warning=only_told)
    bsnr = within.nine("org-1" if edition.old else "-for-laengeBSNR", warning=only_told)
    official = "official"
    return (
        typed_identifier(
            "ik", (codes.V2_TYPES, "XX"), "http://fhir.de/sid/arge-ik/iknr", ik, use=official if edition.old else None
        ),
        typed_identifier(
            "bsnr", (codes.V2_TYPES, "BSNR"), "https://fhir.kbv.de/NamingSystem/KBV_NS_Base_BSNR", bsnr, use=official
        ),
        typed_identifier("kzva", (codes.DE_TYPES, "KZVA"), words.KZV_NUMBER, kzv, use=official),
        typed_identifier(
            "ksn",
            (codes.KBV_TYPES, "KSN"),
            "http://fhir.de/sid/dkgev/standortnummer",
            within.nine("-for-laengeStandortnummer"),
        ),
        _telematik_id(),
    )


def _contact(system: str, length: int, *, at_least: int = 0) -> Rule:
    return many(
        system,
        "ContactPoint",
        one("system", "code", fixed=system),
        one("value", "string", length=length),
        at_least=at_least,
        at_most=1,
    )


def _site() -> Rule:
    return one(
        "street",
        "Address",
        one("type", "code", fixed="both"),
        many("line", "string", at_least=1, at_most=2, extensions=_line_parts(None)),
        *_place(city_required=True, country=maybe("country", "string", values=codes.COUNTRY)),
        closed=True,
        invariants=lines.LINE_PARTS,
    )
