"""VE1 containers, byte for byte as fixed; damaged, cut or swapped ones do not open (journal.md § 14.1, § 20)."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from schleuse.errors import MalformedError
from schleuse.vault.contracts import SealBrokenError, TooLargeError
from schleuse.vault.ve1 import (
    MAX_PLAINTEXT,
    OVERHEAD,
    Header,
    open_container,
    parse_header,
    seal_container,
)

VECTORS = json.loads((Path(__file__).parents[1] / "journal" / "vectors.json").read_text())
KNOWN = VECTORS["ve1"]
SK = bytes.fromhex(VECTORS["sk1"]["SK"])
CONTAINER = bytes.fromhex(KNOWN["container"])
HEADER = Header(CONTAINER[8:24], KNOWN["version"], bytes.fromhex(VECTORS["sk1"]["subject"]), 1)
PLAINTEXT = KNOWN["plaintext"].encode()


def sealed(header: Header = HEADER, plaintext: bytes = PLAINTEXT, sk: bytes = SK) -> bytes:
    return seal_container(
        sk,
        subject=header.subject,
        key_version=header.key_version,
        object_id=header.object_id,
        object_version=header.object_version,
        plaintext=plaintext,
    )


def test_the_container_is_the_published_one() -> None:
    drawn = iter([bytes.fromhex(KNOWN[name]) for name in ("DEK", "wrap_nonce", "data_nonce")])
    made = seal_container(
        SK,
        subject=HEADER.subject,
        key_version=HEADER.key_version,
        object_id=HEADER.object_id,
        object_version=HEADER.object_version,
        plaintext=PLAINTEXT,
        random=lambda length: next(drawn),
    )
    assert made == CONTAINER


def test_the_published_container_opens() -> None:
    assert open_container(SK, CONTAINER) == PLAINTEXT
    assert parse_header(CONTAINER) == HEADER
    assert HEADER.object_id.hex() == KNOWN["object"]


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(100_000)])
def test_what_was_sealed_opens(plaintext: bytes) -> None:
    made = sealed(plaintext=plaintext)
    assert len(made) == OVERHEAD + len(plaintext)
    assert open_container(SK, made) == plaintext


def test_the_same_content_twice_looks_different() -> None:
    one, other = sealed(), sealed()
    assert one[52:64] != other[52:64]
    assert one[64:] != other[64:]


@pytest.mark.parametrize("bit", range(len(CONTAINER) * 8))
def test_a_container_with_one_flipped_bit_does_not_open(bit: int) -> None:
    damaged = bytearray(CONTAINER)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBrokenError):
        open_container(SK, bytes(damaged))


@pytest.mark.parametrize("length", range(len(CONTAINER)))
def test_a_truncated_container_does_not_open(length: int) -> None:
    with pytest.raises(SealBrokenError):
        open_container(SK, CONTAINER[:length])


def test_a_longer_container_does_not_open() -> None:
    with pytest.raises(SealBrokenError):
        open_container(SK, CONTAINER + b"\0")


def test_no_part_of_another_container_fits() -> None:
    other = sealed(Header(uuid4().bytes, 3, HEADER.subject, 1))
    for start, end in ((8, 24), (24, 52), (52, 112), (64, 112), (112, 124), (124, len(other))):
        if CONTAINER[start:end] == other[start:end]:
            continue
        with pytest.raises(SealBrokenError):
            open_container(SK, CONTAINER[:start] + other[start:end] + CONTAINER[end:])


def test_a_container_does_not_open_under_another_persons_key() -> None:
    with pytest.raises(SealBrokenError):
        open_container(bytes(32), CONTAINER)


@pytest.mark.parametrize(
    "head", [b"VE2\n\x01\0\0\0", b"VE1\n\x02\0\0\0", b"VE1\n\0\0\0\0", b"VE1\n\x01\0\0\x01", b"VE1\r\x01\0\0\0"]
)
def test_another_magic_algorithm_or_padding_is_no_header(head: bytes) -> None:
    with pytest.raises(SealBrokenError, match="no container VE1"):
        parse_header(head + CONTAINER[8:])


def test_content_beyond_16_mib_is_refused_before_it_is_sealed() -> None:
    with pytest.raises(TooLargeError) as caught:
        sealed(plaintext=bytes(MAX_PLAINTEXT + 1))
    assert isinstance(caught.value, MalformedError)
    assert open_container(SK, sealed(plaintext=bytes(MAX_PLAINTEXT))) == bytes(MAX_PLAINTEXT)


def test_a_container_longer_than_the_largest_is_not_even_tried() -> None:
    with pytest.raises(SealBrokenError, match="no container"):
        parse_header(CONTAINER + bytes(MAX_PLAINTEXT))


@pytest.mark.parametrize(("sk", "subject", "object_id"), [(31, 16, 16), (32, 15, 16), (32, 16, 17)])
def test_fields_of_the_wrong_length_are_never_padded_or_cut(sk: int, subject: int, object_id: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        sealed(Header(bytes(object_id), 1, bytes(subject), 1), sk=bytes(sk))
