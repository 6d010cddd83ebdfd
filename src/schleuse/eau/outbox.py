"""Sends the Fehlernachrichten that were recorded with their decisions: once each, whatever is killed when.

A letter's finished mail is recorded before it is sent for the first time, and marked as sent after the mail system
has taken it over. A crash between the two sends the same octets with the same Message-ID again, and the mail store
keeps them once.

While the switch closes what goes out to an insurer's practices, its letters wait (SW-06, T-02). While it is limited,
its share of them leaves, and no more than its rate in any hour (§ 9.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from schleuse.clock import Now
from schleuse.eau.letter_store import LONGEST_PAUSE, LetterStore, Unsent
from schleuse.eau.switched import delivered_rate, delivered_share, delivering, delivery
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.kim.store import Under
from schleuse.kim.store.delivery import share_of
from schleuse.scopes import Scope
from schleuse.switch.copy import Switch
from schleuse.switch.fence import StaleEpochError
from schleuse.vault.contracts import ScopeClosedError

#: (mail, reverse path, recipient): returns when the mail system has taken the mail over. Raises any `Error`.
Submit = Callable[[bytes, str, str], Coroutine[Any, Any, None]]
#: The finished KIM mail of a letter: unsealed, signed, encrypted. Called at most once for each letter that is kept.
Finish = Callable[[Unsent], bytes]

FIRST_PAUSE = timedelta(seconds=5)
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
    """One loop for each machine is enough; two would send some letters twice, which is harmless.

    iks: whose letters it sends, each while the switch lets go out what is theirs; the others' wait. unit: entered for
    an insurer's atom while a letter of its goes out.
    """

    def __init__(
        self,
        letters: LetterStore,
        finish: Finish,
        submit: Submit,
        now: Now,
        switch: Switch,
        iks: Collection[IK],
        unit: Callable[[Scope], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._letters = letters
        self._finish = finish
        self._submit = submit
        self._now = now
        self._switch = switch
        self._iks = iks
        self._unit = unit
        self._sending: tuple[Unsent, asyncio.Future[None]] | None = None
        self._uncertain: list[str] = []

    async def step(self) -> Step:
        """Try every letter that is due and may go, oldest first. Raises UnavailableError: the store cannot be read."""
        open_now = {ik: at for ik in self._iks if (at := delivery(self._switch, ik)).state.begins}
        if not open_now:
            return Step()
        shares = {ik: share for ik, at in open_now.items() if (share := delivered_share(at)) is not None}
        rates = {ik: rate for ik, at in open_now.items() if (rate := delivered_rate(at)) is not None}
        due = await asyncio.to_thread(self._letters.due, self._now(), BATCH, [*open_now], shares, rates)
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

    async def cut(self, scopes: Collection[Scope]) -> Sequence[str]:
        """Stop the letter that is going out of one of these atoms, if there is one (SW-10).

        Returns the letters, by the delivery that they answer, of which nobody knows whether the mail system took them
        over. They go again after the opening with the same octets, and the mail system keeps them once.
        """
        if self._sending is not None and delivering(self._sending[0].ik) in scopes:
            letter, task = self._sending
            task.cancel()
            self._uncertain.append(f"letter {letter.delivery}")
        found, self._uncertain = self._uncertain, []
        return found

    async def _send(self, letter: Unsent) -> bool | None:
        """True: sent. False: it failed. None: it may not go now, and waits without another pause."""
        at = delivery(self._switch, letter.ik)
        share = delivered_share(at)
        if not at.state.begins or (share is not None and share_of(letter.delivery) >= share):
            return None  # also where the share has become smaller since it was read
        under, rate = Under(delivering(letter.ik), at.epoch), delivered_rate(at)
        try:
            with self._unit(under.scope):
                # Before anything is opened for it.
                if rate is not None and not await self._let_out(letter, rate, under):
                    return None
                await self._send_under(letter, under)
        except (StaleEpochError, ScopeClosedError) as error:
            _log.warning("eau.outbox.closed", delivery=letter.delivery, code=error.code)
            return None
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

    async def _let_out(self, letter: Unsent, rate: int, under: Under) -> bool:
        return await asyncio.to_thread(self._letters.let_out, letter, self._now(), rate, under)

    async def _send_under(self, letter: Unsent, under: Under) -> None:
        # Recorded in any case: this is where a late sender is refused before anything leaves (SW-06).
        wire = await asyncio.to_thread(self._record, letter, under)
        task = asyncio.ensure_future(self._submit(wire, letter.sender, letter.recipient))
        self._sending = letter, task
        try:
            await asyncio.wait([task])
        finally:
            self._sending = None
            task.cancel()
        if task.cancelled():
            raise CutError("the letter was cut while it went out; it goes again after the opening")
        task.result()
        try:
            await asyncio.to_thread(self._letters.sent, letter.delivery, self._now(), under)
        except StaleEpochError:
            self._uncertain.append(f"letter {letter.delivery}")
            raise

    def _record(self, letter: Unsent, under: Under) -> bytes:
        wire = self._finish(letter) if letter.wire is None else letter.wire
        return self._letters.keep_wire(letter.delivery, wire, under)

    async def _later(self, letter: Unsent) -> None:
        next_at = self._now() + pause_after(letter.attempts + 1)
        try:
            await asyncio.to_thread(self._letters.retry, letter.delivery, next_at)
        except Error as error:  # it stays due, which is as good
            _log.warning("eau.outbox.unavailable", code=error.code)


class CutError(StaleEpochError):
    """A letter was cut by a closing while it went out; it goes again, octet for octet, after the opening (SW-10)."""

    code = "eau.letter-cut"


async def _wait(wake: asyncio.Event, longest: timedelta) -> None:
    try:
        async with asyncio.timeout(longest.total_seconds()):
            await wake.wait()
    except TimeoutError:
        return
    wake.clear()
