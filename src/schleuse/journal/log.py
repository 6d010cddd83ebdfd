"""One log in memory: what waits, what is durable, what is hashed, what is signed and served (journal.md § 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from schleuse.errors import Error
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.hashing import leaf_hashes
from schleuse.journal.levels import EntryFiles, Files, TreeFiles
from schleuse.journal.note import LogSigner, Note
from schleuse.journal.policy import Policy
from schleuse.journal.tree import Frontier

#: Signed notes kept per log for cosignatures that come late; older sizes are answered with 404.
KEPT_NOTES = 64


class Sink(Protocol):
    """Whoever waits for entries: futures of this process, or a connection. Called once for all of a group."""

    def resolve(self, tokens: Sequence[Any], indexes: Sequence[int]) -> None:
        """The entries of these tokens are durable now, each at its index."""
        ...

    def reject(self, tokens: Sequence[Any], error: Error) -> None:
        """These did not become durable, or nobody knows whether they did."""
        ...


@dataclass(frozen=True, slots=True)
class LogConfig:
    """One log as the configuration names it: who signs, and what makes a checkpoint WITNESSED (§ 10).

    signer: None for a closed shard whose key was destroyed (§ 17); it is served, and grows no more.
    """

    origin: str
    signer: LogSigner | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and its note, both durable."""

    checkpoint: Checkpoint
    note: Note


class Log:
    """State of one log. Changed by the journal's own loop only.

    next: index of the next entry to arrive. size: durable entries. The tree may lag behind by one group.
    pending: entries that wait, sinks, tokens: who is told of each; three lists, because every entry passes here.
    damage: in QUARANTINE, why its hashes cannot be shown.
    found: the served note as the start found it in its file; it is written anew as soon as one is served.
    closed: its last entry says so, or nobody can sign for it, or its first is not written yet; it takes no other.
    """

    def __init__(self, number: int, origin: str, folder: Path, files: Files, segment_entries: int) -> None:
        self.number = number
        self.origin = origin
        self.folder = folder
        self.key = number.to_bytes(2)
        self.next = self.size = self.minimum = 0
        self.tree = TreeFiles(folder, files)
        self.entries = EntryFiles(folder, files, segment_entries)
        self.frontier = Frontier()
        self.pending: list[bytes] = []
        self.sinks: list[Sink] = []
        self.tokens: list[Any] = []
        self.repeats: list[tuple[int, Sink, Any]] = []
        self.signing = self.closed = False
        self.damage: Error | None = None
        self.signed: Signed | None = None
        self.served: Signed | None = None
        self.found: Signed | None = None
        self.notes: dict[int, Signed] = {}

    def begin_at(self, size: int) -> None:
        """Continue from what the files hold at this size; cuts what is behind it. Raises OSError, BeyondSizeError."""
        self.tree.begin_at(size)
        self.entries.begin_at(size)
        self.frontier = Frontier.of(size, self.tree)
        self.next = self.size = size

    def show(self, size: int) -> None:
        """What the files hold at this size, to be read in QUARANTINE; changes nothing. Raises BeyondSizeError."""
        self.tree.show(size)
        self.entries.show(size)
        self.frontier = Frontier.of(size, self.tree)
        self.next = self.size = size

    def grow(self, entries: Sequence[bytes]) -> None:
        """Hash durable entries into the tree; off the latency path (§ 12.2)."""
        self.tree.add(self.frontier.extend(leaf_hashes(entries)))
        self.entries.add(entries)

    def write(self) -> None:
        """Append to the files what waits. Raises OSError."""
        self.tree.write()
        self.entries.write()

    def remember(self, signed: Signed) -> None:
        """Keep a durable signed note, the newest of them as `signed`."""
        self.signed = signed
        self.notes[signed.checkpoint.size] = signed
        while len(self.notes) > KEPT_NOTES:
            del self.notes[next(iter(self.notes))]


class Recent:
    """Where the events of the last entries stand (deduplication, § 4). Two generations, so that forgetting is cheap.

    window: at least that many events are remembered, at most twice as many (about 200 bytes each).
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._new: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def get(self, key: bytes) -> int | None:
        """Index of the entry with this log and event, if it is remembered."""
        index = self._new.get(key)
        return index if index is not None or not self._old else self._old.get(key)

    def claim(self, key: bytes, index: int) -> int | None:
        """As `get`; what is not remembered is from now on, with this index, which no entry of the log has yet."""
        if self._old and (earlier := self._old.get(key)) is not None:
            return earlier
        new = self._new
        if (earlier := new.setdefault(key, index)) != index:
            return earlier
        if len(new) >= self._window:
            self._old, self._new = new, {}
        return None

    def add(self, key: bytes, index: int) -> None:
        """Remember an entry."""
        self._new[key] = index
        if len(self._new) >= self._window:
            self._old, self._new = self._new, {}

    def drop(self, key: bytes) -> None:
        """Forget an entry that did not become durable."""
        self._new.pop(key, None)
        self._old.pop(key, None)
