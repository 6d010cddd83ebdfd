"""Requests to a witness, as bytes (C2SP tlog-witness)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import LOG, VECTORS, checkpoint, tree

from schleuse.errors import MalformedError
from schleuse.journal.proof import consistency_proof
from schleuse.journal.witness_request import MAX_REQUEST, WitnessRequest, parse_witness_request

TEXT: str = VECTORS["witness"]["request"]


def _request(old: int, new: int) -> WitnessRequest:
    proof = tuple(consistency_proof(old, new, tree(70_000)))
    return WitnessRequest(old, proof, checkpoint(new), checkpoint(new).signed_by(LOG))


def test_the_request_of_the_vectors() -> None:
    """journal.md § 20."""
    assert _request(5, 9).encode().decode() == TEXT
    assert parse_witness_request(TEXT.encode()) == _request(5, 9)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 9), (9, 9), (1, 65_537), (8, 9)])
def test_a_request_comes_back_from_its_body(old: int, new: int) -> None:
    assert parse_witness_request(_request(old, new).encode()) == _request(old, new)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 5\n\n",
        TEXT.replace("old 5", "old 05"),
        TEXT.replace("old 5", "old +5"),
        TEXT.replace("old 5", "old 10"),
        TEXT.replace("old 5", "old"),
        TEXT.replace("old 5", "new 5"),
        TEXT.replace("old 5\n", ""),
        TEXT.replace("old 5\n", "old 5\nAAAA\n"),
        TEXT.replace("old 5\n", "old 5\n\n"),
        TEXT.replace("old 5\n", "old 5\n" + (TEXT.split("\n")[1] + "\n") * 59),
        TEXT.replace("\n9\n", "\n09\n"),
        TEXT.replace("\n", "\r\n"),
        TEXT[: TEXT.index("—")],
        TEXT + "x" * MAX_REQUEST,
    ],
)
def test_what_breaks_the_form_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_witness_request(text.encode())


@given(st.binary(max_size=60), st.integers(0, len(TEXT.encode()) - 1))
def test_any_body_is_a_request_or_malformed(noise: bytes, at: int) -> None:
    whole = TEXT.encode()
    for data in (noise, b"old 5\n" + noise, whole[:at] + noise + whole[at + len(noise) :]):
        try:
            assert parse_witness_request(data).encode() == data
        except MalformedError:
            continue
