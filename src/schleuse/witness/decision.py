"""What a witness does with a checkpoint that wants its cosignature; pure (journal.md § 9.1).

The one promise: under one key, never a second history of a log. It rests on three things: the new tree begins with the
last one, the last one is durable before a cosignature leaves (`store`), and a memory that was lost is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass

from schleuse.errors import CorruptError, UnavailableError
from schleuse.journal.checkpoint import Checkpoint, contradict
from schleuse.journal.hashing import EMPTY_ROOT
from schleuse.journal.note import Note
from schleuse.journal.proof import is_consistent
from schleuse.journal.witness_request import WitnessRequest

#: A clock may step back by so much without a word; the cosignature then repeats the time of the last one.
CLOCK_SLACK_S = 60


class StateLostError(CorruptError):
    """This key has cosigned more than the witness remembers: an old copy of its database runs, or a twin.

    Restore the newest database; if there is none, retire the key and begin with a new one.
    """

    code = "witness.state-lost"


class ClockBackError(UnavailableError):
    """The clock stands before the last cosignature; two of them would contradict each other. Set it right."""

    code = "witness.clock-back"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What this witness cosigned last for one log. note: with the log's line and our own. time_s: since 1970."""

    checkpoint: Checkpoint
    time_s: int
    note: Note


@dataclass(frozen=True, slots=True)
class Cosign:
    """It continues what we know: cosign with this time."""

    time_s: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The log thinks that we are elsewhere: answer 409 and our size. fork: its checkpoint nevertheless proves one."""

    size: int
    fork: bool


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Signed by the log, and not a continuation of what we cosigned: answer 422, keep both notes (§ 11.5).

    fork: no proof can exist, so the two notes alone convince anybody. Otherwise this proof was wrong.
    """

    fork: bool
    reason: str


Decision = Cosign | Conflict | Contradiction


def decide(request: WitnessRequest, last: Remembered | None, *, now_s: int, ours: bool) -> Decision:
    """What to do with a request whose log line is valid.

    last: of this log. ours: the note carries a valid cosignature of our own key.
    Raises StateLostError, ClockBackError.
    """
    new = request.checkpoint
    size, root = (last.checkpoint.size, last.checkpoint.root) if last else (0, EMPTY_ROOT)
    if ours and (new.size > size or (new.size == size and new.root != root)):
        raise StateLostError(
            f"{new.origin} shows our own cosignature of size {new.size}, and we remember size {size} at most; "
            "this witness cosigns nothing of it until its operator has decided"
        )
    fork = (last is not None and contradict(new, last.checkpoint)) or (new.size == 0 and new.root != EMPTY_ROOT)
    if request.old != size:
        return Conflict(size, fork)
    if not is_consistent(size, new.size, root, new.root, request.proof):
        return Contradiction(fork, _why(new, size, fork))
    return Cosign(_time(new.origin, last, now_s))


def _why(new: Checkpoint, size: int, fork: bool) -> str:
    if fork:
        return f"{new.origin} signed size {new.size} with two roots"
    return f"{new.origin} signed size {new.size} without proof that it continues size {size}"


def _time(origin: str, last: Remembered | None, now_s: int) -> int:
    if last is None or now_s >= last.time_s:
        return now_s
    if last.time_s - now_s > CLOCK_SLACK_S:
        raise ClockBackError(f"the last cosignature for {origin} is {last.time_s - now_s} s in the future")
    return last.time_s
