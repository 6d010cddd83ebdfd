"""The directory file: look-ups as in kim.md § 16.2."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from schleuse.kim.directory import (
    BadDirectoryError,
    Directory,
    DirectoryFile,
    Entry,
    UnknownAddressError,
    write_directory,
)


def a_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Kasse")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


INSURER = Entry(
    "8-1", 5, ("109000001", "109000009"), ("eAU@kasse.kim.telematik-test", "b@kasse.kim.telematik-test"), ()
)
PRACTICE = Entry("1-2", 2, ("109000001",), ("praxis@a.kim.telematik-test",), ())


def test_an_insurer_is_found_by_any_of_its_iks_and_has_one_eau_address() -> None:
    directory = Directory([PRACTICE, INSURER])
    assert directory.insurer_address("109000009") == "eAU@kasse.kim.telematik-test"


def test_a_practice_with_the_same_domain_id_is_no_insurer() -> None:
    with pytest.raises(UnknownAddressError, match="109000001"):
        Directory([PRACTICE]).insurer_address("109000001")


def test_addresses_compare_without_case() -> None:
    assert "EAU@KASSE.kim.telematik-test" in Directory([INSURER])


def test_an_entry_without_certificate_cannot_be_written_to() -> None:
    with pytest.raises(UnknownAddressError, match="encryption certificate"):
        Directory([PRACTICE]).certificates("praxis@a.kim.telematik-test")


def test_the_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "directory.json"
    certificate = a_certificate()
    write_directory(file, [INSURER])
    directory = DirectoryFile(file)
    assert len(directory.current().entries) == 1
    write_directory(file, [INSURER, Entry("1-2", 2, (), PRACTICE.addresses, (certificate,))])
    os.utime(file, ns=(1, 1))
    assert directory.current().certificates(PRACTICE.addresses[0]) == (certificate,)


@pytest.mark.parametrize("content", [b"", b"{", b'[{"mail": 3}]', b"[7]", b"\xff"])
def test_a_damaged_file_is_our_own_trouble(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "directory.json"
    file.write_bytes(content)
    with pytest.raises(BadDirectoryError):
        DirectoryFile(file).current()
