"""Looking into the mails of an insurer's eAU mailbox: every stage of eau.md § 13.2 up to the decision, in order.

Mails are looked at up to their wrapped keys; then the vault opens the keys of the batch in one round trip, each with
its entry in the insurer's journal; then each mail is looked at to its end. A mail that is claimed again after a crash
is opened again, and has a second entry: it may have been read.

Each stage is timed under a name of `STAGES`; what costs how much is measured where it happens. Nothing here decides:
the result is `Findings` for `decision.judge`, and the octets that filing needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog

from schleuse.eau.checks import Checker
from schleuse.eau.document import (
    BadDocumentError,
    BadDocumentIdError,
    DocumentId,
    read_document_id,
    read_facts,
    read_profile,
)
from schleuse.eau.findings import (
    IN_BAND,
    Detail,
    FileName,
    Findings,
    Payload,
    Trouble,
    Verdict,
)
from schleuse.eau.signature import PayloadVerdict, check_payload
from schleuse.eau.trips import Trip, ask, trouble_of
from schleuse.errors import CorruptError, Error, RefusedError, UnavailableError
from schleuse.fhir.finding import Finding
from schleuse.identifiers import IK
from schleuse.kim.classify import Kind as MailKind
from schleuse.kim.classify import classify
from schleuse.kim.dienstkennung import dienstkennung_of
from schleuse.kim.directory import Directory, UnknownAddressError
from schleuse.kim.message import OpenedMail, SealedKIMMail, open_with, read_envelope
from schleuse.kim.results import DecryptionResult, IntegrityCheckResult
from schleuse.kim.store import Claimed
from schleuse.mail import dsn_parse
from schleuse.mail import head as mail_head
from schleuse.mail.contracts import Action
from schleuse.mail.parts import BadPartError, leaves, payload_parts
from schleuse.mail.smime.trust import Fault, TrustStore
from schleuse.vault import SealedMail, Vault
from schleuse.vault.contracts import UnwrapFailedError

log = structlog.get_logger()

STAGES = ("head", "keys", "open", "parts", "signature", "check", "facts")
Stage = Callable[[str], AbstractContextManager[object]]

#: Content-Description of the payloads (eau.md § 5).
_DESCRIPTIONS = frozenset({"eAU", "eAUStorno"})


#: Mails that are looked into between two looks at the switch, some hundredths of a second.
LOOK_EVERY = 8


def _untimed(_stage: str) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An insurer's eAU mailbox. address: in small letters."""

    ik: IK
    address: str


@dataclass(frozen=True, slots=True, repr=False)
class Tools:
    """What looking into a mail needs. directory may raise UnavailableError."""

    vault: Vault
    trust: Callable[[], TrustStore]
    checker: Checker
    directory: Callable[[], Directory]
    stage: Stage = field(default=_untimed)


@dataclass(frozen=True, slots=True, repr=False)
class Examined:
    """One mail after all stages. xml, p7s: of the payload, as far as it was reached.

    reply_to, sender: header values of the inner mail, of the outer one where that was not reached.
    """

    claimed: Claimed
    findings: Findings
    xml: bytes | None = None
    p7s: bytes | None = None
    target: DocumentId | None = None
    reply_to: str | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Looked:
    """A batch after all stages. refused: why the vault serves this insurer nothing now, None if it does."""

    mails: list[Examined]
    refused: Error | None = None


