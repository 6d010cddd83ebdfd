"""Sign what is durable, serve what is signed durably, and tell who waits for it (journal.md § 12.4, § 12.5, § 9.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from schleuse.errors import Error
from schleuse.journal.checkpoint import Checkpoint, check_signable, parse_checkpoint
from schleuse.journal.contracts import BeyondSizeError, Level, LevelTimeoutError
from schleuse.journal.cosignature import time_of
from schleuse.journal.frame import Control, CosignatureLines, SignedCheckpoint
from schleuse.journal.log import Log, LogConfig, Signed
from schleuse.journal.note import Note, NoteRefusedError, SignatureLine, parse_lines, parse_note
from schleuse.journal.policy import Policy

#: How long an append waits for PUBLISHED or WITNESSED before its writer must decide.
LEVEL_TIMEOUT_S = 15.0


class Publisher:
    """Signs and serves the checkpoints of all logs. Runs in the journal's loop.

    control: writes a control record and calls back when it is durable. served: called with a log when what its
    `/checkpoint` serves has changed; signed: when it has a new note for witnesses.
    """

    def __init__(
        self,
        configs: Mapping[str, LogConfig],
        control: Callable[[Control, Callable[[], None]], None],
        served: Callable[[Log], None] = lambda log: None,
    ) -> None:
        self.signed: list[Callable[[Log], None]] = []
        self._configs = dict(configs)
        self._control = control
        self._served = served
        self._waits: dict[int, list[tuple[int, Level, asyncio.Future[None]]]] = {}
        self._merging: set[asyncio.Future[None]] = set()
        self._refusal: Error | None = None

    def configure(self, config: LogConfig) -> None:
        """From now on this log is signed and judged so."""
        self._configs[config.origin] = config

    def is_configured(self, origin: str) -> bool:
        """Whether somebody has said how this log is signed and judged."""
        return origin in self._configs

    def publish(self, log: Log) -> None:
        """Sign the log's size if it has grown. The note goes nowhere before it is durable.

        Raises NotSignableError, which no restart cures.
        """
        config = self._configs.get(log.origin)
        size = log.frontier.size
        last = log.signed.checkpoint if log.signed else None
        if (
            config is None
            or config.signer is None
            or log.signing
            or size == 0
            or (last is not None and last.size == size)
        ):
            return
        checkpoint = Checkpoint(log.origin, size, log.frontier.root())
        check_signable(checkpoint, last=last, durable_size=log.size)
        signed = Signed(checkpoint, checkpoint.signed_by(config.signer))
        log.signing = True
        self._control(SignedCheckpoint(log.number, signed.note.encode()), lambda: self._is_signed(log, signed))

    async def wait(self, log: Log, size: int, level: Level, timeout_s: float = LEVEL_TIMEOUT_S) -> None:
        """Return when `size` entries have reached the level. Raises LevelTimeoutError, or why the journal stopped."""
        if reached(log, level) >= size:
            return
        if self._refusal is not None:
            raise self._refusal
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits.setdefault(log.number, []).append((size, level, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError as cause:
            raise LevelTimeoutError(
                f"{log.origin} did not reach {level.name} for {size} entries within {timeout_s:g} s"
            ) from cause

    async def add_cosignature(self, log: Log, data: bytes) -> None:
        """Merge the lines that known witnesses added to a checkpoint of ours; returns when they are durable.

        Raises MalformedError; BeyondSizeError for a size that we signed too long ago or never; NoteRefusedError if no
        line is of a known witness, one of them is false, or the text is not what we signed.
        """
        note = parse_note(data)
        size = parse_checkpoint(note.text).size
        ours = log.notes.get(size)
        if ours is None:
            raise BeyondSizeError(f"{log.origin} keeps no signed checkpoint of size {size}")
        if ours.note.text != note.text:
            raise NoteRefusedError(f"size {size} of {log.origin} was not signed with this text")
        config = self._configs.get(log.origin)
        lines = () if config is None else _witness_lines(config.policy, note)
        if not lines:
            raise NoteRefusedError("no line is of a witness that the policy names")
        new = [line for line in lines if line not in ours.note.lines]
        if not new:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._merging.add(future)
        future.add_done_callback(self._merging.discard)
        record = CosignatureLines(log.number, size, "".join(map(str, new)).encode())

        def durable() -> None:
            self.merge(log, record)
            if not future.done():
                future.set_result(None)

        self._control(record, durable)
        await future

    def merge(self, log: Log, record: CosignatureLines) -> None:
        """Durable cosignature lines join their note. Raises MalformedError only for a record that we did not write."""
        ours = log.notes.get(record.size)
        if ours is None:
            return
        merged = Signed(ours.checkpoint, thinned(ours.note.with_lines(parse_lines(record.lines.decode()))))
        log.notes[record.size] = merged
        if log.signed is ours:
            log.signed = merged
        self.serve(log, merged)

    def serve(self, log: Log, signed: Signed) -> None:
        """Serve this note if it satisfies the policy and nothing larger is served."""
        config = self._configs.get(log.origin)
        if config is None or (log.served and log.served.checkpoint.size > signed.checkpoint.size):
            return
        if config.policy.is_satisfied(config.policy.cosigned(signed.note)):
            log.served = signed
            self._served(log)
            self._wake(log)

    def stop(self, error: Error) -> None:
        """Nothing will be signed any more."""
        self._refusal = error
        for waits in self._waits.values():
            for _, _, future in waits:
                if not future.done():
                    future.set_exception(error)
        for merging in list(self._merging):
            if not merging.done():
                merging.set_exception(error)
        self._waits.clear()

    def _is_signed(self, log: Log, signed: Signed) -> None:
        log.signing = False
        log.remember(signed)
        self.serve(log, signed)
        self._wake(log)
        for tell in self.signed:
            tell(log)

    def _wake(self, log: Log) -> None:
        waiting = self._waits.pop(log.number, [])
        for size, level, future in waiting:
            if reached(log, level) < size:
                self._waits.setdefault(log.number, []).append((size, level, future))
            elif not future.done():
                future.set_result(None)


def reached(log: Log, level: Level) -> int:
    """How many entries of the log have come so far."""
    match level:
        case Level.DURABLE:
            return log.size
        case Level.PUBLISHED:
            return log.signed.checkpoint.size if log.signed else 0
        case Level.WITNESSED:
            return log.served.checkpoint.size if log.served else 0


def thinned(note: Note) -> Note:
    """The same note with the first and the last line of each cosigner: who came when, and who still watches.

    A log that rests is cosigned again and again, every few minutes by each witness, and a note that grew for ever
    could not be read by anybody after some hours (`note.MAX_LINES`).
    """
    of_key: dict[tuple[str, bytes], list[SignatureLine]] = {}
    for line in note.lines:
        of_key.setdefault((line.name, line.key_id), []).append(line)
    kept: set[SignatureLine] = set()
    for lines in of_key.values():
        if len(lines) <= 2:
            kept.update(lines)
        else:
            by_time = sorted(lines, key=lambda line: time_of(line.signature))
            kept.update((by_time[0], by_time[-1]))
    return Note(note.text, tuple(line for line in note.lines if line in kept))


def _witness_lines(policy: Policy, note: Note) -> tuple[SignatureLine, ...]:
    """The note's lines of the policy's witnesses, all valid. Raises NoteRefusedError."""
    policy.cosigned(note)
    known = {(key.key.name, key.key.id) for key in policy.witness_keys}
    return tuple(line for line in note.lines if (line.name, line.key_id) in known)
