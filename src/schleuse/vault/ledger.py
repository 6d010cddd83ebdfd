"""The vault's side of one log: numbers without gaps, entries in doubt, and a journal that must not shrink (§ 14.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from schleuse.errors import Error
from schleuse.journal.contracts import Level, LevelTimeoutError, Receipt, ShardClosedError
from schleuse.vault.contracts import CounterAheadError, VaultUnavailableError
from schleuse.vault.reflected import Changes

log = structlog.get_logger()

#: The journal takes no entry that is older than 120 s, so an entry in doubt for longer is there or never will be. Both
#: in seconds that passed, not by the clock, which may be set meanwhile (decision 0023).
RESEND_WITHIN_S = 90.0
SETTLED_AFTER_S = 130.0


class Appends(Protocol):
    """The part of `journal.client.JournalClient` that the vault needs."""

    async def current(self, origin: str) -> str:
        """See `JournalClient.current`."""
        ...

    async def append_all(
        self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE
    ) -> Sequence[Receipt]:
        """See `JournalClient.append_all`."""
        ...


class UnsettledError(VaultUnavailableError):
    """Whether earlier entries are in the journal is not known; they must be read back first (`Ledger.resume`)."""

    code = "vault.unsettled"


class LogClosedError(VaultUnavailableError):
    """The log takes no entry any more; the journal says which one does, and the vault goes on there (decision 0023).

    receipts: of the first entries of what was to be written, which the log has; the others it has not and never will.
    """

    code = "vault.log-closed"

    def __init__(self, message: str, receipts: Sequence[Receipt] = ()) -> None:
        super().__init__(message)
        self.receipts = receipts


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A batch whose fate is not known. since: of a monotonic clock. last: its last release number, 0 without."""

    since: float
    entries: Sequence[bytes]
    last: int


