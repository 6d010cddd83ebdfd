"""Which certificates we trust: chain to an anchor, validity at signing time, revocation, and who the owner is.

What can be known of a certificate without the signature at hand (chain, usage, dates, admission) is worked out once
and kept, so that a known certificate costs a look-up (limits.md, "not included").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from schleuse.errors import MalformedError, UnavailableError
from schleuse.mail.smime.algorithms import PublicKey
from schleuse.mail.smime.revocation import UNREADABLE, Proof, Status, crl_proof, ocsp_proof

MAX_CHAIN = 6
#: Certificates remembered; the Telematikinfrastruktur has some 200,000 institutions, a day sees fewer.
MAX_REMEMBERED = 10_000
#: CRLs and OCSP responses looked at that came with one signature.
MAX_PROOFS = 10
RSA_BITS = range(2048, 8193)

#: Critical extensions whose meaning is checked here, or says nothing about signing a document.
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.ADMISSIONS,
    }
)


class NoTrustAnchorError(UnavailableError):
    """No trust anchor is configured or can be read: our own trouble, never the sender's (HD-01)."""

    code = "smime.no-trust-anchor"


class UnreadableCertificateError(MalformedError):
    """A certificate that is no X.509, or holds a key that is neither RSA nor EC."""

    code = "smime.unreadable-certificate"


class Fault(Enum):
    """Why a certificate is not accepted for a signature."""

    UNREADABLE = "the certificate cannot be read"
    NOT_ENCLOSED = "the signer's certificate is not enclosed"
    NO_PATH = "no path leads from the certificate to a trust anchor"
    NOT_VALID_THEN = "the certificate or one above it was not valid at signing time"
    WRONG_USAGE = "the certificate is not meant for signing"
    REVOKED = "the certificate or one above it was revoked at signing time"


@dataclass(frozen=True, slots=True, repr=False)
class SignerCertificate:
    """Whose certificate it is. telematik_id, profession_oids: of the admission extension, if it has one."""

    der: bytes
    serial_number: int
    key: PublicKey
    telematik_id: str | None
    profession_oids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CertificateVerdict:
    """fault None: accepted; status then says whether revocation was ruled out (GOOD) or nobody knows."""

    fault: Fault | None
    status: Status = Status.UNKNOWN


@dataclass(frozen=True, slots=True, repr=False)
class _Known:
    """All about a certificate that does not depend on one signature."""

    signer: SignerCertificate
    chain: tuple[x509.Certificate, ...]  # the certificate itself first, the anchor last; empty: no path
    not_before: datetime
    not_after: datetime
    may_sign: bool
    proofs: tuple[tuple[Proof, ...], ...]  # from our own CRLs, for each certificate of the chain below its anchor


