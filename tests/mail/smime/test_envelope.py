from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.smime.asn1 import parts_of
from tests.mail.smime.samples import INSURER, PRACTICE, insurer, practice, unwrap_by

from schleuse.errors import MalformedError
from schleuse.mail.smime import ber
from schleuse.mail.smime.envelope import (
    TI_ECIES,
    DecryptionFailedError,
    Envelope,
    EnvelopeFormatError,
    build_envelope,
    open_envelope,
    parse_envelope,
)
from schleuse.mail.smime.recipients import issuer_and_serial
from schleuse.vault import KeyMissingError, WrappedKey
from schleuse.vault.contracts import UnsupportedWrapError, UnwrapFailedError

CONTENT = b"Content-Type: text/plain\r\n\r\n" + bytes(range(256)) * 100
RECIPIENTS = [(INSURER, insurer().certificate_der), (PRACTICE, practice(kind="enc").certificate_der)]
SEALED = build_envelope(CONTENT, RECIPIENTS)
ENVELOPE = parse_envelope(SEALED)
OWN = next(one for one in ENVELOPE.recipients if one.recipient == issuer_and_serial(insurer().certificate_der))


def streamed(sealed: bytes) -> bytes:
    """The envelope as a Konnektor writes it: indefinite lengths, the ciphertext in chunks of 1000 (kim.md 7.5)."""
    oid, explicit = parts_of(sealed)
    fields = parts_of(parts_of(explicit)[0])
    type_, algorithm, encrypted = parts_of(fields[2])
    value = ber.contents(encrypted, ber.read(encrypted, 0, len(encrypted)))
    fields[2] = ber.indefinite(ber.SEQUENCE, type_, algorithm, ber.chunked(0x80, value))
    body = ber.indefinite(ber.SEQUENCE, *fields)
    return ber.indefinite(ber.SEQUENCE, oid, ber.indefinite(0xA0, body))


def rebuilt(change: Callable[[list[bytes]], object]) -> bytes:
    """The envelope with its fields (version, recipients, content, mac, attributes) changed."""
    oid, explicit = parts_of(SEALED)
    fields = parts_of(parts_of(explicit)[0])
    change(fields)
    return ber.tlv(ber.SEQUENCE, oid, ber.tlv(0xA0, ber.tlv(ber.SEQUENCE, *fields)))


def put(at: int, field: bytes) -> Callable[[list[bytes]], object]:
    def change(fields: list[bytes]) -> None:
        fields[at] = field

    return change


def content_info(algorithm: bytes, parameters: bytes = b"", type_: str = "1.2.840.113549.1.7.1") -> bytes:
    return ber.tlv(
        ber.SEQUENCE, ber.oid(type_), ber.tlv(ber.SEQUENCE, algorithm, parameters), ber.tlv(0x80, b"ciphertext")
    )


GCM = ber.oid("2.16.840.1.101.3.4.1.46")


def gcm_parameters(nonce: bytes, icv: int | None = 16) -> bytes:
    return ber.tlv(ber.SEQUENCE, ber.tlv(ber.OCTET_STRING, nonce), b"" if icv is None else ber.small_integer(icv))


def test_what_was_sealed_opens_for_each_recipient() -> None:
    for identity in (insurer(), practice(kind="enc")):
        wanted = issuer_and_serial(identity.certificate_der)
        own = next(one for one in ENVELOPE.recipients if one.recipient == wanted)
        assert open_envelope(ENVELOPE, own, unwrap_by(identity)) == CONTENT


def test_the_envelope_has_the_shape_of_kim_md_7_2() -> None:
    version, _, content, mac, attributes = parts_of(parts_of(parts_of(SEALED)[1])[0])
    assert version == ber.small_integer(0)
    assert content.startswith(ber.tlv(ber.SEQUENCE, b"")[:1])
    assert len(mac) == 2 + 16
    assert attributes[0] == 0xA2
    assert len(ENVELOPE.nonce) == 12
    assert {pair.address for pair in ENVELOPE.recipient_emails or ()} == {INSURER, PRACTICE}


def test_an_envelope_in_chunks_of_indefinite_length_is_the_same_envelope() -> None:
    assert parse_envelope(streamed(SEALED)) == ENVELOPE


def test_randomness_comes_from_the_argument() -> None:
    sealed = build_envelope(CONTENT, RECIPIENTS, random=lambda size: b"\x07" * size)
    assert parse_envelope(sealed).nonce == b"\x07" * 12


@pytest.mark.parametrize(
    "damaged",
    [
        replace(ENVELOPE, ciphertext=bytes([ENVELOPE.ciphertext[0] ^ 1]) + ENVELOPE.ciphertext[1:]),
        replace(ENVELOPE, mac=bytes(16)),
        replace(ENVELOPE, nonce=bytes(12)),
        replace(ENVELOPE, aad=b"\x31\x00"),
    ],
)
def test_a_changed_envelope_does_not_open(damaged: Envelope) -> None:
    with pytest.raises(DecryptionFailedError):
        open_envelope(damaged, OWN, unwrap_by(insurer()))


def no_unwrap(_: WrappedKey) -> bytes:
    raise UnwrapFailedError("padding")


