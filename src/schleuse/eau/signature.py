"""The signature of a payload: CAdES enveloping, one `.p7s` around the XML (eau.md § 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from schleuse.mail.smime.judge import Judged, Verdict, judge_signed
from schleuse.mail.smime.signing import Encoding, build_signed
from schleuse.mail.smime.trust import SignerCertificate, TrustStore
from schleuse.vault import Signer


class PayloadVerdict(Enum):
    """What the decision table needs to know; which Fehlernachricht follows is decided there (eau.md § 12.1)."""

    VALID = "valid"
    #: No proof about revocation at hand: our own trouble, accepted (eau.md § 12.1, notes).
    STATUS_UNKNOWN = "status unknown"
    #: The data are not the ones that were signed (202 for an eAU, 204 for a Storno).
    DATA_DIFFER = "data differ"
    #: The certificate is expired, revoked, of the wrong type or without a path (201, 203).
    CERTIFICATE_FAULTY = "certificate faulty"
    #: No CMS, nobody signed, or a form outside the profile: nothing to check (101, 102).
    UNREADABLE = "unreadable"

    @property
    def accepted(self) -> bool:
        return self in {PayloadVerdict.VALID, PayloadVerdict.STATUS_UNKNOWN}


@dataclass(frozen=True, slots=True, repr=False)
class PayloadSignature:
    """xml: the enveloped octets, over which duplicates are found; also given when the signature does not hold.

    reason: English, for logs and the text part of a Fehlernachricht, without personal data.
    """

    verdict: PayloadVerdict
    xml: bytes | None
    signer: SignerCertificate | None
    signing_time: datetime | None
    reason: str


_VERDICTS = {
    Verdict.VALID: PayloadVerdict.VALID,
    Verdict.STATUS_UNKNOWN: PayloadVerdict.STATUS_UNKNOWN,
    Verdict.CONTENT_DIFFERS: PayloadVerdict.DATA_DIFFER,
    Verdict.CERTIFICATE_INVALID: PayloadVerdict.CERTIFICATE_FAULTY,
    Verdict.NO_SIGNATURE: PayloadVerdict.UNREADABLE,
    Verdict.WRONG_FORMAT: PayloadVerdict.UNREADABLE,
}


def check_payload(p7s: bytes, trust: TrustStore | None, now: datetime) -> PayloadSignature:
    """Judge one `.p7s`, in BER or DER. Never raises for what is in it.

    trust: None (command line) leaves the certificate unchecked, so that the best verdict is STATUS_UNKNOWN.
    A signature by SMC-B is as good as a qualified one (eau.md § 19, 8).
    """
    judged: Judged = judge_signed(p7s, trust, now)
    return PayloadSignature(
        _VERDICTS[judged.verdict], judged.content, judged.signer, judged.signing_time, judged.reason
    )


def sign_payload(
    xml: bytes,
    signer: Signer,
    signing_time: datetime,
    *,
    ocsp: Sequence[bytes] = (),
    chain: Sequence[bytes] = (),
    encoding: Encoding = "der",
) -> bytes:
    """The `.p7s` around an XML file. encoding "ber" writes it in chunks, as Konnektors do. Raises KeyMissingError."""
    return build_signed(xml, signer, signing_time, ocsp=ocsp, chain=chain, encoding=encoding)
