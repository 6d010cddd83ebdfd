"""Senders of held letters hear once that they wait (HD-10)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.kim.mails import ELSEWHERE, KASSE, START, Site, a_mail, account_of, check, put

from schleuse.kim.store import MailStore, rebuild_index
from schleuse.kim.store.reports import HELD_STATUS, HELD_TEXT
from schleuse.mail import dsn
from schleuse.mail.contracts import Action, Notify

NOW = START + timedelta(minutes=11)
DELAY = frozenset({Notify.DELAY})


def told(store: MailStore) -> list[tuple[Action, str]]:
    return [(one.action, one.report.status) for one in store.pending_reports(10)]


def test_a_held_letter_is_told_as_delayed_once(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE, notify=DELAY))
    assert store.held_letters.tell_delayed(NOW, NOW) == 1
    assert store.held_letters.tell_delayed(NOW, NOW) == 0
    assert told(store) == [(Action.DELAYED, HELD_STATUS)]


def test_the_dsn_says_that_it_is_still_tried_and_names_no_end_of_trying(store: MailStore) -> None:
    """HD-24: the clock of the letter stands still, so nobody knows until when."""
    put(store, a_mail(1, ELSEWHERE))
    store.held_letters.tell_delayed(NOW, NOW)
    (pending,) = store.pending_reports(10)
    text = dsn.build(pending.report)
    assert HELD_TEXT.split(",")[0].encode() in text
    assert b"Will-Retry-Until" not in text
    assert b"Action: delayed" in text


def test_whoever_asked_for_no_delay_notice_gets_none(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE, notify=frozenset({Notify.NEVER})), a_mail(2, ELSEWHERE, sender=""))
    assert store.held_letters.tell_delayed(NOW, NOW) == 2
    assert told(store) == []


def test_letters_that_came_later_and_mail_in_mailboxes_are_not_told(store: MailStore) -> None:
    put(store, a_mail(1, KASSE), replace(a_mail(2, ELSEWHERE), accepted_at=NOW))
    assert store.held_letters.tell_delayed(START + timedelta(minutes=1), NOW) == 0


def test_a_letter_that_was_reported_as_delayed_before_is_not_told_again(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE))
    (mail,) = store.queue.due(START, 1)
    store.queue.retry(mail.id, START, START, "451 later", True)
    assert store.held_letters.tell_delayed(NOW, NOW) == 0


def test_a_rebuilt_index_tells_nobody_twice(embedded: Site) -> None:
    with embedded.open() as store:
        put(store, a_mail(1, ELSEWHERE))
        store.held_letters.tell_delayed(NOW, NOW)
        store.report_accepted(store.pending_reports(10))
    for file in embedded.settings.spool.parent.glob("kim.sqlite*"):
        file.unlink()
    rebuild_index(embedded.settings, account_of, now=embedded.clock)
    with embedded.open() as store:
        assert store.held_letters.tell_delayed(NOW, NOW) == 0
        assert told(store) == []
        assert check(store).holds


def test_letters_are_counted_by_how_long_they_wait(store: MailStore) -> None:
    put(store, a_mail(1, ELSEWHERE), a_mail(2, ELSEWHERE), replace(a_mail(3, ELSEWHERE), accepted_at=NOW))
    first = store.held_letters.older(NOW, 0)
    assert first.number == 3
    assert store.held_letters.older(NOW, first.last).number == 0
    assert store.held_letters.older(START - timedelta(hours=1), 0).number == 0
