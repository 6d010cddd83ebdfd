"""What comes back to a practice: DSNs and Fehlernachrichten, matched to what was sent (eau.md § 14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from schleuse.errors import Error
from schleuse.fhir.node import Node
from schleuse.fhir.node import parse as parse_xml
from schleuse.kim.message import open_kim_mail
from schleuse.mail import parts
from schleuse.mail.contracts import Action
from schleuse.mail.dsn_parse import parse as parse_dsn
from schleuse.mail.smime.trust import TrustStore
from schleuse.practice.identity import Identity
from schleuse.practice.ledger import Ledger, Progress

_PROGRESS = {
    Action.DELIVERED: Progress.DELIVERED,
    Action.RELAYED: Progress.DELIVERED,
    Action.DELAYED: Progress.DEFERRED,
    Action.FAILED: Progress.FAILED,
}


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """One thing that came back. reference: Message-ID or Dokumenten-ID of what it is about; detail: of a fault."""

    reference: str
    progress: Progress
    code: str | None = None
    detail: str | None = None


def read_answer(raw: bytes, practice: Identity, trust: TrustStore, now: datetime) -> tuple[Answer, ...]:
    """The answers in one mail of the mailbox; empty for a mail that is none."""
    statuses = parse_dsn(raw)
    if statuses:
        return tuple(
            Answer(f"<{status.original_message_id}>", _PROGRESS[status.action], status.status)
            for status in statuses
            if status.action in _PROGRESS and status.original_message_id
        )
    opened = open_kim_mail(
        raw,
        address=practice.address,
        certificates=[practice.encryption_certificate],
        unwrap=practice.unwrap,
        trust=trust,
        now=now,
    )
    if opened.inner is None or not opened.intact:
        return ()
    return tuple(_faults(opened.inner))


def note(answers: tuple[Answer, ...], ledger: Ledger) -> int:
    """Enter the answers in the ledger; how many were about mails of ours."""
    known = 0
    for answer in answers:
        sent = ledger.mails.get(answer.reference) or ledger.by_document(answer.reference)
        if sent is not None:
            known += ledger.advance(sent.message_id, answer.progress, answer.code)
    return known


def _faults(inner: bytes) -> Iterator[Answer]:
    for part in parts.leaves(inner):
        if part.description == "eAUFehler-Kasse":
            try:
                outcome = parse_xml(part.decode())
            except Error:
                continue
            yield from _fault(outcome)


def _fault(outcome: Node) -> Iterator[Answer]:
    code = outcome.text("issue", "details", "coding", "code")
    display = outcome.text("issue", "details", "coding", "display")
    for reference in outcome.all("issue", "extension", "extension", "valueIdentifier"):
        value = reference.text("value")
        if code and value:
            yield Answer(value, Progress.FAULTY, code, display)