def examine(
    ik: IK,
    mails: Sequence[Claimed],
    mailboxes: Mapping[str, Mailbox],
    tools: Tools,
    now: datetime,
    going: Callable[[], None],
) -> Looked:
    """All that can be found out about mails of one insurer, in order, with one round trip for their keys.

    mailboxes: by account. going: called between mails; what it raises ends the batch. Never raises for what is in a
    mail; own trouble is in the findings.
    """
    own = _Own(ik, tools.vault)
    sights = [_Sight(claimed, mailboxes[claimed.account], tools, now, own) for claimed in mails]
    read = [_guarded(sight, partial(_read, sight)) for sight in sights]
    wanted = [SealedMail(one.examined.claimed.id, one.sealed.wrapped) for one in read if isinstance(one, _Unopened)]
    with tools.stage("keys"):
        trip: Trip[bytes | Error] = ask(lambda some: tools.vault.open_mails(ik, some), wanted)
    keys = iter(trip.answers)
    for place, sight in enumerate(sights):
        if place % LOOK_EVERY == 0:
            going()
        unopened = read[place]
        if isinstance(unopened, _Unopened):  # replaced one by one: their envelopes need not stay in memory
            read[place] = _guarded(sight, partial(_open, sight, unopened, next(keys)))
    return Looked([one for one in read if isinstance(one, Examined)], trip.refused or own.refused)


@dataclass(frozen=True, slots=True, repr=False)
class _Unopened:
    """A mail whose content key the vault is asked for. examined: as far as the outer header goes."""

    examined: Examined
    sealed: SealedKIMMail


class _Own:
    """Our certificates of one insurer, asked for once when the first mail needs them."""

    def __init__(self, ik: IK, vault: Vault) -> None:
        self._ik = ik
        self._vault = vault
        self._certificates: tuple[bytes, ...] | None = None
        self.refused: Error | None = None

    def certificates(self) -> tuple[bytes, ...]:
        """Raises what the vault raises, and does not try a vault again that has not answered."""
        if self.refused is not None:
            raise self.refused
        if self._certificates is None:
            try:
                self._certificates = self._vault.certificates(self._ik)
            except Error as error:
                self.refused = error
                raise
        return self._certificates


@dataclass(frozen=True, slots=True, repr=False)
class _Sight:
    """One mail, and what it is looked at with."""

    claimed: Claimed
    mailbox: Mailbox
    tools: Tools
    now: datetime
    own: _Own


_T = TypeVar("_T")


def _guarded(sight: _Sight, look: Callable[[], _T]) -> _T | Examined:
    """What went wrong at our side is a finding of this one mail, and stops no other."""
    claimed = sight.claimed
    blank = Findings(sent_at=claimed.accepted_at)
    try:
        return look()
    except mail_head.BadHeadError as error:
        detail = Detail("KIM-Nachricht", "Kopf", str(error))
        return Examined(claimed, replace(blank, decryption=DecryptionResult.WRONG_FORMAT, details=(detail,)))
    except (UnavailableError, CorruptError, RefusedError) as error:
        return Examined(claimed, replace(blank, trouble=trouble_of(error)))
    except Exception as error:  # a mistake of ours
        log.error("eau.mistake", delivery=claimed.id, error=type(error).__name__)
        return Examined(claimed, replace(blank, trouble=Trouble.INTERNAL))


def _read(sight: _Sight) -> Examined | _Unopened:
    """The outer mail: all of a mail that is not encrypted for us, else up to the wrapped key."""
    claimed, tools = sight.claimed, sight.tools
    if claimed.mail is None:
        return Examined(claimed, Findings(sent_at=claimed.accepted_at, trouble=Trouble.STORE))
    raw = claimed.mail.content
    with tools.stage("head"):
        outer = mail_head.parse(mail_head.split(raw)[0])
        found = Findings(
            sent_at=_aware(outer.date()) or claimed.accepted_at,
            message_id=outer.get("message-id"),
            dienstkennung=dienstkennung_of(outer),
        )
        if outer.get("x-kom-le-version") is None:
            found = replace(found, mail=classify(outer).kind)
        if found.mail is MailKind.DSN:
            found = replace(found, undelivered=any(_failed(status) for status in dsn_parse.parse(raw)))
    examined = Examined(claimed, found, reply_to=outer.get("reply-to"), sender=outer.get("from"))
    if found.mail in IN_BAND:
        return examined
    certificates = sight.own.certificates()
    tools.trust()  # without it nothing can be judged, and a mail is not opened in vain
    with tools.stage("open"):
        sealed = read_envelope(raw, address=sight.mailbox.address, certificates=certificates)
    if isinstance(sealed, SealedKIMMail):
        return _Unopened(examined, sealed)
    return _opened(sight, examined, sealed)


