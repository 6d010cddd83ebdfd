"""Sends the Fehlernachrichten that were recorded with their decisions: once each, whatever is killed when.

A letter's finished mail is recorded before it is sent for the first time, and marked as sent after the mail system
has taken it over. A crash between the two sends the same octets with the same Message-ID again, and the mail store
keeps them once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from schleuse.clock import Now
from schleuse.eau.letter_store import LetterStore, Unsent
from schleuse.errors import Error

#: (mail, reverse path, recipient): returns when the mail system has taken the mail over. Raises any `Error`.
Submit = Callable[[bytes, str, str], Awaitable[None]]
#: The finished KIM mail of a letter: unsealed, signed, encrypted. Called at most once for each letter that is kept.
Finish = Callable[[Unsent], bytes]

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=15)
BATCH = 32
#: How long the loop rests when nobody tells it that there is work.
IDLE = timedelta(seconds=5)

_log = structlog.get_logger(__name__)


def pause_after(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts (1, 2, …): doubling, for ever, at most LONGEST_PAUSE.

    An error answer is due as fast as possible (eau.md § 13.1), so the pauses stay short; nothing is ever given up.
    """
    doublings = min(attempts - 1, 16)
    return min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did."""

    sent: int = 0
    failed: int = 0


class Outbox:
    """One loop for each machine is enough; two would send some letters twice, which is harmless."""

    def __init__(self, letters: LetterStore, finish: Finish, submit: Submit, now: Now) -> None:
        self._letters = letters
        self._finish = finish
        self._submit = submit
        self._now = now

    async def step(self) -> Step:
        """Try every letter that is due, oldest first. Raises UnavailableError if the store cannot be read."""
        due = await asyncio.to_thread(self._letters.due, self._now(), BATCH)
        done = [await self._send(letter) for letter in due]
        return Step(sent=done.count(True), failed=done.count(False))

    async def run(self, wake: asyncio.Event) -> None:
        """Step until cancelled. wake: set by whoever has recorded a letter."""
        while True:
            try:
                step = await self.step()
            except Error as error:
                _log.warning("eau.outbox.unavailable", code=error.code)
                step = Step()
            if step.sent < BATCH:
                await _wait(wake, IDLE)

    async def _send(self, letter: Unsent) -> bool:
        try:
            wire = letter.wire if letter.wire is not None else await asyncio.to_thread(self._record, letter)
            await self._submit(wire, letter.sender, letter.recipient)
            await asyncio.to_thread(self._letters.sent, letter.delivery, self._now())
        except Exception as error:  # one letter must not keep the others back
            _log.warning(
                "eau.outbox.retry",
                delivery=letter.delivery,
                attempts=letter.attempts + 1,
                code=error.code if isinstance(error, Error) else type(error).__name__,
            )
            await self._later(letter)
            return False
        _log.info("eau.outbox.sent", delivery=letter.delivery, fehlernachricht=letter.code)
        return True

    def _record(self, letter: Unsent) -> bytes:
        return self._letters.keep_wire(letter.delivery, self._finish(letter))

    async def _later(self, letter: Unsent) -> None:
        next_at = self._now() + pause_after(letter.attempts + 1)
        try:
            await asyncio.to_thread(self._letters.retry, letter.delivery, next_at)
        except Error as error:  # it stays due, which is as good
            _log.warning("eau.outbox.unavailable", code=error.code)


async def _wait(wake: asyncio.Event, longest: timedelta) -> None:
    try:
        async with asyncio.timeout(longest.total_seconds()):
            await wake.wait()
    except TimeoutError:
        return
    wake.clear()
