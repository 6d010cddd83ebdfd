"""A copy of a log at its insurer, who then has all entries and can prove them, whatever the platform does (§ 2).

The folder is a static tlog-tiles directory, as `journal export` writes it; but nothing comes into it that was not
checked, and a log that does not continue the copy changes nothing in it. What the log has deleted after its period
before it was copied is missing, from the first entry on; what is copied the insurer deletes himself (§ 17).
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from schleuse.errors import ConflictError
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.entry import parse_entry
from schleuse.journal.note import parse_note
from schleuse.journal.policy import Policy
from schleuse.journal.tile_reader import VerifiedTiles
from schleuse.journal.tiles import WIDTH, bundle_bytes, bundles_of, split_bundle, tile_bytes, tiles_of
from schleuse.journal.tree import root_at
from schleuse.witness.remote import NotThereError, RemoteLog

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
    has_entries = any((folder / bundle.path).exists() for bundle in bundles_of(since))
    for bundle in bundles_of(checkpoint.size, since=since):
        try:
            entries = tiles.entries(bundle, log.bundle(bundle))
        except NotThereError:
            if has_entries:  # only what stands first is ever deleted
                raise
            continue
        has_entries = True
        _write(folder / bundle.path, bundle_bytes(entries))
    # Last: what a checkpoint says is there, is there.
    folder.mkdir(parents=True, exist_ok=True)
    replace(OsDisk(), folder / CHECKPOINT, note.encode())
    return checkpoint


def forget(folder: Path, before: datetime) -> int:
    """Delete the entries of a copy whose bundle has only older ones, from the first on, and return how many (§ 17).

    Their hashes stay, and with them every proof. Raises MalformedError, OSError.
    """
    gone = 0
    for bundle in bundles_of(_copied(folder)):
        path = folder / bundle.path
        if bundle.width < WIDTH:
            break
        if path.exists():
            if not all(parse_entry(entry).at < before for entry in split_bundle(bundle, path.read_bytes())):
                break
            path.unlink()
            gone += bundle.width
        # What was copied before the bundle was full has its first entries, too.
        shutil.rmtree(path.with_name(f"{path.name}.p"), ignore_errors=True)
    return gone


def _copied(folder: Path) -> int:
    path = folder / CHECKPOINT
    return parse_checkpoint(parse_note(path.read_bytes()).text).size if path.exists() else 0


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
