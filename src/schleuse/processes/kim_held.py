"""While the outbound queue is held: senders hear that their letters are delayed, operators how long (HD-10)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.kim.escalation import STEPS, notice_before
from schleuse.kim.store.held_letters import HeldLetters
from schleuse.processes.kim_sending import sending
from schleuse.processes.trail import PLATFORM, Act, Trail
from schleuse.switch.copy import Switch

log = structlog.get_logger()

LOOK_SECONDS = 30.0


class LettersWatch:
    """One per mail role. After a restart an escalation may be told once more."""

    def __init__(
        self,
        letters: HeldLetters,
        switch: Switch,
        tell: Callable[[Act], None],
        count: Callable[[str], None],
        now: Now,
    ) -> None:
        self._letters = letters
        self._switch = switch
        self._tell = tell
        self._count = count
        self._now = now
        self._told: dict[timedelta, int] = {}  # id of the last letter of which each step was told

    def step(self) -> None:
        """Look once. Raises UnavailableError."""
        at, now = sending(self._switch), self._now()
        if at.state.begins:
            return
        before = notice_before(at.since, now)
        while before is not None and (letters := self._letters.tell_delayed(before, now)):
            for _ in range(letters):
                self._count("kim.letters_delayed")
        for step in STEPS:
            self._escalate(step)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await asyncio.to_thread(self.step)
            except Error as error:
                log.error("letters.waiting", code=error.code, reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    def _escalate(self, step: timedelta) -> None:
        after = self._told.get(step, 0)
        older = self._letters.older(self._now() - step, after)
        if not older.number:
            return
        hours = step // timedelta(hours=1)
        log.error("letters.held-long", hours=hours, letters=older.number)
        self._count(f"kim.letters_held_{hours}h")
        detail: dict[str, Json] = {"act": "letters.held", "hours": hours}
        self._tell(
            Act(PLATFORM, Kind.ADMINISTRATION, Result.GRANTED, Purpose.OPERATION, detail=detail, count=older.number)
        )
        self._told[step] = older.last


def told_by(trail: Trail) -> Callable[[Act], None]:
    """An escalation that the trail cannot take is in the log all the same."""

    def tell(act: Act) -> None:
        try:
            trail.tell(act)
        except Error as error:
            log.error("letters.not-told", code=error.code)

    return tell
