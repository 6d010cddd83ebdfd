"""Attempts that were deferred, gathered in memory between two transactions (incident.md § 6.5).

One entry for each sender, mailbox and hour, however often a machine tries; and never more than MAX_WAITING of them, so
that a flood of invented senders costs neither memory nor disk: what is beyond is counted together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from schleuse.clock import to_us
from schleuse.kim.deferral_notes import Notes

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
    """Thread-safe. notes: what waits survives the death of the process there; of repeated attempts not the number."""

    def __init__(self, account_of: AccountOf, notes: Notes | None = None) -> None:
        self._account_of = account_of
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str, int], Attempts] = {}
        self._notes = notes
        self._noted = 0
        for fields in notes.read() if notes is not None else ():
            self._recall(fields)

    def note(self, sender: str, recipient: str, envid: str | None, at: datetime) -> None:
        """One attempt. sender, recipient: addresses."""
        at_us = to_us(at)
        key = (sender_key(sender), recipient_key(recipient, self._account_of), at_us // _HOUR_US)
        with self._lock:
            if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
                key, envid = (OTHERS, OTHERS, key[2]), None
            before = self._waiting.get(key)
            if before is None or before.came_back_us is not None:
                self._note(*key, at_us, envid)
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
            for pair in self._comes_back(pairs, at_us):
                self._note(*pair, at_us)

    def take(self) -> list[Attempts]:
        """All that wait; they wait no more."""
        with self._lock:
            taken, self._waiting = [*self._waiting.values()], {}
            self._noted = self._notes.begin() if self._notes is not None else 0
        return taken

    def written(self) -> None:
        """The database has all that was taken, also what had been put back before."""
        if self._notes is not None:
            with self._lock:
                self._notes.done(self._noted)

    def _comes_back(self, pairs: Collection[tuple[str, str]], at_us: int) -> set[tuple[str, str]]:
        """Returns those of the pairs that wait."""
        back = {key: one for key, one in self._waiting.items() if key[:2] in pairs and one.last_us <= at_us}
        self._waiting |= {key: replace(one, came_back_us=at_us) for key, one in back.items()}
        return {key[:2] for key in back}

    def _note(self, *fields: str | int | None) -> None:
        if self._notes is not None:
            self._notes.write(*fields)

    def _recall(self, fields: Sequence[object]) -> None:
        """What an earlier process had noted; what is no such line is left out."""
        match fields:
            case [str() as sender, str() as recipient, int() as at_us]:
                self._comes_back({(sender, recipient)}, at_us)
            case [str() as sender, str() as recipient, int() as hour, int() as at_us, str() | None as envid]:
                key = (sender, recipient, hour)
                before = self._waiting.get(key)
                first = at_us if before is None else before.first_us
                self._waiting[key] = Attempts(*key, 1 if before is None else before.count, first, at_us, envid)

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
