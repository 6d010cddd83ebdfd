"""A mail store with two mailboxes and a switch, and who issues receipts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.kim.mails import KASSE, PRAXIS, START, Clock, account_of
from tests.switch_double import FakeSwitch

from schleuse.config import Config
from schleuse.database import sqlite_url
from schleuse.identifiers import IK
from schleuse.kim.accounts import Account, Accounts
from schleuse.kim.store import Began, Change, Ended, MailStore, Released, Settings, open_mail_store
from schleuse.processes.receipts import Issuer
from schleuse.scopes import Direction, ScopeState, Service, atom
from schleuse.switch.standing import UNKNOWN_TIME, Rule, Standing, standing

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
INSURER = IK("109900011")
ACCOUNTS = Accounts([Account(PRAXIS, None, "h"), Account(KASSE, INSURER, "h")])
HELD_AT = START + timedelta(minutes=5)


class InDoubt(FakeSwitch):
    """A role whose copy is damaged, or whose log has an epoch that nobody can read: all is held, since when unknown."""

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = "-") -> Standing:
        return standing([Rule(1, UNKNOWN_TIME, None)], atom(service, tenant, direction, path))


@dataclass
class Place:
    """config: of any home; its host name and contact are in the receipts."""

    folder: Path
    config: Config
    switch: FakeSwitch = field(default_factory=FakeSwitch)
    clock: Clock = field(default_factory=lambda: Clock(START + timedelta(hours=1)))
    store: MailStore = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        url = sqlite_url(self.folder / "kim.sqlite")
        settings = Settings(url, self.folder / "spool", "kim.example", reserve_bytes=0)
        self.store = open_mail_store(settings, account_of, now=self.clock, background=False)

    def restart(self) -> None:
        self.store.close()
        self.open()

    @property
    def issuer(self) -> Issuer:
        return Issuer(self.config, KEY, self.store, ACCOUNTS, self.switch, self.clock, lambda: "r1")

    def hold(self) -> None:
        """As the `eau` role's followers do when the insurer is held."""
        epoch = self.switch.set(f"eau/{INSURER}", ScopeState.HOLD)
        self._follow(epoch, [Began(epoch, "c", "security_hold", HELD_AT)])

    def open_without_backlog(self) -> None:
        epoch = self.switch.set(f"eau/{INSURER}", ScopeState.OPEN)
        self._follow(epoch, [Ended(epoch, Began(epoch, "c", "security_hold", HELD_AT), self.clock.now)])

    def release(self) -> None:
        epoch = self.switch.epoch + 1
        self._follow(epoch, [Released(epoch)])

    def _follow(self, epoch: int, changes: Sequence[Change]) -> None:
        self.store.leases.holds.follow({}, epoch, [KASSE], lambda *_: changes, self.clock.now)

    def messages(self, reference: str) -> list[dict[str, Any]]:
        """What a receipt says now."""
        receipt, _ = self.issuer.receipt(self.store.origins.by_reference(reference), "here")
        return list(receipt["messages"])
