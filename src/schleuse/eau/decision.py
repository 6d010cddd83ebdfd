"""The decision: from what was found out about one mail, and what is known of its document, to one outcome.

Two steps, both pure. `judge` needs the mail alone and runs outside any lock; `settle` adds what the store knows and
runs inside the transaction that records the outcome. Nothing here answers "your document is wrong" because
something of ours is off (HD-01; incident.md appendix B no. 6): own trouble is looked at before everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import assert_never

from schleuse.eau.codes import Fault, code_of
from schleuse.eau.document import Facts, Kind
from schleuse.eau.findings import (
    IN_BAND,
    Detail,
    Findings,
    Membership,
    Payload,
    Trouble,
    Verdict,
    claimed_kind,
)
from schleuse.eau.outcome import (
    Again,
    DeliveredAgain,
    DocumentState,
    Faulty,
    Filed,
    IdReuse,
    InBand,
    Known,
    Memory,
    Outcome,
    Policy,
    Quarantine,
    Quarantined,
    Reference,
    StornoPending,
    Wait,
)
from schleuse.eau.signature import PayloadVerdict
from schleuse.eau.storno import cancelling, refused, settle_storno
from schleuse.eau.versions import answer_version
from schleuse.kim.dienstkennung import EAU_FEHLER_KASSE
from schleuse.kim.results import DecryptionResult, IntegrityCheckResult


@dataclass(frozen=True, slots=True)
class Sound:
    """Nothing is wrong with the mail and its document."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Flawed:
    """The first fault in the order of eau.md § 13.2; whether it is answered, the memory decides."""

    fault: Fault
    kind: Kind
    details: tuple[Detail, ...] = field(default=())


Judgement = Sound | Flawed | Quarantined | InBand | Wait


def judge(found: Findings, policy: Policy) -> Judgement:
    """The mail by itself, in the check order of eau.md § 13.2."""
    if found.trouble is not None:
        return Wait(found.trouble)
    if found.decryption.own_trouble:
        return Wait(Trouble.KEY)
    if found.mail in IN_BAND:
        # This mailbox sends nothing but Fehlernachrichten: a practice does not know that its document was refused.
        return Quarantined(Quarantine.UNDELIVERED_LETTER) if found.undelivered else InBand(found.mail)
    misplaced = _misplaced(found, policy)
    if misplaced is not None or found.kind is None:
        return misplaced or Quarantined(Quarantine.UNCLASSIFIABLE)
    return _flawed(found, found.kind, policy) or _sound(found)


def _misplaced(found: Findings, policy: Policy) -> Quarantined | None:
    if found.dienstkennung and found.dienstkennung.same_service(EAU_FEHLER_KASSE):  # answering could start a loop
        return Quarantined(Quarantine.STRAY_FEHLERNACHRICHT)
    if found.file_name and found.file_name.prefix != policy.prefix:
        return Quarantined(Quarantine.TEST_IN_PRODUCTION if policy.prefix == "E" else Quarantine.PRODUCTION_IN_TEST)
    return None


def _flawed(found: Findings, kind: Kind, policy: Policy) -> Flawed | None:
    fault = _first_fault(found, policy)
    if fault is not None:
        return Flawed(fault, kind, found.details)
    version = found.profile.version if found.profile else None
    if version is not None and not policy.transition.allows(version, found.sent_at):
        return Flawed(
            Fault.UNREADABLE,
            kind,
            (Detail("Bundle.meta.profile", "version", f"version {version} may no longer be sent"),),
        )
    return None


def _first_fault(found: Findings, policy: Policy) -> Fault | None:
    transport = _DECRYPTION.get(found.decryption) or _integrity_fault(found, policy)
    if transport is not None:
        return transport
    if found.virus or found.payload is not Payload.FOUND:
        return Fault.UNREADABLE
    if found.signature in _SIGNATURE:
        return _SIGNATURE[found.signature]
    if not found.charset_ok:
        return Fault.CHARSET
    return None if found.verdict is Verdict.VALID else Fault.UNREADABLE


_DECRYPTION = {
    DecryptionResult.KEY_NOT_AVAILABLE: Fault.KEY_NOT_AVAILABLE,
    DecryptionResult.WRONG_FORMAT: Fault.ENCRYPTION_FORMAT,
}
#: 05 and 06 have no code: the mail is passed on, and the document's own signature is judged (eau.md § 12.1).
_INTEGRITY = {
    IntegrityCheckResult.CONTENT_DIFFERS: Fault.MAIL_CONTENT_DIFFERS,
    IntegrityCheckResult.NO_SIGNATURE: Fault.MAIL_UNSIGNED,
    IntegrityCheckResult.WRONG_FORMAT: Fault.MAIL_SIGNATURE_FORMAT,
    IntegrityCheckResult.HEADERS_DIFFER: Fault.MAIL_CONTENT_DIFFERS,
    IntegrityCheckResult.RECIPIENT_EMAILS_DIFFER: Fault.MAIL_CONTENT_DIFFERS,
}
_SIGNATURE = {
    PayloadVerdict.DATA_DIFFER: Fault.SIGNED_DATA_DIFFER,
    PayloadVerdict.CERTIFICATE_FAULTY: Fault.CERTIFICATE,
    PayloadVerdict.UNREADABLE: Fault.UNREADABLE,
}


