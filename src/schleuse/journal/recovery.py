"""Starting: is the disk what we left, and what did the last process make durable (journal.md § 12.3)?

First everything is read and judged; only a disk without findings is changed (torn tail erased, files cut and
rebuilt). With findings the journal opens in QUARANTINE: it can be read, takes no entry and signs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from schleuse.errors import Error, MalformedError
from schleuse.journal.admission import MAX_CLOCK_DIFFERENCE_US
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.contracts import BeyondSizeError, QuarantinedError
from schleuse.journal.disk import Disk, OsDisk
from schleuse.journal.entry import Kind
from schleuse.journal.frame import (
    CONTROL,
    BadFrameError,
    Control,
    CosignatureLines,
    MinimumIndex,
    NewLog,
    SignedCheckpoint,
    parse_control,
    records,
)
from schleuse.journal.hashing import HASH_SIZE, NODE_PREFIX, leaf_hashes
from schleuse.journal.housekeeping import NOTE
from schleuse.journal.levels import Files
from schleuse.journal.log import Log, Recent, Signed
from schleuse.journal.note import NoteRefusedError, parse_note
from schleuse.journal.policy import Policy
from schleuse.journal.state import NAME as STATE
from schleuse.journal.state import BadStateError, LogState, State, read_state
from schleuse.journal.store import LOGS_FOLDER, WAL_FOLDER, Journal, Settings
from schleuse.journal.tiles import WIDTH
from schleuse.journal.tree import root_at
from schleuse.journal.wal import Frame, Position, Wal, Walk, segment_name

_PIECE = 65_536  #: entries or hashes checked at a time


def open_journal(
    settings: Settings,
    *,
    disk: Disk | None = None,
    verify: bool = True,
    on_failure: Callable[[], None] = lambda: None,
) -> Journal:
    """The journal in this folder, made if it is not there. Look at its `findings`: any means QUARANTINE.

    verify: read all entries and hashes again and compare them; about 500,000 entries a second.
    on_failure: called once when the disk fails; the process should end. Raises OSError.
    """
    disk = disk or OsDisk()
    for folder in (settings.folder, settings.folder / WAL_FOLDER, settings.folder / LOGS_FOLDER):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    opening = _Opening(settings, disk)
    opening.read(verify=verify)
    if not opening.findings:
        opening.rebuild()
    if opening.findings:
        opening.show()
    wal = Wal(
        settings.folder / WAL_FOLDER,
        disk,
        opening.walk.end,
        segment_size=settings.segment_size,
        spares=settings.spares,
    )
    if not opening.findings:
        wal.start()
    journal = Journal(
        settings,
        disk,
        opening.files,
        wal,
        list(opening.logs.values()),
        opening.recent,
        ThreadPoolExecutor(1, "journal-flush"),
        oldest=opening.state.oldest,
        started={log.number: log.started for log in opening.state.logs},
        findings=tuple(opening.findings),
        on_failure=on_failure,
    )
    opening.serve(journal)
    return journal


def new_log(settings: Settings, files: Files, number: int, origin: str) -> Log:
    """A log with its folder. Raises OSError."""
    folder = settings.folder / LOGS_FOLDER / f"{number:05}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return Log(number, origin, folder, files, settings.segment_entries)


class _Opening:
    """One start, in the order of § 12.3."""

    def __init__(self, settings: Settings, disk: Disk) -> None:
        self.files = Files(disk)
        self.findings: list[str] = []
        self.logs: dict[int, Log] = {}
        self.recent = Recent(settings.window)
        self.state = State()
        self._settings = settings
        self._disk = disk
        self._frames: list[Frame] = []
        self._lines: list[CosignatureLines] = []
        self._differences: dict[int, list[str]] = {}
        self.walk = Walk(settings.folder / WAL_FOLDER, disk, Position(), segment_size=settings.segment_size)

    def read(self, *, verify: bool) -> None:
        """Judge what is there; changes nothing."""
        try:
            self.state = read_state(self._settings.folder)
        except BadStateError as error:
            self.findings.append(str(error))
            return
        self.walk = Walk(
            self._settings.folder / WAL_FOLDER, self._disk, self.state.oldest, segment_size=self._settings.segment_size
        )
        self._frames = list(self.walk.frames())
        if self.walk.findings and self.state == State():
            self.findings.append(f"{STATE}: is not there, or that of a new journal")
        self.findings += self.walk.findings
        if self.walk.end.batch < self.state.applied.batch:
            self.findings.append(
                f"write-ahead log: {segment_name(self.walk.end.segment)} ends before frame {self.walk.end.batch}, but "
                f"{self.state.applied.batch} were applied"
            )
        minima = self._minima()
        for one in self.state.logs:
            log = self.logs[one.number] = new_log(self._settings, self.files, one.number, one.origin)
            log.minimum = max(one.minimum, minima.get(one.number, 0))
            self._remember_notes(log, one)
            if verify:
                self._differences[one.number] = list(_differences(log, one))
                self.findings += self._differences[one.number]

    def _minima(self) -> dict[int, int]:
        """Entries that were deleted after the state was written are not missing."""
        minima: dict[int, int] = {}
        for frame in self._frames:
            for number, record in records(frame.body, frame.head.count):
                if number == CONTROL and isinstance(control := parse_control(record), MinimumIndex):
                    minima[control.number] = max(control.index, minima.get(control.number, 0))
        return minima

    def rebuild(self) -> None:
        """Erase a torn tail, cut the files to the state, and apply the frames behind it. Raises OSError."""
        self.walk.erase_torn()
        for one in self.state.logs:
            try:
                self.logs[one.number].begin_at(one.size)
            except (BeyondSizeError, Error) as error:
                self.findings.append(str(error))
        if self.findings:
            return
        try:
            self._replay()
        except (BadFrameError, KeyError, MalformedError) as error:
            self.findings.append(f"write-ahead log: {error}")
            return
        for log in self.logs.values():
            log.write()
            log.next = log.size = log.frontier.size
            log.closed = _is_closed(log)
            if log.minimum:  # frames may have brought deleted entries back
                log.entries.erase_below(log.minimum)
            self.findings += self._contradictions(log)
        self.findings += self._unknown_logs()

    def show(self) -> None:
        """In QUARANTINE each log shows the tree of the newest checkpoint that its files confirm, or nothing."""
        for log in self.logs.values():
            damage = self._differences.get(log.number) or self._shown(log)
            if damage:
                log.damage = QuarantinedError(tuple(damage))

    def _shown(self, log: Log) -> list[str]:
        sizes = sorted(log.notes, reverse=True)
        for size in sizes:
            try:
                if root_at(size, log.tree) == log.notes[size].checkpoint.root:
                    log.show(size)
                    return []
            except BeyondSizeError:
                continue
        return [f"{log.origin}: the disk has none of the {len(sizes)} trees that were signed last"]

    def serve(self, journal: Journal) -> None:
        """Cosignature lines join their notes, and the newest note that satisfies the policy is served again."""
        for log in self.logs.values():
            for signed in list(log.notes.values()):
                journal.publisher.serve(log, signed)
        for record in self._lines:
            journal.publisher.merge(self.logs[record.number], record)

    def _replay(self) -> None:
        sizes = {one.number: one.started for one in self.state.logs}
        for number, size in sizes.items():
            self._remember(self.logs[number], size)
        waiting: dict[int, list[bytes]] = {}
        for frame in self._frames:
            applied = frame.position.batch < self.state.applied.batch
            for number, record in records(frame.body, frame.head.count):
                if number == CONTROL:
                    self._apply_control(parse_control(record), waiting, applied=applied)
                    continue
                log = self.logs[number]
                index = sizes.get(number, 0)
                sizes[number] = index + 1
                self.recent.add(log.key + record[16:32], index)
                if not applied:
                    waiting.setdefault(number, []).append(record)
            if sum(map(len, waiting.values())) >= _PIECE:
                self._grow(waiting)
        self._grow(waiting)
        self._frames = []

    def _remember(self, log: Log, end: int) -> None:
        """Events before `end`, where the frames that are kept begin: their segment may have been given up a moment ago,
        and whoever heard no answer sends them again as long as their time is admitted (§ 4)."""
        told = [now for now in (self._settings.now_us(), self._believed()) if now is not None]
        # Those before an entry of this time were admitted when nothing was that is admitted now: 120 s each for the
        # entry that comes again, for its first time, and for the one that ends the search.
        since = min(told) - 3 * MAX_CLOCK_DIFFERENCE_US
        found: list[tuple[bytes, int]] = []
        while log.minimum < end and len(found) < self._settings.window:
            start = max((end - 1) // WIDTH * WIDTH, log.minimum)
            try:
                entries = list(log.entries.read(start, end))
            except BeyondSizeError:
                break
            found += [(log.key + entry[16:32], start + place) for place, entry in reversed(list(enumerate(entries)))]
            if max(int.from_bytes(entry[8:16]) for entry in entries) < since:
                break
            end = start
        for key, index in reversed(found):
            self.recent.add(key, index)

    def _believed(self) -> int | None:
        return self._settings.believed_us() if self._settings.believed_us is not None else None

    def _grow(self, waiting: dict[int, list[bytes]]) -> None:
        for number, entries in waiting.items():
            self.logs[number].grow(entries)
            self.logs[number].write()
        waiting.clear()

    def _apply_control(self, record: Control, waiting: dict[int, list[bytes]], *, applied: bool) -> None:
        match record:
            case NewLog(number, origin):
                if number not in self.logs:
                    log = self.logs[number] = new_log(self._settings, self.files, number, origin)
                    log.begin_at(0)
            case SignedCheckpoint(number, note):
                parsed = parse_note(note)
                signed = Signed(parse_checkpoint(parsed.text), parsed)
                last = self.logs[number].signed
                if last is None or signed.checkpoint.size > last.checkpoint.size or not applied:
                    self.logs[number].remember(signed)
            case CosignatureLines():
                self._lines.append(record)
            case MinimumIndex(number, index):
                self.logs[number].minimum = max(index, self.logs[number].minimum)

    def _remember_notes(self, log: Log, one: LogState) -> None:
        for text in (one.served, one.signed):
            if text:
                note = parse_note(text.encode())
                log.remember(Signed(parse_checkpoint(note.text), note))

    def _contradictions(self, log: Log) -> Iterator[str]:
        """What we signed must be what we have: as large at least, and the same root at that size (§ 12.3)."""
        for source, checkpoint in self._signed_checkpoints(log):
            yield from contradictions(log, checkpoint, source)

    def _unknown_logs(self) -> Iterator[str]:
        """A note is served only after its log's record was durable; without the record the log's beginning is gone."""
        known = {log.folder.name for log in self.logs.values()}
        for folder in sorted((self._settings.folder / LOGS_FOLDER).iterdir()):
            if folder.name not in known and (folder / NOTE).exists() and (folder / NOTE).stat().st_size:
                yield f"{LOGS_FOLDER}/{folder.name}/{NOTE}: is of a log that the write-ahead log does not know"

    def _signed_checkpoints(self, log: Log) -> Iterator[tuple[str, Checkpoint]]:
        if log.signed is not None:
            yield "the newest signed checkpoint", log.signed.checkpoint
        try:
            data = (log.folder / NOTE).read_bytes()
        except FileNotFoundError:
            return
        if not data:  # a power cut between its rename and its content
            return
        where = f"{LOGS_FOLDER}/{log.folder.name}/{NOTE}"
        try:
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
        except MalformedError as error:
            self.findings.append(f"{where}: {error}")
            return
        if checkpoint.origin != log.origin:
            self.findings.append(f"{where}: is of {checkpoint.origin}, expected {log.origin}")
            return
        log.found = Signed(checkpoint, note)
        yield where, checkpoint


def _is_closed(log: Log) -> bool:
    """Whether the log's last entry closes it (§ 17)."""
    if log.size <= log.minimum:
        return False
    return next(log.entries.read(log.size - 1, log.size))[4:5] == bytes([Kind.SHARD_CLOSED])


