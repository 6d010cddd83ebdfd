"""SignedData with exactly one signer: read and verify (RFC 5652 § 5, 11; kim.md § 7.1, eau.md § 4).

Reads what KIM mails and CAdES enveloping files (`.p7s`) carry; whether the signer may be trusted is `trust`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from cryptography import x509

from schleuse.errors import MalformedError
from schleuse.mail.smime import ber
from schleuse.mail.smime.algorithms import (
    DigestName,
    PublicKey,
    Scheme,
    digest_name,
    signature_holds,
    signature_scheme,
)
from schleuse.mail.smime.recipients import (
    RECIPIENT_EMAILS,
    RecipientEmail,
    issuer_and_serial,
    parse_recipient_emails,
)

SIGNED_DATA = ber.oid("1.2.840.113549.1.7.2")
DATA = ber.oid("1.2.840.113549.1.7.1")
CONTENT_TYPE = ber.oid("1.2.840.113549.1.9.3")
MESSAGE_DIGEST = ber.oid("1.2.840.113549.1.9.4")
SIGNING_TIME = ber.oid("1.2.840.113549.1.9.5")
ALGORITHM_PROTECTION = ber.oid("1.2.840.113549.1.9.52")
SIGNING_CERTIFICATE_V2 = ber.oid("1.2.840.113549.1.9.16.2.47")
#: RFC 5126 § 6.3.4: unsigned attribute with CRLs [0] and BasicOCSPResponses [1].
REVOCATION_VALUES = ber.oid("1.2.840.113549.1.9.16.2.24")
#: RFC 5940 § 2.1: an OCSPResponse among the crls.
RI_OCSP_RESPONSE = ber.oid("1.3.6.1.5.5.7.16.2")
_OCSP_BASIC = ber.oid("1.3.6.1.5.5.7.48.1.1")

MAX_CERTIFICATES = 50


class NoSignatureError(MalformedError):
    """There is no SignedData, or nobody signed it."""

    code = "smime.no-signature"


class SignatureFormatError(MalformedError):
    """SignedData outside the profile."""

    code = "smime.signature-format"


class Mismatch(Enum):
    """Why a well-formed signature does not hold."""

    DIGEST = "the content is not the one that was signed"
    SIGNATURE = "the signature does not match the signed attributes"
    CERTIFICATE = "the certificate is not the one that the signer named in the signed attributes"


@dataclass(frozen=True, slots=True, repr=False)
class SignedData:
    """What stands in a SignedData with one signer.

    content: the octets that were signed. certificate: DER of the signer's, None if it is not enclosed.
    certificates: all of them. crls, ocsp: DER of CertificateList and OCSPResponse, if enclosed.
    attributes: the signed attributes as they must be hashed; a second form where they came in BER.
    """

    content: bytes
    certificate: bytes | None
    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    ocsp: tuple[bytes, ...]
    digest: DigestName
    scheme: Scheme
    attributes: bytes
    signature: bytes
    message_digest: bytes
    signing_time: datetime | None
    recipient_emails: tuple[RecipientEmail, ...] | None
    signing_certificate: tuple[DigestName, bytes] | None


@dataclass(frozen=True, slots=True, repr=False)
class _Enclosed:
    """What a SignedData carries beside its signer info, all DER."""

    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    ocsp: tuple[bytes, ...] = ()

    def with_revocation(self, crls: tuple[bytes, ...], ocsp: tuple[bytes, ...]) -> _Enclosed:
        return replace(self, crls=self.crls + crls, ocsp=self.ocsp + ocsp)


def parse_signed(data: bytes) -> SignedData:
    """Raises NoSignatureError, SignatureFormatError, UnknownAlgorithmError, BadEncodingError."""
    return ber.with_definite_lengths(data, _parse)


def verify(signed: SignedData, key: PublicKey) -> Mismatch | None:
    """None if the content is what the owner of this key signed."""
    if hashlib.new(signed.digest, signed.content).digest() != signed.message_digest:
        return Mismatch.DIGEST
    if not any(signature_holds(key, signed.scheme, signed.signature, form) for form in _forms(signed.attributes)):
        return Mismatch.SIGNATURE
    if signed.signing_certificate is not None and signed.certificate is not None:
        digest, expected = signed.signing_certificate
        if hashlib.new(digest, signed.certificate).digest() != expected:
            return Mismatch.CERTIFICATE
    return None


def _forms(attributes: bytes) -> Iterator[bytes]:
    """As received, which is DER nearly always; and in DER if that is something else (RFC 5652 § 5.4)."""
    yield attributes
    try:
        rewritten = ber.to_der(attributes)
    except ber.BadEncodingError:
        return  # a value deep inside is no BER: there is no other form
    if rewritten != attributes:
        yield rewritten


def _parse(data: bytes) -> SignedData:
    fields = ber.children(data, _content(data))
    if len(fields) < 4:
        raise SignatureFormatError("the SignedData has too few fields")
    content = _encapsulated(data, fields[2])
    enclosed = _Enclosed()
    at = 3
    if fields[at][0] == 0xA0:
        enclosed = replace(enclosed, certificates=_certificates(data, fields[at]))
        at += 1
    if at < len(fields) and fields[at][0] == 0xA1:
        enclosed = enclosed.with_revocation(*_revocation_infos(data, fields[at]))
        at += 1
    if at >= len(fields):
        raise NoSignatureError("the SignedData has no signer")
    signers = ber.children(data, ber.expect(fields[at], ber.SET))
    if not signers:
        raise NoSignatureError("the SignedData has no signer")
    if len(signers) > 1:
        raise SignatureFormatError(f"the SignedData has {len(signers)} signers; exactly one is expected")
    return _signer(data, signers[0], content, enclosed)


def _content(data: bytes) -> ber.Element:
    """The SEQUENCE of the SignedData in its ContentInfo."""
    fields = ber.children(data, ber.whole(data, ber.SEQUENCE))
    if len(fields) != 2 or fields[1][0] != 0xA0:
        raise SignatureFormatError("the CMS object is no ContentInfo")
    if ber.encoding(data, fields[0]) != SIGNED_DATA:
        raise NoSignatureError("the CMS object is no SignedData")
    inside = ber.children(data, fields[1])
    if len(inside) != 1:
        raise SignatureFormatError("the ContentInfo has not exactly one content")
    return ber.expect(inside[0], ber.SEQUENCE)


def _encapsulated(data: bytes, info: ber.Element) -> bytes:
    fields = ber.children(data, ber.expect(info, ber.SEQUENCE))
    if not fields or ber.encoding(data, fields[0]) != DATA:
        raise SignatureFormatError("the signed content is not of the type id-data")
    if len(fields) != 2 or fields[1][0] != 0xA0:
        raise SignatureFormatError("the SignedData does not hold its content (a detached signature)")
    inside = ber.children(data, fields[1])
    if len(inside) != 1 or inside[0][0] & ~ber.CONSTRUCTED != ber.OCTET_STRING:
        raise SignatureFormatError("the signed content is no octet string")
    return ber.octets(data, inside[0])


def _certificates(data: bytes, choices: ber.Element) -> tuple[bytes, ...]:
    found = ber.children(data, choices)
    if len(found) > MAX_CERTIFICATES:
        raise SignatureFormatError(f"the SignedData has more than {MAX_CERTIFICATES} certificates")
    return tuple(ber.encoding(data, one) for one in found if one[0] == ber.SEQUENCE)


def _revocation_infos(data: bytes, choices: ber.Element) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(CRLs, OCSP responses) of RevocationInfoChoices (RFC 5652 § 10.2.1)."""
    crls, ocsp = [], []
    for choice in ber.children(data, choices):
        if choice[0] == ber.SEQUENCE:
            crls.append(ber.encoding(data, choice))
        elif choice[0] == 0xA1:
            fields = ber.children(data, choice)
            if len(fields) == 2 and ber.encoding(data, fields[0]) == RI_OCSP_RESPONSE:
                ocsp.append(ber.encoding(data, fields[1]))
    return tuple(crls), tuple(ocsp)


