"""`schleuse maintenance …` with real sessions: a closing cuts them, whoever watches or does not (SW-09, T-26)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Shell
from tests.cli.test_switch import IK, WHY, told
from tests.scenarios import switching

from schleuse.config import read_config
from schleuse.processes.maintenance import session_book
from schleuse.processes.switching import effect_book
from schleuse.scopes import ScopeState
from schleuse.shutdown.maintenance import Session, kill_all, lives, processes_of

CUT = 77
Watch = Callable[..., "subprocess.Popen[bytes]"]


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.fixture
def watch(home: Path) -> Iterator[Watch]:
    """`maintenance run` in a process of its own, as a supplier starts it."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*command: str, credential: str = "VPN-7", scope: str = "*") -> subprocess.Popen[bytes]:
        words = ["--who", "lieferant", "--credential", credential, "--scope", scope, "--home", str(home), "--"]
        program = [sys.executable, "-m", "schleuse", "maintenance", "run", *words, *command]
        ours = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        begun.append(subprocess.Popen(program, env=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return begun[-1]

    yield begin
    for one in session_book(read_config(home)).running():
        kill_all(one)
    for process in begun:
        process.kill()
        process.wait(30)


def running(home: Path) -> Session | None:
    """The only session, once its command has started."""
    found = session_book(read_config(home)).running()
    return found[0] if found and found[0].leader is not None else None


def begun(home: Path) -> Session:
    until(lambda: running(home) is not None)
    found = running(home)
    assert found is not None
    return found


def acts(home: Path) -> list[str]:
    return [one["detail"]["act"] for one in told(home) if one["tenant"] == "platform"]


@pytest.mark.slow
def test_a_closing_cuts_the_session_and_flags_its_credential(shell: Shell, home: Path, watch: Watch) -> None:
    """T-26: cut, listed, credential flagged; the watcher sees it by itself."""
    process = watch("sh", "-c", "sleep 600 & sleep 600")
    session = begun(home)
    assert lives(session.leader)
    switching.close(home, f"eau_intake/{IK}", ScopeState.HOLD)
    assert process.wait(30) == CUT
    assert processes_of(session) == []
    [ended] = session_book(read_config(home)).ended()
    assert (ended.cut, ended.epoch, ended.left) == (True, 1, ())
    [effect] = effect_book(read_config(home)).read(1)
    assert (effect.worker, effect.cut, effect.quiet_at is not None) == (f"maintenance-{session.id}", 1, True)
    out = shell("maintenance", "list", "--ended", "--home", str(home)).out
    assert "abgebrochen" in out
    assert "VPN-7: zu wechseln" in out
    assert acts(home) == ["maintenance.begun", "maintenance.cut"]


@pytest.mark.slow
def test_a_session_whose_watcher_died_is_listed_and_cut_by_the_command(shell: Shell, home: Path, watch: Watch) -> None:
    process = watch("sleep", "600")
    session = begun(home)
    process.kill()
    process.wait(30)
    assert lives(session.leader)
    assert "läuft, ohne Wächter" in shell("maintenance", "list", "--home", str(home)).out
    done = shell("switch", "hold", "all", *WHY, "--home", str(home))
    assert f"Wartungssitzung {session.id} beendet" in done.err
    assert processes_of(session) == []
    [line] = shell("maintenance", "list", "--json", "--home", str(home)).out.splitlines()
    assert json.loads(line)["rotate"] == "VPN-7"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", ""], ids=["damaged", "empty"])
def test_a_session_whose_file_nobody_can_read_is_cut_by_any_closing_of_maintenance(
    shell: Shell, home: Path, watch: Watch, text: str
) -> None:
    """SW-01, SW-02: what it was about nobody knows, so it counts as about everything; its processes have its mark."""
    process = watch("sleep", "600")
    session = begun(home)
    process.kill()
    process.wait(30)
    (home / "run" / "maintenance" / f"{session.id}.json").write_text(text)
    assert lives(session.leader)
    done = shell("switch", "hold", f"eau_intake/{IK}", *WHY, "--home", str(home))
    assert (done.code, f"Wartungssitzung {session.id} beendet" in done.err) == (0, True)
    assert processes_of(session) == []
    [line] = shell("maintenance", "list", "--json", "--home", str(home)).out.splitlines()
    assert json.loads(line)["rotate"] == "unreadable"


@pytest.mark.slow
def test_a_session_of_another_scope_goes_on(shell: Shell, home: Path, watch: Watch) -> None:
    """SW-08."""
    watch("sleep", "600", scope="directory")
    session = begun(home)
    assert shell("switch", "hold", "eau", "keys", *WHY, "--home", str(home)).code == 0
    assert lives(session.leader)
    [line] = shell("maintenance", "list", "--json", "--home", str(home)).out.splitlines()
    assert json.loads(line)["watched"] is True


@pytest.mark.slow
def test_a_watcher_that_is_told_to_end_ends_its_session(home: Path, watch: Watch) -> None:
    process = watch("sleep", "600")
    session = begun(home)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGKILL
    assert processes_of(session) == []
    assert [one.cut for one in session_book(read_config(home)).ended()] == [False]


@pytest.fixture
def call(shell: Shell, home: Path) -> Callable[..., Any]:
    """`maintenance run` in this process, for what is over at once."""
    return lambda *words, credential="VPN-7": shell(
        "maintenance", "run", "--who", "x", "--credential", credential, "--home", str(home), "--", *words
    )


def test_a_session_ends_as_its_command_does(shell: Shell, home: Path, call: Callable[..., Any]) -> None:
    assert call("sh", "-c", "exit 3").code == 3
    assert acts(home) == ["maintenance.begun", "maintenance.ended"]
    assert "keine Sitzung" in shell("maintenance", "list", "--home", str(home)).out
    assert session_book(read_config(home)).to_rotate() == {}


def test_what_a_session_leaves_behind_ends_with_it(home: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    note = tmp_path / "pid"
    assert call("sh", "-c", f"setsid sleep 600 & echo $! > {note}").code == 0
    until(lambda: not _lives(int(note.read_text())))


def _lives(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


def test_while_supplier_access_is_closed_no_session_begins(home: Path, call: Callable[..., Any]) -> None:
    """SW-09."""
    switching.close(home, "*/*/maintenance", ScopeState.CLOSED)
    done = call("touch", str(home / "touched"))
    assert done.code == CUT
    assert "closed" in done.err
    assert not (home / "touched").exists()
    assert acts(home) == ["maintenance.refused"]


def test_a_credential_that_waits_for_its_rotation_begins_nothing(
    shell: Shell, home: Path, call: Callable[..., Any]
) -> None:
    """T-26."""
    flag = home / "switch" / "maintenance" / "rotate" / "VPN-7.json"
    flag.parent.mkdir(parents=True)
    flag.write_text("{}")
    assert call("true").code == 75
    assert call("true", credential="VPN-8").code == 0
    assert shell("maintenance", "rotated", "VPN-7", "--home", str(home)).code == 0
    assert call("true").code == 0
    assert shell("maintenance", "rotated", "VPN-7", "--home", str(home)).code == 65


def test_what_cannot_be_started_is_no_session(home: Path, call: Callable[..., Any]) -> None:
    assert call(str(home / "no-such-program")).code == 69
    assert call().code == 65
    assert session_book(read_config(home)).running() == []


def test_a_session_that_leaves_no_trace_is_not_begun(home: Path, call: Callable[..., Any]) -> None:
    (home / "trail").mkdir(exist_ok=True)
    for year in range(2020, 2060):
        (home / "trail" / f"cli-{year}.jsonl").mkdir()
    assert call("touch", str(home / "touched")).code == 69
    assert not (home / "touched").exists()


def test_the_end_of_an_unwatched_session_is_noted(shell: Shell, home: Path, watch: Watch) -> None:
    process = watch("sleep", "600")
    session = begun(home)
    process.kill()
    process.wait(30)
    assert session.leader is not None
    os.kill(session.leader.pid, signal.SIGKILL)
    until(lambda: not processes_of(session))
    out = shell("maintenance", "list", "--ended", "--home", str(home)).out
    assert "beendet" in out
    assert session_book(read_config(home)).running() == []
