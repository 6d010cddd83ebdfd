"""The outbound queue: attempts, ends, and the DSN that each of them owes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.kim.mails import ELSEWHERE, KASSE, START, SUCCESS, Site, a_mail, check, put
from tests.mail.faulty_disk import Fault, FaultyDisk, Once

from schleuse.errors import ConflictError, UnavailableError
from schleuse.holding.states import State
from schleuse.kim.store import OUTBOUND, MailStore
from schleuse.kim.store.outbound import LEASE, status_in
from schleuse.mail.contracts import Action, Notify, Outgoing

LATER = START + timedelta(minutes=10)
REFUSED = "550 5.1.1 unknown"
BUSY = "451 4.3.2 try later"


def the_one(store: MailStore, minutes: int = 0) -> Outgoing:
    (outgoing,) = store.queue.due(START + timedelta(minutes=minutes), 10)
    return outgoing


def reports(store: MailStore) -> list[tuple[Action, str]]:
    return [(one.action, one.report.status) for one in store.pending_reports(10)]


def test_a_mail_for_another_host_is_due_at_once_and_to_nobody_twice(store: MailStore) -> None:
    mail = replace(a_mail(1, KASSE, ELSEWHERE, notify=SUCCESS), envid="e1", ret="FULL")
    put(store, mail)
    outgoing = the_one(store)
    assert outgoing == Outgoing(
        id=outgoing.id,
        sender=mail.sender,
        recipient=mail.recipients[1],
        accepted_at=START,
        attempts=0,
        message_id="<1@praxis.example>",
        ret="FULL",
        envid="e1",
        smtputf8=False,
        content=mail.content,
    )
    assert store.queue.due(START, 10) == []


@pytest.mark.parametrize(
    ("notify", "relayed_dsn", "expected"),
    [
        (SUCCESS, False, [(Action.RELAYED, "2.0.0")]),
        (SUCCESS, True, []),
        (frozenset[Notify](), False, []),
    ],
)
def test_a_success_is_reported_by_who_can(
    store: MailStore, notify: frozenset[Notify], relayed_dsn: bool, expected: list[tuple[Action, str]]
) -> None:
    put(store, a_mail(1, ELSEWHERE, notify=notify))
    store.queue.delivered(the_one(store).id, START, "250 2.0.0 ok", relayed_dsn)
    assert reports(store) == expected
    assert store.counts() == {OUTBOUND: {State.DELIVERED: 1}}


@pytest.mark.parametrize(
    ("notify", "expected"),
    [
        (frozenset[Notify](), [(Action.FAILED, "5.1.1")]),
        (frozenset({Notify.FAILURE}), [(Action.FAILED, "5.1.1")]),
        (frozenset({Notify.SUCCESS}), []),
        (frozenset({Notify.NEVER}), []),
    ],
)
def test_a_failure_is_reported_unless_the_sender_said_no(
    store: MailStore, notify: frozenset[Notify], expected: list[tuple[Action, str]]
) -> None:
    put(store, a_mail(1, ELSEWHERE, notify=notify))
    store.queue.failed(the_one(store).id, START, REFUSED, "5.1.1")
    assert reports(store) == expected
    assert store.counts() == {OUTBOUND: {State.RETURNED: 1}}
    assert check(store).holds


def test_a_failure_returns_the_whole_mail_when_the_sender_wants_it(store: MailStore) -> None:
    put(store, replace(a_mail(1, ELSEWHERE), ret="FULL"))
    store.queue.failed(the_one(store).id, START, REFUSED, "5.1.1")
    (pending,) = store.pending_reports(10)
    assert pending.report.content == a_mail(1).content
    assert pending.report.diagnostic == REFUSED


def test_a_report_that_fails_is_not_reported(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE, sender=""))
    store.queue.failed(the_one(store).id, START, REFUSED, "5.1.1")
    assert reports(store) == []


def test_another_try_comes_at_its_time_and_counts(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE))
    store.queue.retry(the_one(store).id, START, LATER, BUSY, report_delay=False)
    assert store.queue.due(LATER - timedelta(seconds=1), 10) == []
    again = the_one(store, 10)
    assert (again.attempts, again.delay_reported) == (1, False)
    assert reports(store) == []


def test_a_delay_is_reported_once(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE))
    store.queue.retry(the_one(store).id, START, START, BUSY, report_delay=True)
    store.queue.retry(the_one(store).id, START, START, BUSY, report_delay=True)
    (pending,) = store.pending_reports(10)
    assert (pending.action, pending.report.status) == (Action.DELAYED, "4.3.2")
    assert pending.report.will_retry_until == START + timedelta(days=5)
    assert the_one(store).delay_reported


def test_a_duplicate_of_a_relayed_mail_is_reported_as_relayed(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE, notify=SUCCESS))
    store.queue.delivered(the_one(store).id, START, "250 ok", relayed_dsn=True)
    put(store, a_mail(1, ELSEWHERE, notify=SUCCESS))
    assert reports(store) == [(Action.RELAYED, "2.0.0")]


def test_a_process_that_starts_again_takes_up_its_mail_at_once(site: Site) -> None:
    with site.open() as store:
        put(store, a_mail(1, ELSEWHERE))
        first = the_one(store)
    with site.open() as store:
        assert the_one(store) == first


def test_the_mail_of_a_host_that_died_is_taken_over(site: Site) -> None:
    with site.open() as store:
        put(store, a_mail(1, ELSEWHERE))
        first = the_one(store)
    with site.open(owner="another host") as store:
        assert store.queue.due(START, 10) == []
        (again,) = store.queue.due(START + LEASE, 10)
        assert again == first
        store.queue.delivered(again.id, START, "250 ok", relayed_dsn=False)
        with pytest.raises(ConflictError):
            store.queue.failed(first.id, START, REFUSED, "5.1.1")
        assert store.counts() == {OUTBOUND: {State.DELIVERED: 1}}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("451 4.3.2 later", "4.3.2"), ("421-4.7.0 no", "4.7.0"), ("450 busy", "4.0.0"), ("4.3.2", "4.0.0")],
)
def test_the_status_is_taken_from_the_reply_if_it_has_one(reply: str, expected: str) -> None:
    assert status_in(reply, "4.0.0") == expected


def test_a_disk_that_does_not_answer_delays_no_mail_by_its_lease(embedded: Site) -> None:
    disk = FaultyDisk()
    with embedded.open(disk) as store:
        put(store, a_mail(1, ELSEWHERE))
        disk.choose = Once("read", Fault())
        with pytest.raises(UnavailableError):
            store.queue.due(START, 10)
        assert len(store.queue.due(START, 10)) == 1
