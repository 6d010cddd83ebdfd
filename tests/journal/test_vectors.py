"""All vectors of journal.md § 20 that need no vault, no disk and no witness process."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from tests.journal.samples import LOG, ORIGIN, PQ, T0, VECTORS, WA, WB, WC, checkpoint, cosigned, leaves, policy, tree

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import contradict, open_checkpoint, parse_checkpoint
from schleuse.journal.cosignature import CosignerKey, Ed25519Cosigner, ed25519_message, mldsa44_message, time_of
from schleuse.journal.entry import Kind, Purpose, Result, parse_entry
from schleuse.journal.hashing import EMPTY_ROOT, leaf_hash, node_hash
from schleuse.journal.note import LogKey, LogSigner, NoteRefusedError, parse_lines, parse_note, parse_vkey
from schleuse.journal.opening import canonical_json, detail_commitment, object_commitment
from schleuse.journal.policy import NoQuorumError
from schleuse.journal.proof import consistency_proof, inclusion_path, is_consistent, root_from_inclusion
from schleuse.journal.proof_file import ProofFile, parse_proof_file, verify
from schleuse.journal.tiles import Bundle, Tile, bundle_bytes, bundles_of, parse_path, tile_bytes, tiles_of
from schleuse.journal.tree import root_at

REFERENCE = Path(__file__).parents[3] / "shared" / "domain" / "journal.md"


@pytest.mark.skipif(not REFERENCE.exists(), reason="the domain reference (../shared) is not on this machine")
def test_our_copy_of_the_vectors_is_the_published_one() -> None:
    found = re.search(r"```json\n(.*)```", REFERENCE.read_text(), re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == VECTORS


def test_hashes() -> None:
    known = VECTORS["hash"]
    assert EMPTY_ROOT.hex() == known["MTH_empty"]
    assert leaf_hash(b"").hex() == known["leaf(empty)"]
    assert [leaf_hash(leaf).hex() for leaf in leaves(2)] == [known["leaf(leaf-0)"], known["leaf(leaf-1)"]]
    assert node_hash(*map(leaf_hash, leaves(2))).hex() == known["node(0,1)"]


@pytest.mark.parametrize("size", VECTORS["roots"])
def test_roots(size: str) -> None:
    assert root_at(int(size), tree(70_000)).hex() == VECTORS["roots"][size]


@pytest.mark.parametrize("name", VECTORS["inclusion"])
def test_inclusion_paths(name: str) -> None:
    index, size = map(int, name.split("/"))
    path = inclusion_path(index, size, tree(70_000))
    assert [step.hex() for step in path] == VECTORS["inclusion"][name]
    assert root_from_inclusion(index, size, leaf_hash(leaves(size)[index]), path) == tree(size).root()


@pytest.mark.parametrize("name", VECTORS["consistency"])
def test_consistency_proofs(name: str) -> None:
    old, new = map(int, name.split("->"))
    proof = consistency_proof(old, new, tree(70_000))
    assert [step.hex() for step in proof] == VECTORS["consistency"][name]
    assert is_consistent(old, new, tree(old).root(), tree(new).root(), proof)


def test_tile_paths() -> None:
    named: list[Tile | Bundle] = [Tile(0, 0), Tile(0, 1000), Tile(0, 1234067), Tile(2, 5, 17), Bundle(1234067, 9)]
    assert [resource.path for resource in named] == list(VECTORS["tile_paths"].values())
    assert [parse_path(path) for path in VECTORS["tile_paths"].values()] == named


@pytest.mark.parametrize("path", VECTORS["tiles_of_size_70000"])
def test_tiles_and_bundles(path: str) -> None:
    resource = parse_path(path)
    if isinstance(resource, Tile):
        assert resource in tiles_of(70_000)
        data = tile_bytes(resource, tree(70_000))
    else:
        assert resource in bundles_of(70_000)
        first = resource.index * 256
        data = bundle_bytes(leaves(70_000)[first : first + resource.width])
    known = VECTORS["tiles_of_size_70000"][path]
    assert (len(data), sha256(data).hexdigest()) == (known["bytes"], known["sha256"])


@pytest.mark.parametrize(("name", "holder"), [("log", LOG), ("wa", WA), ("wb", WB), ("wc", WC)])
def test_keys(name: str, holder: LogSigner | Ed25519Cosigner) -> None:
    known = VECTORS["keys"][name]
    assert holder.key.public_key.hex() == known["public"]
    assert holder.key.vkey == known["vkey"]
    assert parse_vkey(known["vkey"]) == holder.key


def test_checkpoints() -> None:
    assert str(checkpoint(5).signed_by(LOG)) == VECTORS["checkpoint_5"]
    assert str(cosigned(9)) == VECTORS["checkpoint_9_with_3_cosignatures"]
    assert open_checkpoint(parse_note(VECTORS["checkpoint_5"].encode()), [LogKey(LOG.key)]) == checkpoint(5)


def test_the_cosigned_message() -> None:
    assert ed25519_message(checkpoint(9).text, T0).decode() == VECTORS["cosigned_message_of_wa"]
    (line,) = parse_lines(VECTORS["witness"]["response_of_wa"])
    assert line == WA.cosign(checkpoint(9), T0)
    assert time_of(line.signature) == T0


def test_the_fork_is_validly_signed_and_contradicts() -> None:
    fork = open_checkpoint(parse_note(VECTORS["fork_of_size_9"].encode()), [LogKey(LOG.key)])
    assert contradict(fork, checkpoint(9))
    for old in (5, 9):
        proof = consistency_proof(old, 9, tree(9))
        assert not is_consistent(old, 9, tree(old).root(), fork.root, proof)


def test_the_origin_hash_and_the_proof_in_a_witness_request() -> None:
    assert sha256(ORIGIN.encode()).hexdigest() == VECTORS["witness"]["origin_hash"]
    head, _, note = VECTORS["witness"]["request"].partition("\n\n")
    assert [bytes.fromhex(step) for step in VECTORS["consistency"]["5->9"]] == consistency_proof(5, 9, tree(9))
    assert head.startswith("old 5\n")
    assert parse_checkpoint(parse_note(note.encode()).text) == checkpoint(9)


def test_the_proof_file() -> None:
    known = VECTORS["tlog_proof"]
    made = ProofFile(5, tuple(inclusion_path(5, 9, tree(9))), cosigned(9))
    assert made.encode().decode() == known["text"]
    assert sha256(made.encode()).hexdigest() == known["sha256"]
    proven = verify(parse_proof_file(known["text"].encode()), b"leaf-5", policy("alle"))
    assert (proven.origin, proven.index, proven.size, proven.since_s) == (ORIGIN, 5, 9, T0 + 2)
    assert proven.witnesses == {"wa", "wb", "wc"}


def test_mldsa44() -> None:
    known = VECTORS["mldsa44"]
    assert sha256(PQ.key.public_key).hexdigest() == known["public_sha256"]
    assert PQ.key.id.hex() == known["key_id"]
    assert mldsa44_message(known["name"], checkpoint(9), known["timestamp"]).hex() == known["message"]
    line = PQ.cosign(checkpoint(9), known["timestamp"])
    assert len(line.signature) == 8 + 2420
    assert CosignerKey(PQ.key).verifies(checkpoint(9).text, line.signature)


def test_the_entry() -> None:
    known = VECTORS["je1"]
    entry = parse_entry(bytes.fromhex(known["entry"]))
    assert (entry.kind, entry.result, entry.purpose) == (Kind.KEY_RELEASED, Result.GRANTED, Purpose.TREATMENT)
    salt = bytes.fromhex(known["salt_object"])
    assert object_commitment(salt, known["object_id"], known["object_version"]) == entry.object
    assert entry.object.hex() == known["object"]
    detail = canonical_json(json.loads(known["detail_json"]))
    assert detail == known["detail_json"].encode()
    assert detail_commitment(bytes.fromhex(known["salt_detail"]), detail) == entry.detail
    assert entry.detail.hex() == known["detail"]
    assert entry.encode().hex() == known["entry"]
    assert leaf_hash(entry.encode()).hex() == known["leaf_hash"]


class TestPolicyVectors:
    """§ 20, the paragraph before the JSON."""

    NOTE = VECTORS["checkpoint_9_with_3_cosignatures"]
    WITHOUT_WC = "".join(line for line in NOTE.splitlines(keepends=True) if "aufsicht" not in line)
    LOG_ALONE = NOTE[: NOTE.index("— witness")]

    def test_insurer_and_authority_satisfy_alle(self) -> None:
        assert policy("alle").judge(parse_note(self.NOTE.encode())).checkpoint == checkpoint(9)

    def test_without_the_authority_alle_is_not_satisfied_but_kassen_is(self) -> None:
        note = parse_note(self.WITHOUT_WC.encode())
        with pytest.raises(NoQuorumError):
            policy("alle").judge(note)
        assert policy("kassen").judge(note).since_s == T0

    def test_no_quorum_takes_the_log_line_alone(self) -> None:
        assert policy("none").judge(parse_note(self.LOG_ALONE.encode())).since_s is None

    @pytest.mark.parametrize("at", range(NOTE.index("\n\n")))
    @pytest.mark.parametrize("quorum", ["alle", "none"])
    def test_any_changed_character_of_the_text_is_rejected(self, at: int, quorum: str) -> None:
        changed = "B" if self.NOTE[at] == "A" else "A"
        note = parse_note((self.NOTE[:at] + changed + self.NOTE[at + 1 :]).encode())
        with pytest.raises((MalformedError, NoteRefusedError)) as caught:  # the character may be part of the form
            policy(quorum).judge(note)
        assert caught.type is not NoQuorumError
