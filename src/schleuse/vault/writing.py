"""Group commit: what many requests want to keep at the same moment goes into one transaction, with one flush.

While one transaction runs, the next collects. A request alone waits no longer than it would for its own; a crowd waits
a millisecond for the rest of it, because a transaction costs the same for one as for fifty (bench/vault.py: a third of
the CPU of a release). What many want to read at the same moment is read so as well (`keyring`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from schleuse.vault.store import Deposit

#: Deposits of one transaction, so that an erasure need not wait long for its turn.
MOST = 256

#: So many that wait together are a crowd, of which more come at once; with fewer, the millisecond would cost more than
#: it spares.
CROWD = 16
#: A crowd is complete with so many, or after so long.
COMPLETE = 64
GATHER_S = 0.001

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """Does in one call what many ask for at the same moment. work: an answer for each, in a thread, because it blocks.

    most: of one call.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Sequence[Answer]], most: int = MOST) -> None:
        self._work = work
        self._most = most
        self._complete = min(COMPLETE, most)
        self._gathered = asyncio.Event()
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None
        #: Whether the last call failed, so that the next may fail as well.
        self.ailing = False

    def ask(self, asked: Asked) -> asyncio.Future[Answer]:
        """Raises what the work raises, to all who were in the same call. Who stops waiting may find it done."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if len(self._waiting) >= self._complete:
            self._gathered.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                if CROWD <= len(self._waiting) < self._complete:
                    await self._gather()
                some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._do([asked for asked, _ in some], [future for _, future in some])
        finally:
            self._running = None
            left, self._waiting = self._waiting, []
            for _, future in left:  # only if the loop is being closed
                future.cancel()

    async def _gather(self) -> None:
        self._gathered.clear()
        timer = asyncio.get_running_loop().call_later(GATHER_S, self._gathered.set)
        try:
            await self._gathered.wait()
        finally:
            timer.cancel()

    async def _do(self, asked: Sequence[Asked], futures: Sequence[asyncio.Future[Answer]]) -> None:
        try:
            answers = await asyncio.to_thread(self._work, asked)
        except BaseException as error:
            self.ailing = True
            cause = RuntimeError("the vault was stopped") if isinstance(error, asyncio.CancelledError) else error
            for future in futures:
                if not future.done():
                    future.set_exception(cause)
            if not isinstance(error, Exception):
                raise
        else:
            self.ailing = False
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():  # whoever asked was cancelled
                    future.set_result(answer)


class Writer(Together[Deposit, bool]):
    """The one writer of openings and subject keys in this process; its work is `VaultStore.keep`."""

    def keep(self, deposit: Deposit) -> asyncio.Future[bool]:
        """Done when the deposit is durable; False if one of its persons was erased, then nothing of it is kept.

        Raises what the store raises, to all whose deposits were in the transaction. Who stops waiting may find it kept.
        """
        return self.ask(deposit)
