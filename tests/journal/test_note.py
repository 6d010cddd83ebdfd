"""Signed notes (C2SP signed-note): parsing, keys, and what spoils a note."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import LOG, ORIGIN, PQ, VECTORS, WA, WB, WC, checkpoint, cosigned

from schleuse.errors import MalformedError
from schleuse.journal.cosignature import CosignerKey
from schleuse.journal.note import (
    MAX_LINES,
    MAX_NOTE,
    BadNoteError,
    KeyKind,
    LogKey,
    LogSigner,
    Note,
    NoteRefusedError,
    SignatureLine,
    VerifierKey,
    open_note,
    parse_lines,
    parse_note,
    parse_vkey,
)

NOTE = VECTORS["checkpoint_9_with_3_cosignatures"].encode()
KNOWN = LogKey(LOG.key)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=9)
LINES = st.builds(SignatureLine, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=30).map(
    lambda t: t + "\n"
)


def test_the_example_of_the_signed_note_text_opens() -> None:
    """The note of Go's sumdb/note package, which the specification quotes: our code and theirs read the same."""
    key = parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    note = parse_note(f"{text}\n{line}".encode())
    assert open_note(note, [LogKey(key)]) == [(LogKey(key), note.lines[0])]


@given(TEXTS, st.lists(LINES, min_size=1, max_size=20))
def test_a_note_comes_back_from_its_bytes(text: str, lines: list[SignatureLine]) -> None:
    note = Note(text, tuple(lines))
    assert parse_note(note.encode()) == note


@given(st.binary(max_size=60) | st.text("— a+\n=A", max_size=60).map(str.encode))
def test_noise_is_a_note_with_these_bytes_or_malformed(data: bytes) -> None:
    try:
        assert parse_note(data).encode() == data
    except MalformedError:
        return


@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_no_flipped_bit_gets_through(at: int, mask: int) -> None:
    data = bytearray(NOTE)
    data[at] ^= mask
    # A bit in the name or key id of a witness's line makes it nobody's: one signature less, never another one.
    assert who_signed(bytes(data)) < who_signed(NOTE)


def who_signed(data: bytes) -> set[str]:
    """Names of the known keys that have signed, if all that is known is true, else nobody."""
    try:
        note = parse_note(data)
        open_note(note, [KNOWN])
        witnesses = open_note(note, [CosignerKey(w.key) for w in (WA, WB, WC)])
    except (MalformedError, NoteRefusedError):
        return set()
    return {verifier.key.name for verifier, _ in witnesses}


@given(st.integers(0, len(NOTE) - 1))
def test_a_note_that_was_cut_is_malformed(length: int) -> None:
    lines = [index + 1 for index, octet in enumerate(NOTE) if octet == 0x0A][-4:]
    if length not in lines:
        with pytest.raises(MalformedError):
            parse_note(NOTE[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n\n",
        b"text\n\n\n",
        b"text\n",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"text\n",
        NOTE.replace(b"\n", b"\r\n"),
        NOTE.replace(b"journal", b"journ\0l"),
        NOTE.replace(b"journal", b"journ\xffl"),
        NOTE.replace(b"journal", b"journ\xed\xa0\x80l"),
        NOTE.replace("— wit".encode(), "—  wit".encode()),
        NOTE.replace("— wit".encode(), b"- wit"),
        NOTE.replace("— wit".encode(), " — wit".encode()),
        NOTE.replace("— witness".encode(), "—".encode()),
        NOTE.replace(b"kasse-b f", b"kasse-b\xc2\xa0f"),
        NOTE.replace(b"kasse-b f", b"kasse-b  f"),
        NOTE.replace(b"kasse-b f", b"kasse-b+ f"),
        NOTE.replace(b"FAA==", b"FAB=="),
        NOTE[:-3] + b"\n",
        b"text\n\n" + "— a AAAAAA==\n".encode(),
    ],
)
def test_what_breaks_a_rule_of_the_form_is_malformed(data: bytes) -> None:
    if data == NOTE:
        pytest.fail("the case changes nothing")
    with pytest.raises(MalformedError):
        parse_note(data)


def test_a_signature_of_one_byte_is_enough_for_the_form() -> None:
    assert parse_note("text\n\n— a AAAAAAA=\n".encode()).lines == (SignatureLine("a", bytes(4), b"\0"),)


def test_the_text_ends_at_the_last_empty_line() -> None:
    note = Note("a\n\nb\n", (LOG.sign("a\n\nb\n"),))
    assert parse_note(note.encode()) == note
    assert open_note(note, [KNOWN])


def test_a_note_has_at_most_its_size() -> None:
    line = str(LOG.sign("x\n"))
    room = MAX_NOTE - len(line.encode()) - 2
    assert parse_note(f"{'x' * room}\n\n{line}".encode()).text == "x" * room + "\n"
    with pytest.raises(BadNoteError):
        parse_note(f"{'x' * (room + 1)}\n\n{line}".encode())


