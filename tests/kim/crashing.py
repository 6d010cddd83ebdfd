"""Processes that work on one mail store and die: the `kim` role, and an `eau` worker beside it.

Each is a fork that reports by a pipe what it was promised, one line a promise, written before it goes on:

    a N     mail N was acknowledged (done(None))
    e ID    the worker saw delivery ID and had its effect downstream
    f ID    finishing ID returned
    s ID    the next host took ID, and that was recorded
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from tests.kim.mails import ELSEWHERE, KASSE, SUCCESS, a_mail, account_of

from schleuse.clock import utc_now
from schleuse.errors import Error, UnavailableError
from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Settings, Take, open_leases, open_mail_store
from schleuse.mail import dsn
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.spool.disk import Buffer, OsDisk

T = TypeVar("T")

LEASE = timedelta(minutes=5)
#: A process lives for a moment only, and shall die in its fifth round of routing, too.
GATHER = timedelta(milliseconds=5)
MAILS = 24
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
DISK_CALLS = ("create", "write", "sync", "truncate", "sync_directory")
KIM_STEPS = (
    "accept.before",
    "accept.durable",
    "accept.told",
    "route.read",
    "route.before-commit",
    "route.committed",
    "report.accepted",
    "queue.taken",
)
EAU_STEPS = ("eau.claimed", "eau.filed", "eau.finished")


@dataclass(frozen=True)
class Death:
    """Where a process dies: at the n-th time it comes to that step (0: the first)."""

    step: str
    nth: int


class Fate:
    """Kills this process at its death, and makes the disk fail now and then until then."""

    def __init__(self, death: Death, chance: random.Random) -> None:
        self._death = death
        self._left = death.nth
        self._chance = chance
        self._guarded = threading.Lock()

    def at(self, step: str) -> None:
        if step == self._death.step:
            with self._guarded:
                self._left -= 1
                if self._left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    def fault(self) -> None:
        if self._chance.random() < 0.02:
            number = self._chance.choice((5, 28))  # EIO, ENOSPC
            raise OSError(number, os.strerror(number))


class DyingDisk(OsDisk):
    """Each changing call may be the last one of its process, before or after its effect, or half way."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    def create(self, path: Path) -> int:
        return self._around("create", lambda: OsDisk.create(self, path))

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        whole = b"".join(buffers)
        OsDisk.write(self, fd, [whole[: len(whole) // 3]], offset)
        self._fate.at("write.half")
        return self._around("write", lambda: OsDisk.write(self, fd, buffers, offset))

    def sync(self, fd: int) -> None:
        self._around("sync", lambda: OsDisk.sync(self, fd))

    def truncate(self, fd: int, length: int) -> None:
        self._around("truncate", lambda: OsDisk.truncate(self, fd, length))

    def sync_directory(self, path: Path) -> None:
        self._around("sync_directory", lambda: OsDisk.sync_directory(self, path))

    def _around(self, name: str, call: Callable[[], T]) -> T:
        self._fate.at(f"{name}.before")
        self._fate.fault()
        result = call()
        self._fate.at(f"{name}.after")
        self._fate.fault()
        return result


class Promises:
    """The pipe: a line is one write, so it is whole or not there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, kind: str, number: int) -> None:
        os.write(self._fd, f"{kind} {number}\n".encode())


def the_mail(number: int) -> Mail:
    """Mail N: to the insurer, every third also to somebody elsewhere."""
    mail = a_mail(number, KASSE, notify=SUCCESS)
    return mail if number % 3 else replace(mail, recipients=(*mail.recipients, Recipient(ELSEWHERE)))


def run_kim(settings: Settings, first: int, fate: Fate, promise: Promises) -> None:
    """Accept MAILS mails under load, report, send on, and go on until killed or done."""
    disk = DyingDisk(fate) if settings.url.startswith("sqlite") else None
    settings = replace(settings, gather=GATHER)
    with open_mail_store(settings, account_of, disk=disk, step=fate.at) as store:
        threads = [
            threading.Thread(target=_accept, args=(store, range(first, first + MAILS), promise)),
            threading.Thread(target=_repeat, args=(lambda: _report(store, fate),)),
            threading.Thread(target=_repeat, args=(lambda: _send_on(store, fate, promise),)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def run_eau(settings: Settings, fate: Fate, promise: Promises) -> None:
    """Claim, have the effect, finish; until killed."""
    with open_leases(settings.url, settings.spool) as leases:
        leases.reset("eau")
        while True:
            with suppress(Error):
                found = leases.claim([Take(KASSE)], 3, "eau", utc_now(), LEASE).mails
                fate.at("eau.claimed")
                for one in found:
                    promise("e", one.id)
                fate.at("eau.filed")
                leases.finish([Outcome(one.id, State.DELIVERED) for one in found], "eau", utc_now())
                fate.at("eau.finished")
                for one in found:
                    promise("f", one.id)


def _accept(store: MailStore, numbers: Sequence[int], promise: Promises) -> None:
    left = threading.Semaphore(0)
    for number in numbers:

        def done(error: Error | None, number: int = number) -> None:
            if error is None:
                promise("a", number)
            left.release()

        store.accept(the_mail(number), done)
        if number % 4 == 0:
            left.acquire(timeout=30)


def _report(store: MailStore, fate: Fate) -> None:
    for pending in store.pending_reports(5):
        answers: SimpleQueue[Error | None] = SimpleQueue()
        store.accept(dsn.envelope(pending.report), answers.put)
        if answers.get(timeout=30) is None:
            fate.at("report.accepted")
            store.report_accepted([pending])


def _send_on(store: MailStore, fate: Fate, promise: Promises) -> None:
    for outgoing in store.queue.due(utc_now(), 3):
        fate.at("queue.taken")
        store.queue.delivered(outgoing.id, utc_now(), "250 2.0.0 ok", relayed_dsn=False)
        promise("s", outgoing.id)


def _repeat(work: Callable[[], None]) -> None:
    for _ in range(40):
        with suppress(Error):
            work()


def forked(work: Callable[[Promises], None]) -> tuple[int, int]:
    """Start work in a process of its own. Returns (its id, the reading end of its pipe)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a test that fails leaves nobody behind
        os.close(reading)
        work(Promises(writing))
        os._exit(0)
    except UnavailableError:  # the disk failed while it started; its supervisor would start it again
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def promises_of(reading: int) -> list[tuple[str, int]]:
    """What the process said before it ended."""
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    return [(kind, int(number)) for kind, number in (line.split() for line in lines)]
