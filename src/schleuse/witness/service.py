"""Cosigning: check, decide, make durable, and only then let the cosignature go (journal.md § 9.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schleuse.clock import Now
from schleuse.errors import RefusedError
from schleuse.journal.checkpoint import open_checkpoint, parse_checkpoint
from schleuse.journal.cosignature import Cosigner, CosignerKey
from schleuse.journal.note import LogKey, Note, SignatureLine
from schleuse.journal.witness_request import WitnessRequest
from schleuse.witness.alarm import Alarm, Finding, OnAlarm
from schleuse.witness.decision import Conflict, Contradiction, Cosign, Remembered, decide
from schleuse.witness.store import Evidence, Turn, WitnessStore


class UnknownOriginError(RefusedError):
    """No log with this origin is configured at this witness; its operator can add it."""

    code = "witness.unknown-origin"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """Durable. lines: our cosignatures. note: the checkpoint with the log's lines and ours."""

    note: Note
    lines: tuple[SignatureLine, ...]


Answer = Cosigned | Conflict | Contradiction


class Witness:
    """Cosigns for the logs that it trusts. For several threads.

    logs: origin -> keys whose signature under this origin counts, now and later. cosigners: one or more keys of this
    witness.
    """

    def __init__(
        self,
        logs: Mapping[str, Sequence[LogKey]],
        cosigners: Sequence[Cosigner],
        store: WitnessStore,
        now: Now,
        on_alarm: OnAlarm,
    ) -> None:
        self._logs = logs
        self._cosigners = cosigners
        self._keys = [CosignerKey(cosigner.key) for cosigner in cosigners]
        self._store = store
        self._now = now
        self._on_alarm = on_alarm

    @property
    def vkeys(self) -> list[str]:
        """What the policies of logs and verifiers name."""
        return [cosigner.key.vkey for cosigner in self._cosigners]

    def last(self, origin: str) -> Remembered | None:
        """What we cosigned last for this log."""
        return self._store.last(origin)

    def is_ours(self, note: Note) -> bool:
        """Whether one of our keys has cosigned this note."""
        return any(
            (line.name, line.key_id) == (key.key.name, key.key.id) and key.verifies(note.text, line.signature)
            for line in note.lines
            for key in self._keys
        )

    def trusted(self, note: Note, origin: str) -> None:
        """Return if the note is validly signed by this log. Raises UnknownOriginError, NoteRefusedError."""
        keys = self._logs.get(origin)
        if keys is None:
            raise UnknownOriginError(f"this witness knows no log {origin}")
        open_checkpoint(note, keys)

    def add_checkpoint(self, request: WitnessRequest, *, verified: bool = False) -> Answer:
        """Cosign a checkpoint or say why not.

        verified: the proof was computed from tiles that lead to the signed root, so that a failure proves a fork.
        Raises UnknownOriginError, NoteRefusedError; StateLostError, ClockBackError and errors of the database, after
        which nothing was cosigned.
        """
        self.trusted(request.note, request.checkpoint.origin)
        ours = self.is_ours(request.note)
        with self._store.turn(request.checkpoint.origin) as turn:
            now_s = int(self._now().timestamp())
            decision = decide(request, turn.last, now_s=now_s, ours=ours)
            if isinstance(decision, Contradiction) and verified:
                decision = Contradiction(True, f"{decision.reason}, and its own tiles show that none can exist")
            alarm = self._keep(turn, request, decision, now_s)
            answer = self._cosign(turn, request, decision) if isinstance(decision, Cosign) else decision
        # Here all of it is durable, and not before.
        if alarm is not None:
            self._on_alarm(alarm)
        return answer

    def keep(self, finding: Finding, theirs: Note, reason: str, ours: Note | None = None) -> bool:
        """Keep a note of a log as evidence, with what we cosigned last or another note of it; False if we have it.

        For what pull mode and a monitor were shown: nobody asked us to cosign it.
        Raises UnknownOriginError, NoteRefusedError: what the log did not sign accuses nobody.
        """
        origin = parse_checkpoint(theirs.text).origin
        self.trusted(theirs, origin)
        with self._store.turn(origin) as turn:
            if ours is None and turn.last is not None:
                ours = turn.last.note
            now_s = int(self._now().timestamp())
            kept = None if ours is None else ours.encode()
            return turn.keep(Evidence(origin, finding, reason, now_s, kept, theirs.encode(), b""))

    def _cosign(self, turn: Turn, request: WitnessRequest, decision: Cosign) -> Cosigned:
        checkpoint = request.checkpoint
        lines = tuple(cosigner.cosign(checkpoint, decision.time_s) for cosigner in self._cosigners)
        # Only lines that were verified are published under our name.
        known = {(key.key.name, key.key.id) for key in self._logs[checkpoint.origin]}
        own = tuple(line for line in request.note.lines if (line.name, line.key_id) in known)
        note = Note(request.note.text, own).with_lines(lines)
        turn.record(Remembered(checkpoint, decision.time_s, note))
        return Cosigned(note, lines)

    @staticmethod
    def _keep(
        turn: Turn, request: WitnessRequest, decision: Cosign | Conflict | Contradiction, now_s: int
    ) -> Alarm | None:
        match decision:
            case Contradiction(fork, reason):
                finding = Finding.FORK if fork else Finding.UNPROVEN
            case Conflict(_, fork=True):
                finding, reason = Finding.FORK, f"{request.checkpoint.origin} signed one size with two roots"
            case _:
                return None
        origin = request.checkpoint.origin
        ours = turn.last.note.encode() if turn.last else None
        evidence = Evidence(origin, finding, reason, now_s, ours, request.note.encode(), request.encode())
        return Alarm(finding, origin, reason) if turn.keep(evidence) else None
