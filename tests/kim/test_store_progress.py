"""What a release sees of the mail store, on both kinds of it (HD-41, HD-42, HD-45)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.kim.mails import KASSE, LEASE, START, Site, a_mail, put
from tests.kim.test_store_audit import spoil

from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Take
from schleuse.kim.store.progress import AT_ONCE, PartOutcome

ALL = 1 << 60


def test_the_outcome_tells_waiting_failed_and_put_back_apart(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(1, 7)))
    taken = [one.id for one in store.leases.claim([Take(KASSE)], 5, "w", START, LEASE).mails]
    done = (State.DELIVERED, State.RETURNED, State.QUARANTINED)
    store.leases.finish([Outcome(id, state) for id, state in zip(taken, done, strict=False)], "w", START)
    store.leases.put_back(taken[3:4], "w", START + timedelta(minutes=1))
    view = store.leases.release_view
    assert view.outcome(KASSE, 0, ALL, START) == PartOutcome(waiting=3, failed=2, put_back=1, damaged=0)
    assert view.outcome(KASSE, 0, ALL, START + timedelta(minutes=1)).put_back == 0
    assert view.outcome(KASSE, taken[1], taken[2], START) == PartOutcome(0, 1, 0, 0)
    assert view.outcome("zwei@kasse.kim.telematik", 0, ALL, START) == PartOutcome(0, 0, 0, 0)


def test_each_mail_is_looked_at_once_in_order_and_none_is_opened(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(1, AT_ONCE + 3)))
    store.leases.holds.begin(KASSE, 1, "c", "security_hold", START)
    store.leases.holds.end(KASSE, 2, START)
    ids = store.leases.holds.backlog(KASSE)
    seen = list(store.leases.release_view.peek([*ids, 1 << 50]))
    assert [one.id for one in seen] == ids
    assert [one.message_id for one in seen[:2]] == ["<1@praxis.example>", "<2@praxis.example>"]
    assert all(one.whole and one.label == "" and one.accepted_at == START for one in seen)
    assert list(store.leases.release_view.peek([1 << 50])) == []


def test_the_label_is_read_from_the_outer_header_only(store: MailStore) -> None:
    label = b"X-KIM-Dienstkennung: eAU;Lieferung;V1.2\r\n"
    first, second = a_mail(1), a_mail(2)
    put(
        store,
        replace(first, content=first.content.replace(b"Subject", label + b"Subject")),
        replace(second, content=second.content + label),
    )
    ids = [one.id for one in store.leases.waiting([State.HELD], 10)]
    assert [one.label for one in store.leases.release_view.peek(ids)] == ["eAU;Lieferung;V1.2", ""]


def test_what_came_once_more_is_known_by_the_first_of_it(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    put(store, a_mail(2), a_mail(2))
    first, second = (one.id for one in store.leases.waiting([State.HELD], 10))
    assert store.leases.release_view.sent_again(KASSE, 0) == {second}
    assert store.leases.release_view.sent_again(KASSE, first) == {second}
    assert store.leases.release_view.sent_again(KASSE, second) == frozenset()


def test_a_record_that_was_changed_is_not_whole(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1), a_mail(2))
        first, second = (one.id for one in store.leases.waiting([State.HELD], 10))
        spoil(embedded, store, first, 600)
        assert [(one.id, one.whole) for one in store.leases.release_view.peek([first, second])] == [
            (first, False),
            (second, True),
        ]
        view = store.leases.release_view
        assert view.outcome(KASSE, 0, ALL, START).damaged == 0  # who lets it go compares it before; later, a worker
        taken = [one.id for one in store.leases.claim([Take(KASSE)], 5, "w", START, LEASE).mails]
        store.leases.put_back(taken, "w", START + timedelta(minutes=1))
        assert view.outcome(KASSE, 0, ALL, START + timedelta(minutes=2)) == PartOutcome(2, 0, 0, damaged=1)


def test_what_became_of_many_mailboxes_is_one_look(store: MailStore) -> None:
    """Also of more than one statement can ask."""
    zwei = "zwei@kasse.kim.telematik"
    put(store, a_mail(1), a_mail(2), a_mail(3, zwei))
    parts = {f"kasse{number}@kasse.kim.telematik": (0, ALL) for number in range(250)} | {
        KASSE: (0, ALL),
        zwei: (0, ALL),
    }
    found = store.leases.release_view.outcomes(parts, START)
    assert list(found) == list(parts)
    assert {one: found[one].waiting for one in found if found[one].waiting} == {KASSE: 2, zwei: 1}
