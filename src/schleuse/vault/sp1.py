"""The sealed record SP1: readable with an offline key only, not by the machine that accepted it (journal.md § 15).

Nobody writes it yet: mail that is held arrives encrypted to keys that only the vault has, and a closing takes those
from everybody (decision 0030). It is for what comes in plain.

Two layers: opening the offline key touches 80 octets of a record (`for_custodians`), not its body. A chain of digests
and numbers shows gaps, another order and removal (`check_chain`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from schleuse.errors import CorruptError
from schleuse.vault.contracts import SealBrokenError, TooLargeError
from schleuse.vault.kek import Random
from schleuse.vault.memory import wipe

FIRST = bytes(32)  #: what the first record of a spool names as the one before
MAX_PLAINTEXT = (1 << 31) - 1  #: one shot of AES-GCM in OpenSSL
_HEADER = struct.Struct(">4sBxHQQ16s8s32sI12s")
_MAGIC, _SUITE, _SEALED, _TAG = b"SP1\n", 1, 80, 16
_HEAD = _HEADER.size  # 96
_LENGTH = struct.Struct(">I")
_SMALL, _STEP, _LARGE_STEP = 65_536, 256, 4_096
#: RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; in base mode.
_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SpoolBrokenError(CorruptError):
    """Records of a sealed spool are missing, doubled or in another order; whoever keeps the spool has to look."""

    code = "vault.spool-broken"


@dataclass(frozen=True, slots=True)
class Sp1Header:
    """What a record says about itself; true once it has opened. accepted_us: microseconds since 1970.

    spool: 16 octets, of one shutdown. recovery: first 8 octets of the digest of the recovery key. before: digest of the
    whole record before.
    """

    sequence: int
    accepted_us: int
    spool: bytes
    recovery: bytes
    before: bytes
    length: int
    nonce: bytes


def seal_record(
    recovery: bytes,
    *,
    sequence: int,
    accepted_us: int,
    spool: bytes,
    before: bytes,
    metadata: bytes,
    body: bytes,
    random: Random = os.urandom,
) -> bytes:
    """One record. recovery: raw public key, 32 octets. metadata: JSON. Raises TooLargeError."""
    if (len(recovery), len(spool), len(before)) != (32, 16, 32):
        raise ValueError("a recovery key and a digest have 32 octets, a spool has 16")
    plaintext = _padded(_LENGTH.pack(len(metadata)) + metadata + body)
    nonce = random(12)
    head = _HEADER.pack(
        _MAGIC,
        _SUITE,
        _SEALED,
        sequence,
        accepted_us,
        spool,
        fingerprint(recovery),
        before,
        len(plaintext) + _TAG,
        nonce,
    )
    dek = bytearray(random(32))
    try:
        bound = head + _HPKE.encrypt(bytes(dek), X25519PublicKey.from_public_bytes(recovery), head)
        return bound + AESGCM(dek).encrypt(nonce, plaintext, bound)
    finally:
        wipe(dek)


def fingerprint(recovery: bytes) -> bytes:
    """How a record names its recovery key, 8 octets."""
    return sha256(recovery).digest()[:8]


def parse_sp1(record: bytes) -> Sp1Header:
    """Raises SealBrokenError for octets that are no whole record."""
    if len(record) < _HEAD + _SEALED + _TAG:
        raise SealBrokenError("these octets are no record SP1")
    magic, suite, sealed, *fields = _HEADER.unpack_from(record)
    header = Sp1Header(*fields)
    if (magic, suite, record[5], sealed) != (_MAGIC, _SUITE, 0, _SEALED):
        raise SealBrokenError("these octets are no record SP1 of suite 1")
    if len(record) != _HEAD + _SEALED + header.length:
        raise SealBrokenError("a record SP1 is not as long as it says")
    return header


def for_custodians(record: bytes) -> bytes:
    """What goes to the offline machine: header and sealed key, 176 octets. Raises SealBrokenError."""
    parse_sp1(record)
    return record[: _HEAD + _SEALED]


def unseal(private: bytes, exported: bytes) -> bytes:
    """On the offline machine: the record's key, 32 octets, out of `for_custodians`. Raises SealBrokenError."""
    if len(exported) != _HEAD + _SEALED:
        raise SealBrokenError("a sealed key of a record SP1 has 176 octets with its header")
    return _decrypt(private, exported[_HEAD:], exported[:_HEAD])


def reseal(key: bytes, digest: bytes, vault: bytes) -> bytes:
    """On the offline machine: a record's key for the vault's import key (raw, public). digest: of the whole record."""
    return _HPKE.encrypt(key, X25519PublicKey.from_public_bytes(vault), _opening(digest))


def unseal_import(private: bytes, sealed: bytes, digest: bytes) -> bytes:
    """In the vault: what `reseal` made of the key of the record with this digest. Raises SealBrokenError."""
    return _decrypt(private, sealed, _opening(digest))


def open_record(key: bytes, record: bytes) -> tuple[bytes, bytes]:
    """(metadata, body with the zeros after it; the metadata says how long it is). Raises SealBrokenError."""
    header = parse_sp1(record)
    bound = record[: _HEAD + _SEALED]
    try:
        plaintext = AESGCM(key).decrypt(header.nonce, memoryview(record)[_HEAD + _SEALED :], bound)
    except InvalidTag as cause:
        raise SealBrokenError("a record SP1 does not open: it is damaged, or the key is another one's") from cause
    if len(plaintext) < _LENGTH.size or _LENGTH.unpack_from(plaintext)[0] > len(plaintext) - _LENGTH.size:
        raise SealBrokenError("the metadata of a record SP1 is longer than the record")
    end = _LENGTH.size + _LENGTH.unpack_from(plaintext)[0]
    return plaintext[_LENGTH.size : end], plaintext[end:]


def check_chain(records: Iterable[bytes]) -> bytes:
    """The digest of the last record, FIRST of none. Raises SpoolBrokenError, SealBrokenError."""
    before, spool = FIRST, None
    for number, record in enumerate(records):
        header = parse_sp1(record)
        if header.sequence != number or header.before != before or header.spool != (spool or header.spool):
            raise SpoolBrokenError(
                f"place {number} of a sealed spool has record {header.sequence} of spool {header.spool.hex()}, which "
                "does not follow the record before it"
            )
        before, spool = sha256(record).digest(), header.spool
    return before


def _padded(plaintext: bytes) -> bytes:
    if len(plaintext) > MAX_PLAINTEXT - _LARGE_STEP:
        raise TooLargeError(f"a record SP1 holds at most {MAX_PLAINTEXT - _LARGE_STEP} octets, not {len(plaintext)}")
    step = _STEP if len(plaintext) <= _SMALL else _LARGE_STEP
    return plaintext + bytes(-len(plaintext) % step)


def _opening(digest: bytes) -> bytes:
    return b"SP1-open\n" + digest


def _decrypt(private: bytes, sealed: bytes, info: bytes) -> bytes:
    try:
        return _HPKE.decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)
    except (InvalidTag, ValueError) as cause:
        raise SealBrokenError("the key of a record SP1 does not open with this private key") from cause
