"""The document container VE1: content under a key of its own, that under its person's key (journal.md § 14.1)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schleuse.vault.contracts import SealBrokenError, TooLargeError
from schleuse.vault.kek import Random
from schleuse.vault.memory import wipe

MAX_PLAINTEXT = 16 << 20  #: one shot of AES-GCM; larger objects are not ours yet
OVERHEAD = 124 + 16
_HEADER = struct.Struct(">4sB3x16sQ16sI")
_BOUND = _HEADER.size  #: 52 bytes that the wrapped key is bound to
_MAGIC = b"VE1\n"
_BEGIN = _MAGIC + b"\x01\0\0\0"


@dataclass(frozen=True, slots=True)
class Header:
    """What a container says about itself; true once it has opened. object_id, subject: 16 bytes."""

    object_id: bytes
    object_version: int
    subject: bytes
    key_version: int


def seal_container(
    sk: bytes,
    *,
    subject: bytes,
    key_version: int,
    object_id: bytes,
    object_version: int,
    plaintext: bytes,
    random: Random = os.urandom,
) -> bytes:
    """A container under SK (32 bytes). random: gives the content's key and both nonces. Raises TooLargeError."""
    if len(plaintext) > MAX_PLAINTEXT:
        raise TooLargeError(f"a container holds at most {MAX_PLAINTEXT} bytes, not {len(plaintext)}")
    if (len(sk), len(subject), len(object_id)) != (32, 16, 16):
        raise ValueError("a subject key has 32 bytes, a subject and an object have 16")
    dek = bytearray(random(32))
    try:
        bound = _HEADER.pack(_MAGIC, 1, object_id, object_version, subject, key_version)
        wrap_nonce, data_nonce = random(12), random(12)
        head = bound + wrap_nonce + AESGCM(sk).encrypt(wrap_nonce, dek, bound) + data_nonce
        return head + AESGCM(dek).encrypt(data_nonce, plaintext, head)
    finally:
        wipe(dek)


def parse_header(container: bytes) -> Header:
    """Raises SealBrokenError for bytes that are no container."""
    _check_form(container)
    _, _, object_id, object_version, subject, key_version = _HEADER.unpack_from(container)
    return Header(object_id, object_version, subject, key_version)


def open_container(sk: bytes, container: bytes) -> bytes:
    """The content. Raises SealBrokenError."""
    _check_form(container)
    dek = bytearray(32)
    try:
        AESGCM(sk).decrypt_into(container[52:64], container[64:112], container[:_BOUND], dek)
        return AESGCM(dek).decrypt(container[112:124], memoryview(container)[124:], container[:124])
    except InvalidTag as cause:
        raise SealBrokenError("a container does not open: it is damaged or not of this person's key") from cause
    finally:
        wipe(dek)


def _check_form(container: bytes) -> None:
    if not OVERHEAD <= len(container) <= OVERHEAD + MAX_PLAINTEXT or container[:8] != _BEGIN:
        raise SealBrokenError("these bytes are no container VE1")