def contradictions(log: Log, checkpoint: Checkpoint, source: str) -> Iterator[str]:
    """Why a checkpoint that somebody holds shows that this log was cut or changed; nothing if it does not."""
    size = log.frontier.size
    if checkpoint.size > size:
        yield f"{log.origin}: {source} has size {checkpoint.size}, the disk has {size} entries; the end is missing"
    elif root_at(checkpoint.size, log.tree) != checkpoint.root:
        yield f"{log.origin}: {source} has another root at size {checkpoint.size} than the disk"


def altered_notes(journal: Journal, policies: Mapping[str, Policy]) -> list[str]:
    """Served notes on disk whose signatures are not those that were made: their text alone was judged at the start.

    policies: by origin. Lines that are not remembered any more (`publish.thinned`) count if their witness made them.
    """
    return [finding for one in journal.logs() if one.origin in policies for finding in _altered(one, policies)]


def _altered(log: Log, policies: Mapping[str, Policy]) -> Iterator[str]:
    if log.found is None or (ours := log.notes.get(log.found.checkpoint.size)) is None:  # none, or of long ago
        return
    note, where = log.found.note, f"{LOGS_FOLDER}/{log.folder.name}/{NOTE}"
    try:
        true = [line for _, line in policies[log.origin].witness_lines(note)]
    except NoteRefusedError as error:
        yield f"{where}: {error}"
        return
    if any(line not in true and line not in ours.note.lines for line in note.lines):
        yield f"{where}: has a signature that neither this log nor a witness of it made"


