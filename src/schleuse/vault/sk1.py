"""Subject keys: SK from two halves, and the record SK1 that keeps the vault's half wrapped (journal.md § 14.1)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.kek import Kek

RECORD = 92  #: bytes of a record SK1
KEY = 32
NO_SHARE = bytes(KEY)  #: where the halves are not split
_MAGIC = b"SK1\n"
_HEADER = struct.Struct(">4sB3x16sII")  # magic, alg, subject, version, kek id
_BODY = _HEADER.size + 12


def derive(s_vault: bytes, share: bytes, subject: bytes, version: int) -> bytes:
    """SK of one subject (16 bytes) and version, 32 bytes. share: S_journal, or `NO_SHARE`."""
    if (len(s_vault), len(share), len(subject)) != (KEY, KEY, 16):
        raise ValueError("both halves of a subject key have 32 bytes, its subject has 16")
    return HKDF(hashes.SHA256(), KEY, share, _MAGIC + subject + version.to_bytes(4)).derive(s_vault)


def checked_share(share: bytes) -> bytes:
    """S_journal of an entry. Raises KeyMissingError if the journal does not take us for the vault."""
    if len(share) != KEY:
        raise KeyMissingError("the journal gave no share of the key; its configuration must name the vault's user")
    return share


def seal_sk1(kek: Kek, subject: bytes, version: int, s_vault: bytes, nonce: bytes) -> bytes:
    """The record, 92 bytes, wrapped by the newest generation. nonce: 12 fresh random bytes. Raises KeyMissingError."""
    if (len(s_vault), len(subject), len(nonce)) != (KEY, 16, 12):
        raise ValueError("the vault's half of a subject key has 32 bytes, its subject 16, a nonce 12")
    generation = kek.id  # a new one may come between the two uses
    header = _HEADER.pack(_MAGIC, 1, subject, version, generation)
    return header + nonce + kek.wrap(nonce, s_vault, header, generation)


def seal_all(kek: Kek, halves: Sequence[tuple[bytes, int, bytes]]) -> list[tuple[bytes, int, bytes]]:
    """(subject, version, record) for each (subject, version, S_vault), with fresh nonces."""
    return [
        (subject, version, seal_sk1(kek, subject, version, s_vault, os.urandom(12)))
        for subject, version, s_vault in halves
    ]


def open_sk1(kek: Kek, record: bytes, subject: bytes, version: int) -> bytes:
    """S_vault, 32 bytes.

    Raises SealBrokenError for any other record than the one of this subject and version, KeyMissingError.
    """
    generation = kek_id(record)
    header = _HEADER.pack(_MAGIC, 1, subject, version, generation)
    if record[: _HEADER.size] != header or len(subject) != 16:
        raise SealBrokenError("a key record SK1 is of another subject or version; the vault's store is damaged")
    return kek.unwrap(record[_HEADER.size : _BODY], record[_BODY:], header, generation)


def rewrap(kek: Kek, record: bytes, nonce: bytes) -> bytes | None:
    """The same key under the newest generation; None if that wraps it already (§ 17). nonce: 12 fresh random bytes.

    Raises SealBrokenError, KeyMissingError.
    """
    if kek_id(record) == kek.id:
        return None
    _, _, subject, version, _ = _HEADER.unpack_from(record)
    return seal_sk1(kek, subject, version, open_sk1(kek, record, subject, version), nonce)


def kek_id(record: bytes) -> int:
    """Which generation of the key encryption key wraps the record. Raises SealBrokenError."""
    if len(record) != RECORD or record[:8] != _MAGIC + b"\x01\0\0\0":
        raise SealBrokenError("these bytes are no key record SK1; the vault's store is damaged")
    return int.from_bytes(record[28:32])
