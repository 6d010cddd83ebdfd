from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asn1crypto import cms as asn1_cms
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.smime.asn1 import parts_of
from tests.mail.smime.samples import INSURER, NOW, ca, insurer, practice

from schleuse.errors import CorruptError, MalformedError
from schleuse.kim.pki import Algorithm
from schleuse.mail.smime import ber
from schleuse.mail.smime.algorithms import (
    SHA256_ALGORITHM,
    PublicKey,
    UnknownAlgorithmError,
    digest_name,
    signature_scheme,
)
from schleuse.mail.smime.recipients import RecipientEmail, issuer_and_serial, recipient_emails_attribute
from schleuse.mail.smime.signed import (
    Mismatch,
    NoSignatureError,
    SignatureFormatError,
    parse_signed,
    verify,
)
from schleuse.mail.smime.signing import Encoding, build_signed
from schleuse.vault import Signer
from schleuse.vault.algorithms import ECDSA_SHA256_ALGORITHM, PSS_SHA256_ALGORITHM

CONTENT = b"<Bundle/>" * 400
PAIR = RecipientEmail(INSURER, issuer_and_serial(insurer().certificate_der))
ALGORITHMS: list[Algorithm] = ["rsa", "p256", "brainpool"]


def signed_by(algorithm: Algorithm = "p256", encoding: Encoding = "der") -> bytes:
    return build_signed(
        CONTENT, practice(algorithm).signer(), NOW, attributes=[recipient_emails_attribute([PAIR])], encoding=encoding
    )


def key_of(algorithm: Algorithm = "p256") -> PublicKey:
    return practice(algorithm).key.public_key()


SIGNED = signed_by()


def rebuilt(change: Callable[[list[bytes]], object]) -> bytes:
    """The SignedData with its fields (version, digests, content, certificates, signers) changed."""
    oid, explicit = parts_of(SIGNED)
    fields = parts_of(parts_of(explicit)[0])
    change(fields)
    return ber.tlv(ber.SEQUENCE, oid, ber.tlv(0xA0, ber.tlv(ber.SEQUENCE, *fields)))


def with_signer(change: Callable[[list[bytes]], object]) -> bytes:
    """The same for the signer info (version, sid, digest, attributes, algorithm, signature)."""

    def apply(fields: list[bytes]) -> None:
        info = parts_of(parts_of(fields[-1])[0])
        change(info)
        fields[-1] = ber.tlv(ber.SET, ber.tlv(ber.SEQUENCE, *info))

    return rebuilt(apply)


