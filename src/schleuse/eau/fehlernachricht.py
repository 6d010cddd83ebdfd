"""The Fehlernachricht Kasse-Arzt: an OperationOutcome in XML, and the client mail around it (eau.md § 12).

Everything here is a function of values: the same faulty mail gives the same octets, so that building it twice after a
crash cannot make two messages of it.
"""

from __future__ import annotations

import quopri
import re
import uuid
from base64 import encodebytes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from xml.sax.saxutils import quoteattr

from schleuse.eau.codes import CODE_SYSTEM
from schleuse.eau.findings import Detail
from schleuse.eau.german import in_german
from schleuse.eau.outcome import Faulty, Reference
from schleuse.errors import MalformedError
from schleuse.identifiers import IK
from schleuse.kim.address import BadKIMAddressError, KIMAddress
from schleuse.mail.head import BadHeadError, addresses_of


class BadFehlernachrichtError(MalformedError):
    """A part of the message cannot be written into XML or a header; whoever passed it in must change it."""

    code = "eau.bad-fehlernachricht"


_FHIR = "http://hl7.org/fhir"
_PROFILE = "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_health_insurance_Practitioner"
_EXTENSION = "https://fhir.kbv.de/StructureDefinition/KBV_EX_EAU_health_insurance_Practitioner_Identifier"
_REFERENCE_SYSTEM = {
    Reference.BUNDLE_IDENTIFIER: "urn:ietf:rfc:3986",
    Reference.MESSAGE_ID: "https://fhir.kbv.de/NamingSystem/KBV_NS_EAU_Message_ID_KIM",
}
#: Text body of a virus report: this and nothing else (eau.md § 12.2).
VIRUS_BODY = "Achtung möglicher Virenbefall"
#: More findings than this help no vendor, and a hostile document could have any number.
MAX_DETAILS = 50
MAX_DETAIL = 500

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)  # FHIR R4 type id
_MESSAGE_ID = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,250}>", re.ASCII)
_FIELD = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
_NAMESPACE = uuid.UUID("8d5fd0b4-9ac6-5b3c-8f0e-52f6ab3d3d51")


