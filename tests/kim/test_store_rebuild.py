"""A lost index: what comes back from segments and marks, and that nothing finished is handed out again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
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
    check,
    offer,
    put,
)
from tests.mail.faulty_disk import Fault, FaultyDisk, Once

from schleuse.errors import CorruptError, RefusedError
from schleuse.holding.states import State
from schleuse.kim.store import OUTBOUND, MailStore, Outcome, Take, rebuild_index
from schleuse.mail import dsn


def rebuild(site: Site) -> int:
    return rebuild_index(site.settings, account_of, now=site.clock)


def lose_the_index(site: Site) -> None:
    for path in Path(sa.make_url(site.settings.url).database or "").parent.glob("kim.sqlite*"):
        path.unlink()


def facts(store: MailStore) -> list[tuple[object, ...]]:
    """Everything about the deliveries that a rebuild promises."""
    with store._parts.backing.reading() as connection:
        columns = "id, account, state, linked_to, length, size, accepted_us, reason, delay_reported, twin"
        return [tuple(row) for row in connection.execute(sa.text(f"SELECT {columns} FROM kim_delivery ORDER BY id"))]


def a_day_at_work(store: MailStore) -> None:
    """Every way in which a delivery ends or waits."""
    put(store, *(a_mail(number, notify=SUCCESS) for number in range(1, 9)))
    put(store, a_mail(2), a_mail(20, ELSEWHERE), a_mail(21, ELSEWHERE), a_mail(22, ELSEWHERE), a_mail(23, PRAXIS))
    states = [State.DELIVERED, State.DELIVERED, State.QUARANTINED, State.RETURNED, State.DUPLICATE_LINKED]
    found = store.leases.claim([Take(KASSE)], 6, "w", START, LEASE).mails
    outcomes = [Outcome(one.id, state, f"because {state}") for one, state in zip(found, states, strict=False)]
    store.leases.finish(outcomes, "w", START)
    store.leases.confirm([found[0].id], START + timedelta(seconds=1))
    store.leases.reset("w")
    one, two, three = store.queue.due(START, 10)
    store.queue.delivered(one.id, START, "250 ok", relayed_dsn=False)
    store.queue.failed(two.id, START, "550 5.1.1 no", "5.1.1")
    store.queue.retry(three.id, START, START, "451 4.4.1 no", report_delay=True)
    drop = store.maildrop(PRAXIS)
    drop.delete([entry.id for entry in drop.entries()])
    drop.close()
    put(store, a_mail(21, ELSEWHERE), a_mail(22, ELSEWHERE))  # a new try, and a duplicate of one that waits
    pending = store.pending_reports(3)
    put(store, *(dsn.envelope(one.report) for one in pending))
    store.report_accepted(pending)


def test_every_fact_comes_back(embedded: Site) -> None:
    with embedded.open() as store:
        a_day_at_work(store)
        before, reports, counts = facts(store), store.pending_reports(100), store.counts()
        drop = store.maildrop(PRAXIS)
        uidls = [entry.uidl for entry in drop.entries()]
    lose_the_index(embedded)
    embedded.clock.now = START + timedelta(days=3)
    assert rebuild(embedded) > 0
    with embedded.open() as store:
        assert store.counts() == counts
        assert without_reasons_of_waiting(facts(store)) == without_reasons_of_waiting(before)
        assert store.pending_reports(100) == reports
        assert [entry.uidl for entry in store.maildrop(PRAXIS).entries()] == uidls
        assert check(store).holds


def without_reasons_of_waiting(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The next host's last reply is not kept for mail that is tried again anyway."""
    return [(*row[:7], None if row[2] == "HELD" else row[7], *row[8:]) for row in rows]


def test_rebuilding_twice_is_the_same_as_once(embedded: Site) -> None:
    with embedded.open() as store:
        a_day_at_work(store)
    rebuild(embedded)
    with embedded.open() as store:
        once = facts(store)
    rebuild(embedded)
    with embedded.open() as store:
        assert facts(store) == once


def test_what_was_under_a_lease_waits_again_under_the_same_id(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1))
        (before,) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
    lose_the_index(embedded)
    rebuild(embedded)
    with embedded.open() as store:
        assert store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails == [before]


