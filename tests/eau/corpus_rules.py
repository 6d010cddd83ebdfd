"""One mutant or more for every rule that needs an expression (eau.md § 8), labelled with the rule's key.

Most break a choice that the generator keeps, or one element of what it wrote. Also a few documents that look
suspicious and are valid: they must not be rejected.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any
from xml.etree import ElementTree as ET

from tests.eau.corpus import (
    ISSUED,
    KBV,
    Case,
    at,
    edited,
    find,
    generator,
    local,
    node,
    parents,
    put,
    remove,
    tag,
    version,
)

from schleuse.eau.rules import Edition
from schleuse.practice.documents import Document

Edit = Any  # a function that changes a tree

ADXP = "http://hl7.org/fhir/StructureDefinition/iso21090-ADXP"


def plain(edition: Edition, **choices: Any) -> Document:
    """A small document with the choices; everything else is held still, so that one thing at a time breaks."""
    still: dict[str, Any] = {
        "kind": "ERST",
        "payor": "GKV",
        "issuer": "arzt",
        "place": "praxis",
        "birth": "day",
        "lines": "whole",
        "kvnr": True,
        "number": True,
        "responsible": False,
        "krankengeld": False,
        "telematik_ids": False,
        "causes": (),
        "steps": (),
        "icds": 1,
        "text": None,
        "legal_basis": "00",
    }
    return generator(edition).eau(version(edition), **(still | choices))


def semantic(edition: Edition) -> Iterator[Case]:
    """Mutants for the rules of an edition. Case.breaks is the short key of eau.md § 8, without prefix."""
    yield from _document(edition)
    yield from _required(edition)
    yield from _people(edition)
    yield from _kinds(edition)
    yield from _conditions(edition)
    yield from _numbers(edition)
    yield from _lines(edition)
    yield from _suspicious_but_valid(edition)


def key(edition: Edition, short: str, old: str | None = None, *, must: bool = False, prefix: str = "eau") -> str:
    """The key as the edition writes it. must: rules whose key ends in "Pflicht" since 1.2."""
    if edition.old:
        return f"-{prefix}-{old or short}"
    return f"-{prefix}-{short}{'Pflicht' if must else ''}"


def case(breaks: str, label: str, xml: bytes, *edits: Edit) -> Case:
    for edit in edits:
        xml = edited(xml, edit)
    return Case(f"{breaks}: {label}", xml, breaks)


def _document(edition: Edition) -> Iterator[Case]:
    xml = plain(edition).xml

    def same_address(root: ET.Element) -> None:
        urls = root.findall(f"{tag('entry')}/{tag('fullUrl')}")
        urls[-1].set("value", urls[-2].get("value") or "")

    def history(root: ET.Element) -> None:
        url = find(root, "entry/fullUrl", 3)
        url.set("value", f"{url.get('value')}/_history/1")

    def composition_last(root: ET.Element) -> None:
        first = find(root, "entry")
        root.remove(first)
        root.append(first)

    def second_claim(root: ET.Element) -> None:
        claim = find(root, "Composition/meta/profile")
        find(root, "Composition/meta").append(node("profile", "http://hl7.org/fhir/StructureDefinition/Composition"))
        assert claim is not None

    yield case("bdl-7", "two entries with one address", xml, same_address)
    yield case("bdl-8", "an address with a version", xml, history)
    yield case("bdl-11", "the Composition comes last", xml, composition_last)
    yield case("-eau-versionComposition", "two profiles claimed", xml, second_claim)
    yield case(
        "-eau-versionComposition",
        "another version",
        xml,
        put("Composition/meta/profile", f"{KBV}/KBV_PR_EAU_Composition|9.9"),
    )

    def without_time(root: ET.Element) -> None:
        stamp = find(root, "timestamp")
        del stamp.attrib["value"]
        stamp.append(
            node(
                "extension",
                None,
                node("valueCode", "unknown"),
                url="http://hl7.org/fhir/StructureDefinition/data-absent-reason",
            )
        )

    yield case("bdl-10", "a timestamp without value", xml, without_time)


def _required(edition: Edition) -> Iterator[Case]:
    for payor in ("GKV", "BG", "SKT", "UK"):
        document = plain(edition, payor=payor)
        yield case(key(edition, "angabePruefnummer", must=True), payor, document.xml, remove("author", 1))
        yield case(
            key(edition, "angabePatientPLZ", must=True), payor, document.xml, remove("Patient/address/postalCode")
        )
    for payor in ("GKV", "BG", "SKT", "UK", "PKV"):
        document = plain(edition, payor=payor)
        yield case(
            key(edition, "angabeRechtsgrundlage", must=True), payor, document.xml, remove("Composition/extension")
        )
        yield case(
            key(edition, "angabeIKzustaendigeKrankenkasseEGK", must=True, prefix="for"),
            payor, document.xml, remove("payor/identifier"),
        )  # fmt: skip
        marks = ("angabeBesonderePersonengruppe", "angabeDMP", "angabeVersichertenart")
        urls = ("besondere-personengruppe", "dmp-kennzeichen", "versichertenart")
        for mark, url in zip(marks, urls, strict=True):
            yield case(
                key(edition, mark, must=True, prefix="for"), payor, document.xml, _without_extension("Coverage", url)
            )
    for payor in ("GKV", "SKT", "PKV"):
        second = plain(edition, payor="UK")
        yield case("-for-angabeIKKostentraegerVerbot", payor, second.xml, _payor(payor))
    xml = plain(edition).xml
    yield case("-eau-angabePatientenAdressePflicht", "no address", xml, remove("Patient/address"))
    yield case(
        "-eau-uniqueServiceRequest", "one step twice", plain(edition, steps=("reha", "d_arzt")).xml,
        put("ServiceRequest/code/coding/code", "reha", 1),
    )  # fmt: skip
    for born in ("2031-01-01", "2031-01", "2031"):
        yield case("-eau-geburtsdatumPatient", born, xml, put("Patient/birthDate", born))
    next_month = "2026-03" if edition.newest else "2026-01"
    yield case("-eau-geburtsdatumPatient", "next month", xml, put("Patient/birthDate", next_month))


def _payor(code: str) -> Edit:
    system = (
        "https://fhir.kbv.de/CodeSystem/KBV_CS_FOR_Payor_Type_KBV"
        if code in ("SKT", "UK")
        else "http://fhir.de/CodeSystem/versicherungsart-de-basis"
    )

    def edit(root: ET.Element) -> None:
        find(root, "Coverage/type/coding/system").set("value", system)
        find(root, "Coverage/type/coding/code").set("value", code)

    return edit


def _without_extension(path: str, ending: str) -> Edit:
    def edit(root: ET.Element) -> None:
        holder = find(root, path)
        for extension in holder.findall(tag("extension")):
            if (extension.get("url") or "").endswith(ending):
                holder.remove(extension)

    return edit


def _people(edition: Edition) -> Iterator[Case]:
    for issuer in ("arzt", "zahnarzt", "vertreter"):
        for payor in ("GKV", "PKV", "BG"):
            document = plain(
                edition, issuer=issuer, payor=payor, place="zahnarztpraxis" if issuer == "zahnarzt" else "praxis"
            )
            yield case(
                key(edition, "angabeIdentifikatorAusstellendePerson", must=True), f"{issuer} {payor}", document.xml,
                remove("Practitioner/identifier"),
            )  # fmt: skip
    yield case("-eau-angabeVerantwortlichePersonVerbot-1", "a doctor", plain(edition, responsible=True).xml)
    dentist = plain(edition, issuer="zahnarzt", place="zahnarztpraxis", responsible=True)
    yield case("-eau-angabeVerantwortlichePersonVerbot-1", "a dentist", dentist.xml)
    guided = plain(edition, issuer="weiterbildung", responsible=True)
    yield case("-eau-angabeVerantwortlichePersonVerbot-2", "in training", guided.xml, _qualified(1, "03"))
    midwife = (remove("Practitioner/identifier", 1), _qualified(1, "02"))
    yield case("-eau-angabeVerantwortlichePersonVerbot-2", "midwife", guided.xml, *midwife)
    yield case(
        key(edition, "angabeIdentifikatorVerantwortlichePerson", must=True),
        "none",
        guided.xml,
        remove("Practitioner/identifier", 1),
    )
    yield case(
        "-eau-angabeVerantwortlichePersonPflicht", "nobody",
        plain(edition, issuer="weiterbildung", number=False, responsible=False).xml,
    )  # fmt: skip
    group = plain(edition, asv=True, legal_basis="01", number=False).xml
    forbidden = "-eau-angabeFachgruppennummerAsvAusstellendePersonVerbot"
    yield case(forbidden, "legal basis 00", plain(edition, number=False, legal_basis="00").xml)
    yield case(forbidden, "in training", group, _qualified(0, "03"))
    yield case(forbidden, "beside a number", group, _copy_identifier(plain(edition).xml))
    both = plain(edition, issuer="weiterbildung", responsible=True, asv=True, legal_basis="01", number=True).xml
    forbidden = "-eau-angabeFachgruppennummerAsvVerantwortlichePersonVerbot"
    yield case(forbidden, "beside a number", both, _asv_group(1))
    yield case(forbidden, "legal basis 00", guided.xml, _asv_group(1), remove("Practitioner/identifier", 1))
    yield from _references(edition)
    for short, choices in (
        ("angabeAsvTeamnummerPflicht", {"legal_basis": "01"}),
        ("angabeAsvTeamnummerPflicht", {"legal_basis": "11"}),
        ("angabeAsvTeamnummerVerbot", {"legal_basis": "00", "asv": True}),
        ("angabeAsvTeamnummerVerbot", {"legal_basis": "10", "asv": True}),
    ):
        yield case(f"-eau-{short}", str(choices), plain(edition, **choices).xml)
    for issuer in ("arzt", "zahnarzt", "weiterbildung", "vertreter"):
        document = plain(edition, issuer=issuer, place="zahnarztpraxis" if issuer == "zahnarzt" else "praxis")
        yield case(
            key(edition, "angabeIdentifikatorEinrichtung", must=True),
            issuer,
            document.xml,
            remove("Organization/identifier"),
        )
    yield case(
        "-eau-angabeKZV-AbrechnungsnummerPflicht",
        "dentist with BSNR",
        plain(edition, issuer="zahnarzt", place="praxis").xml,
    )
    yield case("-eau-angabeKZV-AbrechnungsnummerVerbot", "doctor", plain(edition, place="zahnarztpraxis").xml)


def _qualified(person: int, code: str) -> Edit:
    def edit(root: ET.Element) -> None:
        who = root.findall(f".//{tag('Practitioner')}")[person]
        find(who, "qualification/code/coding/code").set("value", code)

    return edit


def _copy_identifier(source: bytes) -> Edit:
    def edit(root: ET.Element) -> None:
        number = copy.deepcopy(find(ET.fromstring(source), "Practitioner/identifier"))
        who = find(root, "Practitioner")
        who.insert(list(who).index(find(who, "name")), number)

    return edit


def _asv_group(person: int) -> Edit:
    def edit(root: ET.Element) -> None:
        who = root.findall(f".//{tag('Practitioner')}")[person]
        system = node("system", "https://fhir.kbv.de/NamingSystem/KBV_NS_FOR_Fachgruppennummer_ASV")
        code = node("coding", None, system, node("code", "555555123"))
        who.append(node("qualification", None, node("code", None, code)))

    return edit


def _references(edition: Edition) -> Iterator[Case]:
    guided = plain(edition, issuer="weiterbildung", responsible=True, asv=True, legal_basis="01", text="x").xml
    other = ET.fromstring(guided).findall(f".//{tag('Practitioner')}/{tag('id')}")[1].get("value")
    one = key(edition, "referenzAufAusstellendePerson-1", "referenzAufAusstellendePerson")
    for place in range(3):
        yield case(
            one, f"asserter {place}", guided, put("Condition/asserter/reference", f"Practitioner/{other}", place)
        )
    yield case(
        "-eau-referenzAufAusstellendePerson-2", "another person", guided,
        put("PractitionerRole/practitioner/reference", f"Practitioner/{other}"),
    )  # fmt: skip
    rich = plain(edition, steps=("reha",), text="x").xml
    for path in (
        "Composition/subject", "Composition/author", "Composition/custodian", "section/entry", "Coverage/beneficiary",
        "Condition/subject", "Condition/asserter", "ServiceRequest/subject", "ServiceRequest/requester",
        "ServiceRequest/reasonReference",
    ):  # fmt: skip
        for label, target in (
            ("dangling", "Patient/none"),
            ("nonsense", "nonsense"),
            ("contained", "#x"),
            ("outside", "https://example.org/Patient/1"),
        ):
            yield Case(f"reference {label}: {path}", edited(rich, put(f"{path}/reference", target)))
        wrong = "Organization" if "subject" in path or "beneficiary" in path else "Patient"
        yield Case(f"reference to {wrong}: {path}", edited(rich, _point(path, wrong)))
    yield Case("section names another condition", edited(rich, _swap_sections))


def _point(path: str, kind: str) -> Edit:
    def edit(root: ET.Element) -> None:
        target = find(root, f"{kind}/id").get("value")
        find(root, f"{path}/reference").set("value", f"{kind}/{target}")

    return edit


def _swap_sections(root: ET.Element) -> None:
    first, second = find(root, "section/entry/reference", 0), find(root, "section/entry/reference", 1)
    one, two = first.get("value") or "", second.get("value") or ""
    first.set("value", two)
    second.set("value", one)


def _kinds(edition: Edition) -> Iterator[Case]:
    for kind in ("ERST", "ERST_END"):
        yield case(
            "-eau-angabeAUseitErstbescheinigung", kind, plain(edition, kind=kind).xml, remove("onsetPeriod/start")
        )
    for kind in ("FOLGE", "FOLGE_END"):
        yield case(
            "-eau-angabeAUseitFolgebescheinigung", kind, plain(edition).xml, put("Composition/type/coding/code", kind)
        )
    insured = plain(edition, payor="SKT")
    for payor, short in (("GKV", "angabeVersichertenIDbeiGKV"), ("PKV", "angabeVersichertenIDbeiPKV")):
        yield case(f"-eau-{short}", "kvk number", insured.xml, _payor(payor))
    if edition.old:
        yield case("-eau-angabeVersichertennummerBeiKVK", "KVNR", plain(edition).xml, _payor("SKT"))
    else:
        yield Case("SKT with KVNR", edited(plain(edition).xml, _payor("SKT")))
        other = put("Patient/identifier/type/coding/code", "PKV")
        yield case("-eau-angabeVersichertennummerBeiSKT", "another number", insured.xml, other)
    private = plain(
        edition,
        payor="PKV",
        private=True,
        steps=("wiedereingliederung", "reha", "stationaere_heilbehandlung"),
        kvnr=False,
    ).xml
    everything = edited(private, _payor("GKV"))
    only = {
        "angabeTeilweiseArbeitsfaehigPKV": "partially_employable",
        "angabeBerufsunfaehigPKV": "unemployability",
        "angabeAufnahmedatumNurPKV": "admission_date",
        "angabeEntlassdatumNurPKV": "discharge_date",
        "angabeWiedereingliederungabPKV": "reintegration_date",
        "angabeStationaereHeilbehandlungPKV": None,
    }
    for short, kept in only.items():
        yield case(f"-eau-{short}", "GKV", everything, _keep_only(kept, step=kept is None))


def _keep_only(kept: str | None, *, step: bool) -> Edit:
    """Remove all that only PKV may have but one. step: whether stationaere_heilbehandlung stays."""

    def edit(root: ET.Element) -> None:
        for parent in list(root.iter()):
            for extension in parent.findall(tag("extension")):
                name = (extension.get("url") or "").rpartition("KBV_EX_EAU_")[2]
                if name != kept and "KBV_EX_EAU_" in (extension.get("url") or ""):
                    parent.remove(extension)
        if not step:
            for request in root.findall(f".//{tag('ServiceRequest')}"):
                code = find(request, "code/coding/code")
                if code.get("value") == "stationaere_heilbehandlung":
                    code.set("value", "d_arzt")
                    for extension in request.findall(tag("extension")):
                        request.remove(extension)

    return edit


def _conditions(edition: Edition) -> Iterator[Case]:
    xml = plain(edition, causes=("1", "2")).xml
    day = ISSUED[edition.name].date().isoformat()
    stamp = f"{day}T08:00:00+01:00"
    yield case("-eau-begrenzungDate", "with a time", xml, put("Composition/date", stamp))
    yield case("-eau-begrenzungDate", "a month", xml, put("Composition/date", day[:7]))
    for short, path in (
        ("FestgestelltAm", "Condition/extension/valueDateTime"),
        ("Start", "onsetPeriod/start"),
        ("End", "onsetPeriod/end"),
    ):
        yield case(f"-eau-begrenzungDate{short}", "with a time", xml, put(path, stamp))
        yield case(f"-eau-begrenzungDate{short}", "a month", xml, put(path, day[:7]))
    yield case("-eau-anzahlUrsache", "one twice", xml, put("valueCodeableConcept/coding/code", "1", 1))
    yield case("per-1", "end before start", xml, put("onsetPeriod/end", "2020-01-01"))
    private = plain(
        edition, payor="PKV", private=True, steps=("wiedereingliederung", "reha", "stationaere_heilbehandlung")
    ).xml
    parts = {
        "begrenzungDateteilweise-arbeitsfaehig-ab": "partially_employable",
        "begrenzungDateWiedereingliederung-ab": "reintegration_date",
        "begrenzungDateEntlassungsdatum": "discharge_date",
        "begrenzungDateAufnahmedatum": "admission_date",
    }
    for short, name in parts.items():
        yield case(f"-eau-{short}", "with a time", private, _extension_value(name, stamp))
        yield case(f"-eau-{short}", "a year", private, _extension_value(name, "2026"))
    steps = plain(edition, payor="PKV", steps=("reha", "d_arzt"), private=True).xml
    yield case("-eau-EntlassungdatumNurRehaHeilbehandlung", "d_arzt", steps, _move("discharge_date"))
    yield case("-eau-AufnahmedatumNurRehaHeilbehandlung", "d_arzt", steps, _move("admission_date"))
    back = plain(edition, payor="PKV", steps=("wiedereingliederung", "d_arzt"), private=True).xml
    yield case("-eau-WiedereingliederungAbNurWiedereingliederung", "d_arzt", back, _move("reintegration_date"))
    for step in ("d_arzt", "reha", "wiedereingliederung"):
        yield case("-eau-keinTextBeiAnderen", step, plain(edition, steps=(step,)).xml, _step_text)
    yield case("con-5", "entered in error", plain(edition).xml, _both_statuses)
    yield case("-for-begrenzungDate", "a month", plain(edition).xml, _cover_end("2027-01"))
    yield case("-for-begrenzungDate", "with a time", plain(edition).xml, _cover_end(stamp))


def _extension_value(name: str, value: str) -> Edit:
    def edit(root: ET.Element) -> None:
        for extension in root.iter(tag("extension")):
            if (extension.get("url") or "").endswith(name):
                extension[0].set("value", value)

    return edit


def _move(name: str) -> Edit:
    """Move an extension from the first ServiceRequest to the second."""

    def edit(root: ET.Element) -> None:
        first, second = root.findall(f".//{tag('ServiceRequest')}")[:2]
        for extension in first.findall(tag("extension")):
            first.remove(extension)
            if (extension.get("url") or "").endswith(name):
                second.insert(2, extension)

    return edit


def _step_text(root: ET.Element) -> None:
    find(root, "ServiceRequest/code").append(node("text", "etwas"))


def _status(name: str, system: str, code: str) -> ET.Element:
    full = f"http://terminology.hl7.org/CodeSystem/{system}"
    return node(name, None, node("coding", None, node("system", full), node("code", code)))


def _both_statuses(root: ET.Element) -> None:
    for condition in root.findall(f".//{tag('Condition')}"):
        if "Condition_ICD" not in (find(condition, "meta/profile").get("value") or ""):
            continue
        for name in ("clinicalStatus", "verificationStatus"):
            for found in condition.findall(tag(name)):
                condition.remove(found)
        condition.insert(2, _status("clinicalStatus", "condition-clinical", "active"))
        condition.insert(3, _status("verificationStatus", "condition-ver-status", "entered-in-error"))


def _cover_end(value: str) -> Edit:
    def edit(root: ET.Element) -> None:
        cover = find(root, "Coverage")
        for period in cover.findall(tag("period")):
            cover.remove(period)
        cover.insert(list(cover).index(find(cover, "payor")), node("period", None, node("end", value)))

    return edit


def _numbers(edition: Edition) -> Iterator[Case]:
    long, letters = "1234567890", "12345678A"
    small = "L" if edition.old else "l"
    eight = "12345678"
    table: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (f"-for-{small}aengeIK", "payor/identifier/value", {}),
        ("-for-laengeIK", "Organization/identifier/value", {"place": "institution"}),
        ("-for-laengeBSNR", "Organization/identifier/value", {"place": "praxis"}),
        (f"-for-{small}aengeKZVA", "Organization/identifier/value", {"place": "zahnarztpraxis", "issuer": "zahnarzt"}),
        ("-for-laengeStandortnummer", "Organization/identifier/value", {"place": "krankenhaus"}),
        (f"-for-{small}aengeLANR", "Practitioner/identifier/value", {}),
        (f"-for-{small}aengeZANR", "Practitioner/identifier/value", {"issuer": "zahnarzt", "place": "zahnarztpraxis"}),
        ("-for-laengeASVnummer", "PractitionerRole/organization/identifier/value", {"asv": True, "legal_basis": "01"}),
        ("kvk-1", "Patient/identifier/value", {"payor": "SKT"}),
        (
            "-for-LaengeVersichertenIdGKV" if edition.old else "-for-laengeVersichertenId",
            "Patient/identifier/value",
            {},
        ),
        (
            "-for-LaengeVersichertenIdPKV" if edition.old else "-for-laengeVersichertenId",
            "Patient/identifier/value",
            {"payor": "PKV"},
        ),
        ("-for-laengeWohnsitzlaendercode", "Patient/address/country", {}),
    )
    for breaks, path, choices in table:
        xml = plain(edition, **choices).xml
        for value in (long, letters, eight, "1234567890123", f"X{long}", f"{letters}\n", "a123456789", "DEUT", "de"):
            yield case(breaks, repr(value), xml, put(path, value))
    second = plain(edition, payor="BG").xml
    yield case(f"-for-{small}aengeIK", "second IK", second, put("valueIdentifier/value", "123"))
    for value in ("XYZ", "QQ", "D"):
        yield Case(
            f"practice in country {value}", edited(plain(edition).xml, put("Organization/address/country", value))
        )
        yield Case(f"patient in country {value}", edited(plain(edition).xml, put("Patient/address/country", value)))
    doctor = plain(edition).xml
    dentist = plain(edition, issuer="zahnarzt", place="zahnarztpraxis").xml
    yield case(key(edition, "angabeArztnummer", must=True, prefix="for"), "ZANR", doctor, _copy_number(dentist))
    yield case(key(edition, "angabeZahnarztnummer", must=True, prefix="for"), "LANR", dentist, _copy_number(doctor))
    yield case(
        "-for-angabeIdentifikatorAusstellende-VerantwortlichePersonVerbot", "midwife with LANR",
        plain(edition, issuer="hebamme").xml, _copy_identifier(doctor),
    )  # fmt: skip
    count = "-for-anzahlIdentifikatorAusstellende-VerantwortlichePerson"
    yield case(count, "LANR and ZANR", doctor, _copy_identifier(dentist))
    telematik = plain(edition, telematik_ids=True).xml
    yield case(count, "Telematik-ID only", telematik, remove("Practitioner/identifier"))
    institution = "-for-anzahlIdentifikatorOrganizationRessource"
    yield case(institution, "Telematik-ID only", telematik, remove("Organization/identifier"))
    yield case(institution, "BSNR and IK", doctor, _second_institution(plain(edition, place="institution").xml))


def _copy_number(source: bytes) -> Edit:
    def edit(root: ET.Element) -> None:
        remove("Practitioner/identifier")(root)
        _copy_identifier(source)(root)

    return edit


def _second_institution(source: bytes) -> Edit:
    def edit(root: ET.Element) -> None:
        number = copy.deepcopy(find(ET.fromstring(source), "Organization/identifier"))
        who = find(root, "Organization")
        who.insert(list(who).index(find(who, "name")), number)

    return edit


def line(text: str | None, **parts: str) -> ET.Element:
    """An address line; parts by their ADXP names."""
    made = node("line", text)
    made.extend(
        node("extension", None, node("valueString", value), url=f"{ADXP}-{name}") for name, value in parts.items()
    )
    return made


def with_lines(resource: str, *lines: ET.Element, type: str | None = None) -> Edit:
    def edit(root: ET.Element) -> None:
        address = find(root, f"{resource}/address")
        for old in address.findall(tag("line")):
            address.remove(old)
        for place, new in enumerate(lines):
            address.insert(1 + place, copy.deepcopy(new))
        if type:
            find(address, "type").set("value", type)

    return edit


WHOLE = line("Weg 1", streetName="Weg", houseNumber="1")


def _lines(edition: Edition) -> Iterator[Case]:
    yield from _any_lines(edition)
    patient = "-for-adresszeilenAufbauPatientRessource"
    own = (
        (2, line("Nr. 1", houseNumber="1")),
        (3, line("Am Weg", streetName="Weg")),
        (5, line("Postfach 12", postBox="12")),
    )
    xml = plain(edition).xml
    for number, only in own:
        box = number == 5
        yield case(
            f"{patient}-{number}", "line says more", xml, with_lines("Patient", only, type="postal" if box else None)
        )
    yield case(
        f"{patient}-4",
        "second line says more",
        xml,
        with_lines("Patient", WHOLE, line("im Hof", additionalLocator="Hof")),
    )
    yield case(
        f"{patient}-4", "first line says more", xml, with_lines("Patient", line("im Hof", additionalLocator="Hof"))
    )
    yield case(
        f"{patient}-6",
        "addition beside a street",
        xml,
        with_lines("Patient", line("Weg", streetName="Weg", additionalLocator="Weg")),
    )
    yield case(
        f"{patient}-8",
        "addition before the addition",
        xml,
        with_lines("Patient", line("Hof", additionalLocator="Hof"), line("C", additionalLocator="C")),
    )
    yield case("postBox-de-1", "no line at all", plain(edition, lines="box").xml, remove("Patient/address/line"))
    practice = "-for-adresszeilenAufbauOrganizationRessource"
    yield case(
        f"{practice}-2",
        "second line says more",
        xml,
        with_lines("Organization", WHOLE, line("im Hof", additionalLocator="Hof")),
    )
    yield case(f"{practice}-3", "street only", xml, with_lines("Organization", line("Weg", streetName="Weg")))
    yield case(f"{practice}-4", "number only", xml, with_lines("Organization", line("1", houseNumber="1")))
    yield case(f"{practice}-5", "addition only", xml, with_lines("Organization", line("Hof", additionalLocator="Hof")))
    yield case(
        f"{practice}-8",
        "N/A in the line",
        xml,
        with_lines("Organization", line("Weg N/A", streetName="Weg", houseNumber="N/A")),
    )
    yield Case(
        "practice without house number",
        edited(xml, with_lines("Organization", line("Weg", streetName="Weg", houseNumber="N/A"))),
    )


def _any_lines(edition: Edition) -> Iterator[Case]:
    """Lines that Patient and Organization judge alike."""
    xml = plain(edition).xml
    wrong = (
        "Weg 2", "Weg1", "Weg", "1", "Weg  1", "weg 1", "Weg 1 ", " Weg 1", "Weg, 1", "Weg 11", "1 Weg", "Weg Weg 1",
        "",
    )  # fmt: skip
    for resource in ("Patient", "Organization"):
        rule = f"-for-adresszeilenAufbau{resource}Ressource"
        for text in wrong:
            edit = with_lines(resource, line(text, streetName="Weg", houseNumber="1"))
            yield case(f"{rule}-1", repr(text), xml, edit)
        for number in ("1+2", "1 (Hof)", "1.a", "[1]", "1*", "1|2", "(1", "\\d", "a?"):
            edit = with_lines(resource, line(f"Weg {number}", streetName="Weg", houseNumber=number))
            yield Case(f"{resource} house number {number!r}", edited(xml, edit))
            other = with_lines(resource, line("Weg 7", streetName="Weg", houseNumber=number))
            yield Case(f"{resource} house number {number!r} in the line 7", edited(xml, other))
        for name, second in (
            ("street", line("Weg", streetName="Weg")),
            ("number", line("1", houseNumber="1")),
            ("plain", line("Hof")),
        ):
            place = 7 if resource == "Patient" else 6
            yield case(f"{rule}-{place}", f"second line {name}", xml, with_lines(resource, WHOLE, second))
        place = 8 if resource == "Patient" else 7
        edit = with_lines(resource, line("irgendwo"), line("Hof", additionalLocator="Hof"))
        yield case(f"{rule}-{place}", "plain first line", xml, edit)
        yield Case(
            f"{resource} three lines",
            edited(
                xml, with_lines(resource, WHOLE, line("C", additionalLocator="C"), line("D", additionalLocator="D"))
            ),
        )
        yield Case(f"{resource} line without parts", edited(xml, with_lines(resource, line("Weg 1"))))
        yield Case(
            f"{resource} line without value",
            edited(xml, with_lines(resource, line(None, streetName="Weg", houseNumber="1"))),
        )
        nothing = line(None, additionalLocator="Hof")
        yield case("add-5", f"{resource} addition without line", xml, with_lines(resource, WHOLE, nothing))
        for length in (20, 40, 41, 46, 47):
            long = "W" * length
            edit = with_lines(resource, line(f"{long} 1", streetName=long, houseNumber="1"))
            yield Case(f"{resource} street of {length}", edited(xml, edit))
            edit = with_lines(resource, WHOLE, line(long, additionalLocator=long))
            yield Case(f"{resource} addition of {length}", edited(xml, edit))


def _suspicious_but_valid(edition: Edition) -> Iterator[Case]:
    rich = plain(edition)
    yield Case("wrong check digit of the KVNR", edited(rich.xml, put("Patient/identifier/value", "A000000000")))
    yield Case("ICD code with unusual signs", edited(rich.xml, put("Condition/code/coding/code", "J06.9+", 1)))
    yield Case("Dokumenten-ID that is no UUID", edited(rich.xml, _document_id("4711")))
    yield Case("narrative in the Composition", edited(rich.xml, _narrative))
    yield Case("festgestellt after the end", edited(rich.xml, put("Condition/extension/valueDateTime", "2030-01-01")))
    yield Case("issued long ago", plain(edition, start=date(2020, 1, 1)).xml)
    yield Case("lastUpdated in the bundle", edited(rich.xml, _last_updated))
    yield Case("born today", edited(rich.xml, put("Patient/birthDate", ISSUED[edition.name].date().isoformat())))
    yield Case(
        "born this month", edited(rich.xml, put("Patient/birthDate", ISSUED[edition.name].date().isoformat()[:7]))
    )
    yield Case(
        "born this year", edited(rich.xml, put("Patient/birthDate", ISSUED[edition.name].date().isoformat()[:4]))
    )
    yield Case(
        "author answers for itself", edited(plain(edition, issuer="vertreter", responsible=True).xml, _own_attester)
    )
    for dmp in ("11", "12", "13", "29", "30", "58", "59"):
        yield Case(f"DMP {dmp}", edited(rich.xml, _coverage_code("dmp-kennzeichen", dmp)))
    names = replace(rich.patient.name, family="B" * 45, given="G" * 45, prefix="P" * 20, title="T" * 20)
    longest = plain(edition, patient=replace(rich.patient, name=names))
    yield Case("longest names", longest.xml)
    for rule, part in (("hum-1", {"addition": "Graf"}), ("hum-3", {"prefix": "von"})):
        named = plain(edition, patient=replace(rich.patient, name=replace(rich.patient.name, **part)))
        yield case(rule, "family name without value", named.xml, _without_value("Patient/name/family"))
    titled = plain(edition, patient=replace(rich.patient, name=replace(rich.patient.name, title="Dr.")))
    yield case("hum-4", "title without value", titled.xml, _without_value("Patient/name/prefix"))
    yield case("add-3", "box without value", plain(edition, lines="box").xml, _without_value("Patient/address/line"))
    yield Case("cause 4", edited(plain(edition, causes=("1",)).xml, put("valueCodeableConcept/coding/code", "4")))
    yield Case("birth date unknown", plain(edition, birth="unknown").xml)
    for path, length in (
        ("name/given", 46),
        ("name/prefix", 21),
        ("name/prefix", 101),
        ("payor/display", 46),
        ("Organization/name", 61),
    ):
        yield Case(f"{path} of {length}", edited(longest.xml, put(path, "x" * length)))
    yield Case("text of 70", plain(edition, text="ä" * 70).xml)
    yield Case("text of 71", plain(edition, text="ä" * 71).xml)
    yield Case("7 diagnoses", plain(edition, icds=7).xml)
    yield Case("patient's name twice", edited(rich.xml, _twice("Patient/name")))
    yield Case("second patient", edited(rich.xml, _second_entry("Patient")))
    yield Case("second composition", edited(rich.xml, _second_entry("Composition")))
    yield Case("foreign resource", edited(rich.xml, _foreign_entry))
    for path in ("Composition/meta", "Patient/meta", "Condition/meta"):
        yield Case(
            f"second, core profile: {path}",
            edited(
                rich.xml, _second_profile(path, "http://hl7.org/fhir/StructureDefinition/" + path.partition("/")[0])
            ),
        )
        yield Case(
            f"second, unknown profile: {path}", edited(rich.xml, _second_profile(path, "https://example.org/unknown"))
        )


def _without_value(path: str) -> Edit:
    def edit(root: ET.Element) -> None:
        del find(root, path).attrib["value"]

    return edit


def _document_id(value: str) -> Edit:
    return lambda root: next(child for child in root if local(child) == "identifier")[1].set("value", value)


def _narrative(root: ET.Element) -> None:
    div = ET.Element("{http://www.w3.org/1999/xhtml}div")
    div.text = "Arbeitsunfähigkeit"
    find(root, "Composition").insert(2, node("text", None, node("status", "generated"), div))


def _last_updated(root: ET.Element) -> None:
    find(root, "meta").insert(0, node("lastUpdated", "2026-02-04T09:30:00+01:00"))


def _own_attester(root: ET.Element) -> None:
    author = find(root, "Composition/author/reference").get("value") or ""
    find(root, "attester/party/reference").set("value", author)


def _coverage_code(ending: str, code: str) -> Edit:
    def edit(root: ET.Element) -> None:
        for extension in find(root, "Coverage").findall(tag("extension")):
            if (extension.get("url") or "").endswith(ending):
                find(extension, "valueCoding/code").set("value", code)

    return edit


def _twice(path: str) -> Edit:
    def edit(root: ET.Element) -> None:
        it = find(root, path)
        parent = parents(root)[it]
        parent.insert(list(parent).index(it), copy.deepcopy(it))

    return edit


def _second_entry(kind: str) -> Edit:
    def edit(root: ET.Element) -> None:
        for entry in root.findall(tag("entry")):
            if entry.find(f"{tag('resource')}/{tag(kind)}") is not None:
                again = copy.deepcopy(entry)
                find(again, "fullUrl").set("value", f"http://pvs.example/fhir/{kind}/second")
                find(again, f"{kind}/id").set("value", "second")
                root.append(again)
                return

    return edit


def _foreign_entry(root: ET.Element) -> None:
    basic = node("Basic", None, node("id", "b"), node("code", None, node("text", "x")))
    root.append(node("entry", None, node("fullUrl", "http://pvs.example/fhir/Basic/b"), node("resource", None, basic)))


def _second_profile(path: str, url: str) -> Edit:
    return lambda root: find(root, path).append(node("profile", url))


__all__ = ["at", "semantic"]
