"""FHIRPath invariants within profiles, and the reference validator's ways with them (limits.md § 4)."""

from __future__ import annotations

import pytest
from tests.fhir.samples import (
    BASE,
    CORE,
    NS,
    constraint,
    element,
    judge,
    only,
    patient,
    patient_rules,
    profile,
)

from schleuse.fhir import Definitions, compile_rules
from schleuse.fhir.rules import BadDefinitionsError

DIGITS = "matches('^[0-9]{2}$')"


def x_with(*constraints: dict[str, object], type_code: str = "string") -> dict[str, object]:
    return element("Patient.x", type_code, constraint=list(constraints))


def test_an_invariant_that_is_not_true_is_found_with_its_key_and_text() -> None:
    rules = patient_rules(x_with(constraint("k-1", DIGITS)))
    assert judge(rules, "<x value='12'/>") == []
    found = only(rules.check_xml(patient("<x value='1a'/>")))
    assert (found.severity, found.key, found.path, found.human) == ("error", "k-1", "Patient.x", "text of k-1")
    assert found.profile == BASE + "P"


def test_an_invariant_that_is_empty_does_not_hold() -> None:
    rules = patient_rules(element("Patient", count="0..*", constraint=[constraint("k-1", "nothing = 'x'")]))
    assert judge(rules, "") == [("k-1", "Patient")]


def test_warnings_are_reported_and_can_be_left_out() -> None:
    rules = patient_rules(x_with(constraint("w-1", DIGITS, "warning")))
    xml = patient("<x value='1a'/>")
    assert only(rules.check_xml(xml)).severity == "warning"
    assert rules.check_xml(xml, warnings=False) == []


def test_of_equal_expressions_on_one_element_only_the_first_is_evaluated() -> None:
    """ik-1 (warning) before -for-laengeIK (error): the error never comes up. With `{9,9}` it does."""
    first_warns = patient_rules(x_with(constraint("w-1", DIGITS, "warning"), constraint("e-1", DIGITS)))
    assert judge(first_warns, "<x value='1a'/>") == [("w-1", "Patient.x")]
    other = patient_rules(
        x_with(constraint("w-1", DIGITS, "warning"), constraint("e-1", DIGITS.replace("{2}", "{2,2}")))
    )
    assert sorted(judge(other, "<x value='1a'/>")) == [("e-1", "Patient.x"), ("w-1", "Patient.x")]


def test_the_same_expression_on_two_elements_is_evaluated_on_both() -> None:
    rules = patient_rules(
        x_with(constraint("w-1", DIGITS, "warning")),
        element("Patient.y", "string", constraint=[constraint("e-1", DIGITS)]),
    )
    assert judge(rules, "<x value='1a'/><y value='1a'/>") == [("w-1", "Patient.x"), ("e-1", "Patient.y")]


def test_an_invariant_of_the_type_comes_before_that_of_the_element() -> None:
    money = profile(
        "Money",
        "Money",
        element("Money", count="0..*", constraint=[constraint("t-1", "value.exists()", "warning")]),
        element("Money.value", "decimal"),
        element("Money.currency", "code"),
        kind="complex-type",
        url=CORE + "Money",
    )
    rules = patient_rules(x_with(constraint("e-1", "value.exists()"), type_code="Money"), others=[money])
    assert judge(rules, "<x><currency value='EUR'/></x>") == [("t-1", "Patient.x")]


def test_what_is_advice_only_is_not_checked() -> None:
    best_practice = {
        **constraint("dom-6", "text.exists()", "warning"),
        "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/elementdefinition-bestpractice", "valueBoolean": True}
        ],
    }
    rules = patient_rules(element("Patient", count="0..*", constraint=[best_practice]))
    assert judge(rules, "") == []


def test_an_invariant_that_cannot_be_compiled_stops_the_compiler_and_is_named() -> None:
    for expression in ("name.", "name.memberOf('x')", "'a'.matches('(')"):
        with pytest.raises(BadDefinitionsError, match="k-9"):
            patient_rules(x_with(constraint("k-9", expression)))


def test_an_invariant_without_fhirpath_is_a_gap() -> None:
    rules = patient_rules(x_with({"key": "k-1", "severity": "error", "human": "h", "xpath": "x"}))
    assert [(gap.kind, gap.name) for gap in rules.gaps] == [("invariant", "k-1")]