def _differences(log: Log, one: LogState) -> Iterator[str]:
    """Compare entries with leaf hashes and each level with the one above, up to the state's size."""
    where = LOGS_FOLDER
    try:
        start = log.minimum
        while start < one.size:
            stop = min((start // _PIECE + 1) * _PIECE, one.size)  # whole segments, each followed from its beginning
            expected = log.tree.hashes_on_disk(0, start, stop - start)
            found = leaf_hashes(log.entries.read_checked(start, stop))
            if b"".join(found) != expected:
                index = start + _first_difference(found, expected)
                yield f"{where}/{log.entries.name(index)}: entry {index} does not match its hash in {log.tree.name(0)}"
                return
            start = stop
        for level in range(one.size.bit_length() - 1):
            yield from _level_differences(log, one.size, level)
    except BeyondSizeError as error:
        yield f"{where}: {error}"


def _level_differences(log: Log, size: int, level: int) -> Iterator[str]:
    above = size >> (level + 1)
    for start in range(0, above, _PIECE):
        count = min(_PIECE, above - start)
        below = log.tree.hashes_on_disk(level, 2 * start, 2 * count)
        expected = log.tree.hashes_on_disk(level + 1, start, count)
        found = [
            sha256(NODE_PREFIX + below[at : at + 2 * HASH_SIZE]).digest() for at in range(0, len(below), 2 * HASH_SIZE)
        ]
        if b"".join(found) != expected:
            index = start + _first_difference(found, expected)
            yield (
                f"{LOGS_FOLDER}/{log.tree.name(level + 1)}: hash {index} does not follow from {log.tree.name(level)}"
            )
            return


def _first_difference(found: list[bytes], expected: bytes) -> int:
    return next(
        (at for at, value in enumerate(found) if expected[HASH_SIZE * at : HASH_SIZE * (at + 1)] != value), len(found)
    )
