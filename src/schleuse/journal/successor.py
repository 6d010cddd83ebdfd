"""The log of the next year, named by the log of this one before it begins (journal.md § 17, § 11.4).

§ 17 gives each shard a key of its own. Whoever has cosigned a log and sees in it which key comes next needs nobody's
word for it: the announcement is an entry of kind POLICY_CHANGED (§ 4), proven like any other, by a proof file whose
`extra` is the entry's opening. Two files below the log's prefix, `successor.tlog-proof` and `successor.entry`, are all
that a witness must fetch, or be handed on a stick. The first leaf of the next log then names the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import open_checkpoint
from schleuse.journal.disk import Disk, replace
from schleuse.journal.entry import Entry, Kind, Result, parse_entry
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.note import LogKey, VerifierKey, parse_vkey
from schleuse.journal.opening import Json, Opening, parse_canonical_json, parse_opening
from schleuse.journal.proof import root_from_inclusion
from schleuse.journal.proof_file import SUFFIX, NotProvenError, ProofFile
from schleuse.journal.state import BadStateError
from schleuse.journal.text import decode_decimal

PROOF = f"successor{SUFFIX}"  #: below the prefix of a log; the name of the other is that of `journal prove`
ENTRY = "successor.entry"

_KEPT = "successor"  #: in the folder of the log


class BadSuccessorError(MalformedError):
    """What is shown as the announcement of next year's log is none; the operator of the log can show the right one."""

    code = "journal.bad-successor"


@dataclass(frozen=True, slots=True, repr=False)
class Announced:
    """Where a log announces its successor. opening: of entry `index`; nothing in it is personal."""

    index: int
    opening: Opening


def following_origin(origin: str) -> str:
    """The shard after this one; shards are calendar years. Raises BadSuccessorError for an origin without a year."""
    rest, _, year = origin.rpartition("/")
    if not rest or len(year) != 4 or not (year.isascii() and year.isdigit()):
        raise BadSuccessorError(f"{origin} does not end in a year, so nobody can say which log follows it")
    return f"{rest}/{int(year) + 1:04}"


def announcement(origin: str, following: VerifierKey) -> Json:
    """The detail record of the entry in log `origin`."""
    return {"following": following.vkey, "origin": origin}


def announced_key(proof: ProofFile, entry: bytes, logs: Sequence[LogKey]) -> VerifierKey:
    """The key of the log that follows the one in this proof, which one of these keys has signed.

    Who cosigned the checkpoint is the caller's question. Raises MalformedError, NoteRefusedError, NotProvenError.
    """
    checkpoint = open_checkpoint(proof.note, logs)
    if root_from_inclusion(proof.index, checkpoint.size, leaf_hash(entry), proof.path) != checkpoint.root:
        raise NotProvenError(f"entry {proof.index} of {checkpoint.origin} is not the entry that was shown")
    parsed, opening = parse_entry(entry), parse_opening(proof.extra or b"{}")
    if not opening.matches(parsed):
        raise NotProvenError(f"the opening does not belong to entry {proof.index} of {checkpoint.origin}")
    key = _key_in(parsed, opening, checkpoint.origin)
    if key.name != (expected := following_origin(checkpoint.origin)):
        raise BadSuccessorError(f"{checkpoint.origin} announces {key.name}, expected {expected}")
    return key


def _key_in(entry: Entry, opening: Opening, origin: str) -> VerifierKey:
    if (entry.kind, entry.result) != (Kind.POLICY_CHANGED, Result.GRANTED) or opening.detail is None:
        raise BadSuccessorError(f"{entry.kind.name} in {origin} announces no log")
    match parse_canonical_json(opening.detail[1]):
        case {"following": str(vkey), "origin": str(named)} if named == origin:
            return LogKey(parse_vkey(vkey)).key
    raise BadSuccessorError(f"the detail record of the announcement in {origin} names no key that follows it")


def is_announced(folder: Path) -> bool:
    """Whether the log with this folder has announced its successor."""
    return (folder / _KEPT).exists()


def keep_announced(disk: Disk, folder: Path, announced: Announced) -> None:
    """Remember it in the folder of the log. Raises OSError."""
    replace(disk, folder / _KEPT, b"%d\n%s\n" % (announced.index, announced.opening.encode()))


def read_announced(folder: Path) -> Announced | None:
    """What `keep_announced` kept; None if nothing. Raises BadStateError."""
    try:
        index, opening = (folder / _KEPT).read_bytes().removesuffix(b"\n").split(b"\n")
        return Announced(decode_decimal(index.decode("ascii")), parse_opening(opening))
    except FileNotFoundError:
        return None
    except (ValueError, MalformedError) as cause:
        raise BadStateError(f"{folder.name}/{_KEPT}: cannot be read by this version") from cause
