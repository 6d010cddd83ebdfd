"""By what a sender asks for his mail, and what he may know of it (§ 6.4, promise 4)."""

from __future__ import annotations

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
    put,
)

from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Take, rebuild_index
from schleuse.kim.store.origins import reference_of

DAY = timedelta(days=1)
FIRST = reference_of("<1@praxis.example>")


def states(store: MailStore, reference: str = FIRST) -> list[tuple[str | None, State]]:
    return [(one.account, one.state) for one in store.origins.by_reference(reference)]


def finish(store: MailStore, state: State = State.DELIVERED) -> None:
    (claimed,) = store.leases.claim([Take(KASSE)], 10, "w", START, LEASE).mails
    store.leases.finish([Outcome(claimed.id, state)], "w", START)


def test_the_reference_is_the_digest_of_the_bare_message_id() -> None:
    assert reference_of(" 1@praxis.example") == FIRST
    assert reference_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_sender_finds_every_delivery_of_his_mail(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, ELSEWHERE), a_mail(2, KASSE))
    assert states(store) == [(KASSE, State.HELD), (None, State.HELD)]
    assert states(store, reference_of("<3@praxis.example>")) == []


def test_the_answer_is_the_record_at_this_moment(store: MailStore) -> None:
    """Promise 4: a query, never typed."""
    put(store, a_mail(1, KASSE))
    finish(store)
    assert states(store) == [(KASSE, State.DELIVERED)]


def test_a_mail_that_was_sent_again_shows_what_became_of_the_first(store: MailStore) -> None:
    put(store, a_mail(1, KASSE), again_through_another_host(a_mail(1, KASSE)))
    finish(store)
    records = store.origins.by_reference(FIRST)
    assert [one.state for one in records] == [State.DELIVERED, State.DELIVERED]
    assert records[0].delivery == records[1].delivery


def test_whether_a_dsn_went_out_is_known(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, notify=SUCCESS), a_mail(2, KASSE))
    assert [one.told for one in store.origins.by_reference(FIRST)] == [False]
    store.report_accepted(store.pending_reports(10))
    assert [one.told for one in store.origins.by_reference(FIRST)] == [True]
    assert [one.told for one in store.origins.by_reference(reference_of("<2@praxis.example>"))] == [False]


def test_a_sender_sees_his_own_mail_in_pages_and_nobody_elses(store: MailStore) -> None:
    put(store, *(a_mail(number, KASSE, ELSEWHERE) for number in (1, 2, 3)), a_mail(4, KASSE, sender=KASSE))
    seen: list[str] = []
    after = -1
    while page := store.origins.by_sender(PRAXIS.upper(), after, START - DAY, 3):
        seen += [one.reference for one in page]
        after = page[-1].position
    assert seen == [reference_of(f"<{number}@praxis.example>") for number in (1, 1, 2, 2, 3, 3)]
    assert store.origins.by_sender(PRAXIS, -1, START + DAY, 10) == []


def test_a_mail_with_more_recipients_than_a_page_is_shown_as_far_as_it_goes(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, ELSEWHERE, PRAXIS))
    assert len(store.origins.by_sender(PRAXIS, -1, START - DAY, 2)) == 2


def test_dsns_and_mails_without_a_message_id_have_no_receipt(store: MailStore) -> None:
    put(store, a_mail(1, KASSE, sender=""), replace(a_mail(2, KASSE), content=b"Subject: x\r\n\r\nx\r\n"))
    assert states(store) == []
    assert store.origins.by_sender(PRAXIS, -1, START - DAY, 10) == []


def test_who_sent_what_is_forgotten_with_the_content(site: Site) -> None:
    with site.open(retention=DAY) as store:
        put(store, a_mail(1, KASSE), a_mail(2, KASSE))
        (first, _second) = store.leases.claim([Take(KASSE)], 10, "w", START, LEASE).mails
        store.leases.finish([Outcome(first.id, State.DELIVERED)], "w", START)
        assert store.origins.forget(START + DAY) == 0
        site.clock.now = START + 3 * DAY
        store.purge(site.clock.now)
        put(store, replace(a_mail(3, KASSE), accepted_at=site.clock.now))
        store.purge(site.clock.now)
        assert store.origins.forget(START + DAY) == 1
        assert states(store) == []
        assert states(store, reference_of("<2@praxis.example>")) == [(KASSE, State.RELEASING)]


def test_a_rebuilt_index_knows_the_references_again(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1, KASSE))
    for file in embedded.settings.spool.parent.glob("kim.sqlite*"):
        file.unlink()
    rebuild_index(embedded.settings, account_of, now=embedded.clock)
    with embedded.open() as store:
        assert states(store) == [(KASSE, State.HELD)]
