"""Private keys in memory: what they open and sign, and that our own trouble is never the sender's (HD-01)."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from schleuse.errors import MalformedError, UnavailableError
from schleuse.vault.algorithms import OAEP_SHA256_ALGORITHM, PSS_SHA256_ALGORITHM
from schleuse.vault.contracts import KeyMissingError, UnsupportedWrapError, UnwrapFailedError, WrappedKey
from schleuse.vault.private_keys import (
    checked_key,
    issuer_and_serial,
    key_signer,
    load_pair,
    open_private_key,
    read_certificate,
    unwrap_with,
)

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.BrainpoolP256R1())
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def certificate_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, serial: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Beispielkasse")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, start, start + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def der_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, serial: int = 1) -> bytes:
    return certificate_of(key, serial).public_bytes(serialization.Encoding.DER)


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def written(
    folder: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, serial: int
) -> tuple[Path, Path]:
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(certificate_of(key, serial).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(pem_of(key))
    return certificate, private


def wrapped(key: bytes, algorithm: bytes = OAEP_SHA256_ALGORITHM) -> WrappedKey:
    recipient = issuer_and_serial(certificate_of(RSA_KEY, 0x8001))
    return WrappedKey(recipient, algorithm, RSA_KEY.public_key().encrypt(key, OAEP))


def test_a_wrapped_key_opens() -> None:
    assert unwrap_with(RSA_KEY, wrapped(b"k" * 32)) == b"k" * 32


@pytest.mark.parametrize("serial", [1, 0x7F, 0x8001, 1 << 158])
def test_issuer_and_serial_is_what_openssl_writes(tmp_path: Path, serial: int) -> None:
    certificate, _ = written(tmp_path, "enc", RSA_KEY, serial)
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    made = subprocess.run(
        ["openssl", "cms", "-encrypt", "-binary", "-outform", "DER", "-in", plain, "-recip", certificate],
        check=True,
        capture_output=True,
    ).stdout
    assert issuer_and_serial(certificate_of(RSA_KEY, serial)) in made


def test_a_damaged_wrapped_key_is_the_senders_fault() -> None:
    damaged = WrappedKey(b"", OAEP_SHA256_ALGORITHM, bytes(256))
    with pytest.raises(UnwrapFailedError) as caught:
        unwrap_with(RSA_KEY, damaged)
    assert isinstance(caught.value, MalformedError)


def test_ecies_is_named_as_not_supported_yet() -> None:
    ecies = bytes.fromhex("300a06082a8214004c04815e")  # 1.2.276.0.76.4.222
    with pytest.raises(UnsupportedWrapError, match="not supported yet"):
        unwrap_with(RSA_KEY, wrapped(b"k" * 32, ecies))


def test_an_ec_key_opens_no_transported_key() -> None:
    with pytest.raises(UnsupportedWrapError):
        unwrap_with(EC_KEY, wrapped(b"k" * 32))


def test_a_pair_loads(tmp_path: Path) -> None:
    certificate, key = written(tmp_path, "enc", RSA_KEY, 1)
    der, private = load_pair(certificate, key)
    assert der == der_of(RSA_KEY) == read_certificate(certificate)
    assert private.private_numbers() == RSA_KEY.private_numbers()


@pytest.mark.parametrize("name", ["enc.key", "enc.pem"])
def test_a_missing_or_unreadable_file_is_our_own_trouble(tmp_path: Path, name: str) -> None:
    pair = written(tmp_path, "enc", RSA_KEY, 1)
    (tmp_path / name).write_bytes(b"not PEM")
    with pytest.raises(KeyMissingError, match="PEM"):
        load_pair(*pair)
    (tmp_path / name).unlink()
    with pytest.raises(KeyMissingError, match=name) as caught:
        load_pair(*pair)
    assert isinstance(caught.value, UnavailableError)


def test_a_key_of_another_certificate_is_our_own_trouble(tmp_path: Path) -> None:
    certificate, _ = written(tmp_path, "enc", RSA_KEY, 1)
    _, key = written(tmp_path, "other", EC_KEY, 3)
    with pytest.raises(KeyMissingError, match=r"other\.key is not that of the certificate enc\.pem"):
        load_pair(certificate, key)
    with pytest.raises(KeyMissingError, match="not that of its certificate"):
        checked_key(der_of(RSA_KEY), EC_KEY)


def test_a_key_of_its_certificate_is_taken() -> None:
    assert checked_key(der_of(EC_KEY), EC_KEY) is EC_KEY


def test_a_key_that_is_neither_rsa_nor_ec_is_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(KeyMissingError, match="neither"):
        open_private_key(pem_of(other))
    with pytest.raises(KeyMissingError, match="neither"):
        checked_key(der_of(EC_KEY), other)


def test_an_ec_key_signs_with_ecdsa() -> None:
    algorithm, signature = key_signer(der_of(EC_KEY), EC_KEY).sign(b"data")
    assert algorithm == bytes.fromhex("300a06082a8648ce3d040302")
    EC_KEY.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


def test_an_rsa_key_signs_with_pss() -> None:
    algorithm, signature = key_signer(der_of(RSA_KEY), RSA_KEY).sign(b"data")
    assert algorithm == PSS_SHA256_ALGORITHM
    RSA_KEY.public_key().verify(signature, b"data", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
