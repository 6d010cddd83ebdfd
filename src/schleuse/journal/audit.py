"""Checking a log from the outside with nothing but files (journal.md § 11, § 16).

A `Source` gives the files of a tlog-tiles directory, from disk or over HTTP; nothing in them is believed before it was
checked against the checkpoint.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schleuse.errors import MalformedError, UnavailableError
from schleuse.journal.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.entry import parse_entry
from schleuse.journal.note import Note, parse_note
from schleuse.journal.policy import Judged, Policy
from schleuse.journal.proof import consistency_proof, inclusion_path, is_consistent
from schleuse.journal.proof_file import ProofFile
from schleuse.journal.tile_reader import VerifiedTiles
from schleuse.journal.tiles import WIDTH, Bundle, Tile, bundles_of, tiles_of

#: Content below a log's prefix; raises SourceError.
Source = Callable[[str], bytes]

TIMEOUT_S = 10.0


class SourceError(UnavailableError):
    """A file of the log is not there or cannot be read; whoever serves or copied the log can help."""

    code = "journal.source"


class SourceAbsentError(SourceError):
    """The log or copy is there, and this file is not: entries after their period, or something that was taken out."""

    code = "journal.source-absent"


class HistoryChangedError(MalformedError):
    """Two checkpoints that cannot both be of one log that only grows. Keep both: they are evidence (§ 11.5)."""

    code = "journal.history-changed"


def from_folder(folder: Path) -> Source:
    """The files of an exported log."""

    def read(path: str) -> bytes:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError as cause:
            raise SourceAbsentError(f"{folder / path} is not there") from cause
        except OSError as cause:
            raise SourceError(f"{folder / path} cannot be read ({cause.strerror})") from cause

    return read


def from_url(url: str) -> Source:
    """A log that is served. url: its prefix, http or https."""
    if not url.startswith(("http://", "https://")):
        raise SourceError("a log is read from a folder, or a URL that begins with http:// or https://")

    def read(path: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/{path}", timeout=TIMEOUT_S) as answer:  # noqa: S310
                data: bytes = answer.read()
                return data
        except (OSError, http.client.HTTPException) as cause:  # a server that dies within its answer, too
            if isinstance(cause, urllib.error.HTTPError) and cause.code == 404:
                cause.close()
                raise SourceAbsentError(f"{url.rstrip('/')}/{path} is not there") from cause
            raise SourceError(f"{url.rstrip('/')}/{path} cannot be read ({cause})") from cause

    return read


@dataclass(frozen=True, slots=True)
class LogAudit:
    """What a whole log is. kinds: entries by kind. foreign: entries that are no JE1 of a kind that we know.

    minimum: index of the first entry that is there; those before it were deleted after their period (§ 17).
    """

    judged: Judged
    kinds: Counter[str]
    repeated_events: int
    foreign: int
    minimum: int = 0


def audit_log(source: Source, policy: Policy) -> LogAudit:
    """Read every entry and recompute everything up to the signed root; the first bundles may be deleted (§ 17).

    Raises NoteRefusedError, NoQuorumError, FalseTileError, MalformedError, SourceError.
    """
    judged = policy.judge(parse_note(source("checkpoint")))
    tiles = _tiles(source, judged.checkpoint)
    kinds: Counter[str] = Counter()
    events: set[bytes] = set()
    repeated = foreign = 0
    minimum = _minimum(source, tiles, judged.checkpoint.size)
    for entry in _entries(source, tiles, minimum, judged.checkpoint.size):
        try:
            parsed = parse_entry(entry)
        except MalformedError:
            foreign += 1
            continue
        kinds[parsed.kind.name] += 1
        repeated += parsed.event.bytes in events
        events.add(parsed.event.bytes)
    return LogAudit(judged, kinds, repeated, foreign, minimum)


def entries_of(source: Source, policy: Policy) -> Iterator[bytes]:
    """Every entry that is there, checked against the root that the policy accepts. Raises what `audit_log` raises."""
    checkpoint = policy.judge(parse_note(source("checkpoint"))).checkpoint
    tiles = _tiles(source, checkpoint)
    yield from _entries(source, tiles, _minimum(source, tiles, checkpoint.size), checkpoint.size)


def prove(source: Source, policy: Policy, index: int, extra: bytes | None = None) -> tuple[bytes, bytes]:
    """A proof file (§ 11.4) for an entry, and the entry's bytes. Raises as `audit_log`, and TreeRangeError."""
    note = parse_note(source("checkpoint"))
    checkpoint = policy.judge(note).checkpoint
    tiles = _tiles(source, checkpoint)
    path = inclusion_path(index, checkpoint.size, tiles)
    first = index // WIDTH
    bundle = Bundle(first, min(WIDTH, checkpoint.size - first * WIDTH))
    entry = tiles.entries(bundle, source(bundle.path))[index % WIDTH]
    return ProofFile(index, tuple(path), note, extra).encode(), entry


