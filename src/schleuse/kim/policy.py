"""Who may send what to whom: the server's side of kim.md § 9.4, as pure answers for `mail.smtp.Session`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schleuse.errors import Error, MalformedError, RefusedError
from schleuse.kim.accounts import Accounts, mailbox_user
from schleuse.kim.door import Door
from schleuse.mail.contracts import Mail
from schleuse.mail.sender_checks import check_originators, check_sender
from schleuse.mail.smtp_replies import SenderNotYoursError, UnknownRecipientError


class RelayRefusedError(RefusedError):
    """A host without login may only bring mail for our own mailboxes."""

    code = "kim.relay-refused"


@dataclass(frozen=True, slots=True)
class SubmissionPolicy:
    """For clients that log in: practices, and our own `eau` role.

    suffix: of every address of this environment. routed: whether mail for a foreign domain can leave.
    door: whether a recipient is taken now.
    """

    accounts: Accounts
    suffix: str
    routed: Callable[[str], bool]
    door: Door

    def sender_allowed(self, user: str | None, sender: str) -> Error | None:
        """SMTP AUTH user must equal MAIL FROM."""
        if user is None:
            return SenderNotYoursError("nobody has logged in")
        try:
            return check_sender(mailbox_user(user), sender)
        except MalformedError as error:
            return error

    def recipient(self, address: str) -> Error | None:
        """Known here, or in another domain of this environment that we have a route to; and not closed now."""
        if not self.accounts.account_of(address):
            domain = address.lower().rpartition("@")[2]
            if domain in self.accounts.domains or not domain.endswith(self.suffix) or not self.routed(domain):
                return UnknownRecipientError("no such mailbox here, and no route to its domain")
        return self.door.refusal(address)

    def content_allowed(self, mail: Mail) -> Error | None:
        """Every From and Sender equals MAIL FROM, Reply-To ends with the KIM suffix; a mail to oneself is exempt."""
        return check_originators(mail, self.suffix)


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """For other providers' mail hosts (Fachdienst to Fachdienst, kim.md § 11): they bring, and nothing leaves."""

    accounts: Accounts
    suffix: str
    door: Door

    def sender_allowed(self, user: str | None, sender: str) -> Error | None:
        """Any address of this environment but our own accounts', and the empty one of a DSN."""
        if sender and not sender.lower().endswith(self.suffix):
            return RelayRefusedError(f"the sender's address does not end with {self.suffix}")
        if self.accounts.account_of(sender):
            return SenderNotYoursError("an account of this host sends with a login")
        return None

    def recipient(self, address: str) -> Error | None:
        """Our own mailboxes only, as far as they are not closed now."""
        if self.accounts.account_of(address):
            return self.door.refusal(address)
        return UnknownRecipientError("no such mailbox here")

    def content_allowed(self, mail: Mail) -> Error | None:
        """The sending provider has checked the headers; the KIM signature is checked when the mail is opened."""
        return None
