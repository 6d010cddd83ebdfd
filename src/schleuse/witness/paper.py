"""Paper mode: a cosignature by mail, print or memory stick, for a witness without any network (journal.md § 9.3).

The sheet is the body of add-checkpoint and the answer is signature lines, both short text. What mail programs and
people do to text on its way is undone; a character that was changed makes a signature false, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import parse_checkpoint
from schleuse.journal.note import DASH, Note, parse_lines
from schleuse.journal.witness_request import MAX_REQUEST, WitnessRequest, parse_witness_request

#: What other programs make of the em dash at the beginning of a signature line.
_DASHES = ("\u2013 ", "-- ", "- ")


class BadSheetError(MalformedError):
    """Not the text of a request or answer on paper; whoever typed or sent it can look again."""

    code = "witness.bad-sheet"


def sheet(old: Note | None, proof: Sequence[bytes], new: Note) -> bytes:
    """What the log prints. old: what the witness cosigned last. proof: from old to new. Raises MalformedError."""
    size = 0 if old is None else parse_checkpoint(old.text).size
    return WitnessRequest(size, tuple(proof), parse_checkpoint(new.text), new).encode()


def read_sheet(data: bytes) -> WitnessRequest:
    """The request on a sheet that was typed, scanned or mailed. Raises MalformedError."""
    return parse_witness_request(_cleaned(data))


def read_answer(data: bytes, new: Note) -> Note:
    """The note with the lines that the witness sent back; nothing is verified. Raises MalformedError."""
    return new.with_lines(parse_lines(_cleaned(data).decode()))


def _cleaned(data: bytes) -> bytes:
    if len(data) > 2 * MAX_REQUEST:
        raise BadSheetError(f"a sheet has at most {2 * MAX_REQUEST} bytes, not {len(data)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise BadSheetError("a sheet is text in UTF-8") from cause
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")]
    return "".join(f"{_with_dash(line)}\n" for line in lines).encode()


def _with_dash(line: str) -> str:
    for other in _DASHES:
        if line.startswith(other):
            return f"{DASH} {line[len(other) :].lstrip()}"
    return line
