"""Retention: what is finished is erased when its time has come, what waits never is (HD-24)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from tests.kim.mails import ELSEWHERE, KASSE, LEASE, PRAXIS, START, SUCCESS, Site, a_mail, check, put

from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Take
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.spool.segments import segment_numbers

OTHER = "zwei@kasse.kim.telematik"
IN_90_DAYS = START + timedelta(days=90)


def file_all(store: MailStore, state: State = State.DELIVERED) -> None:
    found = store.leases.claim([Take(KASSE)], 100, "w", START, LEASE).mails
    store.leases.finish([Outcome(one.id, state) for one in found], "w", START)


def readable(store: MailStore, account: str) -> int:
    drop = store.maildrop(account)
    count = sum(bool(drop.content(entry.id)) for entry in drop.entries())
    drop.close()
    return count


def with_complete_segments(site: Site, *mails: Mail) -> MailStore:
    """Only complete segments are touched: a mail for nobody's account follows in the next one."""
    with site.open() as store:
        put(store, *mails)
    store = site.open()
    put(store, replace(a_mail(99), recipients=(Recipient(OTHER),)))
    return store


def test_what_is_finished_is_erased_after_90_days_and_not_before(site: Site) -> None:
    with with_complete_segments(site, a_mail(1), a_mail(2)) as store:
        file_all(store)
        assert store.purge(IN_90_DAYS - timedelta(seconds=1)) == 0
        assert store.purge(IN_90_DAYS) == 2
        assert store.purge(IN_90_DAYS) == 0
        assert check(store).holds


def test_what_waits_is_never_erased(site: Site) -> None:
    with with_complete_segments(site, a_mail(1), a_mail(2), a_mail(3)) as store:
        store.leases.claim([Take(KASSE)], 1, "w", START, LEASE)
        (second,) = store.leases.claim([Take(KASSE)], 1, "v", START, LEASE).mails
        store.leases.finish([Outcome(second.id, State.QUARANTINED)], "v", START)
        assert store.purge(START + timedelta(days=10_000)) == 0
        store.leases.reset("w")
        store.reconsider([second.id], START)
        assert readable(store, KASSE) == 3


def test_a_mail_stays_until_its_last_recipient_is_done(site: Site) -> None:
    with with_complete_segments(site, a_mail(1, KASSE, PRAXIS)) as store:
        file_all(store)
        assert store.purge(IN_90_DAYS) == 0
        assert readable(store, PRAXIS) == 1


def test_a_mail_stays_until_its_report_is_made(site: Site) -> None:
    with with_complete_segments(site, a_mail(1, notify=SUCCESS)) as store:
        file_all(store)
        assert store.purge(IN_90_DAYS) == 0
        store.report_accepted(store.pending_reports(10))
        assert store.purge(IN_90_DAYS) == 1


def test_what_its_owner_deleted_and_what_was_sent_on_goes_at_once(site: Site) -> None:
    with with_complete_segments(site, a_mail(1), a_mail(2, ELSEWHERE), a_mail(3)) as store:
        drop = store.maildrop(KASSE)
        drop.delete([drop.entries()[0].id])
        drop.close()
        (outgoing,) = store.queue.due(START, 10)
        store.queue.delivered(outgoing.id, START, "250 ok", relayed_dsn=True)
        assert store.purge(START) == 2
        assert readable(store, KASSE) == 1
        assert check(store).holds


def test_a_purged_mail_is_known_still_when_it_comes_again(site: Site) -> None:
    with with_complete_segments(site, a_mail(1)) as store:
        file_all(store)
        store.purge(IN_90_DAYS)
        put(store, a_mail(1))
        assert store.counts()[KASSE] == {State.DELIVERED: 1, State.DUPLICATE_LINKED: 1}


def test_a_segment_goes_when_all_its_mails_are_purged_and_the_balance_still_holds(embedded: Site) -> None:
    for first in (1, 4):
        with embedded.open() as store:
            put(store, a_mail(first), a_mail(first + 1))
    with embedded.open() as store:
        put(store, a_mail(9))
        (one, two, _, _, _) = store.leases.claim([Take(KASSE)], 10, "w", START, LEASE).mails
        store.leases.finish([Outcome(one.id, State.DELIVERED), Outcome(two.id, State.DELIVERED)], "w", START)
        store.leases.reset("w")
        assert store.purge(IN_90_DAYS) == 2
        assert segment_numbers(embedded.settings.spool) == [2, 3]
        outcome = check(store)
        assert (outcome.accepted, outcome.accounted, outcome.findings) == (5, 5, ())
        assert readable(store, KASSE) == 3


def test_a_crash_between_noting_and_removing_a_segment_is_made_good(embedded: Site) -> None:
    with with_complete_segments(embedded, a_mail(1)) as store:
        engine = sa.create_engine(embedded.settings.url)
        file_all(store)
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO kim_retired VALUES (1, 1, 1)"))
        engine.dispose()
        assert check(store).holds
        store.purge(IN_90_DAYS)
        assert segment_numbers(embedded.settings.spool) == [2]
        assert check(store).holds


def test_the_newest_segment_is_completed_when_something_in_it_has_expired(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1))
        file_all(store)
        assert store.purge(IN_90_DAYS) == 0
        put(store, a_mail(2))
        assert segment_numbers(embedded.settings.spool) == [1, 2]
        assert store.purge(IN_90_DAYS) == 1


def test_marks_go_with_the_segments_that_they_speak_of(embedded: Site) -> None:
    marks = embedded.settings.spool / "marks"
    with with_complete_segments(embedded, a_mail(1)) as store:
        file_all(store)
        store.purge(IN_90_DAYS)
        assert segment_numbers(marks) == [1]  # still being written
    with embedded.open() as store:
        store.purge(IN_90_DAYS)
        assert segment_numbers(marks) == []
