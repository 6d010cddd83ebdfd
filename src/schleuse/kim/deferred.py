"""Attempts that were deferred, gathered in memory between two transactions (incident.md § 6.5).

One entry for each sender, mailbox and hour, however often a machine tries; and never more than MAX_WAITING of them, so
that a flood of invented senders costs neither memory nor disk: what is beyond is counted together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from schleuse.clock import to_us

#: Sender of a DSN.
NULL_SENDER = "<>"
#: Sender and mailbox of attempts that are only counted.
OTHERS = "(others)"
MAX_WAITING = 10_000

_HOUR_US = 3_600_000_000

#: The account that an address belongs to, or None for another host's.
AccountOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, repr=False)
class Attempts:
    """The attempts of one sender for one mailbox in one hour since 1970. All times: microseconds since 1970.

    recipient: name of the account, or "@domain" of another host. envid: of the last attempt. came_back_us: when a mail
    of this sender was accepted there after the last attempt; None if none was.
    """

    sender: str
    recipient: str
    hour: int
    count: int
    first_us: int
    last_us: int
    envid: str | None
    came_back_us: int | None = None


def sender_key(sender: str) -> str:
    """How a reverse path is written down."""
    return sender.lower() or NULL_SENDER


def recipient_key(address: str, account_of: AccountOf) -> str:
    """The mailbox; of other hosts only the domain, whose addresses anybody may invent."""
    return account_of(address) or f"@{address.rpartition('@')[2].lower()}"


class Gathered:
    """Thread-safe."""

    def __init__(self, account_of: AccountOf) -> None:
        self._account_of = account_of
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str, int], Attempts] = {}

    def note(self, sender: str, recipient: str, envid: str | None, at: datetime) -> None:
        """One attempt. sender, recipient: addresses."""
        at_us = to_us(at)
        key = (sender_key(sender), recipient_key(recipient, self._account_of), at_us // _HOUR_US)
        with self._lock:
            if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
                key, envid = (OTHERS, OTHERS, key[2]), None
            before = self._waiting.get(key)
            self._waiting[key] = (
                Attempts(*key, 1, at_us, at_us, envid)
                if before is None
                else replace(before, count=before.count + 1, last_us=at_us, envid=envid, came_back_us=None)
            )

    def came_back(self, sender: str, recipients: Iterable[str], at: datetime) -> None:
        """A mail was accepted; what is already written down is marked where deliveries are made."""
        if not self._waiting:
            return
        at_us = to_us(at)
        pairs = {(sender_key(sender), recipient_key(one, self._account_of)) for one in recipients}
        with self._lock:
            for key, one in self._waiting.items():
                if key[:2] in pairs and one.last_us <= at_us:
                    self._waiting[key] = replace(one, came_back_us=at_us)

    def take(self) -> list[Attempts]:
        """All that wait; they wait no more."""
        with self._lock:
            taken, self._waiting = [*self._waiting.values()], {}
        return taken

    def put_back(self, attempts: Iterable[Attempts]) -> None:
        """They could not be written down; what came meanwhile is added."""
        with self._lock:
            for one in attempts:
                key = (one.sender, one.recipient, one.hour)
                newer = self._waiting.get(key)
                if newer is not None:
                    one = replace(newer, count=newer.count + one.count, first_us=one.first_us)
                elif len(self._waiting) >= MAX_WAITING:
                    continue  # the disk is away and a flood goes on: the metric still has their number
                self._waiting[key] = one
