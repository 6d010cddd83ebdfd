"""What a CRL or an OCSP response proves about a certificate at a time (RFC 5280 § 5, RFC 6960)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import CRLEntryExtensionOID, ExtendedKeyUsageOID

#: How much older than the signature a proof may be. Konnektors keep OCSP answers for hours (kim.md § 17: ENC
#: certificates 12 h), CRLs say themselves how long they are good; a proof made later than the signature is always good.
MAX_PROOF_AGE = timedelta(hours=24)


#: What `cryptography` raises for X.509 objects that somebody tampered with; some of it only when a field is looked at.
UNREADABLE = (
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Status(IntEnum):
    """In ascending order of weight: of several proofs the greatest counts."""

    UNKNOWN = 0
    GOOD = 1
    REVOKED = 2


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified statement about one certificate. revoked_at None: not revoked until good_until."""

    revoked_at: datetime | None
    good_until: datetime

    def status(self, at: datetime) -> Status:
        if self.revoked_at is not None:
            return Status.REVOKED if self.revoked_at <= at else Status.GOOD
        return Status.GOOD if at <= self.good_until else Status.UNKNOWN


def crl_proof(
    certificate: x509.Certificate, issuer: x509.Certificate, crl: x509.CertificateRevocationList
) -> Proof | None:
    """None for a CRL of another issuer, with a wrong signature, or that says nothing."""
    key = issuer.public_key()
    if crl.issuer != certificate.issuer or not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        return None
    try:
        if not crl.is_signature_valid(key):
            return None
        entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if entry is not None and not _only_removed(entry):
            return Proof(entry.revocation_date_utc, crl.last_update_utc)
        return Proof(None, max(crl.last_update_utc, crl.next_update_utc or crl.last_update_utc))
    except UNREADABLE:
        return None


def _only_removed(entry: x509.RevokedCertificate) -> bool:
    """removeFromCRL ends a suspension (RFC 5280 § 5.3.1)."""
    try:
        reason = entry.extensions.get_extension_for_oid(CRLEntryExtensionOID.CRL_REASON).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False
    return isinstance(reason, x509.CRLReason) and reason.reason is x509.ReasonFlags.remove_from_crl


def ocsp_proof(certificate: x509.Certificate, issuer: x509.Certificate, response: bytes) -> Proof | None:
    """None for an answer about another certificate, by a responder that may not, or without a clear status."""
    try:
        parsed = ocsp.load_der_ocsp_response(response)
        if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return None
        if not _about(parsed, certificate, issuer) or not _by_responder_of(parsed, issuer):
            return None
        made_at, good_until = parsed.this_update_utc, parsed.this_update_utc + MAX_PROOF_AGE
        if parsed.certificate_status is ocsp.OCSPCertStatus.REVOKED:
            return Proof(parsed.revocation_time_utc or made_at, made_at)
        if parsed.certificate_status is not ocsp.OCSPCertStatus.GOOD:
            return None
        return Proof(None, max(good_until, parsed.next_update_utc or good_until))
    except UNREADABLE:
        return None


def _about(parsed: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the CertID names this certificate (RFC 6960 § 4.1.1)."""
    if parsed.serial_number != certificate.serial_number:
        return False
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, parsed.hash_algorithm).build()
    return (request.issuer_name_hash, request.issuer_key_hash) == (parsed.issuer_name_hash, parsed.issuer_key_hash)


def _by_responder_of(parsed: ocsp.OCSPResponse, issuer: x509.Certificate) -> bool:
    """Whether the issuer signed the answer, or a responder that it authorised (RFC 6960 § 4.2.2.2)."""
    if _signed_by(parsed, issuer):
        return True
    for responder in parsed.certificates:
        try:
            usages = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            responder.verify_directly_issued_by(issuer)
        except (x509.ExtensionNotFound, *UNREADABLE):
            continue
        if ExtendedKeyUsageOID.OCSP_SIGNING in usages and _signed_by(parsed, responder):
            return True
    return False


def _signed_by(parsed: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    key, digest = certificate.public_key(), parsed.signature_hash_algorithm
    if digest is None or isinstance(digest, (hashes.MD5, hashes.SHA1)):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(parsed.signature, parsed.tbs_response_bytes, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(parsed.signature, parsed.tbs_response_bytes, ec.ECDSA(digest))
        else:
            return False
    except InvalidSignature:
        return False
    return True
