"""The vault over key files: what it opens, and that its own trouble is never the sender's (HD-01)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from schleuse.errors import UnavailableError
from schleuse.identifiers import IK
from schleuse.vault import KeyMissingError, WrappedKey
from schleuse.vault.algorithms import OAEP_SHA256_ALGORITHM, PSS_SHA256_ALGORITHM
from schleuse.vault.contracts import SealBrokenError, UnsupportedWrapError, UnwrapFailedError
from schleuse.vault.private_keys import issuer_and_serial

KASSE = IK("109000001")
OTHER = IK("109000002")
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.BrainpoolP256R1())
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def certificate_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, serial: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Beispielkasse")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, start, start + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def written(
    folder: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, serial: int
) -> tuple[Path, Path]:
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(certificate_of(key, serial).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@pytest.fixture
def files(tmp_path: Path) -> InsurerKeyFiles:
    store = tmp_path / "store.key"
    store.write_bytes(bytes(range(32)))
    return InsurerKeyFiles(
        encryption=(written(tmp_path, "enc", RSA_KEY, 0x8001),),
        signature=written(tmp_path, "sig", EC_KEY, 2),
        store=store,
    )


@pytest.fixture
def vault(files: InsurerKeyFiles) -> LocalVault:
    return LocalVault({KASSE: files})


def wrapped(key: bytes, algorithm: bytes = OAEP_SHA256_ALGORITHM) -> WrappedKey:
    recipient = issuer_and_serial(certificate_of(RSA_KEY, 0x8001))
    return WrappedKey(recipient, algorithm, RSA_KEY.public_key().encrypt(key, OAEP))


def test_a_wrapped_key_opens(vault: LocalVault) -> None:
    assert vault.unwrap(KASSE, wrapped(b"k" * 32)) == b"k" * 32


def test_issuer_and_serial_is_what_openssl_writes(tmp_path: Path) -> None:
    certificate, _ = written(tmp_path, "enc", RSA_KEY, 0x8001)
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    made = subprocess.run(
        ["openssl", "cms", "-encrypt", "-binary", "-outform", "DER", "-in", plain, "-recip", certificate],
        check=True,
        capture_output=True,
    ).stdout
    assert issuer_and_serial(certificate_of(RSA_KEY, 0x8001)) in made


def test_a_damaged_wrapped_key_is_the_senders_fault(vault: LocalVault) -> None:
    damaged = WrappedKey(wrapped(b"k" * 32).recipient, OAEP_SHA256_ALGORITHM, bytes(256))
    with pytest.raises(UnwrapFailedError):
        vault.unwrap(KASSE, damaged)


def test_ecies_is_named_as_not_supported_yet(vault: LocalVault) -> None:
    ecies = bytes.fromhex("300a06082a8214004c04815e")  # 1.2.276.0.76.4.222
    with pytest.raises(UnsupportedWrapError, match="not supported yet"):
        vault.unwrap(KASSE, wrapped(b"k" * 32, ecies))


def test_a_missing_key_file_is_our_own_trouble(vault: LocalVault, tmp_path: Path) -> None:
    (tmp_path / "enc.key").unlink()
    with pytest.raises(KeyMissingError) as caught:
        vault.unwrap(KASSE, wrapped(b"k" * 32))
    assert isinstance(caught.value, UnavailableError)


def test_an_unreadable_key_is_our_own_trouble(vault: LocalVault, tmp_path: Path) -> None:
    (tmp_path / "enc.key").write_bytes(b"not a key")
    with pytest.raises(KeyMissingError):
        vault.unwrap(KASSE, wrapped(b"k" * 32))


def test_a_key_of_another_certificate_is_our_own_trouble(files: InsurerKeyFiles, tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    ((certificate, _),) = files.encryption
    _, key = written(tmp_path, "other", other, 3)
    vault = LocalVault({KASSE: replace(files, encryption=((certificate, key),), signature=(certificate, key))})
    with pytest.raises(KeyMissingError, match=r"other\.key is not that of the certificate enc\.pem"):
        vault.unwrap(KASSE, wrapped(b"k" * 32))
    with pytest.raises(KeyMissingError):
        vault.signer(KASSE)


def test_a_missing_key_of_one_insurer_stops_no_other(vault: LocalVault) -> None:
    with pytest.raises(KeyMissingError, match="109000002"):
        vault.seal(OTHER, b"x", b"")
    assert vault.unseal(KASSE, vault.seal(KASSE, b"x", b"c"), b"c") == b"x"


def test_sealed_bytes_open_only_in_their_context(vault: LocalVault) -> None:
    sealed = vault.seal(KASSE, b"plain", b"document 1")
    assert b"plain" not in sealed
    with pytest.raises(SealBrokenError):
        vault.unseal(KASSE, sealed, b"document 2")
    with pytest.raises(SealBrokenError):
        vault.unseal(KASSE, sealed[:5], b"document 1")


def test_pseudonyms_of_two_insurers_cannot_be_joined(files: InsurerKeyFiles, tmp_path: Path) -> None:
    other_store = tmp_path / "other.key"
    other_store.write_bytes(bytes(32))
    other = InsurerKeyFiles(files.encryption, files.signature, other_store)
    vault = LocalVault({KASSE: files, OTHER: other})
    assert vault.pseudonym(KASSE, b"A123456780") == vault.pseudonym(KASSE, b"A123456780")
    assert vault.pseudonym(KASSE, b"A123456780") != vault.pseudonym(OTHER, b"A123456780")


def test_a_store_key_of_the_wrong_length_is_refused(vault: LocalVault, files: InsurerKeyFiles) -> None:
    files.store.write_bytes(b"short")
    with pytest.raises(KeyMissingError, match="5 octets instead of 32"):
        vault.pseudonym(KASSE, b"x")


def test_an_ec_key_signs_with_ecdsa(vault: LocalVault) -> None:
    algorithm, signature = vault.signer(KASSE).sign(b"data")
    assert algorithm == bytes.fromhex("300a06082a8648ce3d040302")
    EC_KEY.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


def test_an_rsa_key_signs_with_pss(files: InsurerKeyFiles, tmp_path: Path) -> None:
    with_rsa = InsurerKeyFiles(files.encryption, written(tmp_path, "rsa", RSA_KEY, 3), files.store)
    algorithm, signature = LocalVault({KASSE: with_rsa}).signer(KASSE).sign(b"data")
    assert algorithm == PSS_SHA256_ALGORITHM
    RSA_KEY.public_key().verify(signature, b"data", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
