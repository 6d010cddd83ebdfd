"""Accounts: one per KIM address, each belonging to an insurer (IK) or to a practice (kim.md § 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schleuse.errors import MalformedError
from schleuse.identifiers import IK


class BadUserNameError(MalformedError):
    """The user name of a login is no KIM address; whoever set up the mail program changes it."""

    code = "kim.bad-user-name"


@dataclass(frozen=True, slots=True)
class Account:
    """One mailbox. address: in small letters, and the account's name. insurer: None for a practice's."""

    address: str
    insurer: IK | None
    password_hash: str

    def __repr__(self) -> str:
        return f"Account({self.address})"


class Accounts:
    """All accounts of this host; addresses compare without case."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._by_address: Mapping[str, Account] = {account.address.lower(): account for account in accounts}
        self.domains = frozenset(address.rpartition("@")[2] for address in self._by_address)

    def account_of(self, address: str) -> str | None:
        """Name of the account that the address belongs to, None for another host's."""
        account = self._by_address.get(address.lower())
        return account.address if account else None

    def get(self, address: str) -> Account | None:
        """The account of an address."""
        return self._by_address.get(address.lower())

    def of_insurers(self) -> tuple[Account, ...]:
        """The mailboxes whose mail the `eau` role opens."""
        return tuple(account for account in self._by_address.values() if account.insurer is not None)

    def password_hash(self, user: str) -> str | None:
        """The argon2 hash of an account, None if there is none."""
        account = self._by_address.get(user.lower())
        return account.password_hash if account else None


def mailbox_user(user_name: str) -> str:
    """The mailbox of a login name, in small letters.

    A Clientmodul's own login has more parts, `user#host:port#MandantId#…` (kim.md § 9.2); it should strip them
    before it logs in to us, and not all do. Raises BadUserNameError.
    """
    user = user_name.partition("#")[0].strip().lower()
    if "@" not in user or not user.isprintable():
        raise BadUserNameError("the user name is a KIM address, such as praxis@anbieter.kim.telematik")
    return user
