"""What compiled profiles find: cardinality, order, types, values (FHIR R4 § 5.3, § 2.24)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fhir.samples import (
    BASE,
    CORE,
    NS,
    code_system,
    constraint,
    element,
    judge,
    only,
    patient,
    patient_rules,
    profile,
    required,
    value_set,
)

from schleuse.fhir import Definitions, compile_rules
from schleuse.fhir.rules import BadDefinitionsError

NAME = (
    element("Patient.name", "HumanName", "1..2"),
    element("Patient.name.family", "string", "1..1", maxLength=5),
    element("Patient.name.given", "string", "0..*"),
)
FAMILY = "<name><family value='A'/></name>"


def test_a_document_that_keeps_all_rules_has_no_findings() -> None:
    assert judge(patient_rules(*NAME), FAMILY) == []


@pytest.mark.parametrize(
    ("content", "key", "path"),
    [
        ("", "cardinality.min", "Patient.name"),
        ("<name><given value='B'/></name>", "cardinality.min", "Patient.name.family"),
        (FAMILY * 3, "cardinality.max", "Patient.name"),
        ("<name><family value='A'/><family value='B'/></name>", "cardinality.max", "Patient.name.family"),
        ("<name><family value='ABCDEF'/></name>", "maxLength", "Patient.name.family"),
        ("<name><family value='A'/><suffix value='B'/></name>", "element.unknown", "Patient.name"),
        ("<name><given value='B'/><family value='A'/></name>", "element.order", "Patient.name"),
        ("<name><family/></name>", "element.empty", "Patient.name.family"),
        (f"<name/>{FAMILY}", "element.empty", "Patient.name[0]"),
        ("<name><family value='A'><x value='1'/></family></name>", "element.unknown", "Patient.name.family"),
        (f"{FAMILY}text", "xml.text", "Patient"),
        ("<name x='1'><family value='A'/></name>", "xml.attribute", "Patient.name"),
        ("<name><given value='A'/><family value='B'/><given value='C'/></name>", "xml.order", "Patient.name"),
    ],
)
def test_a_broken_rule_is_found_where_it_is_broken(content: str, key: str, path: str) -> None:
    assert (key, path) in judge(patient_rules(*NAME), content)


def test_the_same_shape_is_judged_again_after_it_was_right() -> None:
    """Right shapes are remembered; wrong ones never are."""
    rules = patient_rules(*NAME)
    for _ in range(2):
        assert judge(rules, FAMILY) == []
        assert judge(rules, "<name><given value='B'/></name>") == [("cardinality.min", "Patient.name.family")]


def test_an_element_with_maximum_zero_is_prohibited() -> None:
    rules = patient_rules(element("Patient.active", "boolean", "0..0"))
    assert judge(rules, "<active value='true'/>") == [("cardinality.max", "Patient.active")]


VALUES = [
    ("boolean", "true", "True"),
    ("integer", "-2147483648", "2147483648"),
    ("positiveInt", "1", "0"),
    ("unsignedInt", "0", "-1"),
    ("decimal", "-1.50", "1."),
    ("date", "1980-02-29", "1981-02-29"),
    ("date", "1980", "0000"),
    ("dateTime", "2026-01-27T10:00:00+01:00", "2026-01-27T10:00"),
    ("dateTime", "2026-01", "2026-1"),
    ("instant", "2026-01-27T10:00:00.123Z", "2026-01-27"),
    ("time", "10:00:00", "24:00:00"),
    ("id", "a-b.C1", "a_b"),
    ("code", "a b", "a  b"),
    ("code", "ab", " ab"),
    ("uri", "urn:x", "a b"),
    ("uri", "urn:uuid:7000506f-8da4-5c6f-b1c1-36e8950f94d9", "urn:uuid:7000506f"),
    ("uri", "urn:oid:1.2.3", "oid:1.2.3"),
    ("canonical", "http://x.example/a|1", "http://x.example/a |1"),
    ("oid", "urn:oid:1.2.3", "1.2.3"),
    ("uuid", "urn:uuid:7000506f-8da4-5c6f-b1c1-36e8950f94d9", "7000506f-8da4-5c6f-b1c1-36e8950f94d9"),
    ("base64Binary", "QUJD", "QUJ"),
    ("base64Binary", "QUI=", "=QUI"),
]


@pytest.mark.parametrize(("type_code", "right", "wrong"), VALUES)
def test_a_primitive_has_the_form_of_its_type(type_code: str, right: str, wrong: str) -> None:
    rules = patient_rules(element("Patient.x", type_code))
    assert judge(rules, f"<x value='{right}'/>") == []
    assert judge(rules, f"<x value='{wrong}'/>") == [("type.value", "Patient.x")]


def test_system_types_of_snapshots_are_primitives() -> None:
    rules = patient_rules(element("Patient.x", "http://hl7.org/fhirpath/System.Date"))
    assert judge(rules, "<x value='2026-13-01'/>") == [("type.value", "Patient.x")]


def test_the_id_of_a_resource_has_the_form_of_an_id() -> None:
    rules = patient_rules(element("Patient.id", "http://hl7.org/fhirpath/System.String", "1..1"))
    found = rules.check_xml(f"<Patient {NS}><id value='a b'/></Patient>".encode(), profile=BASE + "P")
    assert only(found).key == "type.value"


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "key"),
    [
        ({"fixedCode": "a"}, "a", "b", "fixed"),
        ({"patternString": "a"}, "a", "b", "pattern"),
        ({"fixedBoolean": True}, "true", "false", "fixed"),
        ({"minValueInteger": 1}, "1", "0", "minValue"),
        ({"maxValueInteger": 9}, "9", "10", "maxValue"),
    ],
)
def test_a_prescribed_value_is_prescribed(rule: dict[str, Any], right: str, wrong: str, key: str) -> None:
    type_code = {"fixedBoolean": "boolean", "minValueInteger": "integer", "maxValueInteger": "integer"}.get(
        next(iter(rule)), "string"
    )
    rules = patient_rules(element("Patient.x", type_code, **rule))
    assert judge(rules, f"<x value='{right}'/>") == []
    assert judge(rules, f"<x value='{wrong}'/>") == [(key, "Patient.x")]


CODING = (
    element("Patient.x", "Coding"),
    element("Patient.x.system", "uri"),
    element("Patient.x.code", "code"),
    element("Patient.x.display", "string"),
)


def coding(system: str, code: str, more: str = "") -> str:
    return f"<x><system value='{system}'/><code value='{code}'/>{more}</x>"


def test_a_pattern_asks_for_what_it_lists_and_a_fixed_value_for_no_more() -> None:
    value = {"system": "s", "code": "a"}
    pattern = patient_rules({**CODING[0], "patternCoding": value}, *CODING[1:])
    fixed = patient_rules({**CODING[0], "fixedCoding": value}, *CODING[1:])
    more = coding("s", "a", "<display value='A'/>")
    assert judge(pattern, coding("s", "a")) == judge(fixed, coding("s", "a")) == []
    assert judge(pattern, coding("s", "b")) == [("pattern", "Patient.x")]
    assert judge(pattern, more) == []
    assert judge(fixed, more) == [("fixed", "Patient.x")]


def test_a_required_binding_holds_for_code_coding_and_concept() -> None:
    codes = value_set("V", "s", "a", "b")
    code = patient_rules(element("Patient.x", "code", binding=required("V")), others=[codes])
    assert judge(code, "<x value='a'/>") == []
    assert judge(code, "<x value='c'/>") == [("binding", "Patient.x")]
    one = patient_rules({**CODING[0], "binding": required("V")}, *CODING[1:], others=[codes])
    assert judge(one, coding("s", "b")) == []
    assert judge(one, coding("t", "b")) == [("binding", "Patient.x")]
    assert judge(one, "<x><code value='b'/></x>") == [("binding", "Patient.x")]
    concept = patient_rules(
        element("Patient.y", "CodeableConcept", binding=required("V")),
        element("Patient.y.coding", "Coding", "0..*"),
        element("Patient.y.coding.system", "uri"),
        element("Patient.y.coding.code", "code"),
        element("Patient.y.text", "string"),
        others=[codes],
    )
    right = "<coding><system value='s'/><code value='a'/></coding>"
    wrong = "<coding><system value='s'/><code value='c'/></coding>"
    assert judge(concept, f"<y>{right}</y>") == judge(concept, f"<y>{right}{wrong}</y>") == []
    assert judge(concept, f"<y>{wrong}</y>") == [("binding", "Patient.y")]
    assert judge(concept, "<y><text value='free'/></y>") == [("binding", "Patient.y")]


def test_a_value_set_that_cannot_be_listed_is_a_gap_and_rejects_nothing() -> None:
    rules = patient_rules(element("Patient.x", "code", binding=required("Unknown")))
    assert judge(rules, "<x value='anything'/>") == []
    assert [(gap.kind, gap.where) for gap in rules.gaps] == [("value-set", "Patient.x")]


def test_a_code_must_be_one_of_a_system_that_is_known_completely() -> None:
    system = code_system("s", "a")
    rules = patient_rules(*CODING, others=[system])
    assert judge(rules, coding("s", "a")) == judge(rules, coding("t", "z")) == []
    assert judge(rules, coding("s", "z")) == [("code.unknown", "Patient.x")]
    fragment = patient_rules(*CODING, others=[code_system("s", "a", content="fragment")])
    assert judge(fragment, coding("s", "z")) == []
    ignored = Definitions([profile("P", "Patient", *CODING), system], ignored_code_systems=["s"])
    lenient = compile_rules(ignored, [BASE + "P"])
    assert lenient.check_xml(f"<Patient {NS}>{coding('s', 'z')}</Patient>".encode(), profile=BASE + "P") == []


def test_another_display_text_is_a_warning_only() -> None:
    rules = patient_rules(*CODING, others=[code_system("s", "a")])
    xml = patient(coding("s", "a", "<display value='Something else'/>"))
    found = only(rules.check_xml(xml))
    assert (found.severity, found.key) == ("warning", "code.display")
    assert rules.check_xml(xml, warnings=False) == []
    assert judge(rules, coding("s", "a", "<display value=' Display  of a'/>")) == []


def test_a_type_is_checked_by_its_own_definition() -> None:
    period = profile(
        "Period",
        "Period",
        element(
            "Period", count="0..*", constraint=[constraint("per-1", "start.empty() or end.empty() or start <= end")]
        ),
        element("Period.start", "dateTime"),
        element("Period.end", "dateTime"),
        kind="complex-type",
        url=CORE + "Period",
    )
    rules = patient_rules(element("Patient.x", "Period"), others=[period])
    assert judge(rules, "<x><start value='2026-01-01'/><end value='2026-01-02'/></x>") == []
    assert judge(rules, "<x><start value='2026-01-03'/><end value='2026-01-02'/></x>") == [("per-1", "Patient.x")]
    assert judge(rules, "<x><begin value='2026-01-03'/></x>") == [("element.unknown", "Patient.x")]
    # The invariant of the type also counts where a profile lists the type's children itself.
    listed = patient_rules(
        element("Patient.x", "Period"),
        element("Patient.x.start", "dateTime"),
        element("Patient.x.end", "dateTime", "1..1"),
        others=[period],
    )
    assert judge(listed, "<x><start value='2026-01-03'/><end value='2026-01-02'/></x>") == [("per-1", "Patient.x")]


def test_a_type_without_definition_and_children_is_a_gap() -> None:
    rules = patient_rules(element("Patient.x", "Period"))
    assert [(gap.kind, gap.name) for gap in rules.gaps] == [("type", "Period")]


def test_a_choice_element_occurs_once_and_in_a_listed_type() -> None:
    rules = patient_rules(element("Patient.x[x]", "string boolean", "1..1"))
    assert judge(rules, "<xString value='a'/>") == judge(rules, "<xBoolean value='true'/>") == []
    assert judge(rules, "<xBoolean value='a'/>") == [("type.value", "Patient.xBoolean")]
    assert judge(rules, "") == [("cardinality.min", "Patient.x[x]")]
    assert ("cardinality.max", "Patient.x[x]") in judge(rules, "<xString value='a'/><xBoolean value='true'/>")
    assert judge(rules, "<xString value='a'/><xString value='a'/>") == [("cardinality.max", "Patient.x[x]")]
    assert ("element.unknown", "Patient") in judge(rules, "<xInteger value='1'/>")


def test_a_content_reference_repeats_the_rules_of_another_element() -> None:
    rules = patient_rules(
        element("Patient.part", "BackboneElement", "0..*"),
        element("Patient.part.title", "string", "1..1"),
        element("Patient.part.part", count="0..*", contentReference="#Patient.part"),
    )
    nested = "<part><title value='a'/><part><title value='b'/>{}</part></part>"
    assert judge(rules, nested.format("")) == []
    wrong = nested.format("<part><other value='c'/></part>")
    assert ("cardinality.min", "Patient.part.part.part.title") in judge(rules, wrong)


def test_a_missing_root_and_a_broken_snapshot_are_refused() -> None:
    with pytest.raises(BadDefinitionsError, match="not among"):
        compile_rules(Definitions([]), [BASE + "P"])
    orphan = profile("P", "Patient", element("Patient.a.b", "string"))
    with pytest.raises(BadDefinitionsError, match=r"Patient\.a\.b"):
        compile_rules(Definitions([orphan]), [BASE + "P"])
    dangling = profile("P", "Patient", element("Patient.a", contentReference="#Patient.b"))
    with pytest.raises(BadDefinitionsError, match=r"Patient\.b"):
        compile_rules(Definitions([dangling]), [BASE + "P"])
