"""From the text of an SMTP command to values: paths, parameters, xtext (RFC 5321 § 4.1.2, 3461 § 4, 1870, 6531).

Each function gives the value, or the reply that says why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from schleuse.mail import smtp_replies as replies
from schleuse.mail.contracts import Notify, Recipient
from schleuse.mail.smtp_replies import Reply

#: RFC 5321 § 4.5.3.1.4 says 512; each extension adds to it: SIZE 26, BODY 17, SMTPUTF8 10 (RFC 1870, 6152, 6531),
#: ENVID 107, NOTIFY 28, ORCPT 507 (RFC 3461 § 4), AUTH 500 (RFC 4954 § 5), UTF-8 addresses. 2048 covers the sum.
MAX_COMMAND = 2048
#: RFC 4954 § 4: a line of an authentication exchange has up to 12288 octets.
MAX_LINE = 12_288
MAX_LOCAL_PART = 64  #: octets, RFC 5321 § 4.5.3.1.1; kim.md § 3 has the same
MAX_DOMAIN = 255  #: octets, RFC 5321 § 4.5.3.1.2
MAX_ENVID = 100  #: characters before encoding, RFC 3461 § 4.4
MAX_ORCPT = 500  #: characters, RFC 3461 § 4.2
MAX_SIZE_DIGITS = 20  #: RFC 1870 § 4

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LOCAL = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*")'
_LABEL = r"[A-Za-z0-9\x80-\U0010ffff](?:[A-Za-z0-9\x80-\U0010ffff-]*[A-Za-z0-9\x80-\U0010ffff])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9:.]+\])"
# Source routes are obsolete and ignored (RFC 5321 § 4.1.1.3, appendix C). A blank after the colon is
# not in the grammar, but several senders put one (RFC 5321 § 3.3 warns of it); it can mean nothing else.
_PATH = re.compile(rf"<(?:@[^\s:<>]+:)?((?:({_LOCAL})@({_DOMAIN})|(?i:postmaster))?)>(?: +|$)")
_HELO = re.compile(r"[A-Za-z0-9._-]+|\[[A-Za-z0-9:.]+\]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")  # RFC 3461 § 4: all printable but "+" and "="
_XTEXT_CODE = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True, repr=False)
class MailCommand:
    """What MAIL FROM said. sender: "" is the null reverse path."""

    sender: str
    ret: Literal["FULL", "HDRS"] | None = None
    envid: str | None = None
    smtputf8: bool = False


def helo_name(text: str) -> str | None:
    """The name of HELO or EHLO, or None unless it is a domain or an address literal.

    Underscores pass: names of Windows machines have them, and nothing is decided by the name (RFC 5321 § 4.1.4).
    """
    name = text.strip(" ")
    return name if len(name) <= MAX_DOMAIN and _HELO.fullmatch(name) else None


def parse_mail(text: str, *, max_size: int) -> MailCommand | Reply:
    """From the text behind "MAIL "."""
    split = _path(text, "FROM:")
    if split is None or split[0].lower() == "postmaster":
        return replies.BAD_SENDER
    sender, rest = split
    parameters = _parameters(rest)
    if isinstance(parameters, Reply):
        return parameters
    for keyword, value in parameters.items():
        problem = _mail_parameter(keyword, value, max_size)
        if problem is not None:
            return problem
    smtputf8 = "SMTPUTF8" in parameters
    if not smtputf8 and not sender.isascii():
        return replies.NEEDS_SMTPUTF8
    ret: Literal["FULL", "HDRS"] | None = None
    if "RET" in parameters:
        ret = "FULL" if parameters["RET"].upper() == "FULL" else "HDRS"
    envid = parameters.get("ENVID")
    return MailCommand(sender, ret, None if envid is None else xtext_decode(envid), smtputf8)


def _mail_parameter(keyword: str, value: str, max_size: int) -> Reply | None:
    match keyword:
        case "SIZE":
            if not (value.isascii() and value.isdigit() and len(value) <= MAX_SIZE_DIGITS):
                return replies.BAD_SYNTAX
            return replies.reply_for(replies.MailTooBigError()) if int(value) > max_size else None
        case "BODY":
            good = value.upper() in ("7BIT", "8BITMIME")
        case "SMTPUTF8":
            good = value == ""
        case "RET":
            good = value.upper() in ("FULL", "HDRS")
        case "ENVID":
            decoded = xtext_decode(value)
            good = decoded is not None and len(decoded) <= MAX_ENVID
        case "AUTH":  # who first submitted it (RFC 4954 § 5): may be ignored, as we do
            good = bool(_XTEXT.fullmatch(value))
        case _:
            return replies.UNKNOWN_PARAMETER
    return None if good else replies.BAD_SYNTAX


def parse_recipient(text: str, *, smtputf8: bool) -> Recipient | Reply:
    """From the text behind "RCPT ". smtputf8: whether MAIL FROM of this transaction asked for it."""
    split = _path(text, "TO:")
    if split is None or not split[0]:
        return replies.BAD_RECIPIENT
    address, rest = split
    if not smtputf8 and not address.isascii():
        return replies.NEEDS_SMTPUTF8
    if not rest:
        return Recipient(address)
    parameters = _parameters(rest)
    if isinstance(parameters, Reply):
        return parameters
    if not parameters.keys() <= {"NOTIFY", "ORCPT"}:
        return replies.UNKNOWN_PARAMETER
    notify = _notify(parameters["NOTIFY"]) if "NOTIFY" in parameters else frozenset[Notify]()
    orcpt = _orcpt(parameters["ORCPT"], smtputf8) if "ORCPT" in parameters else None
    if notify is None or ("ORCPT" in parameters and orcpt is None):
        return replies.BAD_SYNTAX
    return Recipient(address, notify, orcpt)


def _notify(value: str) -> frozenset[Notify] | None:
    words = value.upper().split(",")
    try:
        found = frozenset(Notify(word) for word in words)
    except ValueError:
        return None
    if Notify.NEVER in found and len(words) > 1:  # RFC 3461 § 4.1: NEVER stands alone
        return None
    return found


def _orcpt(value: str, smtputf8: bool) -> str | None:
    kind, found, encoded = value.partition(";")
    if not found or len(value) > MAX_ORCPT or not _ADDRESS_TYPE.fullmatch(kind):
        return None
    if smtputf8 and kind.lower() == "utf-8":  # RFC 6533 § 3: may hold UTF-8 as it is
        return f"{kind};{encoded}" if encoded and encoded.isprintable() else None
    decoded = xtext_decode(encoded)
    return f"{kind};{decoded}" if decoded else None


def xtext_decode(text: str) -> str | None:
    """The text behind an xtext (RFC 3461 § 4), or None unless it is xtext of printable US-ASCII.

    What is not printable is refused, because the text returns in header fields of a DSN.
    """
    if not _XTEXT.fullmatch(text):
        return None
    decoded = _XTEXT_CODE.sub(lambda code: chr(int(code[1], 16)), text)
    return decoded if decoded.isascii() and decoded.isprintable() else None


def _path(text: str, word: str) -> tuple[str, str] | None:
    """(address, text of the parameters) of `FROM:<…> …`, or None."""
    if text[: len(word)].upper() != word:
        return None
    rest = text[len(word) :].lstrip(" ")
    match = _PATH.match(rest)
    if match is None:
        return None
    address, local, domain = match[1], match[2] or "", match[3] or ""
    if len(local.encode()) > MAX_LOCAL_PART or len(domain.encode()) > MAX_DOMAIN:
        return None
    if not address.isprintable():  # no line separator of Unicode gets into a header field
        return None
    return address, rest[match.end() :]


def _parameters(text: str) -> Mapping[str, str] | Reply:
    """KEYWORD=value pairs, keywords in capitals. The same keyword twice is bad syntax."""
    found: dict[str, str] = {}
    for word in filter(None, text.split(" ")):
        keyword, _, value = word.partition("=")
        keyword = keyword.upper()
        if not keyword or keyword in found:
            return replies.BAD_SYNTAX
        found[keyword] = value
    return found