def _integrity_fault(found: Findings, policy: Policy) -> Fault | None:
    signed = found.payload is Payload.FOUND and found.signature.accepted
    if policy.accept_if_payload_signed and signed and not found.virus:
        return None
    return next((_INTEGRITY[result] for result in found.integrity if result in _INTEGRITY), None)


def _sound(found: Findings) -> Sound | Quarantined | Wait:
    if found.unkeepable_id:
        return Quarantined(Quarantine.ID_UNKEEPABLE)
    if found.facts is None and found.profile is not None and found.profile.kind is None:
        return Quarantined(Quarantine.STRAY_FEHLERNACHRICHT)  # the only other profile that our rules call valid
    # Valid without facts is a mistake of ours, and ours alone.
    return Sound(found.facts) if found.facts else Wait(Trouble.INTERNAL)


_KEPT = (DocumentState.ACCEPTED, DocumentState.CANCELLED, DocumentState.PENDING)


def settle(judgement: Judgement, found: Findings, memory: Memory, policy: Policy) -> Outcome:
    """The outcome, given what the store knows (eau.md § 11, § 13.3)."""
    outcome = _settle(judgement, found, memory, policy)
    if isinstance(outcome, Faulty) and outcome.kind is Kind.EAU:
        return replace(outcome, stornos=refused(memory))
    return outcome


def _settle(judgement: Judgement, found: Findings, memory: Memory, policy: Policy) -> Outcome:
    match judgement:
        case Wait() | Quarantined() | InBand():
            return judgement
        case Flawed(fault, kind, details):
            return _delivered_again(found, memory) or _answer(fault, kind, details, found)
        case Sound(facts):
            return (
                _delivered_again(found, memory)
                or _reused_id(found, memory, policy)
                or _settle_sound(facts, found, memory, policy)
            )
        case _:
            assert_never(judgement)


def decide(found: Findings, memory: Memory, policy: Policy) -> Outcome:
    """`judge` and `settle` in one call."""
    return settle(judge(found, policy), found, memory, policy)


def _settle_sound(facts: Facts, found: Findings, memory: Memory, policy: Policy) -> Outcome:
    if facts.kind is Kind.STORNO:
        settled = settle_storno(facts, found.practice, memory, policy)
        if isinstance(settled, StornoPending):
            refusal = _answer(Fault.STORNO_OF_REJECTED, Kind.STORNO, (), found)
            return replace(settled, refusal=refusal if isinstance(refusal, Faulty) else None)
        return _answer(settled, Kind.STORNO, (), found) if isinstance(settled, Fault) else settled
    if found.membership in (Membership.OTHER_INSURER, Membership.UNKNOWN_PERSON):
        return _answer(Fault.NOT_INSURED, Kind.EAU, (), found)
    return Filed(
        facts,
        cancelled_by=cancelling(found.practice, memory.stornos, policy),
        similar=memory.similar,
        again=any(known.state is DocumentState.REJECTED for known in _earlier(memory)),
    )


def _earlier(memory: Memory) -> tuple[Known, ...]:
    return tuple(known for known in (memory.same_file, memory.same_id) if known is not None)


def _delivered_again(found: Findings, memory: Memory) -> DeliveredAgain | None:
    """The same file, accepted before. Without a hash (the file could not be reached) the id alone tells."""
    first = memory.same_file or (memory.same_id if found.file_hash is None else None)
    if first is None or first.state not in _KEPT:
        return None
    return DeliveredAgain(first, Again.SAME_DOCUMENT)


def _reused_id(found: Findings, memory: Memory, policy: Policy) -> Outcome | None:
    """An accepted document's id on other content; the first one is never overwritten.

    An id whose document was only ever rejected may come back with corrected content: nothing is filed under it, and
    refusing a valid certificate for its number costs a person sick pay.
    """
    if memory.same_id is None or memory.same_id.state not in _KEPT:
        return None
    if policy.id_reuse is IdReuse.QUARANTINE or found.kind is None:
        return Quarantined(Quarantine.ID_REUSED)
    detail = Detail("Bundle.identifier.value", "unique", "this Dokumenten-ID was used for another content")
    return _answer(Fault.UNREADABLE, found.kind, (detail,), found)


def _answer(fault: Fault, kind: Kind, details: tuple[Detail, ...], found: Findings) -> Faulty | Quarantined:
    code = code_of(fault, kind)
    by_message = code.by_message_id or found.virus
    name = None if by_message else found.document_id
    value = name.written if name else found.message_id
    if not value or not value.isprintable():
        return Quarantined(Quarantine.NO_REFERENCE)
    version, dienstkennung = answer_version(
        found.profile.version if found.profile and found.profile.kind else None,
        found.dienstkennung.version if found.dienstkennung and claimed_kind(found.dienstkennung) else None,
    )
    return Faulty(
        code,
        kind,
        Reference.BUNDLE_IDENTIFIER if name else Reference.MESSAGE_ID,
        value,
        version,
        dienstkennung,
        () if found.virus else details,
        found.virus,
    )
