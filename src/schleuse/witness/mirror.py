"""A copy of a log at its insurer, who then has all entries and can prove them, whatever the platform does (§ 2).

The folder is a static tlog-tiles directory, as `journal export` writes it; but nothing comes into it that was not
checked, and a log that does not continue the copy changes nothing in it.
"""

from __future__ import annotations

from pathlib import Path

from schleuse.errors import ConflictError
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.note import parse_note
from schleuse.journal.policy import Policy
from schleuse.journal.tile_reader import VerifiedTiles
from schleuse.journal.tiles import bundle_bytes, bundles_of, tile_bytes, tiles_of
from schleuse.journal.tree import root_at
from schleuse.witness.remote import RemoteLog

CHECKPOINT = "checkpoint"


class NotContinuedError(ConflictError):
    """The log does not continue what was copied before. Keep the copy: it is evidence."""

    code = "witness.not-continued"


def mirror(log: RemoteLog, policy: Policy, folder: Path) -> Checkpoint:
    """Bring the copy in this folder up to the log's newest checkpoint that satisfies the policy.

    Raises NotContinuedError, RemoteError, FalseTileError, MalformedError, NoteRefusedError, NoQuorumError, OSError.
    """
    note = log.note(CHECKPOINT)
    checkpoint = policy.judge(note).checkpoint
    tiles = VerifiedTiles(checkpoint, log.tile)
    since = _since(folder / CHECKPOINT, checkpoint, tiles)
    for tile in tiles_of(checkpoint.size, since=since):
        _write(folder / tile.path, tile_bytes(tile, tiles))
    for bundle in bundles_of(checkpoint.size, since=since):
        _write(folder / bundle.path, bundle_bytes(tiles.entries(bundle, log.bundle(bundle))))
    # Last: what a checkpoint says is there, is there.
    folder.mkdir(parents=True, exist_ok=True)
    replace(OsDisk(), folder / CHECKPOINT, note.encode())
    return checkpoint


def _since(path: Path, new: Checkpoint, tiles: VerifiedTiles) -> int:
    """How many entries are copied already."""
    if not path.exists():
        return 0
    old = parse_checkpoint(parse_note(path.read_bytes()).text)
    if old.origin != new.origin:
        raise NotContinuedError(f"the folder holds {old.origin}, the log is {new.origin}")
    if old.size > new.size:
        raise NotContinuedError(f"{new.origin} shows size {new.size}, the copy has {old.size} entries")
    if root_at(old.size, tiles) != old.root:
        raise NotContinuedError(f"size {new.size} of {new.origin} does not continue size {old.size}, which was copied")
    return old.size


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(OsDisk(), path, data, durable=False)