@pytest.mark.parametrize("encoding", ["der", "ber"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_signed_verifies(algorithm: Algorithm, encoding: Encoding) -> None:
    signed = parse_signed(signed_by(algorithm, encoding))
    assert verify(signed, key_of(algorithm)) is None
    assert signed.content == CONTENT
    assert signed.certificate == practice(algorithm).certificate_der
    assert signed.signing_time == NOW
    assert signed.recipient_emails == (PAIR,)


def test_the_signer_info_has_the_attributes_of_kim_md_7_1() -> None:
    signed = asn1_cms.ContentInfo.load(SIGNED, strict=True)["content"]
    (info,) = signed["signer_infos"]
    types = {attribute["type"].dotted for attribute in info["signed_attrs"]}
    assert types == {
        "1.2.840.113549.1.9.3",
        "1.2.840.113549.1.9.4",
        "1.2.840.113549.1.9.5",
        "1.2.840.113549.1.9.52",
        "1.2.840.113549.1.9.16.2.47",
        "1.2.276.0.76.4.173",
    }
    assert info["signed_attrs"].untag().dump(force=True) == parse_signed(SIGNED).attributes
    assert signed["version"].native == "v1"
    assert len(signed["certificates"]) == 1
    assert info["sid"].name == "issuer_and_serial_number"


def test_another_content_is_a_digest_mismatch() -> None:
    signed = replace(parse_signed(SIGNED), content=b"something else")
    assert verify(signed, key_of()) is Mismatch.DIGEST


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_key_or_signature_is_a_signature_mismatch(algorithm: Algorithm) -> None:
    signed = parse_signed(signed_by(algorithm))
    for key in (key_of("rsa"), key_of("p256"), key_of("brainpool")):
        assert (verify(signed, key) is None) == (key == key_of(algorithm))
    assert verify(replace(signed, signature=signed.signature[::-1]), key_of(algorithm)) is Mismatch.SIGNATURE
    assert verify(replace(signed, signature=b""), key_of(algorithm)) is Mismatch.SIGNATURE


def test_a_certificate_that_the_signer_did_not_name_is_found_out() -> None:
    signed = replace(parse_signed(SIGNED), certificate=practice("rsa").certificate_der)
    assert verify(signed, key_of()) is Mismatch.CERTIFICATE


def test_signed_attributes_in_ber_are_hashed_in_der() -> None:
    def to_ber(info: list[bytes]) -> None:
        attributes = parts_of(info[3])
        info[3] = ber.indefinite(0xA0, *reversed(attributes))

    signed = parse_signed(with_signer(to_ber))
    assert signed.attributes != parse_signed(SIGNED).attributes
    assert verify(signed, key_of()) is None


def test_an_attribute_whose_value_is_no_asn1_only_fails_to_verify() -> None:
    """Found by fuzzing: rewriting it raised while the signature was checked."""
    broken = ber.tlv(ber.SEQUENCE, ber.oid("1.2.3"), ber.tlv(ber.SET, ber.tlv(ber.SEQUENCE, b"\x04\x05x")))
    signed = parse_signed(with_signer(lambda info: info.__setitem__(3, ber.tlv(0xA0, *parts_of(info[3]), broken))))
    assert verify(signed, key_of()) is Mismatch.SIGNATURE


def test_a_signer_may_be_named_by_its_key_identifier() -> None:
    identifier = practice("p256").certificate.extensions[0].value.digest
    signed = parse_signed(with_signer(lambda info: info.__setitem__(1, ber.tlv(0x80, identifier))))
    assert signed.certificate == practice("p256").certificate_der


def test_a_certificate_that_is_not_enclosed_is_none() -> None:
    other = ber.tlv(0xA0, practice("rsa").certificate_der)
    assert parse_signed(rebuilt(lambda fields: fields.__setitem__(3, other))).certificate is None
    assert parse_signed(rebuilt(lambda fields: fields.pop(3))).certificates == ()


def test_enclosed_revocation_infos_are_found() -> None:
    answer = ca().ocsp(practice().certificate, NOW)
    signed = parse_signed(build_signed(CONTENT, practice().signer(), NOW, ocsp=[answer], chain=[b"\x30\x00"]))
    assert signed.ocsp == (answer,)
    assert len(signed.certificates) == 2


def test_revocation_values_among_the_unsigned_attributes_are_found() -> None:
    answer = ca().ocsp(practice().certificate, NOW)
    response = parts_of(parts_of(answer)[1])[0]
    basic = ber.contents(response, ber.children(response, ber.whole(response, ber.SEQUENCE))[1])
    values = ber.tlv(ber.SEQUENCE, ber.tlv(0xA1, ber.tlv(ber.SEQUENCE, basic)))
    attribute = ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.9.16.2.24"), ber.tlv(ber.SET, values))
    assert parse_signed(with_signer(lambda info: info.append(ber.tlv(0xA1, attribute)))).ocsp == (answer,)


def test_nobody_signed_is_told_apart_from_a_wrong_format() -> None:
    with pytest.raises(NoSignatureError):
        parse_signed(rebuilt(lambda fields: fields.__setitem__(-1, ber.tlv(ber.SET))))
    with pytest.raises(NoSignatureError):
        parse_signed(ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.7.1"), ber.tlv(0xA0, ber.tlv(4, b"x"))))


def two_signers(fields: list[bytes]) -> None:
    fields[-1] = ber.tlv(ber.SET, *parts_of(fields[-1]) * 2)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (rebuilt(two_signers), "2 signers"),
        (
            rebuilt(lambda fields: fields.__setitem__(2, ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.7.1")))),
            "detached",
        ),
        (
            rebuilt(lambda fields: fields.__setitem__(2, ber.tlv(ber.SEQUENCE, ber.oid("1.2.3"), ber.tlv(0xA0)))),
            "id-data",
        ),
        (with_signer(lambda info: info.pop(3)), "no signed attributes"),
        (with_signer(lambda info: info.__setitem__(3, ber.tlv(0xA0, *parts_of(info[3])[:1]))), "missing"),
        (with_signer(lambda info: info.__setitem__(3, ber.tlv(0xA0, *parts_of(info[3]) * 2))), "twice"),
        (with_signer(lambda info: info.__setitem__(4, PSS_SHA256_ALGORITHM)), "other algorithms"),
        (with_signer(lambda info: info.__setitem__(1, ber.tlv(0x81, b"x"))), "identifier"),
    ],
)
def test_what_is_outside_the_profile_is_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(SignatureFormatError, match=says):
        parse_signed(data)


SHA1 = ber.tlv(ber.SEQUENCE, ber.oid("1.3.14.3.2.26"))
ED25519 = ber.tlv(ber.SEQUENCE, ber.oid("1.3.101.112"))
PSS_WITHOUT_PARAMETERS = ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.1.10"))


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.__setitem__(2, SHA1),
        lambda info: info.__setitem__(4, ED25519),
        lambda info: info.__setitem__(4, PSS_WITHOUT_PARAMETERS),
    ],
)
def test_algorithms_outside_the_profile_are_malformed(change: Callable[[list[bytes]], object]) -> None:
    with pytest.raises(UnknownAlgorithmError):
        parse_signed(with_signer(change))


def test_null_parameters_make_no_difference() -> None:
    written = ber.tlv(ber.SEQUENCE, parts_of(SHA256_ALGORITHM)[0], b"\x05\x00")
    assert digest_name(written) == digest_name(SHA256_ALGORITHM) == "sha256"


def test_the_parameters_of_pss_are_read() -> None:
    scheme = signature_scheme(PSS_SHA256_ALGORITHM, "sha256")
    assert (scheme.kind, scheme.digest, scheme.mgf, scheme.salt) == ("pss", "sha256", "sha256", 32)
    assert signature_scheme(ECDSA_SHA256_ALGORITHM, "sha512").digest == "sha256"


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(1999, 1, 1, tzinfo=UTC),
    ],
)
def test_signing_times_on_both_sides_of_2050_survive(moment: datetime) -> None:
    assert parse_signed(build_signed(b"x", practice("p256").signer(), moment)).signing_time == moment


class OtherAlgorithm:
    """A signer that does not do what its certificate says."""

    def __init__(self, signer: Signer) -> None:
        self.certificate = signer.certificate
        self._signer = signer

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        return ECDSA_SHA256_ALGORITHM, self._signer.sign(data)[1]


def test_a_signer_with_another_algorithm_than_its_certificate_is_stopped() -> None:
    with pytest.raises(CorruptError):
        build_signed(CONTENT, OtherAlgorithm(practice("rsa").signer()), NOW)


STREAMED = signed_by(encoding="ber")


@given(st.data())
def test_any_damage_to_signed_data_is_malformed_or_found_out(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([SIGNED, STREAMED]))
    octets = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        signed = parse_signed(bytes(octets))
        held = verify(signed, key_of()) is None
    except MalformedError:
        return
    assert not held or signed.content == CONTENT


@given(st.binary(max_size=300))
def test_any_octets_are_signed_data_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_signed(data)
