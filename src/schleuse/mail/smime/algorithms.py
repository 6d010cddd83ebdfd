"""Digest and signature algorithms as they are named in CMS (RFC 5754, 4056, 5758; kim.md § 7.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from schleuse.errors import MalformedError
from schleuse.mail.smime import ber
from schleuse.vault.algorithms import ECDSA_SHA256_ALGORITHM, PSS_SHA256_ALGORITHM

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
DigestName = Literal["sha256", "sha384", "sha512"]

#: AlgorithmIdentifier without parameters, as RFC 5754 § 2 wants it written.
SHA256_ALGORITHM = ber.tlv(ber.SEQUENCE, ber.oid("2.16.840.1.101.3.4.2.1"))

_DIGESTS: dict[bytes, DigestName] = {
    ber.oid("2.16.840.1.101.3.4.2.1"): "sha256",
    ber.oid("2.16.840.1.101.3.4.2.2"): "sha384",
    ber.oid("2.16.840.1.101.3.4.2.3"): "sha512",
}
_HASHES: dict[DigestName, Callable[[], hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_PSS = ber.oid("1.2.840.113549.1.1.10")
_MGF1 = ber.oid("1.2.840.113549.1.1.8")
_RSA_ENCRYPTION = ber.oid("1.2.840.113549.1.1.1")
_PKCS1: dict[bytes, DigestName] = {
    ber.oid("1.2.840.113549.1.1.11"): "sha256",
    ber.oid("1.2.840.113549.1.1.12"): "sha384",
    ber.oid("1.2.840.113549.1.1.13"): "sha512",
}
_ECDSA: dict[bytes, DigestName] = {
    ber.oid("1.2.840.10045.4.3.2"): "sha256",
    ber.oid("1.2.840.10045.4.3.3"): "sha384",
    ber.oid("1.2.840.10045.4.3.4"): "sha512",
}
MAX_SALT = 512


class UnknownAlgorithmError(MalformedError):
    """A digest or signature algorithm outside the profile."""

    code = "smime.unknown-algorithm"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way of signing. mgf, salt: of RSASSA-PSS only."""

    kind: Literal["pss", "pkcs1", "ecdsa"]
    digest: DigestName
    mgf: DigestName | None = None
    salt: int = 0


@lru_cache(maxsize=64)
def digest_name(algorithm: bytes) -> DigestName:
    """Of a digest AlgorithmIdentifier in DER, with or without NULL parameters."""
    name = _DIGESTS.get(_fields(algorithm)[0])
    if name is None:
        raise UnknownAlgorithmError("the digest algorithm is none of SHA-256, SHA-384 and SHA-512")
    return name


@lru_cache(maxsize=64)
def signature_scheme(algorithm: bytes, digest: DigestName) -> Scheme:
    """Of a signature AlgorithmIdentifier in DER. digest: of the signer, for identifiers that name none."""
    fields = _fields(algorithm)
    if fields[0] == _PSS:
        return _pss(fields[1] if len(fields) > 1 else ber.tlv(ber.SEQUENCE))
    if fields[0] == _RSA_ENCRYPTION:
        return Scheme("pkcs1", digest)
    if (name := _PKCS1.get(fields[0])) is not None:
        return Scheme("pkcs1", name)
    if (name := _ECDSA.get(fields[0])) is not None:
        return Scheme("ecdsa", name)
    raise UnknownAlgorithmError("the signature algorithm is neither RSA nor ECDSA with SHA-2")


def _fields(sequence: bytes) -> list[bytes]:
    outer = ber.whole(sequence, ber.SEQUENCE)
    fields = [ber.encoding(sequence, field) for field in ber.children(sequence, outer)]
    if not fields:
        raise UnknownAlgorithmError("an algorithm identifier is empty")
    return fields


def _pss(parameters: bytes) -> Scheme:
    """RSASSA-PSS-params (RFC 4055 § 3.1). What is left out means SHA-1 there, which nobody may use any more."""
    given = {
        field[0]: ber.contents(parameters, field)
        for field in ber.children(parameters, ber.whole(parameters, ber.SEQUENCE))
    }
    if 0xA0 not in given or 0xA1 not in given:
        raise UnknownAlgorithmError("RSASSA-PSS without parameters means SHA-1, which is not accepted")
    mgf = _fields(given[0xA1])
    if mgf[0] != _MGF1 or len(mgf) != 2:
        raise UnknownAlgorithmError("RSASSA-PSS with another mask generation function than MGF1")
    salt = 20
    if 0xA2 in given:
        salt = ber.integer(given[0xA2], ber.whole(given[0xA2], ber.INTEGER))
    if not 0 <= salt <= MAX_SALT:
        raise UnknownAlgorithmError("RSASSA-PSS with an impossible salt length")
    return Scheme("pss", digest_name(given[0xA0]), digest_name(mgf[1]), salt)


@lru_cache(maxsize=64)
def _rsa_padding(scheme: Scheme) -> padding.PSS | padding.PKCS1v15:
    if scheme.mgf is None:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(_HASHES[scheme.mgf]()), scheme.salt)


def signature_holds(key: PublicKey, scheme: Scheme, signature: bytes, data: bytes) -> bool:
    """Whether the signature over data is by this key. A key of another kind than the scheme's is not."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if scheme.kind == "ecdsa":
                return False
            key.verify(signature, data, _rsa_padding(scheme), _HASHES[scheme.digest]())
        else:
            if scheme.kind != "ecdsa":
                return False
            key.verify(signature, data, ec.ECDSA(_HASHES[scheme.digest]()))
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=256)
def signature_algorithm_of(certificate: bytes) -> bytes:
    """DER of the AlgorithmIdentifier that a `Signer` with this certificate (DER) signs with."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError as cause:
        raise UnknownAlgorithmError("the certificate of a signer cannot be read") from cause
    return PSS_SHA256_ALGORITHM if isinstance(key, rsa.RSAPublicKey) else ECDSA_SHA256_ALGORITHM