@pytest.mark.parametrize(
    "unwrap",
    [
        no_unwrap,
        lambda _: b"",
        lambda _: bytes(31),
        lambda _: bytes(32),
        lambda _: bytes(16),
        unwrap_by(practice(kind="enc")),
    ],
)
def test_every_failure_to_decrypt_looks_the_same(unwrap: Callable[[WrappedKey], bytes]) -> None:
    with pytest.raises(DecryptionFailedError) as caught:
        open_envelope(ENVELOPE, OWN, unwrap)
    assert caught.value.args == DecryptionFailedError().args
    assert caught.value.__cause__ is None


def test_a_key_that_did_not_unwrap_fails_even_if_the_substitute_would_open() -> None:
    sealed = build_envelope(CONTENT, RECIPIENTS, random=lambda size: b"\x07" * size)
    envelope = parse_envelope(sealed)
    with pytest.raises(DecryptionFailedError):
        open_envelope(envelope, envelope.recipients[0], no_unwrap, random=lambda size: b"\x07" * size)


def test_our_own_trouble_is_not_the_senders() -> None:
    def missing(_: WrappedKey) -> bytes:
        raise KeyMissingError("card not in the slot")

    with pytest.raises(KeyMissingError):
        open_envelope(ENVELOPE, OWN, missing)


def test_an_ec_recipient_is_said_to_be_unsupported_when_building() -> None:
    with pytest.raises(UnsupportedWrapError):
        build_envelope(CONTENT, [(INSURER, insurer("brainpool").certificate_der)])


def test_an_ecies_recipient_is_read_and_left_to_the_vault() -> None:
    def ecies(certificate: bytes, key: bytes) -> WrappedKey:
        return WrappedKey(issuer_and_serial(certificate), ber.tlv(ber.SEQUENCE, TI_ECIES), b"\xa6\x00")

    envelope = parse_envelope(build_envelope(CONTENT, [(INSURER, insurer("brainpool").certificate_der)], wrap=ecies))
    assert TI_ECIES in envelope.recipients[0].algorithm
    with pytest.raises(UnsupportedWrapError):
        open_envelope(envelope, envelope.recipients[0], unwrap_by(insurer("brainpool")))


def test_an_envelope_needs_a_recipient() -> None:
    with pytest.raises(EnvelopeFormatError):
        build_envelope(CONTENT, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put(1, ber.tlv(ber.SET)), "0 recipients"),
        (put(1, ber.tlv(ber.SET, ber.tlv(0xA1, ber.small_integer(3)))), "KeyAgree"),
        (put(1, ber.tlv(ber.SET, ber.tlv(ber.SEQUENCE, ber.small_integer(0)))), "four fields"),
        (put(2, content_info(ber.oid("2.16.840.1.101.3.4.1.42"), gcm_parameters(bytes(12)))), "AES-256-GCM"),
        (put(2, content_info(GCM)), "AES-256-GCM"),
        (put(2, content_info(GCM, gcm_parameters(bytes(16)))), "16 octets instead of 12"),
        (put(2, content_info(GCM, gcm_parameters(bytes(12), 12))), "ICV"),
        (put(2, content_info(GCM, gcm_parameters(bytes(12)), "1.2.840.113549.1.7.2")), "id-data"),
        (put(3, ber.tlv(ber.OCTET_STRING, bytes(12))), "12 octets instead of 16"),
        (put(4, ber.tlv(0xA2, *parts_of(parts_of(parts_of(parts_of(SEALED)[1])[0])[4]) * 2)), "twice"),
    ],
)
def test_what_is_outside_the_profile_is_refused_with_a_reason(
    change: Callable[[list[bytes]], object], says: str
) -> None:
    with pytest.raises(EnvelopeFormatError, match=says):
        parse_envelope(rebuilt(change))


def test_an_icv_length_that_was_forgotten_is_forgiven() -> None:
    changed = parse_envelope(rebuilt(put(2, content_info(GCM, gcm_parameters(bytes(12), None)))))
    assert changed.ciphertext == b"ciphertext"


def test_an_originator_info_is_passed_over() -> None:
    assert parse_envelope(rebuilt(lambda fields: fields.insert(1, ber.tlv(0xA0)))) == ENVELOPE


def test_authenticated_attributes_become_associated_data() -> None:
    changed = parse_envelope(rebuilt(lambda fields: fields.insert(3, ber.tlv(0xA1, ber.small_integer(1)))))
    assert changed.aad == ber.tlv(ber.SET, ber.small_integer(1))


def test_an_envelope_without_recipient_emails_is_read() -> None:
    assert parse_envelope(rebuilt(lambda fields: fields.pop())).recipient_emails is None


def test_enveloped_data_without_authentication_is_named() -> None:
    other = ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.7.3"), ber.tlv(0xA0, ber.tlv(ber.SEQUENCE)))
    with pytest.raises(EnvelopeFormatError, match="found EnvelopedData"):
        parse_envelope(other)


@given(st.data())
def test_any_damage_to_an_envelope_is_malformed_or_does_not_open(data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from([SEALED, streamed(SEALED)])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(octets) - 1, 900)) | st.integers(0, len(octets) - 1))
        octets[at] = data.draw(st.integers(0, 255))
    try:
        envelope = parse_envelope(bytes(octets[: data.draw(st.integers(0, len(octets)) | st.just(len(octets)))]))
        assert open_envelope(envelope, OWN, unwrap_by(insurer())) == CONTENT
    except MalformedError:
        pass