def test_an_effect_whose_transaction_was_lost_is_not_repeated_after_a_rebuild(embedded: Site) -> None:
    """The mark goes first: the eau role has filed the mail, then the index dies before it was told."""
    with embedded.open() as store:
        put(store, a_mail(1))
        (one,) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
        with store._parts.backing.writing() as connection:
            connection.execute(sa.text("DROP TABLE kim_cursor"))
            connection.execute(sa.text("ALTER TABLE kim_delivery RENAME TO lost"))
        with pytest.raises(Exception, match="database"):
            store.leases.finish([Outcome(one.id, State.DELIVERED)], "w", START)
    lose_the_index(embedded)
    rebuild(embedded)
    with embedded.open() as store:
        assert store.counts() == {KASSE: {State.DELIVERED: 1}}


def test_a_report_that_went_out_is_not_made_again(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1, notify=SUCCESS))
        pending = store.pending_reports(10)
        put(store, dsn.envelope(pending[0].report))
        store.report_accepted(pending)
    lose_the_index(embedded)
    rebuild(embedded)
    with embedded.open() as store:
        assert store.pending_reports(10) == []


def test_a_report_that_was_accepted_but_not_noted_is_the_same_mail_again(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1, ELSEWHERE))
        (outgoing,) = store.queue.due(START, 1)
        store.queue.failed(outgoing.id, START + timedelta(hours=1), "550 5.1.1 no", "5.1.1")
        (before,) = store.pending_reports(10)
        offer(store, dsn.envelope(before.report))
    lose_the_index(embedded)
    rebuild(embedded)
    with embedded.open() as store:
        (again,) = store.pending_reports(10)
        put(store, dsn.envelope(again.report))
        assert store.counts()[PRAXIS] == {State.HELD: 1, State.DUPLICATE_LINKED: 1}


def test_what_was_purged_stays_purged(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1), a_mail(2))
    with embedded.open() as store:
        put(store, a_mail(3))
        (one,) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
        store.leases.finish([Outcome(one.id, State.DELIVERED)], "w", START)
        assert store.purge(START + timedelta(days=90)) == 1
    lose_the_index(embedded)
    rebuild(embedded)
    with embedded.open() as store:
        assert check(store).holds
        assert store.purge(START + timedelta(days=90)) == 0


def test_a_store_does_not_start_on_an_empty_index(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1))
    lose_the_index(embedded)
    with pytest.raises(CorruptError, match="rebuild"):
        embedded.open()


def test_a_rebuild_that_fails_leaves_the_index_as_it_was(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1), a_mail(2))
    disk = FaultyDisk()
    disk.choose = Once("read", Fault(), nth=8)
    with pytest.raises(Exception, match="cannot be read now"):
        rebuild_index(embedded.settings, account_of, now=embedded.clock, disk=disk)
    with embedded.open() as store:
        assert store.counts() == {KASSE: {State.HELD: 2}}


def test_an_older_index_is_noticed(embedded: Site) -> None:
    path = Path(sa.make_url(embedded.settings.url).database or "")
    with embedded.open() as store:
        put(store, a_mail(1))
    backup = path.read_bytes()
    with embedded.open() as store:
        (one,) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
        store.leases.finish([Outcome(one.id, State.DELIVERED)], "w", START)
    lose_the_index(embedded)
    path.write_bytes(backup)
    with embedded.open() as store:
        outcome = check(store)
        assert outcome.holds
        assert str(one.id) in outcome.remarks[0]


def test_with_postgres_there_is_nothing_to_rebuild(site: Site) -> None:
    if site.is_embedded:
        pytest.skip("the embedded store rebuilds")
    with pytest.raises(RefusedError):
        rebuild(site)


def test_outbound_mail_that_the_next_host_took_is_not_sent_again(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1, ELSEWHERE))
        (outgoing,) = store.queue.due(START, 1)
        store.queue.delivered(outgoing.id, START, "250 ok", relayed_dsn=True)
    lose_the_index(embedded)
    rebuild(embedded)
    with embedded.open() as store:
        assert store.queue.due(START, 10) == []
        assert store.counts() == {OUTBOUND: {State.DELIVERED: 1}}
