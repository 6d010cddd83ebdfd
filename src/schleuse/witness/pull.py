"""Pull mode: the insurer lets nobody in, so its witness fetches, proves it to itself, sends back (journal.md § 9.2)."""

from __future__ import annotations

from schleuse.clock import Now
from schleuse.errors import ConflictError, MalformedError
from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.cosignature import time_of
from schleuse.journal.note import Note
from schleuse.journal.proof import consistency_proof
from schleuse.journal.tile_reader import FalseTileError, VerifiedTiles
from schleuse.journal.witness_request import WitnessRequest
from schleuse.witness.alarm import Alarm, Finding, OnAlarm
from schleuse.witness.decision import Remembered
from schleuse.witness.remote import RemoteLog
from schleuse.witness.service import Answer, Cosigned, Witness

#: Monitors ask for cosignatures of the last 15 minutes (§ 16), so a log that rests is cosigned again before that.
REFRESH_S = 300


class OtherOriginError(ConflictError):
    """The URL serves another log than the configuration says; whoever wrote one of the two can change it."""

    code = "witness.other-origin"


class Puller:
    """Polls one log. Several threads may not share one.

    Rollback and false tiles become alarms once each time they begin, not with every poll.
    """

    def __init__(self, origin: str, log: RemoteLog, witness: Witness, now: Now, on_alarm: OnAlarm) -> None:
        self._origin = origin
        self._log = log
        self._witness = witness
        self._now = now
        self._on_alarm = on_alarm
        self._told: Finding | None = None

    def poll(self) -> Answer | None:
        """Cosign what is pending and send it; None if there is nothing to do.

        A cosignature that was made and could not be sent is made again with the next poll: the state is the same.
        Raises RemoteError, MalformedError, NoteRefusedError, OtherOriginError, and what `Witness.add_checkpoint` does.
        """
        note = self._log.note("pending")
        checkpoint = parse_checkpoint(note.text)
        if checkpoint.origin != self._origin:
            raise OtherOriginError(f"the log at the URL is {checkpoint.origin}, expected {self._origin}")
        self._witness.trusted(note, self._origin)
        last = self._witness.last(self._origin)
        if last is not None and checkpoint.size < last.checkpoint.size:
            reason = _rollback(checkpoint, last)
            self._witness.keep(Finding.ROLLBACK, note, reason)
            self._tell(Finding.ROLLBACK, reason)
            return None
        if last is not None and last.checkpoint == checkpoint and self._is_fresh(note):
            self._told = None
            return None
        try:
            request = self._request(note, checkpoint, last)
        except (FalseTileError, MalformedError) as cause:
            self._tell(Finding.FALSE_TILES, f"the tiles of size {checkpoint.size} are not what is signed: {cause}")
            return None
        answer = self._witness.add_checkpoint(request, verified=True)
        if isinstance(answer, Cosigned):
            self._told = None
            self._log.add_cosignature(answer.note)
        return answer

    def _request(self, note: Note, checkpoint: Checkpoint, last: Remembered | None) -> WitnessRequest:
        old = last.checkpoint.size if last else 0
        proof: list[bytes] = []
        if 0 < old < checkpoint.size:
            proof = consistency_proof(old, checkpoint.size, VerifiedTiles(checkpoint, self._log.tile))
        return WitnessRequest(old, tuple(proof), checkpoint, note)

    def _is_fresh(self, note: Note) -> bool:
        """Whether the log has our line and it need not be renewed."""
        now_s = self._now().timestamp()
        return any(
            self._witness.is_ours(Note(note.text, (line,))) and now_s - time_of(line.signature) < REFRESH_S
            for line in note.lines
        )

    def _tell(self, finding: Finding, text: str) -> None:
        if self._told is not finding:
            self._told = finding
            self._on_alarm(Alarm(finding, self._origin, text))


def _rollback(checkpoint: Checkpoint, last: Remembered) -> str:
    return (
        f"{checkpoint.origin} shows size {checkpoint.size} and had signed size {last.checkpoint.size}, "
        f"root {last.checkpoint.root.hex()}: {last.checkpoint.size - checkpoint.size} entries are gone"
    )
