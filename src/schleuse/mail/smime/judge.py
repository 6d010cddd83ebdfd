"""One verdict on a signed object: signature and certificate together (kim.md § 12.3, eau.md § 4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from schleuse.errors import MalformedError
from schleuse.mail.smime.recipients import RecipientEmail
from schleuse.mail.smime.revocation import Status
from schleuse.mail.smime.signed import Mismatch, NoSignatureError, SignedData, parse_signed, verify
from schleuse.mail.smime.trust import (
    CertificateVerdict,
    Fault,
    SignerCertificate,
    TrustStore,
    UnreadableCertificateError,
    read_certificate,
)

#: A signing time further ahead of our clock is not believed; the certificate must then be valid now.
CLOCK_TOLERANCE = timedelta(minutes=15)


class Verdict(Enum):
    """What a receiver must tell apart, in the order in which it is found out."""

    NO_SIGNATURE = "no signature"
    WRONG_FORMAT = "signature in a wrong format"
    CONTENT_DIFFERS = "content does not match the signature"
    CERTIFICATE_INVALID = "certificate not valid"
    STATUS_UNKNOWN = "signature holds, status of the certificate not obtainable"
    VALID = "signature holds, certificate valid"


@dataclass(frozen=True, slots=True, repr=False)
class Judged:
    """A verdict, and what could be read on the way to it.

    content: the enclosed octets, also when the signature does not hold; None if they could not be reached.
    reason: English, without personal data.
    """

    verdict: Verdict
    reason: str
    content: bytes | None = None
    signer: SignerCertificate | None = None
    signing_time: datetime | None = None
    recipient_emails: tuple[RecipientEmail, ...] | None = None
    fault: Fault | None = None


def judge_signed(data: bytes, trust: TrustStore | None, now: datetime) -> Judged:
    """Read, verify and judge one SignedData. Never raises for what is in data.

    trust: None leaves the certificate unchecked, so that the best verdict is STATUS_UNKNOWN.
    """
    try:
        signed = parse_signed(data)
    except NoSignatureError as error:
        return Judged(Verdict.NO_SIGNATURE, str(error))
    except MalformedError as error:
        return Judged(Verdict.WRONG_FORMAT, str(error))
    if signed.certificate is None:
        return _with_fault(signed, Fault.NOT_ENCLOSED, None)
    try:
        if trust is None:
            signer = read_certificate(signed.certificate)
        else:
            signer = trust.certificate(signed.certificate, signed.certificates)
    except UnreadableCertificateError:
        return _with_fault(signed, Fault.UNREADABLE, None)
    mismatch = verify(signed, signer.key)
    if mismatch is Mismatch.CERTIFICATE:
        return _judged(signed, Verdict.CERTIFICATE_INVALID, mismatch.value, signer)
    if mismatch is not None:
        return _judged(signed, Verdict.CONTENT_DIFFERS, mismatch.value, signer)
    if trust is None:
        return _judged(signed, Verdict.STATUS_UNKNOWN, "no trust anchors were given: certificate not checked", signer)
    return _certificate(signed, signer, _judge_certificate(signed, trust, now))


def _judge_certificate(signed: SignedData, trust: TrustStore, now: datetime) -> CertificateVerdict:
    at = signed.signing_time
    if at is None or at > now + CLOCK_TOLERANCE:
        at = now
    assert signed.certificate is not None  # noqa: S101 -- the caller has looked
    return trust.judge(signed.certificate, at, signed.certificates, signed.crls, signed.ocsp)


def _certificate(signed: SignedData, signer: SignerCertificate, verdict: CertificateVerdict) -> Judged:
    if verdict.fault is not None:
        return _with_fault(signed, verdict.fault, signer)
    if verdict.status is Status.GOOD:
        return _judged(signed, Verdict.VALID, Verdict.VALID.value, signer)
    return _judged(signed, Verdict.STATUS_UNKNOWN, Verdict.STATUS_UNKNOWN.value, signer)


def _with_fault(signed: SignedData, fault: Fault, signer: SignerCertificate | None) -> Judged:
    reason = fault.value if signer is None else f"{fault.value} (serial number {signer.serial_number:x})"
    return _judged(signed, Verdict.CERTIFICATE_INVALID, reason, signer, fault)


def _judged(
    signed: SignedData, verdict: Verdict, reason: str, signer: SignerCertificate | None, fault: Fault | None = None
) -> Judged:
    return Judged(verdict, reason, signed.content, signer, signed.signing_time, signed.recipient_emails, fault)
