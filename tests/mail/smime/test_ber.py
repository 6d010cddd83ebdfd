from __future__ import annotations

import pytest
from asn1crypto import cms as asn1_cms
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import MalformedError
from schleuse.mail.smime import ber

#: Any value as a tree: bytes are an octet string, lists a sequence.
TREES = st.recursive(st.binary(max_size=300), lambda inner: st.lists(inner, max_size=5), max_leaves=30)


def der(tree: object) -> bytes:
    if isinstance(tree, bytes):
        return ber.tlv(ber.OCTET_STRING, tree)
    assert isinstance(tree, list)
    return ber.tlv(ber.SEQUENCE, *(der(child) for child in tree))


def streamed(tree: object, size: int) -> bytes:
    """The same value in BER with indefinite lengths and chunks."""
    if isinstance(tree, bytes):
        return ber.chunked(ber.OCTET_STRING, tree, size)
    assert isinstance(tree, list)
    return ber.indefinite(ber.SEQUENCE, *(streamed(child, size) for child in tree))


@given(TREES, st.integers(1, 100))
def test_indefinite_lengths_and_chunks_become_the_same_der(tree: object, size: int) -> None:
    assert ber.to_definite(streamed(tree, size)) == der(tree)


@given(TREES)
def test_what_has_definite_lengths_already_is_not_changed(tree: object) -> None:
    assert ber.to_definite(der(tree)) == der(tree)
    assert ber.to_der(der(tree)) == der(tree)


@given(TREES, st.integers(1, 100))
def test_an_indefinite_length_deep_inside_is_found(tree: object, size: int) -> None:
    mixed = ber.tlv(ber.SEQUENCE, der(b"before"), streamed(tree, size), der(b"after"))
    assert ber.to_definite(mixed) == ber.tlv(ber.SEQUENCE, der(b"before"), der(tree), der(b"after"))


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8))
def test_a_set_is_sorted_as_asn1crypto_sorts_it(values: list[bytes]) -> None:
    class Octets(core.SetOf):  # type: ignore[misc]
        _child_spec = core.OctetString

    ours = ber.to_der(ber.tlv(ber.SET, *(ber.tlv(ber.OCTET_STRING, value) for value in values)))
    assert ours == Octets(values).dump()


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=10), st.integers(0, 39))
def test_object_identifiers_are_written_as_asn1crypto_writes_them(rest: list[int], second: int) -> None:
    dotted = ".".join(str(number) for number in (1, second, *rest))
    assert ber.oid(dotted) == core.ObjectIdentifier(dotted).dump()


@given(st.integers(0, 2**48))
def test_integers_are_written_and_read_as_asn1crypto_does(value: int) -> None:
    written = ber.small_integer(value)
    assert written == core.Integer(value).dump()
    assert ber.integer(written, ber.whole(written, ber.INTEGER)) == value


@given(st.binary(max_size=400))
def test_any_octets_are_read_or_malformed(data: bytes) -> None:
    for read in (ber.to_definite, ber.to_der, lambda octets: walk(octets, ber.whole(octets, ber.SEQUENCE))):
        try:
            read(data)
        except MalformedError:
            continue


def walk(data: bytes, element: ber.Element) -> None:
    if element[0] & ber.CONSTRUCTED:
        for child in ber.children(data, element):
            walk(data, child)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x05\x04\x01a",  # longer than what is there
        b"\x30\x85\x01\x00\x00\x00\x00",  # five octets of length
        b"\x30\x82\xff",  # cut off in its length
        b"\x30\x03\x04\x05a",  # child longer than its parent
        b"\x30\x03\x04\x01ab",  # something behind
        b"\x04\x01a",  # another tag
    ],
)
def test_broken_lengths_and_tags_are_malformed(data: bytes) -> None:
    with pytest.raises(ber.BadEncodingError):
        ber.children(data, ber.whole(data, ber.SEQUENCE))


@pytest.mark.parametrize("data", [b"\x30\x80", b"\x30\x80\x04\x01a", b"\x30\x80\x00", b"\x04\x80\x00\x00"])
def test_an_indefinite_length_without_end_or_on_a_primitive_is_malformed(data: bytes) -> None:
    with pytest.raises(ber.BadEncodingError):
        ber.to_definite(data)


def test_nesting_is_bounded() -> None:
    with pytest.raises(ber.BadEncodingError):
        ber.to_definite(b"\x30\x80" * 100_000)
    with pytest.raises(ber.BadEncodingError):
        ber.to_der(b"\x31\x80" * 10_000 + b"\0\0" * 10_000)


def test_the_number_of_chunks_is_bounded() -> None:
    with pytest.raises(ber.BadEncodingError):
        ber.to_definite(ber.chunked(ber.OCTET_STRING, bytes(ber.MAX_ELEMENTS + 1), 1))


def test_size_is_bounded_before_anything_is_read() -> None:
    with pytest.raises(ber.BadEncodingError):
        ber.to_definite(b"\x30\x80" + bytes(ber.MAX_OCTETS))


def test_a_long_tag_is_passed_over_and_kept() -> None:
    card_key = b"\x7f\x49\x03\x86\x01\x04"  # as in the ECIES cryptogram of kim.md 7.4
    data = ber.tlv(ber.SEQUENCE, card_key, ber.tlv(ber.OCTET_STRING, b"x"))
    assert [child[0] for child in ber.children(data, ber.whole(data, ber.SEQUENCE))] == [0x7F, ber.OCTET_STRING]
    assert ber.to_der(data) == data


def test_an_implicitly_tagged_string_keeps_its_chunks_until_it_is_read() -> None:
    data = ber.to_definite(ber.indefinite(ber.SEQUENCE, ber.chunked(0x80, b"abcdef", 2)))
    content = ber.children(data, ber.whole(data, ber.SEQUENCE))[0]
    assert content[0] == 0xA0
    assert ber.octets(data, content) == b"abcdef"


def test_asn1crypto_reads_what_we_stream() -> None:
    content = ber.indefinite(
        ber.SEQUENCE, ber.oid("1.2.840.113549.1.7.1"), ber.indefinite(0xA0, ber.chunked(4, b"x" * 2500))
    )
    assert asn1_cms.ContentInfo.load(content, strict=True)["content"].native == b"x" * 2500
