"""Every function and operator of FHIRPath that we evaluate (FHIRPath 2.0.0 § 5, § 6; FHIR R4 § 2.9.1)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.fhir.fhirpath import BadPathError, evaluator, parse
from schleuse.fhir.node import Node
from schleuse.fhir.node import parse as parse_xml

CHOICES = frozenset({"value", "onset", "deceased"})

PATIENT = parse_xml(
    b"""<Patient xmlns="http://hl7.org/fhir">
  <id value="p1"/>
  <contained><Organization><id value="o1"/></Organization></contained>
  <extension url="http://x.example/kind"><valueCoding><system value="s"/><code value="01"/></valueCoding></extension>
  <identifier><system value="a"/><value value="1"/></identifier>
  <identifier><system value="b"/><value value="22"/></identifier>
  <active value="true"/>
  <name><family value="Muster"/><given value="Anna"/><given value="Eva"/></name>
  <gender value="other"/>
  <birthDate value="1980-05-17"/>
  <deceasedBoolean value="false"/>
  <multipleBirthInteger value="2"/>
  <generalPractitioner><reference value="#o1"/></generalPractitioner>
</Patient>"""
)


def plain(item: Any) -> Any:
    return item.value if isinstance(item, Node) else item


def evaluate(text: str, node: Node = PATIENT) -> list[Any]:
    return [plain(item) for item in evaluator(text, choices=CHOICES)(node)]


TABLE: list[tuple[str, list[Any]]] = [
    # literals and paths
    ("'a\\'b\\u0041\\n'", ["a'bA\n"]),
    ('"double"', ["double"]),
    ("1", [1]),
    ("1.50", [Decimal("1.50")]),
    ("true", [True]),
    ("{}", []),
    ("@2026-01-27", ["2026-01-27"]),
    ("name.given", ["Anna", "Eva"]),
    ("Patient.name.family", ["Muster"]),
    ("Practitioner.name.family", []),
    ("`name`.family", ["Muster"]),
    ("nothing.at.all", []),
    ("'text'.length", []),
    ("deceased", ["false"]),
    ("$this.gender", ["other"]),
    ("%resource.gender", ["other"]),
    ("%context.gender", ["other"]),
    ("%rootResource.gender", ["other"]),
    ("%ucum", ["http://unitsofmeasure.org"]),
    ("extension.url", ["http://x.example/kind"]),
    ("/* a */ gender // b", ["other"]),
    # § 5.1 existence
    ("name.exists()", [True]),
    ("telecom.exists()", [False]),
    ("identifier.exists(system = 'b')", [True]),
    ("identifier.exists(system = 'c')", [False]),
    ("name.empty()", [False]),
    ("telecom.empty()", [True]),
    ("identifier.all(system.exists())", [True]),
    ("identifier.all(value = '1')", [False]),
    ("telecom.all(false)", [True]),
    ("(true | false).allTrue()", [False]),
    ("{}.allTrue()", [True]),
    ("{}.allFalse()", [True]),
    ("identifier.select(system = 'a').allFalse()", [False]),
    ("(true | false).anyTrue()", [True]),
    ("true.anyFalse()", [False]),
    ("name.given.subsetOf('Anna' | 'Eva' | 'Ida')", [True]),
    ("name.given.subsetOf('Anna')", [False]),
    ("name.given.supersetOf('Eva')", [True]),
    ("identifier.count()", [2]),
    ("('a' | 'b' | 'a').distinct()", ["a", "b"]),
    ("'a'.combine('a').isDistinct()", [False]),
    ("name.given.isDistinct()", [True]),
    # § 5.2 filtering
    ("identifier.where(system = 'b').value", ["22"]),
    ("identifier.where(system = 'b' or system = 'a').value", ["1", "22"]),
    ("identifier.where(value.where($this = '1').exists()).system", ["a"]),
    ("identifier.select(system | value)", ["a", "1", "b", "22"]),
    ("name.repeat(given)", ["Anna", "Eva"]),
    ("deceased.ofType(boolean)", ["false"]),
    ("deceased.ofType(dateTime)", []),
    ("('a' | 1).ofType(integer)", [1]),
    # § 5.3 subsetting
    ("name.given[1]", ["Eva"]),
    ("name.given[2]", []),
    ("name.given[identifier.count() - 1]", ["Eva"]),
    ("name.given.first()", ["Anna"]),
    ("name.given.last()", ["Eva"]),
    ("name.given.tail()", ["Eva"]),
    ("name.given.skip(1)", ["Eva"]),
    ("name.given.skip(-1)", ["Anna", "Eva"]),
    ("name.given.take(1)", ["Anna"]),
    ("name.given.take(0)", []),
    ("name.family.single()", ["Muster"]),
    ("name.given.single()", []),
    ("('a' | 'b').intersect('b' | 'c')", ["b"]),
    ("('a' | 'b').exclude('b')", ["a"]),
    # § 5.4 combining
    ("('a' | 'a')", ["a"]),
    ("'a'.union('b')", ["a", "b"]),
    ("'a'.combine('a')", ["a", "a"]),
    # § 5.5 conversion
    ("iif(active, 'yes', 'no')", ["yes"]),
    ("iif(deceased, 'yes', 'no')", ["no"]),
    ("iif(telecom, 'yes')", []),
    ("12.toString()", ["12"]),
    ("true.toString()", ["true"]),
    ("birthDate.toString()", ["1980-05-17"]),
    ("name.given.toString()", []),
    ("'12'.toInteger()", [12]),
    ("'1x'.toInteger()", []),
    ("true.toInteger()", [1]),
    ("'1.5'.toDecimal()", [Decimal("1.5")]),
    # § 5.6 strings
    ("'abc'.indexOf('c')", [2]),
    ("'abc'.indexOf('x')", [-1]),
    ("'abc'.substring(1)", ["bc"]),
    ("'abc'.substring(1, 1)", ["b"]),
    ("'abc'.substring(3)", []),
    ("'abc'.substring(-1)", []),
    ("'abc'.startsWith('ab')", [True]),
    ("'abc'.endsWith('bc')", [True]),
    ("'abc'.contains('b')", [True]),
    ("telecom.contains('b')", []),
    ("'aBc'.upper()", ["ABC"]),
    ("'aBc'.lower()", ["abc"]),
    ("'abcb'.replace('b', 'x')", ["axcx"]),
    ("'a1b'.replaceMatches('[0-9]', '-')", ["a-b"]),
    ("'abc'.length()", [3]),
    ("name.given.length()", []),
    ("'123456789'.matches('^[0-9]{9}$')", [True]),
    ("'123456789\\n'.matches('^[0-9]{9}$')", [False]),
    ("'x123456789'.matches('[0-9]{9}')", [True]),
    ("telecom.matches('a')", []),
    ("'12a'.matches(identifier[0].value)", [True]),
    # § 5.7 tree, § 5.8 utility
    ("name.children()", ["Muster", "Anna", "Eva"]),
    ("identifier.descendants()", ["a", "1", "b", "22"]),
    ("gender.trace('label')", ["other"]),
    ("gender.trace('label', $this)", ["other"]),
    # § 6.1, § 6.2 comparison
    ("name.given = name.given", [True]),
    ("name.given = 'Anna'", [False]),
    ("telecom = 'x'", []),
    ("telecom != 'x'", []),
    ("gender != 'male'", [True]),
    ("multipleBirthInteger = 2", [True]),
    ("identifier[0] = identifier[1]", [False]),
    ("identifier[0] = identifier[0]", [True]),
    ("active = true", [True]),
    ("1.0 = 1", [True]),
    ("1 < 2", [True]),
    ("'b' > 'a'", [True]),
    ("multipleBirthInteger >= 2", [True]),
    ("1 <= telecom", []),
    ("birthDate < @1980-05-18", [True]),
    ("birthDate <= @1980-05-17", [True]),
    ("birthDate <= @1980", []),
    ("birthDate <= @1981", [True]),
    ("@2026-01-27T10:00:00+01:00 = @2026-01-27T09:00:00Z", [True]),
    ("@2026-01-27T10:00:00+01:00 < @2026-01-27T09:30:00Z", [True]),
    ("@2026-01-27T10:00:00Z > @2026-01-27", []),
    # § 6.3 types
    ("$this is Patient", [True]),
    ("$this is Practitioner", [False]),
    ("deceased is boolean", [True]),
    ("contained.first() is Organization", [True]),
    ("(deceased as boolean)", ["false"]),
    ("(extension.value as Coding).code", ["01"]),
    ("deceased.as(dateTime)", []),
    ("'a' is string", [True]),
    ("FHIR.Patient.gender", []),
    # § 6.4 collections
    ("'a' in ('a' | 'b')", [True]),
    ("{} in ('a' | 'b')", []),
    ("('a' | 'b') contains 'c'", [False]),
    # § 6.6 arithmetic
    ("1 + 2 * 3", [7]),
    ("(1 + 2) * 3", [9]),
    ("-1 + 2", [1]),
    ("5 / 2", [Decimal("2.5")]),
    ("5 div 2", [2]),
    ("5 mod 2", [1]),
    ("5 / 0", []),
    ("'a' + 'b'", ["ab"]),
    ("'a' + telecom", []),
    ("'a' & telecom & 'b'", ["ab"]),
    ("identifier.count() + name.count() = 3", [True]),
    # FHIR R4 § 2.9.1
    ("extension('http://x.example/kind').value.code", ["01"]),
    ("extension('http://x.example/other')", []),
    ("gender.hasValue()", [True]),
    ("name.hasValue()", [False]),
    ("extension.hasValue()", [False]),
    ("generalPractitioner.resolve()", []),
]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[text for text, _ in TABLE])
def test_expression_gives(text: str, expected: list[Any]) -> None:
    assert evaluate(text) == expected


#: true, false and empty.
VALUES = {"true": True, "false": False, "{}": None}


@pytest.mark.parametrize("left", VALUES)
@pytest.mark.parametrize("right", VALUES)
@pytest.mark.parametrize("operator", ["and", "or", "xor", "implies"])
def test_logic_has_three_values(left: str, right: str, operator: str) -> None:
    a, b = VALUES[left], VALUES[right]
    assert evaluate(f"{left} {operator} {right}") == [] if (r := LOGIC[operator](a, b)) is None else [r]


def three_and(a: bool | None, b: bool | None) -> bool | None:
    return False if False in (a, b) else None if None in (a, b) else True


def negated(a: bool | None) -> bool | None:
    return None if a is None else not a


LOGIC: dict[str, Callable[[bool | None, bool | None], bool | None]] = {
    "and": three_and,
    "or": lambda a, b: negated(three_and(negated(a), negated(b))),
    "implies": lambda a, b: negated(three_and(a, negated(b))),
    "xor": lambda a, b: None if None in (a, b) else a != b,
}

TREES = st.recursive(
    st.sampled_from(list(VALUES.items())),
    lambda inner: (
        st.tuples(st.sampled_from(list(LOGIC)), inner, inner).map(
            lambda t: (f"({t[1][0]} {t[0]} {t[2][0]})", LOGIC[t[0]](t[1][1], t[2][1]))
        )
        | inner.map(lambda t: (f"{t[0]}.not()", negated(t[1])))
        | inner.map(lambda t: (f"(telecom.exists() or {t[0]})", t[1]))
        | inner.map(lambda t: (f"%resource.identifier.select({t[0]}).first()", t[1]))
        | inner.map(lambda t: (f"({t[0]} = true)", t[1]))
    ),
    max_leaves=12,
)


@given(TREES)
def test_nested_logic_agrees_with_a_table_of_three_values(tree: tuple[str, bool | None]) -> None:
    text, expected = tree
    assert evaluate(text) == ([] if expected is None else [expected])


CRITERIA = st.sampled_from(
    ["system = 'a'", "system != 'a'", "value.length() > 1", "telecom = 'x'", "true", "{}", "value in ('1' | '3')"]
)


@given(CRITERIA, CRITERIA)
def test_the_ways_to_filter_agree(one: str, other: str) -> None:
    both = evaluate(f"identifier.where({one} and {other}).value")
    assert evaluate(f"identifier.where({one}).where({other}).value") == both
    assert evaluate(f"identifier.exists({one})") == [bool(evaluate(f"identifier.where({one})"))]
    assert evaluate(f"identifier.all({one})") == [len(evaluate(f"identifier.where({one})")) == 2]


TEXTS = st.text("ab '\\1é", max_size=6)


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@given(TEXTS, TEXTS, st.integers(-1, 7), st.integers(0, 7))
def test_texts_behave_like_texts(one: str, other: str, start: int, size: int) -> None:
    a, b = quoted(one), quoted(other)
    assert evaluate(f"{a} + {b}") == [one + other]
    assert evaluate(f"{a} = {b}") == [one == other]
    assert evaluate(f"{a}.indexOf({b})") == [one.find(other)]
    assert evaluate(f"{a}.contains({b})") == [other in one]
    cut = [one[start : start + size]] if 0 <= start < len(one) else []
    assert evaluate(f"{a}.substring({start}, {size})") == cut


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_collections_behave_like_sets(one: list[str], other: list[str]) -> None:
    a = ".combine(".join(map(quoted, one)) + ")" * (len(one) - 1) if one else "{}"
    b = ".combine(".join(map(quoted, other)) + ")" * (len(other) - 1) if other else "{}"
    assert set(evaluate(f"({a}) | ({b})")) == {*one, *other}
    assert evaluate(f"({a}).distinct().isDistinct()") == [True]
    assert set(evaluate(f"({a}).intersect({b})")) == set(one) & set(other)
    assert evaluate(f"({a}).exclude({b})") == [item for item in one if item not in other]
    assert evaluate(f"({a}).subsetOf({b})") == [set(one) <= set(other)]


_WORDS = "name given value where exists and or implies is as Patient true $this %resource 'a' 1 2.5 {} "
_SIGNS = "( ) . [ ] = != | + - ,"
NAMES_AND_SIGNS = st.sampled_from((_WORDS + _SIGNS).split())


@given(st.lists(NAMES_AND_SIGNS, max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        function = evaluator(text, choices=CHOICES)
    except BadPathError:
        return
    function(PATIENT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name.",
        "name given",
        "(name",
        "name[1",
        "1 ~ 1",
        "unknown()",
        "name.where()",
        "name.memberOf('x')",
        "name.conformsTo('x')",
        "$index",
        "%unknown",
        "'a'.matches('(')",
        "name is",
        "#",
        "(" * 200 + "1" + ")" * 200,
        "'abc'.substring()",
    ],
)
def test_what_cannot_be_evaluated_is_refused_at_once(text: str) -> None:
    with pytest.raises(BadPathError):
        evaluator(text)


def test_a_pattern_from_the_document_cannot_search_for_ever() -> None:
    """KBV packages before 1.2.1 use a house number as a pattern (eau.md § 10)."""
    document = parse_xml(
        b"""<Patient xmlns="http://hl7.org/fhir"><name><family value="(a+)+$"/>
        <given value="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"/></name></Patient>"""
    )
    assert evaluate("name.given.matches(name.family)", document) == []
    assert evaluate("'5+'.matches('5' & '+')", document) == [True]
    assert evaluate("'5'.matches('5' & '[')", document) == []


def test_code_in_a_literal_stays_a_literal() -> None:
    hostile = "'] + __import__(\\'os\\').abort() #'"
    assert evaluate(hostile) == ["'] + __import__('os').abort() #"[1:]]
    assert evaluate(f"extension({hostile})") == []


def test_precedence_follows_the_specification() -> None:
    assert parse("a or b and c") == parse("a or (b and c)")
    assert parse("a implies b or c") == parse("a implies (b or c)")
    assert parse("a = b | c") == parse("a = (b | c)")
    assert parse("a + b * c = d") == parse("(a + (b * c)) = d")
    assert parse("a is string and b") == parse("(a is string) and b")
    assert parse("-a.b") == parse("-(a.b)")
