"""The content of one mail inside an SMTP session: where it ends, whether it is clean, and the line on top of it.

Only CRLF.CRLF ends a mail (RFC 5321 § 4.1.1.4). Nothing is read line by line: a mail of 50 KB costs a few
searches in C.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

END_OF_DATA = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The end has not arrived."""


@dataclass(frozen=True, slots=True)
class TooBig:
    """Over the limit, and read to its end; hopeless: over twice the limit without an end."""

    hopeless: bool


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """A whole mail with CRLF line ends, dots unstuffed. clean: no bare CR, no bare LF, no NUL in it."""

    octets: bytes
    clean: bool


#: More dots than a header has; beyond them a search for the whole end is quicker.
FEW_DOTS = 64
#: Both begin with a literal octet, which `re` finds by memchr; the look-behind comes after it for that reason.
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_BARE_CR = re.compile(rb"\r(?!\n)")
_UNFINISHED = Unfinished()
_CRLF = len(b"\r\n")


class DataReader:
    """Finds the end of one mail in a growing buffer. max_size: octets of a mail, dots unstuffed (RFC 1870 § 5).

    The buffer begins with the CRLF of the DATA line, so that a dot on the first line is no special case.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self.start()

    def start(self) -> None:
        """A new mail begins."""
        self._searched = 0
        self._dropped = 0  # octets of a mail over the limit that are no longer in the buffer
        self._look_at = self._max_size  # no need to count before so much is there

    def read(self, buffer: bytearray) -> Unfinished | TooBig | Content:
        """Take the mail off the buffer, if its end is in it."""
        end = _find_end(buffer, self._searched)
        hopeless = 2 * self._max_size + _CRLF
        if end < 0:
            self._searched = max(0, len(buffer) - len(END_OF_DATA) + 1)
            if self._dropped + len(buffer) > hopeless:
                return TooBig(hopeless=True)
            self._drop_if_too_big(buffer)
            return _UNFINISHED
        if self._dropped + end + len(END_OF_DATA) > hopeless:
            return TooBig(hopeless=True)
        if self._dropped:
            del buffer[: end + len(END_OF_DATA)]
            return TooBig(hopeless=False)
        content = self._take(buffer, end)
        return content if len(content.octets) <= self._max_size else TooBig(hopeless=False)

    def _take(self, buffer: bytearray, end: int) -> Content:
        with memoryview(buffer) as view:
            stuffed = bytes(view[: end + _CRLF])
        del buffer[: end + len(END_OF_DATA)]
        # RFC 5321 § 4.5.2: one dot at the start of a line is taken away.
        octets = stuffed.replace(b"\r\n.", b"\r\n") if _has_leading_dot(stuffed) else stuffed
        return Content(octets[_CRLF:], _is_clean(stuffed))

    def _drop_if_too_big(self, buffer: bytearray) -> None:
        """Forget a mail that is over the limit for certain; only its possible end is kept."""
        if self._dropped or len(buffer) > self._look_at:
            keep = len(END_OF_DATA) - 1
            stuffing = 0 if self._dropped else buffer.count(b"\r\n.")
            if not self._dropped and len(buffer) - _CRLF - keep - stuffing <= self._max_size:
                self._look_at = len(buffer) + keep
                return
            self._dropped += len(buffer) - keep
            del buffer[:-keep]
            self._searched = 0


# A mail is searched five times, and this is most of what the session costs. Searching one octet is memchr, at
# least four times as quick as searching CRLF or longer; base64 has no dots, so a mail has only those of its header.


def _find_end(buffer: bytearray, start: int) -> int:
    """Where END_OF_DATA begins at or behind start, or -1."""
    dot = start + 1
    for _ in range(FEW_DOTS):
        dot = buffer.find(b".", dot + 1)
        if dot < 0:
            return -1
        if buffer[dot - 2 : dot + 3] == END_OF_DATA:
            return dot - 2
    return buffer.find(END_OF_DATA, dot - 1)


def _has_leading_dot(octets: bytes) -> bool:
    dot = 1
    for _ in range(FEW_DOTS):
        dot = octets.find(b".", dot + 1)
        if dot < 0:
            return False
        if octets[dot - 2 : dot] == b"\r\n":
            return True
    return octets.find(b"\r\n.", dot - 1) >= 0


def _is_clean(octets: bytes) -> bool:
    return not (_BARE_LF.search(octets) or _BARE_CR.search(octets) or b"\0" in octets)


def count_received(content: bytes) -> int:
    """How many Received fields the header has (RFC 5321 § 6.3)."""
    end = content.find(b"\r\n\r\n")
    head = content if end < 0 else content[:end]
    return (b"\r\n" + head).lower().count(b"\r\nreceived:")


def received_field(*, helo: str | None, peer: str | None, hostname: str, protocol: str, now: datetime) -> bytes:
    """The trace field of RFC 5321 § 4.4, with CRLF. protocol: a word of RFC 3848 or RFC 6531 § 4.3.

    helo and peer are None for a logged-in account: the name of a practice's machine and its address are
    personal data that no receiver needs (kim.md § 5.1 forbids them in a Message-ID). No `for`: it
    would show who got a blind copy. helo was checked by `helo_name`, so it cannot bring in a line end.
    """
    source = "submission.invalid" if helo is None else helo
    if peer is not None:
        source += f" ([{'IPv6:' if ':' in peer else ''}{peer}])"
    date = _date(now.replace(microsecond=0))
    return f"Received: from {source}\r\n\tby {hostname} with {protocol};\r\n\t{date}\r\n".encode("ascii")


@lru_cache(maxsize=4)
def _date(second: datetime) -> str:
    """Many mails arrive in one second, and writing its date costs more than anything else in their trace."""
    return format_datetime(second)
