"""From a mail to what is written beside its content, and back. Pure.

The *trace* of a content is the block of Received and Return-Path fields at its top (RFC 5321 § 4.4): our own line, and
those of the hosts before us. The digest covers what is below it, so that the same mail is recognised when it
comes again, later or by another way (its Message-ID and all that its author wrote are below).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schleuse.clock import from_us, to_us
from schleuse.mail.contracts import AcceptedUnder, Mail, Notify, Recipient

_TRACE = re.compile(rb"(?:(?:received|return-path):[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n)*", re.IGNORECASE)
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)

#: A header block that is longer is not searched further for its Message-ID.
MAX_HEADERS = 256 << 10


@dataclass(frozen=True, slots=True, repr=False)
class Envelope:
    """All of an accepted mail but its content.

    message_id: of the outer header, unfolded, "" if it has none. digest: SHA-256 below the trace.
    size: of the whole content in octets. trace: how many of them are trace fields. under: as in `Mail`.
    accepted_at: never changes (HD-23).
    """

    sender: str
    recipients: tuple[Recipient, ...]
    accepted_at: datetime
    ret: str | None
    envid: str | None
    user: str | None
    smtputf8: bool
    message_id: str
    digest: bytes
    size: int
    trace: int
    under: tuple[AcceptedUnder, ...] = ()


def seal(mail: Mail) -> Envelope:
    """The envelope of an arriving mail."""
    trace = trace_length(mail.content)
    return Envelope(
        sender=mail.sender,
        recipients=mail.recipients,
        accepted_at=mail.accepted_at,
        ret=mail.ret,
        envid=mail.envid,
        user=mail.user,
        smtputf8=mail.smtputf8,
        message_id=outer_message_id(mail.content),
        digest=hashlib.sha256(memoryview(mail.content)[trace:]).digest(),
        size=len(mail.content),
        trace=trace,
        under=mail.under,
    )


def opened(envelope: Envelope, content: bytes) -> Mail:
    """The mail as it was accepted."""
    return Mail(
        sender=envelope.sender,
        recipients=envelope.recipients,
        content=content,
        accepted_at=envelope.accepted_at,
        ret="FULL" if envelope.ret == "FULL" else "HDRS" if envelope.ret == "HDRS" else None,
        envid=envelope.envid,
        user=envelope.user,
        smtputf8=envelope.smtputf8,
        under=envelope.under,
    )


def trace_length(content: bytes) -> int:
    """How many octets at the top are trace fields."""
    found = _TRACE.match(content)
    return found.end() if found else 0


def header_block(content: bytes) -> bytes:
    """The header fields with the CRLF of the last one, without the empty line."""
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[: end + 2]


def outer_message_id(content: bytes) -> str:
    """The Message-ID field of the outer header without folding, "" if there is none."""
    end = content.find(b"\r\n\r\n", 0, MAX_HEADERS)
    found = _MESSAGE_ID.search(content, 0, MAX_HEADERS if end < 0 else end)
    if found is None:
        return ""
    return found[1].replace(b"\r\n", b"").strip().decode("ascii", "backslashreplace")


def seal_matches(envelope: Envelope, content: bytes) -> bool:
    """Whether the content is still what was accepted (HD-45)."""
    return hashlib.sha256(memoryview(content)[envelope.trace :]).digest() == envelope.digest


def encode(envelope: Envelope) -> bytes:
    """As JSON: readable without us, and open for further keys. Keys are never reused."""
    fields: dict[str, object] = {
        "from": envelope.sender,
        "to": [[one.address, sorted(one.notify), one.orcpt] for one in envelope.recipients],
        "at": to_us(envelope.accepted_at),
        "ret": envelope.ret,
        "envid": envelope.envid,
        "user": envelope.user,
        "utf8": envelope.smtputf8,
        "mid": envelope.message_id,
        "sha256": envelope.digest.hex(),
        "size": envelope.size,
        "trace": envelope.trace,
    }
    if envelope.under:
        fields["switch"] = [[one.epoch, one.state] for one in envelope.under]
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(meta: bytes) -> Envelope:
    """Raises ValueError, KeyError, TypeError for what `encode` never wrote; its caller has checked the seal."""
    fields: dict[str, Any] = json.loads(meta.decode())
    return Envelope(
        sender=fields["from"],
        recipients=tuple(
            Recipient(address, frozenset(Notify(word) for word in notify), orcpt)
            for address, notify, orcpt in fields["to"]
        ),
        accepted_at=from_us(fields["at"]),
        ret=fields["ret"],
        envid=fields["envid"],
        user=fields["user"],
        smtputf8=fields["utf8"],
        message_id=fields["mid"],
        digest=bytes.fromhex(fields["sha256"]),
        size=fields["size"],
        trace=fields["trace"],
        under=tuple(AcceptedUnder(epoch, state) for epoch, state in fields.get("switch", ())),
    )
