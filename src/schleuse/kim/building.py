"""One KIM mail, built: the client mail wrapped, signed, encrypted and given its outer header (kim.md §§ 4, 5.1, 7)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.utils import format_datetime

import pybase64

from schleuse.errors import MalformedError, RefusedError
from schleuse.kim.address import KIMAddress
from schleuse.mail.head import parse, raw_fields, split
from schleuse.mail.smime.envelope import Wrap, build_envelope, wrap_for
from schleuse.mail.smime.recipients import RecipientEmail, issuer_and_serial, recipient_emails_attribute
from schleuse.mail.smime.signing import Encoding, build_signed
from schleuse.vault import Signer

SUBJECT = "KOM-LE-Nachricht"
#: X-KOM-LE-Version of a mail without KAS (kim.md § 5.1).
VERSION = "1.0"
#: Above this a client mail goes through the KAS (kim.md § 8), which we do not have yet.
MAX_CLIENT_MAIL = 15_728_640
#: Copied from the inner to the outer header, beside all X-KIM-* fields. Bcc is the envelope's business (kim.md § 5.3).
_COPIED = frozenset({"date", "from", "sender", "reply-to", "to", "cc", "message-id"})
_ONCE = ("date", "from", "sender", "reply-to", "to", "cc", "message-id")  # RFC 5322 § 3.6
_MESSAGE_ID = re.compile(r"<[^<>\s@]+@[^<>\s@]+>")
_KAS_PART = re.compile(rb"^content-disposition[ \t]*:\s*x-kas\b", re.IGNORECASE | re.MULTILINE)
_WRAPPER = b"Content-Type: message/rfc822\r\n\r\n"
_SIGNED_HEAD = (
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n"
    b"Content-Transfer-Encoding: binary\r\n"
    b"Content-Disposition: attachment; filename=smime.p7m\r\n\r\n"
)
_ENVELOPE_HEAD = (
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: application/pkcs7-mime;\r\n"
    b" smime-type=authenticated-enveloped-data; name=smime.p7m\r\n"
    b"Content-Transfer-Encoding: base64\r\n"
    b"Content-Disposition: attachment; filename=smime.p7m\r\n\r\n"
)


class BadClientMailError(MalformedError):
    """A client mail from which no KIM mail can be made."""

    code = "kim.bad-client-mail"


class ClientMailRefusedError(RefusedError):
    """A client mail that KIM does not carry, or not without the KAS."""

    code = "kim.client-mail-refused"


def build_kim_mail(
    inner: bytes,
    *,
    signer: Signer,
    recipients: Sequence[tuple[str, bytes]],
    sender: tuple[str, bytes],
    date: datetime,
    message_id: str | None = None,
    cm_version: str | None = None,
    encoding: Encoding = "der",
    wrap: Wrap = wrap_for,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """The mail on the wire (layer D) around a client mail (layer A), signed and encrypted.

    recipients, sender: (KIM address, DER of the encryption certificate); the sender gets a key too (kim.md § 7.2).
    date: signing time, and the Date of an inner mail without one. message_id: for an inner mail without one.
    encoding: of the SignedData. wrap: how a content key is wrapped for a certificate.
    Raises BadClientMailError, BadKIMAddressError, ClientMailRefusedError, UnsupportedWrapError (EC certificate),
    KeyMissingError (signer).
    """
    mail = _client_mail(inner, date, message_id)
    everyone = list(dict.fromkeys([(str(KIMAddress(address)), der) for address, der in (*recipients, sender)]))
    pairs = [RecipientEmail(address, issuer_and_serial(der)) for address, der in everyone]
    signed = build_signed(
        _WRAPPER + mail, signer, date, attributes=[recipient_emails_attribute(pairs)], encoding=encoding
    )
    sealed = build_envelope(_SIGNED_HEAD + signed, everyone, wrap=wrap, random=random)
    body = pybase64.encodebytes(sealed).replace(b"\n", b"\r\n")
    return b"".join((*_outer_fields(mail, cm_version), _ENVELOPE_HEAD, body))


def _client_mail(inner: bytes, date: datetime, message_id: str | None) -> bytes:
    """The client mail with CRLF line ends, and with Date and Message-ID."""
    if len(inner) > MAX_CLIENT_MAIL:
        raise ClientMailRefusedError(f"the client mail has more than {MAX_CLIENT_MAIL} octets and would need the KAS")
    if _KAS_PART.search(inner):
        raise ClientMailRefusedError("the client mail has a part with Content-Disposition x-kas of its own")
    mail = canonical(inner)
    head = parse(split(mail)[0])
    if double := [name for name in _ONCE if len(head.all(name)) > 1]:
        raise BadClientMailError(f"the client mail has these fields more than once: {', '.join(double)}")
    if head.get("from") is None:
        raise BadClientMailError("the client mail has no From")
    if head.get("message-id") is None:
        if message_id is None:
            raise BadClientMailError("the client mail has no Message-ID, and none was given")
        if not _MESSAGE_ID.fullmatch(message_id):
            raise BadClientMailError("the given Message-ID is not of the form <left@right>")
        mail = f"Message-ID: {message_id}\r\n".encode("ascii") + mail
    if head.get("date") is None:
        mail = f"Date: {format_datetime(date)}\r\n".encode("ascii") + mail
    return mail


def canonical(mail: bytes) -> bytes:
    """The mail with CRLF line ends (RFC 8551 § 3.1.1). Raises BadClientMailError for a CR alone in the header.

    A CR alone would become a line end, and what follows it a field of its own: header injection.
    """
    lines = mail.count(b"\n")
    if lines == mail.count(b"\r\n") == mail.count(b"\r"):
        return mail
    unix = mail.replace(b"\r\n", b"\n")
    if b"\r" in split(unix)[0]:
        raise BadClientMailError("the header of the client mail has a carriage return without a line feed")
    return unix.replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _outer_fields(mail: bytes, cm_version: str | None) -> Iterator[bytes]:
    """The outer header of kim.md § 5.1. Fields are copied with their octets, which `canonical` has made safe."""
    for name, field in raw_fields(split(mail)[0]):
        if name in _COPIED or (name.startswith("x-kim-") and name != "x-kim-cmversion"):
            yield field if field.endswith(b"\r\n") else field + b"\r\n"
    yield f"Subject: {SUBJECT}\r\nX-KOM-LE-Version: {VERSION}\r\n".encode("ascii")
    if cm_version is not None:
        if not re.fullmatch(r"[!-~]{1,40}", cm_version):
            raise BadClientMailError("the version of the Clientmodul has signs that no header may carry")
        yield f"X-KIM-CMVersion: {cm_version}\r\n".encode("ascii")
