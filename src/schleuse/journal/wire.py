"""The socket protocol's bytes: pipelined requests and replies (journal.md § 13). One table of errors for both sides.

Request: u16 length, u16 log, u64 request id, entry. Reply: u64 request id, u64 index, u8 n, n bytes: nothing, the 32
bytes of S_journal, an origin, or for an index of 2^64 - 256 and above the message of that error.
A request to log 0xFFFF is no entry but a question; its first byte says which.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from schleuse.errors import Error, MalformedError, RefusedError, UnavailableError
from schleuse.journal.admission import InvalidEntryError
from schleuse.journal.contracts import (
    BadRequestError,
    EventReusedError,
    JournalBusyError,
    JournalFullError,
    JournalUnavailableError,
    LevelTimeoutError,
    NotAllowedError,
    QuarantinedError,
    ShardClosedError,
    UnknownLogError,
)
from schleuse.journal.shares import ShareLimitError

REQUEST = struct.Struct(">HHQ")
REPLY = struct.Struct(">QQB")
QUESTION = 0xFFFF
FIRST_ERROR = 2**64 - 256

WHICH_NUMBER = 1  #: question: origin; the answer's index is the number of the log
WAIT = 2  #: question: u16 log, u64 size, u8 level, u32 milliseconds; the answer's index is the size
WHICH_TAKES = 3  #: question: origin; the answer is the number and origin of the log that takes its entries now
WAIT_FIELDS = struct.Struct(">BHQBI")

#: Numbers are never reused. A kind of error that is not here travels as its base.
ERRORS: Mapping[int, type[Error]] = {
    0: JournalUnavailableError,
    1: JournalBusyError,
    2: JournalFullError,
    3: InvalidEntryError,
    4: EventReusedError,
    5: QuarantinedError,
    6: UnknownLogError,
    7: NotAllowedError,
    8: LevelTimeoutError,
    9: ShareLimitError,
    10: BadRequestError,
    11: ShardClosedError,
    253: UnavailableError,
    254: RefusedError,
    255: MalformedError,
}


def error_reply(request_id: int, error: Error) -> bytes:
    """The reply that says no."""
    number = next((n for n, kind in ERRORS.items() if type(error) is kind), None)
    if number is None:
        number = next((n for n, kind in ERRORS.items() if n > 200 and isinstance(error, kind)), 0)
    message = str(error).encode()[:255]
    return REPLY.pack(request_id, FIRST_ERROR + number, len(message)) + message


def error_of(index: int, message: bytes) -> Error:
    """The error in a reply, as the journal raised it."""
    kind = ERRORS.get(index - FIRST_ERROR, JournalUnavailableError)
    text = message.decode(errors="ignore")
    return QuarantinedError((text,)) if kind is QuarantinedError else kind(text)
