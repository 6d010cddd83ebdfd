"""What to say to the next host about one mail, and what its replies mean. Pure.

RFC 5321 (replies), RFC 3461 § 5.2.1 (passing DSN parameters on), RFC 1870 (SIZE), RFC 6152 (8BITMIME),
RFC 6531 (SMTPUTF8), RFC 3463 (status codes), RFC 5321 § 6.3 (loops).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schleuse.mail.contracts import Outgoing

MAX_RECEIVED = 100  #: RFC 5321 § 6.3
#: How often a mail may have been here, this time included. Twice is a forwarding, more is a circle.
MAX_OWN_RECEIVED = 3
MAX_REPLY = 500  #: characters of a reply that are kept

_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=\s|$)", re.ASCII)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_RECEIVED = re.compile(rb"(?im)^received:[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*")
#: Refusals that say something about us and not about the mail: not logged in, wrong order, unknown command.
#: Own trouble never makes a mail fail (HD-01).
_OWN_TROUBLE = frozenset({502, 503, 530, 534, 535, 538})


class Trouble(StrEnum):
    """Why an operator should look. Closed set, counted and logged."""

    UNREACHABLE = "outbound.unreachable"
    TLS_NOT_VERIFIED = "outbound.tls_not_verified"
    TLS_NOT_OFFERED = "outbound.tls_not_offered"
    LOGIN_REFUSED = "outbound.login_refused"
    SESSION_REFUSED = "outbound.session_refused"
    BAD_SETTING = "outbound.bad_setting"
    NO_ROUTE = "outbound.no_route"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next host took it. relayed_dsn: it speaks DSN and will report."""

    reply: str
    relayed_dsn: bool


@dataclass(frozen=True, slots=True)
class Later:
    """Not now. trouble: what an operator should look at, None when the next host only asks us to wait."""

    reply: str
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Never:
    """This mail will not get there. status: enhanced status code."""

    reply: str
    status: str


Outcome = Delivered | Later | Never


@dataclass(frozen=True, slots=True, repr=False)
class Envelope:
    """The MAIL and RCPT commands without their verbs."""

    mail: bytes
    rcpt: bytes


def envelope(mail: Outgoing, extensions: Mapping[str, str]) -> Envelope | Never:
    """The commands for a host with these EHLO keywords (lower case, with parameters), or why it cannot take it."""
    header = mail.content.partition(b"\r\n\r\n")[0]
    utf8 = not (mail.sender.isascii() and mail.recipient.address.isascii() and header.isascii())
    eight_bit = not mail.content.isascii()
    if _unsafe(mail.sender) or _unsafe(mail.recipient.address):
        return Never("the address cannot be written in an SMTP command", "5.1.3")
    if utf8 and "smtputf8" not in extensions:
        return Never("the next host takes no internationalised mail (SMTPUTF8)", "5.6.7")  # RFC 6531 § 3.5
    if eight_bit and "8bitmime" not in extensions:
        return Never("the next host takes no 8-bit content (8BITMIME)", "5.6.3")  # RFC 6152 § 3
    limit = extensions.get("size", "").strip()
    if limit.isdecimal() and 0 < int(limit[:18]) < len(mail.content):
        return Never(f"the mail has {len(mail.content)} octets, the next host takes {limit}", "5.3.4")
    start, end = [f"FROM:<{mail.sender}>"], [f"TO:<{mail.recipient.address}>"]
    if "size" in extensions:
        start.append(f"SIZE={len(mail.content)}")
    if eight_bit:
        start.append("BODY=8BITMIME")
    if utf8:
        start.append("SMTPUTF8")
    if "dsn" in extensions:
        dsn_start, dsn_end = _dsn(mail)
        start += dsn_start
        end += dsn_end
    return Envelope(" ".join(start).encode(), " ".join(end).encode())


def _dsn(mail: Outgoing) -> tuple[list[str], list[str]]:
    start = [f"RET={mail.ret}"] if mail.ret else []
    if mail.envid is not None:
        start.append(f"ENVID={xtext(mail.envid)}")
    end = [f"NOTIFY={','.join(sorted(mail.recipient.notify))}"] if mail.recipient.notify else []
    if mail.recipient.orcpt is not None:
        kind, _, address = mail.recipient.orcpt.partition(";")
        end.append(f"ORCPT={xtext(kind)};{xtext(address)}")
    return start, end


def xtext(text: str) -> str:
    """RFC 3461 § 4: printable ASCII but "+" and "=" as it is, all other octets as +XX."""
    return "".join(
        chr(b) if 33 <= b <= 126 and b not in b"+=" else f"+{b:02X}" for b in text.encode("utf-8", "replace")
    )


def runs_in_a_circle(content: bytes, hostname: str) -> bool:
    """Whether the Received fields show that sending it on will never end."""
    header = content.partition(b"\r\n\r\n")[0]
    received = _RECEIVED.findall(header)
    ours = re.compile(rb"\sby\s+" + re.escape(hostname.encode("utf-8", "replace")) + rb"[\s;]", re.I)
    return len(received) > MAX_RECEIVED or sum(1 for line in received if ours.search(line)) > MAX_OWN_RECEIVED


def refusal(code: int, text: str) -> Later | Never:
    """What a reply that is no success to MAIL, RCPT or DATA means."""
    if code in _OWN_TROUBLE:
        return Later(reply_line(code, text), Trouble.SESSION_REFUSED)
    if 500 <= code <= 599:
        return Never(reply_line(code, text), status_of(code, text))
    return Later(reply_line(code, text))


def status_of(code: int, text: str) -> str:
    """The enhanced status code of a reply, or the general one of its class (RFC 3463 § 2)."""
    found = _ENHANCED.match(text)
    if found and int(found[1]) == code // 100:
        return found[0]
    return f"{code // 100}.0.0"


def reply_line(code: int, text: str) -> str:
    """A reply as one bounded line that every database takes."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return f"{code} {_CONTROLS.sub(' ', clean)}".strip()[:MAX_REPLY]


def _unsafe(address: str) -> bool:
    """A control character or a bracket would end the path; the SMTP listener lets none in, a DSN's To might."""
    return bool(_CONTROLS.search(address)) or "<" in address or ">" in address