@dataclass(slots=True, repr=False)
class TrustStore:
    """Trust anchors, CRLs that the operator provides, and what was learnt of certificates. Not for several threads."""

    anchors: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    _known: dict[bytes, _Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.anchors:
            raise NoTrustAnchorError(
                "no trust anchor is configured; its operator must name at least one CA certificate"
            )

    @classmethod
    def from_pem(cls, pem: Iterable[bytes]) -> TrustStore:
        """Anchors and CRLs out of PEM texts, each with any number of either. Raises NoTrustAnchorError."""
        anchors: list[x509.Certificate] = []
        crls: list[x509.CertificateRevocationList] = []
        for text in pem:
            try:
                if b"-----BEGIN CERTIFICATE-----" in text:
                    anchors += x509.load_pem_x509_certificates(text)
                crls += [x509.load_pem_x509_crl(block) for block in _crl_blocks(text)]
            except ValueError as cause:
                raise NoTrustAnchorError("a trust anchor or CRL file is not readable as PEM") from cause
        return cls(tuple(anchors), tuple(crls))

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> TrustStore:
        """Raises NoTrustAnchorError, also for a file that is missing."""
        texts = []
        for path in paths:
            try:
                texts.append(path.read_bytes())
            except OSError as cause:
                raise NoTrustAnchorError(f"the trust anchor file {path.name} cannot be read") from cause
        return cls.from_pem(texts)

    def certificate(self, der: bytes, enclosed: Sequence[bytes] = ()) -> SignerCertificate:
        """The owner and key of a certificate. Raises UnreadableCertificateError."""
        return self._get(der, enclosed).signer

    def judge(
        self,
        der: bytes,
        at: datetime,
        enclosed: Sequence[bytes] = (),
        crls: Sequence[bytes] = (),
        ocsp: Sequence[bytes] = (),
    ) -> CertificateVerdict:
        """Whether a signature made at a time by the owner of this certificate counts.

        enclosed, crls, ocsp: DER of what came with the signature; used where it proves something.
        """
        try:
            known = self._get(der, enclosed)
        except UnreadableCertificateError:
            return CertificateVerdict(Fault.UNREADABLE)
        if not known.chain:
            return CertificateVerdict(Fault.NO_PATH)
        if not known.not_before <= at <= known.not_after:
            return CertificateVerdict(Fault.NOT_VALID_THEN)
        if not known.may_sign:
            return CertificateVerdict(Fault.WRONG_USAGE)
        status = self._status(known, at, crls, ocsp)
        return CertificateVerdict(Fault.REVOKED if status is Status.REVOKED else None, status)

    def _get(self, der: bytes, enclosed: Sequence[bytes]) -> _Known:
        known = self._known.get(der)
        if known is None or (not known.chain and len(enclosed) > 1):
            known = self._learn(der, enclosed)
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()  # rare and cheap to fill again; no need for an order
            self._known[der] = known
        return known

    def _learn(self, der: bytes, enclosed: Sequence[bytes]) -> _Known:
        certificate = _load(der)
        others = []
        for other in enclosed[:MAX_CHAIN]:
            try:
                others.append(_load(other))
            except UnreadableCertificateError:
                continue  # it may still go without
        chain = self._chain(certificate, others)
        return _Known(
            signer=_signer_of(der, certificate),
            chain=chain,
            not_before=max((one.not_valid_before_utc for one in chain), default=certificate.not_valid_before_utc),
            not_after=min((one.not_valid_after_utc for one in chain), default=certificate.not_valid_after_utc),
            may_sign=_may_sign(certificate),
            proofs=tuple(_crl_proofs(one, issuer, self.crls) for one, issuer in pairwise(chain)),
        )

    def _chain(self, leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
        """The path to an anchor, leaf first; empty if there is none. Anchors are trusted as such (RFC 5280 § 6.1)."""
        if leaf in self.anchors:
            return (leaf,)
        chain = [leaf]
        while len(chain) < MAX_CHAIN and _critical_understood(chain[-1]):
            if (
                anchor := next((one for one in self.anchors if _issued(chain[-1], one, len(chain) - 1)), None)
            ) is not None:
                return (*chain, anchor)
            above = next((one for one in others if one not in chain and _issued(chain[-1], one, len(chain) - 1)), None)
            if above is None:
                return ()
            chain.append(above)
        return ()

    def _status(self, known: _Known, at: datetime, crls: Sequence[bytes], ocsp: Sequence[bytes]) -> Status:
        """REVOKED if anything in the path was, GOOD if the leaf is known not to be, else UNKNOWN."""
        lists = _readable_crls(crls[:MAX_PROOFS])
        statuses = []
        for (one, issuer), own in zip(pairwise(known.chain), known.proofs, strict=True):
            proofs = [*own, *_crl_proofs(one, issuer, lists)]
            proofs += [proof for answer in ocsp[:MAX_PROOFS] if (proof := ocsp_proof(one, issuer, answer)) is not None]
            statuses.append(max((proof.status(at) for proof in proofs), default=Status.UNKNOWN))
        if Status.REVOKED in statuses:
            return Status.REVOKED
        return statuses[0] if statuses else Status.GOOD  # an anchor vouches for itself


def read_certificate(der: bytes) -> SignerCertificate:
    """The owner and key of a certificate, trusted or not. Raises UnreadableCertificateError."""
    return _signer_of(der, _load(der))


def _load(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        # Parsed when somebody looks: better now than later.
        _ = certificate.extensions, certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except UNREADABLE as cause:
        raise UnreadableCertificateError("a certificate cannot be read") from cause
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise UnreadableCertificateError("a certificate holds neither an RSA nor an EC key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size not in RSA_BITS:
        raise UnreadableCertificateError(f"a certificate holds an RSA key of {key.key_size} bits")
    return certificate


def _signer_of(der: bytes, certificate: x509.Certificate) -> SignerCertificate:
    key = certificate.public_key()
    assert isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey))  # noqa: S101 -- _load has looked
    telematik_id, oids = _admission(certificate)
    return SignerCertificate(der, certificate.serial_number, key, telematik_id, oids)


def _admission(certificate: x509.Certificate) -> tuple[str | None, tuple[str, ...]]:
    """(Telematik-ID, profession OIDs) of the admission extension (Common PKI part 1; kim.md § 2)."""
    try:
        admissions = certificate.extensions.get_extension_for_class(x509.Admissions).value
    except x509.ExtensionNotFound:
        return None, ()
    infos = [info for admission in admissions for info in admission.profession_infos]
    ids = [info.registration_number for info in infos if info.registration_number]
    oids = [oid.dotted_string for info in infos for oid in info.profession_oids or ()]
    return (ids[0] if ids else None), tuple(oids)


def _may_sign(certificate: x509.Certificate) -> bool:
    """Key usage of C.HCI.OSIG (digitalSignature) or of a qualified certificate (nonRepudiation)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True  # not restricted (RFC 5280 § 4.2.1.3)
    return usage.digital_signature or usage.content_commitment


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
    """Whether issuer is a CA that signed certificate; below: CAs between it and the leaf (pathLenConstraint)."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
            return False
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.key_cert_sign:
            return False
    except x509.ExtensionNotFound as missing:
        if missing.oid == ExtensionOID.BASIC_CONSTRAINTS:
            return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except UNREADABLE:
        return False
    return _critical_understood(issuer)


def _critical_understood(certificate: x509.Certificate) -> bool:
    return all(extension.oid in _UNDERSTOOD for extension in certificate.extensions if extension.critical)


def _crl_proofs(
    certificate: x509.Certificate, issuer: x509.Certificate, crls: Iterable[x509.CertificateRevocationList]
) -> tuple[Proof, ...]:
    return tuple(proof for crl in crls if (proof := crl_proof(certificate, issuer, crl)) is not None)


def _readable_crls(ders: Sequence[bytes]) -> list[x509.CertificateRevocationList]:
    found = []
    for der in ders:
        try:
            found.append(x509.load_der_x509_crl(der))
        except UNREADABLE:
            continue  # proves nothing
    return found


def _crl_blocks(text: bytes) -> list[bytes]:
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    return [begin + block.partition(end)[0] + end for block in text.split(begin)[1:]]
