"""POP3 behind the switch, over the real mail store (SW-04, SW-06, SW-10)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.kim.mails import KASSE, PRAXIS, Site, a_mail, put
from tests.switch_double import FakeSwitch

from schleuse.database import sqlite_url
from schleuse.eau.switched import processing
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.accounts import Account, Accounts
from schleuse.kim.store import MaildropLockedError, MailStore, Settings
from schleuse.kim.store.delivery import Outcome, Take, Under, share_of
from schleuse.kim.switched import reading
from schleuse.mail.pop3 import MailboxClosedError
from schleuse.processes.kim_mailboxes import Mailboxes
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.documents import Limit

OTHER = "zwei@kasse.kim.telematik"
ACCOUNTS = Accounts([Account(PRAXIS, None, "h"), Account(OTHER, None, "h"), Account(KASSE, IK("109900011"), "h")])
CLOSED = [ScopeState.DRAIN, ScopeState.HOLD, ScopeState.DEFER, ScopeState.CLOSED]


@dataclass
class Place:
    site: Site
    store: MailStore
    switch: FakeSwitch = field(default_factory=FakeSwitch)
    running: list[Scope] = field(default_factory=list)
    begun: int = 0

    @contextmanager
    def unit(self, scope: Scope) -> Iterator[None]:
        self.begun += 1
        self.running.append(scope)
        try:
            yield
        finally:
            self.running.remove(scope)

    @property
    def mailboxes(self) -> Mailboxes:
        return Mailboxes(self.store, ACCOUNTS, self.switch, self.unit)

    def fence(self, account: str, epoch: int) -> None:
        """As the follower does when it sees an epoch."""
        scope = reading(None if account == PRAXIS else IK("109900011"))
        self.store.leases.holds.follow({scope: epoch}, epoch, (), lambda *_: (), a_mail().accepted_at)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    settings = Settings(sqlite_url(tmp_path / "kim.sqlite"), tmp_path / "spool", "kim.example", reserve_bytes=0)
    site = Site(settings)
    found = Place(site, site.open())
    put(found.store, a_mail(1, KASSE, PRAXIS))
    yield found
    found.store.close()


@pytest.mark.parametrize("state", CLOSED)
def test_a_practice_reads_nothing_while_reading_is_closed_and_insurers_do(place: Place, state: ScopeState) -> None:
    place.switch.set("kim_mail/-/read", state)
    with pytest.raises(MailboxClosedError):
        place.mailboxes.open(PRAXIS)
    place.mailboxes.open(KASSE).close()
    assert place.mailboxes.is_closed(PRAXIS)
    assert not place.mailboxes.is_closed(KASSE)


@pytest.mark.parametrize("state", CLOSED)
def test_an_insurers_own_system_reads_nothing_while_deliveries_to_it_are_closed(
    place: Place, state: ScopeState
) -> None:
    place.switch.set("eau_intake/109900011/deliver", state)
    with pytest.raises(MailboxClosedError):
        place.mailboxes.open(KASSE)
    place.mailboxes.open(PRAXIS).close()


def test_whoever_knocks_at_a_closed_mailbox_is_no_unit_of_work(place: Place) -> None:
    place.switch.set("kim_mail", ScopeState.HOLD)
    with pytest.raises(MailboxClosedError):
        place.mailboxes.open(PRAXIS)
    assert place.begun == 0


def test_a_session_is_one_unit_of_work(place: Place) -> None:
    opened = place.mailboxes.open(PRAXIS)
    assert place.running == [reading(None)]
    with pytest.raises(MaildropLockedError):
        place.mailboxes.open(PRAXIS)
    assert place.running == [reading(None)]
    opened.close()
    assert place.running == []


def test_a_session_from_before_a_closing_gets_no_further_message_and_deletes_none(place: Place) -> None:
    opened = place.mailboxes.open(PRAXIS)
    (entry,) = opened.entries()
    assert opened.content(entry.id)
    place.switch.set("kim_mail", ScopeState.HOLD)
    with pytest.raises(MailboxClosedError):
        opened.content(entry.id)
    with pytest.raises(MailboxClosedError):
        opened.delete([entry.id])
    opened.close()
    assert place.store.counts()[PRAXIS] == {State.HELD: 1}


def test_a_deletion_that_slept_through_a_closing_is_refused_by_the_database(place: Place) -> None:
    """SW-06, T-05: whatever this process believes."""
    opened = place.mailboxes.open(PRAXIS)
    (entry,) = opened.entries()
    place.fence(PRAXIS, 7)
    with pytest.raises(MailboxClosedError):
        opened.delete([entry.id])
    opened.close()
    assert place.store.counts()[PRAXIS] == {State.HELD: 1}


def test_after_an_opening_the_same_session_goes_on_under_the_new_epoch(place: Place) -> None:
    opened = place.mailboxes.open(PRAXIS)
    (entry,) = opened.entries()
    place.switch.set("kim_mail", ScopeState.HOLD)
    place.fence(PRAXIS, place.switch.set("kim_mail", ScopeState.OPEN))
    opened.delete([entry.id])
    opened.close()
    assert place.store.counts()[PRAXIS] == {State.DELIVERED: 1}


def _fetch(place: Place, account: str, read: int = 99, deleted: bool = True) -> list[int]:
    """A session that fetches so many of what is listed, and deletes these."""
    opened = place.mailboxes.open(account)
    ids = [entry.id for entry in opened.entries()][:read]
    for id in [*ids, *ids[:1]]:  # the first one twice
        assert opened.content(id)
    if deleted:
        opened.delete(ids)
    opened.close()
    return ids


def test_of_a_limited_mailbox_its_share_is_listed(place: Place) -> None:
    """§ 9.2: canary and cohorts, for whoever comes by POP3, too."""
    put(place.store, *(a_mail(number, PRAXIS) for number in range(2, 100)))
    listed: list[set[int]] = []
    for permille in (0, 300, 600, 1000):
        place.switch.set("kim_mail/-/read", ScopeState.LIMITED, Limit(permille=permille))
        listed.append({*_fetch(place, PRAXIS, deleted=False)})
    assert [len(listed[0]), len(listed[3])] == [0, 99]
    assert all(share_of(id) < 300 for id in listed[1])
    assert listed[0] < listed[1] < listed[2] < listed[3]


def test_a_limited_mailbox_gives_out_no_more_than_its_rate_in_an_hour_also_after_a_restart(place: Place) -> None:
    """What was listed and not fetched counts no more; another mailbox of the same scope has its share of the rate."""
    put(place.store, *(a_mail(number, PRAXIS) for number in range(2, 10)), a_mail(10, OTHER))
    place.switch.set("kim_mail/-/read", ScopeState.LIMITED, Limit(per_hour=5))
    assert len(_fetch(place, PRAXIS, read=2)) == 2
    session = place.mailboxes.open(PRAXIS)
    assert len(session.entries()) == 3
    assert _fetch(place, OTHER) == []  # what is left may be fetched by that session
    place.store.close()
    place.store = place.site.open()  # its session never ended, as at a kill -9: what it had listed counts
    assert _fetch(place, PRAXIS) == []
    place.site.clock.now += timedelta(hours=1)
    assert [len(_fetch(place, OTHER)), len(_fetch(place, PRAXIS)), len(_fetch(place, PRAXIS))] == [1, 4, 0]
    assert len(_fetch(place, KASSE)) == 1  # another scope


def test_a_session_from_before_a_limit_ends_at_its_next_message(place: Place) -> None:
    opened = place.mailboxes.open(PRAXIS)
    (entry,) = opened.entries()
    place.switch.set("kim_mail", ScopeState.LIMITED, Limit(per_hour=0))
    with pytest.raises(MailboxClosedError):
        opened.content(entry.id)
    opened.close()
    assert _fetch(place, PRAXIS) == []
    place.switch.set("kim_mail", ScopeState.OPEN)
    assert _fetch(place, PRAXIS) == [entry.id]


def test_a_listing_that_slept_through_a_closing_is_refused_by_the_database(place: Place) -> None:
    """SW-06: nothing of a rate is used under an epoch that has passed."""
    place.switch.set("kim_mail", ScopeState.LIMITED, Limit(per_hour=5))
    place.fence(PRAXIS, 7)
    with pytest.raises(MailboxClosedError):
        place.mailboxes.open(PRAXIS)
    place.switch.epoch = 7
    place.switch.set("kim_mail", ScopeState.LIMITED, Limit(per_hour=5))
    assert len(_fetch(place, PRAXIS)) == 1


def test_what_its_owner_takes_is_no_effect_of_an_epoch_in_which_people_gave_it_back(place: Place) -> None:
    """Invariant 2 of appendix B would name it as finished under an older epoch: by a worker it was, long ago."""
    leases, now = place.store.leases, a_mail().accepted_at
    under = Under(processing(IK("109900011")), 3)
    (claimed,) = leases.claim([Take(KASSE)], 9, "w", now, timedelta(minutes=1)).mails
    leases.finish([Outcome(claimed.id, State.QUARANTINED, "unreadable", under)], "w", now)
    leases.reconsider([claimed.id], now)
    assert _fetch(place, KASSE) == [claimed.id]
    with place.store.leases._backing.reading() as connection:
        epochs = connection.execute(sa.text("SELECT epoch FROM kim_delivery WHERE state = 'DELIVERED'")).scalars()
        assert [*epochs] == [None]
