"""Proof files: one text that shows, without network, that an entry is in a log (C2SP tlog-proof, journal.md § 11.4)."""

from __future__ import annotations

from dataclasses import dataclass

from schleuse.errors import MalformedError, RefusedError
from schleuse.journal.checkpoint import parse_checkpoint
from schleuse.journal.entry import Entry, parse_entry
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.note import Note, parse_note
from schleuse.journal.opening import Opening
from schleuse.journal.policy import Policy
from schleuse.journal.proof import MAX_PATH, root_from_inclusion
from schleuse.journal.text import decode_base64, decode_decimal, decode_hash, encode_base64

HEADER = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"  #: of the file's name
MAX_PROOF_FILE = 1 << 20  #: bytes; ours


class BadProofFileError(MalformedError):
    """Not a proof file; whoever made it can change it."""

    code = "journal.bad-proof-file"


class NotProvenError(RefusedError):
    """A proof file that is well formed and does not prove what it is shown for."""

    code = "journal.not-proven"


@dataclass(frozen=True, slots=True, repr=False)
class ProofFile:
    """Index and path of an entry and the checkpoint they lead to. extra: unauthenticated, such as an `Opening`.

    Personal data may be in extra: repr() is the index only.
    """

    index: int
    path: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None

    def __repr__(self) -> str:
        return f"ProofFile(index={self.index})"

    def encode(self) -> bytes:
        """The file's content."""
        lines = [HEADER, f"index {self.index}", *map(encode_base64, self.path), "", str(self.note)]
        if self.extra is not None:
            lines.insert(1, f"extra {encode_base64(self.extra)}")
        return "\n".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Proven:
    """This event was in this log, and not later than `since_s` (seconds since 1970; None if no witness is asked for).

    size: of the log at the checkpoint. witnesses: by the policy's names.
    """

    origin: str
    index: int
    size: int
    entry: Entry | None
    witnesses: frozenset[str]
    since_s: int | None


def parse_proof_file(data: bytes) -> ProofFile:
    """The proof in a file's content, nothing verified. Raises MalformedError."""
    if len(data) > MAX_PROOF_FILE:
        raise BadProofFileError(f"a proof file has at most {MAX_PROOF_FILE} bytes, not {len(data)}")
    # The first empty line ends our part; the note behind it is kept to the byte.
    head, separator, note = data.partition(b"\n\n")
    try:
        header, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as cause:
        raise BadProofFileError("the lines before the checkpoint are ASCII") from cause
    if not separator or header != HEADER:
        raise BadProofFileError(f"a proof file begins with {HEADER} and has an empty line before the checkpoint")
    extra = decode_base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    if not lines or not lines[0].startswith("index "):
        raise BadProofFileError("found no index in the proof file")
    if len(lines) > 1 + MAX_PATH:
        raise BadProofFileError(f"a path has at most {MAX_PATH} hashes, not {len(lines) - 1}")
    proof = ProofFile(decode_decimal(lines[0][6:]), tuple(map(decode_hash, lines[1:])), parse_note(note), extra)
    parse_checkpoint(proof.note.text)
    return proof


def verify(proof: ProofFile, entry: bytes, policy: Policy, opening: Opening | None = None) -> Proven:
    """What this proof shows about these entry bytes, in the order of journal.md § 11.4.

    Entries of other logs than ours need not be JE1; then `entry` of the answer is None, and no opening can be given.
    Raises MalformedError (also BadProofError), NoteRefusedError, NoQuorumError and NotProvenError.
    """
    leaf = leaf_hash(entry)
    judged = policy.judge(proof.note)
    checkpoint = judged.checkpoint
    if root_from_inclusion(proof.index, checkpoint.size, leaf, proof.path) != checkpoint.root:
        raise NotProvenError(f"entry {proof.index} of {checkpoint.origin} is not the entry that was shown")
    parsed = _parsed(entry)
    if opening is not None and (parsed is None or not opening.matches(parsed)):
        raise NotProvenError(f"the opening does not belong to entry {proof.index} of {checkpoint.origin}")
    return Proven(checkpoint.origin, proof.index, checkpoint.size, parsed, frozenset(judged.times), judged.since_s)


def _parsed(entry: bytes) -> Entry | None:
    try:
        return parse_entry(entry)
    except MalformedError:
        return None
