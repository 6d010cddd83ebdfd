"""Fakes of the mail package's neighbours: small, working, and able to fail before and after they acted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from schleuse.errors import Error, UnavailableError
from schleuse.mail.contracts import Done, Mail
from schleuse.mail.passwords import Outcome, WrongPasswordError


def full_disk() -> UnavailableError:
    """What a store raises for a disk without room."""
    error = UnavailableError("a segment cannot be written (No space left on device)")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@dataclass
class MemoryIntake:
    """Keeps mails in a list. At once, unless `holding`; then `finish` ends what waits.

    fails_before: nothing is kept. fails_after: it is kept, and only the good news is lost.
    """

    fails_before: Error | None = None
    fails_after: Error | None = None
    raises: Exception | None = None
    holding: bool = False
    kept: list[Mail] = field(default_factory=list)
    waiting: list[tuple[Mail, Done]] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def accept(self, mail: Mail, done: Done) -> None:
        self.arrived.release()
        if self.raises is not None:
            raise self.raises
        if self.holding:
            self.waiting.append((mail, done))
        else:
            self._end(mail, done)

    def finish(self) -> None:
        waiting, self.waiting = self.waiting, []
        for mail, done in waiting:
            self._end(mail, done)

    def _end(self, mail: Mail, done: Done) -> None:
        if self.fails_before is not None:
            done(self.fails_before)
            return
        self.kept.append(mail)
        done(self.fails_after)


@dataclass
class TablePolicy:
    """Answers from tables; what is in none is allowed."""

    senders: dict[str, Error] = field(default_factory=dict)
    recipients: dict[str, Error] = field(default_factory=dict)
    content: Error | None = None
    raises: Exception | None = None

    def sender_allowed(self, user: str | None, sender: str) -> Error | None:
        if self.raises is not None:
            raise self.raises
        return self.senders.get(sender)

    def recipient(self, address: str) -> Error | None:
        return self.recipients.get(address)

    def content_allowed(self, mail: Mail) -> Error | None:
        return self.content


@dataclass
class PlainPasswords:
    """Accounts with their passwords as they are; the account's name is the user name."""

    accounts: dict[str, str] = field(default_factory=dict)
    fails: Error | None = None
    asked: list[str] = field(default_factory=list)

    def check(self, user: str, password: str, peer: str, done: Callable[[Outcome], None]) -> None:
        self.asked.append(user)
        if self.fails is not None:
            done(self.fails)
        elif self.accounts.get(user) == password:
            done(user)
        else:
            done(WrongPasswordError("wrong user name or password"))
