"""What the desk does for each insurer, only while the switch lets its deliveries begin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest
from tests.eau.samples import NOON, eau, file
from tests.kim.mails import LEASE, a_mail, put
from tests.scenarios import switching
from tests.scenarios.platform import build_home

from schleuse.clock import utc_now
from schleuse.config import read_config
from schleuse.eau.answer import Request
from schleuse.eau.store import EauStore, open_store
from schleuse.eau.switched import answering, delivering
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.store import MailStore, Outcome, Take, open_mail_store
from schleuse.processes.eau import Desk
from schleuse.processes.following import Running
from schleuse.processes.kim import store_settings
from schleuse.processes.switching import open_switch
from schleuse.scopes import ScopeState
from schleuse.switch.documents import Limit


@dataclass
class Room:
    """A desk between both of its stores, in which each of two insurers has a filed eAU."""

    desk: Desk
    mails: MailStore
    store: EauStore
    home: Path
    running: Running

    @property
    def iks(self) -> list[IK]:
        return [IK(insurer.ik) for insurer in self.desk.config.insurers]

    def lengths(self) -> list[int]:
        """Of the two feeds."""
        return [len(self.store.feed.events(ik, 0, 10)) for ik in self.iks]

    def states(self) -> list[State]:
        """Of the two mails, by insurer."""
        counts = self.mails.counts()
        accounts = [insurer.address.lower() for insurer in self.desk.config.insurers]
        return [next(iter(counts[account])) for account in accounts]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_home(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def room(base: Path, tmp_path: Path) -> Iterator[Room]:
    home = shutil.copytree(base, tmp_path / "home")
    config = read_config(home)
    store, running = open_store(config.eau_database), Running(lambda: NOON)
    accounts = {insurer.address.lower() for insurer in config.insurers}
    settings = replace(store_settings(config), reserve_bytes=0)
    own = lambda address: address.lower() if address.lower() in accounts else None  # noqa: E731
    with open_mail_store(settings, own, background=False) as mails:
        put(mails, *(a_mail(number, one.address) for number, one in enumerate(config.insurers, 1)))
        for insurer in config.insurers:
            (one,) = mails.leases.claim([Take(insurer.address.lower())], 1, "w", NOON, LEASE).mails
            mails.leases.finish([Outcome(one.id, State.DELIVERED)], "w", NOON)
            case = eau(1)
            case.arrival = replace(case.arrival, delivery=one.id)
            file(store, case, ik=IK(insurer.ik))
        desk = Desk(config, store, mails.leases, open_switch(config, "eau-desk"), running)
        yield Room(desk, mails, store, home, running)
    store.close()


def acknowledge(room: Room) -> None:
    for ik in room.iks:
        room.store.feed.ack(ik, "benefits", 1)


def test_only_the_feed_of_an_open_insurer_grows(room: Room) -> None:
    """T-24."""
    switching.close(room.home, f"eau_intake/{room.iks[1]}/deliver", ScopeState.HOLD)
    assert room.desk.publish() == 1
    assert room.lengths() == [1, 0]
    assert room.running.last([delivering(room.iks[1])]) is None
    switching.open(room.home, f"eau_intake/{room.iks[1]}/deliver")
    assert room.desk.publish() == 1
    assert room.lengths() == [1, 1]


def test_a_desk_that_missed_the_closing_of_one_insurer_still_serves_the_other(room: Room) -> None:
    """SW-06, T-24: its own switch says open, the store has seen more."""
    room.store.raise_fence({delivering(room.iks[0]): 9}, 9)
    assert room.desk.publish() == 1
    assert room.lengths() == [0, 1]


def test_acknowledgements_of_a_closed_insurer_are_told_to_the_mail_store_after_the_opening(room: Room) -> None:
    room.desk.publish()
    acknowledge(room)
    switching.close(room.home, f"eau_intake/{room.iks[1]}", ScopeState.HOLD)
    assert room.desk.tell_confirmed() == 1
    assert room.states() == [State.CONFIRMED, State.DELIVERED]
    switching.open(room.home, f"eau_intake/{room.iks[1]}")
    assert room.desk.tell_confirmed() == 1
    assert room.states() == [State.CONFIRMED, State.CONFIRMED]


def test_a_confirmation_that_the_mail_store_refuses_keeps_back_no_other(room: Room) -> None:
    """SW-06, T-24."""
    room.desk.publish()
    acknowledge(room)
    room.mails.leases.holds.follow({delivering(room.iks[0]): 9}, 9, [], lambda *_: (), NOON)
    assert room.desk.tell_confirmed() == 1
    assert room.states() == [State.DELIVERED, State.CONFIRMED]


def test_a_limited_delivery_keeps_to_its_rate(room: Room) -> None:
    switching.close(room.home, "eau", ScopeState.LIMITED, Limit(per_hour=0))
    assert room.desk.publish() == 0
    switching.open(room.home, "eau", ScopeState.LIMITED, Limit(per_hour=1))
    assert room.desk.publish() == 2


def test_a_document_that_waited_for_its_publication_says_how_long(room: Room) -> None:
    """HD-46: it was filed long ago, and its insurer's deliveries are held since a moment."""
    switching.close(room.home, "eau", ScopeState.HOLD)
    switching.open(room.home, "eau")
    room.desk.publish()
    (event,) = room.store.feed.events(room.iks[0], 0, 10)
    assert event.held_for.total_seconds() > 0


def test_a_look_at_requests_that_says_nothing_is_no_effect(room: Room) -> None:
    """SwitchEffect.last_effect_at is evidence; each second somebody looks."""
    ik = room.iks[0]
    both = [answering(ik), delivering(ik)]
    room.store.answers.answer(ik, Request("ds-1", b"1" * 16, None, utc_now().date()), utc_now(), waits=lambda *_: True)
    switching.close(room.home, f"eau_intake/{ik}/accept", ScopeState.DEFER)  # nobody knows what is still at its senders
    # The first look since the start goes through all of them, whatever share was looked at before.
    assert replace(room.desk, running=Running(utc_now)).answering.follow() == 0
    assert room.desk.answering.follow() == 0
    assert room.running.last(both) is None
    switching.open(room.home, f"eau_intake/{ik}/accept")
    assert room.desk.answering.follow() == 1
    assert [room.running.last([one]) for one in both] == [NOON, NOON]


def test_requests_that_are_over_end_unless_retention_is_frozen_or_their_answers_are_closed(room: Room) -> None:
    """SW-12, T-24."""
    for ik in room.iks:
        room.store.answers.answer(ik, Request("ds-1", b"1" * 16, None, NOON.date()), NOON, waits=lambda *_: False)
    frozen = room.desk.config.retention_frozen
    frozen.parent.mkdir(exist_ok=True)
    frozen.write_text("legal hold\n")
    assert room.desk.answering.end() == 0
    frozen.unlink()
    switching.close(room.home, f"eau_employer_answer/{room.iks[0]}", ScopeState.HOLD)
    assert room.desk.answering.end() == 1
    switching.open(room.home, f"eau_employer_answer/{room.iks[0]}")
    room.store.raise_fence({answering(room.iks[0]): 99}, 99)  # closed again, and our copy of the switch is late
    assert room.desk.answering.end() == 0


def test_a_day_at_the_beginning_of_time_stops_no_answers(room: Room) -> None:
    """An insurer's system may send any day; asked in a hold, it would be looked at for the first time afterwards."""
    asked = Request("ds-1", b"p", None, date.min)
    room.store.answers.answer(room.iks[0], asked, utc_now(), waits=lambda _day, _upto: True)
    assert room.desk.answering.follow() == 1
