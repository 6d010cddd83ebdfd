"""Volatile evidence: everything at once, nothing waits for it, and the manifest has every digest (SW-11)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schleuse.shutdown import evidence
from schleuse.shutdown.evidence import EvidenceNotKeptError, collect, collected, verify

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def broken() -> bytes:
    raise PermissionError("not for you")


def test_what_every_source_says_is_kept_with_its_digest(tmp_path: Path) -> None:
    found = asyncio.run(collect(tmp_path, 7, {"a.txt": lambda: b"one", "b.txt": lambda: b"two"}, lambda: NOW))
    assert (found.files, found.missing) == (2, ())
    assert (found.folder / "a.txt").read_bytes() == b"one"
    manifest = (found.folder / "manifest.json").read_bytes()
    assert found.digest == hashlib.sha256(manifest).hexdigest()
    assert json.loads(manifest)["sources"][0]["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert verify(found.folder) == []


def test_a_source_that_fails_is_named_and_costs_the_others_nothing(tmp_path: Path) -> None:
    found = asyncio.run(collect(tmp_path, 7, {"a.txt": broken, "b.txt": lambda: b"two"}, lambda: NOW))
    assert (found.files, found.missing) == (1, ("a.txt",))
    assert collected(tmp_path, 7)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    found = asyncio.run(collect(tmp_path, 7, {"a.txt": lambda: b"one"}, lambda: NOW))
    (found.folder / "a.txt").write_bytes(b"other")
    assert verify(found.folder) == ["a.txt"]
    (found.folder / "a.txt").unlink()
    assert verify(found.folder) == ["a.txt"]


def test_a_collection_that_was_cut_short_is_none(tmp_path: Path) -> None:
    (tmp_path / "0000000007").mkdir()
    (tmp_path / "0000000007" / "a.txt").write_bytes(b"half")
    assert not collected(tmp_path, 7)


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "0000000007").write_text("a file where the folder should be")
    with pytest.raises(EvidenceNotKeptError):
        asyncio.run(collect(tmp_path, 7, {}, lambda: NOW))


def test_this_process_and_its_child_are_in_the_list_of_processes() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            rows = {one["pid"]: one for one in map(json.loads, evidence.process_list().splitlines())}
            assert rows[child.pid]["parent"] == os.getpid()
            assert rows[os.getpid()]["uid"] == os.getuid()
            assert child.pid in evidence.descendants([os.getpid()])
        finally:
            child.kill()


def test_open_files_and_sockets_are_those_of_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "open"
    with path.open("w"):
        rows = [json.loads(one) for one in evidence.open_files([os.getpid()]).splitlines()]
    assert str(path) in {one["target"] for one in rows}
    assert b"== tcp\n" in evidence.sockets()


def test_a_process_that_has_ended_is_no_error(tmp_path: Path) -> None:
    assert b"missing" in evidence.open_files([2**22 + 1])


def test_roles_are_found_by_their_lock_files(tmp_path: Path) -> None:
    (tmp_path / "kim.lock").write_text("4711")
    (tmp_path / "eau.lock").write_text("")
    assert evidence.role_pids(tmp_path) == [4711]


def test_hashes_are_written_as_sha256sum_writes_them(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_bytes(b"x")
    line = f"{hashlib.sha256(b'x').hexdigest()}  {tmp_path / 'f' / 'x'}\n"
    assert evidence.hashes([tmp_path / "f"]) == line.encode()
