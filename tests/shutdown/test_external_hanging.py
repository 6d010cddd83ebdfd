"""Real programs that hang, and a keeper that is killed at every step: closing first, and nothing opens unseen (SW-01).

Promise 3: a system of which nobody knows whether it ran before it was stopped is started by two persons only.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.shutdown.operators import KEYS, OPENERS, RIGHTS, Clock, close, new_log, open_again
from tests.shutdown.test_external import needed_of

from schleuse.scopes import Scope
from schleuse.shutdown import external_keeper
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.external import ExternalSystem, Record, RecordBook, Runs, SystemStandings
from schleuse.shutdown.external_keeper import ExternalKeeper, perform
from schleuse.shutdown.external_start import PURPOSE, StartBook, order_of
from schleuse.shutdown.hooks import Action, Outcome
from schleuse.shutdown.proofs import claims
from schleuse.switch.approval import approve
from schleuse.switch.effects import EffectBook
from schleuse.switch.log import SwitchLog

FORK = multiprocessing.get_context("fork")
SERVICE = str(Path(__file__).parents[2] / "deploy" / "external" / "service")
PROGRAM = ("sleep", "600")
SCOPE = Scope("payments_support")
LONG = timedelta(seconds=60)
HANGS = ("sleep", "600")


class Home:
    """A switch with systems, and a clock that stands still."""

    def __init__(self, folder: Path, *systems: ExternalSystem) -> None:
        self.folder = folder / "switch"
        self.systems = systems
        self.log: SwitchLog = new_log(self.folder / "log")
        self.clock = Clock()

    def keeper(self, do: external_keeper.Perform = perform) -> ExternalKeeper:
        return ExternalKeeper(
            self.systems,
            SystemStandings(self.log.read_all),
            self.folder,
            RIGHTS,
            lambda _: None,
            self.clock,
            "here",
            do,
        )

    def order(self, system: ExternalSystem) -> None:
        """Two persons sign that it is started."""
        order = order_of(system, SystemStandings(self.log.read_all).at(SCOPE, self.clock()))
        book = StartBook(self.folder, RIGHTS)
        for name, role in OPENERS:
            book.keep(approve(PURPOSE, order.hash, name, role, KEYS[name], self.clock()))

    def proven(self, system: ExternalSystem) -> bool:
        found = claims(self.folder / "proofs", needed_of(system, self.log, self.clock()), self.clock())
        return [one.verdict for one in found] == [Verdict.PROVEN]


class Dying:
    """Counts steps, and ends the process by SIGKILL after one of them."""

    def __init__(self, at: int) -> None:
        self._left = at

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def perform(self, action: Action, step: str, facts: Mapping[str, str], timeout: timedelta) -> Outcome:
        outcome = await perform(action, step, facts, timeout)
        self.step()
        return outcome

    def around(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acts(*values: object) -> object:
            found = act(*values)
            self.step()
            return found

        return acts


def keep_until_killed(home: Home, at: int) -> int | None:
    """One step of a keeper in a process of its own; returns its exit code. at: which of its steps kills it, 0: none."""

    def run() -> None:
        dying = Dying(at)
        for owner, name in ((RecordBook, "write"), (EffectBook, "write"), (external_keeper, "keep")):
            setattr(owner, name, dying.around(getattr(owner, name)))
        external_keeper.LOOK_BEFORE = timedelta(seconds=0.05 if "sleep" in str(home.systems[0].probe) else 60)
        asyncio.run(home.keeper(dying.perform).step())

    process = FORK.Process(target=run)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture
def pidfile(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "it.pid")
    yield path
    subprocess.run([SERVICE, "stop", path], check=False)


def service(pidfile: str, probe: tuple[str, ...] = ()) -> ExternalSystem:
    stop, start = (SERVICE, "stop", pidfile), (SERVICE, "start", pidfile, *PROGRAM)
    return ExternalSystem("it", SCOPE, stop, start, probe or (SERVICE, "probe", pidfile), LONG)


def is_up(pidfile: str) -> bool:
    return subprocess.run([SERVICE, "probe", pidfile], check=False).returncode == 0


def start(pidfile: str) -> None:
    subprocess.run([SERVICE, "start", pidfile, *PROGRAM], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
def test_wherever_its_keeper_is_killed_only_what_was_seen_to_run_is_started(
    tmp_path: Path, pidfile: str, slow: bool
) -> None:
    """SW-02, RO-01: killed after each step of the closing, of the opening, and of the start that two persons ordered.

    Slow: the probe takes longer than the closing waits, so that nobody knows whether it ran.
    """
    system = service(pidfile, ("sh", "-c", 'sleep 0.1; exec "$0" probe "$1"', SERVICE, pidfile) if slow else ())
    kills = []
    for at in range(1, 20):
        home = Home(tmp_path / str(at), system)
        start(pidfile)
        close(home.log, "payments_support")
        killed = [keep_until_killed(home, at) == -signal.SIGKILL]
        assert keep_until_killed(home, 0) == 0
        assert not is_up(pidfile)
        assert home.proven(system)
        assert RecordBook(home.folder).read("it") == Record(1, True, Runs.UNKNOWN if slow else Runs.RUNNING)
        open_again(home.log, "payments_support")
        killed.append(keep_until_killed(home, at) == -signal.SIGKILL)
        assert keep_until_killed(home, 0) == 0
        assert is_up(pidfile) is not slow
        if slow:
            home.order(system)
            killed.append(keep_until_killed(home, at) == -signal.SIGKILL)
            assert keep_until_killed(home, 0) == 0
            assert is_up(pidfile)
        assert RecordBook(home.folder).read("it") == Record(2)
        kills.append(sum(killed))
        if not any(killed):
            break
    # probe, record, stop, probe, proof, effect, record; start, probe, effect, record; by order one more record
    assert (kills[-1], sum(kills)) == (0, 7 + 1 + 5 if slow else 7 + 4)


@pytest.fixture
def keeping() -> Callable[[Home, Callable[[], bool]], None]:
    """Run a home's keeper for ever, until something is seen."""

    async def until(keeper: ExternalKeeper, seen: Callable[[], bool]) -> None:
        task = asyncio.create_task(keeper.run())
        async with asyncio.timeout(60):
            while not seen() and not task.done():
                await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

    def run(home: Home, seen: Callable[[], bool]) -> None:
        asyncio.run(until(home.keeper(), seen))

    return run


