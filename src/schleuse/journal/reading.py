"""What a journal shows of its logs: entries, checkpoints, proofs (journal.md § 13). Nothing here writes.

It goes on while no entry can be taken; in QUARANTINE a log whose hashes nobody vouches for says why it cannot be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from schleuse.journal.contracts import BeyondSizeError, UnknownLogError
from schleuse.journal.log import Log
from schleuse.journal.proof import consistency_proof, inclusion_path
from schleuse.journal.proof_file import ProofFile


class Reading:
    """The half of `store.Journal` that reads. Indexes count from 0; a size counts entries."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self._by_origin = {log.origin: log for log in logs}
        self._by_number = {log.number: log for log in logs}

    def log(self, origin: str) -> Log:
        """Raises UnknownLogError."""
        try:
            return self._by_origin[origin]
        except KeyError:
            raise UnknownLogError(
                f"no log is called {origin}; the configuration of the journal names its logs"
            ) from None

    def _readable(self, origin: str) -> Log:
        log = self.log(origin)
        if log.damage is not None:
            raise log.damage
        return log

    def log_number(self, number: int) -> Log:
        """Raises UnknownLogError."""
        try:
            return self._by_number[number]
        except KeyError:
            raise UnknownLogError(f"no log has the number {number}") from None

    def logs(self) -> Iterable[Log]:
        """All logs."""
        return self._by_number.values()

    def read(self, origin: str, start: int, stop: int) -> Iterator[bytes]:
        """Entries start to stop - 1. Raises BeyondSizeError, UnknownLogError."""
        log = self._readable(origin)
        if not log.minimum <= start <= stop <= log.frontier.size:
            raise BeyondSizeError(f"{origin} has entries {log.minimum} to {log.frontier.size - 1}")
        return log.entries.read(start, stop)

    def checkpoint(self, origin: str, *, pending: bool = False) -> bytes:
        """The newest note that satisfies the policy; `pending`: the newest we signed. Raises BeyondSizeError."""
        log = self.log(origin)
        signed = log.signed if pending else log.served
        if signed is None:
            raise BeyondSizeError(f"{origin} has no checkpoint yet")
        return signed.note.encode()

    def inclusion(self, origin: str, index: int, size: int | None = None) -> list[bytes]:
        """Path of an entry; size: by default that of the served checkpoint. Raises TreeRangeError, BeyondSizeError."""
        log = self._readable(origin)
        if size is None:
            size = log.served.checkpoint.size if log.served else 0
        if size > log.frontier.size:
            raise BeyondSizeError(f"{origin} has {log.frontier.size} entries, not {size}")
        return inclusion_path(index, size, log.tree)

    def consistency(self, origin: str, old: int, new: int) -> list[bytes]:
        """Raises TreeRangeError, BeyondSizeError."""
        log = self._readable(origin)
        if new > log.frontier.size:
            raise BeyondSizeError(f"{origin} has {log.frontier.size} entries, not {new}")
        return consistency_proof(old, new, log.tree)

    def proof_file(self, origin: str, index: int, extra: bytes | None = None) -> bytes:
        """Proof of an entry under the served checkpoint (§ 11.4). Raises TreeRangeError, BeyondSizeError."""
        log = self._readable(origin)
        if log.served is None:
            raise BeyondSizeError(f"{origin} has no checkpoint yet")
        path = inclusion_path(index, log.served.checkpoint.size, log.tree)
        return ProofFile(index, tuple(path), log.served.note, extra).encode()
