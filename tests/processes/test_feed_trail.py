"""What the journals are told of the feed: lists, logins once an hour, refusals without a flood."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.processes.test_trail import NOON, Clock, FakeJournal

from schleuse.eau.feed_login import FeedEvent, Happened
from schleuse.identifiers import IK
from schleuse.journal.entry import Entry, Kind, Purpose, Result, parse_entry
from schleuse.processes.feed_trail import FeedTrail
from schleuse.processes.trail import Trail
from schleuse.vault.denials import Denials

KASSE, OTHER = IK("109900011"), IK("109900022")


class Site:
    def __init__(self, folder: Path) -> None:
        self.clock, self.journal = Clock(), FakeJournal()
        self.trail = Trail(folder, "eau", self.journal, lambda tenant, _year: tenant, self.clock)
        self.feed = FeedTrail(self.trail, Denials(), self.clock)

    def entries(self) -> list[tuple[str, Entry]]:
        while asyncio.run(self.trail.send()):
            pass
        return [(log, parse_entry(entry)) for log, entries in self.journal.logs.items() for entry in entries.values()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def event(what: Happened, ik: IK | None = KASSE, count: int | None = None, client: str = "nord") -> FeedEvent:
    return FeedEvent(what, ik, client, KASSE if client else None, "jti", "192.0.2.1", "", count)


def test_a_system_that_asks_all_the_time_logs_in_once_an_hour(site: Site) -> None:
    for _ in range(10):
        site.feed.told(event(Happened.LOGIN))
    site.clock.now += timedelta(hours=1)
    site.feed.told(event(Happened.LOGIN))
    assert Counter(entry.kind for _, entry in site.entries()) == {Kind.LOGIN: 2}


def test_a_clock_that_was_ahead_and_is_put_right_hides_no_login(site: Site) -> None:
    for minutes in (10_000, 0, 30):
        site.clock.now = NOON + timedelta(minutes=minutes)
        site.feed.told(event(Happened.LOGIN))
    assert Counter(entry.kind for _, entry in site.entries()) == {Kind.LOGIN: 2}


def test_a_list_is_an_entry_with_its_length_and_an_empty_one_is_none(site: Site) -> None:
    site.feed.told(event(Happened.LISTING, count=17))
    site.feed.told(event(Happened.LISTING, count=0))
    ((log, entry),) = site.entries()
    assert (log, entry.kind, entry.count, entry.result) == ("109900011", Kind.SEARCH, 17, Result.GRANTED)


def test_a_cancelled_request_of_an_employer_is_an_act_of_administration(site: Site) -> None:
    """Again is again: somebody did it."""
    for _ in range(2):
        site.feed.told(replace(event(Happened.ANSWER_CANCELLED), request="ds-1"))
    assert [(log, entry.kind, entry.purpose) for log, entry in site.entries()] == [
        ("109900011", Kind.ADMINISTRATION, Purpose.EAU_EMPLOYER)
    ] * 2


def test_refusals_stand_in_the_log_of_the_insurer_whose_feed_was_asked_for(site: Site) -> None:
    site.feed.told(event(Happened.DENIED, OTHER))
    site.feed.told(event(Happened.LOGIN_FAILED, None, client=""))
    assert {(log, entry.result) for log, entry in site.entries()} == {
        ("109900022", Result.DENIED),
        ("platform", Result.DENIED),
    }


def test_a_flood_of_refusals_is_counted_in_one_entry(site: Site) -> None:
    for _ in range(1000):
        site.feed.told(event(Happened.LOGIN_FAILED, client=""))
    site.feed.refusals.tell_coalesced()
    entries = [entry for _, entry in site.entries()]
    assert len(entries) == 101
    assert sum(entry.count or 1 for entry in entries) == 1000


def test_refusals_that_cannot_be_recorded_are_counted_later(site: Site, tmp_path: Path) -> None:
    for _ in range(150):
        site.feed.told(event(Happened.LOGIN_FAILED, client=""))
    file = tmp_path / "eau-2026.jsonl"
    file.rename(tmp_path / "aside")
    file.mkdir()  # cannot be written
    site.feed.refusals.tell_coalesced()
    file.rmdir()
    (tmp_path / "aside").rename(file)
    site.clock.now += timedelta(minutes=1)
    site.feed.refusals.tell_coalesced()
    entries = [entry for _, entry in site.entries()]
    assert sum(entry.count or 1 for entry in entries) == 150


def test_addresses_that_were_refused_are_not_kept_in_memory(site: Site) -> None:
    for number in range(500):
        site.feed.told(FeedEvent(Happened.LOGIN_FAILED, KASSE, peer=f"2001:db8::{number:x}"))
    site.clock.now += timedelta(minutes=1)
    site.feed.refusals.tell_coalesced()
    assert len(site.feed.refusals._coalesced) == 0


def test_each_certificate_on_paper_that_is_told_is_an_entry_of_its_own(site: Site) -> None:
    """HD-05: an administrative act in the insurer's log; what is told again is told again."""
    for _ in range(2):
        site.feed.told(replace(event(Happened.PAPER), paper="post-1"))
    found = [(log, entry.kind, entry.purpose, entry.result) for log, entry in site.entries()]
    assert found == [("109900011", Kind.ADMINISTRATION, Purpose.CLEARING, Result.GRANTED)] * 2
