"""What the journal does behind the commits: files of the trees, spare segments, the `state` file (journal.md § 12.3).

Nothing here is between an entry and its answer. What waits is durable in the write-ahead log already; here it gets its
place in the trees, and the segments that are no longer needed are used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from schleuse.errors import Error
from schleuse.journal.contracts import JournalFullError
from schleuse.journal.disk import Disk, replace
from schleuse.journal.levels import Files, flush
from schleuse.journal.log import Log
from schleuse.journal.state import LogState, State, write_state
from schleuse.journal.wal import Position, Wal

NOTE = "checkpoint"
MUCH = 256 << 10  #: bytes of entries in a buffer; ours


class Housekeeping:
    """Runs in the journal's loop; what flushes runs in threads. fail: told when a flush failed, for nobody knows then.

    applied: frames before it are hashed. full: why no entry can be taken at the moment.
    oldest: where the oldest kept segment begins. started: size of each log there.
    """

    def __init__(
        self,
        disk: Disk,
        files: Files,
        wal: Wal,
        folder: Path,
        logs: Mapping[int, Log],
        oldest: Position,
        started: dict[int, int],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.applied = wal.position
        self.full: Error | None = None
        self._disk = disk
        self._files = files
        self._wal = wal
        self._folder = folder
        self._logs = logs
        self._oldest = oldest
        self._started = started
        self._fail = fail
        self._segment_starts: dict[int, tuple[Position, dict[int, int]]] = {}
        self._room_wanted = self._saving = False
        self._one_save = asyncio.Lock()
        self._tasks: set[asyncio.Future[None]] = set()

    def write_much(self, log: Log) -> None:
        """Write what one tree has in buffers if it is much, so that their memory is used again.

        A second's entries at once are megabytes of new pages, which cost as much as hashing them.
        """
        if log.entries.waiting >= MUCH and self.full is None:
            try:
                log.write()
            except OSError as cause:
                self._is_full(cause)

    def write(self) -> bool:
        """Write what the trees have in buffers, without a flush; whether the disk took it."""
        try:
            for log in self._logs.values():
                log.write()
        except OSError as cause:
            self._is_full(cause)
            return False
        self.full = None
        return True

    def _is_full(self, cause: OSError) -> None:
        # What waits is durable in the write-ahead log, and is written when there is room again.
        self.full = JournalFullError(f"the files of the tree cannot grow ({cause.strerror}); the disk needs room")

    def keep_note(self, log: Log) -> None:
        """The served note as a file: a second witness against a write-ahead log that lost its end (§ 12.3)."""
        if log.served is not None:
            with suppress(OSError):  # evidence beside the record, not the record
                replace(self._disk, log.folder / NOTE, log.served.note.encode(), durable=False)

    def begin_log(self, number: int) -> None:
        """A new log has no entry in any segment yet."""
        self._started[number] = 0

    def begin_segment(self) -> None:
        """The next frame is the first of a segment: what stands before it is given up from here."""
        at = self._wal.position
        self._segment_starts[at.segment] = (at, {log.number: log.size for log in self._logs.values()})
        self.want_room()

    def want_room(self) -> None:
        """Make spare segments, and give old ones up, unless that is under way."""
        if self._wal.wants_spares and not self._room_wanted:
            self._room_wanted = True
            self._background(self._make_room())
        if self._segment_starts and self._wal.position.segment > self._oldest.segment and not self._saving:
            self._saving = True
            self._background(self.save())

    async def save(self) -> None:
        """Flush level files and entries, write `state`, give up segments before it (§ 12.3)."""
        async with self._one_save:  # an older state must never replace a newer one
            await self._save()

    async def idle(self) -> None:
        """Return when nothing is under way."""
        for task in list(self._tasks):
            await asyncio.wait([task])

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make_room(self) -> None:
        try:
            while self._wal.wants_spares:
                await asyncio.to_thread(self._wal.prepare)
        except OSError:
            pass  # no room: appends go on until the last spare is used; the next tick tries again, health() tells
        finally:
            self._room_wanted = False

    async def _save(self) -> None:
        try:
            state, below = self._state()
            unflushed = sorted(self._files.unflushed)
            self._files.unflushed.clear()
            await asyncio.to_thread(_flush_and_write, self._disk, unflushed, self._folder, state)
        except OSError as cause:
            self._fail(cause)
            return
        finally:
            self._saving = False
        self._oldest = state.oldest
        self._started = {log.number: log.started for log in state.logs}
        self._segment_starts = {number: at for number, at in self._segment_starts.items() if number > below}
        self._wal.recycle(below)

    def _state(self) -> tuple[State, int]:
        """What is hashed and written now, and the first segment that is still needed."""
        applied = self.applied
        for log in self._logs.values():
            log.write()
        oldest, started = self._oldest, self._started
        if applied.segment in self._segment_starts:
            oldest, started = self._segment_starts[applied.segment]
        logs = tuple(
            LogState(
                log.number,
                log.origin,
                log.frontier.size,
                started.get(log.number, 0),
                log.minimum,
                str(log.signed.note) if log.signed else "",
                str(log.served.note) if log.served else "",
            )
            for log in self._logs.values()
        )
        return State(oldest, applied, logs), oldest.segment


def _flush_and_write(disk: Disk, paths: Sequence[Path], folder: Path, state: State) -> None:
    flush(disk, paths)
    write_state(disk, folder, state)
