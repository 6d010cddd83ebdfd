"""Cosignatures of both kinds (C2SP tlog-cosignature)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.samples import LOG, PQ, T0, WA, WB, checkpoint

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.cosignature import (
    MAX_TIME,
    BadCosignatureError,
    Cosigner,
    CosignerKey,
    MLDSA44Cosigner,
    ed25519_message,
    time_of,
)
from schleuse.journal.note import NoteRefusedError, SignatureLine, open_note, parse_lines

HERE = checkpoint(9)
both = pytest.mark.parametrize("cosigner", [WA, PQ], ids=["Ed25519", "ML-DSA-44"])


@both
@pytest.mark.parametrize("time_s", [0, T0, MAX_TIME])
def test_a_cosignature_verifies_and_tells_its_time(cosigner: Cosigner, time_s: int) -> None:
    line = cosigner.cosign(HERE, time_s)
    assert CosignerKey(cosigner.key).verifies(HERE.text, line.signature)
    assert time_of(line.signature) == time_s
    assert parse_lines(str(line)) == [line]


@both
@pytest.mark.parametrize("time_s", [-1, MAX_TIME + 1])
def test_a_time_outside_the_range_is_not_signed(cosigner: Cosigner, time_s: int) -> None:
    with pytest.raises(BadCosignatureError):
        cosigner.cosign(HERE, time_s)


@both
@settings(max_examples=40)
@given(data=st.data())
def test_no_flipped_bit_verifies(cosigner: Cosigner, data: st.DataObject) -> None:
    signature = bytearray(cosigner.cosign(HERE, T0).signature)
    signature[data.draw(st.integers(0, len(signature) - 1))] ^= data.draw(st.integers(1, 255))
    assert not CosignerKey(cosigner.key).verifies(HERE.text, bytes(signature))


@both
@settings(max_examples=40)
@given(st.binary(max_size=80))
def test_any_bytes_are_no_cosignature(cosigner: Cosigner, signature: bytes) -> None:
    assert not CosignerKey(cosigner.key).verifies(HERE.text, signature)


@both
@pytest.mark.parametrize(
    "other",
    [replace(HERE, size=8), replace(HERE, root=bytes(32)), replace(HERE, origin="journal.example/kasse-b/2027")],
    ids=["size", "root", "origin"],
)
def test_a_cosignature_is_of_one_size_root_and_origin(cosigner: Cosigner, other: Checkpoint) -> None:
    assert not CosignerKey(cosigner.key).verifies(other.text, cosigner.cosign(HERE, T0).signature)


@both
def test_a_text_that_is_no_checkpoint_has_no_cosignatures(cosigner: Cosigner) -> None:
    assert not CosignerKey(cosigner.key).verifies("text\n", cosigner.cosign(HERE, T0).signature)


@both
def test_a_cosignature_is_opened_with_the_note_of_the_log(cosigner: Cosigner) -> None:
    note = HERE.signed_by(LOG).with_lines([cosigner.cosign(HERE, T0)])
    ((verifier, line),) = open_note(note, [CosignerKey(cosigner.key)])
    assert verifier.key == cosigner.key
    assert time_of(line.signature) == T0


def test_a_time_alone_is_no_cosignature() -> None:
    with pytest.raises(BadCosignatureError):
        time_of(bytes(8))
    with pytest.raises(BadCosignatureError):
        time_of((2**63).to_bytes(8) + bytes(64))
    assert time_of((2**63 - 1).to_bytes(8) + b"s") == MAX_TIME


def test_a_line_moved_to_another_witness_is_refused() -> None:
    line = WA.cosign(HERE, T0)
    moved = SignatureLine(WB.key.name, WB.key.id, line.signature)
    with pytest.raises(NoteRefusedError):
        open_note(HERE.signed_by(LOG).with_lines([moved]), [CosignerKey(WB.key)])


def test_the_cosigned_message_has_all_lines_of_the_text_and_nothing_else() -> None:
    """journal.md § 19: no empty line and no signature line."""
    extended = replace(HERE, extensions=("more",))
    assert ed25519_message(extended.text, 7) == b"cosignature/v1\ntime 7\n" + HERE.text.encode() + b"more\n"


def test_ed25519_is_deterministic_and_mldsa44_is_not() -> None:
    """journal.md § 19: compare ML-DSA signatures by verifying, not by bytes."""
    assert WA.cosign(HERE, T0) == WA.cosign(HERE, T0)
    one, other = PQ.cosign(HERE, T0), PQ.cosign(HERE, T0)
    assert one != other
    assert all(CosignerKey(PQ.key).verifies(HERE.text, line.signature) for line in (one, other))


def test_a_name_may_have_exactly_255_bytes() -> None:
    long = MLDSA44Cosigner("n" * 255, PQ._private_key)
    assert CosignerKey(long.key).verifies(HERE.text, long.cosign(HERE, T0).signature)


def test_a_name_too_long_for_the_mldsa44_message_is_refused() -> None:
    long = MLDSA44Cosigner("n" * 256, PQ._private_key)
    with pytest.raises(BadCosignatureError):
        long.cosign(HERE, T0)
    assert not CosignerKey(PQ.key).verifies(replace(HERE, origin="o" * 256).text, PQ.cosign(HERE, T0).signature)
