"""Supplier sessions: with all that they start, real processes, cut at once and listed (SW-09, T-26)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.scopes import NONE, Direction, Scope, ScopeState, Service
from schleuse.shutdown.maintenance import (
    MARK,
    BadSessionError,
    Leader,
    Session,
    SessionBook,
    SessionNotKeptError,
    atoms_of,
    closed_by,
    cut,
    kill_all,
    leader_of,
    lives,
    processes_of,
)
from schleuse.switch.standing import Standing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = Scope(direction="maintenance")
SESSION = Session("a1b2", "lieferant", "VPN-7", ALL, ("sleep", "600"), NOW)
#: A process of its own session and group, whose parent is gone: what a group's signal does not reach.
ESCAPE = (
    "import os, sys, time\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "if os.fork(): os._exit(0)\n"
    "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    "time.sleep(600)\n"
)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


Start = Callable[..., tuple[Session, "subprocess.Popen[bytes]"]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command as a session does, and ends it in any case."""
    begun: list[tuple[Session, subprocess.Popen[bytes]]] = []

    def begin(*command: str) -> tuple[Session, subprocess.Popen[bytes]]:
        id = os.urandom(6).hex()
        process = subprocess.Popen(command, env={**os.environ, MARK: id}, start_new_session=True)
        begun.append((replace(SESSION, id=id, leader=leader_of(process.pid)), process))
        return begun[-1]

    yield begin
    for session, process in begun:
        kill_all(session)
        process.wait(20)


def test_a_session_reaches_everything_of_its_scope() -> None:
    atoms = atoms_of(ALL, ["109500969"])
    assert len(atoms) == 2 * len(Service)
    assert {one.direction for one in atoms} == {"maintenance"}
    assert atoms_of(Scope("keys", "109500969", "maintenance"), ["1"]) == (
        Scope("keys", "109500969", "maintenance", NONE),
    )


@given(st.lists(st.sampled_from(ScopeState), max_size=4))
def test_a_session_begins_only_where_all_of_its_scope_begins(states: list[ScopeState]) -> None:
    atoms = {Scope("keys", f"10950096{n}", "maintenance", ""): Standing(state) for n, state in enumerate(states)}
    assert (closed_by(atoms) is None) == all(state.begins for state in states)


@pytest.mark.parametrize(
    "change", [{"who": ""}, {"who": "a b"}, {"credential": "../x"}, {"id": "."}, {"scope": Scope("keys", "*", "read")}]
)
def test_what_would_be_no_session_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadSessionError):
        replace(SESSION, **change)  # type: ignore[arg-type]


def test_all_that_a_session_started_is_killed(start: Start, tmp_path: Path) -> None:
    """T-26: also what left its process group, its session and its parents."""
    note = tmp_path / "pid"
    session, process = start("sh", "-c", f'sleep 600 & "{sys.executable}" -c "{ESCAPE}" "{note}"; wait; sleep 600')
    until(lambda: note.exists() and note.read_text() != "" and len(processes_of(session)) >= 3)
    escaped = int(note.read_text())
    found = processes_of(session)
    assert {process.pid, escaped} < set(found)
    ended = cut(session, 7, "closed", NOW)
    process.wait(20)
    assert (ended.cut, ended.epoch, ended.left) == (True, 7, ())
    assert processes_of(session) == []
    assert leader_of(escaped) is None


def test_what_hides_its_mark_is_found_by_its_parents(start: Start) -> None:
    session, _ = start("sh", "-c", "env -i sleep 600 & wait")
    until(lambda: len(processes_of(session)) == 2)
    kill_all(session)
    assert processes_of(session) == []


def test_another_session_and_another_process_stay(start: Start) -> None:
    one, _ = start("sleep", "600")
    other, other_process = start("sleep", "600")
    kill_all(one)
    assert other_process.poll() is None
    assert processes_of(other) == [other_process.pid]


def test_a_number_that_is_used_again_is_nobodys_session(start: Start) -> None:
    _, process = start("sleep", "600")
    mine = leader_of(process.pid)
    assert mine is not None
    assert lives(mine)
    for stranger in (replace(mine, started=mine.started - 1), replace(mine, boot="other")):
        assert not lives(stranger)
        stale = replace(SESSION, id="ffff", leader=stranger)
        assert kill_all(stale) == []
        assert process.poll() is None


def test_whoever_asks_is_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill_all` inside of a session would kill who carries the closing out."""
    leader = leader_of(os.getppid())
    assert os.getpid() not in processes_of(replace(SESSION, id="eeee", leader=None))
    assert leader is not None


def test_a_machine_without_these_files_has_no_members(tmp_path: Path) -> None:
    assert processes_of(replace(SESSION, leader=Leader(1, 1, "")), tmp_path) == []
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "stat").write_bytes(b"12 (odd) name) S")
    assert processes_of(SESSION, tmp_path) == []


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    book = SessionBook(tmp_path / "run", tmp_path / "kept")
    mine = replace(SESSION, leader=Leader(5, 6, "b"), watcher=Leader(7, 8, "b"))
    book.write(SESSION)
    book.write(mine)
    assert book.running() == [mine]
    (tmp_path / "run" / "zz.json").write_text("{")
    assert [(one.id, one.who) for one in book.running()] == [(mine.id, mine.who), ("zz", "unreadable")]
    (tmp_path / "run" / "zz.json").unlink()
    ended = replace(mine, ended_at=NOW + timedelta(seconds=5), why="exit code 0")
    book.end(ended)
    assert (book.running(), book.ended(), dict(book.to_rotate())) == ([], [ended], {})
    assert not book.is_running(SESSION.id)
    book.end(ended)  # somebody else was faster


def test_a_credential_that_was_in_use_waits_for_its_rotation(tmp_path: Path) -> None:
    """T-26."""
    book = SessionBook(tmp_path / "run", tmp_path / "kept")
    book.write(SESSION)
    book.end(replace(SESSION, ended_at=NOW, cut=True, epoch=4, why="closed"))
    assert book.to_rotate()["VPN-7"]["epoch"] == 4
    (tmp_path / "kept" / "rotate" / "VPN-8.json").write_text("{")
    assert set(book.to_rotate()) == {"VPN-7", "VPN-8"}
    assert book.rotated("VPN-7")
    assert not book.rotated("VPN-7")
    assert set(book.to_rotate()) == {"VPN-8"}


def test_what_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(SessionNotKeptError):
        SessionBook(tmp_path / "run", tmp_path).write(SESSION)


def test_a_session_is_about_maintenance() -> None:
    assert SESSION.scope.direction == Direction.MAINTENANCE