class Ledger:
    """Writes to one log.

    counter: the last release number given. confirmed: the highest that the journal is known to have. top: a size that
    the log has reached. changes: of keys, which the store does not reflect yet.

    Numbers are given when the entries are made. If the journal does not confirm a batch, its bytes are kept and sent
    again before anything else, because a number must be neither lost nor used twice. Batches in flight together may
    come to stand in another order than their numbers. monotonic: seconds.
    """

    def __init__(
        self, journal: Appends, origin: str, monotonic: Callable[[], float], *, counter: int = 0, top: int = 0
    ) -> None:
        self.origin = origin
        self.counter = counter
        self.confirmed = counter
        self.top = top
        self.changes = Changes()
        self._journal = journal
        self._monotonic = monotonic
        self._doubt: list[_Doubt] = []
        self._settling = asyncio.Lock()
        self._lost: CounterAheadError | None = None

    @property
    def in_doubt(self) -> int:
        """Entries whose fate is not known."""
        return sum(len(one.entries) for one in self._doubt)

    @property
    def is_settled(self) -> bool:
        """Whether `settle` has nothing to do and nothing to say."""
        return not self._doubt and self._lost is None

    async def write(
        self, make: Callable[[int], tuple[Sequence[bytes], int]], level: Level = Level.DURABLE
    ) -> Sequence[Receipt]:
        """make: next release number -> entries, and how many numbers they use. Returns when all are at the level.

        Raises VaultUnavailableError (nothing may be opened), LogClosedError (with what was written), CounterAheadError.
        """
        if not self.is_settled:
            await self.settle()
        entries, numbers = make(self.counter + 1)
        self.counter += numbers
        last = self.counter if numbers else 0
        receipts = await self._send(entries, last, level)
        self.confirmed = max(self.confirmed, last)
        return receipts

    def resume(self, counter: int) -> None:
        """After `UnsettledError`: the journal's own last number, read when everything in doubt is too old to arrive."""
        self._doubt.clear()
        self.counter = self.confirmed = counter

    @property
    def may_resume(self) -> bool:
        """Whether everything in doubt is too old to arrive any more, and a new look can help."""
        return self._lost is None and all(self._monotonic() - one.since > SETTLED_AFTER_S for one in self._doubt)

    def lost(self, found: str) -> CounterAheadError:
        """Nothing is released from this log any more; only people can say what happened."""
        self._lost = CounterAheadError(f"{self.origin}: {found}; nothing is opened until its operator has looked")
        log.critical("vault.counter-ahead", origin=self.origin, found=found)
        return self._lost

    async def settle(self) -> None:
        """Send again what is in doubt. Raises as `write`; UnsettledError once that is too old to be taken.

        LogClosedError: then nothing is in doubt any more.
        """
        if self._lost is not None:
            raise self._lost
        if not self._doubt:
            return
        async with self._settling:
            while self._doubt:
                one = self._doubt[0]
                if self._monotonic() - one.since > RESEND_WITHIN_S:
                    raise UnsettledError(
                        f"{len(one.entries)} entries of {self.origin} are in doubt; they are read back from the journal"
                    )
                try:
                    await self._journal.append_all(self.origin, one.entries)
                except ShardClosedError as error:
                    await self.count_written()
                    raise LogClosedError(str(error)) from error
                except Error as error:
                    raise _unavailable(error) from error
                self.confirmed = max(self.confirmed, one.last)
                self._doubt = [other for other in self._doubt if other is not one]

    async def _send(self, entries: Sequence[bytes], last: int, level: Level) -> Sequence[Receipt]:
        top, since = self.top, self._monotonic()
        try:
            receipts = await self._journal.append_all(self.origin, entries, level)
        except LevelTimeoutError as error:  # durable, and still nothing may be opened
            raise _unavailable(error) from error
        except BaseException as error:
            doubt = _Doubt(since, entries, last)
            self._doubt.append(doubt)
            if isinstance(error, ShardClosedError):
                written = self._checked(await self._count_written(doubt, level), top)
                raise LogClosedError(str(error), written) from error
            if isinstance(error, Error):
                raise _unavailable(error) from error
            raise
        return self._checked(receipts, top)

    def _checked(self, receipts: Sequence[Receipt], top: int) -> Sequence[Receipt]:
        """top: a size of the log from before. Raises CounterAheadError."""
        if self._lost is not None:
            raise self._lost
        for receipt in receipts:
            if receipt.index < top:
                raise self.lost(f"a new entry got an index below {top}, so the journal has lost entries")
            if receipt.index >= self.top:
                self.top = receipt.index + 1
        return receipts

    async def count_written(self) -> None:
        """Of all that is in doubt, now that the log has closed. Raises VaultUnavailableError: it stays in doubt."""
        for one in list(self._doubt):
            await self._count_written(one, Level.DURABLE)

    async def _count_written(self, one: _Doubt, level: Level) -> Sequence[Receipt]:
        """The log closed, perhaps within this batch: it takes nothing ever again, and says what it has.

        Entries are taken in their order, so those before the first one refused are there. Numbers of the others were
        given to nobody. Returns receipts of those that are there, which have reached the level.
        """
        receipts: list[Receipt] = []
        try:
            for entry in one.entries:
                receipts += await self._journal.append_all(self.origin, [entry])
        except ShardClosedError:
            pass
        except Error as error:  # nobody answers any more: it stays in doubt
            raise _unavailable(error) from error
        self._doubt = [other for other in self._doubt if other is not one]
        if one.last:
            last = one.last - len(one.entries) + len(receipts)
            self.counter = min(self.counter, last)
            if receipts:
                self.confirmed = max(self.confirmed, last)
        if receipts and level > Level.DURABLE:
            try:
                await self._journal.append_all(self.origin, one.entries[: len(receipts)], level)
            except Error as error:
                raise _unavailable(error) from error
        return receipts


def _unavailable(error: Error) -> VaultUnavailableError:
    return VaultUnavailableError(f"the journal did not take the entry, so nothing is opened ({error.code}: {error})")
