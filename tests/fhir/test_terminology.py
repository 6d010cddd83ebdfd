"""Value sets and canonicals (FHIR R4 § 4.9.8, § 2.24.0.8)."""

from __future__ import annotations

from typing import Any

import pytest

from schleuse.fhir import Definitions
from schleuse.fhir.definitions import version_matches
from schleuse.fhir.terminology import codes_of, displays_of, expand

TREE: dict[str, Any] = {
    "resourceType": "CodeSystem",
    "url": "s",
    "content": "complete",
    "concept": [
        {"code": "a", "display": "A", "concept": [{"code": "a1"}, {"code": "a2", "concept": [{"code": "a21"}]}]},
        {"code": "b"},
    ],
}


def value_set(url: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "url": url, "compose": {"include": list(include), **more}}


def below(operator: str, value: str = "a") -> dict[str, Any]:
    return {"system": "s", "filter": [{"property": "concept", "op": operator, "value": value}]}


LISTED = value_set("listed", {"system": "s", "concept": [{"code": "a"}, {"code": "zz"}]})


def codes(*resources: dict[str, Any], url: str = "v") -> set[str] | None:
    found = expand(Definitions([TREE, LISTED, *resources]), url)
    return None if found is None else {code for _, code in found}


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ([{"system": "s"}], {"a", "a1", "a2", "a21", "b"}),
        ([below("is-a")], {"a", "a1", "a2", "a21"}),
        ([below("descendent-of")], {"a1", "a2", "a21"}),
        ([below("is-not-a")], {"b"}),
        ([{"system": "s", "concept": [{"code": "b"}]}], {"b"}),
        ([{"valueSet": ["listed"]}], {"a", "zz"}),
        ([{"system": "s", "valueSet": ["listed"]}], {"a"}),
        ([{"valueSet": ["listed"]}, {"system": "s", "concept": [{"code": "b"}]}], {"a", "zz", "b"}),
        ([below("regex")], None),
        ([{"system": "unknown"}], None),
        ([{"valueSet": ["unknown"]}], None),
    ],
)
def test_a_value_set_holds_what_its_composition_includes(
    include: list[dict[str, Any]], expected: set[str] | None
) -> None:
    assert codes(value_set("v", *include)) == expected


def test_exclusions_are_taken_out() -> None:
    excluded = value_set("v", {"system": "s"}, exclude=[below("is-a")])
    assert codes(excluded) == {"b"}
    assert codes(value_set("v", {"system": "s"}, exclude=[{"system": "unknown"}])) is None


def test_an_expansion_that_came_along_helps_where_the_composition_does_not() -> None:
    expansion = {"contains": [{"system": "t", "code": "x", "contains": [{"system": "t", "code": "y"}]}]}
    assert codes({**value_set("v", {"system": "unknown"}), "expansion": expansion}) == {"x", "y"}


def test_value_sets_in_a_circle_end() -> None:
    assert codes(value_set("v", {"valueSet": ["v"]})) is None


def test_only_complete_code_systems_that_are_not_ignored_are_known() -> None:
    assert codes_of(Definitions([TREE]), "s") == frozenset({"a", "a1", "a2", "a21", "b"})
    assert codes_of(Definitions([{**TREE, "content": "fragment"}]), "s") is None
    assert codes_of(Definitions([TREE], ignored_code_systems=["s"]), "s") is None
    assert displays_of(Definitions([TREE]), "s") == {"a": "A"}
    assert displays_of(Definitions([]), "s") == {}


@pytest.mark.parametrize(
    ("asked", "has", "expected"),
    [("1.2", "1.2.1", True), ("1.2.1", "1.2.1", True), ("1.2", "1.20.1", False), ("1.2.1", "1.2", False)],
)
def test_a_canonical_may_name_the_leading_part_of_a_version(asked: str, has: str, expected: bool) -> None:
    assert version_matches(asked, has) is expected


def test_the_asked_version_is_found_and_without_one_the_latest_added() -> None:
    def resource(version: str) -> dict[str, Any]:
        return {"resourceType": "ValueSet", "url": "v", "version": version}

    both = Definitions([resource("1.0.0"), resource("1.2.1"), resource("1.1.0")])
    assert (found := both.value_set("v|1.2")) is not None
    assert found["version"] == "1.2.1"
    assert (found := both.value_set("v")) is not None
    assert found["version"] == "1.1.0"
    assert both.value_set("w") is None


def test_bundles_are_unpacked_and_other_resources_ignored() -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": TREE}, {"resource": {"resourceType": "Patient"}}, {}]}
    assert [one["url"] for one in Definitions([bundle, {}]).code_systems()] == ["s"]
