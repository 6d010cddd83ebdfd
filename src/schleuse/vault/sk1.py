"""Subject keys: SK from two halves, and the record SK1 that keeps the vault's half wrapped (journal.md § 14.1)."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schleuse.vault.contracts import SealBrokenError
from schleuse.vault.kek import Kek

RECORD = 92  #: bytes of a record SK1
KEY = 32
_MAGIC = b"SK1\n"
_HEADER = 32
_NONCE = 12


def derive(s_vault: bytes, share: bytes, subject: bytes, version: int) -> bytes:
    """SK of one subject and version, 32 bytes. share: S_journal, zeros where the halves are not split."""
    return HKDF(hashes.SHA256(), KEY, share, _MAGIC + subject + version.to_bytes(4)).derive(s_vault)


def seal_sk1(kek: Kek, subject: bytes, version: int, s_vault: bytes, nonce: bytes) -> bytes:
    """The record, 92 bytes. nonce: 12 fresh random bytes."""
    header = _MAGIC + b"\x01\0\0\0" + subject + version.to_bytes(4) + kek.id.to_bytes(4)
    return header + nonce + kek.wrap(nonce, s_vault, header)


def open_sk1(kek: Kek, record: bytes, subject: bytes, version: int) -> bytes:
    """S_vault. Raises SealBrokenError for any other record than the one of this subject and version."""
    header = record[:_HEADER]
    expected = _MAGIC + b"\x01\0\0\0" + subject + version.to_bytes(4)
    if len(record) != RECORD or header[:28] != expected:
        raise SealBrokenError("a key record SK1 is not the one of this subject and version")
    return kek.unwrap(record[_HEADER : _HEADER + _NONCE], record[_HEADER + _NONCE :], header)


def kek_id(record: bytes) -> int:
    """Which key encryption key wraps the record. Raises SealBrokenError."""
    if len(record) != RECORD or record[:8] != _MAGIC + b"\x01\0\0\0":
        raise SealBrokenError("these bytes are no key record SK1")
    return int.from_bytes(record[28:32])