def test_compiled_invariants_are_listed() -> None:
    rules = patient_rules(x_with(constraint("k-1", DIGITS), constraint("w-1", "hasValue()", "warning")))
    assert rules.invariants == (("k-1", DIGITS), ("w-1", "hasValue()"))


def test_the_type_of_the_focus_is_known_from_its_definition() -> None:
    rules = patient_rules(
        element("Patient.x", "dateTime", constraint=[constraint("k-1", "($this as dateTime).toString().length() >= 8")])
    )
    assert judge(rules, "<x value='2026-01-27'/>") == []
    assert judge(rules, "<x value='2026'/>") == [("k-1", "Patient.x")]


def test_a_contained_resource_must_be_referred_to() -> None:
    """dom-3, which the published expression says in a way that nobody evaluates literally."""
    reference = profile(
        "Reference",
        "Reference",
        element("Reference", count="0..*", constraint=[constraint("ref-1", "reference.startsWith('#').not()")]),
        element("Reference.reference", "string"),
        element("Reference.display", "string"),
        kind="complex-type",
        url=CORE + "Reference",
    )
    organization = profile(
        "Organization", "Organization", element("Organization.id", "id"), element("Organization.name", "string"),
        element("Organization.partOf", "Reference"), url=CORE + "Organization",
    )  # fmt: skip
    rules = compile_rules(
        Definitions(
            [
                profile(
                    "P",
                    "Patient",
                    element(
                        "Patient", count="0..*", constraint=[constraint("dom-3", "contained.where(false).empty()")]
                    ),
                    element("Patient.contained", "Resource", "0..*"),
                    element("Patient.link", "Reference", "0..*"),
                ),
                reference,
                organization,
            ]
        ),
        [BASE + "P", CORE + "Organization"],
    )

    def keys(content: str, inner: str = "<id value='o'/>") -> list[str]:
        xml = f"<Patient {NS}><contained><Organization>{inner}</Organization></contained>{content}</Patient>"
        return [finding.key for finding in rules.check_xml(xml.encode(), profile=BASE + "P")]

    assert keys("<link><reference value='#o'/></link>") == []
    assert keys("") == ["dom-3"]
    assert keys("<link><reference value='#x'/></link>") == ["dom-3", "ref-1"]
    assert keys("<link><display value='by name only'/></link><link><reference value='#o'/></link>") == []
    assert keys("", "<id value='o'/><partOf><reference value='#'/></partOf>") == []


def test_looking_up_shared_parts_once_changes_no_result() -> None:
    """Two invariants with common parts, in both orders and each alone, find the same."""
    one = constraint("k-1", "x.where($this = 'a').exists() implies x.count() = 1")
    two = constraint("k-2", "x.where($this = 'a').exists() and y.exists() or x.count() > 1")
    three = constraint("k-3", "y.all($this = %context.x.first()) and %resource.x.exists()")
    documents = ["", "<x value='a'/>", "<x value='a'/><x value='b'/>", "<x value='a'/><y value='a'/>", "<y value='b'/>"]

    def found(*constraints: dict[str, object]) -> list[set[tuple[str, str]]]:
        rules = patient_rules(
            element("Patient", count="0..*", constraint=list(constraints)),
            element("Patient.x", "string", "0..*"),
            element("Patient.y", "string", "0..*"),
        )
        return [set(judge(rules, document)) for document in documents]

    alone = [a | b | c for a, b, c in zip(found(one), found(two), found(three), strict=True)]
    assert found(one, two, three) == found(three, two, one) == found(two, one, three) == alone


def test_codes_in_invariants_are_plain_texts() -> None:
    rules = patient_rules(
        element(
            "Patient",
            count="0..*",
            constraint=[constraint("k-1", "x.code = 'a' or x.code = 'b' or x.code.empty()")],
        ),
        element("Patient.x", "Coding"),
        element("Patient.x.code", "code"),
    )
    assert judge(rules, "") == judge(rules, "<x><code value='b'/></x>") == []
    assert judge(rules, "<x><code value='c'/></x>") == [("k-1", "Patient")]
