"""The audit finds what is wrong and says it, and is never upset by what is only on its way."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.kim.mails import ELSEWHERE, KASSE, LEASE, PRAXIS, START, Site, a_mail, check, offer, put

from schleuse.database import create_engine
from schleuse.holding.reconcile import reconcile
from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Take, read_books
from schleuse.kim.store.delivery import DAMAGED
from schleuse.mail.spool.segments import place_of, segment_path


def tamper(site: Site, *statements: str) -> None:
    engine = create_engine(site.settings.url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def spoil(site: Site, store: MailStore, id: int, within: int) -> None:
    """Change one octet of a delivery's record, counted from its start."""
    number, offset = place_of(id >> 10)
    path = segment_path(Path(site.settings.spool), number)
    data = bytearray(path.read_bytes())
    data[offset + within] ^= 0xFF
    path.write_bytes(data)


def test_a_store_at_work_balances(site: Site, store: MailStore) -> None:
    put(store, *(a_mail(number, KASSE, ELSEWHERE) for number in range(5)), a_mail(1, PRAXIS))
    store.leases.claim([Take(KASSE)], 2, "w", START, LEASE)
    offer(store, a_mail(6, KASSE, PRAXIS))
    outcome = check(store)
    assert outcome.findings == ()
    assert (outcome.accepted, outcome.unrouted) == (13, 2)
    assert outcome.total(State.RELEASING) == 2
    assert reconcile(read_books(site.settings.url, site.settings.spool)) == outcome


def test_a_delivery_that_was_removed_is_missed_by_name(site: Site, store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2), a_mail(3))
    (one, *_) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
    tamper(site, f"DELETE FROM kim_delivery WHERE id = {one.id}")
    outcome = check(store)
    assert outcome.findings[0] == "3 accepted, 2 accounted for: 1 missing"
    assert outcome.findings[1].endswith(f"rebuild the index: {one.id}")


def test_a_delivery_that_nobody_accepted_is_found(site: Site, store: MailStore) -> None:
    put(store, a_mail(1))
    tamper(
        site,
        "INSERT INTO kim_delivery (id, account, state, length, size, accepted_us, changed_us)"
        " VALUES (77, 'x', 'HELD', 1, 1, 0, 0)",
    )
    outcome = check(store)
    assert outcome.findings[0] == "1 accepted, 2 accounted for: 1 too many"
    assert outcome.findings[1].endswith(": 77")


def test_a_link_into_nothing_is_found(site: Site, store: MailStore) -> None:
    put(store, a_mail(1), a_mail(1))
    tamper(site, "UPDATE kim_delivery SET linked_to = 5 WHERE state = 'DUPLICATE_LINKED'")
    assert "linked as a duplicate" in check(store).findings[0]


def test_a_changed_content_is_found_and_not_handed_out(site: Site, store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    first = store.maildrop(KASSE).entries()[0]
    if site.is_embedded:
        spoil(site, store, first.id, 600)
    else:
        tamper(site, f"UPDATE kim_body SET content = content || 'x' WHERE position = {first.id >> 10}")
    assert check(store).findings[0].endswith(f": {first.id}")
    damaged, whole = store.leases.claim([Take(KASSE)], 2, "w", START, LEASE).mails
    assert damaged.mail is None
    assert damaged.damage
    assert whole.mail == a_mail(2)
    store.leases.finish([Outcome(first.id, State.QUARANTINED, damaged.damage)], "w", START)
    assert store.counts() == {KASSE: {State.QUARANTINED: 1, State.RELEASING: 1}}


def test_a_record_that_rots_before_it_was_routed_is_kept_in_the_accounts(embedded: Site) -> None:
    with embedded.open() as store:
        for number in (1, 2, 3):
            offer(store, a_mail(number))
        with store._parts.backing.reading() as connection:
            middle = store._parts.bodies.arrived(connection, 3)[1].position << 10
        spoil(embedded, store, middle, 70)
        store.route()
        assert store.counts() == {KASSE: {State.HELD: 2}, DAMAGED: {State.QUARANTINED: 1}}
        outcome = check(store)
        assert (outcome.accepted, outcome.accounted) == (3, 3)
        assert outcome.findings[0].endswith(f": {middle}")


def test_a_report_of_a_damaged_mail_does_not_stop_the_others(embedded: Site) -> None:
    from tests.kim.mails import SUCCESS

    with embedded.open() as store:
        put(store, a_mail(1, notify=SUCCESS), a_mail(2, notify=SUCCESS))
        first = store.maildrop(KASSE).entries()[0]
        spoil(embedded, store, first.id, 600)
        (pending,) = store.pending_reports(10)
        assert pending.report.original_message_id == "2@praxis.example"
        assert any("DSN" in finding for finding in check(store).findings)


@pytest.mark.parametrize("table", ["kim_delivery", "kim_cursor"])
def test_a_database_without_its_tables_is_an_error_of_ours(site: Site, store: MailStore, table: str) -> None:
    from schleuse.errors import UnavailableError

    offer(store, a_mail(1))
    tamper(site, f"ALTER TABLE {table} RENAME TO lost")
    with pytest.raises(UnavailableError):
        store.route()
