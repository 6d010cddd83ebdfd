"""What kind of mail lies in a mailbox, told from its header block, before anything is opened (kim.md § 12.5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schleuse.kim.dienstkennung import Dienstkennung, dienstkennung_of
from schleuse.mail.head import Head


class Kind(StrEnum):
    DSN = "dsn"
    MDN = "mdn"
    CM_ERROR = "cm-error"
    AUTO_REPLY = "auto-reply"
    APPLICATION = "application"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Classified:
    """dienstkennung: of an APPLICATION, otherwise None. error_codes: X-KIM-Fehlermeldung of a CM_ERROR."""

    kind: Kind
    dienstkennung: Dienstkennung | None = None
    error_codes: tuple[str, ...] = ()


#: Fields by which out-of-office notes give themselves away where Auto-Submitted is missing.
_REPLY_MARKS = ("x-autoreply", "x-autorespond", "x-autoresponder")


def classify(head: Head) -> Classified:
    """The first that applies, in the order of kim.md § 12.5; DSN and error mails are unsigned and come in-band."""
    report = _report_type(head)
    if report == "delivery-status":
        return Classified(Kind.DSN)
    if report == "disposition-notification":
        return Classified(Kind.MDN)
    if codes := head.all("X-KIM-Fehlermeldung"):
        return Classified(Kind.CM_ERROR, error_codes=tuple(codes))
    dienstkennung = dienstkennung_of(head)
    if _is_auto_reply(head, has_service=dienstkennung is not None):
        return Classified(Kind.AUTO_REPLY)
    if dienstkennung is not None:
        return Classified(Kind.APPLICATION, dienstkennung)
    return Classified(Kind.MANUAL)


def _report_type(head: Head) -> str | None:
    type_, parameters = head.content_type()
    return parameters.get("report-type", "").lower() if type_ == "multipart/report" else None


def _is_auto_reply(head: Head, *, has_service: bool) -> bool:
    """Whether a machine answered. A practice system that marks its eAU "auto-generated" sends no reply (RFC 3834 § 5).

    has_service: such a mail with a Dienstkennung is the application's, for losing it is worse than routing it.
    """
    words = {value.partition(";")[0].strip().lower() for value in head.all("Auto-Submitted")} - {"", "no"}
    if words - {"auto-generated"}:
        return True
    if any(head.get(name) is not None for name in _REPLY_MARKS):
        return True
    if (head.get("precedence") or "").strip().lower() == "auto_reply":
        return True
    return bool(words) and not has_service
