"""The journal: the only writer of all logs, one flush for every group of entries (journal.md § 12.2, § 13).

An entry waits in its log's list; the committer takes everything that waits into one frame, writes and flushes it,
and only then anyone is told an index. Hashing comes after the answer. Nothing is retried that failed: the process
ends, and starting again finds out what is durable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schleuse.errors import Error
from schleuse.journal.admission import InvalidEntryError, admit, share_request
from schleuse.journal.contracts import (
    BeyondSizeError,
    EventReusedError,
    JournalBusyError,
    JournalFullError,
    JournalUnavailableError,
    Level,
    QuarantinedError,
    Receipt,
    ShardClosedError,
    UnknownLogError,
)
from schleuse.journal.disk import Disk
from schleuse.journal.frame import CONTROL, Control, MinimumIndex, NewLog, pack_control, pack_records
from schleuse.journal.housekeeping import Housekeeping
from schleuse.journal.levels import SEGMENT_ENTRIES, Files, flush
from schleuse.journal.log import Log, LogConfig, Recent, Sink
from schleuse.journal.publish import Publisher
from schleuse.journal.reading import Reading
from schleuse.journal.waiting import FUTURES, Many
from schleuse.journal.wal import SEGMENT_SIZE, Position, Wal

MAX_PENDING = 50_000  #: entries; § 12.3
MAX_PENDING_BYTES = 16 << 20
_DURABLE = Level.DURABLE  #: to look a member of an enumeration up takes longer than to compare it
#: A flush that takes longer runs in a thread, so that the loop goes on taking entries (§ 12.2).
SLOW_FLUSH_S = 0.0005
WAL_FOLDER, LOGS_FOLDER = "wal", "logs"

#: Gives S_journal for (origin, subject, key version); journal.md § 14.1.
Share = Callable[[str, bytes, int], bytes]


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one journal. inline: True flushes in the loop, False in a thread, None decides by how long flushes take.

    window: events remembered against repetition. now_us: microseconds since 1970. believed_us: the same, as the journal
    counts it while our clock is not believed, else None; a writer whose clock is right is not refused for ours.
    """

    folder: Path
    logs: tuple[LogConfig, ...]
    now_us: Callable[[], int]
    segment_size: int = SEGMENT_SIZE
    segment_entries: int = SEGMENT_ENTRIES
    spares: int = 4
    window: int = 262_144
    inline: bool | None = None
    share: Share | None = None
    believed_us: Callable[[], int | None] | None = None


#: Of each log: index of the first entry, the entries, and for each who is told and with which token.
Group = list[tuple[Log, int, list[bytes], list[Sink], list[Any]]]
#: Tokens and indexes for each who is told.
Told = dict[Sink, tuple[list[Any], list[int]]]
Controls = list[tuple[Control, Callable[[], None]]]


