"""One spelling for Base64 and for numbers (journal.md § 19)."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import MalformedError
from schleuse.journal.text import BadTextError, decode_base64, decode_decimal, decode_hash, encode_base64


@given(st.binary(max_size=100))
def test_bytes_come_back_from_base64(data: bytes) -> None:
    assert decode_base64(encode_base64(data)) == data
    assert b64decode(encode_base64(data)) == data


@given(st.text("AQgw+/=- \n_ä", max_size=12) | st.text(max_size=12))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        data = decode_base64(text)
    except MalformedError:
        return
    assert encode_base64(data) == text


@pytest.mark.parametrize(
    "text", ["AB==", "AAB=", "AA", "AA=", "A", "AA==\n", " AA==", "AA==AA==", "AA-_", "A\nA==", "=", "Ａ==="]
)
def test_anything_but_canonical_base64_is_malformed(text: str) -> None:
    with pytest.raises(BadTextError):
        decode_base64(text)


@given(st.integers(0, 2**63 - 1))
def test_a_number_comes_back_from_its_digits(number: int) -> None:
    assert decode_decimal(str(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+5",
        "-1",
        " 5",
        "5 ",
        "5\n",
        "1_0",
        "05",
        "00",
        "٥",
        "５",
        "1.0",
        "0x1",
        "1e3",
        str(2**63),
        "9" * 20,
        "9" * 5000,
    ],
)
def test_any_other_spelling_of_a_number_is_malformed(text: str) -> None:
    with pytest.raises(BadTextError):
        decode_decimal(text)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_hash_has_32_bytes(size: int) -> None:
    with pytest.raises(BadTextError):
        decode_hash(encode_base64(bytes(size)))
