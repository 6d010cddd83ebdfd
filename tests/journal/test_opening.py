"""Openings and canonical JSON (RFC 8785, restricted as journal.md § 4 says)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import AN_ENTRY

from schleuse.errors import MalformedError
from schleuse.journal.opening import (
    MAX_NUMBER,
    BadOpeningError,
    Json,
    Opening,
    canonical_json,
    detail_commitment,
    object_commitment,
    parse_canonical_json,
    parse_opening,
)

SALT = bytes(range(16))
DETAIL = canonical_json({"actor": "Praxis Dr. Beispiel", "purpose": "TREATMENT"})
OPENING = Opening((SALT, "urn:uuid:6f1c1d1e-0000-4000-8000-000000000001", 2**63), (SALT[::-1], DETAIL))
OPENED = replace(
    AN_ENTRY,
    object=object_commitment(SALT, "urn:uuid:6f1c1d1e-0000-4000-8000-000000000001", 2**63),
    detail=detail_commitment(SALT[::-1], DETAIL),
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
KEYS = st.text(st.characters(max_codepoint=127), max_size=10)
JSON: st.SearchStrategy[Json] = st.recursive(
    TEXTS | st.integers(-MAX_NUMBER, MAX_NUMBER),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_record_comes_back_from_its_canonical_bytes(value: Json) -> None:
    assert parse_canonical_json(canonical_json(value)) == value


@given(JSON)
def test_the_reference_package_writes_the_same(value: Json) -> None:
    assert pytest.importorskip("rfc8785").dumps(value) == canonical_json(value)


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    """Signs of the example in RFC 8785 § 3.2.2 that our restriction allows, and its order of keys (§ 3.2.3)."""
    value: Json = {"string": '€$\x0f\nA\'B"\\\\"/', "b": 1, "a": [333, -1, 0], "\r": "Carriage Return", "1": "One"}
    expected = '{"\\r":"Carriage Return","1":"One","a":[333,-1,0],"b":1,"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonical_json(value) == expected.encode()


@pytest.mark.parametrize(
    "value",
    [1.0, True, None, 2**53, -(2**53), {"ä": 1}, {1: "a"}, "\ud800", ["\udfff"], {"a": {"b": [False]}}, float("nan")],
)
def test_what_readers_could_understand_differently_is_refused(value: Any) -> None:
    with pytest.raises(BadOpeningError):
        canonical_json(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'"\\u0041"',
        b"-0",
        b"1e3",
        b"1.0",
        b"01",
        b"NaN",
        b"null",
        b"1 ",
        b"",
        b"\xff",
        b'"\\ud800"',
        b"9" * 5000,
        b"[" * 100_000,
        b"[" * 40 + b"]" * 40,
        b'{"a":' * 40 + b"1" + b"}" * 40,
    ],
)
def test_another_spelling_or_kind_of_value_is_malformed(data: bytes) -> None:
    with pytest.raises(BadOpeningError):
        parse_canonical_json(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_canonical_or_malformed(data: bytes) -> None:
    try:
        value = parse_canonical_json(data)
    except MalformedError:
        return
    assert canonical_json(value) == data


def test_an_opening_belongs_to_its_entry_and_to_no_other() -> None:
    assert OPENING.matches(OPENED)
    assert Opening(OPENING.object_).matches(OPENED)
    assert Opening(None, OPENING.detail).matches(OPENED)
    assert not OPENING.matches(replace(OPENED, object=AN_ENTRY.object))
    assert not OPENING.matches(replace(OPENED, detail=AN_ENTRY.detail))
    assert not Opening((SALT, "urn:uuid:6f1c1d1e-0000-4000-8000-000000000001", 4)).matches(OPENED)
    assert not Opening(None, (SALT, DETAIL)).matches(OPENED)


def test_moving_bytes_between_the_parts_of_a_commitment_changes_it() -> None:
    assert object_commitment(SALT, "a", 1) != object_commitment(SALT, "a\0\0\0\0\0\0\0\x01", 1)
    assert object_commitment(SALT, "", 0) != detail_commitment(SALT, bytes(10))


def test_an_opening_comes_back_from_its_bytes() -> None:
    for opening in (
        OPENING,
        Opening((SALT, "ä", 7), (SALT, DETAIL)),
        Opening(),
        Opening((SALT, "x", 0)),
        Opening(None, (SALT, DETAIL)),
    ):
        assert parse_opening(opening.encode()) == opening


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        {"more": "x"},
        {"object": ["AA==", "x"]},
        {"object": ["AB==", "x", "1"]},
        {"object": ["AA==", "x", "01"]},
        {"object": ["AA==", 5, "1"]},
        {"detail": "x"},
        {"detail": ["AA==", 1]},
    ],
)
def test_any_other_form_of_an_opening_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        parse_opening(json.dumps(value, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("salt", "name", "version"), [(b"", "x", 1), (SALT, "x" * 65_536, 1), (SALT, "x", 2**64), (SALT, "x", -1)]
)
def test_a_commitment_that_cannot_be_written_is_refused(salt: bytes, name: str, version: int) -> None:
    with pytest.raises(BadOpeningError):
        object_commitment(salt, name, version)


def test_an_opening_does_not_leak_by_being_printed() -> None:
    assert "Beispiel" not in repr(OPENING)


def test_a_record_that_holds_itself_is_refused() -> None:
    record: dict[str, Json] = {"actor": "a"}
    record["again"] = [record]
    with pytest.raises(BadOpeningError, match="deep"):
        canonical_json(record)
