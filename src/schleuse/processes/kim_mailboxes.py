"""Mailboxes over POP3 as far as the switch lets them be read (incident.md § 1.4).

A session is one unit of work. It begins only while the scope lets it; afterwards each message and the deletion at its
end ask again, so that a session from before a closing takes nothing more (SW-04), and its deletion is refused in the
same transaction (SW-06). Of a limited scope it lists the share and what is left of the rate (decision 0026).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from schleuse.kim.accounts import Accounts
from schleuse.kim.door import Unit
from schleuse.kim.store import MailStore, Under
from schleuse.kim.store.maildrop import Entry, Mailbox
from schleuse.kim.switched import reading
from schleuse.mail.pop3 import MailboxClosedError
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.copy import Switch, standing_of
from schleuse.switch.documents import Limit
from schleuse.switch.fence import StaleEpochError


class Mailboxes:
    """Satisfies `pop3_listener.Mailboxes`."""

    def __init__(self, store: MailStore, accounts: Accounts, switch: Switch, unit: Unit) -> None:
        self._store = store
        self._accounts = accounts
        self._switch = switch
        self._unit = unit

    def open(self, account: str) -> OpenMailbox:
        """Raises MailboxClosedError, MaildropLockedError, UnavailableError."""
        scope = self._scope(account)
        self._under(scope)  # so that whoever only knocks at a closed door is no unit of work
        units = ExitStack()
        try:
            units.enter_context(self._unit(scope))
            under, limit = self._under(scope)
            mailbox = self._store.maildrop(account, under, limit)
            return OpenMailbox(mailbox, lambda: self._under(scope), units, limit)
        except StaleEpochError as cause:
            units.close()
            raise MailboxClosedError("the mailbox was switched while its session began; try again later") from cause
        except BaseException:
            units.close()
            raise

    def is_closed(self, account: str) -> bool:
        """Whether its sessions must end."""
        try:
            self._under(self._scope(account))
        except MailboxClosedError:
            return True
        return False

    def _scope(self, account: str) -> Scope:
        found = self._accounts.get(account)
        return reading(found.insurer if found else None)

    def _under(self, scope: Scope) -> tuple[Under, Limit | None]:
        at = standing_of(self._switch, scope)
        if not at.state.begins:
            raise MailboxClosedError("the switch has closed this mailbox; two persons open it again")
        return Under(scope, at.epoch), at.limit if at.state is ScopeState.LIMITED else None


class OpenMailbox:
    """Satisfies `contracts.Maildrop`. under: on what the next step would stand; raises MailboxClosedError.

    limit: under which it was listed.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        under: Callable[[], tuple[Under, Limit | None]],
        units: ExitStack,
        limit: Limit | None,
    ) -> None:
        self._mailbox = mailbox
        self._under = under
        self._units = units
        self._limit = limit

    def entries(self) -> Sequence[Entry]:
        return self._mailbox.entries()

    def content(self, id: int) -> bytes:
        _, limit = self._under()
        if limit not in (None, self._limit):
            raise MailboxClosedError("the mailbox was limited during its session; the next one lists what may go")
        return self._mailbox.content(id)

    def delete(self, ids: Sequence[int]) -> None:
        try:
            self._mailbox.delete(ids, self._under()[0])
        except StaleEpochError as cause:
            raise MailboxClosedError("the mailbox was switched while its session ended; nothing is deleted") from cause

    def close(self) -> None:
        with self._units:
            self._mailbox.close()
