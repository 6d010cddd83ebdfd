"""One informational mail for each held mail, none while open, none twice (HD-30)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kim.mails import KASSE, PRAXIS, a_mail, put
from tests.processes.receipt_site import ACCOUNTS, InDoubt, Place
from tests.scenarios.platform import build_home

from schleuse.config import Config, read_config
from schleuse.errors import UnavailableError
from schleuse.holding.states import State
from schleuse.mail.contracts import Done, Mail
from schleuse.processes import receipt_mails
from schleuse.processes.receipt_mails import ReceiptMailer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read_config(build_home(tmp_path_factory.mktemp("base") / "home"))


@pytest.fixture
def place(config: Config, tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, config)
    put(place.store, a_mail(1, KASSE), a_mail(2, KASSE))
    yield place
    place.store.close()


class Postman:
    """Hands mails to the store. dies: after so many the process is gone, and nobody hears that they were kept."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.mails: list[Mail] = []
        self.refuses = False
        self.loses_reply = False

    def accept(self, mail: Mail, done: Done) -> None:
        if self.refuses:
            done(UnavailableError("no room"))
            return
        self.mails.append(mail)
        self.place.store.accept(mail, (lambda _: done(UnavailableError("lost"))) if self.loses_reply else done)

    def run(self) -> None:
        place = self.place
        ReceiptMailer(place.config, place.store, ACCOUNTS, place.issuer, place.clock, self.accept).step()
        place.store.route()


def mailbox(place: Place) -> dict[State, int]:
    return dict(place.store.counts().get(PRAXIS, {}))


def test_each_held_mail_is_told_once(place: Place) -> None:
    place.hold()
    postman = Postman(place)
    postman.run()
    postman.run()
    assert mailbox(place) == {State.HELD: 2}
    put(place.store, a_mail(3, KASSE))
    postman.run()
    assert mailbox(place) == {State.HELD: 3}
    assert {mail.recipients[0].address for mail in postman.mails} == {PRAXIS}
    assert {mail.sender for mail in postman.mails} == {""}


def test_nothing_is_told_while_all_is_open(place: Place) -> None:
    Postman(place).run()
    assert mailbox(place) == {}


def test_a_mail_that_goes_on_before_its_receipt_was_sent_is_not_told(place: Place) -> None:
    place.hold()
    postman = Postman(place)
    postman.refuses = True
    postman.run()
    place.open_without_backlog()
    place.release()
    postman.refuses = False
    postman.run()
    assert mailbox(place) == {}


def test_a_crash_before_the_mail_is_kept_sends_it_after_the_restart(place: Place) -> None:
    place.hold()
    postman = Postman(place)
    postman.refuses = True
    postman.run()
    place.restart()
    postman.refuses = False
    postman.run()
    assert mailbox(place) == {State.HELD: 2}


def test_a_crash_after_the_mail_was_kept_makes_no_second_one(place: Place) -> None:
    """The same octets under the same Message-ID: the store links it."""
    place.hold()
    postman = Postman(place)
    postman.loses_reply = True
    postman.run()
    place.restart()
    place.clock.now = place.clock.now.replace(hour=23)
    postman.loses_reply = False
    postman.run()
    assert mailbox(place) == {State.HELD: 2, State.DUPLICATE_LINKED: 2}


def test_dsns_and_receipts_are_told_to_nobody(place: Place) -> None:
    put(place.store, a_mail(9, KASSE, sender=""))
    place.hold()
    postman = Postman(place)
    postman.run()
    assert len(postman.mails) == 2


def test_a_role_in_doubt_tells_that_it_holds(place: Place) -> None:
    place.switch = InDoubt()
    Postman(place).run()
    assert mailbox(place) == {State.HELD: 2}


def test_a_fault_of_ours_ends_no_role(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts wait for the next look; the role goes on taking mail in."""
    monkeypatch.setattr(receipt_mails, "LOOK_SECONDS", 0)
    mailer = ReceiptMailer(place.config, place.store, ACCOUNTS, place.issuer, place.clock, Postman(place).accept)

    async def twice() -> None:
        done = asyncio.Event()
        loop, tries = asyncio.get_running_loop(), 0

        def step() -> int:
            nonlocal tries
            tries += 1
            if tries == 2:
                loop.call_soon_threadsafe(done.set)
            raise ValueError("a date that is none")

        monkeypatch.setattr(mailer, "step", step)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(mailer.run())
            await done.wait()
            running.cancel()

    asyncio.run(twice())