def test_at_least_16_lines_are_taken_and_not_endlessly_many() -> None:
    line = str(LOG.sign("x\n"))
    assert len(parse_note(f"x\n\n{line * 16}".encode()).lines) == 16
    assert len(parse_lines(line * MAX_LINES)) == MAX_LINES
    with pytest.raises(BadNoteError):
        parse_lines(line * (MAX_LINES + 1))


def test_a_false_line_of_a_known_key_spoils_the_note_and_of_an_unknown_one_does_not() -> None:
    note = checkpoint(9).signed_by(LOG)
    false = replace(note.lines[0], signature=bytes(64))
    with pytest.raises(NoteRefusedError):
        open_note(note.with_lines([false]), [KNOWN])
    stranger = SignatureLine("stranger", LOG.key.id, bytes(64))
    other_key = SignatureLine(ORIGIN, bytes(4), bytes(64))
    assert len(open_note(note.with_lines([stranger, other_key]), [KNOWN])) == 1


def test_a_note_without_a_line_of_a_known_key_is_refused() -> None:
    with pytest.raises(NoteRefusedError):
        open_note(cosigned(9), [])
    with pytest.raises(NoteRefusedError):
        open_note(checkpoint(9).signed_by(LOG), [CosignerKey(WA.key)])


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65)])
def test_a_signature_of_another_length_is_false_and_no_accident(signature: bytes) -> None:
    assert not KNOWN.verifies("x\n", signature)


def test_both_keys_sign_while_a_key_is_rotated() -> None:
    new = LogSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32))
    note = checkpoint(9).signed_by(LOG).with_lines([new.sign(checkpoint(9).text)])
    for known in ([KNOWN], [LogKey(new.key)], [KNOWN, LogKey(new.key)]):
        assert len(open_note(note, known)) == len(known)


def test_the_same_line_is_added_once() -> None:
    note = cosigned(9)
    assert note.with_lines(note.lines) == note
    assert note.with_lines([PQ.cosign(checkpoint(9), 1)]).lines[:4] == note.lines


def test_two_verifiers_that_cannot_be_told_apart_are_a_mistake() -> None:
    with pytest.raises(BadNoteError):
        open_note(cosigned(9), [KNOWN, KNOWN])


@given(NAMES, st.sampled_from([KeyKind.ED25519, KeyKind.COSIGNATURE_ED25519]), st.binary(min_size=32, max_size=32))
def test_a_key_comes_back_from_its_vkey(name: str, kind: KeyKind, public_key: bytes) -> None:
    key = VerifierKey(name, kind, public_key)
    assert parse_vkey(key.vkey) == key


def test_a_vkey_is_split_at_its_first_two_plus_signs() -> None:
    """Base64 contains "+" (journal.md § 19): the key of wb has none, this one has."""
    key = VerifierKey("a", KeyKind.ED25519, bytes(2) + b"\xfb\xef\xbe" * 10)
    assert key.vkey.count("+") > 2
    assert parse_vkey(key.vkey) == key


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000",
        LOG.key.vkey.replace("9a58a093", "9a58a094"),
        LOG.key.vkey.replace("9a58a093", "9A58A093"),
        LOG.key.vkey.replace("journal", "journaI"),
        LOG.key.vkey + "=",
        LOG.key.vkey[:-4],
        "+9a58a093+" + LOG.key.vkey.split("+", 2)[2],
        "a b+9a58a093+" + LOG.key.vkey.split("+", 2)[2],
        "name+00000000+",
        "name+00000000+AAAA",
        "name+00000000+BQ==",
    ],
)
def test_a_vkey_that_does_not_agree_with_itself_is_malformed(vkey: str) -> None:
    with pytest.raises(MalformedError):
        parse_vkey(vkey)


@given(st.text(max_size=60))
def test_any_vkey_gets_an_answer(vkey: str) -> None:
    try:
        assert parse_vkey(vkey).vkey == vkey
    except MalformedError:
        return


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\tb", "a\u0085b", "a\u3000b", "\ud800"]
)
def test_a_name_that_could_be_read_in_two_ways_is_refused(name: str) -> None:
    with pytest.raises(BadNoteError):
        VerifierKey(name, KeyKind.ED25519, bytes(32))


@pytest.mark.parametrize("text", ["", "x", "x\ry\n", "\x00\n", "\ud800\n"])
def test_a_text_that_nobody_could_read_back_is_not_signed(text: str) -> None:
    with pytest.raises(BadNoteError):
        LOG.sign(text)


def test_a_line_begins_with_the_three_bytes_of_the_em_dash() -> None:
    assert str(LOG.sign("x\n")).encode().startswith(b"\xe2\x80\x94 ")


def test_keys_of_logs_and_of_witnesses_are_not_exchanged() -> None:
    with pytest.raises(BadNoteError):
        LogKey(WA.key)
    with pytest.raises(BadNoteError):
        CosignerKey(LOG.key)


def test_a_private_key_is_not_printed() -> None:
    assert "01010101" not in f"{LOG!r}{vars(LOG)!r}"
