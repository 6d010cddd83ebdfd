"""Our own rules: every valid document passes, every rule can break, and the editions differ where they should."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from tests.eau.corpus import Case, edited, generator, put, remove, rich, valid, version
from tests.eau.corpus_rules import line, plain, semantic, with_lines

from schleuse.eau.rules import EDITIONS, ROOTS, Edition, definitions, invariant_text
from schleuse.eau.rules.profiles import resources, tables
from schleuse.eau.rules.texts import invariants
from schleuse.fhir import Finding, RuleSet, Severity, compile_rules, parse
from schleuse.fhir.finding import Language

NEWEST = EDITIONS[-1]
LANGUAGES: tuple[Language, ...] = ("de", "en")
BY_NAME = {f"{edition.name} DMP {edition.dmp}": edition for edition in EDITIONS}
every_edition = pytest.mark.parametrize("edition", BY_NAME.values(), ids=BY_NAME.keys())


@cache
def rules(edition: Edition) -> RuleSet:
    return compile_rules(definitions(edition), ROOTS)


@cache
def mutants(edition: Edition) -> tuple[Case, ...]:
    return tuple(semantic(edition))


def findings(edition: Edition, xml: bytes) -> list[Finding]:
    return rules(edition).check(parse(xml))


def errors(edition: Edition, xml: bytes) -> list[tuple[str, str]]:
    return [(one.key, one.path) for one in findings(edition, xml) if one.severity is Severity.ERROR]


@every_edition
def test_every_valid_document_passes(edition: Edition) -> None:
    rejected = {case.label: errors(edition, case.xml) for case in valid(edition, random_ones=10)}
    assert {label: found for label, found in rejected.items() if found} == {}


@every_edition
def test_every_rule_key_is_triggered_by_a_mutant(edition: Edition) -> None:
    triggered = {one.key for case in mutants(edition) for one in findings(edition, case.xml)}
    assert {each.key for each in invariants(tables(edition))} - triggered == set()


@every_edition
def test_each_rule_is_broken_by_the_mutant_made_for_it(edition: Edition) -> None:
    own = {each.key for each in invariants(tables(edition))}
    broken: dict[str, bool] = {}
    for case in mutants(edition):
        if case.breaks in own:
            found = any(one.key == case.breaks for one in findings(edition, case.xml))
            broken[case.breaks] = broken.get(case.breaks, False) or found
    assert [key for key, found in broken.items() if not found] == []


@every_edition
def test_nothing_that_the_tables_ask_for_is_left_unchecked(edition: Edition) -> None:
    assert [gap for gap in rules(edition).gaps if gap.name != "xhtml"] == []


@every_edition
def test_every_rule_has_a_text_in_both_languages(edition: Edition) -> None:
    for each in invariants(tables(edition)):
        assert invariant_text(each.key, "de")
        assert invariant_text(each.key, "en") != invariant_text(each.key, "de")


def test_a_key_that_is_no_rule_of_ours_has_no_text() -> None:
    assert invariant_text("cardinality.min") is None


def elements(edition: Edition, name: str) -> Iterator[str]:
    for resource in resources(edition):
        if resource["url"].endswith(f"/{name}") and resource["resourceType"] == "StructureDefinition":
            yield from (element["id"] for element in resource["snapshot"]["element"])


def test_what_a_table_does_not_list_does_not_exist() -> None:
    known = set(elements(NEWEST, "KBV_PR_EAU_Composition"))
    assert "Composition.title" in known
    assert "Composition.encounter" not in known


def test_meta_and_text_stand_before_extension_as_in_the_xml() -> None:
    order = list(elements(NEWEST, "KBV_PR_EAU_Composition"))
    assert order.index("Composition.text") < order.index("Composition.extension") < order.index("Composition.status")


def test_a_slice_is_named_after_a_colon() -> None:
    assert "Organization.identifier:bsnr.value" in set(elements(NEWEST, "KBV_PR_FOR_Organization"))


@every_edition
def test_every_profile_of_an_edition_has_a_canonical_of_its_own(edition: Edition) -> None:
    urls = [profile.url for profile in tables(edition)]
    assert len(urls) == len(set(urls))
    assert set(ROOTS) <= set(urls)


def with_dmp(edition: Edition, code: str) -> bytes:
    return edited(rich(edition).xml, put("Coverage/extension/valueCoding/code", code, 1))


@pytest.mark.parametrize(
    ("dmp", "code", "ok"),
    [
        ("1.05", "11", True),
        ("1.05", "12", False),
        ("1.06", "12", True),
        ("1.06", "58", True),
        ("1.06", "59", False),
        ("1.06", "13", False),
    ],
)
def test_the_dmp_list_grew_with_its_version(dmp: str, code: str, ok: bool) -> None:
    edition = next(one for one in EDITIONS if one.old and one.dmp == dmp)
    assert (errors(edition, with_dmp(edition, code)) == []) is ok


def named(name: str) -> Edition:
    return next(one for one in EDITIONS if one.name == name and one.dmp == "1.06")


def test_only_1_2_0_ties_the_kzv_number_to_dentists() -> None:
    for name, key in (("1.1.0", None), ("1.2.0", "-eau-angabeKZV-AbrechnungsnummerVerbot"), ("1.2.1", None)):
        found = errors(named(name), plain(named(name), issuer="arzt", place="zahnarztpraxis").xml)
        assert found == ([(key, "Bundle")] if key else [])


def test_1_2_0_takes_a_house_number_for_a_pattern_and_1_2_1_reads_it_literally() -> None:
    number = with_lines("Patient", line("Weg 12+14", streetName="Weg", houseNumber="12+14"))
    for name, ok in (("1.1.0", True), ("1.2.0", False), ("1.2.1", True)):
        assert (errors(named(name), edited(plain(named(name)).xml, number)) == []) is ok


@pytest.mark.parametrize(("name", "severity"), [("1.2.0", Severity.WARNING), ("1.2.1", Severity.ERROR)])
def test_a_bsnr_of_eight_digits_is_an_error_only_from_1_2_1_on(name: str, severity: Severity) -> None:
    xml = edited(plain(named(name)).xml, put("Organization/identifier/value", "12345678"))
    assert [(one.key, one.severity) for one in findings(named(name), xml)] == [("-for-laengeBSNR", severity)]


def test_where_the_reference_validator_only_warns_so_do_we() -> None:
    xml = edited(plain(NEWEST).xml, put("Practitioner/identifier/value", "123"))
    assert [(one.key, one.severity) for one in findings(NEWEST, xml)] == [("-for-laengeLANR", Severity.WARNING)]


def test_the_birth_date_is_compared_only_from_1_2_on() -> None:
    for name, ok in (("1.1.0", True), ("1.2.0", False), ("1.2.1", False)):
        xml = edited(plain(named(name)).xml, put("Patient/birthDate", "2031-05-05"))
        assert (errors(named(name), xml) == []) is ok


def test_a_missing_address_is_found_in_every_edition() -> None:
    for edition in EDITIONS:
        assert errors(edition, edited(plain(edition).xml, remove("Patient/address")))


def test_a_storno_with_a_patient_is_refused() -> None:
    document = rich(NEWEST)
    storno = generator(NEWEST).storno(document).xml
    start = document.xml.index(b"<Patient>")
    person = document.xml[start : document.xml.index(b"</Patient>") + len(b"</Patient>")]
    entry = b"<entry><fullUrl value='http://x.example/Patient/1'/><resource>" + person + b"</resource></entry></Bundle>"
    assert errors(NEWEST, storno.replace(b"</Bundle>", entry))


def test_findings_show_no_names_and_no_numbers() -> None:
    document = generator(NEWEST).eau(version(NEWEST), payor="GKV", kvnr=True)
    broken = edited(document.xml, put("Patient/identifier/value", document.patient.kvnr + "1"))
    said = " ".join(one.message(language) for one in findings(NEWEST, broken) for language in LANGUAGES)
    assert document.patient.kvnr not in said
    assert document.patient.name.family not in said