def _signer(data: bytes, info: ber.Element, content: bytes, enclosed: _Enclosed) -> SignedData:
    fields = ber.children(data, ber.expect(info, ber.SEQUENCE))
    if len(fields) < 6 or fields[3][0] != 0xA0:
        raise SignatureFormatError("the signer info has no signed attributes")
    _, sid, digest_algorithm, signed, algorithm, signature, *unsigned = fields
    digest = digest_name(ber.encoding(data, digest_algorithm))
    scheme = signature_scheme(ber.encoding(data, algorithm), digest)
    attributes = _attributes(data, signed)
    if ber.encoding(data, _single(data, attributes, CONTENT_TYPE)) != DATA:
        raise SignatureFormatError("the content type in the signed attributes is not id-data")
    if ALGORITHM_PROTECTION in attributes:
        _check_protection(data, _single(data, attributes, ALGORITHM_PROTECTION), digest, scheme)
    pairs = attributes.get(RECIPIENT_EMAILS)
    if unsigned and unsigned[0][0] == 0xA1:
        enclosed = enclosed.with_revocation(*_revocation_values(data, unsigned[0]))
    return SignedData(
        content=content,
        certificate=_certificate_of(data, sid, enclosed.certificates),
        certificates=enclosed.certificates,
        crls=enclosed.crls,
        ocsp=enclosed.ocsp,
        digest=digest,
        scheme=scheme,
        attributes=b"\x31" + data[signed[1] + 1 : signed[3]],  # hashed as SET OF (RFC 5652 § 5.4)
        signature=ber.octets(data, signature),
        message_digest=ber.octets(data, _single(data, attributes, MESSAGE_DIGEST)),
        signing_time=_time(data, _single(data, attributes, SIGNING_TIME)) if SIGNING_TIME in attributes else None,
        recipient_emails=parse_recipient_emails(data, pairs) if pairs is not None else None,
        signing_certificate=_signing_certificate(data, attributes),
    )


