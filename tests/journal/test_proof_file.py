"""Proof files (C2SP tlog-proof): verified with the file, the entry and a policy alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import AN_ENTRY, LOG, T0, VECTORS, WA, WC, cosigned, leaves, policy, tree
from tests.journal.test_opening import OPENED, OPENING

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.note import NoteRefusedError
from schleuse.journal.opening import parse_opening
from schleuse.journal.policy import NoQuorumError
from schleuse.journal.proof import BadProofError, inclusion_path
from schleuse.journal.proof_file import NotProvenError, ProofFile, parse_proof_file, verify
from schleuse.journal.tree import MemoryTree

TEXT: str = VECTORS["tlog_proof"]["text"]
PROOF = parse_proof_file(TEXT.encode())
ALLE = policy("alle")


@given(st.integers(0, 69_999), st.integers(1, 70_000), st.none() | st.binary(max_size=50))
def test_a_proof_comes_back_from_its_file(number: int, size: int, extra: bytes | None) -> None:
    proof = ProofFile(number % size, tuple(inclusion_path(number % size, size, tree(70_000))), cosigned(9), extra)
    assert parse_proof_file(proof.encode()) == proof


@pytest.mark.parametrize("index", range(9))
def test_every_entry_of_a_log_can_be_proven(index: int) -> None:
    proof = replace(PROOF, index=index, path=tuple(inclusion_path(index, 9, tree(9))))
    assert verify(proof, leaves(9)[index], ALLE).index == index


def test_a_log_of_one_entry_needs_no_path() -> None:
    proof = ProofFile(0, (), cosigned(1))
    assert verify(parse_proof_file(proof.encode()), b"leaf-0", ALLE).size == 1


def test_another_entry_or_another_place_is_not_proven() -> None:
    with pytest.raises(NotProvenError):
        verify(PROOF, b"leaf-6", ALLE)
    with pytest.raises(NotProvenError):
        verify(replace(PROOF, index=4), b"leaf-5", ALLE)
    with pytest.raises(BadProofError):
        verify(replace(PROOF, index=8), b"leaf-5", ALLE)
    with pytest.raises(BadProofError):
        verify(replace(PROOF, path=PROOF.path[:-1]), b"leaf-5", ALLE)


def test_too_few_witnesses_or_no_log_prove_nothing() -> None:
    note = PROOF.note
    with pytest.raises(NoQuorumError):
        verify(replace(PROOF, note=replace(note, lines=note.lines[:2])), b"leaf-5", ALLE)
    with pytest.raises(NoteRefusedError):
        verify(replace(PROOF, note=replace(note, lines=note.lines[1:])), b"leaf-5", ALLE)


class TestWithAnOpening:
    LOG_OF_TWO = MemoryTree([b"leaf-0", OPENED.encode()])
    HERE = Checkpoint(LOG.key.name, 2, LOG_OF_TWO.root())
    NOTE = HERE.signed_by(LOG).with_lines([WA.cosign(HERE, T0), WC.cosign(HERE, T0)])
    PROOF = ProofFile(1, (leaf_hash(b"leaf-0"),), NOTE, OPENING.encode())

    def test_the_entry_and_what_it_stands_for_are_proven(self) -> None:
        extra = parse_proof_file(self.PROOF.encode()).extra
        assert extra is not None
        assert verify(self.PROOF, OPENED.encode(), ALLE, parse_opening(extra)).entry == OPENED

    def test_an_opening_of_another_entry_is_not_proven(self) -> None:
        other = replace(OPENING, object_=None, detail=(bytes(16), b"{}"))
        with pytest.raises(NotProvenError):
            verify(self.PROOF, OPENED.encode(), ALLE, other)

    def test_an_entry_that_is_not_ours_has_no_opening(self) -> None:
        with pytest.raises(NotProvenError):
            verify(PROOF, b"leaf-5", ALLE, OPENING)

    def test_extra_is_a_hint_and_proves_nothing_by_being_there(self) -> None:
        assert verify(replace(self.PROOF, extra=b"lie"), OPENED.encode(), ALLE).index == 1

    def test_a_proof_does_not_leak_its_extra_by_being_printed(self) -> None:
        assert "Beispiel" not in repr(replace(self.PROOF, extra=b"Praxis Dr. Beispiel"))

    def test_the_same_event_with_one_bit_changed_is_not_proven(self) -> None:
        changed = bytearray(OPENED.encode())
        changed[-1] ^= 1
        with pytest.raises(NotProvenError):
            verify(self.PROOF, bytes(changed), ALLE)
        assert OPENED != AN_ENTRY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("index 5\n", ""),
        TEXT.replace("index 5", "index 05"),
        TEXT.replace("index 5", "index +5"),
        TEXT.replace("index 5", "index  5"),
        TEXT.replace("index 5", "index ٥"),
        TEXT.replace("index 5", "Index 5"),
        TEXT.replace("index 5", "index 5\nextra AA=="),
        TEXT.replace("index 5", "extra AB==\nindex 5"),
        TEXT.replace("index 5", "extra AA==\nextra AA==\nindex 5"),
        TEXT.replace("index 5", "index 5\nindex 5"),
        TEXT.replace("index 5", "index 5\nAAAA"),
        TEXT.replace("index 5", "index 5\n" + "c" * 64),
        TEXT.replace("index 5\n", "index 5\n" + (TEXT.split("\n")[2] + "\n") * 60),
        TEXT.replace("index 5", "index 5\n"),
        TEXT.replace("\n", "\r\n"),
        TEXT.split("\n\n", maxsplit=1)[0] + "\n\n",
        TEXT + " " * (1 << 20),
    ],
)
def test_what_breaks_the_form_is_malformed(text: str) -> None:
    assert text != TEXT
    with pytest.raises(MalformedError):
        parse_proof_file(text.encode())


@given(st.integers(0, len(TEXT.encode()) - 1), st.integers(1, 255))
def test_no_flipped_bit_proves_anything_else(at: int, mask: int) -> None:
    data = bytearray(TEXT.encode())
    data[at] ^= mask
    try:
        proven = verify(parse_proof_file(bytes(data)), b"leaf-5", ALLE)
    except (MalformedError, NoteRefusedError, NotProvenError):
        return
    # Only the line of a witness that the quorum can spare may have become unknown.
    assert (proven.origin, proven.index, proven.size) == (LOG.key.name, 5, 9)
    assert len(proven.witnesses) == 2


@given(st.binary(max_size=80))
def test_any_file_is_a_proof_or_malformed(data: bytes) -> None:
    for content in (data, b"c2sp.org/tlog-proof@v1\n" + data, TEXT.encode() + data):
        try:
            assert parse_proof_file(content).encode() == content
        except MalformedError:
            continue
