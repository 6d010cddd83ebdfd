"""Slicing, extensions, profiles of resources, references (FHIR R4 § 5.1, § 2.3, § 2.4)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fhir.samples import (
    BASE,
    CORE,
    NS,
    constraint,
    element,
    judge,
    patient_rules,
    profile,
    required,
    value_set,
)

from schleuse.fhir import Definitions, RuleSet, compile_rules, parse
from schleuse.fhir.check import Check


def slicing(rules: str, *discriminators: tuple[str, str]) -> dict[str, Any]:
    return {"rules": rules, "discriminator": [{"type": kind, "path": path} for kind, path in discriminators]}


def identifiers(rules: str, *more: dict[str, Any]) -> RuleSet:
    """Identifiers sliced by system: "a" required once, "b" at most once with a short value."""
    return patient_rules(
        element("Patient.identifier", "Identifier", "0..*", slicing=slicing(rules, ("value", "system"))),
        element("Patient.identifier.system", "uri"),
        element("Patient.identifier.value", "string"),
        element("Patient.identifier:a", "Identifier", "1..1"),
        element("Patient.identifier:a.system", "uri", "1..1", fixedUri="a"),
        element("Patient.identifier:a.value", "string", "1..1"),
        element("Patient.identifier:b", "Identifier", "0..1"),
        element("Patient.identifier:b.system", "uri", "1..1", patternUri="b"),
        element("Patient.identifier:b.value", "string", "1..1", maxLength=2),
        *more,
    )


def identifier(system: str, value: str | None = "1") -> str:
    inner = "" if value is None else f"<value value='{value}'/>"
    return f"<identifier><system value='{system}'/>{inner}</identifier>"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (identifier("a") + identifier("b"), []),
        (identifier("b") + identifier("a"), []),
        ("", [("cardinality.min", "Patient.identifier:a")]),
        (identifier("b"), [("cardinality.min", "Patient.identifier:a")]),
        (identifier("a") * 2, [("cardinality.max", "Patient.identifier:a")]),
        (identifier("a") + identifier("b") * 2, [("cardinality.max", "Patient.identifier:b")]),
        (identifier("a") + identifier("b", "123"), [("maxLength", "Patient.identifier[1].value")]),
        (identifier("a", None), [("cardinality.min", "Patient.identifier.value")]),
        (identifier("a") + identifier("c"), [("slice.closed", "Patient.identifier[1]")]),
    ],
)
def test_each_slice_has_its_own_number_and_rules(content: str, expected: list[tuple[str, str]]) -> None:
    assert judge(identifiers("closed"), content) == expected


def test_an_open_slicing_takes_others_and_checks_them_by_the_general_rules() -> None:
    rules = identifiers("open")
    assert judge(rules, identifier("a") + identifier("c", "long value")) == []
    other = "<identifier><foo value='1'/></identifier>"
    assert ("element.unknown", "Patient.identifier[1]") in judge(rules, identifier("a") + other)


def test_what_is_said_of_all_occurrences_counts_for_each_slice() -> None:
    """A snapshot may loosen a slice; the general definition still counts."""
    rules = patient_rules(
        element(
            "Patient.x[x]",
            "code string",
            slicing=slicing("closed", ("type", "$this")),
            binding=required("V"),
            constraint=[constraint("k-1", "$this != 'b'")],
        ),
        element("Patient.x[x]:xCode", "code", "1..1", binding={"strength": "example", "valueSet": "urn:any"}),
        others=[value_set("V", "s", "a", "b")],
    )
    assert judge(rules, "<xCode value='a'/>") == []
    assert judge(rules, "<xCode value='c'/>") == [("binding", "Patient.xCode")]
    assert judge(rules, "<xCode value='b'/>") == [("k-1", "Patient.xCode")]
    assert ("element.unknown", "Patient") in judge(rules, "<xString value='a'/>")


CONCEPT = "<coding><system value='s'/><code value='{}'/></coding>"


def concepts(part: dict[str, Any], kind: str = "value", path: str = "type") -> RuleSet:
    """Identifiers sliced by a concept at `type`; the slice holds `part`."""
    return patient_rules(
        element("Patient.identifier", "Identifier", "0..*", slicing=slicing("closed", (kind, path))),
        element("Patient.identifier:s", "Identifier", "0..1"),
        element("Patient.identifier:s.type", "CodeableConcept", "1..1", **part),
        element("Patient.identifier:s.type.coding", "Coding", "1..*"),
        element("Patient.identifier:s.type.coding.system", "uri"),
        element("Patient.identifier:s.type.coding.code", "code"),
        others=[value_set("V", "s", "a")],
    )


@pytest.mark.parametrize(
    "rules",
    [
        concepts({"patternCodeableConcept": {"coding": [{"system": "s", "code": "a"}]}}),
        concepts({"patternCodeableConcept": {"coding": [{"code": "a"}]}}, kind="pattern"),
        concepts({"binding": required("V")}),
    ],
    ids=["one coding", "another pattern", "binding"],
)
def test_a_slice_may_be_told_by_a_concept(rules: RuleSet) -> None:
    assert rules.gaps == ()
    assert judge(rules, f"<identifier><type>{CONCEPT.format('a')}</type></identifier>") == []
    found = judge(rules, f"<identifier><type>{CONCEPT.format('b')}</type></identifier>")
    assert found == [("slice.closed", "Patient.identifier")]


def test_a_slice_may_be_told_by_values_below_a_path() -> None:
    rules = patient_rules(
        element("Patient.section", "BackboneElement", "0..*", slicing=slicing("closed", ("value", "code.coding.code"))),
        element("Patient.section:a", "BackboneElement", "0..1"),
        element("Patient.section:a.code", "CodeableConcept", "1..1"),
        element("Patient.section:a.code.coding", "Coding", "1..1"),
        element("Patient.section:a.code.coding.code", "code", "1..1", fixedCode="A"),
    )
    section = "<section><code><coding><code value='{}'/></coding></code></section>"
    assert judge(rules, section.format("A")) == []
    assert judge(rules, section.format("B")) == [("slice.closed", "Patient.section")]


def test_a_slice_may_be_told_by_what_exists() -> None:
    rules = patient_rules(
        element("Patient.name", "HumanName", "0..*", slicing=slicing("closed", ("exists", "text"))),
        element("Patient.name:plain", "HumanName", "0..1"),
        element("Patient.name:plain.text", "string", "1..1"),
        element("Patient.name:parts", "HumanName", "0..1"),
        element("Patient.name:parts.text", "string", "0..0"),
        element("Patient.name:parts.family", "string", "1..1"),
    )
    assert judge(rules, "<name><text value='a'/></name><name><family value='b'/></name>") == []
    assert judge(rules, "<name><text value='a'/></name>" * 2) == [("cardinality.max", "Patient.name:plain")]


def test_a_slice_may_be_told_by_a_profile_of_its_type() -> None:
    known = profile(
        "KnownId",
        "Identifier",
        element("Identifier.system", "uri", "1..1", fixedUri="a"),
        element("Identifier.value", "string", "1..1"),
        kind="complex-type",
    )
    rules = patient_rules(
        element("Patient.identifier", "Identifier", "0..*", slicing=slicing("closed", ("value", "system"))),
        element("Patient.identifier:known", count="0..1", type=[{"code": "Identifier", "profile": [known["url"]]}]),
        others=[known],
    )
    assert judge(rules, identifier("a")) == []
    assert judge(rules, identifier("b")) == [("slice.closed", "Patient.identifier")]


def test_a_discriminator_that_says_nothing_is_a_gap_and_rejects_nothing() -> None:
    rules = patient_rules(
        element("Patient.identifier", "Identifier", "0..*", slicing=slicing("closed", ("value", "use"))),
        element("Patient.identifier:a", "Identifier", "1..1"),
    )
    assert [(gap.kind, gap.name) for gap in rules.gaps if gap.kind == "discriminator"] == [("discriminator", "a")]
    assert judge(rules, identifier("z")) == []


# --- Extensions ---


def extension_profile(name: str, *elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return profile(name, "Extension", *elements, kind="complex-type", **more)


KIND = extension_profile(
    "Kind",
    element("Extension.extension", "Extension", "0..0"),
    element("Extension.url", "uri", "1..1", fixedUri=BASE + "Kind"),
    element("Extension.value[x]", "code", "1..1", binding=required("V")),
    context=[{"type": "element", "expression": "Patient.name"}],
)
MODIFIER = extension_profile(
    "Not",
    element("Extension", count="0..*", isModifier=True),
    element("Extension.value[x]", "boolean", "1..1"),
    context=[{"type": "element", "expression": "Element"}],
)
PARTS = extension_profile(
    "Parts",
    element("Extension.extension", "Extension", "1..*", slicing=slicing("closed", ("value", "url"))),
    element("Extension.extension:one", "Extension", "1..1"),
    element("Extension.extension:one.url", "uri", "1..1", fixedUri="one"),
    element("Extension.extension:one.value[x]", "string", "1..1"),
)


def extended(**more: Any) -> RuleSet:
    return patient_rules(
        element("Patient.extension", "Extension", "0..*", **more),
        element("Patient.modifierExtension", "Extension", "0..*"),
        element("Patient.name", "HumanName"),
        element("Patient.name.extension", "Extension", "0..*"),
        element("Patient.name.family", "string"),
        element("Patient.active", "boolean"),
        others=[KIND, MODIFIER, PARTS, value_set("V", "s", "a")],
    )


def extension(name: str, value: str, tag: str = "extension") -> str:
    return f"<{tag} url='{BASE}{name}'>{value}</{tag}>"


CODE_A = "<valueCode value='a'/>"
CODE_Z = "<valueCode value='z'/>"
TRUE = "<valueBoolean value='true'/>"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"<name>{extension('Kind', CODE_A)}</name>", []),
        (
            f"<name>{extension('Kind', CODE_Z)}</name>",
            [("binding", "Patient.name.extension.valueCode")],
        ),
        (f"<name>{extension('Unknown', CODE_A)}</name>", [("extension.unknown", "Patient.name.extension")]),
        (f"<name><extension>{CODE_A}</extension></name>", [("extension.unknown", "Patient.name.extension")]),
        (extension("Kind", CODE_A), [("extension.context", "Patient.extension")]),
        (
            f"<active value='true'>{extension('Not', TRUE)}</active>",
            [("extension.modifier", "Patient.active.extension")],
        ),
        (extension("Not", TRUE, "modifierExtension"), []),
        (extension("Parts", "<extension url='one'><valueString value='x'/></extension>"), []),
        (
            extension("Parts", "<extension url='two'><valueString value='x'/></extension>"),
            [("slice.closed", "Patient.extension.extension"), ("cardinality.min", "Patient.extension.extension:one")],
        ),
    ],
)
def test_an_extension_must_be_defined_and_in_its_place(content: str, expected: list[tuple[str, str]]) -> None:
    assert sorted(judge(extended(), content)) == sorted(expected)


def test_an_extension_has_a_value_or_extensions() -> None:
    both = "<extension url='one'><valueString value='x'/></extension><valueString value='x'/>"
    for content in (extension("Parts", both), extension("Parts", "")):
        keys = {key for key, _ in judge(extended(), content)}
        assert keys & {"ext-1", "element.empty", "element.unknown"}


def test_a_closed_slicing_of_extensions_takes_only_those_that_it_lists() -> None:
    rules = patient_rules(
        element("Patient.extension", "Extension", "0..*", slicing=slicing("closed", ("value", "url"))),
        element("Patient.extension:parts", count="0..1", type=[{"code": "Extension", "profile": [PARTS["url"]]}]),
        others=[KIND, PARTS, value_set("V", "s", "a")],
    )
    assert judge(rules, extension("Parts", "<extension url='one'><valueString value='x'/></extension>")) == []
    assert judge(rules, extension("Kind", CODE_A)) == [("slice.closed", "Patient.extension")]


def test_a_primitive_may_need_an_extension_instead_of_a_value() -> None:
    rules = patient_rules(
        element("Patient.birthDate", "date", "1..1"),
        element("Patient.birthDate.id", "string"),
        element("Patient.birthDate.extension", "Extension", "1..1", slicing=slicing("closed", ("value", "url"))),
        element(
            "Patient.birthDate.extension:kind", count="0..1", type=[{"code": "Extension", "profile": [KIND["url"]]}]
        ),
        others=[KIND, value_set("V", "s", "a")],
    )
    assert judge(rules, f"<birthDate>{extension('Kind', CODE_A)}</birthDate>") == []
    assert judge(rules, "<birthDate value='1980'/>") == [("cardinality.min", "Patient.birthDate.extension")]


# --- Resources within resources ---


def of(type_name: str, name: str) -> dict[str, Any]:
    return {"code": type_name, "profile": [BASE + name]}


def bundle_rules(rules: str = "closed") -> RuleSet:
    """A document with one Patient P and any number of Lists L that refer to the Patient."""
    meta = [element("{}.id", "id"), element("{}.meta", "Meta"), element("{}.meta.profile", "canonical", "0..*")]

    def with_meta(type_name: str) -> list[dict[str, Any]]:
        return [{**one, "id": one["id"].format(type_name), "path": one["path"].format(type_name)} for one in meta]

    subject = {"code": "Reference", "targetProfile": [BASE + "P|1.2"]}
    source = {"code": "Reference", "targetProfile": [CORE + "Practitioner", CORE + "Patient"]}
    return compile_rules(
        Definitions(
            [
                profile(
                    "B",
                    "Bundle",
                    *with_meta("Bundle"),
                    element("Bundle.type", "code", "1..1"),
                    element("Bundle.entry", "BackboneElement", "0..*", slicing=slicing(rules, ("profile", "resource"))),
                    element("Bundle.entry.fullUrl", "uri"),
                    element("Bundle.entry.resource", "Resource"),
                    element("Bundle.entry:patient", "BackboneElement", "1..1"),
                    element("Bundle.entry:patient.fullUrl", "uri", "1..1"),
                    element("Bundle.entry:patient.resource", count="1..1", type=[of("Patient", "P|1.2")]),
                    element("Bundle.entry:list", "BackboneElement", "0..*"),
                    element("Bundle.entry:list.fullUrl", "uri", "1..1"),
                    element("Bundle.entry:list.resource", count="1..1", type=[of("List", "L")]),
                ),
                profile("P", "Patient", *with_meta("Patient"), element("Patient.active", "boolean", "1..1")),
                profile("Q", "Patient", *with_meta("Patient"), element("Patient.active", "boolean", "0..0")),
                profile(
                    "L",
                    "List",
                    *with_meta("List"),
                    element("List.subject", type=[subject]),
                    element("List.subject.reference", "string"),
                    element("List.subject.type", "uri"),
                    element("List.source", type=[source]),
                    element("List.source.reference", "string"),
                ),
            ]
        ),
        [BASE + "B", BASE + "P"],
    )  # fmt: skip


def claim(*names: str) -> str:
    return "<meta>" + "".join(f"<profile value='{BASE}{name}'/>" for name in names) + "</meta>"


def entry(url: str, resource: str) -> str:
    return f"<entry><fullUrl value='http://x.example/{url}'/><resource>{resource}</resource></entry>"


def bundle(*entries: str, type_code: str = "document") -> bytes:
    return f"<Bundle {NS}>{claim('B')}<type value='{type_code}'/>{''.join(entries)}</Bundle>".encode()


PERSON = entry("Patient/1", f"<Patient>{claim('P')}<active value='true'/></Patient>")


def list_of(content: str, url: str = "List/1") -> str:
    return entry(url, f"<List>{claim('L')}{content}</List>")


def found(rules: RuleSet, xml: bytes) -> list[tuple[str, str]]:
    return [(finding.key, finding.path) for finding in rules.check_xml(xml)]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([PERSON], []),
        ([], [("cardinality.min", "Bundle.entry:patient")]),
        (
            [entry("Patient/1", f"<Patient>{claim('P')}</Patient>")],
            [("cardinality.min", "Bundle.entry.resource.active")],
        ),
        ([PERSON, entry("Basic/1", f"<Basic>{claim('X')}</Basic>")], [("slice.closed", "Bundle.entry[1]")]),
        (
            [entry("Patient/1", f"<Patient>{claim('P', 'Z')}<active value='true'/></Patient>")],
            [("profile.unknown", "Bundle.entry.resource.meta.profile[1]")],
        ),
        (
            [entry("Patient/1", f"<Patient>{claim('P|2.0')}<active value='true'/></Patient>")],
            [("profile.unknown", "Bundle.entry.resource.meta.profile")],
        ),
        ([entry("Patient/1", f"<Patient>{claim('P|1.2')}<active value='true'/></Patient>")], []),
    ],
)
def test_entries_are_told_by_the_profile_that_they_claim(entries: list[str], expected: list[tuple[str, str]]) -> None:
    assert found(bundle_rules(), bundle(*entries)) == expected


def test_a_resource_meets_every_profile_that_it_claims() -> None:
    meta = (element("Patient.meta", "Meta"), element("Patient.meta.profile", "canonical", "0..*"))
    entries = (element("Bundle.entry", "BackboneElement", "0..*"), element("Bundle.entry.resource", "Resource"))
    definitions = Definitions(
        [
            profile("B", "Bundle", *entries),
            profile("P", "Patient", *meta, element("Patient.active", "boolean", "1..1")),
            profile("Q", "Patient", *meta, element("Patient.active", "boolean", "0..0")),
        ]
    )
    rules = compile_rules(definitions, [BASE + "B", BASE + "P", BASE + "Q"])
    xml = "<Bundle {}><entry><resource><Patient>{}<active value='true'/></Patient></resource></entry></Bundle>"
    for names, keys in ((("P",), []), (("P", "Q"), ["cardinality.max"]), ((), ["profile.missing"])):
        result = rules.check_xml(xml.format(NS, claim(*names)).encode(), profile=BASE + "B")
        assert [finding.key for finding in result if finding.key != "element.empty"] == keys


@pytest.mark.parametrize("reference", ["Patient/1", "http://x.example/Patient/1"])
def test_a_reference_to_what_is_wanted_is_right(reference: str) -> None:
    subject = f"<subject><reference value='{reference}'/><type value='Patient'/></subject>"
    assert found(bundle_rules(), bundle(PERSON, list_of(subject))) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<subject><reference value='List/1'/></subject>", "reference.target"),
        ("<subject><reference value='Patient/1'/><type value='Device'/></subject>", "reference.type"),
        (
            "<subject><reference value='urn:uuid:7000506f-8da4-5c6f-b1c1-36e8950f94d9'/></subject>",
            "reference.unresolved",
        ),
        ("<subject><reference value='#nothing'/></subject>", "reference.unresolved"),
        ("<subject><reference value='http://other.example/Device/7'/></subject>", "reference.target"),
    ],
)
def test_a_reference_to_something_else_is_found(content: str, expected: str) -> None:
    assert found(bundle_rules(), bundle(PERSON, list_of(content))) == [(expected, "Bundle.entry[1].resource.subject")]


@pytest.mark.parametrize(
    "content",
    [
        "<subject><reference value='http://other.example/Patient/7'/></subject>",
        "<source><reference value='Patient/1'/></source>",
        "<subject><type value='Patient'/></subject>",
    ],
)
def test_a_reference_that_nobody_can_follow_from_here_is_let_pass(content: str) -> None:
    assert found(bundle_rules(), bundle(PERSON, list_of(content))) == []


def test_the_target_is_judged_by_the_wanted_profile_if_it_was_not_before() -> None:
    """A resource of the right type that is checked nowhere else must fit the target profile."""
    rules = bundle_rules("open")
    subject = "<subject><reference value='Patient/2'/></subject>"
    fits = entry("Patient/2", f"<Patient>{claim('Q')}</Patient>")
    assert ("reference.target", "Bundle.entry[2].resource.subject") in found(
        rules, bundle(PERSON, fits, list_of(subject))
    )


def test_many_references_to_one_large_resource_cost_one_check_of_it() -> None:
    """Each reference would check its target again; counted by the calls, not by time."""
    rules = bundle_rules("open")
    calls = 0
    table = rules._tables.profiles[BASE + "P"]

    def counting(node: Any, check: Any, resource: Any) -> None:
        nonlocal calls
        calls += 1
        table.function(node, check, resource)

    subject = "<subject><reference value='Patient/2'/></subject>"
    lists = [list_of(subject, f"List/{number}") for number in range(50)]
    fits = entry("Patient/2", f"<Patient>{claim('Q')}</Patient>")
    root = parse(bundle(PERSON, fits, *lists))
    check = Check(root, rules._tables, warn=False)
    target = root.all("entry", "resource")[1]
    for _ in range(50):
        assert not check._is_right(target, counting)
    assert calls == 1
    assert len(found(rules, bundle(PERSON, fits, *lists))) == 51  # each reference, and the unknown claim once


def test_an_element_may_fit_one_of_several_profiles() -> None:
    short, long = (
        profile(
            name,
            "Identifier",
            element("Identifier.system", "uri", "1..1", fixedUri=name),
            element("Identifier.value", "string", "1..1", maxLength=length),
            kind="complex-type",
        )
        for name, length in (("Short", 2), ("Long", 9))
    )
    types = [{"code": "Identifier", "profile": [short["url"], long["url"]]}]
    rules = patient_rules(element("Patient.identifier", type=types), others=[short, long])
    assert judge(rules, identifier("Short", "12")) == judge(rules, identifier("Long", "123")) == []
    assert judge(rules, identifier("Short", "123")) == [("maxLength", "Patient.identifier.value")]
    assert [key for key, _ in judge(rules, identifier("Other", "1"))] == ["fixed"]
