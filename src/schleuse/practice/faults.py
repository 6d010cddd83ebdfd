"""One broken thing at a time: what `schleuse practice send --faulty` can break, and which code must come back.

Every fault is real on the wire: a changed document under an unchanged signature, an envelope for somebody
else's key, a mail without signature. Codes are those of eau.md § 12.1.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from schleuse.mail.smime.envelope import build_envelope
from schleuse.practice.documents import Document
from schleuse.practice.identity import Identity
from schleuse.practice.mailing import Addressee, client_mail, kim_mail, signed_payload
from schleuse.vault import Signer
from schleuse.vault.private_keys import key_signer


@dataclass(frozen=True, slots=True)
class Fault:
    """code: of the Fehlernachricht that must come back for an eAU, None: none at all. twice: the mail is sent twice."""

    name: str
    code: int | None
    german: str
    english: str
    twice: bool = False


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("signature", 202, "Dokument nach dem Signieren verändert", "document changed after signing"),
        Fault("certificate", 201, "signiert mit fremdem Zertifikat", "signed with an untrusted certificate"),
        Fault("charset", 103, "UTF-8 mit BOM", "UTF-8 with a byte order mark"),
        Fault("schema", 101, "Pflichtfeld fehlt (festgestellt am)", "a required element is missing"),
        Fault("attachment", 101, "Anhang vergessen", "the attachment is missing"),
        Fault("mail-signature", 311, "Mail nach dem Signieren verändert", "mail changed after signing"),
        Fault("mail-unsigned", 309, "Mail ohne Signatur", "mail without signature"),
        Fault("encryption", 307, "altes Verschlüsselungsformat", "old encryption format (EnvelopedData)"),
        Fault("key", 313, "für einen fremden Schlüssel verschlüsselt", "encrypted for somebody else's key"),
        Fault("duplicate", None, "dieselbe Mail zweimal", "the same mail twice", twice=True),
    )
}


@dataclass(frozen=True, slots=True, repr=False)
class Workshop:
    """What a broken mail is built with."""

    practice: Identity
    to: Addressee
    prefix: Literal["E", "T"]
    message_id: str
    now: datetime

    def build(self, document: Document, fault: Fault) -> bytes:
        """The mail on the wire with this fault in it."""
        return _BUILDERS[fault.name](self, document)

    def payload(self, document: Document) -> bytes:
        return signed_payload(document, self.practice.payload_signer, self.now)

    def inner(self, document: Document, payload: bytes | None) -> bytes:
        return client_mail(
            self.practice, self.to, document, payload, prefix=self.prefix, message_id=self.message_id, now=self.now
        )

    def wire(self, inner: bytes) -> bytes:
        return kim_mail(self.practice, self.to, inner, self.now)


def _signature(workshop: Workshop, document: Document) -> bytes:
    payload = workshop.payload(document)
    changed = _swap(payload, b"Arbeitsunf", b"Arbeitsumf")
    return workshop.wire(workshop.inner(document, changed))


def _certificate(workshop: Workshop, document: Document) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    stranger = key_signer(_self_signed(key, workshop.now), key)
    payload = signed_payload(document, stranger, workshop.now)
    return workshop.wire(workshop.inner(document, payload))


def _charset(workshop: Workshop, document: Document) -> bytes:
    marked = replace(document, xml=b"\xef\xbb\xbf" + document.xml)
    return workshop.wire(workshop.inner(document, workshop.payload(marked)))


def _schema(workshop: Workshop, document: Document) -> bytes:
    broken = replace(document, xml=_swap(document.xml, b"condition-assertedDate", b"condition-assertedDatx"))
    return workshop.wire(workshop.inner(document, workshop.payload(broken)))


def _attachment(workshop: Workshop, document: Document) -> bytes:
    return workshop.wire(workshop.inner(document, None))


def _mail_signature(workshop: Workshop, document: Document) -> bytes:
    liar = replace(workshop.practice, mail_signer=_OtherOctets(workshop.practice.mail_signer))
    return kim_mail(liar, workshop.to, workshop.inner(document, workshop.payload(document)), workshop.now)


def _mail_unsigned(workshop: Workshop, document: Document) -> bytes:
    inner = workshop.inner(document, workshop.payload(document))
    recipients = [
        (workshop.to.address, workshop.to.certificate),
        (workshop.practice.address, workshop.practice.encryption_certificate),
    ]
    wrapped = b"Content-Type: message/rfc822\r\n\r\n" + inner
    return _with_body(workshop.wire(inner), build_envelope(wrapped, recipients))


def _encryption(workshop: Workshop, document: Document) -> bytes:
    inner = workshop.inner(document, workshop.payload(document))
    certificate = x509.load_der_x509_certificate(workshop.to.certificate)
    old = pkcs7.PKCS7EnvelopeBuilder().set_data(inner).add_recipient(certificate)
    return _with_body(workshop.wire(inner), old.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary]))


def _key(workshop: Workshop, document: Document) -> bytes:
    stranger = _self_signed(rsa.generate_private_key(65537, 2048), workshop.now)
    elsewhere = replace(workshop, to=Addressee(workshop.to.address, stranger))
    return elsewhere.wire(workshop.inner(document, workshop.payload(document)))


def _duplicate(workshop: Workshop, document: Document) -> bytes:
    return workshop.wire(workshop.inner(document, workshop.payload(document)))


@dataclass(frozen=True, slots=True)
class _OtherOctets:
    """A signer that signs something else than it was given."""

    honest: Signer

    @property
    def certificate(self) -> bytes:
        return self.honest.certificate

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        return self.honest.sign(data + b"changed")


def _with_body(wire: bytes, cms: bytes) -> bytes:
    """The same outer header around another CMS object."""
    return wire.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + base64.encodebytes(cms).replace(b"\n", b"\r\n")


def _swap(data: bytes, old: bytes, new: bytes) -> bytes:
    """Octets replaced by as many others, so that only a digest or a rule notices."""
    if len(old) != len(new) or old not in data:
        raise ValueError("the octets to break are not there")
    return data.replace(old, new, 1)


def _self_signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, now: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Unbekannte Karte")])
    start, end = now - timedelta(days=1), now + timedelta(days=30)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


_BUILDERS: Mapping[str, Callable[[Workshop, Document], bytes]] = {
    "signature": _signature,
    "certificate": _certificate,
    "charset": _charset,
    "schema": _schema,
    "attachment": _attachment,
    "mail-signature": _mail_signature,
    "mail-unsigned": _mail_unsigned,
    "encryption": _encryption,
    "key": _key,
    "duplicate": _duplicate,
}
