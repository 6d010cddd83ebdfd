"""While letters are held: notices within 15 minutes, escalation after 1, 4 and 24 hours (HD-10)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kim.mails import START

from schleuse.kim.escalation import notice_before
from schleuse.kim.store.held_letters import HeldLetters, Older
from schleuse.processes.kim_held import LettersWatch
from schleuse.processes.trail import Act
from schleuse.scopes import NONE, Direction, ScopeState, Service
from schleuse.switch.standing import Standing


@dataclass
class Letters:
    """accepted: when each letter was accepted, by id from 1."""

    accepted: list[datetime]
    told: set[int] = field(default_factory=set)

    def tell_delayed(self, before: datetime, now: datetime, limit: int = 256) -> int:
        new = {id for id, at in enumerate(self.accepted, 1) if at <= before} - self.told
        self.told |= new
        return len(new)

    def older(self, before: datetime, after: int) -> Older:
        ids = [id for id, at in enumerate(self.accepted, 1) if at <= before and id > after]
        return Older(len(ids), max(ids, default=after))


@dataclass
class HeldSwitch:
    at: Standing
    epoch: int = 1

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        return self.at


@dataclass
class Watch:
    letters: Letters
    switch: HeldSwitch
    now: datetime = START
    acts: list[Act] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.watch = LettersWatch(
            cast(HeldLetters, self.letters),
            self.switch,
            self.acts.append,
            lambda name: self.counted.update([name]),
            lambda: self.now,
        )

    def after(self, wait: timedelta) -> None:
        self.now = START + wait
        self.watch.step()


@pytest.fixture
def watch() -> Watch:
    return Watch(Letters([START - timedelta(days=1)]), HeldSwitch(Standing(ScopeState.HOLD, 1, since=START)))


def test_a_held_letter_is_told_within_15_minutes(watch: Watch) -> None:
    watch.after(timedelta(minutes=9))
    assert watch.letters.told == set()
    watch.after(timedelta(minutes=11))
    assert watch.letters.told == {1}


def test_a_letter_that_comes_during_the_hold_is_told_after_its_own_ten_minutes(watch: Watch) -> None:
    watch.letters.accepted.append(START + timedelta(hours=2))
    watch.after(timedelta(hours=2, minutes=5))
    assert watch.letters.told == {1}
    watch.after(timedelta(hours=2, minutes=12))
    assert watch.letters.told == {1, 2}


def test_nobody_is_told_while_letters_leave(watch: Watch) -> None:
    watch.switch.at = Standing(ScopeState.LIMITED, 1, since=START)
    watch.after(timedelta(days=2))
    assert (watch.letters.told, watch.acts) == (set(), [])


def test_each_step_of_the_escalation_is_told_once_and_again_for_new_letters(watch: Watch) -> None:
    watch.letters.accepted = [START]
    hours = []
    for minutes in (30, 61, 90, 241, 300, 1441, 1500):
        watch.after(timedelta(minutes=minutes))
        hours.append([act.detail["hours"] for act in watch.acts])
    assert hours == [[], [1], [1], [1, 4], [1, 4], [1, 4, 24], [1, 4, 24]]
    watch.letters.accepted.append(START + timedelta(days=1))
    watch.after(timedelta(days=1, minutes=61))
    assert [(act.detail["hours"], act.count) for act in watch.acts[3:]] == [(1, 1)]
    assert watch.counted["kim.letters_held_24h"] == 1


@given(st.timedeltas(timedelta(0), timedelta(days=3)), st.timedeltas(timedelta(0), timedelta(days=3)))
def test_looking_twice_a_minute_every_letter_is_told_in_time(held: timedelta, accepted: timedelta) -> None:
    """HD-10: 15 minutes after a letter has begun to wait, `notice_before` has named it."""
    since, arrived = START + held, START + accepted
    waits_since = max(since, arrived)
    named = notice_before(since, waits_since + timedelta(minutes=10))
    assert named is not None
    assert arrived <= named
