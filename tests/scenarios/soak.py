"""T-01 as a load test: many insurers are held for 54 hours, practices repeat themselves, and everything is released.

The real roles; the 54 hours are compressed into seconds, so what waits four hours waits proportionally shorter. What
practices do is decided beforehand (`soak_practices`); what must hold afterwards is read from records (`soak_records`).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from tests.scenarios import switching
from tests.scenarios.platform import ROOT, Platform, free_ports, until
from tests.scenarios.soak_practices import Post, Practice, Wave, compose, live_posts, send_all
from tests.scenarios.test_restart import Way
from tests.scenarios.test_switch_eau import everybody_saw

from schleuse.clock import utc_now
from schleuse.config import read_config
from schleuse.environment import Environment
from schleuse.holding.states import State
from schleuse.identifiers import IK, BadIKError
from schleuse.processes.hold_capacity import measured
from schleuse.processes.home import FIRST_WITNESS, NewHome, NewInsurer, NewPractice, create_home
from schleuse.scopes import ScopeState
from schleuse.witness.config import read_witness_config

#: Killed with -9 while it is held, one after the other; `kim` is what practices talk to.
KILLED = ("kim", "eau", "vault", "journal", "control")


@dataclass(frozen=True)
class Size:
    """seconds: that stand for `hours` of hold. mails: certificates of the hold, besides everything that is repeated.

    live: certificates that practices send while the backlog goes, live_rate of them a second. first: mails of the first
    batch. kills: roles that are killed while it is held. restart: back by a restart plan; else by an opening of two.
    """

    insurers: int = 8
    practices: int = 4
    mails: int = 400
    hours: float = 54.0
    seconds: float = 60.0
    live: int = 100
    live_rate: float = 5.0
    first: int = 10
    kills: Sequence[str] = KILLED
    restart: bool = True
    seed: int = 1


@dataclass
class Times:
    """Moments of the run (time.time), in order."""

    marks: dict[str, float] = field(default_factory=dict)

    def mark(self, what: str) -> None:
        self.marks[what] = time.time()

    def between(self, first: str, last: str) -> float:
        return self.marks[last] - self.marks[first]


@dataclass
class Soak:
    """What one run leaves behind for whoever reads the records. released: the release plan that was carried out."""

    one: Platform
    size: Size
    practices: Sequence[Practice]
    times: Times
    octets: float = 0.0
    released: str = ""
    held_mails: int = 0
    receipts: int = 0
    broken_receipts: int = 0


def new_insurers(count: int) -> list[NewInsurer]:
    """So many, with valid IK."""
    found: list[NewInsurer] = []
    number = 10_990_001
    while len(found) < count:
        number += 1
        for digit in range(10):
            with suppress(BadIKError):
                found.append(NewInsurer(IK(f"{number:08d}{digit}"), f"Kasse {number}", f"kasse{number}"))
                break
    return found


@contextmanager
def home_of(folder: Path, size: Size, changes: Callable[[str], str] = lambda text: text) -> Iterator[Platform]:
    """A home of this size, nothing started. changes: of the text of its configuration."""
    new = NewHome(
        Environment.TEST,
        "kim.test.kim.telematik-test",
        new_insurers(size.insurers),
        # The first practice's mailbox is that of the platform's probes.
        [NewPractice("sonde", "Sonde"), *(NewPractice(f"praxis{n}", f"Praxis {n}") for n in range(size.practices))],
        first_port=free_ports(FIRST_WITNESS + 2 * size.insurers),
    )
    create_home(folder, new, datetime.now(UTC))
    file = folder / "schleuse.toml"
    file.write_text(changes(file.read_text()))
    one = Platform(folder, read_config(folder))
    try:
        yield one
    finally:
        for role in list(one.processes):
            one.kill(role)


def start(one: Platform) -> None:
    """All roles, and the witness of each insurer; 80 of them need a minute of two cores before anything is held."""
    for insurer in range(len(one.config.insurers)):
        one.start_witness(insurer)
    one.start_all()
    one.start("control")
    until(lambda: one.ready("control"), "control")
    for folder in one.config.witnesses:
        listen = read_witness_config(folder).metrics
        until(lambda listen=listen: _answers(listen), f"the witness at {listen}", 300)  # type: ignore[misc]


def _answers(listen: str | None) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://{listen}/readyz", timeout=2).status_code == httpx.codes.OK
    return False


def run(one: Platform, size: Size, say: Callable[[str], None] = lambda _: None) -> Soak:
    """The whole of it; what came of it is for `soak_records.judge`."""
    practices = [Practice.of(one.config, number, size) for number in range(size.practices)]
    say("making mails")
    held, wave = compose(one.config, practices, size)
    live = live_posts(one.config, practices, size)
    soak = Soak(one, size, practices, Times())
    start(one)
    say(f"holding: {sum(map(len, held))} mails in {size.seconds:g} s for {size.hours:g} h")
    everybody_saw(one, switching.close(one.home, "eau", ScopeState.HOLD))
    soak.times.mark("held")
    asyncio.run(_hold(one, size, practices, held))
    soak.times.mark("sent")
    until(lambda: _routed(one), "all that was accepted to be in its mailbox")
    say("all sent; reading receipts")
    soak.octets = measured(one.config, utc_now()).octets
    soak.held_mails = sum(len(book.mails) for practice in practices for book in practice.books.values())
    for practice in practices:
        found, broken = _receipts(one, practice)
        soak.receipts, soak.broken_receipts = soak.receipts + found, soak.broken_receipts + broken
    soak.times.mark("opening")
    say("opening")
    way = _open(one, size)
    soak.times.mark("opened")
    say("wave, live traffic and release")
    soak.released = _release(one, size, practices, wave, live, soak.times)
    until(lambda: _nothing_waits(one), f"every mail to be finished\n{one.log('eau')[-3000:]}", 600)
    soak.times.mark("finished")
    if way is not None:
        _to_the_end(way)
    for practice in practices:
        practice.fetch_all(one)
    soak.times.mark("over")
    return soak


def _receipts(one: Platform, practice: Practice) -> tuple[int, int]:
    """See `Practice.receipts`. Until its DSN is out, a receipt names paper as the way if nothing comes (HD-04)."""
    deadline = time.monotonic() + 60
    while (answer := practice.receipts(one))[1] and time.monotonic() < deadline:
        time.sleep(0.3)
    return answer


async def _hold(one: Platform, size: Size, practices: Sequence[Practice], held: Sequence[Sequence[Post]]) -> None:
    second = size.seconds / size.hours
    sending = [
        asyncio.create_task(send_all(one, practice, posts, second))
        for practice, posts in zip(practices, held, strict=True)
    ]
    for role in size.kills:
        await asyncio.sleep(size.seconds / (len(size.kills) + 1))
        await asyncio.to_thread(again, one, role)
    await asyncio.gather(*sending)


def again(one: Platform, role: str) -> None:
    """Killed and started; practices send on meanwhile."""
    one.kill(role)
    one.start(role)
    until(lambda: one.ready(role), f"{role} again\n{one.log(role)[-2000:]}")


def _routed(one: Platform) -> bool:
    found = one.conservation()
    return found.unrouted == 0 and found.holds


def _nothing_waits(one: Platform) -> bool:
    found = one.conservation()
    assert found.holds, found.findings
    insurers = {insurer.address.lower() for insurer in one.config.insurers}
    left = sum(
        line.states.get(state, 0)
        for line in found.accounts
        if line.name in insurers
        for state in (State.HELD, State.RELEASING)
    )
    return not (left or found.unrouted)


def _open(one: Platform, size: Size) -> Way | None:
    """Open again, the backlog still waiting; by the ladder up to the stage that releases it, or by two persons."""
    if not size.restart:
        switching.open(one.home, "eau", with_backlog=False)
        until(lambda: _is_open(one), "the feed to be open")
        return None
    way = Way(one)
    way.plan("--scopes", "eau/*", "--fast")
    way.documents()
    while (stage := _next(way)) != "S6":
        if stage.startswith(("S3", "S4")) and stage != "S4 100 %":
            way.rehearse(f"eau_intake/{_opened(way)}/process")
        way.sign()
        _leave(way, stage)
    return way


def _opened(way: Way) -> str:
    """An insurer that is not held any more: the canary of the plan."""
    for number, insurer in enumerate(way.one.config.insurers):
        if way.state(number) is not ScopeState.HOLD:
            return insurer.ik
    raise AssertionError("no insurer is open in this stage")


def _next(way: Way) -> str:
    until(lambda: not way.status()["stage"].startswith(("S0", "S1")), "the first stages", 300)
    return str(way.status()["stage"])


def _leave(way: Way, stage: str) -> None:
    deadline = time.monotonic() + 300
    while (status := way.status())["stage"] == stage:
        assert time.monotonic() < deadline, (status, way.one.log("control")[-3000:])
        time.sleep(0.3)
    assert not status["aborted"], status


def _to_the_end(way: Way) -> None:
    while not (status := way.status())["done"]:
        if status["stage"] == "S9":
            break
        way.sign()
        _leave(way, status["stage"])


def _is_open(one: Platform) -> bool:
    with suppress(Exception), one.feed() as client:
        return client.get("eau").status_code == 200
    return False


def _release(one: Platform, size: Size, practices: Sequence[Practice], wave: Wave, live: Wave, times: Times) -> str:
    """By the commands that operators type; the wave of HD-08 and live traffic come in while it runs.

    The command is killed on the way, and so are a worker and its desk: the control role goes on with the release.
    """
    home = ("--home", str(one.home))
    id = one.command("hold", "release", "plan", "--first", str(size.first), "--yes", *home).stdout.split()[-1]
    for operator, role in (("betrieb-1", "switch_officer"), ("betrieb-2", "service_owner")):
        key = ("--operator-key", str(one.home / "operators" / f"{operator}.key"), "--role", role)
        one.command("hold", "release", "approve", id, "--operator", operator, *key, "--yes", *home)
    over = threading.Event()
    clearing = threading.Thread(target=lambda: asyncio.run(_everybody(one, practices, wave, 0.0, None)))
    steady = threading.Thread(
        target=lambda: asyncio.run(_everybody(one, practices, live, size.practices / size.live_rate, over))
    )
    times.mark("release")
    clearing.start()
    steady.start()
    command = _typed("hold", "release", "run", id, *home)
    until(lambda: _progress(one, id)["released"] >= 1, "the first batch", 120)
    command.kill()
    command.wait()
    if "eau" in size.kills:
        again(one, "eau")
    until(lambda: bool((at := _progress(one, id))["finished"] or at["stopped"]), f"release {id}", 1800)
    times.mark("released")
    over.set()
    clearing.join()
    steady.join()
    assert not _progress(one, id)["stopped"], _progress(one, id)
    return id


def _typed(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "schleuse", *words],
        env={"PYTHONPATH": str(ROOT / "src"), "SCHLEUSE_LANG": "en"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _progress(one: Platform, id: str) -> dict[str, Any]:
    path = one.home / "switch" / "releases" / id / "progress.json"
    empty: dict[str, Any] = {"released": 0, "finished": False, "stopped": ""}
    return {**empty, **json.loads(path.read_bytes())} if path.exists() else empty


async def _everybody(
    one: Platform, practices: Sequence[Practice], posts: Wave, every: float, over: threading.Event | None
) -> None:
    """every: seconds between two mails of one practice. over: no further mail is begun then."""
    due = [[replace(post, due=number * every) for number, post in enumerate(of_practice)] for of_practice in posts]
    await asyncio.gather(
        *(send_all(one, practice, mine, 1.0, over) for practice, mine in zip(practices, due, strict=True))
    )
