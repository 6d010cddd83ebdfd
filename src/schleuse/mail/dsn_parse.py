"""Reading the delivery status notifications of other servers, leniently (kim.md § 14, RFC 3464).

One published KIM example reports status 4.0.0 with a German month in its date. Whatever can be read is
read, what cannot is None, and hostile bytes raise nothing, cost linear time and never recurse.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from schleuse.mail.contracts import Action

MAX_READ = 1_048_576  #: octets looked at; the report part stands before the returned mail (RFC 6522 § 3)
MAX_PARTS = 64
MAX_RECIPIENTS = 1_000

_BOUNDARY = re.compile(r"boundary\s*=\s*(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", re.I)
_STATUS = re.compile(r"\b([245])\.([0-9]{1,3})\.([0-9]{1,3})\b", re.ASCII)
_DATE = re.compile(
    r"([0-9]{1,2})[. -]{1,3}([^\W\d_]\S{1,10}?)[. -]{1,3}([0-9]{4})[ ,T]{1,2}"
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s{0,3}([+-][0-9]{4}|[A-Za-z]{1,5})?",
)
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,900})>")
_UTF8_ADDRESS = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")

#: First three letters, English and German; "M?r" and "M\ufffdr" are März in a wrong character set.
_MONTHS: Mapping[str, int] = {
    **{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10},
    **{"nov": 11, "dec": 12, "jän": 1, "mär": 3, "mae": 3, "mrz": 3, "mai": 5, "okt": 10, "dez": 12},
    **{"m?r": 3, "m\ufffdr": 3, "mã¤": 3},
}
_ZONES: Mapping[str, int] = {"MEZ": 1, "CET": 1, "MESZ": 2, "CEST": 2}  # hours; all else is taken as UTC
_BY_CLASS: Mapping[str, Action] = {"2": Action.DELIVERED, "4": Action.DELAYED, "5": Action.FAILED}

Fields = Mapping[str, str]  # lower-case name to the first value, unfolded


@dataclass(frozen=True, slots=True, repr=False)
class Status:
    """What one DSN says about one recipient. None: not said, or not readable.

    action: None for a word that RFC 3464 does not know, and for `expanded`. status: "2.0.0" or None.
    original_message_id: without brackets, of the reported mail: In-Reply-To, else its returned header.
    Personal data: repr() is not defined on the values.
    """

    recipient: str | None
    action: Action | None
    status: str | None
    original_message_id: str | None = None
    original_recipient: str | None = None
    diagnostic: str | None = None
    arrived_at: datetime | None = None
    created_at: datetime | None = None
    will_retry_until: datetime | None = None
    envid: str | None = None
    reporting_mta: str | None = None


def parse(raw: bytes) -> list[Status]:
    """One Status per recipient that the report names; [] when this is no DSN. Never raises."""
    head, body = _split(raw[:MAX_READ])
    boundary = _BOUNDARY.search(head.get("content-type", ""))
    if boundary is None or "multipart/report" not in head["content-type"].lower():
        return []
    parts = list(_parts(body, (boundary[1] or boundary[2]).rstrip()))
    returned = next((_fields(b) for h, b in parts if _is(h, "rfc822", "message/global")), {})
    report = next((_decoded(h, b) for h, b in parts if _is(h, "delivery-status")), None)
    if report is None:
        return []
    groups = [_fields(group) for group in _groups(report)]
    # A report whose per-message block is missing, or glued to the first recipient's, is still read.
    message = groups[0] if groups else {}
    recipients = [group for group in groups if "final-recipient" in group or "action" in group or "status" in group]
    return [_status(head, message, group, returned) for group in recipients[:MAX_RECIPIENTS]]


def _status(head: Fields, message: Fields, group: Fields, returned: Fields) -> Status:
    code = _STATUS.search(group.get("status", "")) or _STATUS.search(group.get("diagnostic-code", ""))
    action: Action | None
    try:
        action = Action(group["action"].split()[0].lower())
    except (KeyError, IndexError):
        action = _BY_CLASS[code[1]] if code else None
    except ValueError:
        action = None
    return Status(
        recipient=_address(group.get("final-recipient")),
        action=action,
        status=code[0] if code else None,
        original_message_id=_message_id(head.get("in-reply-to"))
        or _message_id(returned.get("message-id"))
        or _message_id(head.get("references")),
        original_recipient=_address(group.get("original-recipient")),
        diagnostic=_after_type(group.get("diagnostic-code")),
        arrived_at=parse_date(message.get("arrival-date")),
        created_at=parse_date(head.get("date")),
        will_retry_until=parse_date(group.get("will-retry-until")),
        envid=message.get("original-envelope-id"),
        reporting_mta=_after_type(message.get("reporting-mta")),
    )


def parse_date(value: str | None) -> datetime | None:
    """A date of RFC 5322, also with German names, missing seconds or a missing zone (then UTC); else None."""
    found = _DATE.search(value or "")
    if found is None:
        return None
    day, name, year, hour, minute, second, zone = found.groups()
    month = _MONTHS.get(name.lower()[:3])
    if month is None:
        return None
    try:
        return datetime(int(year), month, int(day), int(hour), int(minute), int(second or 0), tzinfo=_zone(zone or ""))
    except ValueError:  # 30 February, 25 o'clock
        return None


def _zone(text: str) -> timezone:
    if text[:1] in {"+", "-"}:
        offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
        return timezone(offset if text[0] == "+" else -offset) if offset < timedelta(hours=24) else UTC
    return timezone(timedelta(hours=_ZONES.get(text.upper(), 0)))


def _parts(body: bytes, boundary: str) -> Iterator[tuple[Fields, bytes]]:
    """Body parts of one multipart, not looking into them (RFC 2046 § 5.1)."""
    delimiter = b"\n--" + boundary.encode("latin-1", "replace")
    for chunk in (b"\n" + body).split(delimiter, MAX_PARTS + 1)[1 : MAX_PARTS + 1]:
        if chunk.startswith(b"--"):
            return
        yield _split(chunk.partition(b"\n")[2])


def _is(head: Fields, *words: str) -> bool:
    kind = head.get("content-type", "").partition(";")[0].lower()
    return any(word in kind for word in words) and ("delivery-status" not in kind or "delivery-status" in words)


def _decoded(head: Fields, body: bytes) -> bytes:
    """RFC 3464 § 2.1 wants 7bit; RFC 6533 § 6 allows others, and some servers use them anyway."""
    encoding = head.get("content-transfer-encoding", "").strip().lower()
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding == "base64":
        try:
            return base64.b64decode(body)
        except (binascii.Error, ValueError):
            return body
    return body


def _groups(block: bytes) -> Iterator[bytes]:
    for group in block.replace(b"\r\n", b"\n").split(b"\n\n", MAX_RECIPIENTS + 2)[: MAX_RECIPIENTS + 1]:
        if group.strip():
            yield group.strip(b"\n")


def _split(entity: bytes) -> tuple[Fields, bytes]:
    """Header fields and body of an entity; line ends CRLF or LF."""
    if entity.startswith((b"\n", b"\r\n")):
        return {}, entity.partition(b"\n")[2]
    end = re.search(rb"\r?\n\r?\n", entity)
    if end is None:
        return _fields(entity), b""
    return _fields(entity[: end.start()]), entity[end.end() :]


def _fields(block: bytes) -> Fields:
    """The first of each field, unfolded; lines that are no field are passed over. Stops at an empty line."""
    fields: dict[str, list[str]] = {}
    lines: list[str] = []  # of the field being read; of none for a field that came before
    for line in _text(block).split("\n"):
        if not line.strip():
            if fields:
                break
        elif line[0] in " \t":
            lines.append(line.strip())
        else:
            key, colon, value = line.partition(":")
            key, lines = key.strip().lower(), [value.strip()]
            if colon and key:
                fields.setdefault(key, lines)
    return {name: " ".join(parts).strip() for name, parts in fields.items()}


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _after_type(value: str | None) -> str | None:
    """`smtp; 550 …` without its type; without a type as it stands."""
    if value is None:
        return None
    kind, semicolon, rest = value.partition(";")
    return (rest if semicolon and " " not in kind.strip() else value).strip() or None


def _address(value: str | None) -> str | None:
    address = _after_type(value)
    if address is None:
        return None
    found = _MESSAGE_ID.search(address)  # "rfc822; <a@b>" is seen too
    address = found[1] if found else address
    if (value or "").lower().startswith("utf-8"):
        address = _UTF8_ADDRESS.sub(_unescaped, address)
    return address


def _unescaped(match: re.Match[str]) -> str:
    point = int(match[1], 16)
    # A surrogate could not be written to a database or a page.
    return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else "\ufffd"


def _message_id(value: str | None) -> str | None:
    if value is None:
        return None
    found = _MESSAGE_ID.findall(value)
    return found[-1] if found else (value.strip() or None)