Keeping = Callable[[Home, Callable[[], bool]], None]


def mark(path: Path) -> tuple[str, ...]:
    return ("touch", str(path))


def test_systems_that_hang_keep_no_other_one_open(tmp_path: Path, keeping: Keeping) -> None:
    """SW-01: one whose probe, one whose stop, and one whose start never end, and one that is closed meanwhile."""
    stopped = tmp_path / "stopped"
    hanging = [
        ExternalSystem("probe", Scope("directory"), ("true",), ("true",), HANGS, LONG),
        ExternalSystem("stop", Scope("directory"), HANGS, ("true",), ("false",), LONG),
    ]
    home = Home(tmp_path, *hanging, ExternalSystem("it", SCOPE, mark(stopped), ("true",), ("false",), LONG))
    close(home.log, "directory")

    def seen() -> bool:
        if RecordBook(home.folder).read("stop").stopped and len(home.log.read_all()) == 1:
            close(home.log, "payments_support", "later")  # both hang by now
        return stopped.exists() and home.proven(home.systems[2])

    keeping(home, seen)


@pytest.mark.parametrize("what", ["start", "probe"])
def test_a_closing_cuts_what_hangs_while_a_system_is_opened(tmp_path: Path, keeping: Keeping, what: str) -> None:
    """SW-01: a start, or the look of one that waits for two persons, may take its minute; a closing does not wait."""
    stops, hangs = tmp_path / "stops", tmp_path / "hangs"
    hang = ("sh", "-c", f"touch {hangs}; exec sleep 600")
    once = ("sh", "-c", f"echo >> {stops}")
    system = ExternalSystem("it", SCOPE, once, hang, hang if what == "probe" else ("false",), LONG)
    home = Home(tmp_path, system)
    close(home.log, "payments_support")
    before = Runs.RUNNING if what == "start" else Runs.UNKNOWN
    RecordBook(home.folder).write("it", Record(1, True, before), home.clock())
    open_again(home.log, "payments_support")

    def seen() -> bool:
        if hangs.exists() and len(home.log.read_all()) == 2:
            close(home.log, "payments_support", "again")
        return stops.exists()

    keeping(home, seen)
    assert RecordBook(home.folder).read("it").before is before


@pytest.mark.parametrize(
    ("probe", "verdict"),
    [
        (("/nowhere/at-all",), Verdict.INCONCLUSIVE),
        ((), Verdict.INCONCLUSIVE),
        (("sh", "-c", "head -c 200000 /dev/urandom; exit 1"), Verdict.PROVEN),
        (("sh", "-c", "printf '\\377\\376stopped'; exit 3"), Verdict.INCONCLUSIVE),
        (("sh", "-c", "sleep 600 & exit 1"), Verdict.PROVEN),
        (("sh", "-c", "kill -9 $$"), Verdict.INCONCLUSIVE),
        (HANGS, Verdict.INCONCLUSIVE),
        (("yes",), Verdict.INCONCLUSIVE),
    ],
)
def test_only_a_clear_word_of_the_probe_proves_it_stopped(
    tmp_path: Path, probe: tuple[str, ...], verdict: Verdict
) -> None:
    """SW-07, SW-17: what nobody knows is commanded and not proven, also after a restart of its keeper."""
    system = ExternalSystem("it", SCOPE, ("true",), ("true",), probe, timedelta(seconds=0.5))
    if verdict is Verdict.PROVEN:  # these end, however busy the machine is
        system = ExternalSystem("it", SCOPE, ("true",), ("true",), probe, LONG)
    home = Home(tmp_path, system)
    close(home.log, "payments_support")
    for _ in range(2):
        asyncio.run(home.keeper().step())
        [claim] = claims(home.folder / "proofs", needed_of(system, home.log, home.clock()), home.clock())
        assert claim.verdict is verdict
