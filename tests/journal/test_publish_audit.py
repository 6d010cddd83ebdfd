"""What an insurer checks offline with an exported log, proofs and two checkpoints; the command says it in words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.journal.journals import ORIGIN, config, entry, journal, signer

from schleuse.cli import app
from schleuse.errors import Error
from schleuse.journal import audit
from schleuse.journal.audit import HistoryChangedError, SourceAbsentError, SourceError
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.contracts import BeyondSizeError, Level
from schleuse.journal.note import parse_note
from schleuse.journal.store import Journal
from schleuse.journal.tiles import Tile, parse_path
from schleuse.journal.tree import MemoryTree, TreeRangeError

POLICY = config().policy


def served_by(opened: Journal) -> audit.Source:
    log = opened.log(ORIGIN)

    def read(path: str) -> bytes:
        if path == "checkpoint":
            return opened.checkpoint(ORIGIN)
        resource = parse_path(path)
        return log.tree.tile(resource) if isinstance(resource, Tile) else log.entries.bundle(resource)

    return read


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A log of 300 entries, the note of size 200 beside it, and its policy."""
    folder = tmp_path / "log"

    async def run() -> None:
        async with journal(tmp_path) as opened:
            for size in (200, 300):
                await opened.append_many(ORIGIN, [entry(i) for i in range(size - 200 and 200, size)])
                opened.tick()
                await opened.wait(ORIGIN, size, Level.PUBLISHED, 5)
                audit.export(served_by(opened), folder)
                (tmp_path / f"note-{size}").write_bytes(opened.checkpoint(ORIGIN))

    asyncio.run(run())
    key = signer().key.vkey
    (tmp_path / "policy").write_text(f"log {key}\nquorum none\n")
    return folder


def test_a_whole_exported_log_is_complete_and_unchanged(exported: Path) -> None:
    found = audit.audit_log(audit.from_folder(exported), POLICY)
    assert (found.judged.checkpoint.size, dict(found.kinds)) == (300, {"READ": 300})
    assert (found.repeated_events, found.foreign) == (0, 0)


@pytest.mark.parametrize(
    "path", ["tile/entries/000", "tile/entries/001.p/44", "tile/0/000", "tile/1/000.p/1", "checkpoint"]
)
def test_one_changed_byte_in_an_exported_log_is_noticed(exported: Path, path: str) -> None:
    data = bytearray((exported / path).read_bytes())
    data[-9] ^= 1
    (exported / path).write_bytes(data)
    with pytest.raises(Error):
        audit.audit_log(audit.from_folder(exported), POLICY)


def test_a_proof_made_from_files_verifies_without_them(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, folder = str(exported.parent / "policy"), exported.parent
    _run("journal", "prove", "217", "--log", str(exported), "--policy", policy, "--to", str(folder))
    _run("journal", "verify", str(folder / "entry-217.tlog-proof"), "--policy", policy, "--json")
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (shown["origin"], shown["index"], shown["size"]) == (ORIGIN, 217, 300)
    (folder / "entry-217.entry").write_bytes(entry(218))
    with pytest.raises(SystemExit, match="77"):
        _run("journal", "verify", str(folder / "entry-217.tlog-proof"), "--policy", policy)
    assert "entry 217 of" in capsys.readouterr().err
    with pytest.raises(TreeRangeError):
        audit.prove(audit.from_folder(exported), POLICY, 300)


def test_two_checkpoints_continue_one_another(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = [str(exported.parent / name) for name in ("note-200", "note-300")]
    policy = str(exported.parent / "policy")
    _run("journal", "verify", *notes, "--policy", policy, "--json")
    assert json.loads(capsys.readouterr().out)["consistent"] is None
    _run("journal", "verify", *notes, "--policy", policy, "--log", str(exported), "--json")
    assert json.loads(capsys.readouterr().out)["consistent"] is True
    _run("journal", "verify", str(exported), "--policy", policy)
    assert "300" in capsys.readouterr().out


def test_a_forked_checkpoint_is_evidence(exported: Path) -> None:
    new = parse_note((exported / "checkpoint").read_bytes())
    for size in (200, 300):
        forged = [entry(i + 1) for i in range(size)]
        fork = Checkpoint(ORIGIN, size, MemoryTree(forged).root()).signed_by(signer())
        with pytest.raises(HistoryChangedError):
            audit.compare(fork, new, POLICY, audit.from_folder(exported))


def test_entries_deleted_after_their_period_may_be_absent_and_their_hashes_hold(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (exported / "tile" / "entries" / "000").unlink()
    found = audit.audit_log(audit.from_folder(exported), POLICY)
    assert (found.minimum, dict(found.kinds)) == (256, {"READ": 44})
    _run("journal", "verify", str(exported), "--policy", str(exported.parent / "policy"))
    assert "256" in capsys.readouterr().out
    with pytest.raises(SourceAbsentError):
        audit.prove(audit.from_folder(exported), POLICY, 5)
    tile = bytearray((exported / "tile" / "0" / "000").read_bytes())
    tile[5] ^= 1
    (exported / "tile" / "0" / "000").write_bytes(tile)
    with pytest.raises(Error):  # of what is deleted the hashes count still
        audit.audit_log(audit.from_folder(exported), POLICY)


def test_only_what_stands_first_may_be_absent(exported: Path) -> None:
    (exported / "tile" / "entries" / "001.p" / "44").unlink()
    with pytest.raises(SourceAbsentError, match="entries/001"):
        audit.audit_log(audit.from_folder(exported), POLICY)


def test_a_pruned_log_is_exported_without_what_it_deleted(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append_many(ORIGIN, [entry(i) for i in range(400)])
            await opened.append_many(ORIGIN, [entry(i) for i in range(400, 800)])
            opened.tick()
            await opened.wait(ORIGIN, 800, Level.PUBLISHED, 5)
            await opened.prune(ORIGIN, 600)
            whole = served_by(opened)

            def served(path: str) -> bytes:  # as over HTTP
                if path.startswith("tile/entries/") and path < "tile/entries/003":
                    raise SourceAbsentError(path)
                return whole(path)

            audit.export(served, tmp_path / "log")
            audit.export(served, tmp_path / "log")

    asyncio.run(run())
    found = audit.audit_log(audit.from_folder(tmp_path / "log"), POLICY)
    assert (found.judged.checkpoint.size, found.minimum, found.kinds.total()) == (800, 768, 32)


def test_a_missing_file_is_said_by_name(exported: Path) -> None:
    (exported / "tile" / "0" / "000").unlink()
    with pytest.raises(SourceError, match="tile/0/000"):
        audit.audit_log(audit.from_folder(exported), POLICY)


def test_a_journal_that_does_not_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        _run("journal", "status", "--url", "http://127.0.0.1:9")


def test_nothing_is_proven_before_a_checkpoint(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await opened.append(ORIGIN, entry(0))
            with pytest.raises(BeyondSizeError):
                opened.proof_file(ORIGIN, 0)

    asyncio.run(run())


def _run(*words: str) -> None:
    app(list(words), result_action="return_value")
