"""The official eAU packages: everything in them compiles, valid documents pass, broken ones do not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.fhir.official import KBV, ROOTS

from schleuse.fhir import Definitions, RuleSet, Severity, compile_rules, packages
from schleuse.practice.documents import Generator

CORE = "http://hl7.org/fhir/StructureDefinition/"
ISSUED = datetime(2026, 2, 10, 9, 0, tzinfo=UTC)


def eau(seed: int = 1, **choices: Any) -> bytes:
    return Generator(Random(seed), ISSUED).eau("1.2", **choices).xml


def errors(rules: RuleSet, xml: bytes) -> list[tuple[str, str]]:
    return [(one.key, one.path) for one in rules.check_xml(xml) if one.severity is Severity.ERROR]


def reachable(definitions: Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every (element id, constraint) that a document of the roots can meet: not below an element that is prohibited.

    Written without the compiler, so that what the compiler overlooks is noticed.
    """
    queue, seen = list(ROOTS), set()
    while queue:
        structure = definitions.structure(queue.pop())
        if structure is None or structure["url"] in seen or structure["kind"] == "primitive-type":
            continue
        if structure["url"] == CORE + "Extension":  # no document can use an extension that is not defined
            continue
        seen.add(structure["url"])
        prohibited: list[str] = []
        for element in structure["snapshot"]["element"]:
            if any(element["id"].startswith((f"{path}.", f"{path}:")) for path in prohibited):
                continue
            if element.get("max") == "0":
                prohibited.append(element["id"])
                continue
            for constraint in element.get("constraint", ()):
                yield element["id"], constraint
            for entry in element.get("type", ()):
                queue += entry.get("profile", ()) or [CORE + entry["code"]]


def is_advice(constraint: dict[str, Any]) -> bool:
    return any(extension["url"].endswith("-bestpractice") for extension in constraint.get("extension", ()))


def test_every_reachable_invariant_is_compiled(definitions: Definitions, rules: RuleSet) -> None:
    """None is skipped in silence; ele-1 and ext-1 are checked by the shape of elements, dom-6 is advice."""
    wanted: dict[str, set[str]] = {}
    for _, constraint in reachable(definitions):
        if constraint["key"] not in ("ele-1", "ext-1") and not is_advice(constraint):
            wanted.setdefault(constraint["expression"], set()).add(constraint["key"])
    compiled = {expression for _, expression in rules.invariants}
    assert len(wanted) > 100
    assert wanted.keys() - compiled == set()


def test_gaps_are_named_and_none_is_in_what_an_eau_holds(rules: RuleSet) -> None:
    """What remains is Organization.type, which the eAU prohibits and only a profile of the base package has."""
    assert {gap.where.split(":")[0] for gap in rules.gaps} <= {"Organization.type.coding"}
    assert {gap.kind for gap in (*rules.gaps, *rules.extension_gaps)} <= {"value-set", "discriminator", "range"}


@pytest.mark.parametrize("seed", range(25))
def test_valid_documents_have_no_error(rules: RuleSet, seed: int) -> None:
    generator = Generator(Random(seed), ISSUED)
    document = generator.eau("1.2")
    assert errors(rules, document.xml) == []
    assert errors(rules, generator.storno(document).xml) == []


def replaced(xml: bytes, old: str, new: str) -> bytes:
    assert old.encode() in xml, old
    return xml.replace(old.encode(), new.encode(), 1)


PLAIN: dict[str, Any] = {
    "kind": "ERST", "payor": "GKV", "issuer": "arzt", "place": "praxis", "lines": "whole", "number": True, "kvnr": True,
    "legal_basis": "00", "causes": ("1",), "responsible": False, "icds": 1, "birth": "day",
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "key", "ending"),
    [
        ('value="ERST"', 'value="FOLGE"', "-eau-angabeAUseitFolgebescheinigung", "Bundle"),
        ('value="ERST"', 'value="DRITT"', "binding", "type.coding[0]"),
        ('value="e010"', 'value="e011"', "fixed", "type.coding[1].code"),
        ('value="final"', 'value="preliminary"', "fixed", "status"),
        ('value="GKV"', 'value="PKX"', "binding", "type"),
        ('value="Arbeitsunfähigkeit"', 'value="Krank"', "fixed", "title"),
        ('value="document"', 'value="collection"', "fixed", "Bundle.type"),
        ("KBV_PR_EAU_Composition|1.2", "KBV_PR_EAU_Composition|1.1.0", "-eau-versionComposition", "Bundle"),
        ("KBV_EX_FOR_Legal_basis", "KBV_EX_FOR_Other", "slice.closed", "extension"),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "http://fhir.de/CodeSystem/x", "slice.closed", "coding"),
        ('<reference value="Patient/', '<reference value="Patient/x', "reference.unresolved", "subject"),
        ("<status", "text<status", "xml.text", "resource"),
    ],
)
def test_a_broken_document_is_found_by_the_rule_that_it_breaks(
    rules: RuleSet, old: str, new: str, key: str, ending: str
) -> None:
    assert errors(rules, eau(**PLAIN)) == []
    found = errors(rules, replaced(eau(**PLAIN), old, new))
    assert any(one == key and path.endswith(ending) for one, path in found), found


