"""Keys, logs, notes and entries of the test vectors (journal.md § 20), and a tree of 70,000 entries."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.cosignature import Ed25519Cosigner, MLDSA44Cosigner
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.note import LogSigner, Note
from schleuse.journal.policy import Policy, parse_policy
from schleuse.journal.tree import MemoryTree

#: As published; confirmed by a foreign implementation in test_foreign.py.
VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())

ORIGIN = "journal.example/kasse-a/2027"
T0 = 1_800_000_000  #: seconds; when wa cosigned, the others one second apart


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["keys"][name]["seed"]))


LOG = LogSigner(ORIGIN, _key("log"))
WA = Ed25519Cosigner("witness.example/kasse-a", _key("wa"))
WB = Ed25519Cosigner("witness.example/kasse-b", _key("wb"))
WC = Ed25519Cosigner("witness.example/aufsicht", _key("wc"))
PQ = MLDSA44Cosigner(
    VECTORS["mldsa44"]["name"], MLDSA44PrivateKey.from_seed_bytes(bytes.fromhex(VECTORS["mldsa44"]["seed"]))
)

#: A log, three witnesses and two groups, without quorum.
POLICY_LINES = f"""\
log {LOG.key.vkey} https://journal.example/kasse-a/2027
witness wa {WA.key.vkey} https://witness.example/
witness wb {WB.key.vkey}
witness wc {WC.key.vkey}

# one of the insurers, and the authority
group kassen any wa wb
group alle all kassen wc
"""


def policy(quorum: str) -> Policy:
    """The policy of the vectors with this quorum."""
    return parse_policy(f"{POLICY_LINES}quorum {quorum}\n".encode())


def leaves(count: int) -> list[bytes]:
    """The first entries of the vectors' log."""
    return [f"leaf-{index}".encode() for index in range(count)]


@cache
def tree(size: int) -> MemoryTree:
    """The vectors' log at this size; not to be changed."""
    return MemoryTree(leaves(size))


def checkpoint(size: int) -> Checkpoint:
    """What the vectors' log commits to at this size."""
    return Checkpoint(ORIGIN, size, tree(size).root())


def cosigned(size: int) -> Note:
    """The checkpoint with the lines of log, wa, wb and wc."""
    here = checkpoint(size)
    return here.signed_by(LOG).with_lines(w.cosign(here, T0 + at) for at, w in enumerate((WA, WB, WC)))


AN_ENTRY = Entry(
    kind=Kind.KEY_RELEASED,
    result=Result.GRANTED,
    purpose=Purpose.EAU_INTAKE,
    at=datetime(2027, 1, 15, 8, 0, 0, 123456, tzinfo=UTC),
    event=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    actor=b"\xa0" * 16,
    subject=b"\xb1" * 16,
    object=b"\xc2" * 32,
    detail=b"\xd3" * 32,
    release_counter=77,
    subject_key_version=3,
)
