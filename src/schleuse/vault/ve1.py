"""The document container VE1: content under a key of its own, that under its person's key (journal.md § 14.1)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schleuse.errors import MalformedError
from schleuse.vault.contracts import SealBrokenError

MAX_PLAINTEXT = 16 << 20  #: one shot of AES-GCM; larger objects are not ours yet
OVERHEAD = 124 + 16
_HEADER = struct.Struct(">4sB3x16sQ16sI")
_BOUND = _HEADER.size  #: 52 bytes that the wrapped key is bound to
_MAGIC = b"VE1\n"


class TooLargeError(MalformedError):
    """The content does not fit into one container; whoever files it splits it."""

    code = "vault.too-large"


@dataclass(frozen=True, slots=True)
class Header:
    """What a container says about itself; true once it has opened. object_id, subject: 16 bytes."""

    object_id: bytes
    object_version: int
    subject: bytes
    key_version: int


def seal_container(
    sk: bytes, *, subject: bytes, key_version: int, object_id: bytes, object_version: int, plaintext: bytes
) -> bytes:
    """Raises TooLargeError."""
    if len(plaintext) > MAX_PLAINTEXT:
        raise TooLargeError(f"a container holds at most {MAX_PLAINTEXT} bytes, not {len(plaintext)}")
    nonces = os.urandom(24)
    bound = _HEADER.pack(_MAGIC, 1, object_id, object_version, subject, key_version)
    dek = os.urandom(32)
    head = bound + nonces[:12] + AESGCM(sk).encrypt(nonces[:12], dek, bound) + nonces[12:]
    return head + AESGCM(dek).encrypt(nonces[12:], plaintext, head)


def parse_header(container: bytes) -> Header:
    """Raises SealBrokenError for bytes that are no container."""
    if len(container) < OVERHEAD or container[:8] != _MAGIC + b"\x01\0\0\0":
        raise SealBrokenError("these bytes are no container VE1")
    _, _, object_id, object_version, subject, key_version = _HEADER.unpack_from(container)
    return Header(object_id, object_version, subject, key_version)


def open_container(sk: bytes, container: bytes) -> bytes:
    """The content. Raises SealBrokenError."""
    parse_header(container)
    try:
        dek = AESGCM(sk).decrypt(container[52:64], container[64:112], container[:_BOUND])
        return AESGCM(dek).decrypt(container[112:124], container[124:], container[:124])
    except InvalidTag as cause:
        raise SealBrokenError("a container does not open: it is damaged or not of this person's key") from cause
