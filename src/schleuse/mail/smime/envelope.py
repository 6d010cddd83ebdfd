"""AuthEnvelopedData with AES-256-GCM: read, open, build (RFC 5083, 5084; kim.md § 7.2).

Opening never says why it failed. Whether the content key did not unwrap, had the wrong length or the content was
changed: the same steps run and the same error comes out, so that a sender learns nothing about the key (RFC 3218).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schleuse.errors import MalformedError
from schleuse.mail.smime import ber
from schleuse.mail.smime.recipients import (
    RECIPIENT_EMAILS,
    RecipientEmail,
    issuer_and_serial,
    parse_recipient_emails,
    recipient_emails_attribute,
)
from schleuse.vault import WrappedKey
from schleuse.vault.algorithms import OAEP_SHA256_ALGORITHM
from schleuse.vault.contracts import UnsupportedWrapError, UnwrapFailedError

AUTH_ENVELOPED_DATA = ber.oid("1.2.840.113549.1.9.16.1.23")
ENVELOPED_DATA = ber.oid("1.2.840.113549.1.7.3")
DATA = ber.oid("1.2.840.113549.1.7.1")
AES_256_GCM = ber.oid("2.16.840.1.101.3.4.1.46")
#: TI ECIES transport encryption (kim.md § 7.4); nobody here opens it yet, the vault's seam is the place.
TI_ECIES = ber.oid("1.2.276.0.76.4.222")

KEY_OCTETS, NONCE_OCTETS, ICV_OCTETS = 32, 12, 16
MAX_RECIPIENTS = 1_000
#: [2] (RFC 5083 § 2.1), and [3], as OpenSSL 3.0 has it (3.0.19 reads nothing else, 3.5.9 is right).
_UNAUTHENTICATED = frozenset({0xA2, 0xA3})
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)

#: (DER of a recipient's certificate, content key) -> the recipient info.
Wrap = Callable[[bytes, bytes], WrappedKey]
Random = Callable[[int], bytes]


class EnvelopeFormatError(MalformedError):
    """No AuthEnvelopedData of the KIM profile. Says what differs: that is visible to anybody anyway."""

    code = "smime.envelope-format"


class DecryptionFailedError(MalformedError):
    """It is an envelope for us and does not open. No cause is told, on purpose."""

    code = "smime.decryption-failed"

    def __init__(self) -> None:
        super().__init__("the envelope does not open with the recipient's key; its sender must build it anew")


@dataclass(frozen=True, slots=True, repr=False)
class Envelope:
    """What stands in an AuthEnvelopedData. recipient_emails: None if the attribute is absent. aad: of authAttrs."""

    recipients: tuple[WrappedKey, ...]
    recipient_emails: tuple[RecipientEmail, ...] | None
    nonce: bytes
    ciphertext: bytes
    mac: bytes
    aad: bytes | None = None


def parse_envelope(data: bytes) -> Envelope:
    """Raises EnvelopeFormatError, BadEncodingError."""
    return ber.with_definite_lengths(data, _parse)


def _parse(data: bytes) -> Envelope:
    fields = ber.children(data, _content(data))
    at = 2 if len(fields) > 1 and fields[1][0] == 0xA0 else 1  # originatorInfo [0]
    if len(fields) < at + 3:
        raise EnvelopeFormatError("the AuthEnvelopedData has too few fields")
    recipients, encrypted = fields[at], fields[at + 1]
    at += 2
    aad = None
    if fields[at][0] == 0xA1:
        aad = ber.to_der(b"\x31" + data[fields[at][1] + 1 : fields[at][3]])  # RFC 5083 § 2.2
        at += 1
    if len(fields) <= at:
        raise EnvelopeFormatError("the AuthEnvelopedData has no mac")
    mac = ber.octets(data, ber.expect(fields[at], ber.OCTET_STRING))
    pairs = None
    if len(fields) > at + 1:
        pairs = _recipient_emails(data, fields[at + 1])
    nonce, ciphertext = _encrypted_content(data, encrypted)
    if len(mac) != ICV_OCTETS:
        raise EnvelopeFormatError(f"the mac has {len(mac)} octets instead of {ICV_OCTETS}")
    return Envelope(_recipients(data, recipients), pairs, nonce, ciphertext, mac, aad)


def _content(data: bytes) -> ber.Element:
    """The SEQUENCE of the AuthEnvelopedData in its ContentInfo."""
    fields = ber.children(data, ber.whole(data, ber.SEQUENCE))
    if len(fields) != 2:
        raise EnvelopeFormatError("the CMS object is no ContentInfo")
    type_ = ber.encoding(data, fields[0])
    if type_ == ENVELOPED_DATA:
        raise EnvelopeFormatError("found EnvelopedData where AuthEnvelopedData was expected")
    if type_ != AUTH_ENVELOPED_DATA:
        raise EnvelopeFormatError("the CMS object is no AuthEnvelopedData")
    inside = ber.children(data, ber.expect(fields[1], 0xA0))
    if len(inside) != 1:
        raise EnvelopeFormatError("the ContentInfo has not exactly one content")
    return ber.expect(inside[0], ber.SEQUENCE)


def _recipients(data: bytes, infos: ber.Element) -> tuple[WrappedKey, ...]:
    found = ber.children(data, ber.expect(infos, ber.SET))
    if not 0 < len(found) <= MAX_RECIPIENTS:
        raise EnvelopeFormatError(f"the envelope has {len(found)} recipients")
    return tuple(_key_transport(data, info) for info in found)


def _key_transport(data: bytes, info: ber.Element) -> WrappedKey:
    if info[0] != ber.SEQUENCE:
        raise EnvelopeFormatError("a recipient is no KeyTransRecipientInfo; KIM knows no other kind, such as KeyAgree")
    fields = ber.children(data, info)
    if len(fields) != 4:
        raise EnvelopeFormatError("a KeyTransRecipientInfo has not four fields")
    _, recipient, algorithm, key = fields
    return WrappedKey(
        recipient=ber.encoding(data, recipient),
        algorithm=ber.encoding(data, algorithm),
        encrypted_key=ber.octets(data, ber.expect(key, ber.OCTET_STRING)),
    )


def _encrypted_content(data: bytes, info: ber.Element) -> tuple[bytes, bytes]:
    """(nonce, ciphertext) of an EncryptedContentInfo."""
    fields = ber.children(data, ber.expect(info, ber.SEQUENCE))
    if len(fields) != 3 or fields[2][0] & ~ber.CONSTRUCTED != 0x80:
        raise EnvelopeFormatError("the envelope has no encrypted content")
    if ber.encoding(data, fields[0]) != DATA:
        raise EnvelopeFormatError("the encrypted content is not of the type id-data")
    algorithm = ber.children(data, ber.expect(fields[1], ber.SEQUENCE))
    if len(algorithm) != 2 or ber.encoding(data, algorithm[0]) != AES_256_GCM:
        raise EnvelopeFormatError("the content is not encrypted with AES-256-GCM")
    parameters = ber.children(data, ber.expect(algorithm[1], ber.SEQUENCE))
    if not parameters:
        raise EnvelopeFormatError("the parameters of AES-256-GCM lack the nonce")
    nonce = ber.octets(data, ber.expect(parameters[0], ber.OCTET_STRING))
    if len(nonce) != NONCE_OCTETS:
        raise EnvelopeFormatError(f"the nonce has {len(nonce)} octets instead of {NONCE_OCTETS}")
    # The default of RFC 5084 § 3.2 is 12; where the mac has 16 all the same, only the parameter was forgotten.
    if len(parameters) > 1 and ber.integer(data, parameters[1]) != ICV_OCTETS:
        raise EnvelopeFormatError(f"the ICV length is not {ICV_OCTETS}")
    return nonce, ber.octets(data, fields[2])


def _recipient_emails(data: bytes, attributes: ber.Element) -> tuple[RecipientEmail, ...] | None:
    """The pairs in the unauthenticated attributes, found by OID and not by position."""
    if attributes[0] not in _UNAUTHENTICATED:
        raise EnvelopeFormatError("something else than unauthenticated attributes follows the mac")
    found = None
    for attribute in ber.children(data, attributes):
        fields = ber.children(data, ber.expect(attribute, ber.SEQUENCE))
        if len(fields) == 2 and ber.encoding(data, fields[0]) == RECIPIENT_EMAILS:
            if found is not None:
                raise EnvelopeFormatError("the envelope has recipient-emails twice")
            found = parse_recipient_emails(data, fields[1])
    return found


def open_envelope(
    envelope: Envelope, wrapped: WrappedKey, unwrap: Callable[[WrappedKey], bytes], random: Random = os.urandom
) -> bytes:
    """The content, by the key of one recipient info.

    Raises DecryptionFailedError; UnsupportedWrapError and KeyMissingError come through from unwrap.
    """
    substitute = random(KEY_OCTETS)
    try:
        key = unwrap(wrapped)
        usable = len(key) == KEY_OCTETS
    except UnwrapFailedError:
        key, usable = substitute, False
    # A bad key costs the same decryption as a good one; a random key makes it fail there (RFC 3218 § 2.3.2).
    try:
        content = AESGCM(key if usable else substitute).decrypt(
            envelope.nonce, b"".join((envelope.ciphertext, envelope.mac)), envelope.aad
        )
    except (InvalidTag, OverflowError, ValueError):
        raise DecryptionFailedError from None
    if not usable:
        raise DecryptionFailedError
    return content


def wrap_for(certificate: bytes, key: bytes) -> WrappedKey:
    """The recipient info for an RSA certificate. Raises UnsupportedWrapError for EC (TI ECIES, kim.md § 7.4)."""
    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError as cause:
        raise EnvelopeFormatError("the certificate of a recipient cannot be read") from cause
    if not isinstance(public, rsa.RSAPublicKey):
        raise UnsupportedWrapError(
            "the certificate of a recipient has no RSA key; EC recipients (TI ECIES) are not supported yet"
        )
    return WrappedKey(issuer_and_serial(certificate), OAEP_SHA256_ALGORITHM, public.encrypt(key, _OAEP))


def build_envelope(
    content: bytes,
    recipients: Sequence[tuple[str, bytes]],
    *,
    wrap: Wrap = wrap_for,
    random: Random = os.urandom,
) -> bytes:
    """DER of the AuthEnvelopedData over content.

    recipients: (KIM address, DER of the certificate), the sender among them; one recipient info each.
    """
    if not recipients:
        raise EnvelopeFormatError("an envelope needs at least one recipient")
    key, nonce = random(KEY_OCTETS), random(NONCE_OCTETS)
    encrypted = AESGCM(key).encrypt(nonce, content, None)
    wrapped = [wrap(certificate, key) for _, certificate in recipients]
    pairs = [RecipientEmail(address, one.recipient) for (address, _), one in zip(recipients, wrapped, strict=True)]
    gcm = ber.tlv(ber.SEQUENCE, ber.tlv(ber.OCTET_STRING, nonce), ber.small_integer(ICV_OCTETS))
    body = ber.tlv(
        ber.SEQUENCE,
        ber.small_integer(0),
        ber.set_of(ber.SET, *(_recipient_info(one) for one in wrapped)),
        ber.tlv(
            ber.SEQUENCE,
            DATA,
            ber.tlv(ber.SEQUENCE, AES_256_GCM, gcm),
            ber.tlv(0x80, encrypted[:-ICV_OCTETS]),
        ),
        ber.tlv(ber.OCTET_STRING, encrypted[-ICV_OCTETS:]),
        ber.tlv(0xA2, recipient_emails_attribute(pairs)),
    )
    return ber.tlv(ber.SEQUENCE, AUTH_ENVELOPED_DATA, ber.tlv(0xA0, body))


def _recipient_info(wrapped: WrappedKey) -> bytes:
    return ber.tlv(
        ber.SEQUENCE,
        ber.small_integer(0),
        wrapped.recipient,
        wrapped.algorithm,
        ber.tlv(ber.OCTET_STRING, wrapped.encrypted_key),
    )
