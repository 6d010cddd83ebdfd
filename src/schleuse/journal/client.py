"""How another process writes to the journal: one pipelined connection, many appends in flight (journal.md § 13).

When the connection is lost, nobody knows what became durable: every wait ends with JournalUnavailableError, and whoever
tries again sends the same bytes, which have one index however often they arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from schleuse.errors import Error
from schleuse.journal.admission import InvalidEntryError
from schleuse.journal.contracts import JournalUnavailableError, Level, LevelTimeoutError, Receipt, ShardClosedError
from schleuse.journal.entry import MAX_ENTRY
from schleuse.journal.publish import LEVEL_TIMEOUT_S
from schleuse.journal.wire import (
    FIRST_ERROR,
    QUESTION,
    REPLY,
    REQUEST,
    WAIT,
    WAIT_FIELDS,
    WHICH_NUMBER,
    WHICH_TAKES,
    error_of,
)

#: A journal that answers nothing for so long is gone for us (the slowest flush is far below).
ANSWER_S = 10.0
CONNECT_S = 2.0
#: Which log takes entries is asked again after so long; a log stays open for a minute after
#: the next has begun, or our clock is believed again.
CURRENT_S = 10.0

Answer = tuple[int, bytes]


class JournalClient:
    """Appends over the socket; the same calls as `store.Journal`. Connects when first used, and again after a loss.

    answer_s: after so many seconds without the reply to an append it ends with JournalUnavailableError.
    """

    def __init__(self, path: Path, *, answer_s: float = ANSWER_S) -> None:
        self._path = path
        self._answer_s = answer_s
        self._pipe: _Pipe | None = None
        self._numbers: dict[str, int] = {}
        self._current: dict[str, tuple[str, float]] = {}
        self._connecting = asyncio.Lock()

    async def append(self, origin: str, entry: bytes, level: Level = Level.DURABLE) -> Receipt:
        """Write one entry and return when it has reached the level. Raises as `store.Journal.append`."""
        pipe, number = await self._log(origin)
        index, share = await pipe.ask(number, _sized(entry))
        if level > Level.DURABLE:
            await self._wait(pipe, number, index + 1, level, LEVEL_TIMEOUT_S)
        return Receipt(origin, index, entry, index + 1, share or None)

    async def current(self, origin: str) -> str:
        """The log that takes entries about this one now; mostly it is the same (decision 0023).

        Another one if the writer's clock, which may be the journal's, names a year that is over or has not begun. What
        was told is asked anew after CURRENT_S, or as soon as that log has refused an entry because it is closed.
        Raises UnknownLogError, JournalUnavailableError.
        """
        now = asyncio.get_running_loop().time()
        known = self._current.get(origin)
        if known is not None and now - known[1] < CURRENT_S and self._pipe is not None and not self._pipe.lost:
            return known[0]
        pipe = await self._piped()
        _, name = await pipe.ask(QUESTION, bytes([WHICH_TAKES]) + origin.encode())
        self._current[origin] = name.decode(), now
        return self._current[origin][0]

    async def append_many(self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE) -> Sequence[int]:
        """Write entries to the log that takes them now; returns their indexes, a range unless some were there before.

        A log that was closed since its name was told is asked about once more; entries of the same call that came
        before its last one are in both, with the same event.
        Raises as `append`, for the first entry that was refused; the others may be written.
        """
        if not entries:
            return range(0)
        name = await self.current(origin)
        try:
            receipts = await self.append_all(name, entries, level)
        except ShardClosedError:
            if (following := await self.current(origin)) == name:
                raise
            receipts = await self.append_all(following, entries, level)
        indexes = [receipt.index for receipt in receipts]
        whole = range(indexes[0], indexes[0] + len(indexes))
        return whole if list(whole) == indexes else indexes

    async def append_all(
        self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE
    ) -> Sequence[Receipt]:
        """As `append_many`, with a receipt (and key share) for each entry. For the vault: one round trip per batch."""
        if not entries:
            return []
        pipe, number = self._pipe, self._numbers.get(origin)
        if pipe is None or pipe.lost or number is None:
            pipe, number = await self._log(origin)
        try:
            answers = await _answers([pipe.ask(number, _sized(entry)) for entry in entries])
        except ShardClosedError:
            self._current = {asked: told for asked, told in self._current.items() if told[0] != origin}
            raise
        top = max(index for index, _ in answers) + 1
        if level > Level.DURABLE:
            await self._wait(pipe, number, top, level, LEVEL_TIMEOUT_S)
        return [
            Receipt(origin, index, entry, top, share or None)
            for (index, share), entry in zip(answers, entries, strict=True)
        ]

    async def wait(self, origin: str, size: int, level: Level, timeout_s: float) -> None:
        """Return when `size` entries of the log have reached the level. Raises LevelTimeoutError, UnknownLogError."""
        pipe, number = await self._log(origin)
        await self._wait(pipe, number, size, level, timeout_s)

    async def close(self) -> None:
        """Hang up; what is in flight ends with JournalUnavailableError."""
        if self._pipe is not None:
            self._pipe.abort()
            self._pipe = None

    async def _wait(self, pipe: _Pipe, number: int, size: int, level: Level, timeout_s: float) -> None:
        question = WAIT_FIELDS.pack(WAIT, number, size, level, int(timeout_s * 1000))
        try:
            async with asyncio.timeout(timeout_s + self._answer_s):
                await pipe.ask(QUESTION, question, patient=True)
        except TimeoutError as cause:
            raise LevelTimeoutError(
                f"the journal did not say within {timeout_s:g} s that {level.name} is reached"
            ) from cause

    async def _log(self, origin: str) -> tuple[_Pipe, int]:
        pipe = await self._piped()
        number = self._numbers.get(origin)
        if number is None:
            number, _ = await pipe.ask(QUESTION, bytes([WHICH_NUMBER]) + origin.encode())
            self._numbers[origin] = number
        return pipe, number

    async def _piped(self) -> _Pipe:
        pipe = self._pipe
        return await self._connect() if pipe is None or pipe.lost else pipe

    async def _connect(self) -> _Pipe:
        async with self._connecting:
            if self._pipe is not None and not self._pipe.lost:
                return self._pipe
            self._numbers.clear()
            self._current.clear()
            try:
                async with asyncio.timeout(CONNECT_S):
                    loop = asyncio.get_running_loop()
                    _, pipe = await loop.create_unix_connection(lambda: _Pipe(self._answer_s), str(self._path))
            except (OSError, TimeoutError) as cause:
                reason = getattr(cause, "strerror", None) or type(cause).__name__
                raise JournalUnavailableError(f"no journal answers at {self._path.name} ({reason})") from cause
            self._pipe = pipe
            return pipe


class _Pipe(asyncio.Protocol):
    """One connection: requests out, one write per turn of the loop; replies in."""

    def __init__(self, answer_s: float) -> None:
        self.lost = False
        self._answer_s = answer_s
        self._patient: set[int] = set()
        self._heard = False
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._out: list[bytes] = []
        self._last = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(JournalUnavailableError("the connection to the journal was lost"))

    def ask(self, number: int, data: bytes, *, patient: bool = False) -> asyncio.Future[Answer]:
        """The reply to come. patient: it may take longer than a flush."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self.lost:
            future.set_exception(JournalUnavailableError("the connection to the journal was lost"))
            return future
        self._last += 1
        self._asked[self._last] = future
        if patient:
            self._patient.add(self._last)
        if self._watch is None:
            self._watch = self._loop.call_later(self._answer_s, self._look)
        if not self._out:
            self._loop.call_soon(self._send)
        self._out.append(REQUEST.pack(len(data), number, self._last) + data)
        return future

    def abort(self) -> None:
        """Drop the connection at once."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def _look(self) -> None:
        """One timer for all requests: replies come in the order of commits, so silence means a stuck journal."""
        self._watch = None
        self._patient &= self._asked.keys()
        if len(self._asked) > len(self._patient):
            if not self._heard:
                self.abort()
                return
            self._heard = False
            self._watch = self._loop.call_later(self._answer_s, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._rest:
            data = self._rest + data
        at, end, unpack, asked = 0, len(data), REPLY.unpack_from, self._asked
        while end - at >= 17:
            request_id, index, length = unpack(data, at)
            if end - at - 17 < length:
                break
            extra = data[at + 17 : at + 17 + length] if length else b""
            at += 17 + length
            future = asked.pop(request_id, None)
            if future is None or future.done():  # whoever asked was cancelled
                continue
            if index < FIRST_ERROR:
                future.set_result((index, extra))
            else:
                future.set_exception(error_of(index, extra))
        self._rest = data[at:]

    def _send(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost:
            with suppress(OSError):
                self._transport.write(b"".join(out))


async def _answers(futures: Sequence[asyncio.Future[Answer]]) -> list[Answer]:
    """All of them, when the last is there; raises what the first refused one says.

    Mostly they come in one read, so that only the first await waits.
    """
    answers: list[Answer] = []
    refused: Error | None = None
    for future in futures:
        try:
            answers.append(await future)
        except Error as error:
            refused = refused or error
        except asyncio.CancelledError:
            for other in futures:
                other.cancel()  # nobody hears what they end with
            raise
    if refused is not None:
        raise refused
    return answers


def _sized(entry: bytes) -> bytes:
    if len(entry) > MAX_ENTRY:
        raise InvalidEntryError(f"an entry has at most {MAX_ENTRY} bytes, not {len(entry)}")
    return entry
