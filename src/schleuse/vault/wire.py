"""The bytes of the vault's socket: pipelined, as the journal's (journal.md § 13), with wider lengths (decision 0016).

Request: u32 length of the body, u16 operation, u64 request id, body. Reply: u64 request id, u8 status, u32 length of
the body, body. Bodies are MessagePack of the structures here. Status 0: the answer. Status 1: a `Refusal`, which keeps
its class.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

import msgspec

from schleuse.database import DatabaseCorruptError, DatabaseTooNewError, DatabaseUnavailableError
from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.vault.contracts import (
    BadRequestError,
    BadTokenError,
    CounterAheadError,
    ErasedError,
    KeyMissingError,
    NotAllowedError,
    OlderStoreError,
    OverBudgetError,
    OverrideRefusedError,
    RotationRefusedError,
    ScopeClosedError,
    SealBrokenError,
    TooLargeError,
    UnsupportedWrapError,
    UnwrapFailedError,
    VaultUnavailableError,
)
from schleuse.vault.ledger import LogClosedError, UnsettledError

REQUEST = struct.Struct(">IHQ")
REPLY = struct.Struct(">QBI")
#: Of a request, in octets: some thousand documents of the usual 25 KB. What is longer is no request.
MAX_REQUEST = 64 << 20
#: Of a reply: containers are a little longer than what is in them.
MAX_REPLY = 2 * MAX_REQUEST
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
    IMPORT = 13
    ROTATE = 14
    RETIRE = 15
    GENERATIONS = 16
    OVERRIDE = 17
    END_OVERRIDE = 18


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A tuple on the wire."""

    def __repr__(self) -> str:  # of persons and keys nothing may be printed
        return f"<{type(self).__name__}>"


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


class Generation(_Body):
    """ROTATE, RETIRE -> JSON object. tokens: of an operator, by the IK of each insurer."""

    generation: int
    tokens: dict[str, str]


class Override(_Body):
    """-> JSON object. tokens: of two operators."""

    ik: str
    role: str
    releases: int
    hours: int
    reason: str
    tokens: list[str]


class EndOverride(_Body):
    """-> bool. token: of an operator."""

    ik: str
    role: str
    token: str


class Nothing(_Body):
    """STATUS, GENERATIONS -> JSON object, IMPORT -> list[dict[str, str]]"""


#: Whoever adds an error that the vault may raise adds it here; without, it travels as its base.
ERRORS: Mapping[str, type[Error]] = {
    kind.code: kind
    for kind in (
        VaultUnavailableError,
        KeyMissingError,
        OverBudgetError,
        OverrideRefusedError,
        ScopeClosedError,
        NotAllowedError,
        BadTokenError,
        ErasedError,
        UnwrapFailedError,
        UnsupportedWrapError,
        BadRequestError,
        SealBrokenError,
        CounterAheadError,
        OlderStoreError,
        TooLargeError,
        RotationRefusedError,
        UnsettledError,
        LogClosedError,
        DatabaseUnavailableError,
        DatabaseTooNewError,
        DatabaseCorruptError,
    )
}
KINDS: Mapping[str, type[Error]] = {
    kind.code: kind for kind in (MalformedError, RefusedError, ConflictError, UnavailableError, CorruptError)
}


def refusal(error: Error) -> Refusal:
    """An error on its way to the other side. One of no kind travels as unavailable: our own trouble."""
    kind = next((code for code, base in KINDS.items() if isinstance(error, base)), UnavailableError.code)
    return Refusal(error.code, kind, str(error)[:1000])


def error_of(found: Refusal) -> Error:
    """The error again, of its own class where this side has one."""
    base = KINDS.get(found.kind, UnavailableError)
    known = ERRORS.get(found.code)
    if known is not None and issubclass(known, base):
        return known(found.message)
    if base is UnavailableError:
        return VaultUnavailableError(f"{found.message} ({found.code})")
    return base(found.message)


def encode(body: Any) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(body)


def decode(data: bytes | bytearray | memoryview, kind: type[_T]) -> _T:
    """Raises BadRequestError, which quotes nothing of the bytes and hides its cause, which might."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        name = getattr(kind, "__name__", "another type")
        raise BadRequestError(f"expected {name} in MessagePack; found other bytes") from None


def request(operation: Ask, request_id: int, body: Any) -> bytes:
    """The frame. Raises BadRequestError if it is too long: whoever asks must ask for less at a time."""
    data = encode(body)
    if len(data) > MAX_REQUEST:
        raise BadRequestError(f"found a request of {len(data)} octets; the vault takes {MAX_REQUEST} at a time")
    return REQUEST.pack(len(data), operation, request_id) + data


def reply(request_id: int, answer: Any) -> bytes:
    """The frame of an answer. Raises BadRequestError if it is too long."""
    data = encode(answer)
    if len(data) > MAX_REPLY:
        raise BadRequestError(f"the answer would have {len(data)} octets; the vault gives {MAX_REPLY} at a time")
    return REPLY.pack(request_id, DONE, len(data)) + data


def error_reply(request_id: int, error: Error) -> bytes:
    """The frame that says no."""
    data = encode(refusal(error))
    return REPLY.pack(request_id, REFUSED, len(data)) + data