def _open(sight: _Sight, unopened: _Unopened, key: bytes | Exception) -> Examined:
    if isinstance(key, Exception) and not isinstance(key, UnwrapFailedError):
        if not isinstance(key, Error):
            log.error("eau.mistake", delivery=sight.claimed.id, error=type(key).__name__)
        return replace(unopened.examined, findings=replace(unopened.examined.findings, trouble=trouble_of(key)))
    with sight.tools.stage("open"):
        opened = open_with(unopened.sealed, key, trust=sight.tools.trust(), now=sight.now)
    return _opened(sight, unopened.examined, opened)


def _opened(sight: _Sight, examined: Examined, opened: OpenedMail) -> Examined:
    found = _transport(examined.findings, opened, sight)
    if opened.inner is None or found.trouble is not None:
        return replace(examined, findings=found)
    return _inside(replace(examined, findings=found), opened.inner, sight)


def _failed(status: dsn_parse.Status) -> bool:
    """For good, by its action; by its class where the action is no word of RFC 3464."""
    if status.action is not None:
        return status.action is Action.FAILED
    return (status.status or "").startswith("5.")


def _transport(found: Findings, opened: OpenedMail, sight: _Sight) -> Findings:
    """X-KIM-DecryptionResult and X-KIM-IntegrityCheckResult, and whether a failure is really the sender's."""
    if opened.version is None:
        # Neither encrypted nor signed, and no error mail: an eAU that did not pass a Clientmodul.
        return replace(found, decryption=DecryptionResult.WRONG_FORMAT)
    if opened.decryption is None:
        return replace(found, trouble=Trouble.INTERNAL)  # a version of KIM that we do not speak yet
    if opened.decryption is DecryptionResult.KEY_NOT_AVAILABLE and not _has_published_keys(sight):
        return replace(found, trouble=Trouble.KEY)
    integrity = opened.integrity or (IntegrityCheckResult.INTACT,)
    details: tuple[Detail, ...] = ()
    failed = [f"IntegrityCheckResult {result.value}" for result in integrity if not result.success]
    if opened.inner is None or failed:
        rule = ", ".join(failed) or f"DecryptionResult {opened.decryption.value}"
        details = (Detail("KIM-Nachricht", rule, opened.reason),)
    return replace(found, decryption=opened.decryption, integrity=integrity, details=details)


def _has_published_keys(sight: _Sight) -> bool:
    """Whether we hold every key that the directory publishes under our address.

    If not, "encrypted for somebody else" may be our own mistake, and must not be told as the sender's (HD-01).
    """
    try:
        published = set(sight.tools.directory().certificates(sight.mailbox.address))
    except UnknownAddressError:
        return False
    return published <= set(sight.own.certificates())


def _inside(examined: Examined, inner: bytes, sight: _Sight) -> Examined:
    found = examined.findings
    with sight.tools.stage("parts"):
        try:
            head = mail_head.parse(mail_head.split(inner)[0])
            payloads = payload_parts(leaves(inner), _DESCRIPTIONS)
            p7s = payloads[0].decode() if len(payloads) == 1 else None
        except (BadPartError, mail_head.BadHeadError) as error:
            detail = Detail("KIM-Nachricht", "MIME", str(error))
            return replace(examined, findings=_also(replace(found, payload=Payload.MISSING), detail))
    found = replace(
        found,
        dienstkennung=found.dienstkennung or dienstkennung_of(head),
        file_name=FileName.parse(head.decoded("subject")) or (FileName.parse(payloads[0].name) if payloads else None),
    )
    examined = replace(
        examined, reply_to=head.get("reply-to") or None, sender=head.get("from") or examined.sender, p7s=p7s
    )
    if p7s is None:
        payload = Payload.SEVERAL if payloads else Payload.MISSING
        detail = Detail("KIM-Nachricht", "Anhang", f"{len(payloads)} .p7s found, exactly 1 expected")
        return replace(examined, findings=_also(replace(found, payload=payload), detail))
    return _payload(replace(examined, findings=found), p7s, sight)


