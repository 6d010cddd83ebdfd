"""Our hashes, proofs, tiles and notes against Go's golang.org/x/mod/sumdb, which others rely on.

Skips without Go, or without its module (from Go's cache or proxy).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.journal.samples import LOG, VECTORS, checkpoint, cosigned, tree

from schleuse.errors import MalformedError, RefusedError
from schleuse.journal.note import LogKey, open_note, parse_note
from schleuse.journal.proof import consistency_proof, inclusion_path, is_consistent, is_included
from schleuse.journal.text import decode_base64, encode_base64
from schleuse.journal.tiles import tile_bytes, tiles_of
from schleuse.journal.tree import root_at

SOURCE = Path(__file__).parent / "foreign"
SIZE = 600
LOG_TREE = tree(SIZE)

#: (leaf, size) and (old, new): everything up to 20, and the edges of tiles.
EDGES = [254, 255, 256, 257, 511, 512, 513, 600]
INCLUSION = [(m, n) for n in range(1, 21) for m in range(n)] + [(m, n) for n in EDGES for m in (0, 1, n // 2, n - 1)]
CONSISTENCY = [(m, n) for n in range(1, 21) for m in range(1, n + 1)] + [(m, n) for n in EDGES for m in (1, 128, n - 1)]

Claim = tuple[int, int, bytes, bytes, list[bytes]]

NOTE: str = VECTORS["checkpoint_9_with_3_cosignatures"]
NOTES = [
    NOTE,
    VECTORS["checkpoint_5"],
    VECTORS["fork_of_size_9"],
    NOTE.replace("\n9\n", "\n8\n"),
    NOTE.replace("mligk4g", "mligk4h"),
    NOTE.replace("mligk4g", "nligk4g"),
    NOTE.replace("— journal", "— journa1"),
    NOTE.replace("— ", "- "),
    NOTE.replace("\n\n", "\n"),
    NOTE.replace("\n\n", "\n\n\n"),
    NOTE.replace("\n\n", "\n\nmore\n\n"),
    NOTE.replace("\n— witness", "\n\n— witness", 1),
    NOTE.replace("kasse-b f", "kasse-b  f"),
    NOTE.replace("kasse-b f", "kasse-b+ f"),
    NOTE.replace("kasse-a/2027\n", "kasse-a/2027\r\n", 1),
    NOTE[:-1],
    NOTE + "\n",
    "",
    "\n\n",
    str(checkpoint(0).signed_by(LOG)),
    str(cosigned(SIZE)),
]


def _claims(pairs: list[tuple[int, int]], first: list[bytes], proofs: list[list[bytes]]) -> list[Claim]:
    """Each true claim and some false ones: a bit flipped, a hash lost, one too many, another index."""
    claims: list[Claim] = []
    for (old, new), old_hash, proof in zip(pairs, first, proofs, strict=True):
        root = root_at(new, LOG_TREE)
        claims += [
            (old, new, old_hash, root, proof),
            (old, new, old_hash, root, [*proof, bytes(32)]),
            (old, new, old_hash, bytes(32), proof),
            (old, new, root, old_hash, proof),
        ]
        if proof:
            claims += [
                (old, new, old_hash, root, proof[:-1]),
                (old, new, old_hash, root, proof[1:]),
                (old, new, old_hash, root, proof[::-1]),
                (old, new, old_hash, root, [*proof[:-1], bytes(32)]),
                (max(old - 1, 1), new, old_hash, root, proof),
            ]
    return claims


INCLUDED = _claims(
    INCLUSION, [LOG_TREE.node(0, m) for m, _ in INCLUSION], [inclusion_path(m, n, LOG_TREE) for m, n in INCLUSION]
)
CONSISTENT = _claims(
    CONSISTENCY,
    [root_at(m, LOG_TREE) for m, _ in CONSISTENCY],
    [consistency_proof(m, n, LOG_TREE) for m, n in CONSISTENCY],
)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Go says to everything that we ask."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("Go is not on this machine")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    try:
        subprocess.run(
            [go, "mod", "download"], cwd=SOURCE, env=environment, check=True, capture_output=True, timeout=60
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("Go's module proxy does not give golang.org/x/mod")
    program = tmp_path_factory.mktemp("foreign") / "foreign"
    subprocess.run([go, "build", "-o", str(program), "."], cwd=SOURCE, env=environment, check=True, timeout=200)
    asked = subprocess.run(
        [program], input=json.dumps(_question()).encode(), check=True, capture_output=True, timeout=60
    )
    return json.loads(asked.stdout)


def _question() -> dict[str, Any]:
    seed = bytes.fromhex(VECTORS["keys"]["log"]["seed"])
    return {
        "Leaves": SIZE,
        "Inclusion": INCLUSION,
        "Consistency": CONSISTENCY,
        "Included": [_claim(claim) for claim in INCLUDED],
        "Consistent": [_claim(claim) for claim in CONSISTENT],
        "Notes": NOTES,
        "VKey": LOG.key.vkey,
        "SKey": f"PRIVATE+KEY+{LOG.key.name}+{LOG.key.id.hex()}+{encode_base64(bytes([1]) + seed)}",
        "Text": checkpoint(9).text,
    }


def _claim(claim: Claim) -> dict[str, Any]:
    old, new, old_hash, new_hash, proof = claim
    hashes = [encode_base64(step) for step in proof]
    return {
        "Old": old,
        "New": new,
        "OldHash": encode_base64(old_hash),
        "NewHash": encode_base64(new_hash),
        "Proof": hashes,
    }


def test_the_roots_of_all_sizes_agree(answer: Any) -> None:
    assert list(map(decode_base64, answer["Roots"])) == [root_at(size, LOG_TREE) for size in range(SIZE + 1)]


def test_the_proofs_agree(answer: Any) -> None:
    made = [[decode_base64(step) for step in path or []] for path in answer["Inclusion"]]
    assert made == [inclusion_path(m, n, LOG_TREE) for m, n in INCLUSION]
    made = [[decode_base64(step) for step in proof or []] for proof in answer["Consistency"]]
    assert made == [consistency_proof(m, n, LOG_TREE) for m, n in CONSISTENCY]


def test_the_verdicts_on_true_and_false_proofs_agree(answer: Any) -> None:
    ours = [is_included(m, n, leaf, proof, root) for m, n, leaf, root, proof in INCLUDED]
    assert ours == answer["Included"]
    assert ours.count(True) >= len(INCLUSION)
    ours = [is_consistent(m, n, old, new, proof) for m, n, old, new, proof in CONSISTENT]
    assert ours == answer["Consistent"]
    assert ours.count(True) >= len(CONSISTENCY)


def test_the_tiles_agree(answer: Any) -> None:
    ours = {tile.path: tile_bytes(tile, LOG_TREE) for tile in tiles_of(SIZE)}
    assert {path: decode_base64(data) for path, data in answer["Tiles"].items()} == ours


def test_a_note_is_signed_to_the_same_bytes(answer: Any) -> None:
    assert answer["Signed"] == str(checkpoint(9).signed_by(LOG))


def test_the_verdicts_on_notes_agree(answer: Any) -> None:
    ours = [_opens(note) for note in NOTES]
    assert ours == answer["Opened"]
    assert ours.count(True) >= 5


def _opens(note: str) -> bool:
    try:
        return bool(open_note(parse_note(note.encode()), [LogKey(LOG.key)]))
    except (MalformedError, RefusedError):
        return False
