"""SignedData built around a content, with the signed attributes of kim.md § 7.1.

RFC 5652 § 5 and 11, RFC 5035 (signingCertificateV2), RFC 6211 (CMSAlgorithmProtection).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from schleuse.errors import CorruptError
from schleuse.mail.smime import ber
from schleuse.mail.smime.algorithms import SHA256_ALGORITHM, signature_algorithm_of
from schleuse.mail.smime.recipients import issuer_and_serial
from schleuse.mail.smime.signed import (
    ALGORITHM_PROTECTION,
    CONTENT_TYPE,
    DATA,
    MESSAGE_DIGEST,
    RI_OCSP_RESPONSE,
    SIGNED_DATA,
    SIGNING_CERTIFICATE_V2,
    SIGNING_TIME,
)
from schleuse.vault import Signer

#: "der", or "ber" with indefinite lengths and chunks, as a Konnektor writes (kim.md § 7.5).
Encoding = Literal["der", "ber"]


class SignerAlgorithmError(CorruptError):
    """A signer used another algorithm than its certificate's kind of key calls for."""

    code = "smime.signer-algorithm"


def build_signed(
    content: bytes,
    signer: Signer,
    signing_time: datetime,
    *,
    attributes: Sequence[bytes] = (),
    chain: Sequence[bytes] = (),
    ocsp: Sequence[bytes] = (),
    encoding: Encoding = "der",
) -> bytes:
    """The SignedData that encapsulates content.

    attributes: further signed ones, such as recipient-emails. chain: certificates (DER) beside the signer's.
    ocsp: OCSPResponses (DER) to enclose, as a qualified signature has them (eau.md § 4).
    Raises KeyMissingError (of the signer), SignerAlgorithmError.
    """
    algorithm = signature_algorithm_of(signer.certificate)
    signed = _signed_attributes(content, signer.certificate, algorithm, signing_time, attributes)
    used, signature = signer.sign(ber.set_of(ber.SET, *signed))
    if used != algorithm:
        raise SignerAlgorithmError("the signer used another algorithm than its certificate stands for")
    info = ber.tlv(
        ber.SEQUENCE,
        ber.small_integer(1),
        issuer_and_serial(signer.certificate),
        SHA256_ALGORITHM,
        ber.set_of(0xA0, *signed),
        algorithm,
        ber.tlv(ber.OCTET_STRING, signature),
    )
    before = [ber.small_integer(5 if ocsp else 1), ber.tlv(ber.SET, SHA256_ALGORITHM)]  # version: RFC 5652 § 5.1
    after = [ber.set_of(0xA0, signer.certificate, *chain)]
    if ocsp:
        after.append(ber.set_of(0xA1, *(ber.tlv(0xA1, RI_OCSP_RESPONSE, one) for one in ocsp)))
    after.append(ber.tlv(ber.SET, info))
    return _assemble(before, content, after, encoding)


def _assemble(before: list[bytes], content: bytes, after: list[bytes], encoding: Encoding) -> bytes:
    if encoding == "ber":
        inside = ber.indefinite(0xA0, ber.chunked(ber.OCTET_STRING, content))
        body = ber.indefinite(ber.SEQUENCE, *before, ber.indefinite(ber.SEQUENCE, DATA, inside), *after)
        return ber.indefinite(ber.SEQUENCE, SIGNED_DATA, ber.indefinite(0xA0, body))
    inside = ber.tlv(0xA0, ber.tlv(ber.OCTET_STRING, content))
    body = ber.tlv(ber.SEQUENCE, *before, ber.tlv(ber.SEQUENCE, DATA, inside), *after)
    return ber.tlv(ber.SEQUENCE, SIGNED_DATA, ber.tlv(0xA0, body))


def _signed_attributes(
    content: bytes, certificate: bytes, algorithm: bytes, signing_time: datetime, more: Sequence[bytes]
) -> list[bytes]:
    protection = ber.tlv(ber.SEQUENCE, SHA256_ALGORITHM, b"\xa1" + algorithm[1:])
    hashed = ber.tlv(ber.SEQUENCE, ber.tlv(ber.OCTET_STRING, hashlib.sha256(certificate).digest()))
    signing_certificate = ber.tlv(ber.SEQUENCE, ber.tlv(ber.SEQUENCE, hashed))
    return [
        _attribute(CONTENT_TYPE, DATA),
        _attribute(SIGNING_TIME, _time(signing_time)),
        _attribute(MESSAGE_DIGEST, ber.tlv(ber.OCTET_STRING, hashlib.sha256(content).digest())),
        _attribute(ALGORITHM_PROTECTION, protection),
        _attribute(SIGNING_CERTIFICATE_V2, signing_certificate),
        *more,
    ]


def _attribute(type_: bytes, value: bytes) -> bytes:
    return ber.tlv(ber.SEQUENCE, type_, ber.tlv(ber.SET, value))


def _time(moment: datetime) -> bytes:
    """UTCTime until 2049, GeneralizedTime after (RFC 5652 § 11.3)."""
    utc = moment.astimezone(UTC)
    if utc.year < 2050:
        return ber.tlv(0x17, utc.strftime("%y%m%d%H%M%SZ").encode())
    return ber.tlv(0x18, utc.strftime("%Y%m%d%H%M%SZ").encode())
