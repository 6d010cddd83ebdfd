"""The bytes of the vault's socket: pipelined, as the journal's (journal.md § 13), with wider lengths (decision 0016).

Request: u32 length of the body, u16 operation, u64 request id, body. Reply: u32 length, u8 status, u64 request id, body.
Bodies are MessagePack of the structures here. Status 0: the answer. Status 1: an `Refusal`, which keeps its class.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

import msgspec

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.vault.contracts import (
    BadRequestError,
    BadTokenError,
    CounterAheadError,
    ErasedError,
    KeyMissingError,
    NotAllowedError,
    OverBudgetError,
    SealBrokenError,
    UnsupportedWrapError,
    UnwrapFailedError,
    VaultUnavailableError,
)
from schleuse.vault.ve1 import TooLargeError

REQUEST = struct.Struct(">IHQ")
REPLY = struct.Struct(">IBQ")
#: A batch of 64 documents of 1 MiB fits. Longer ones are no request.
MAX_BODY = 96 << 20
DONE, REFUSED = 0, 1

_T = TypeVar("_T")


class Ask(IntEnum):
    """Numbers are never reused."""

    CERTIFICATES = 1
    SIGNATURE_CERTIFICATE = 2
    OPEN_MAILS = 3
    PSEUDONYMS = 4
    FILE = 5
    FETCH = 6
    SEAL_LETTER = 7
    OPEN_LETTER = 8
    SIGN = 9
    ERASE = 10
    OPENING = 11
    STATUS = 12


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    pass


class Insurer(_Body):
    """CERTIFICATES -> list[bytes], SIGNATURE_CERTIFICATE -> bytes."""

    ik: str


class Mail(_Body):
    delivery: int
    recipient: bytes
    algorithm: bytes
    encrypted_key: bytes


class Refusal(_Body):
    """An error by its code. kind: the base it has, for a reader that does not know the code."""

    code: str
    kind: str
    message: str


class OpenMails(_Body):
    """-> list[bytes | Refusal]"""

    ik: str
    mails: list[Mail]


class Name(_Body):
    person: bytes
    content: bytes
    practice: bytes | None


class Names(_Body):
    """PSEUDONYMS -> list[Pseudonym]"""

    ik: str
    named: list[Name]


class Pseudonym(_Body):
    subject: bytes
    content: bytes
    practice: bytes | None


class Plain(_Body):
    subject: bytes
    name: str
    form: str
    plaintext: bytes


class File(_Body):
    """-> list[bytes]"""

    ik: str
    documents: list[Plain]


class Fetch(_Body):
    """-> bytes"""

    ik: str
    token: str
    name: str
    form: str
    container: bytes


class Letter(_Body):
    """SEAL_LETTER, OPEN_LETTER: content is the draft or the container -> bytes"""

    ik: str
    name: str
    content: bytes


class Sign(_Body):
    """-> tuple[bytes, bytes]"""

    ik: str
    data: bytes


class Erase(_Body):
    """-> bool"""

    ik: str
    token: str
    person: bytes


class Opening(_Body):
    """-> JSON object | None"""

    ik: str
    token: str
    event: bytes


class Nothing(_Body):
    """STATUS -> JSON object"""


_ERRORS: Mapping[str, type[Error]] = {
    kind.code: kind
    for kind in (
        VaultUnavailableError,
        KeyMissingError,
        OverBudgetError,
        NotAllowedError,
        BadTokenError,
        ErasedError,
        UnwrapFailedError,
        UnsupportedWrapError,
        BadRequestError,
        SealBrokenError,
        CounterAheadError,
        TooLargeError,
    )
}
_KINDS: Mapping[str, type[Error]] = {
    kind.code: kind for kind in (MalformedError, RefusedError, ConflictError, UnavailableError, CorruptError)
}


def refusal(error: Error) -> Refusal:
    """An error on its way to the other side. A kind that the other side would not expect travels as unavailable."""
    kind = next((code for code, base in _KINDS.items() if isinstance(error, base)), UnavailableError.code)
    return Refusal(error.code, kind, str(error)[:1000])


def error_of(found: Refusal) -> Error:
    """The error again, of its own class where this side has one."""
    known = _ERRORS.get(found.code)
    if known is None and found.kind == UnavailableError.code:
        return VaultUnavailableError(f"{found.message} ({found.code})")
    return (known or _KINDS.get(found.kind, VaultUnavailableError))(found.message)


def encode(body: Any) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(body)


def decode(data: bytes | bytearray | memoryview, kind: type[_T]) -> _T:
    """Raises BadRequestError, which says where the bytes differ from the kind and quotes nothing of them."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as cause:
        raise BadRequestError(
            f"expected {getattr(kind, '__name__', kind)} in MessagePack; found other bytes"
        ) from cause
