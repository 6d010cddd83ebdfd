"""What people found, signed: the evidence of gates that no program of ours can look at (incident.md § 9.3). Pure.

Forensics and duties will bring records of their own; until then each such gate rests on a document, names its custodian
and says so. A signature makes somebody answer for a statement; what the statement is worth, `verdict` judges by the
rules: it refers to something (RS-05), what was restored is not clean (RS-13), and no host comes back whose evidence is
not verified (T-19).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.errors import MalformedError, RefusedError
from schleuse.journal.opening import Json, canonical_json
from schleuse.restart.gates import DOCUMENTED, Evidence, Result
from schleuse.restart.plan import GateKind
from schleuse.said import Said, as_it_is
from schleuse.switch.documents import Rights, Role, parse_time, time_text
from schleuse.switch.fields import table_of

_DOMAIN = b"schleuse restart evidence v1\n"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_TEXT = 2000


class BadDocumentError(MalformedError):
    """Not a document about a gate; whoever wrote it can change it."""

    code = "restart.bad-document"


class DocumentRefusedError(RefusedError):
    """The signature is not that of somebody who may answer for this gate; another person signs."""

    code = "restart.document-refused"


class Basis(StrEnum):
    """What a statement about hosts rests on. Only the first says that they are clean (RS-13)."""

    INVESTIGATION = "investigation"
    RESTORE = "restore"
    DECRYPTION = "decryption"
    REINSTALLATION = "reinstallation"


class EvidenceStatus(StrEnum):
    """Evidence status of appendix A."""

    IDENTIFIED = "identified"
    COLLECTED = "collected"
    ACQUIRED = "acquired"
    ACQUIRED_VERIFIED = "acquired_verified"
    HANDED_OVER = "handed_over"
    RETURNED = "returned"
    DELETED_WITH_RECORD = "deleted_with_record"
    WAIVED = "waived"


#: A host in one of these may be restored: its evidence is safe, or two persons let it be.
_SAFE = frozenset(EvidenceStatus) - {EvidenceStatus.IDENTIFIED, EvidenceStatus.COLLECTED, EvidenceStatus.ACQUIRED}
#: Who answers for which gate (§ 10). A counterparty's delegate speaks for himself; anybody else needs it in writing.
SIGNERS: Mapping[GateKind, frozenset[Role]] = {
    GateKind.EVID: frozenset({Role.FORENSIC_LEAD, Role.CUSTODIAN, Role.SECURITY_OFFICER}),
    GateKind.CRED: frozenset({Role.SECURITY_OFFICER, Role.CUSTODIAN}),
    GateKind.BASE: frozenset({Role.SERVICE_OWNER, Role.SECURITY_OFFICER, Role.CUSTODIAN}),
    GateKind.LEGAL: frozenset({Role.NOTIFICATION_OFFICER, Role.DATA_PROTECTION_OFFICER, Role.SECURITY_OFFICER}),
    GateKind.PART: frozenset({Role.TENANT_DELEGATE, Role.SERVICE_OWNER}),
}
#: § 9.3, G-EVID: "no persistence found by two methods".
METHODS = 2


@dataclass(frozen=True, slots=True)
class Document:
    """A statement about one gate of one plan. at: when it was found. until: when it ends before its kind's validity.

    references: name and SHA-256 (hex) of what was looked at. methods: how. hosts: what is brought back, and how its
    evidence stands. text: one sentence, without personal data. Raises BadDocumentError.
    """

    id: str
    plan: str
    kind: GateKind
    result: Result
    at: datetime
    text: str
    until: datetime | None = None
    basis: Basis = Basis.INVESTIGATION
    references: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ()
    hosts: tuple[tuple[str, EvidenceStatus], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in DOCUMENTED:
            raise BadDocumentError(f"{self.kind} is looked at or signed; stated are {', '.join(sorted(DOCUMENTED))}")
        if self.result not in (Result.PASS, Result.FAIL, Result.INCONCLUSIVE):
            raise BadDocumentError(f"a document says pass, fail or inconclusive, not {self.result}")
        if not self.id or not self.text.strip() or len(self.text) > _MAX_TEXT:
            raise BadDocumentError(f"a document has an id and a text of at most {_MAX_TEXT:,} characters")
        if any(not _SHA256.fullmatch(digest) for _, digest in self.references):
            raise BadDocumentError("a reference is a name and a SHA-256 in hex")
        if self.until is not None and self.until <= self.at:
            raise BadDocumentError("a document ends after it was made")

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(_as_json(self))

    @property
    def hash(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """custodian: name of the credential that signed it; role: as what."""

    document: Document
    custodian: str
    role: Role
    signature: bytes

    def encode(self) -> dict[str, Json]:
        """As it is kept."""
        return {
            "document": _as_json(self.document),
            "custodian": self.custodian,
            "role": self.role.value,
            "signature": self.signature.hex(),
        }


def sign_document(document: Document, custodian: str, role: Role, key: Ed25519PrivateKey) -> SignedDocument:
    """The role is signed as well."""
    return SignedDocument(document, custodian, role, key.sign(_message(document, role)))


def check_document(signed: SignedDocument, rights: Rights, at: datetime | None = None) -> None:
    """Raises DocumentRefusedError. at: when it was handed in; a credential that was disabled before does not count."""
    document = signed.document
    person = rights.people().get(signed.custodian)
    if person is None or signed.role not in person.roles:
        raise DocumentRefusedError(f"no operator {signed.custodian!r} has the role {signed.role} here (RO-05)")
    if signed.role not in SIGNERS[document.kind]:
        allowed = ", ".join(sorted(SIGNERS[document.kind]))
        raise DocumentRefusedError(f"for {document.kind} answers one of {allowed}, not {signed.role}")
    if at is not None and person.until is not None and person.is_disabled(at):
        raise DocumentRefusedError(f"{person.name} was disabled at {time_text(person.until)}")
    if not person.has_signed(signed.signature, _message(document, signed.role)):
        raise DocumentRefusedError(f"the signature of {person.name} does not match the document")


def evidence_of(signed: SignedDocument) -> Evidence:
    """What the gate gets of a document that was checked."""
    document = signed.document
    result, text = verdict(document, signed.role)
    return Evidence(
        document.kind,
        document.plan,
        result,
        document.at,
        document.basis.value,
        text,
        document.hash,
        signed.custodian,
        document.until,
    )


def verdict(document: Document, role: Role) -> tuple[Result, Said]:
    """What a statement is worth, and why: a pass that breaks a rule is none."""
    unsafe = [name for name, status in document.hosts if status not in _SAFE]
    if unsafe:
        return Result.FAIL, Said(
            f"{unsafe[0]} darf nicht zurückkommen: seine Beweise sind nicht geprüft (T-19)",
            f"{unsafe[0]} must not come back: its evidence is not verified (T-19)",
        )
    if document.result is not Result.PASS:
        return document.result, as_it_is(document.text)
    if not document.references and not (document.kind is GateKind.PART and role is Role.TENANT_DELEGATE):
        return Result.INCONCLUSIVE, Said(
            "das Dokument nennt nichts, was angesehen wurde; mit --file nennt man es (RS-05)",
            "the document refers to nothing that was looked at; --file names it (RS-05)",
        )
    if document.kind is GateKind.EVID:
        if document.basis is not Basis.INVESTIGATION:
            return Result.INCONCLUSIVE, Said(
                f"{document.basis} sagt nicht, dass es sauber ist (RS-13)",
                f"{document.basis} does not say that it is clean (RS-13)",
            )
        methods = len(set(document.methods))
        if methods < METHODS:
            return Result.INCONCLUSIVE, Said(
                f"dass sich nichts festgesetzt hat, zeigen {METHODS} Verfahren, nicht {methods}; --method nennt sie",
                f"that nothing persists is found by {METHODS} methods, not by {methods}; --method names them",
            )
    return Result.PASS, as_it_is(document.text)


def signed_document_from(value: object) -> SignedDocument:
    """From the JSON value of `SignedDocument.encode`. Raises BadDocumentError."""
    try:
        table = table_of(value)
        return SignedDocument(
            document_from(table["document"]),
            str(table["custodian"]),
            Role(table["role"]),
            bytes.fromhex(table["signature"]),
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise BadDocumentError(f"not a signed document: {type(cause).__name__}") from cause


_KEYS = frozenset(
    {"type", "schema", "id", "plan", "kind", "result", "at", "text", "until"}
    | {"basis", "references", "methods", "hosts"}
)


def document_from(value: object) -> Document:
    """From JSON. Raises BadDocumentError."""
    try:
        table = table_of(value)
        if set(table) != _KEYS or table["type"] != "schleuse-restart-evidence" or table["schema"] != 1:
            raise BadDocumentError(f"a document has the keys {', '.join(sorted(_KEYS))}, and schema 1")
        return Document(
            str(table["id"]),
            str(table["plan"]),
            GateKind(table["kind"]),
            Result(table["result"]),
            parse_time(table["at"]),
            str(table["text"]),
            parse_time(table["until"]) if table["until"] else None,
            Basis(table["basis"]),
            tuple((str(name), str(digest)) for name, digest in table["references"]),
            tuple(map(str, table["methods"])),
            tuple((str(name), EvidenceStatus(status)) for name, status in table["hosts"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise BadDocumentError(f"not a document: {type(cause).__name__}: {cause}") from cause


def _message(document: Document, role: Role) -> bytes:
    return _DOMAIN + role.value.encode() + b"\n" + document.encode()


def _as_json(document: Document) -> dict[str, Json]:
    return {
        "type": "schleuse-restart-evidence",
        "schema": 1,
        "id": document.id,
        "plan": document.plan,
        "kind": document.kind.value,
        "result": document.result.value,
        "at": time_text(document.at),
        "text": document.text,
        "until": "" if document.until is None else time_text(document.until),
        "basis": document.basis.value,
        "references": [[name, digest] for name, digest in document.references],
        "methods": list(document.methods),
        "hosts": [[name, status.value] for name, status in document.hosts],
    }