def compare(old: Note, new: Note, policy: Policy, source: Source | None) -> tuple[Checkpoint, Checkpoint, bool | None]:
    """Whether the tree of `new` begins with that of `old`; None if only tiles could tell and there are none.

    Raises HistoryChangedError if it does not, NoteRefusedError, MalformedError, SourceError.
    """
    first, second = sorted(
        (open_checkpoint(note, policy.log_keys) for note in (old, new)), key=lambda checkpoint: checkpoint.size
    )
    if first.origin != second.origin:
        raise HistoryChangedError(f"one checkpoint is of {first.origin}, the other of {second.origin}")
    proof: list[bytes] = []
    if 0 < first.size < second.size:
        if source is None:
            return first, second, None
        proof = consistency_proof(first.size, second.size, _tiles(source, second))
    if not is_consistent(first.size, second.size, first.root, second.root, proof):
        raise HistoryChangedError(
            f"{first.origin} signed size {first.size} and size {second.size}, and one does not begin with the other"
        )
    return first, second, True


def export(source: Source, folder: Path) -> Checkpoint:
    """A static tlog-tiles directory of the served log that any client reads; the checkpoint is written last.

    What exists already and is final is not fetched again; entries that the log has deleted are left out (§ 17).
    Raises SourceError, MalformedError, OSError.
    """
    note = parse_note(source("checkpoint"))
    checkpoint = parse_checkpoint(note.text)
    resources: list[Tile | Bundle] = [*tiles_of(checkpoint.size), *bundles_of(checkpoint.size)]
    has_entries = False
    for resource in resources:
        path = folder / resource.path
        if not path.exists():
            try:
                data = source(resource.path)
            except SourceAbsentError:
                if isinstance(resource, Tile) or has_entries:  # only what stands first is ever deleted
                    raise
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(OsDisk(), path, data, durable=False)
        has_entries = has_entries or isinstance(resource, Bundle)
    replace(OsDisk(), folder / "checkpoint", note.encode())
    return checkpoint


def _tiles(source: Source, checkpoint: Checkpoint) -> VerifiedTiles:
    def fetch(tile: Tile) -> bytes:
        return source(tile.path)

    return VerifiedTiles(checkpoint, fetch)


def _minimum(source: Source, tiles: VerifiedTiles, size: int) -> int:
    """Index of the first entry that is there. The hashes of those before it are checked all the same."""
    for bundle in bundles_of(size):
        try:
            source(bundle.path)
        except SourceAbsentError:
            tiles.node(0, bundle.index * WIDTH)
        else:
            return bundle.index * WIDTH
    return size


def _entries(source: Source, tiles: VerifiedTiles, start: int, size: int) -> Iterator[bytes]:
    for bundle in bundles_of(size, since=start):
        yield from tiles.entries(bundle, source(bundle.path))