@dataclass(frozen=True, slots=True)
class Fehlernachricht:
    """One error message. id: OperationOutcome.id, from `identity`. prefix: of this environment, "E" or "T".

    Raises: BadFehlernachrichtError.
    """

    id: str
    prefix: str
    faulty: Faulty

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or self.prefix not in ("E", "T"):
            raise BadFehlernachrichtError("the id of an OperationOutcome is 1 to 64 of letters, digits, - and .")

    @property
    def subject(self) -> str:
        """Inner subject, and file name without its extension (eau.md § 3)."""
        return f"{self.prefix}EAU0_Fehler_{self.id}"

    def xml(self) -> bytes:
        """UTF-8 without BOM, one OperationOutcome with one issue."""
        faulty = self.faulty
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<OperationOutcome xmlns="{_FHIR}">'
            f"<id value={_attribute(self.id)}/>"
            f"<meta><profile value={_attribute(f'{_PROFILE}|{faulty.version}')}/></meta>"
            "<issue>"
            f'<extension url="{_EXTENSION}"><extension url="{faulty.reference}"><valueIdentifier>'
            f'<system value="{_REFERENCE_SYSTEM[faulty.reference]}"/>'
            f"<value value={_attribute(faulty.reference_value)}/>"
            "</valueIdentifier></extension></extension>"
            '<severity value="fatal"/><code value="processing"/>'
            f'<details><coding><system value="{CODE_SYSTEM}"/><code value="{faulty.code.number}"/>'
            f"<display value={_attribute(faulty.code.display)}/></coding></details>"
            "</issue></OperationOutcome>\n"
        ).encode()

    def text(self) -> str:
        """Body for the vendor of the practice's software: paths and rules, never patient data (eau.md § 12.2)."""
        if self.faulty.virus:
            return VIRUS_BODY
        return "\r\n".join(self._lines()) + "\r\n"

    def _lines(self) -> Iterator[str]:
        yield f"Fehler {self.faulty.code.number}: {self.faulty.code.display}"
        yield f"{self.faulty.reference}: {_plain(self.faulty.reference_value)}"
        if self.faulty.code.new_file:
            yield "Bitte mit neuer Dokumenten-ID neu erstellen und senden."
        else:
            yield "Dieselbe Datei darf noch einmal gesendet werden."
        details = self.faulty.details
        if details:
            yield ""
            yield "Für den Hersteller des Praxissystems (Element, Regel, Befund):"
            yield from (_detail(detail) for detail in details[:MAX_DETAILS])
            if len(details) > MAX_DETAILS:
                yield f"- und {len(details) - MAX_DETAILS} weitere"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who writes to whom. sender: the insurer's KIM address. product: `<name>;<version>` of X-KIM-Sendersystem.

    date: of the message, with zone. in_reply_to: outer Message-ID of the faulty mail; left out unless it is clean.
    """

    sender: KIMAddress
    recipient: KIMAddress
    date: datetime
    product: str
    in_reply_to: str | None = None


def identity(ik: IK, delivery: int, bad_message_id: str | None) -> str:
    """A UUID that is the same whenever the same delivered mail is answered, and of no other mail."""
    return str(uuid.uuid5(_NAMESPACE, f"{ik}\0{delivery}\0{bad_message_id or ''}"))


def message_id(id: str, sender: KIMAddress) -> str:
    """Message-ID of the mail with this OperationOutcome.id; names the KIM domain and no host (kim.md § 5.1)."""
    return f"<{id}@{sender.value.rpartition('@')[2].lower()}>"


def answer_address(reply_to: str | None, sender: str | None, in_directory: Callable[[str], bool]) -> KIMAddress | None:
    """Where the answer goes: Reply-To if the directory has it, else From; None if From is no KIM address either.

    reply_to, sender: header values of the inner mail. in_directory may raise UnavailableError (our trouble).
    """
    for address in _addresses(reply_to):
        if in_directory(address.value):
            return address
    return next(_addresses(sender), None)


def build_mail(message: Fehlernachricht, envelope: Envelope) -> bytes:
    """The client mail (layer A of kim.md § 4), CRLF line ends, one text part and one XML attachment.

    Raises BadFehlernachrichtError if something could break out of its header.
    """
    version = message.faulty.dienstkennung_version
    boundary = f"=_{message.id}"
    fields = [
        f"From: {envelope.sender.value}",
        f"To: {envelope.recipient.value}",
        f"Subject: {message.subject}",
        f"Date: {format_datetime(envelope.date)}",
        f"Message-ID: {message_id(message.id, envelope.sender)}",
        f"X-KIM-Dienstkennung: eAU;Fehler-Kasse;{version}",
        f"X-KIM-Sendersystem: {envelope.product}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
    ]
    if envelope.in_reply_to and _MESSAGE_ID.fullmatch(envelope.in_reply_to):
        fields.insert(5, f"In-Reply-To: {envelope.in_reply_to}")
    if bad := next((field for field in fields if not _FIELD.fullmatch(field.partition(": ")[2])), None):
        raise BadFehlernachrichtError(f"the field {bad.partition(':')[0]} has signs that no header may carry")
    return "\r\n".join(
        [*fields, "", *_text_part(message, boundary), *_xml_part(message, boundary), f"--{boundary}--", ""]
    ).encode("ascii")


def _text_part(message: Fehlernachricht, boundary: str) -> list[str]:
    lines = message.text().encode().split(b"\r\n")
    return [
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        *(quopri.encodestring(line).replace(b"=\n", b"=\r\n").decode("ascii") for line in lines),
    ]


def _xml_part(message: Fehlernachricht, boundary: str) -> list[str]:
    name = f"{message.subject}.xml"
    return [
        f"--{boundary}",
        f"Content-Type: application/xml; name={name}",
        "Content-Transfer-Encoding: base64",
        f"Content-Disposition: attachment; filename={name}",
        "Content-Description: eAUFehler-Kasse",
        "",
        *encodebytes(message.xml()).decode("ascii").splitlines(),
    ]


def _addresses(header: str | None) -> Iterator[KIMAddress]:
    try:
        found = addresses_of(header) if header else []
    except BadHeadError:  # of hostile length: nobody writes his own address so
        return
    for text in found:
        try:
            yield KIMAddress(text.strip())
        except BadKIMAddressError:
            continue


def _attribute(value: str) -> str:
    """Quoted for XML; signs that XML 1.0 § 2.2 forbids are refused, so that the message is always well formed."""
    if not value or _UNPRINTABLE.search(value):
        raise BadFehlernachrichtError("the reference of a Fehlernachricht has signs that XML cannot carry")
    return quoteattr(value)


def _detail(detail: Detail) -> str:
    text = f": {in_german(detail.text)}" if detail.text else ""
    return _plain(f"- {detail.path}: {in_german(detail.rule)}{text}")


def _plain(text: str) -> str:
    """One line of bounded length."""
    return _UNPRINTABLE.sub(" ", text)[:MAX_DETAIL]