def test_a_wrong_number_is_an_error_only_where_no_equal_warning_comes_first(rules: RuleSet) -> None:
    """ik-1, bsnr-1, lanr-1 warn; gematik rewrote some of the later errors so that they come up (limits.md)."""
    practice = eau(**{**PLAIN, "place": "praxis"})
    bsnr = practice.split(b"KBV_NS_Base_BSNR")[1].split(b'value="')[1][:9].decode()
    assert [key for key, _ in errors(rules, practice.replace(bsnr.encode(), b"12345678X"))] == ["-for-laengeBSNR"]
    lanr = practice.split(b"KBV_NS_Base_ANR")[1].split(b'value="')[1][:9].decode()
    found = rules.check_xml(practice.replace(lanr.encode(), b"12345678X"))
    assert [(one.key, one.severity) for one in found if "lanr" in one.key.lower()] == [("lanr-1", Severity.WARNING)]


def test_findings_hold_no_value_of_the_patient(rules: RuleSet) -> None:
    document = Generator(Random(3), ISSUED).eau("1.2", **PLAIN)
    assert document.facts.kvnr is not None
    assert document.facts.family is not None
    broken = document.xml.replace(b'<system value="', b'<system value="x').replace(
        b'value="KVZ10"', b'value="A123456780"'
    )
    text = " ".join(one.message(language) for one in rules.check_xml(broken) for language in ("de", "en"))
    assert text
    for secret in (document.facts.kvnr, document.facts.family, document.facts.given, *document.facts.diagnoses):
        assert str(secret) not in text


def test_a_second_start_reads_compiled_rules_and_no_definition(
    installed: Path, definitions: Definitions, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    compile_rules(definitions, ROOTS, cache=cache)
    again = packages.load(installed, "kbv.ita.eau.1.2.1")
    loaded = compile_rules(again, ROOTS, cache=cache)
    assert errors(loaded, eau(**PLAIN)) == []
    assert "_by_kind" not in vars(again)


@pytest.mark.parametrize(
    ("profile", "issued", "expected"),
    [
        (KBV + "KBV_PR_EAU_Bundle|1.2", date(2026, 1, 26), "kbv.ita.eau.1.2.0"),
        (KBV + "KBV_PR_EAU_Bundle|1.2", date(2026, 1, 27), "kbv.ita.eau.1.2.1"),
        (KBV + "KBV_PR_EAU_Bundle|1.2", date(2099, 1, 1), "kbv.ita.eau.1.2.1"),
        (KBV + "KBV_PR_EAU_Bundle|1.2", date(2025, 9, 30), None),
        (KBV + "KBV_PR_EAU_Bundle|1.1.0", date(2024, 9, 30), "kbv.ita.eau.1.1.0"),
        (KBV + "KBV_PR_EAU_Bundle|1.1.0", date(2026, 6, 30), "kbv.ita.eau.1.1.0-from-10-2024"),
        (KBV + "KBV_PR_EAU_Bundle|1.1.0", date(2026, 7, 1), None),
        (KBV + "KBV_PR_EAU_Bundle", date(2026, 2, 1), None),
        (KBV + "KBV_PR_EAU_Storno_Bundle|1.2", date(2026, 2, 1), "kbv.ita.eau.1.2.1"),
    ],
)
def test_the_date_of_issue_decides_the_list(installed: Path, profile: str, issued: date, expected: str | None) -> None:
    found = packages.read_registry(installed).for_document(profile, issued)
    assert (None if found is None else found.name) == expected


def test_the_reference_configuration_leaves_icd_codes_unchecked(installed: Path) -> None:
    ignored = packages.read_registry(installed).ignored_code_systems
    assert "http://fhir.de/CodeSystem/bfarm/icd-10-gm" in ignored
