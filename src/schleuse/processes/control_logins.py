"""Logins of the probes while all is well, so that a closing does not begin with eighty first logins (decision 0007).

A first login costs argon2, some 50 ms of a core, and a proof asks every mailbox: 34 s for 80 insurers on two busy
cores, against 2 s when the passwords are remembered. So each account logs in from time to time, one after the other, by
SMTP, which unlike POP3 locks no mailbox. It opens nothing and sends nothing.
"""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.config import Config

log = structlog.get_logger()

#: All accounts log in once in this time; a right password is remembered for ten minutes (`mail.passwords.REMEMBER`).
ROUND = timedelta(minutes=2)
#: A wrong password costs the peer guesses that practices of this address need: not before this again.
AFTER_REFUSAL = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Login:
    """password: the file."""

    user: str
    password: Path


def logins_of(config: Config) -> list[Login]:
    """Those that probes log in with."""
    found = [Login(one.address, one.password_file) for one in config.insurers]
    control = config.control
    if control.probe_account is not None and control.probe_password_file is not None:
        found.append(Login(control.probe_account, control.probe_password_file))
    return found


class Logins:
    """log_in: one; raises OSError, SMTPException, ValueError (the password cannot be used). Called in a thread."""

    def __init__(self, accounts: Sequence[Login], log_in: Callable[[Login], None], now: Now) -> None:
        self._accounts = accounts
        self._log_in = log_in
        self._now = now
        self._place = 0
        self._not_before: dict[str, datetime] = {}

    async def run(self) -> None:
        """For ever, evenly spread, so that they are not forgotten all at once either."""
        loop = asyncio.get_running_loop()
        pause = ROUND.total_seconds() / max(1, len(self._accounts))
        while self._accounts:
            due = loop.time() + pause  # a first login takes its time, and the round must not
            await asyncio.to_thread(self.step)
            await asyncio.sleep(due - loop.time())

    def step(self) -> bool:
        """The next account; returns whether it got in. A door that is shut or away is for others to tell."""
        account = self._accounts[self._place % len(self._accounts)]
        self._place += 1
        until = self._not_before.get(account.user)
        if until is not None and self._now() < until:
            return False
        try:
            self._log_in(account)
        except smtplib.SMTPAuthenticationError as refusal:
            if refusal.smtp_code == 535:  # not 454, which means later
                self._not_before[account.user] = self._now() + AFTER_REFUSAL
                log.error("probe.login-refused", place=(self._place - 1) % len(self._accounts))
            return False
        except (OSError, smtplib.SMTPException):
            return False
        except ValueError as fault:  # its file is not UTF-8, or it is not ASCII: whoever keeps the file mends it
            log.error(
                "probe.password-unusable",
                place=(self._place - 1) % len(self._accounts),
                reason=type(fault).__name__,
            )
            return False
        return True