class Journal(Reading):
    """In-process interface of § 13; `client.JournalClient` offers the same appends over the socket.

    Made by `recovery.open_journal`, runs in one event loop. on_failure: told once, when nothing more can be written.
    """

    def __init__(
        self,
        settings: Settings,
        disk: Disk,
        files: Files,
        wal: Wal,
        logs: Sequence[Log],
        recent: Recent,
        executor: Executor,
        *,
        oldest: Position,
        started: dict[int, int],
        findings: tuple[str, ...] = (),
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(logs)
        self._settings = settings
        self._now_us = settings.now_us
        self._disk = disk
        self._files = files
        self._wal = wal
        self._executor = executor
        self._on_failure = on_failure
        self._recent = recent
        self.keeping = Housekeeping(
            disk, files, wal, settings.folder, self._by_number, oldest, started, lambda cause: self._fail([], cause)
        )
        #: Wired by the role: the log that takes entries about another one now, and what is wrong with our clock.
        self.instead: Callable[[str], str] = lambda origin: origin
        self.clock_finding: Callable[[], str | None] = lambda: None
        self._refusal: Error | None = QuarantinedError(findings) if findings else None
        self.findings = findings
        self._active: list[Log] = []
        self._controls: Controls = []
        self._count = self._bytes = 0
        self._busy = False
        self._flush_s = 0.0
        self._flying: Group = []
        configured = {config.origin: config for config in settings.logs}
        self.publisher = Publisher(configured, self.control, self._keep_note)

    # -- writing -------------------------------------------------------------------------------------------------

    async def append(self, origin: str, entry: bytes, level: Level = Level.DURABLE) -> Receipt:
        """Write one entry and return when it has reached the level.

        Raises InvalidEntryError, EventReusedError, UnknownLogError, JournalUnavailableError, JournalBusyError,
        JournalFullError, QuarantinedError, LevelTimeoutError. After a cancellation the entry may be durable: repeat
        it with the same bytes.
        """
        if self._refusal is not None:  # said before anything about logs: a journal in QUARANTINE may know none
            raise self._refusal
        log = self._by_origin.get(origin) or self.log(origin)
        future: asyncio.Future[int] = asyncio.Future()
        self.submit(log, entry, FUTURES, future)
        index = await future
        if level is not _DURABLE:
            await self.publisher.wait(log, index + 1, level)
        share = None
        if self._settings.share is not None and (asked := share_request(entry)) is not None:
            share = self._settings.share(origin, *asked)
        return Receipt(origin, index, entry, log.size, share)

    async def append_many(self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE) -> Sequence[int]:
        """Write entries together and return their indexes, a range unless some were written before.

        Raises as `append`; for an entry that is not taken before any is written, except for Busy.
        """
        log, now = self._writable(origin), self._settings.now_us()
        if not entries:
            return range(log.size, log.size)
        for entry in entries:
            if self._recent.get(log.key + entry[16:32]) is None:
                if log.closed:
                    raise _closed(log)
                try:
                    admit(entry, now)
                except InvalidEntryError as refusal:
                    self._admit_counted(entry, refusal)
        self._check_room(len(entries))
        many = Many(len(entries))
        for place, entry in enumerate(entries):
            key = log.key + entry[16:32]
            if (index := self._recent.get(key)) is not None:
                self._repeat(log, index, entry, many, place)
            else:
                self._recent.add(key, log.next)
                self._put(log, entry, many, place)
        indexes = await many.future
        if level > Level.DURABLE:
            await self.publisher.wait(log, max(indexes) + 1, level)
        whole = range(indexes[0], indexes[0] + len(indexes))
        return whole if list(whole) == indexes else indexes

    def taking(self, origin: str) -> Log:
        """The log with this name if it takes entries, else the one that takes them instead.

        One that nobody has configured takes none. Raises UnknownLogError, QuarantinedError.
        """
        if self._refusal is not None:  # said before anything about logs: a journal in QUARANTINE may know none
            raise self._refusal
        named = self._by_origin.get(origin) if self.publisher.is_configured(origin) else None
        return named if named is not None and not named.closed else self.log(self.instead(origin))

    async def wait(self, origin: str, size: int, level: Level, timeout_s: float) -> None:
        """Return when `size` entries of the log have reached the level. Raises LevelTimeoutError, UnknownLogError."""
        await self.publisher.wait(self.log(origin), size, level, timeout_s)

    def submit(self, log: Log, entry: bytes, sink: Sink, token: Any) -> None:
        """Let `sink` be told when the entry is durable. Raises at once what `append` raises.

        Every entry passes here, mostly alone; what it calls on the way is counted in microseconds of its rate.
        """
        if self._refusal is not None:
            raise self._refusal
        key = log.key + entry[16:32]
        if (index := self._recent.claim(key, log.next)) is not None:
            self._repeat(log, index, entry, sink, token)
            return
        try:
            if log.closed:
                raise _closed(log)
            try:
                admit(entry, self._now_us())
            except InvalidEntryError as refusal:
                self._admit_counted(entry, refusal)
            if self.keeping.full is not None or self._count >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES:
                self._check_room(1)
        except BaseException:
            self._recent.drop(key)
            raise
        self._put(log, entry, sink, token)

    def _admit_counted(self, entry: bytes, refusal: InvalidEntryError) -> None:
        """What our clock does not admit, by the time that we count (decision 0023). Raises InvalidEntryError."""
        counted = self._settings.believed_us() if self._settings.believed_us is not None else None
        if counted is None:
            raise refusal
        admit(entry, counted)

    def _writable(self, origin: str) -> Log:
        if self._refusal is not None:  # said before anything about logs: a journal in QUARANTINE may know none
            raise self._refusal
        return self.log(origin)

    def _check_room(self, count: int) -> None:
        if self._refusal is not None:
            raise self._refusal
        if self.keeping.full is not None:
            raise self.keeping.full
        if self._count + count > MAX_PENDING or self._bytes >= MAX_PENDING_BYTES:
            raise JournalBusyError(f"{self._count} entries wait for the disk; try the same event again in a second")

    def _put(self, log: Log, entry: bytes, sink: Sink, token: Any) -> None:
        log.next += 1
        if not log.pending:
            self._active.append(log)
        log.pending.append(entry)
        log.sinks.append(sink)
        log.tokens.append(token)
        self._count += 1
        self._bytes += len(entry)
        if not self._busy:
            self._wake()

    def control(self, record: Control, done: Callable[[], None]) -> None:
        """Write a control record through the normal commit path; `done` is called when it is durable."""
        if self._refusal is None:
            self._controls.append((record, done))
            self._wake()

    def open_log(self, origin: str) -> Log:
        """A new log under the next number; its record stands in the log before any of its entries."""
        from schleuse.journal.recovery import new_log

        number = max(self._by_number, default=-1) + 1
        log = new_log(self._settings, self._files, number, origin)
        log.begin_at(0)
        self._by_origin[origin] = self._by_number[number] = log
        self.keeping.begin_log(number)
        self.control(NewLog(number, origin), lambda: None)
        return log

    def configure(self, config: LogConfig) -> None:
        """Sign and judge this log so; a log without signer takes no entry. What satisfies its policy is served."""
        self.publisher.configure(config)
        log = self._by_origin.get(config.origin)
        if log is not None:
            log.closed = log.closed or config.signer is None
            for signed in list(log.notes.values()):
                self.publisher.serve(log, signed)

    async def begin_log(self, origin: str, entry: bytes) -> None:
        """Open a log with its first entry (§ 17); until that is durable it takes no other.

        Raises as `append`; then nothing was written, and the same call may be made again.
        """
        log = self._by_origin.get(origin) or self.open_log(origin)
        log.closed = False
        begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            self.submit(log, entry, FUTURES, begun)
        finally:
            log.closed = True
        await begun
        log.closed = False

    async def close_log(self, origin: str, entry: bytes) -> int:
        """Write the last entry of a shard (§ 17) and return its index; whatever comes after it is refused.

        Raises as `append`; then nothing was written, and the log is open still.
        """
        log = self._writable(origin)
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.submit(log, entry, FUTURES, written)
        log.closed = True  # in the same step of the loop: nothing comes in between
        try:
            return await written
        except Error:
            log.closed = False
            raise

    async def prune(self, origin: str, index: int) -> None:
        """Delete the entries below `index` for good (§ 17); every proof and every hash stays. Returns when it is done.

        The new minimum is durable before anything is deleted; after a crash in between, the next call with the same
        index finishes. Frames that hold the entries go when their segment is used again.
        Raises BeyondSizeError unless they are covered by a served checkpoint, OSError.
        """
        log = self._writable(origin)
        covered = log.served.checkpoint.size if log.served else 0
        if not log.minimum <= index <= covered:
            raise BeyondSizeError(f"{origin} can delete up to entry {covered}, not up to {index}")
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.control(MinimumIndex(log.number, index), lambda: recorded.set_result(None))
        await recorded
        log.minimum = index
        # A state behind the deletion: a start replays no entry that is to be gone.
        await self.save()
        self._writable(origin)
        flushed = log.entries.erase_below(index)
        await asyncio.to_thread(flush, self._disk, flushed)
        await asyncio.to_thread(self._disk.sync_directory, log.folder)

    def stop(self, findings: Sequence[str]) -> None:
        """Go into QUARANTINE: a witness knows better than our disk (§ 9.1, § 12.3). Takes no entry, signs nothing."""
        self.findings += tuple(findings)
        self._refuse(QuarantinedError(self.findings))

    # -- the commit path -----------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        """Take everything that waits into one frame. This is the group commit: no timer, no artificial delay."""
        if self._refusal is not None:
            return
        group, controls, body, count = self._take()
        segment = self._wal.position.segment
        if not self._wal.make_room(len(body)):
            self._give_back(group, JournalFullError("no segment of the write-ahead log is ready; the disk needs room"))
            self._controls = controls + self._controls
            self._busy = False
            self.keeping.want_room()
            return
        if self._wal.position.segment != segment:
            self.keeping.begin_segment()
        self._flying = group
        inline = self._settings.inline
        if inline or (inline is None and self._flush_s < SLOW_FLUSH_S):
            try:
                position = self._write(body, count)
            except OSError as cause:
                self._fail(group, cause)
                return
            self._committed(group, controls, position)
            return
        loop = asyncio.get_running_loop()
        flushed = loop.run_in_executor(self._executor, self._write, body, count)
        flushed.add_done_callback(lambda future: self._flushed(future, group, controls))

    def _flushed(self, future: asyncio.Future[Position], group: Group, controls: Controls) -> None:
        cause = asyncio.CancelledError() if future.cancelled() else future.exception()
        if cause is not None:
            self._fail(group, cause)
        else:
            self._committed(group, controls, future.result())

    def _write(self, body: bytes, count: int) -> Position:
        start = time.perf_counter()
        self._wal.write(body, count, self._settings.now_us())
        self._flush_s += (time.perf_counter() - start - self._flush_s) / 8
        return self._wal.position

    def _take(self) -> tuple[Group, Controls, bytes, int]:
        room = self._wal.largest_body
        parts: list[bytes] = []
        count = 0
        controls, self._controls = self._controls, []
        if controls:
            packed = [pack_control(record) for record, _ in controls]
            while sum(len(record) + 4 for record in packed) > room:
                self._controls.insert(0, controls.pop())
                packed.pop()
            parts.append(pack_records(CONTROL, packed))
            room -= len(parts[0])
            count = len(packed)
        group: Group = []
        whole = self._bytes + 4 * self._count <= room
        active, self._active = self._active, []
        for log in active:
            entries, sinks, tokens = log.pending, log.sinks, log.tokens
            taken = len(entries) if whole else _fitting(entries, room)
            log.pending, log.sinks, log.tokens = entries[taken:], sinks[taken:], tokens[taken:]
            if taken < len(entries):
                self._active.append(log)
                entries, sinks, tokens = entries[:taken], sinks[:taken], tokens[:taken]
            if not entries:
                continue
            group.append((log, log.size, entries, sinks, tokens))
            part = pack_records(log.number, entries)
            parts.append(part)
            room -= len(part)
            count += taken
            self._count -= taken
            self._bytes -= len(part) - 4 * taken
        return group, controls, b"".join(parts), count

    def _committed(self, group: Group, controls: Controls, position: Position) -> None:
        """Tell everybody, start the next group, and hash only then (§ 12.2, § 19)."""
        told: Told = {}
        for log, first, entries, sinks, tokens in group:
            log.size = first + len(entries)
            _answer(told, first, sinks, tokens)
            if log.repeats:
                self._answer_repeats(log, told)
        for sink, (done, indexes) in told.items():
            sink.resolve(done, indexes)
        if self._active or self._controls:
            asyncio.get_running_loop().call_soon(self._commit)
        else:
            self._busy = False
        for log, _, entries, _, _ in group:
            log.grow(entries)
            self.keeping.write_much(log)
        self._flying, self.keeping.applied = [], position
        for _, done_control in controls:
            done_control()

    def _repeat(self, log: Log, index: int, entry: bytes, sink: Sink, token: Any) -> None:
        """The same event again (§ 4): the earlier index for the same bytes, but not before that is durable."""
        if self._entry(log, index) != entry:
            raise EventReusedError(f"the event of this entry is that of entry {index} of {log.origin}")
        if index < log.size:
            sink.resolve([token], [index])
        else:
            log.repeats.append((index, sink, token))

    def _entry(self, log: Log, index: int) -> bytes:
        if index < log.frontier.size:
            return next(log.entries.read(index, index + 1))
        for other, first, entries, _, _ in self._flying:
            if other is log and index < first + len(entries):
                return entries[index - first]
        return log.pending[index - (log.next - len(log.pending))]

    def _answer_repeats(self, log: Log, told: Told) -> None:
        waiting, log.repeats = log.repeats, []
        for index, sink, token in waiting:
            if index < log.size:
                _tell(told, sink, token, index)
            else:
                log.repeats.append((index, sink, token))

    # -- failure -------------------------------------------------------------------------------------------------

    def _fail(self, group: Group, cause: BaseException) -> None:
        """A write or flush failed: nobody knows what is on the medium, and only a new start finds out (§ 12.3)."""
        reason = getattr(cause, "strerror", None) or type(cause).__name__
        error = JournalUnavailableError(
            f"the disk of the journal failed ({reason}); the journal ends, nothing is released"
        )
        self._reject(group, error)
        self._refuse(error)
        self._on_failure()

    def _refuse(self, error: Error) -> None:
        self._refusal = error
        self.publisher.stop(error)
        group: Group = [(log, log.size, log.pending, log.sinks, log.tokens) for log in self._active]
        for log in self._active:
            log.pending, log.sinks, log.tokens = [], [], []
        self._active = []
        self._reject(group, error)
        self._controls = []
        for log in self._by_number.values():
            for _, sink, token in log.repeats:
                sink.reject([token], error)
            log.repeats = []

    def _reject(self, group: Group, error: Error) -> None:
        for _, _, _, sinks, tokens in group:
            for sink, token in zip(sinks, tokens, strict=True):
                sink.reject([token], error)

    def _give_back(self, group: Group, error: Error) -> None:
        """Refuse all that waits, without any index having been used."""
        waiting: Group = [(log, 0, log.pending, log.sinks, log.tokens) for log in self._active]
        for log, _, entries, _, _ in group + waiting:
            for entry in entries:
                self._recent.drop(log.key + entry[16:32])
        for log in self._active:
            log.pending, log.sinks, log.tokens = [], [], []
        for log in {log.number: log for log, *_ in group + waiting}.values():
            log.next = log.size
            for _, sink, token in log.repeats:
                sink.reject([token], error)
            log.repeats = []
        self._active = []
        self._count = self._bytes = 0
        self._reject(group + waiting, error)

    # -- housekeeping --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a publish interval: write buffers, sign what has grown, make room. Never waits for the disk's flush."""
        if self._refusal is None and self.keeping.write():
            for log in self._by_number.values():
                self.publisher.publish(log)
            self.keeping.want_room()

    async def save(self) -> None:
        """Flush level files and entries, write `state`, give up segments before it (§ 12.3)."""
        await self.keeping.save()

    def _keep_note(self, log: Log) -> None:
        if self._refusal is None:
            self.keeping.keep_note(log)

    async def close(self) -> None:
        """Finish what waits, sign it, save the state. Never raises for a disk that fails now."""
        while self._busy and self._refusal is None:
            await asyncio.sleep(0)
        if self._refusal is None:
            self.tick()
            while self._busy and self._refusal is None:
                await asyncio.sleep(0)
        await self.keeping.idle()
        if self._refusal is None:
            await self.save()
        self._refuse(self._refusal or JournalUnavailableError("the journal is closed"))
        self._executor.shutdown(wait=True)
        self._wal.close()
        self._files.close()

    # -- witnesses and operators ----------------------------------------------------------------------------------

    async def add_cosignature(self, origin: str, note: bytes) -> None:
        """Merge lines of witnesses (§ 9.2). Raises MalformedError, NoteRefusedError, BeyondSizeError."""
        if self._refusal is not None:
            raise self._refusal
        await self.publisher.add_cosignature(self.log(origin), note)

    def health(self) -> dict[str, Any]:
        """Figures for operators: state, spare segments, what waits, and by log how far each level is behind."""
        return {
            "state": "QUARANTINE" if self.findings else "STOPPED" if self._refusal else "RUNNING",
            "findings": list(self.findings),
            "clock": self.clock_finding(),
            "spare_segments": self._wal.spare,
            "pending": self._count,
            "flush_ms": round(self._flush_s * 1000, 3),
            "full": None if self.keeping.full is None else str(self.keeping.full),
            "logs": {
                log.origin: {
                    "durable": log.size,
                    "published": log.signed.checkpoint.size if log.signed else 0,
                    "witnessed": log.served.checkpoint.size if log.served else 0,
                    "minimum": log.minimum,
                }
                for log in self._by_number.values()
            },
        }


def _closed(log: Log) -> Error:
    if log.size <= 1:  # even a log that was closed at once has its first and its last entry
        return UnknownLogError(f"{log.origin} is not open yet; its first entry is being written")
    return ShardClosedError(f"{log.origin} is closed; its year is over, entries belong to the log of the new one")


def _answer(told: Told, first: int, sinks: list[Sink], tokens: list[Any]) -> None:
    """Add what each sink is told about the entries from index `first` on."""
    if len(sinks) == 1:
        return _tell(told, sinks[0], tokens[0], first)
    if sinks.count(sinks[0]) == len(sinks):  # mostly all are of one connection, or of this process
        done, indexes = told.setdefault(sinks[0], ([], []))
        done += tokens
        indexes += range(first, first + len(tokens))
        return
    for index, (sink, token) in enumerate(zip(sinks, tokens, strict=True), first):
        _tell(told, sink, token, index)


def _tell(told: Told, sink: Sink, token: Any, index: int) -> None:
    done, indexes = told.setdefault(sink, ([], []))
    done.append(token)
    indexes.append(index)


def _fitting(entries: Sequence[bytes], room: int) -> int:
    """How many of the first entries fit into so many bytes of records."""
    for count, entry in enumerate(entries):
        room -= len(entry) + 4
        if room < 0:
            return count
    return len(entries)
