"""A vault over key files of this host (decision 0003: the seam that the vault role replaces)."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schleuse.identifiers import IK
from schleuse.vault.keys import (
    KeyMissingError,
    SealBrokenError,
    Signer,
    UnsupportedWrapError,
    UnwrapFailedError,
    WrappedKey,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

_SHA256_ID = bytes.fromhex("300b0609608648016503040201")
_MGF1_SHA256_ID = bytes.fromhex("301806092a864886f70d010108") + _SHA256_ID
#: id-RSAES-OAEP with SHA-256 and MGF1-SHA-256 written out (RFC 4055 § 4.1; kim.md § 7.2).
OAEP_SHA256_ALGORITHM = bytes.fromhex("303806092a864886f70d010107302b") + (
    b"\xa0\x0d" + _SHA256_ID + b"\xa1\x1a" + _MGF1_SHA256_ID
)
#: id-RSASSA-PSS with SHA-256, MGF1-SHA-256 and salt 32 (RFC 4055 § 3.1; kim.md § 7.1).
PSS_SHA256_ALGORITHM = bytes.fromhex("303d06092a864886f70d01010a3030") + (
    b"\xa0\x0d" + _SHA256_ID + b"\xa1\x1a" + _MGF1_SHA256_ID + bytes.fromhex("a203020120")
)
#: ecdsa-with-SHA256 (RFC 5758 § 3.2).
ECDSA_SHA256_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
_OAEP_OID = bytes.fromhex("06092a864886f70d010107")

NONCE_OCTETS = 12
STORE_KEY_OCTETS = 32


@dataclass(frozen=True, slots=True)
class InsurerKeyFiles:
    """Where the keys of one insurer lie. Certificates and private keys in PEM, without a password."""

    encryption: tuple[tuple[Path, Path], ...]  # (certificate, private key), newest first
    signature: tuple[Path, Path]
    store: Path  # 32 random octets


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
    if not isinstance(key, rsa.RSAPrivateKey) or _OAEP_OID not in wrapped.algorithm[:16]:
        raise UnsupportedWrapError(
            "the content key is not transported by RSAES-OAEP; EC recipients (TI ECIES) are not supported yet"
        )
    if wrapped.algorithm != OAEP_SHA256_ALGORITHM and wrapped.algorithm.count(_SHA256_ID[2:]) != 2:
        raise UnsupportedWrapError("the content key is transported by RSAES-OAEP with other hashes than SHA-256")
    try:
        return key.decrypt(wrapped.encrypted_key, _OAEP)
    except ValueError as cause:
        raise UnwrapFailedError("the content key does not open with the recipient's key") from cause


class LocalVault:
    """Keys from files, read at first use, so that a missing file is a fault of one insurer and not of the process."""

    def __init__(self, files: Mapping[IK, InsurerKeyFiles]) -> None:
        self._files = files
        self._encryption: dict[tuple[IK, bytes], PrivateKey] = {}
        self._signers: dict[IK, Signer] = {}
        self._certificates: dict[IK, tuple[bytes, ...]] = {}
        self._store_keys: dict[IK, tuple[AESGCM, bytes]] = {}

    def certificates(self, ik: IK) -> tuple[bytes, ...]:
        certificates = self._certificates.get(ik)
        if certificates is None:
            certificates = tuple(_certificate(path) for path, _ in self._of(ik).encryption)
            self._certificates[ik] = certificates
        return certificates

    def unwrap(self, ik: IK, wrapped: WrappedKey) -> bytes:
        key = self._encryption.get((ik, wrapped.recipient)) or self._load_encryption(ik, wrapped.recipient)
        return unwrap_with(key, wrapped)

    def signer(self, ik: IK) -> Signer:
        signer = self._signers.get(ik)
        if signer is None:
            signer = self._signers[ik] = key_signer(*load_pair(*self._of(ik).signature))
        return signer

    def seal(self, ik: IK, plaintext: bytes, context: bytes) -> bytes:
        nonce = os.urandom(NONCE_OCTETS)
        return nonce + self._store_key(ik)[0].encrypt(nonce, plaintext, context)

    def unseal(self, ik: IK, sealed: bytes, context: bytes) -> bytes:
        try:
            return self._store_key(ik)[0].decrypt(sealed[:NONCE_OCTETS], sealed[NONCE_OCTETS:], context)
        except (InvalidTag, ValueError) as cause:
            raise SealBrokenError("sealed bytes do not open under this key and context") from cause

    def pseudonym(self, ik: IK, value: bytes) -> bytes:
        return hmac.digest(self._store_key(ik)[1], value, "sha256")

    def _of(self, ik: IK) -> InsurerKeyFiles:
        files = self._files.get(ik)
        if files is None:
            raise KeyMissingError(f"no keys are configured for the insurer {ik}")
        return files

    def _load_encryption(self, ik: IK, recipient: bytes) -> PrivateKey:
        for certificate, key in self._of(ik).encryption:
            parsed = x509.load_der_x509_certificate(_certificate(certificate))
            if recipient == issuer_and_serial(parsed):
                _, loaded = load_pair(certificate, key)
                self._encryption[ik, recipient] = loaded
                return loaded
        raise KeyMissingError(f"the insurer {ik} has no key for this recipient certificate")

    def _store_key(self, ik: IK) -> tuple[AESGCM, bytes]:
        keys = self._store_keys.get(ik)
        if keys is None:
            root = _read(self._of(ik).store)
            if len(root) != STORE_KEY_OCTETS:
                raise KeyMissingError(f"the store key of {ik} has {len(root)} octets instead of {STORE_KEY_OCTETS}")
            keys = self._store_keys[ik] = (AESGCM(_derive(root, b"seal")), _derive(root, b"pseudonym"))
        return keys


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


def _derive(root: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, b"schleuse store " + purpose).derive(root)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise KeyMissingError(f"the key file {path.name} cannot be read ({cause.strerror})") from cause


def _certificate(path: Path) -> bytes:
    try:
        return x509.load_pem_x509_certificate(_read(path)).public_bytes(serialization.Encoding.DER)
    except ValueError as cause:
        raise KeyMissingError(f"the certificate file {path.name} is not PEM") from cause


def load_pair(certificate: Path, key: Path) -> tuple[bytes, PrivateKey]:
    """DER and private key of one identity.

    A key of another certificate would open nothing, and every sender would be told that his encryption is wrong.
    """
    der, private = _certificate(certificate), open_private_key(_read(key))
    if x509.load_der_x509_certificate(der).public_key() != private.public_key():
        raise KeyMissingError(
            f"the key file {key.name} is not that of the certificate {certificate.name}; its operator must replace it"
        )
    return der, private
