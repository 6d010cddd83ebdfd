"""Child process: a witness that kills itself at a step of one request. Usage: dying.py FOLDER STEP OLD SIZE"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from tests.journal.samples import LOG, ORIGIN, WA, leaves
from tests.witness.parties import Clock, FakeLog

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.note import LogKey, SignatureLine
from schleuse.witness.service import Cosigned, Witness
from schleuse.witness.store import WitnessStore

#: Where it dies, in their order; "answered" is after the answer left.
STEPS = ("opened", "verified", "deciding", "signed", "recorded", "durable", "answered")


def die_at(step: str) -> None:
    if sys.argv[2] == step:
        os.kill(os.getpid(), signal.SIGKILL)


class DyingClock(Clock):
    def __call__(self) -> datetime:
        die_at("deciding")
        return super().__call__()


class DyingCosigner:
    key = WA.key

    def cosign(self, checkpoint: Checkpoint, time_s: int) -> SignatureLine:
        line = WA.cosign(checkpoint, time_s)
        die_at("signed")
        return line


class DyingStore(WitnessStore):
    """SQLite tells each statement before it runs: the COMMIT follows what was recorded."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.set_trace_callback(lambda statement: die_at("recorded") if statement == "COMMIT" else None)


if __name__ == "__main__":
    store = DyingStore(Path(sys.argv[1]) / "witness.sqlite")
    die_at("opened")
    witness = Witness({ORIGIN: (LogKey(LOG.key),)}, [DyingCosigner()], store, DyingClock(), print)
    request = FakeLog(leaves(9)).request(int(sys.argv[3]), int(sys.argv[4]))
    witness.trusted(request.note, ORIGIN)
    die_at("verified")
    answer = witness.add_checkpoint(request)
    assert isinstance(answer, Cosigned)
    die_at("durable")
    sys.stdout.buffer.write("".join(map(str, answer.lines)).encode())
    sys.stdout.flush()
    die_at("answered")