def _attributes(data: bytes, attributes: ber.Element) -> dict[bytes, ber.Element]:
    """The SET of values of each attribute, by the DER of its OID. None may occur twice (RFC 5652 § 11)."""
    found: dict[bytes, ber.Element] = {}
    for attribute in ber.children(data, attributes):
        fields = ber.children(data, ber.expect(attribute, ber.SEQUENCE))
        if len(fields) != 2 or fields[1][0] != ber.SET:
            raise SignatureFormatError("a signed attribute is not a type and a set of values")
        type_ = ber.encoding(data, fields[0])
        if type_ in found:
            raise SignatureFormatError("a signed attribute occurs twice")
        found[type_] = fields[1]
    return found


def _single(data: bytes, attributes: dict[bytes, ber.Element], type_: bytes) -> ber.Element:
    values = attributes.get(type_)
    if values is None:
        raise SignatureFormatError("a signed attribute that must be there is missing")
    found = ber.children(data, values)
    if len(found) != 1:
        raise SignatureFormatError("a signed attribute has not exactly one value")
    return found[0]


def _check_protection(data: bytes, value: ber.Element, digest: DigestName, scheme: Scheme) -> None:
    """CMSAlgorithmProtection names the same algorithms as the signer info (RFC 6211 § 2)."""
    fields = ber.children(data, ber.expect(value, ber.SEQUENCE))
    if len(fields) != 2 or fields[1][0] != 0xA1:
        raise SignatureFormatError("CMSAlgorithmProtection does not name a digest and a signature algorithm")
    protected = b"\x30" + data[fields[1][1] + 1 : fields[1][3]]
    if digest_name(ber.encoding(data, fields[0])) != digest or signature_scheme(protected, digest) != scheme:
        raise SignatureFormatError("CMSAlgorithmProtection names other algorithms than the signer info")


