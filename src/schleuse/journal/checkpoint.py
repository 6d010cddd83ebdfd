"""Checkpoints: what a log commits itself to, as the text of a signed note (C2SP tlog-checkpoint, journal.md § 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schleuse.errors import ConflictError, MalformedError
from schleuse.journal.hashing import EMPTY_ROOT, HASH_SIZE
from schleuse.journal.note import LogKey, LogSigner, Note, NoteRefusedError, check_name, open_note
from schleuse.journal.text import decode_decimal, decode_hash, encode_base64
from schleuse.journal.tree import MAX_SIZE


class BadCheckpointError(MalformedError):
    """A text that is no checkpoint; whoever wrote it can change it."""

    code = "journal.bad-checkpoint"


class NotSignableError(ConflictError):
    """Signing this checkpoint would contradict one signed before, or promise what is not durable."""

    code = "journal.not-signable"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first `size` entries of log `origin` have this root.

    extensions: further lines without newline; we write none and tolerate them. Raises MalformedError.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.origin)  # a log's key is named like its origin
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise BadCheckpointError("a checkpoint has a size from 0 to 2^63 - 1 and a root of 32 bytes")
        if any(not line or "\n" in line for line in self.extensions):
            raise BadCheckpointError("an extension of a checkpoint is one line that is not empty")

    @property
    def text(self) -> str:
        """The text to be signed; every line ends in a newline."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, encode_base64(self.root), *self.extensions))

    def signed_by(self, signer: LogSigner) -> Note:
        """A note with the log's line. Raises BadCheckpointError if the key is not named like the origin."""
        if signer.key.name != self.origin:
            raise BadCheckpointError(f"the key {signer.key.name} does not sign for {self.origin}")
        return Note(self.text, (signer.sign(self.text),))


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises MalformedError."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop():
        raise BadCheckpointError("a checkpoint has at least three lines, each with a newline at its end")
    origin, size, root, *extensions = lines
    return Checkpoint(origin, decode_decimal(size), decode_hash(root), tuple(extensions))


def open_checkpoint(note: Note, logs: Sequence[LogKey]) -> Checkpoint:
    """The checkpoint of a note that one of these logs has signed under its own origin.

    Lines of witnesses are not looked at; `policy.Policy.judge` does that.
    Raises MalformedError and NoteRefusedError.
    """
    checkpoint = parse_checkpoint(note.text)
    own = [log for log in logs if log.key.name == checkpoint.origin]
    if not own:
        raise NoteRefusedError(f"no key is known for the log {checkpoint.origin}")
    open_note(note, own)
    return checkpoint


def check_signable(new: Checkpoint, *, last: Checkpoint | None, durable_size: int) -> None:
    """Return if the log may sign `new` (journal.md § 7, rules for the signer).

    last: what it signed last, from its durable record. durable_size: entries that survive a crash.
    The same size and root again is allowed. Raises NotSignableError.
    """
    if new.size > durable_size:
        raise NotSignableError(f"size {new.size} of {new.origin} is beyond the {durable_size} durable entries")
    if new.size == 0 and new.root != EMPTY_ROOT:
        raise NotSignableError(f"the empty log {new.origin} has another root")
    if last is None:
        return
    if new.origin != last.origin or new.size < last.size:
        raise NotSignableError(f"{last.origin} was signed with size {last.size}; {new.origin} with {new.size} is less")
    if contradict(new, last):
        raise NotSignableError(f"{last.origin} was signed with another root at size {last.size}")


def contradict(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether these two, both signed by the log, prove that it showed two histories (journal.md § 11.5).

    Other sizes need a consistency proof to tell; no answer here can say that two sizes agree.
    """
    return one.origin == other.origin and one.size == other.size and one.root != other.root
