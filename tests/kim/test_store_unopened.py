"""What waits of a mailbox, on both stores: while anything does, nobody says that there is nothing (HD-09)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from tests.kim.mails import KASSE, LEASE, PRAXIS, START, Site, a_mail, account_of, offer, put

from schleuse.holding.states import State
from schleuse.kim.deferred import Gathered
from schleuse.kim.store import MailStore, Outcome, Take, rebuild_index
from schleuse.kim.store.unopened import COMES_BACK_WITHIN, TRIES_AGAIN_FOR, Waits

YEAR = timedelta(days=365)


def waits(
    store: MailStore, *, since: datetime = START - YEAR, upto: datetime = START, now: datetime = START
) -> str | None:
    return store.leases.unopened.waits(KASSE, since, upto, now, ["harmless"])


def deferred(store: MailStore, at: datetime) -> None:
    gathered = Gathered(account_of)
    gathered.note(PRAXIS, KASSE, "e", at)
    store.deferrals.write(gathered.take())


def taken(store: MailStore) -> int:
    (one,) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
    return one.id


def test_a_mail_waits_from_its_acceptance_until_it_is_finished(store: MailStore) -> None:
    assert waits(store) is None
    assert offer(store, a_mail(1)) == [None]
    assert waits(store) is Waits.ARRIVING, "accepted, and not even in a mailbox yet"
    store.route()
    assert waits(store) is Waits.UNOPENED
    id = taken(store)
    assert waits(store) is Waits.UNOPENED
    store.leases.finish([Outcome(id, State.DELIVERED)], "w", START)
    assert waits(store) is None


@pytest.mark.parametrize(("reason", "expected"), [("id_reused", Waits.QUARANTINED), ("harmless", None)])
def test_a_quarantined_mail_may_be_it_unless_it_is_known_to_be_none(
    store: MailStore, reason: str, expected: Waits | None
) -> None:
    put(store, a_mail(1))
    store.leases.finish([Outcome(taken(store), State.QUARANTINED, reason)], "w", START)
    assert waits(store) is expected


def test_only_what_was_accepted_in_the_interval_and_in_this_mailbox_counts(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2, "zwei@kasse.kim.telematik"))
    assert waits(store, upto=START - timedelta(seconds=1)) is None
    assert waits(store, since=START + timedelta(seconds=1), upto=START + YEAR) is None
    store.leases.finish([Outcome(taken(store), State.DELIVERED)], "w", START)
    assert waits(store) is None


def test_a_sender_who_was_deferred_counts_until_his_machine_gives_up(store: MailStore) -> None:
    deferred(store, START - timedelta(hours=1))
    assert waits(store) is Waits.DEFERRED
    assert waits(store, now=START + TRIES_AGAIN_FOR) is None


def test_what_a_deferred_sender_brings_when_he_comes_back_counts_as_sent_before(store: MailStore) -> None:
    """Also what he brings in the hours after his first mail, when all his attempts have come around."""
    asked_at, over = START - timedelta(minutes=30), START + COMES_BACK_WITHIN
    deferred(store, START - timedelta(hours=1))
    put(store, a_mail(1))  # accepted after the request
    put(store, replace(a_mail(2), accepted_at=over - timedelta(minutes=1)))
    put(store, replace(a_mail(3), accepted_at=over + timedelta(minutes=1)))
    assert waits(store, upto=asked_at, now=over) is Waits.UNOPENED
    store.leases.finish([Outcome(taken(store), State.DELIVERED)], "w", START)
    assert waits(store, upto=asked_at, now=over) is Waits.UNOPENED
    store.leases.finish([Outcome(taken(store), State.DELIVERED)], "w", START)
    assert waits(store, upto=asked_at, now=over) is None


@pytest.mark.parametrize("asked_after", [timedelta(minutes=-30), timedelta(minutes=30)])
def test_who_comes_back_with_one_of_several_mails_is_away_until_his_others_had_their_turn(
    store: MailStore, asked_after: timedelta
) -> None:
    """HD-09: his machine tries each mail every four hours (incident.md § 2.2)."""
    deferred(store, START - timedelta(hours=1))
    put(store, a_mail(1))
    store.leases.finish([Outcome(taken(store), State.DELIVERED)], "w", START)
    asked_at, over = START + asked_after, START + COMES_BACK_WITHIN
    assert waits(store, upto=asked_at, now=over - timedelta(seconds=1)) is Waits.DEFERRED
    assert waits(store, upto=asked_at, now=over) is None
    put(store, replace(a_mail(2), accepted_at=over - timedelta(minutes=1)))
    assert waits(store, upto=asked_at, now=over) is Waits.UNOPENED


@pytest.mark.parametrize("lost", [False, True])
def test_what_its_owner_took_by_pop3_may_be_it(embedded: Site, lost: bool) -> None:
    """HD-09: it went past the store of opened documents, so nobody here can say that there is nothing."""
    with embedded.open() as store:
        fetch(store)
    if lost:
        for path in embedded.settings.spool.parent.glob("kim.sqlite*"):
            path.unlink()
        rebuild_index(embedded.settings, account_of)
    with embedded.open() as store:
        assert waits(store) is Waits.FETCHED


def test_what_was_fetched_counts_in_its_interval_on_both_stores(store: MailStore) -> None:
    fetch(store)
    store.purge(START + YEAR)
    assert waits(store) is Waits.FETCHED, "also when its content is erased"
    assert waits(store, upto=START - timedelta(seconds=1)) is None
    assert waits(store, since=START + timedelta(seconds=1), upto=START + YEAR) is None


def fetch(store: MailStore) -> None:
    put(store, a_mail(1))
    with closing(store.maildrop(KASSE)) as drop:
        drop.delete([one.id for one in drop.entries()])
