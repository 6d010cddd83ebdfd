"""Is a mail really from the account that submits it? (kim.md § 9.4, the mail server's side)

Knows no KIM: the suffix of the mail domain is an argument. Reads strictly where `mail.head` reads leniently: an
address field that could be understood in two ways is refused, because the receiver might see the other one.
"""

from __future__ import annotations

import re

from schleuse.errors import Error, MalformedError
from schleuse.mail import head
from schleuse.mail.contracts import Mail
from schleuse.mail.smtp_replies import SenderNotYoursError


class BadOriginatorError(MalformedError):
    """A From, Sender or Reply-To field that is missing, doubled or not clearly one list of addresses."""

    code = "mail.bad-originator"


#: Longer fields than this name nobody; it bounds the work of the pattern below.
MAX_FIELD = 4096
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_WORDS = r"[^\"<>(),:;@\[\]\\]++"
_SPEC = r"[^\s\"<>(),:;@\[\]\\]++@[^\s\"<>(),:;@\[\]\\]++"
#: One mailbox of RFC 5322 § 3.4 without comments, groups and quoted local parts, none of which KIM has (kim.md § 3).
#: Every repetition is possessive, so a hostile field costs linear time.
_MAILBOX = re.compile(rf"\s*+(?:({_SPEC})\s*+(?=,|$)|(?:{_QUOTED}|{_WORDS})*+<\s*+({_SPEC})\s*+>\s*+)")


def same_address(one: str, other: str) -> bool:
    """KIM addresses are compared case-insensitively (kim.md § 3)."""
    return one.casefold() == other.casefold()


def check_sender(user: str | None, sender: str) -> SenderNotYoursError | None:
    """The account must be the reverse path. user: None for a relaying host, which is not asked here."""
    if user is None or same_address(user, sender):
        return None
    return SenderNotYoursError("the reverse path is not the address of the account that logged in")


def check_originators(mail: Mail, reply_to_suffix: str) -> Error | None:
    """Every From and Sender address equals the reverse path, and Reply-To stays inside the mail domain.

    reply_to_suffix: such as ".kim.telematik". A mail whose only recipient is its sender may name others: so
    a user has a mail that could not be read processed again (kim.md § 9.4).
    """
    if len(mail.recipients) == 1 and same_address(mail.recipients[0].address, mail.sender):
        return None
    try:
        fields = head.parse(head.split(mail.content)[0])
    except Error as error:
        return error
    froms, senders, replies_to = (fields.all(name) for name in ("from", "sender", "reply-to"))
    if len(froms) != 1 or len(senders) > 1 or len(replies_to) > 1:
        return BadOriginatorError("From must be there once, Sender and Reply-To at most once (RFC 5322 § 3.6)")
    originators = [_mailboxes(value) for value in froms + senders]
    answers = [_mailboxes(value) for value in replies_to]
    if None in originators or None in answers:
        return BadOriginatorError("From, Sender or Reply-To is not a plain list of addresses")
    if not all(same_address(address, mail.sender) for found in originators for address in found or ()):
        return SenderNotYoursError("From or Sender is not the reverse path")
    suffix = reply_to_suffix.casefold()
    if not all(address.casefold().endswith(suffix) for found in answers for address in found or ()):
        return SenderNotYoursError(f"Reply-To does not end in {reply_to_suffix}")
    return None


def _mailboxes(value: str) -> list[str] | None:
    """The addr-specs of a list of mailboxes, or None unless all of it is understood."""
    if len(value) > MAX_FIELD:
        return None
    found: list[str] = []
    position = 0
    while True:
        match = _MAILBOX.match(value, position)
        if match is None:
            return None
        found.append(match[1] or match[2])
        position = match.end()
        if position == len(value):
            return found
        if value[position] != ",":
            return None
        position += 1
