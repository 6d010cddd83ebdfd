"""Group commit: what many requests want to keep at the same moment goes into one transaction, with one flush.

While one transaction runs, the next collects. A request alone waits no longer than it would for its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from schleuse.vault.store import Deposit

#: Deposits of one transaction, so that an erasure need not wait long for its turn.
MOST = 256

Keep = Callable[[Sequence[Deposit]], Sequence[bool]]


class Writer:
    """The one writer of openings and subject keys in this process. keep: `VaultStore.keep`, which blocks."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._waiting: list[tuple[Deposit, asyncio.Future[bool]]] = []
        self._running: asyncio.Task[None] | None = None
        #: Whether the last transaction failed, so that the next may fail as well.
        self.ailing = False

    def keep(self, deposit: Deposit) -> asyncio.Future[bool]:
        """Done when the deposit is durable; False if one of its persons was erased, then nothing of it is kept.

        Raises what the store raises, to all whose deposits were in the transaction. Who stops waiting may find it kept.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((deposit, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._commit([deposit for deposit, _ in some], [future for _, future in some])
        finally:
            self._running = None
            left, self._waiting = self._waiting, []
            for _, future in left:  # only if the loop is being closed
                future.cancel()

    async def _commit(self, deposits: Sequence[Deposit], futures: Sequence[asyncio.Future[bool]]) -> None:
        try:
            kept = await asyncio.to_thread(self._keep, deposits)
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
            for future, done in zip(futures, kept, strict=True):
                if not future.done():  # whoever asked was cancelled
                    future.set_result(done)
