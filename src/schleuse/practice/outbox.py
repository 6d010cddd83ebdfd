"""A practice's sending: documents made, signed, encrypted, entered in the ledger, and handed over by real SMTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Literal

from schleuse.practice.documents import Document, Generator, Insurer
from schleuse.practice.faults import FAULTS, Fault, Workshop
from schleuse.practice.identity import Identity
from schleuse.practice.ledger import Ledger, Progress, Sent
from schleuse.practice.mailing import Addressee, client_mail, kim_mail, new_message_id, signed_payload
from schleuse.practice.transport import MailServerError, Reply, Submission


@dataclass(frozen=True, slots=True, repr=False)
class Prepared:
    """One mail ready for the wire. copies: how often it is handed over (a double click sends twice)."""

    sent: Sent
    wire: bytes
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What to send. count: good eAU; stornos: how many of them are cancelled again; fault: one broken mail on top."""

    count: int
    insurer: Insurer
    to: Addressee
    prefix: Literal["E", "T"]
    version: Literal["1.2", "1.1.0"] = "1.2"
    stornos: int = 0
    fault: Fault | None = None


def prepare(practice: Identity, order: Order, rng: Random, now: Callable[[], datetime]) -> Iterator[Prepared]:
    """The mails of an order, one at a time: signing and encrypting is real work."""
    for index in range(order.count):
        document = _eau(order, rng, now())
        yield _good(practice, order, document, now())
        if index < order.stornos:
            yield _good(practice, order, Generator(rng, now()).storno(document), now())
    if order.fault is not None:
        yield _broken(practice, order, order.fault, rng, now())


async def hand_over(submission: Submission, practice: Identity, mail: Prepared, ledger: Ledger) -> Reply:
    """Send one prepared mail. The ledger knows of it before the server does (record, then act).

    Raises MailServerError; the mail then stays "sending" and a repeat is harmless.
    """
    ledger.record(mail.sent)
    to = mail.sent.insurer
    for _ in range(mail.copies):
        reply = await submission.send(practice.address, [to], mail.wire)
    if reply.accepted:
        ledger.advance(mail.sent.message_id, Progress.SENT)
    elif reply.temporary:
        ledger.advance(mail.sent.message_id, Progress.DEFERRED, str(reply.code))
    else:
        ledger.advance(mail.sent.message_id, Progress.FAILED, str(reply.code))
    return reply


def _eau(order: Order, rng: Random, now: datetime) -> Document:
    return Generator(rng, now).eau(order.version, insurer=order.insurer, payor="GKV")


def _good(practice: Identity, order: Order, document: Document, now: datetime) -> Prepared:
    message_id = new_message_id()
    payload = signed_payload(document, practice.payload_signer, now)
    inner = client_mail(practice, order.to, document, payload, prefix=order.prefix, message_id=message_id, now=now)
    return Prepared(_entry(document, order.to, message_id, now), kim_mail(practice, order.to, inner, now))


def _broken(practice: Identity, order: Order, fault: Fault, rng: Random, now: datetime) -> Prepared:
    document = _eau(order, rng, now)
    message_id = new_message_id()
    workshop = Workshop(practice, order.to, order.prefix, message_id, now)
    prepared = Prepared(_entry(document, order.to, message_id, now), workshop.build(document, fault))
    copies = 2 if fault.twice else 1
    return replace(prepared, sent=replace(prepared.sent, fault=fault.name), copies=copies)


def _entry(document: Document, to: Addressee, message_id: str, now: datetime) -> Sent:
    return Sent(
        message_id=message_id,
        document_id=document.document_id,
        kind=document.facts.kind,
        insurer=to.address,
        sent_at=now.isoformat(timespec="seconds"),
        progress=Progress.SENDING,
    )


def fault_names() -> Sequence[str]:
    """What `--faulty` takes."""
    return sorted(FAULTS)


__all__ = ["MailServerError", "Order", "Prepared", "fault_names", "hand_over", "prepare"]
