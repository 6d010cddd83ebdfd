"""A log that rests is cosigned again and again; its note must not grow until nobody can read it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.cosignature import Ed25519Cosigner, time_of
from schleuse.journal.note import LogSigner, Note, parse_note
from schleuse.journal.publish import thinned

HERE = Checkpoint("journal.test.example/109900011/2026", 7, bytes(32))
LOG = LogSigner(HERE.origin, Ed25519PrivateKey.generate())
WITNESSES = [Ed25519Cosigner(f"witness.{name}.example", Ed25519PrivateKey.generate()) for name in "abc"]


def test_a_day_of_refreshed_cosignatures_leaves_a_note_that_can_be_read() -> None:
    note = HERE.signed_by(LOG)
    for minute in range(0, 24 * 60, 5):
        note = thinned(note.with_lines(one.cosign(HERE, 1_764_000_000 + 60 * minute) for one in WITNESSES))
        assert parse_note(note.encode()) == note
    assert len(note.lines) == 1 + 2 * len(WITNESSES)


@given(st.lists(st.tuples(st.sampled_from(WITNESSES), st.integers(1_764_000_000, 1_764_090_000)), max_size=20))
def test_of_each_witness_the_first_and_the_last_line_stay(came: list[tuple[Ed25519Cosigner, int]]) -> None:
    note: Note = HERE.signed_by(LOG)
    for witness, time in came:
        note = thinned(note.with_lines([witness.cosign(HERE, time)]))
    for witness in WITNESSES:
        times = [time for one, time in came if one is witness]
        mine = [time_of(line.signature) for line in note.lines if line.name == witness.key.name]
        assert {min(times), max(times)} == set(mine) if times else not mine
