"""kill -9 at each step: what left the witness, it remembers; what it remembers, it can sign again (§ 9.1, § 18)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.journal.samples import leaves
from tests.witness.dying import STEPS
from tests.witness.parties import FakeLog, Party, rewritten

from schleuse.witness.decision import Conflict, Contradiction
from schleuse.witness.service import Cosigned


def child(folder: Path, step: str, old: int, size: int) -> tuple[int, bytes]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.witness.dying", str(folder), step, str(old), str(size)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "src:."},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_witness_that_is_killed_forgets_nothing_that_it_has_said(tmp_path: Path, step: str) -> None:
    party = Party(tmp_path)
    party.witness.add_checkpoint(FakeLog(leaves(9)).request(0, 5))
    party.store.close()
    code, said = child(tmp_path, step, 5, 9)
    assert code == -signal.SIGKILL
    party.restart()
    durable = step in {"durable", "answered"}
    assert (party.size, bool(said)) == (9 if durable else 5, step == "answered")
    fork = FakeLog(rewritten(9, 7))
    refused = party.witness.add_checkpoint(fork.request(party.size, 9) if durable else fork.request(9, 9))
    assert isinstance(refused, Contradiction if durable else Conflict)
    again = party.witness.add_checkpoint(FakeLog(leaves(9)).request(party.size, 9))
    assert isinstance(again, Cosigned)
    if said:
        assert "".join(map(str, again.lines)).encode() == said