def _payload(examined: Examined, p7s: bytes, sight: _Sight) -> Examined:
    with sight.tools.stage("signature"):
        signature = check_payload(p7s, sight.tools.trust(), sight.now)
    if signature.verdict is PayloadVerdict.CERTIFICATE_FAULTY and not _trusts_ourselves(sight):
        return replace(examined, findings=replace(examined.findings, trouble=Trouble.TRUST))
    if signature.xml is None or signature.verdict is PayloadVerdict.UNREADABLE:
        detail = Detail("p7s", "CMS", signature.reason)
        return replace(examined, findings=_also(replace(examined.findings, signature=signature.verdict), detail))
    details = () if signature.verdict.accepted else (Detail("p7s", signature.verdict.value, signature.reason),)
    found = replace(
        _also(examined.findings, *details),
        signature=signature.verdict,
        file_hash=hashlib.sha256(signature.xml).digest(),
    )
    return _document(replace(examined, findings=found, xml=signature.xml), signature.xml, sight.tools)


def _trusts_ourselves(sight: _Sight) -> bool:
    """Whether anchors and clock accept at least one certificate of our own.

    If not, the anchors are of another world (test and production interchanged, say) or the clock is wrong, and they
    would call every practice's certificate faulty (HD-01).
    """
    trust = sight.tools.trust()
    faults = (trust.judge(certificate, sight.now).fault for certificate in sight.own.certificates())
    return any(fault not in (Fault.NO_PATH, Fault.NOT_VALID_THEN) for fault in faults)


def _document(examined: Examined, xml: bytes, tools: Tools) -> Examined:
    with tools.stage("check"):
        checked = tools.checker.check(xml)
    found = replace(
        examined.findings,
        charset_ok=not checked.charset_fault,
        verdict=checked.verdict,
        details=examined.findings.details + tuple(_detail(finding) for finding in checked.errors),
    )
    if checked.node is None:
        return replace(examined, findings=found)
    with tools.stage("facts"):
        found = replace(found, profile=read_profile(checked.node), document_id=read_document_id(checked.node))
        # A valid document of another profile (a Fehlernachricht) has no facts; the decision knows it by its profile.
        if found.verdict is Verdict.VALID and found.profile is not None and found.profile.kind is not None:
            try:
                facts = read_facts(checked.node)
            except BadDocumentIdError as error:
                # The profile sets no bound: nobody is accused, and waiting would not make it shorter.
                detail = Detail("Bundle.identifier.value", "facts", str(error))
                return replace(examined, findings=_also(replace(found, unkeepable_id=True), detail))
            except BadDocumentError as error:
                # The rules let it pass, and we cannot file it: people look, nobody is accused.
                return replace(
                    examined,
                    findings=replace(
                        found, trouble=Trouble.VALIDATOR, details=(Detail("Bundle", "facts", str(error)),)
                    ),
                )
            found = replace(found, facts=facts)
            examined = replace(examined, target=facts.target)
    return replace(examined, findings=found)


def _also(found: Findings, *details: Detail) -> Findings:
    """With what was found out now, after what was found out before: the answer may be about either."""
    return replace(found, details=found.details + details)


def _detail(finding: Finding) -> Detail:
    return Detail(finding.path, finding.key, finding.message("de"))


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is not None and moment.tzinfo is not None else None


__all__ = ["STAGES", "Examined", "Looked", "Mailbox", "Tools", "examine"]
