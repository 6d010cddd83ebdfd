"""The insurer's own copy: complete, checked, and never replaced by another history (journal.md § 2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from tests.journal.samples import AN_ENTRY, leaves, policy
from tests.witness.parties import URL, FakeLog, rewritten

from schleuse.journal.audit import audit_log, from_folder
from schleuse.journal.policy import NoQuorumError
from schleuse.journal.tile_reader import FalseTileError
from schleuse.witness.mirror import NotContinuedError, forget, mirror
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


def test_what_was_deleted_before_it_was_copied_is_missing_and_the_rest_is_proven(tmp_path: Path) -> None:
    """journal.md § 17: proofs and consistency stay valid."""
    log = FakeLog(leaves(900))
    log.minimum = 300
    assert copy(log, tmp_path) == 900
    found = audit_log(from_folder(tmp_path), RULES)
    assert (found.judged.checkpoint.size, found.minimum) == (900, 512)
    log.now_holds(leaves(1500))
    log.minimum = 700  # the copy has these
    assert copy(log, tmp_path) == 1500
    assert audit_log(from_folder(tmp_path), RULES).minimum == 512


def test_what_is_gone_in_the_middle_is_no_copy(tmp_path: Path) -> None:
    log = FakeLog(leaves(300))
    copy(log, tmp_path)
    log.now_holds(leaves(1500))
    log.minimum = 1000
    with pytest.raises(RemoteError):
        copy(log, tmp_path)
    assert audit_log(from_folder(tmp_path), RULES).judged.checkpoint.size == 300


def test_a_copy_forgets_after_its_period_and_proves_what_it_has(tmp_path: Path) -> None:
    """§ 17: mirrors follow the period as the log does; RP-08: and nothing that is younger goes."""
    first = AN_ENTRY.at
    dated = [
        replace(AN_ENTRY, event=UUID(int=n + 1), at=AN_ENTRY.at + timedelta(minutes=n)).encode() for n in range(900)
    ]
    log = FakeLog(dated[:600])
    copy(log, tmp_path)
    log.now_holds(dated)
    copy(log, tmp_path)
    assert forget(tmp_path, first + timedelta(minutes=255)) == 0  # entry 255 is not older
    assert forget(tmp_path, first + timedelta(minutes=700)) == 512
    assert audit_log(from_folder(tmp_path), RULES).minimum == 512
    assert not any(dated[n] in data for n in (0, 511) for data in files(tmp_path).values())
    assert forget(tmp_path, first + timedelta(days=900)) == 256  # the last bundle still grows
    assert copy(log, tmp_path) == 900
    assert audit_log(from_folder(tmp_path), RULES).minimum == 768
    assert forget(tmp_path / "nothing", first) == 0
