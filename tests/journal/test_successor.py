"""Next year's log, named by this one: whoever believes the one has the key of the other (journal.md § 17, § 11.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.journal.samples import LOG, ORIGIN, WA

from schleuse.errors import Error
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.disk import OsDisk
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.note import LogKey, LogSigner, NoteRefusedError, VerifierKey
from schleuse.journal.opening import Json, Opening, canonical_json, detail_commitment
from schleuse.journal.proof import inclusion_path
from schleuse.journal.proof_file import NotProvenError, ProofFile, parse_proof_file
from schleuse.journal.state import BadStateError
from schleuse.journal.successor import (
    Announced,
    BadSuccessorError,
    announced_key,
    announcement,
    following_origin,
    keep_announced,
    read_announced,
)
from schleuse.journal.tree import MemoryTree

FOLLOWING = "journal.example/kasse-a/2028"
NEXT = LogSigner(FOLLOWING, Ed25519PrivateKey.from_private_bytes(b"n" * 32))
TRUSTED = (LogKey(LOG.key),)
SALT = b"s" * 16


def announcing(detail: Json, *, kind: Kind = Kind.POLICY_CHANGED, result: Result = Result.GRANTED) -> bytes:
    at = datetime(2027, 12, 4, tzinfo=UTC)
    commitment = detail_commitment(SALT, canonical_json(detail))
    return Entry(kind, result, Purpose.OPERATION, at, UUID(int=7), detail=commitment).encode()


def proof_of(entries: Sequence[bytes], index: int, detail: Json) -> ProofFile:
    tree = MemoryTree(entries)
    note = Checkpoint(ORIGIN, len(entries), tree.root()).signed_by(LOG)
    extra = Opening(detail=(SALT, canonical_json(detail))).encode()
    return ProofFile(index, tuple(inclusion_path(index, len(entries), tree)), note, extra)


def key_of(origin: str) -> str:
    return LogSigner(origin, Ed25519PrivateKey.generate()).key.vkey


RIGHT = announcement(ORIGIN, NEXT.key)
ENTRIES = [b"a", b"b", announcing(RIGHT), b"c"]


def test_the_key_that_follows_is_read_from_two_files() -> None:
    proof = parse_proof_file(proof_of(ENTRIES, 2, RIGHT).encode())
    assert announced_key(proof, ENTRIES[2], TRUSTED) == NEXT.key


@pytest.mark.parametrize(
    "detail",
    [
        {"following": LOG.key.vkey, "origin": ORIGIN},  # itself
        {
            "following": LogSigner("journal.example/kasse-b/2028", Ed25519PrivateKey.generate()).key.vkey,
            "origin": ORIGIN,
        },
        {
            "following": LogSigner("journal.example/kasse-a/2029", Ed25519PrivateKey.generate()).key.vkey,
            "origin": ORIGIN,
        },
        {"following": VerifierKey(FOLLOWING, WA.key.kind, WA.key.public_key).vkey, "origin": ORIGIN},  # of a witness
        {"following": "nonsense", "origin": ORIGIN},
        {"following": NEXT.key.vkey, "origin": "journal.example/kasse-b/2027"},
        {"following": NEXT.key.vkey},
        {"following": 7, "origin": ORIGIN},
    ],
)
def test_nothing_else_is_an_announcement(detail: Json) -> None:
    entries = [announcing(detail)]
    with pytest.raises(Error):
        announced_key(proof_of(entries, 0, detail), entries[0], TRUSTED)


@pytest.mark.parametrize(("kind", "result"), [(Kind.READ, Result.GRANTED), (Kind.POLICY_CHANGED, Result.DENIED)])
def test_an_entry_of_another_kind_announces_nothing(kind: Kind, result: Result) -> None:
    entries = [announcing(RIGHT, kind=kind, result=result)]
    with pytest.raises(BadSuccessorError):
        announced_key(proof_of(entries, 0, RIGHT), entries[0], TRUSTED)


def test_an_entry_that_is_not_in_the_log_or_not_as_its_opening_says_is_refused() -> None:
    proof = proof_of(ENTRIES, 2, RIGHT)
    with pytest.raises(NotProvenError):
        announced_key(proof, announcing({**RIGHT, "x": 1}), TRUSTED)  # type: ignore[dict-item]
    other = announcement(ORIGIN, LogSigner(FOLLOWING, Ed25519PrivateKey.generate()).key)
    with pytest.raises(NotProvenError, match="opening"):
        announced_key(proof_of(ENTRIES, 2, other), ENTRIES[2], TRUSTED)
    with pytest.raises(BadSuccessorError):
        announced_key(replace(proof, extra=None), ENTRIES[2], TRUSTED)


def test_a_log_that_we_do_not_know_announces_nothing() -> None:
    with pytest.raises(NoteRefusedError):
        announced_key(proof_of(ENTRIES, 2, RIGHT), ENTRIES[2], [LogKey(NEXT.key)])


@pytest.mark.parametrize("origin", ["j.example/kasse-a", "2027", "j.example/kasse-a/\u0662\u0660\u0662\u0667"])
def test_only_a_year_has_a_following_one(origin: str) -> None:
    with pytest.raises(BadSuccessorError):
        following_origin(origin)


def test_what_was_announced_is_found_again_and_damage_is_named(tmp_path: Path) -> None:
    assert read_announced(tmp_path) is None
    opening = Opening(detail=(SALT, canonical_json(RIGHT)))
    keep_announced(OsDisk(), tmp_path, Announced(2, opening))
    assert read_announced(tmp_path) == Announced(2, opening)
    (tmp_path / "successor").write_bytes(b"x\n{}")
    with pytest.raises(BadStateError):
        read_announced(tmp_path)
