"""The body of add-checkpoint: how a log asks a witness to cosign (C2SP tlog-witness, journal.md § 9.1)."""

from __future__ import annotations

from dataclasses import dataclass

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.note import MAX_NOTE, Note, parse_note
from schleuse.journal.proof import MAX_PATH
from schleuse.journal.text import decode_decimal, decode_hash, encode_base64

MAX_REQUEST = MAX_NOTE + 4096  #: bytes: a note, and before it 64 lines of at most 45


class BadWitnessRequestError(MalformedError):
    """Not a request to cosign; the log that sent it can change it."""

    code = "journal.bad-witness-request"


@dataclass(frozen=True, slots=True)
class WitnessRequest:
    """Cosign this checkpoint, which grew from size `old` as the proof shows. Nothing is verified yet.

    old: what the witness cosigned last, 0 for nothing; not above the checkpoint's size.
    """

    old: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: Note

    def encode(self) -> bytes:
        """The request's body."""
        return "\n".join([f"old {self.old}", *map(encode_base64, self.proof), "", str(self.note)]).encode()


def parse_witness_request(data: bytes) -> WitnessRequest:
    """The request in a body. Raises MalformedError: the witness answers 400."""
    if len(data) > MAX_REQUEST:
        raise BadWitnessRequestError(f"a request has at most {MAX_REQUEST} bytes, not {len(data)}")
    # The first empty line: the note behind it has one of its own.
    head, separator, rest = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as cause:
        raise BadWitnessRequestError("the lines before the checkpoint are ASCII") from cause
    if not separator or not first.startswith("old "):
        raise BadWitnessRequestError("a request is the old size, a proof, an empty line and a checkpoint")
    if len(lines) > MAX_PATH:
        raise BadWitnessRequestError(f"a proof has at most {MAX_PATH} hashes, not {len(lines)}")
    old, proof, note = decode_decimal(first[4:]), tuple(map(decode_hash, lines)), parse_note(rest)
    checkpoint = parse_checkpoint(note.text)
    if old > checkpoint.size:
        raise BadWitnessRequestError(f"the old size {old} is above the new size {checkpoint.size}")
    return WitnessRequest(old, proof, checkpoint, note)
