"""One document as a KIM mail, as a practice's software and its Clientmodul make it (eau.md § 5, kim.md § 4)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Literal

from schleuse.eau.signature import sign_payload
from schleuse.kim.message import build_kim_mail
from schleuse.practice.documents import Document
from schleuse.practice.identity import Identity
from schleuse.vault import Signer

PRODUCT = "Schleuse-Praxis;0.1.0"


@dataclass(frozen=True, slots=True, repr=False)
class Addressee:
    """The insurer's eAU mailbox. certificate: DER of its encryption certificate."""

    address: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Labels:
    """What the outside of a mail says about its document."""

    dienstkennung: str
    description: str

    @classmethod
    def of(cls, document: Document) -> Labels:
        """Version by the document's: 1.1.0 goes with V1.1 (eau.md § 13.4)."""
        version = "V1.1" if document.version == "1.1.0" else "V1.2"
        if document.facts.kind == "STORNO":
            return cls(f"eAU;Storno-Arzt;{version}", "eAUStorno")
        return cls(f"eAU;Lieferung;{version}", "eAU")


def new_message_id() -> str:
    """A Message-ID that reveals nothing, such as the name of the sending host (kim.md § 5.1)."""
    return f"<{uuid.uuid4()}@kim.telematik>"


def client_mail(
    practice: Identity,
    to: Addressee,
    document: Document,
    payload: bytes | None,
    *,
    prefix: Literal["E", "T"],
    message_id: str,
    now: datetime,
) -> bytes:
    """Layer A: headers and one attached `.p7s`. payload None: the attachment was forgotten."""
    labels = Labels.of(document)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = practice.address
    mail["To"] = to.address
    mail["Reply-To"] = practice.address
    mail["Date"] = format_datetime(now)
    mail["Subject"] = document.file_name(prefix, "")
    mail["Message-ID"] = message_id
    mail["X-KIM-Dienstkennung"] = labels.dienstkennung
    mail["X-KIM-Sendersystem"] = PRODUCT
    mail.set_content("Elektronische Arbeitsunfähigkeitsbescheinigung im Anhang.\n")
    if payload is not None:
        mail.add_attachment(
            payload, maintype="application", subtype="octet-stream", filename=document.file_name(prefix, ".p7s")
        )
        part = next(iter(mail.iter_attachments()))
        part["Content-Description"] = labels.description
    return bytes(mail)


def signed_payload(document: Document, signer: Signer, now: datetime) -> bytes:
    """The `.p7s` around a document (eau.md § 4)."""
    return sign_payload(document.xml, signer, now)


def kim_mail(practice: Identity, to: Addressee, inner: bytes, now: datetime) -> bytes:
    """Layer D: the mail on the wire, signed and encrypted for the insurer and the practice itself."""
    return build_kim_mail(
        inner,
        signer=practice.mail_signer,
        recipients=[(to.address, to.certificate)],
        sender=(practice.address, practice.encryption_certificate),
        date=now,
    )
