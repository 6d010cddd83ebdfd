"""Who may send what to whom: the server's side of kim.md § 9.4, as pure answers for `mail.smtp.Session`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schleuse.errors import Error, MalformedError, RefusedError
from schleuse.kim.accounts import Accounts, mailbox_user
from schleuse.mail.contracts import Mail
from schleuse.mail.head import parse, split
from schleuse.mail.smtp_replies import SenderNotYoursError, UnknownRecipientError


class ForeignHeaderError(RefusedError):
    """From, Sender or Reply-To name somebody else than the account that sends (kim.md § 9.4)."""

    code = "kim.foreign-header"


class RelayRefusedError(RefusedError):
    """A host without login may only bring mail for our own mailboxes."""

    code = "kim.relay-refused"


@dataclass(frozen=True, slots=True)
class SubmissionPolicy:
    """For clients that log in: practices, and our own `eau` role.

    suffix: of every address of this environment. routed: whether mail for a foreign domain can leave.
    """

    accounts: Accounts
    suffix: str
    routed: Callable[[str], bool]

    def sender_allowed(self, user: str | None, sender: str) -> Error | None:
        """SMTP AUTH user must equal MAIL FROM."""
        try:
            own = user is not None and mailbox_user(user) == sender.lower()
        except MalformedError as error:
            return error
        return None if own else SenderNotYoursError("MAIL FROM is not the address of the account that logged in")

    def recipient(self, address: str) -> Error | None:
        """Known here, or in another domain of this environment that we have a route to."""
        if self.accounts.account_of(address):
            return None
        domain = address.lower().rpartition("@")[2]
        if domain in self.accounts.domains or not domain.endswith(self.suffix) or not self.routed(domain):
            return UnknownRecipientError("no such mailbox here, and no route to its domain")
        return None

    def content_allowed(self, mail: Mail) -> Error | None:
        """Every From and Sender equals MAIL FROM, Reply-To ends with the KIM suffix; a mail to oneself is exempt."""
        sender = mail.sender.lower()
        if len(mail.recipients) == 1 and mail.recipients[0].address.lower() == sender:
            return None  # a failed mail forwarded to oneself for re-processing (kim.md § 9.4, § 12.4)
        try:
            head = parse(split(mail.content)[0])
        except MalformedError as error:
            return error
        named = [*head.addresses("from"), *head.addresses("sender")]
        if not head.addresses("from") or any(address.lower() != sender for address in named):
            return ForeignHeaderError("From and Sender must be the address of the account that sends")
        if any(not address.lower().endswith(self.suffix) for address in head.addresses("reply-to")):
            return ForeignHeaderError(f"Reply-To must end with {self.suffix}")
        return None


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """For other providers' mail hosts (Fachdienst to Fachdienst, kim.md § 11): they bring, and nothing leaves."""

    accounts: Accounts
    suffix: str

    def sender_allowed(self, user: str | None, sender: str) -> Error | None:
        """Any address of this environment but our own accounts', and the empty one of a DSN."""
        if sender and not sender.lower().endswith(self.suffix):
            return RelayRefusedError(f"the sender's address does not end with {self.suffix}")
        if self.accounts.account_of(sender):
            return SenderNotYoursError("an account of this host sends with a login")
        return None

    def recipient(self, address: str) -> Error | None:
        """Our own mailboxes only."""
        if self.accounts.account_of(address):
            return None
        return UnknownRecipientError("no such mailbox here")

    def content_allowed(self, mail: Mail) -> Error | None:
        """The sending provider has checked the headers; the KIM signature is checked when the mail is opened."""
        return None
