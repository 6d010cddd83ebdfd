"""Cosignatures: a witness says that at time t this was the largest consistent tree it had seen (journal.md § 8).

Two kinds: Ed25519 over time and text (cosignature/v1), and ML-DSA-44 over time and subtree (subtree/v1), for evidence
that outlives quantum computers. Source: C2SP tlog-cosignature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.note import BadNoteError, KeyKind, SignatureLine, VerifierKey, ed25519_verifies

MAX_TIME = 2**63 - 1  #: seconds since 1970 (tlog-cosignature)

_TIME_SIZE = 8  #: bytes before the signature proper


class BadCosignatureError(MalformedError):
    """A cosignature that cannot be made or read: a time out of range, or a name too long for its format."""

    code = "journal.bad-cosignature"


class Cosigner(Protocol):
    """A witness's private key."""

    @property
    def key(self) -> VerifierKey:
        """Name and public key of the witness."""
        ...

    def cosign(self, checkpoint: Checkpoint, time_s: int) -> SignatureLine:
        """The line to add to the checkpoint's note. time_s: seconds since 1970. Raises BadCosignatureError."""
        ...


class Ed25519Cosigner:
    """Cosigns with Ed25519 (kind 0x04). One such key per name: the message does not contain the name."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.key = VerifierKey(name, KeyKind.COSIGNATURE_ED25519, private_key.public_key().public_bytes_raw())

    def cosign(self, checkpoint: Checkpoint, time_s: int) -> SignatureLine:
        """See `Cosigner`."""
        return _line(self.key, time_s, self._private_key.sign(ed25519_message(checkpoint.text, time_s)))


class MLDSA44Cosigner:
    """Cosigns with ML-DSA-44 (kind 0x06). Signatures are randomised: the same twice gives other bytes."""

    def __init__(self, name: str, private_key: MLDSA44PrivateKey) -> None:
        self._private_key = private_key
        self.key = VerifierKey(name, KeyKind.COSIGNATURE_MLDSA44, private_key.public_key().public_bytes_raw())

    def cosign(self, checkpoint: Checkpoint, time_s: int) -> SignatureLine:
        """See `Cosigner`."""
        message = mldsa44_message(self.key.name, checkpoint, time_s)
        return _line(self.key, time_s, self._private_key.sign(message))


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """Verifies a witness's lines; a `note.Verifier`. Raises BadNoteError for the key of a log."""

    key: VerifierKey

    def __post_init__(self) -> None:
        if self.key.kind is KeyKind.ED25519:
            raise BadNoteError("the key of a witness is of kind 0x04 or 0x06")

    def verifies(self, text: str, signature: bytes) -> bool:
        """See `note.Verifier`; False too for a text that is no checkpoint."""
        try:
            checkpoint = parse_checkpoint(text)
            time_s = time_of(signature)
            proper = signature[_TIME_SIZE:]
            if self.key.kind is KeyKind.COSIGNATURE_ED25519:
                return ed25519_verifies(self.key.public_key, proper, ed25519_message(text, time_s))
            return _mldsa44_verifies(self.key.public_key, proper, mldsa44_message(self.key.name, checkpoint, time_s))
        except MalformedError:
            return False


def time_of(signature: bytes) -> int:
    """When the witness cosigned, in seconds since 1970; from the signature of a line. Raises BadCosignatureError."""
    if len(signature) <= _TIME_SIZE:
        raise BadCosignatureError("a cosignature is a time of 8 bytes and a signature")
    return _check_time(int.from_bytes(signature[:_TIME_SIZE]))


def ed25519_message(text: str, time_s: int) -> bytes:
    """What an Ed25519 cosignature is over: the whole checkpoint text, no empty line, no signature line."""
    return f"cosignature/v1\ntime {_check_time(time_s)}\n{text}".encode()


def mldsa44_message(name: str, checkpoint: Checkpoint, time_s: int) -> bytes:
    """What an ML-DSA-44 cosignature is over: name, time, and the subtree from entry 0 to the checkpoint's size."""
    return b"".join(
        (
            b"subtree/v1\n\x00",
            _short(name),
            _check_time(time_s).to_bytes(8),
            _short(checkpoint.origin),
            bytes(8),
            checkpoint.size.to_bytes(8),
            checkpoint.root,
        )
    )


def _line(key: VerifierKey, time_s: int, signature: bytes) -> SignatureLine:
    return SignatureLine(key.name, key.id, time_s.to_bytes(_TIME_SIZE) + signature)


def _short(name: str) -> bytes:
    data = name.encode()
    if len(data) > 255:
        raise BadCosignatureError("names in an ML-DSA-44 cosignature have at most 255 bytes")
    return bytes([len(data)]) + data


def _check_time(time_s: int) -> int:
    if not 0 <= time_s <= MAX_TIME:
        raise BadCosignatureError("the time of a cosignature is 0 to 2^63 - 1 seconds")
    return time_s


def _mldsa44_verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        MLDSA44PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
