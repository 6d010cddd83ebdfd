"""The outbound queue takes nothing without the switch (SW-04, SW-06)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from tests.kim.mails import ELSEWHERE, START, a_mail, account_of, put
from tests.switch_double import FakeSwitch

from schleuse.database import sqlite_url
from schleuse.holding.states import State
from schleuse.kim.store import OUTBOUND, MailStore, Settings, open_mail_store
from schleuse.kim.switched import SENDING
from schleuse.processes.kim_sending import GatedQueue, SendingGate
from schleuse.scopes import ScopeState
from schleuse.switch.documents import Limit
from schleuse.switch.fence import StaleEpochError

LATER = START + timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailStore]:
    settings = Settings(sqlite_url(tmp_path / "kim.sqlite"), tmp_path / "spool", "kim.example", reserve_bytes=0)
    with open_mail_store(settings, account_of, background=False) as opened:
        put(opened, a_mail(1, ELSEWHERE))
        yield opened


@pytest.mark.parametrize("state", [ScopeState.DRAIN, ScopeState.HOLD, ScopeState.DEFER, ScopeState.CLOSED])
def test_nothing_is_taken_from_a_queue_that_is_held(store: MailStore, state: ScopeState) -> None:
    switch = FakeSwitch()
    switch.set("kim_mail/-/deliver", state)
    assert GatedQueue(store.queue, switch).due(LATER, 10) == []
    assert not SendingGate(switch, lambda _: nullcontext(), lambda *_: timedelta(0)).may_begin()
    assert store.counts()[OUTBOUND] == {State.HELD: 1}


def test_a_limited_queue_sends_its_share_and_a_greater_share_the_same_and_more(store: MailStore) -> None:
    put(store, *(a_mail(number, ELSEWHERE) for number in range(2, 200)))
    switch = FakeSwitch()
    queue = GatedQueue(store.queue, switch)
    taken: list[set[int]] = []
    for permille in (0, 300, 600):
        switch.set("kim_mail/-/deliver", ScopeState.LIMITED, Limit(permille=permille))
        taken.append({mail.id for mail in queue.due(LATER, 1000)})
        queue.put_back([*taken[-1]])
    assert not taken[0]
    assert 20 < len(taken[1]) < 100
    assert taken[1] < taken[2]


def test_a_limited_queue_keeps_to_its_rate_over_a_restart_and_has_more_in_the_next_hour(store: MailStore) -> None:
    put(store, *(a_mail(number, ELSEWHERE) for number in range(2, 9)))
    switch = FakeSwitch()
    switch.set("kim_mail/-/deliver", ScopeState.LIMITED, Limit(per_hour=3))
    assert [len(GatedQueue(store.queue, switch).due(LATER, 2)) for _ in range(3)] == [2, 1, 0]
    assert len(GatedQueue(store.queue, switch).due(LATER + timedelta(hours=1), 10)) == 3


def test_a_role_that_slept_through_a_closing_is_refused_by_the_database(store: MailStore) -> None:
    """SW-06, T-05."""
    store.leases.holds.follow({SENDING: 3}, 3, (), lambda *_: (), START)
    with pytest.raises(StaleEpochError):
        GatedQueue(store.queue, FakeSwitch()).due(LATER, 10)
    assert store.counts()[OUTBOUND] == {State.HELD: 1}


def test_what_was_sent_is_recorded_whatever_the_switch_says_meanwhile(store: MailStore) -> None:
    switch = FakeSwitch()
    queue = GatedQueue(store.queue, switch)
    (mail,) = queue.due(LATER, 10)
    epoch = switch.set("kim_mail", ScopeState.CLOSED)
    store.leases.holds.follow({SENDING: epoch}, epoch, (), lambda *_: (), START)
    queue.delivered(mail.id, LATER, "250 ok", True)
    assert store.counts()[OUTBOUND] == {State.DELIVERED: 1}
