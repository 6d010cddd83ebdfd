"""A witness never signs two histories, and keeps what shows that a log did (journal.md § 9.1, § 11.5, § 18)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.samples import LOG, ORIGIN, PQ, T0, VECTORS, WA, WB, checkpoint, leaves, policy, tree
from tests.witness.parties import FakeLog, Party, rewritten

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.cosignature import CosignerKey
from schleuse.journal.note import LogSigner, NoteRefusedError, open_note, parse_note
from schleuse.journal.proof import is_consistent
from schleuse.journal.witness_request import WitnessRequest, parse_witness_request
from schleuse.witness.alarm import Finding
from schleuse.witness.decision import (
    CLOCK_SLACK_S,
    ClockBackError,
    Conflict,
    Contradiction,
    Cosign,
    Remembered,
    StateLostError,
    decide,
)
from schleuse.witness.service import Cosigned, UnknownOriginError
from schleuse.witness.store import UnreadableMemoryError, WitnessStore


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return Party(tmp_path)


def cosign(party: Party, log: FakeLog, old: int, size: int) -> Cosigned:
    answer = party.witness.add_checkpoint(log.request(old, size))
    assert isinstance(answer, Cosigned)
    return answer


def test_the_published_request_gets_the_published_answer(party: Party) -> None:
    cosign(party, FakeLog(leaves(5)), 0, 5)
    answer = party.witness.add_checkpoint(parse_witness_request(VECTORS["witness"]["request"].encode()))
    assert isinstance(answer, Cosigned)
    assert "".join(map(str, answer.lines)) == VECTORS["witness"]["response_of_wa"]


def test_both_kinds_of_key_cosign_together(tmp_path: Path) -> None:
    party = Party(tmp_path, (WA, PQ))
    answer = cosign(party, FakeLog(leaves(9)), 0, 9)
    opened = open_note(answer.note, [CosignerKey(WA.key), CosignerKey(PQ.key)])
    assert len(opened) == 2


def test_the_published_fork_is_refused_and_kept_with_both_notes(party: Party) -> None:
    mine = cosign(party, FakeLog(leaves(9)), 0, 9)
    fork = parse_note(VECTORS["fork_of_size_9"].encode())
    request = WitnessRequest(9, (), Checkpoint(ORIGIN, 9, _root(fork.text)), fork)
    assert isinstance(party.witness.add_checkpoint(request), Contradiction)
    (kept,) = party.store.evidence()
    assert (kept.finding, kept.theirs, kept.ours) == (Finding.FORK, fork.encode(), mine.note.encode())
    assert party.findings == [Finding.FORK]


def test_the_published_fork_is_refused_after_size_five_with_any_proof(party: Party) -> None:
    log = FakeLog(leaves(9))
    cosign(party, log, 0, 5)
    fork = parse_note(VECTORS["fork_of_size_9"].encode())
    for proof in ((), log.request(5, 9).proof):
        answer = party.witness.add_checkpoint(WitnessRequest(5, proof, Checkpoint(ORIGIN, 9, _root(fork.text)), fork))
        assert answer == Contradiction(False, f"{ORIGIN} signed size 9 without proof that it continues size 5")
    assert party.size == 5
    assert [one.finding for one in party.store.evidence()] == [Finding.UNPROVEN]


def _root(text: str) -> bytes:
    from schleuse.journal.checkpoint import parse_checkpoint

    return parse_checkpoint(text).root


def test_a_fork_that_comes_with_the_wrong_old_size_is_kept_as_well(party: Party) -> None:
    cosign(party, FakeLog(leaves(9)), 0, 9)
    assert party.witness.add_checkpoint(FakeLog(rewritten(9, 3)).request(5, 9)) == Conflict(9, fork=True)
    assert party.findings == [Finding.FORK]


def test_a_rewritten_tail_is_never_cosigned(party: Party) -> None:
    """T-09: the last 1,000 entries deleted, the tree computed anew, signed with the real key."""
    log = FakeLog(leaves(3000))
    cosign(party, log, 0, 3000)
    log.now_holds([*leaves(2000), *(b"new" for _ in range(1500))])
    assert isinstance(party.witness.add_checkpoint(log.request(3000, 3500)), Contradiction)
    assert party.witness.add_checkpoint(log.request(2000, 3500)) == Conflict(3000, fork=False)
    assert isinstance(party.witness.add_checkpoint(log.request(3000, 3000)), Contradiction)
    assert party.size == 3000
    assert sorted(party.findings) == [Finding.FORK, Finding.UNPROVEN]


def test_an_older_checkpoint_is_not_cosigned_again(party: Party) -> None:
    log = FakeLog(leaves(9))
    cosign(party, log, 0, 9)
    assert party.witness.add_checkpoint(log.request(0, 5)) == Conflict(9, fork=False)
    assert party.alarms == []


def test_the_same_checkpoint_gets_a_newer_time(party: Party) -> None:
    log = FakeLog(leaves(9))
    first = cosign(party, log, 0, 9)
    party.clock.move(60)
    second = cosign(party, log, 9, 9)
    assert policy("wa").judge(first.note).times == {"wa": T0}
    assert policy("wa").judge(second.note).times == {"wa": T0 + 60}


def test_evidence_is_kept_once_however_often_a_stranger_sends_it(party: Party) -> None:
    cosign(party, FakeLog(leaves(9)), 0, 9)
    fork = FakeLog(rewritten(9, 3)).request(9, 9)
    for number in range(5):
        stranger = LogSigner(f"stranger-{number}", LOG._private_key)
        party.witness.add_checkpoint(replace(fork, note=fork.note.with_lines([stranger.sign(fork.note.text)])))
    assert len(party.store.evidence()) == len(party.alarms) == 1


def test_unknown_logs_and_false_signatures_change_nothing(party: Party) -> None:
    request = FakeLog(leaves(9)).request(0, 9)
    other = replace(request.checkpoint, origin="journal.example/nobody/2027")
    with pytest.raises(UnknownOriginError):
        party.witness.add_checkpoint(replace(request, checkpoint=other))
    line = request.note.lines[0]
    false = replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
    unsigned = replace(request.note, lines=(replace(line, name="somebody"),))
    for note in (replace(request.note, lines=(false,)), unsigned, replace(request.note, lines=(line, false))):
        with pytest.raises(NoteRefusedError):
            party.witness.add_checkpoint(replace(request, note=note))
    assert (party.size, party.alarms) == (0, [])


def test_an_old_copy_of_the_database_is_noticed(party: Party, tmp_path: Path) -> None:
    log = FakeLog(leaves(9))
    cosign(party, log, 0, 5)
    party.store.close()
    shutil.copy(party.path, tmp_path / "backup")
    party.restart()
    seen = cosign(party, log, 5, 9)
    party.store.close()
    shutil.copy(tmp_path / "backup", party.path)
    party.restart()
    assert party.size == 5
    with pytest.raises(StateLostError):
        party.witness.add_checkpoint(replace(log.request(5, 9), note=seen.note))


def test_a_clock_that_was_set_back_does_not_make_cosignatures_that_contradict(party: Party) -> None:
    log = FakeLog(leaves(9))
    cosign(party, log, 0, 5)
    party.clock.move(-CLOCK_SLACK_S)
    assert policy("wa").judge(cosign(party, log, 5, 6).note).times == {"wa": T0}
    party.clock.move(-1)
    with pytest.raises(ClockBackError):
        party.witness.add_checkpoint(log.request(6, 9))
    assert party.size == 6


class FailingCosigner:
    """Fails where a real one would sign."""

    key = WA.key

    def cosign(self, checkpoint: Checkpoint, time_s: int) -> None:
        raise OSError("no HSM")


def test_what_fails_while_signing_leaves_no_trace(tmp_path: Path) -> None:
    party = Party(tmp_path, (FailingCosigner(),))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no HSM"):
        party.witness.add_checkpoint(FakeLog(leaves(9)).request(0, 9))
    party.restart()
    assert party.size == 0


def test_two_witnesses_do_not_need_each_other(tmp_path: Path) -> None:
    log = FakeLog(leaves(9))
    one, other = Party(tmp_path / "a"), Party(tmp_path / "b", (WB,))
    note = cosign(one, log, 0, 9).note.with_lines(cosign(other, log, 0, 9).lines)
    assert policy("wa").judge(note).times == {"wa": T0, "wb": T0}
    log.now_holds(rewritten(12, 2))
    assert isinstance(one.witness.add_checkpoint(log.request(9, 12)), Contradiction)
    assert isinstance(other.witness.add_checkpoint(log.request(9, 12)), Contradiction)


@pytest.mark.parametrize(
    "order",
    [
        "UPDATE log SET size = size - 1",
        "UPDATE log SET root = zeroblob(32)",
        "DELETE FROM log",
        "DELETE FROM evidence",
        "UPDATE evidence SET reason = ''",
    ],
)
def test_the_database_itself_refuses_to_forget(party: Party, order: str) -> None:
    cosign(party, FakeLog(leaves(9)), 0, 9)
    party.witness.add_checkpoint(FakeLog(rewritten(9, 3)).request(9, 9))
    with pytest.raises(sqlite3.IntegrityError):
        party.store._connection.execute(order)


def test_a_row_that_contradicts_its_note_stops_the_log(party: Party) -> None:
    cosign(party, FakeLog(leaves(9)), 0, 9)
    party.store._connection.execute("UPDATE log SET size = 10")
    with pytest.raises(UnreadableMemoryError):
        party.witness.add_checkpoint(FakeLog(leaves(12)).request(10, 12))


def test_the_memory_of_a_log_is_small(party: Party) -> None:
    cosign(party, FakeLog(leaves(9)), 0, 9)
    (bytes_,) = party.store._connection.execute(
        "SELECT length(origin) + 8 + length(root) + 8 + length(note) FROM log"
    ).fetchone()
    assert bytes_ < 500


def test_two_processes_on_one_file_decide_one_after_the_other(party: Party) -> None:
    other = WitnessStore(party.path)
    try:
        cosign(party, FakeLog(leaves(9)), 0, 9)
        assert other.last(ORIGIN) == party.store.last(ORIGIN)
    finally:
        other.close()


MAX = 12
HISTORIES = [leaves(MAX), rewritten(MAX, 2), rewritten(MAX, 7), rewritten(MAX, 11)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HISTORIES), st.integers(0, MAX), st.integers(0, MAX)), max_size=12))
def test_whatever_a_log_asks_all_that_was_cosigned_is_one_history(
    asked: list[tuple[list[bytes], int, int]],
) -> None:
    last: Remembered | None = None
    cosigned: list[tuple[list[bytes], int]] = []
    for entries, old, size in asked:
        if old > size:
            continue
        log = FakeLog(entries)
        request = log.request(old, size)
        answer = decide(request, last, now_s=T0, ours=False)
        if isinstance(answer, Cosign):
            last = Remembered(request.checkpoint, answer.time_s, request.note)
            cosigned.append((entries, size))
    for (one, small), (two, large) in pairwise(cosigned):
        assert small <= large
        assert one[:small] == two[:small]


@given(st.integers(1, 9), st.integers(0, 9), st.data())
def test_no_changed_proof_is_taken(old: int, size: int, data: st.DataObject) -> None:
    if old >= size:
        return
    request = FakeLog(leaves(9)).request(old, size)
    at = data.draw(st.integers(0, max(0, len(request.proof) - 1)))
    flip: Callable[[bytes], bytes] = lambda h: bytes([h[0] ^ 1]) + h[1:]  # noqa: E731
    changed = tuple(flip(h) if i == at else h for i, h in enumerate(request.proof))
    last = Remembered(checkpoint(old), T0, checkpoint(old).signed_by(LOG))
    if changed != request.proof:
        answer = decide(replace(request, proof=changed), last, now_s=T0, ours=False)
        assert isinstance(answer, Contradiction)
    assert is_consistent(old, size, tree(old).root(), tree(size).root(), request.proof)
