"""The prefork master, with real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import os, sys, time
from schleuse.processes.prefork import Master, ParentWatch
log = sys.argv[1]
def note(line):
    with open(log, "a") as file: file.write(line + "\\n")
def steady():
    watch = ParentWatch()
    note(f"steady {os.getpid()}")
    while not watch.gone(): time.sleep(0.02)
    note("orphan ended")
def failing():
    note("failing")
    raise ValueError("on purpose")
Master({"steady": steady, "failing": failing}).run()
note("master ended")
"""


def start(log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(log)], env={**os.environ, "PYTHONPATH": "src"}, stderr=subprocess.DEVNULL
    )


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def until(log: Path, count: int, word: str) -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [line for line in lines(log) if line.startswith(word)]
        if len(found) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{word} came only {len(found)} times: {lines(log)}")


def test_a_killed_child_comes_back_and_a_failing_one_pauses(tmp_path: Path) -> None:
    log = tmp_path / "log"
    master = start(log)
    first = until(log, 1, "steady")[0]
    os.kill(int(first.split()[1]), signal.SIGKILL)
    second = until(log, 2, "steady")[1]
    assert first != second
    until(log, 2, "failing")
    master.terminate()
    assert master.wait(20) == 0
    assert lines(log)[-1] == "master ended"


def test_children_end_with_a_killed_master(tmp_path: Path) -> None:
    log = tmp_path / "log"
    master = start(log)
    until(log, 1, "steady")
    master.kill()
    master.wait(20)
    until(log, 1, "orphan ended")
