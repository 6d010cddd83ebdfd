"""How a process follows the switch: it sees an epoch, raises its fences, lets running work end, and says what it did.

The state itself is asked for each unit of work (`Switch.standing`); this is what happens once an epoch: the fence in
the database goes up first, so that whatever still runs under an older epoch is refused at the store (SW-06); then
running units get their budget and are cut (SW-10); then the effect is noted for the closure proof (SW-07).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.scopes import Direction, Scope
from schleuse.switch.copy import LocalSwitch, standing_of
from schleuse.switch.effects import EffectBook, SwitchEffect

log = structlog.get_logger()

#: A step of `EpochFollower.run`; far below the 2 s that a command may take to reach every worker (§ 5.2).
LOOK_SECONDS = 0.05
TROUBLE_SECONDS = 1.0


class Running:
    """The units of work that run now, and when the last one had its effect, by atom. Thread-safe."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._counts: Counter[Scope] = Counter()
        self._last: dict[Scope, datetime] = {}

    @contextmanager
    def unit(self, scope: Scope) -> Iterator[None]:
        """One unit of work of this atom."""
        with self._lock:
            self._counts[scope] += 1
        try:
            yield
        finally:
            with self._lock:
                self._counts[scope] -= 1
                self._last[scope] = self._now()

    def count(self, scopes: Sequence[Scope]) -> int:
        """How many run now of these atoms."""
        with self._lock:
            return sum(self._counts[scope] for scope in scopes)

    def last(self, scopes: Sequence[Scope]) -> datetime | None:
        """When the last unit of these atoms ended."""
        with self._lock:
            return max((self._last[scope] for scope in scopes if scope in self._last), default=None)


#: Cuts what still runs of these atoms; returns the ids of units of which nobody knows how they ended.
Cut = Callable[[Sequence[Scope]], Awaitable[Sequence[str]]]


class EpochFollower:
    """One per process. atoms: what this process enforces. fence: raises the fences of its databases (`fence.raise_to`)
    and does what else an epoch asks of a store, in one transaction each; raises Error when it cannot, and comes again.
    tell: puts the effect into the journal's trail. cut: see `Cut`; None where units cannot be cut, because they are
    short.
    """

    def __init__(
        self,
        switch: LocalSwitch,
        book: EffectBook,
        worker: str,
        atoms: Sequence[Scope],
        *,
        running: Running,
        fence: Callable[[Mapping[Scope, int], int], None],
        tell: Callable[[SwitchEffect], None],
        now: Now,
        cut: Cut | None = None,
        budget: timedelta = timedelta(seconds=10),
    ) -> None:
        self._switch = switch
        self._book = book
        self._worker = worker
        self._atoms = atoms
        self._running = running
        self._fence = fence
        self._tell = tell
        self._now = now
        self._cut = cut
        self._budget = budget
        self._done = -1  # the epoch whose fences this process has raised; the first one at its start

    def step(self, uncertain: Sequence[str] = ()) -> bool:
        """For a process whose units are over when it calls: fence and note. Returns whether there was a new epoch.

        uncertain: ids of units of which nobody knows how they ended (SW-10).
        Raises Error: the fence could not be raised; nothing was noted, and the next step does it again.
        """
        epoch = self._switch.epoch
        if epoch == self._done:
            return False
        seen_at = self._now()
        self._raise(epoch)
        closed = self._closed()
        last = self._running.last(closed)
        self._note(SwitchEffect(self._worker, epoch, seen_at, self._now(), last, uncertain=tuple(uncertain)))
        self._done = epoch
        return True

    async def run(self) -> None:
        """For a process of many tasks: for ever. A newer epoch does not wait for what an older one still drains."""
        async with asyncio.TaskGroup() as drains:
            while True:
                try:
                    await self._follow(drains)
                except Error as error:
                    log.error("switch.fence-waits", worker=self._worker, code=error.code, reason=str(error))
                    await asyncio.sleep(TROUBLE_SECONDS)
                await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, drains: asyncio.TaskGroup) -> None:
        epoch = self._switch.epoch
        if epoch == self._done:
            return
        seen_at = self._now()
        await asyncio.to_thread(self._raise, epoch)
        self._done = epoch
        drains.create_task(self._drain(epoch, seen_at, self._closed()))

    async def _drain(self, epoch: int, seen_at: datetime, closed: Sequence[Scope]) -> None:
        inflight = self._running.count(closed)
        effect = SwitchEffect(self._worker, epoch, seen_at, None, self._running.last(closed), inflight)
        if inflight:
            await asyncio.to_thread(self._note, effect)
        deadline = seen_at + self._budget
        while self._running.count(closed) and self._now() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        left = self._running.count(closed)
        # Also where nothing is left: a unit may have ended without anybody knowing how.
        uncertain = tuple(await self._try_cut(closed)) if inflight else ()
        quiet = None if self._running.count(closed) else self._now()
        effect = replace(
            effect,
            quiet_at=quiet,
            last_effect_at=self._running.last(closed),
            finished=inflight - left,
            cut=left,
            uncertain=uncertain,
        )
        await asyncio.to_thread(self._note, effect)

    async def _try_cut(self, closed: Sequence[Scope]) -> Sequence[str]:
        if self._cut is None:
            return ()
        try:
            return await self._cut(closed)
        except Error as error:  # what still runs is counted, so the closing is not called quiet
            log.error("switch.not-cut", worker=self._worker, code=error.code, reason=str(error))
            return ()

    def _raise(self, epoch: int) -> None:
        self._fence({atom: self._standing_epoch(atom) for atom in self._atoms}, epoch)

    def _standing_epoch(self, atom: Scope) -> int:
        return standing_of(self._switch, atom).epoch

    def _closed(self) -> list[Scope]:
        """The atoms of this process in which no unit may begin now."""
        return [atom for atom in self._atoms if self._is_closed(atom)]

    def _is_closed(self, atom: Scope) -> bool:
        state = standing_of(self._switch, atom).state
        # Taking in goes on while it is held (HD-02): waiting until nothing arrives would never end.
        return not (state.accepts if atom.direction == Direction.ACCEPT else state.begins)

    def _note(self, effect: SwitchEffect) -> None:
        effect = replace(effect, safe=self._switch.safe)
        try:
            self._book.write(effect)
            self._tell(effect)
        except (OSError, Error) as cause:  # the state is in force all the same; the proof will miss this worker
            log.error("switch.effect-not-noted", worker=self._worker, epoch=effect.epoch, reason=type(cause).__name__)
