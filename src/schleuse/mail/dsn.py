"""Delivery status notifications: when one is due, how it is built, and how others' are read.

Formats: RFC 3461 (who asks), RFC 3464 (the report), RFC 3463 (status codes), RFC 6522 (multipart/report),
RFC 6533 (non-ASCII addresses), kim.md § 14 (In-Reply-To is the outer Message-ID; Arrival-Date is our
acceptance, Date the making of the DSN). Pure: same report, same bytes.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator
from email.utils import format_datetime

from schleuse.mail.contracts import Action, Mail, Notify, Recipient, Report
from schleuse.mail.dsn_parse import Status, parse

__all__ = ["Status", "build", "envelope", "parse", "wanted"]

#: Returned headers beyond this are cut at a line: a DSN must not become the bomb that the mail was.
MAX_RETURNED_HEADERS = 65_536
MAX_FIELD = 900  #: RFC 5322 § 2.1.1 allows 998 octets a line; a field name and folds must fit as well.
FOLD_AT = 76  #: RFC 5322 § 2.1.1: a line SHOULD have no more than 78 characters.

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LINE_END = re.compile(rb"\r\n|\r|\n")
#: Without NOTIFY both are allowed, and people want to know that a mail waits (RFC 3461 § 4.1).
_UNASKED = frozenset({Notify.FAILURE, Notify.DELAY})
_ASKED_BY = {
    Action.DELIVERED: Notify.SUCCESS,
    Action.RELAYED: Notify.SUCCESS,
    Action.FAILED: Notify.FAILURE,
    Action.DELAYED: Notify.DELAY,
}
_TITLE = {
    Action.DELIVERED: "zugestellt / delivered",
    Action.RELAYED: "weitergeleitet / relayed",
    Action.FAILED: "nicht zugestellt / failed",
    Action.DELAYED: "verzoegert / delayed",
}
_GERMAN = {
    Action.DELIVERED: "Ihre Nachricht wurde in das Postfach des Empfängers zugestellt.",
    Action.RELAYED: (
        "Ihre Nachricht wurde an einen Mailserver übergeben, der keine Zustellbestätigungen sendet.\n"
        "Eine weitere Bestätigung ist deshalb nicht zu erwarten."
    ),
    Action.FAILED: "Ihre Nachricht konnte nicht zugestellt werden. Es folgt kein weiterer Versuch.",
    Action.DELAYED: (
        "Ihre Nachricht konnte noch nicht zugestellt werden. Sie müssen nichts tun:\n"
        "Die Zustellung wird automatisch weiter versucht."
    ),
}
_ENGLISH = {
    Action.DELIVERED: "Your message was delivered to the mailbox of the recipient.",
    Action.RELAYED: (
        "Your message was passed on to a mail server that does not send delivery reports.\n"
        "Do not expect another report."
    ),
    Action.FAILED: "Your message could not be delivered. There will be no further attempt.",
    Action.DELAYED: ("Your message could not be delivered yet. You need not do anything:\nfurther attempts are made."),
}


def wanted(action: Action, recipient: Recipient, sender: str) -> bool:
    """Whether this outcome is reported at all. sender: reverse path of the reported mail.

    A mail with the empty reverse path is itself a report, and nobody reports on it (RFC 3461 § 6.1, RFC 5321 § 6.1).
    """
    return sender != "" and _ASKED_BY[action] in (recipient.notify or _UNASKED)


def envelope(report: Report) -> Mail:
    """The DSN as a mail to hand in: empty reverse path, and never a DSN about it (RFC 3464 § 2)."""
    return Mail(
        sender="",
        recipients=(Recipient(report.to, notify=frozenset({Notify.NEVER})),),
        content=build(report),
        accepted_at=report.created_at,
        smtputf8=not report.to.isascii(),
    )


def build(report: Report) -> bytes:
    """The whole message with CRLF line ends.

    Nothing in the report can add a header field or a body part: control characters become a blank, and the
    boundary is a digest of the parts. Raises nothing for any content of the fields.
    """
    parts = (_text_part(report), _status_part(report), _returned_part(report))
    digest = hashlib.sha256(report.message_id.encode("utf-8", "replace"))
    for part in parts:
        digest.update(part)
    boundary = f"=_{digest.hexdigest()[:40]}"
    delimiter = b"--" + boundary.encode("ascii")
    head = "".join(_head(report, boundary)).encode("utf-8", "replace")
    body = b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts)
    return head + b"\r\n" + body + delimiter + b"--\r\n"


def _head(report: Report, boundary: str) -> Iterator[str]:
    original = _message_id(report.original_message_id)
    yield f"From: Mail Delivery System <MAILER-DAEMON@{_token(report.reporting_host)}>\r\n"
    yield f"To: <{_token(report.to)}>\r\n"
    yield f"Subject: Zustellbericht / Delivery Status: {_TITLE[report.action]}\r\n"
    yield f"Date: {format_datetime(report.created_at)}\r\n"
    yield f"Message-ID: {_message_id(report.message_id)}\r\n"
    yield f"In-Reply-To: {original}\r\n"
    yield f"References: {original}\r\n"
    yield "Auto-Submitted: auto-replied\r\n"  # RFC 3834 § 5
    yield "MIME-Version: 1.0\r\n"
    yield f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n'


def _text_part(report: Report) -> bytes:
    lines = [_GERMAN[report.action], "", *_details(report, "Empfänger", "Angenommen", "Grund", "Versuche bis")]
    lines += ["", _ENGLISH[report.action], "", *_details(report, "Recipient", "Accepted", "Reason", "Retry until")]
    encoded = binascii.b2a_qp("\n".join(lines).encode("utf-8", "replace"), istext=True)
    return (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + _LINE_END.sub(b"\r\n", encoded)
        + b"\r\n"
    )


def _details(report: Report, recipient: str, accepted: str, reason: str, until: str) -> Iterator[str]:
    yield f"{recipient}: {_one_line(report.recipient.address)}"
    yield f"{accepted}: {format_datetime(report.arrived_at)}"
    if report.diagnostic and report.action in {Action.FAILED, Action.DELAYED}:
        yield f"{reason}: {_one_line(report.diagnostic)}"
    if report.will_retry_until and report.action is Action.DELAYED:
        yield f"{until}: {format_datetime(report.will_retry_until)}"


def _status_part(report: Report) -> bytes:
    """RFC 3464 § 2.2 (per message), an empty line, § 2.3 (per recipient)."""
    fields = [("Reporting-MTA", f"dns; {_one_line(report.reporting_host)}")]
    if report.envid is not None:
        fields.insert(0, ("Original-Envelope-Id", _one_line(report.envid)))
    fields.append(("Arrival-Date", format_datetime(report.arrived_at)))
    per_message = "".join(_field(name, value) for name, value in fields)
    per_recipient = "".join(_field(name, value) for name, value in _recipient_fields(report))
    return (
        "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        f"{per_message}\r\n{per_recipient}"
    ).encode("ascii")


def _recipient_fields(report: Report) -> Iterator[tuple[str, str]]:
    if report.recipient.orcpt:
        kind, _, address = report.recipient.orcpt.partition(";")
        yield "Original-Recipient", _typed_address(address, _one_line(kind) or "rfc822")
    yield "Final-Recipient", _typed_address(report.recipient.address, "rfc822")
    yield "Action", report.action.value
    yield "Status", _one_line(report.status)
    if report.diagnostic:
        yield "Diagnostic-Code", f"smtp; {_one_line(report.diagnostic)}"
    if report.action in {Action.FAILED, Action.DELAYED}:
        yield "Last-Attempt-Date", format_datetime(report.created_at)
    if report.will_retry_until and report.action is Action.DELAYED:
        yield "Will-Retry-Until", format_datetime(report.will_retry_until)


def _returned_part(report: Report) -> bytes:
    """The whole mail for a failure with RET=FULL, else its header block (RFC 3461 § 4.3)."""
    if report.content is not None and report.action is Action.FAILED:
        kind, returned = "message/rfc822", _LINE_END.sub(b"\r\n", report.content)
    else:
        kind, returned = "text/rfc822-headers", _header_block(report.headers)
    if not returned.endswith(b"\r\n"):
        returned += b"\r\n"
    encoding = "7bit" if returned.isascii() else "8bit"
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + returned


def _header_block(raw: bytes) -> bytes:
    """Only the header, whatever the caller passed: an empty line ends it, the limit cuts it at a line."""
    head = _LINE_END.sub(b"\r\n", raw[: MAX_RETURNED_HEADERS + 1])
    head = (b"\r\n" + head).partition(b"\r\n\r\n")[0][2:]
    if len(head) > MAX_RETURNED_HEADERS:
        head = head[:MAX_RETURNED_HEADERS].rpartition(b"\r\n")[0]
    return head


def _field(name: str, value: str) -> str:
    """One field, folded at blanks (RFC 5322 § 2.2.3), ASCII only, its value bounded."""
    ascii_value = value.encode("ascii", "backslashreplace").decode("ascii")[:MAX_FIELD]
    lines = [f"{name}:"]
    for word in ascii_value.split():
        if len(lines[-1]) + 1 + len(word) > FOLD_AT and lines[-1].strip() not in {"", f"{name}:"}:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines) + "\r\n"


def _typed_address(address: str, kind: str) -> str:
    """`type; address`; a non-ASCII address becomes utf-8-addr-xtext (RFC 6533 § 3)."""
    clean = _one_line(address)
    if clean.isascii():
        return f"{kind}; {clean}"
    escaped = "".join(c if c.isascii() and c != "\\" else f"\\x{{{ord(c):X}}}" for c in clean)
    return f"utf-8; {escaped}"


def _one_line(value: str) -> str:
    return _CONTROLS.sub(" ", value).strip()


def _token(value: str) -> str:
    """For places between `<` and `>` in our own header: no blank, no bracket can stand there."""
    return re.sub(r"[\s<>]+", "", _CONTROLS.sub("", value))[:MAX_FIELD]


def _message_id(value: str) -> str:
    return f"<{_token(value)}>"
