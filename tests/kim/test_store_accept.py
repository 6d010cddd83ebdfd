"""Accepting: durable or refused for now, the same on both stores."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from tests.kim.mails import KASSE, PRAXIS, Site, a_mail, check, offer, put
from tests.mail.faulty_disk import Fault, FaultyDisk, Once

from schleuse.errors import RefusedError, UnavailableError
from schleuse.holding.states import State
from schleuse.kim.store import MailStore
from schleuse.kim.store.delivery import MAX_RECIPIENTS


def test_an_accepted_mail_is_there_after_the_process_has_gone(site: Site) -> None:
    with site.open() as store:
        assert offer(store, a_mail(1), a_mail(2)) == [None, None]
    with site.open() as store:
        assert check(store).unrouted == 2
        store.route()
        assert store.counts() == {KASSE: {State.HELD: 2}}


def test_many_mails_at_once_are_all_kept_in_order(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(300)))
    drop = store.maildrop(KASSE)
    assert [drop.content(entry.id) for entry in drop.entries()] == [a_mail(n).content for n in range(300)]
    drop.close()


def test_a_mail_with_too_many_recipients_is_refused(store: MailStore) -> None:
    recipients = a_mail().recipients * (MAX_RECIPIENTS + 1)
    (answer,) = offer(store, replace(a_mail(), recipients=recipients))
    assert isinstance(answer, RefusedError)


def test_a_store_that_is_closed_says_try_again(site: Site) -> None:
    store = site.open()
    store.close()
    (answer,) = offer(store, a_mail())
    assert isinstance(answer, UnavailableError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_is_4xx_and_keeps_nothing(embedded: Site, number: int) -> None:
    disk = FaultyDisk()
    with embedded.open(disk) as store:
        put(store, a_mail(1))
        disk.choose = Once("sync", Fault(number))
        (answer,) = offer(store, a_mail(2))
        assert isinstance(answer, UnavailableError)
        assert check(store).accepted == 1
        put(store, a_mail(2))
        assert store.counts() == {KASSE: {State.HELD: 2}}
        assert check(store).holds


def test_a_routing_that_fails_is_done_later(embedded: Site) -> None:
    disk = FaultyDisk()
    with embedded.open(disk) as store:
        offer(store, a_mail(1, KASSE, PRAXIS))
        disk.choose = Once("read", Fault())
        with pytest.raises(UnavailableError):
            store.route()
        assert store.counts() == {}
        assert check(store).holds
        assert store.route() == 1
        assert store.counts() == {KASSE: {State.HELD: 1}, PRAXIS: {State.HELD: 1}}


def test_mail_is_routed_by_itself(site: Site) -> None:
    from tests.kim.mails import account_of

    from schleuse.kim.store import open_mail_store

    with open_mail_store(site.settings, account_of, now=site.clock) as store:
        assert offer(store, a_mail(1)) == [None]
        while not store.counts():
            pass
        assert store.counts() == {KASSE: {State.HELD: 1}}
