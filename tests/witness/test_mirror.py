"""The insurer's own copy: complete, checked, and never replaced by another history (journal.md § 2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.journal.samples import leaves, policy
from tests.witness.parties import URL, FakeLog, rewritten

from schleuse.journal.audit import audit_log, from_folder
from schleuse.journal.policy import NoQuorumError
from schleuse.journal.tile_reader import FalseTileError
from schleuse.witness.mirror import NotContinuedError, mirror
from schleuse.witness.remote import RemoteError, RemoteLog

RULES = policy("none")


def copy(log: FakeLog, folder: Path) -> int:
    return mirror(RemoteLog(URL, log), RULES, folder).size


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_grows_with_the_log_and_is_checked_without_it(tmp_path: Path) -> None:
    log = FakeLog()
    for size in (1, 255, 256, 700, 70_000):
        log.now_holds(leaves(size))
        assert copy(log, tmp_path) == size
        assert audit_log(from_folder(tmp_path), RULES).judged.checkpoint.size == size


def test_what_is_copied_is_not_fetched_again(tmp_path: Path) -> None:
    log = FakeLog(leaves(700))
    copy(log, tmp_path)
    asked: list[str] = []
    get = log.get

    def heard(url: str, limit: int) -> bytes:
        asked.append(url)
        return get(url, limit)

    log.get = heard  # type: ignore[method-assign]
    log.now_holds(leaves(800))
    copy(log, tmp_path)
    assert [url for url in asked if "entries/000" in url or "entries/001" in url] == []


@pytest.mark.parametrize("entries", [rewritten(300, 7), leaves(200)], ids=["rewritten", "cut"])
def test_a_log_that_does_not_continue_the_copy_changes_nothing_in_it(tmp_path: Path, entries: list[bytes]) -> None:
    log = FakeLog(leaves(280))
    copy(log, tmp_path)
    before = files(tmp_path)
    log.now_holds(entries)
    with pytest.raises(NotContinuedError):
        copy(log, tmp_path)
    assert files(tmp_path) == before


def test_false_entries_and_too_few_witnesses_are_no_copy(tmp_path: Path) -> None:
    log = FakeLog(leaves(300))
    log.entries[7] = b"false"
    with pytest.raises(FalseTileError):
        copy(log, tmp_path)
    assert not (tmp_path / "checkpoint").exists()
    with pytest.raises(NoQuorumError):
        mirror(RemoteLog(URL, FakeLog(leaves(3))), policy("wa"), tmp_path)


def test_a_copy_that_was_cut_short_is_the_one_before(tmp_path: Path) -> None:
    log = FakeLog(leaves(280))
    copy(log, tmp_path)
    log.now_holds(leaves(900))
    get = log.get

    def down(url: str, limit: int) -> bytes:
        if "entries/002" in url:
            raise RemoteError(url)
        return get(url, limit)

    log.get = down  # type: ignore[method-assign]
    with pytest.raises(RemoteError):
        copy(log, tmp_path)
    assert audit_log(from_folder(tmp_path), RULES).judged.checkpoint.size == 280
    log.get = get  # type: ignore[method-assign]
    assert copy(log, tmp_path) == 900
    assert audit_log(from_folder(tmp_path), RULES).judged.checkpoint.size == 900
