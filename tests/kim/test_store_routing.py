"""Routing: one delivery per recipient, the same mail once, and a DSN for who asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from tests.kim.mails import (
    ELSEWHERE,
    KASSE,
    LEASE,
    PRAXIS,
    START,
    SUCCESS,
    Site,
    a_mail,
    account_of,
    again_through_another_host,
    check,
    offer,
    put,
)

from schleuse.holding.states import State
from schleuse.kim.store import OUTBOUND, MailStore, Outcome, Take, open_mail_store
from schleuse.kim.store.delivery import MAX_RECIPIENTS
from schleuse.mail import dsn
from schleuse.mail.contracts import Action, Notify


def states(store: MailStore) -> Mapping[str, Mapping[State, int]]:
    assert check(store).findings == ()
    return store.counts()


def fetch_all(store: MailStore, account: str) -> None:
    drop = store.maildrop(account)
    drop.delete([entry.id for entry in drop.entries()])
    drop.close()


def test_each_recipient_gets_one_delivery_into_his_mailbox_or_the_queue(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, ELSEWHERE, PRAXIS.upper()))
    assert states(store) == {KASSE: {State.HELD: 1}, OUTBOUND: {State.HELD: 1}, PRAXIS: {State.HELD: 1}}


def test_routing_twice_changes_nothing(store: MailStore) -> None:
    put(store, a_mail(1))
    assert store.route() == 0
    assert states(store) == {KASSE: {State.HELD: 1}}


def test_the_same_mail_again_is_linked_and_kept_once(store: MailStore) -> None:
    put(store, a_mail(1), again_through_another_host(a_mail(1)))
    put(store, a_mail(1, KASSE.upper()))
    assert states(store) == {KASSE: {State.HELD: 1, State.DUPLICATE_LINKED: 2}}


def test_the_same_message_id_with_other_content_is_another_mail(store: MailStore) -> None:
    put(store, a_mail(1), replace(a_mail(1), content=a_mail(1).content + b"x"))
    assert states(store) == {KASSE: {State.HELD: 2}}


def test_one_recipient_named_twice_gets_it_once(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, KASSE))
    assert states(store) == {KASSE: {State.HELD: 1, State.DUPLICATE_LINKED: 1}}


def test_a_mail_that_was_filed_or_fetched_already_is_linked_still(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    (first, _) = store.leases.claim([Take(KASSE)], 2, "w", START, LEASE).mails
    store.leases.finish([Outcome(first.id, State.RETURNED, "201")], "w", START)
    store.leases.reset("w")
    fetch_all(store, KASSE)
    put(store, a_mail(1), a_mail(2))
    assert states(store) == {KASSE: {State.RETURNED: 1, State.DELIVERED: 1, State.DUPLICATE_LINKED: 2}}


def test_a_mail_that_somebody_sends_himself_again_can_be_fetched_anew(store: MailStore) -> None:
    """Re-processing, kim.md § 12.4."""
    to_himself = a_mail(1, PRAXIS, sender=PRAXIS)
    put(store, to_himself)
    put(store, to_himself)
    assert states(store) == {PRAXIS: {State.HELD: 1, State.DUPLICATE_LINKED: 1}}
    fetch_all(store, PRAXIS)
    put(store, to_himself)
    put(store, to_himself)
    assert states(store) == {PRAXIS: {State.DELIVERED: 1, State.HELD: 1, State.DUPLICATE_LINKED: 2}}


def test_a_mail_that_could_not_be_delivered_elsewhere_may_be_tried_again(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE))
    (outgoing,) = store.queue.due(START, 10)
    store.queue.failed(outgoing.id, START, "550 5.1.1 unknown", "5.1.1")
    put(store, a_mail(1, ELSEWHERE))
    put(store, a_mail(1, ELSEWHERE))
    assert states(store) == {OUTBOUND: {State.RETURNED: 1, State.HELD: 1, State.DUPLICATE_LINKED: 1}}


def test_who_asked_for_success_gets_a_report_for_each_arrival(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, PRAXIS, notify=SUCCESS), a_mail(1, KASSE, notify=SUCCESS))
    reports = [(one.action, one.report.recipient.address) for one in store.pending_reports(10)]
    assert reports == [(Action.DELIVERED, KASSE), (Action.DELIVERED, PRAXIS), (Action.DELIVERED, KASSE)]


def test_nobody_else_gets_one(store: MailStore) -> None:
    never = frozenset({Notify.NEVER})
    put(store, a_mail(1), a_mail(2, notify=never), a_mail(3, notify=SUCCESS, sender=""))
    put(store, a_mail(4, ELSEWHERE, notify=SUCCESS))
    assert store.pending_reports(10) == []


def test_a_report_says_what_the_sender_needs_to_know(store: MailStore) -> None:
    mail = replace(a_mail(7, notify=SUCCESS), envid="QQ314159", ret="HDRS")
    put(store, mail)
    (pending,) = store.pending_reports(10)
    report = pending.report
    assert (report.to, report.recipient, report.envid) == (PRAXIS, mail.recipients[0], "QQ314159")
    assert (report.original_message_id, report.status) == ("7@praxis.example", "2.0.0")
    assert (report.arrived_at, report.reporting_host) == (START, "kim.example")
    assert report.headers + b"\r\n" == mail.content[: len(report.headers) + 2]
    assert report.content is None


def test_a_report_is_asked_for_until_it_was_accepted(store: MailStore) -> None:
    put(store, a_mail(1, notify=SUCCESS))
    pending = store.pending_reports(10)
    assert store.pending_reports(10) == pending
    put(store, dsn.envelope(pending[0].report))
    store.report_accepted(pending)
    assert store.pending_reports(10) == []


def test_a_report_accepted_twice_because_of_a_crash_is_kept_once(site: Site) -> None:
    with site.open() as store:
        put(store, a_mail(1, notify=SUCCESS))
        (pending,) = store.pending_reports(10)
        offer(store, dsn.envelope(pending.report))
    with site.open() as store:  # died before report_accepted
        (again,) = store.pending_reports(10)
        put(store, dsn.envelope(again.report))
        store.report_accepted([again])
        assert states(store)[PRAXIS] == {State.HELD: 1, State.DUPLICATE_LINKED: 1}


def test_more_recipients_than_a_statement_takes_values_do_not_stop_the_routing(store: MailStore) -> None:
    """70 mails to 1000 recipients each, in one round: SQLite binds 32,766 values, PostgreSQL 65,535."""
    one_with_many = a_mail(1, *[KASSE] * MAX_RECIPIENTS)
    put(store, *(replace(one_with_many, content=a_mail(number).content) for number in range(70)))
    assert store.counts() == {KASSE: {State.HELD: 70, State.DUPLICATE_LINKED: 70 * (MAX_RECIPIENTS - 1)}}


def test_mails_that_come_while_others_are_routed_share_the_next_round(site: Site) -> None:
    in_a_round, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def step(name: str) -> None:
        if name == "route.read":  # of a round that has mail
            in_a_round.release()
            assert go_on.acquire(timeout=30)

    settings = replace(site.settings, gather=timedelta(0))
    with open_mail_store(settings, account_of, now=site.clock, step=step) as store:
        assert offer(store, a_mail(1)) == [None]
        assert in_a_round.acquire(timeout=30)
        assert offer(store, *(a_mail(number) for number in range(2, 7))) == [None] * 5
        go_on.release()
        assert in_a_round.acquire(timeout=30)
        go_on.release()
        assert store.route() == 0
        assert states(store) == {KASSE: {State.HELD: 6}}


def test_closing_waits_for_no_further_mail_and_the_next_start_routes_what_is_left(site: Site) -> None:
    with open_mail_store(replace(site.settings, gather=timedelta(days=1)), account_of, now=site.clock) as store:
        assert offer(store, a_mail(1)) == [None]
    with site.open() as store:
        assert store.route() == 1
        assert states(store) == {KASSE: {State.HELD: 1}}
