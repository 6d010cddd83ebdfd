"""Checkpoints (C2SP tlog-checkpoint) and the rules of whoever signs them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import LOG, ORIGIN, VECTORS, WA, checkpoint, cosigned

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import (
    Checkpoint,
    NotSignableError,
    check_signable,
    contradict,
    open_checkpoint,
    parse_checkpoint,
)
from schleuse.journal.note import LogKey, Note, NoteRefusedError

KNOWN = [LogKey(LOG.key)]
TEXT = VECTORS["checkpoint_5"].split("\n\n")[0] + "\n"
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9)


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.lists(LINES, max_size=3))
def test_a_checkpoint_comes_back_from_its_text(size: int, root: bytes, extensions: list[str]) -> None:
    here = Checkpoint(ORIGIN, size, root, tuple(extensions))
    assert parse_checkpoint(here.text) == here


@given(st.text(max_size=50) | st.text("0123456789\n=A", max_size=80))
def test_any_text_is_a_checkpoint_or_malformed(text: str) -> None:
    try:
        assert parse_checkpoint(text).text == text
    except MalformedError:
        return


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        TEXT[:-1],
        TEXT + "\n",
        TEXT + "extension",
        TEXT.replace("\n5\n", "\n05\n"),
        TEXT.replace("\n5\n", "\n+5\n"),
        TEXT.replace("\n5\n", "\n 5\n"),
        TEXT.replace("\n5\n", "\n٥\n"),
        TEXT.replace("\n5\n", "\n5_0\n"),
        TEXT.replace("\n5\n", f"\n{2**63}\n"),
        TEXT.replace("\n5\n", "\n\n"),
        TEXT.replace("oY=", "oZ="),
        TEXT.replace("=\n", "\n"),
        TEXT.replace(ORIGIN, ""),
        TEXT.replace(ORIGIN, "two words"),
    ],
)
def test_what_breaks_the_form_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(text)


def test_extension_lines_are_tolerated_and_signed_over() -> None:
    here = replace(checkpoint(5), extensions=("more",))
    note = here.signed_by(LOG)
    assert open_checkpoint(note, KNOWN) == here
    with pytest.raises(NoteRefusedError):
        open_checkpoint(Note(checkpoint(5).text, note.lines), KNOWN)


@pytest.mark.parametrize(
    "change", [{"size": -1}, {"size": 2**63}, {"root": bytes(31)}, {"extensions": ("",)}, {"origin": ""}]
)
def test_a_checkpoint_that_exists_is_valid(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        replace(checkpoint(5), **change)


def test_a_log_does_not_sign_for_another_origin() -> None:
    with pytest.raises(MalformedError):
        replace(checkpoint(5), origin="journal.example/kasse-b/2027").signed_by(LOG)


def test_a_known_key_is_not_believed_about_another_origin() -> None:
    foreign = replace(checkpoint(5), origin="journal.example/kasse-b/2027")
    with pytest.raises(NoteRefusedError):
        open_checkpoint(Note(foreign.text, (LOG.sign(foreign.text),)), KNOWN)


def test_lines_of_witnesses_neither_help_nor_hinder_the_log() -> None:
    assert open_checkpoint(cosigned(9), KNOWN) == checkpoint(9)
    with pytest.raises(NoteRefusedError):
        open_checkpoint(Note(checkpoint(9).text, (WA.cosign(checkpoint(9), 1),)), KNOWN)


class TestWhatTheLogMaySign:
    """journal.md § 7, rules for the signer."""

    def test_a_larger_size_and_the_same_again(self) -> None:
        check_signable(checkpoint(5), last=None, durable_size=5)
        check_signable(checkpoint(9), last=checkpoint(5), durable_size=9)
        check_signable(checkpoint(9), last=checkpoint(9), durable_size=20)

    def test_never_two_roots_for_one_size(self) -> None:
        with pytest.raises(NotSignableError):
            check_signable(replace(checkpoint(9), root=bytes(32)), last=checkpoint(9), durable_size=9)

    def test_never_a_size_below_one_signed_before(self) -> None:
        with pytest.raises(NotSignableError):
            check_signable(checkpoint(5), last=checkpoint(9), durable_size=9)

    def test_never_a_size_beyond_what_is_durable(self) -> None:
        with pytest.raises(NotSignableError):
            check_signable(checkpoint(9), last=checkpoint(5), durable_size=8)

    def test_never_an_empty_log_with_a_root_of_its_own(self) -> None:
        with pytest.raises(NotSignableError):
            check_signable(Checkpoint(ORIGIN, 0, bytes(32)), last=None, durable_size=0)

    def test_never_under_the_record_of_another_log(self) -> None:
        with pytest.raises(NotSignableError):
            check_signable(checkpoint(9), last=replace(checkpoint(5), origin="other"), durable_size=9)


def test_two_roots_for_one_size_of_one_log_contradict() -> None:
    fork = replace(checkpoint(9), root=bytes(32))
    assert contradict(checkpoint(9), fork)
    assert not contradict(checkpoint(9), checkpoint(9))
    assert not contradict(checkpoint(9), checkpoint(5))
    assert not contradict(checkpoint(9), replace(fork, origin="other"))
    assert not contradict(checkpoint(9), replace(checkpoint(9), extensions=("more",)))
