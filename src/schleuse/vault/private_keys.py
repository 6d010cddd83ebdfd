"""Private keys in memory. Only the vault, and tools of practices and developers, may import this (pyproject.toml)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from schleuse.vault.algorithms import (
    ECDSA_SHA256_ALGORITHM,
    OAEP_OID,
    OAEP_SHA256_ALGORITHM,
    PSS_SHA256_ALGORITHM,
    SHA256_ID,
)
from schleuse.vault.contracts import (
    KeyMissingError,
    Signer,
    UnsupportedWrapError,
    UnwrapFailedError,
    WrappedKey,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def open_private_key(pem: bytes, password: bytes | None = None) -> PrivateKey:
    """Raises KeyMissingError for anything but an RSA or EC private key in PEM."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError) as cause:
        raise KeyMissingError("a private key file cannot be read as PEM; its operator must replace it") from cause
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyMissingError("a private key file holds neither an RSA nor an EC key")
    return key


@dataclass(frozen=True, slots=True, repr=False)
class _KeySigner:
    certificate: bytes
    key: PrivateKey

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return PSS_SHA256_ALGORITHM, self.key.sign(data, _PSS, hashes.SHA256())
        return ECDSA_SHA256_ALGORITHM, self.key.sign(data, ec.ECDSA(hashes.SHA256()))


def key_signer(certificate: bytes, key: PrivateKey) -> Signer:
    """A signer over a key in memory. certificate: DER."""
    return _KeySigner(certificate, key)


def unwrap_with(key: PrivateKey, wrapped: WrappedKey) -> bytes:
    """The content key of one recipient info under a key in memory."""
    if not isinstance(key, rsa.RSAPrivateKey) or OAEP_OID not in wrapped.algorithm[:16]:
        raise UnsupportedWrapError(
            "the content key is not transported by RSAES-OAEP; EC recipients (TI ECIES) are not supported yet"
        )
    if wrapped.algorithm != OAEP_SHA256_ALGORITHM and wrapped.algorithm.count(SHA256_ID[2:]) != 2:
        raise UnsupportedWrapError("the content key is transported by RSAES-OAEP with other hashes than SHA-256")
    try:
        return key.decrypt(wrapped.encrypted_key, _OAEP)
    except ValueError as cause:
        raise UnwrapFailedError("the content key does not open with the recipient's key") from cause


def issuer_and_serial(certificate: x509.Certificate) -> bytes:
    """DER of IssuerAndSerialNumber (RFC 5652 § 10.2.4), the issuer's octets taken over unchanged."""
    serial = certificate.serial_number
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    body = certificate.issuer.public_bytes() + b"\x02" + _length(len(number)) + number
    return b"\x30" + _length(len(body)) + body


def _length(octets: int) -> bytes:
    if octets < 128:
        return bytes([octets])
    size = (octets.bit_length() + 7) // 8
    return bytes([128 + size]) + octets.to_bytes(size, "big")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise KeyMissingError(f"the key file {path.name} cannot be read ({cause.strerror})") from cause


def read_certificate(path: Path) -> bytes:
    """DER of a certificate in PEM. Raises KeyMissingError."""
    try:
        return x509.load_pem_x509_certificate(_read(path)).public_bytes(serialization.Encoding.DER)
    except ValueError as cause:
        raise KeyMissingError(f"the certificate file {path.name} is not PEM") from cause


def load_pair(certificate: Path, key: Path) -> tuple[bytes, PrivateKey]:
    """DER and private key of one identity.

    A key of another certificate would open nothing, and every sender would be told that his encryption is wrong.
    """
    der, private = read_certificate(certificate), open_private_key(_read(key))
    if x509.load_der_x509_certificate(der).public_key() != private.public_key():
        raise KeyMissingError(
            f"the key file {key.name} is not that of the certificate {certificate.name}; its operator must replace it"
        )
    return der, private


def checked_key(certificate: bytes, key: object) -> PrivateKey:
    """The key, if it is the certificate's (DER) and of a kind that we use. Raises KeyMissingError."""
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyMissingError("a private key is neither RSA nor EC")
    if x509.load_der_x509_certificate(certificate).public_key() != key.public_key():
        raise KeyMissingError("a private key is not that of its certificate; its operator must replace it")
    return key
