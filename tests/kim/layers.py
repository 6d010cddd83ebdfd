"""A KIM mail built layer by layer, so that each layer can be wrong on its own (kim.md § 4)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.mail.smime.samples import INSURER, NOW, PRACTICE, insurer, practice

from schleuse.kim.pki import Identity
from schleuse.mail.smime import ber
from schleuse.mail.smime.envelope import TI_ECIES, Wrap, build_envelope, wrap_for
from schleuse.mail.smime.recipients import RecipientEmail, issuer_and_serial, recipient_emails_attribute
from schleuse.mail.smime.signing import build_signed
from schleuse.vault import WrappedKey

FIELDS = f"From: {PRACTICE}\r\nTo: {INSURER}\r\nDate: Mon, 02 Mar 2026 11:30:00 +0100\r\nMessage-ID: <1@b.c>\r\n"
CLIENT_MAIL = (FIELDS + "Subject: EEAU0_x\r\n\r\nHallo\r\n").encode()


def recipients() -> list[tuple[str, bytes]]:
    return [(INSURER, insurer().certificate_der), (PRACTICE, practice(kind="enc").certificate_der)]


def ecies(certificate: bytes, key: bytes) -> WrappedKey:
    """Names TI ECIES (kim.md § 7.4) as key transport, without being able to do it."""
    return WrappedKey(issuer_and_serial(certificate), ber.tlv(ber.SEQUENCE, TI_ECIES), b"\xa6\x00")


@dataclass(frozen=True)
class Layers:
    """One valid mail; `replace()` makes the others."""

    client_mail: bytes = CLIENT_MAIL
    wrapper: bytes = b"Content-Type: message/rfc822\r\n\r\n"
    signer: Identity = field(default_factory=lambda: practice("p256"))
    signed_for: Sequence[tuple[str, bytes]] | None = field(default_factory=recipients)
    sealed_for: Sequence[tuple[str, bytes]] = field(default_factory=recipients)
    wrap: Wrap = wrap_for
    signed_head: bytes = (
        b"MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n"
        b"Content-Transfer-Encoding: binary\r\n\r\n"
    )
    outer_fields: str = FIELDS
    version: str | None = "1.0"
    outer_type: str = "application/pkcs7-mime; smime-type=authenticated-enveloped-data; name=smime.p7m"

    def signed(self) -> bytes:
        """Layer C without its head."""
        attributes = []
        if self.signed_for is not None:
            pairs = [RecipientEmail(address, issuer_and_serial(der)) for address, der in self.signed_for]
            attributes.append(recipient_emails_attribute(pairs))
        return build_signed(self.wrapper + self.client_mail, self.signer.signer(), NOW, attributes=attributes)

    def sealed(self, content: bytes | None = None) -> bytes:
        inside = self.signed_head + self.signed() if content is None else content
        return build_envelope(inside, self.sealed_for, wrap=self.wrap)

    def mail(self, sealed: bytes | None = None) -> bytes:
        body = base64.encodebytes(self.sealed() if sealed is None else sealed).replace(b"\n", b"\r\n")
        version = "" if self.version is None else f"X-KOM-LE-Version: {self.version}\r\n"
        head = (
            f"{self.outer_fields}Subject: KOM-LE-Nachricht\r\n{version}MIME-Version: 1.0\r\n"
            f"Content-Type: {self.outer_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        )
        return head.encode("utf-8") + body