def _signing_certificate(data: bytes, attributes: dict[bytes, ber.Element]) -> tuple[DigestName, bytes] | None:
    """(digest, hash) of the first ESSCertIDv2 (RFC 5035 § 3), None without the attribute."""
    if SIGNING_CERTIFICATE_V2 not in attributes:
        return None
    value = _single(data, attributes, SIGNING_CERTIFICATE_V2)
    lists = ber.children(data, ber.expect(value, ber.SEQUENCE))
    ids = ber.children(data, ber.expect(lists[0], ber.SEQUENCE)) if lists else []
    fields = ber.children(data, ber.expect(ids[0], ber.SEQUENCE)) if ids else []
    if not fields:
        raise SignatureFormatError("signingCertificateV2 names no certificate")
    if fields[0][0] == ber.OCTET_STRING:
        return "sha256", ber.contents(data, fields[0])
    if len(fields) < 2:
        raise SignatureFormatError("signingCertificateV2 has no hash")
    return digest_name(ber.encoding(data, fields[0])), ber.octets(data, ber.expect(fields[1], ber.OCTET_STRING))


def _certificate_of(data: bytes, sid: ber.Element, certificates: tuple[bytes, ...]) -> bytes | None:
    """The enclosed certificate that the signer identifier names: by issuer and serial, or by key identifier."""
    if sid[0] == ber.SEQUENCE:
        wanted = ber.encoding(data, sid)
        return next((one for one in certificates if _issuer_and_serial(one) == wanted), None)
    if sid[0] != 0x80:
        raise SignatureFormatError("the signer identifier is neither issuer and serial nor a key identifier")
    key_identifier = ber.contents(data, sid)
    return next((one for one in certificates if _key_identifier(one) == key_identifier), None)


def _issuer_and_serial(certificate: bytes) -> bytes | None:
    try:
        return issuer_and_serial(certificate)
    except ber.BadEncodingError:
        return None  # broken ones beside the signer's do no harm


def _key_identifier(certificate: bytes) -> bytes | None:
    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None


def _revocation_values(data: bytes, unsigned: ber.Element) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(CRLs, OCSP responses) of a revocation-values attribute (RFC 5126 § 6.3.4)."""
    crls: list[bytes] = []
    ocsp: list[bytes] = []
    for attribute in ber.children(data, unsigned):
        fields = ber.children(data, ber.expect(attribute, ber.SEQUENCE))
        if len(fields) != 2 or ber.encoding(data, fields[0]) != REVOCATION_VALUES:
            continue
        for value in ber.children(data, ber.expect(fields[1], ber.SET)):
            for kind in ber.children(data, ber.expect(value, ber.SEQUENCE)):
                if kind[0] not in {0xA0, 0xA1}:
                    continue
                for listed in ber.children(data, kind):
                    items = [ber.encoding(data, item) for item in ber.children(data, listed)]
                    if kind[0] == 0xA0:
                        crls.extend(items)
                    else:
                        ocsp.extend(_ocsp_response(item) for item in items)
    return tuple(crls), tuple(ocsp)


def _ocsp_response(basic: bytes) -> bytes:
    """An OCSPResponse around a BasicOCSPResponse (RFC 6960 § 4.2.1)."""
    response = ber.tlv(ber.SEQUENCE, _OCSP_BASIC, ber.tlv(ber.OCTET_STRING, basic))
    return ber.tlv(ber.SEQUENCE, b"\x0a\x01\x00", ber.tlv(0xA0, response))


def _time(data: bytes, value: ber.Element) -> datetime:
    """A UTCTime or GeneralizedTime in UTC (RFC 5652 § 11.3)."""
    text = ber.contents(data, value)
    year_digits = {0x17: 2, 0x18: 4}.get(value[0])
    if year_digits is None or len(text) != year_digits + 11 or not text[:-1].isdigit() or text[-1:] != b"Z":
        raise SignatureFormatError("the signing time is not written as RFC 5652 § 11.3 wants it")
    year = int(text[:year_digits])
    if year_digits == 2:
        year += 1900 if year >= 50 else 2000
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(year_digits, len(text) - 1, 2))
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as cause:
        raise SignatureFormatError("the signing time does not exist") from cause
