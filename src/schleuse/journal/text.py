"""Base64 and decimal numbers as the C2SP texts write them: one spelling each, everything else is refused.

A second spelling of the same value would let two different texts pass for one (journal.md § 19).
"""

from __future__ import annotations

import binascii
import re

from schleuse.errors import MalformedError

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)


class BadTextError(MalformedError):
    """A number, hash or Base64 field in a spelling that the format does not allow; its writer can change it."""

    code = "journal.bad-text"


def encode_base64(data: bytes) -> str:
    """Standard Base64 with padding, on one line (RFC 4648 § 4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Bytes of canonical standard Base64. Raises BadTextError, also for stray bits in the last character."""
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as cause:
        raise BadTextError("found text that is no Base64 with padding") from cause
    # Decoders tolerate non-zero bits after the last byte; only encoding again shows them.
    if encode_base64(data) != text:
        raise BadTextError("found Base64 that is not in its canonical form")
    return data


def decode_hash(text: str) -> bytes:
    """A hash of 32 bytes in Base64. Raises BadTextError."""
    data = decode_base64(text)
    if len(data) != 32:
        raise BadTextError(f"found {len(data)} bytes where a hash of 32 bytes belongs")
    return data


def decode_decimal(text: str, below: int = 1 << 63) -> int:
    """A number from 0 in ASCII digits without leading zeros, smaller than `below` (at most 2^64). Raises BadTextError.

    `int()` alone would take "+5", " 5", "1_0" and digits of other scripts.
    """
    if not _DECIMAL.fullmatch(text) or (number := int(text)) >= below:
        raise BadTextError("found no decimal number in its range without leading zeros")
    return number
