"""Who was deferred, and who never came back (incident.md § 6.5)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from tests.kim.mails import ELSEWHERE, KASSE, PRAXIS, START, Site, a_mail, account_of, put

from schleuse.database import create_engine
from schleuse.kim.deferred import MAX_WAITING, OTHERS, Gathered
from schleuse.kim.store import MailStore, deferrals
from schleuse.mail.contracts import Mail

BEFORE = START - timedelta(hours=2)
LATER = START + timedelta(hours=1)


def tried(store: MailStore, sender: str, to: str = KASSE, at: datetime = BEFORE, times: int = 1) -> None:
    gathered = Gathered(account_of)
    for _ in range(times):
        gathered.note(sender, to, "e", at)
    store.deferrals.write(gathered.take())


def away(store: MailStore) -> list[tuple[str, str, int]]:
    found = store.deferrals.away(BEFORE - timedelta(days=1), LATER)
    return [(one.sender, one.recipient, one.attempts) for one in found]


def rows(site: Site) -> int:
    engine = create_engine(site.settings.url)
    with engine.connect() as connection:
        number = connection.execute(sa.text("SELECT count(*) FROM kim_deferral")).scalar_one()
    engine.dispose()
    return int(number)


def test_whoever_tried_and_never_came_back_is_on_the_list_with_all_attempts(store: MailStore) -> None:
    tried(store, PRAXIS, times=3)
    tried(store, PRAXIS, at=BEFORE + timedelta(hours=1))
    tried(store, "andere@arzt.kim.telematik")
    assert away(store) == [("andere@arzt.kim.telematik", KASSE, 1), (PRAXIS, KASSE, 4)]
    assert store.deferrals.count_away() == 2


def test_whoever_comes_back_is_taken_off_the_list_with_the_delivery(store: MailStore) -> None:
    tried(store, PRAXIS.upper())
    tried(store, PRAXIS, "zwei@kasse.kim.telematik")
    put(store, a_mail(1, KASSE))
    assert away(store) == [(PRAXIS, "zwei@kasse.kim.telematik", 1)]


def test_a_mail_that_was_accepted_before_the_attempt_is_no_coming_back(store: MailStore) -> None:
    tried(store, PRAXIS, at=START + timedelta(minutes=1))
    put(store, a_mail(1, KASSE))
    assert away(store) == [(PRAXIS, KASSE, 1)]


def test_whoever_is_deferred_again_has_to_come_back_again(store: MailStore) -> None:
    tried(store, PRAXIS, at=START)
    put(store, a_mail(1, KASSE))
    tried(store, PRAXIS, at=START + timedelta(minutes=5))
    assert away(store) == [(PRAXIS, KASSE, 2)]


def test_an_attempt_that_is_written_twice_does_not_undo_a_coming_back(store: MailStore) -> None:
    """A note that was in the table already when its process died is read again by the next one (§ 6.8)."""
    tried(store, PRAXIS)
    tried(store, PRAXIS, at=BEFORE + timedelta(minutes=1))
    put(store, a_mail(1, KASSE))
    tried(store, PRAXIS)
    assert away(store) == []


def test_a_practice_that_tries_all_day_has_one_row_an_hour(site: Site, store: MailStore) -> None:
    for minute in range(0, 180, 10):
        tried(store, PRAXIS, at=BEFORE.replace(minute=0) + timedelta(minutes=minute))
    assert rows(site) == 3


def test_invented_addresses_of_other_hosts_share_one_row(site: Site, store: MailStore) -> None:
    tried(store, PRAXIS, ELSEWHERE)
    tried(store, PRAXIS, f"x{ELSEWHERE}")
    assert (rows(site), away(store)) == (1, [(PRAXIS, "@anderswo.kim.telematik", 2)])


def test_a_flood_of_invented_senders_is_counted_together(
    site: Site, store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferrals, "MAX_ROWS_AN_HOUR", 3)
    for number in range(9):
        tried(store, f"s{number}@x.kim.telematik")
    assert rows(site) == 4
    assert (OTHERS, OTHERS, 6) in away(store)


def test_what_is_a_year_old_is_erased(site: Site, store: MailStore) -> None:
    tried(store, PRAXIS)
    assert store.deferrals.forget(BEFORE) == 0
    assert store.deferrals.forget(BEFORE + timedelta(seconds=1)) == 1
    assert rows(site) == 0


def gathered_from(count: int) -> Gathered:
    gathered = Gathered(account_of)
    for number in range(count):
        gathered.note(f"s{number}@x", KASSE, None, START)
    return gathered


def test_memory_is_bounded_while_nothing_can_be_written() -> None:
    gathered = gathered_from(MAX_WAITING + 5)
    taken = gathered.take()
    assert (len(taken), sum(one.count for one in taken)) == (MAX_WAITING + 1, MAX_WAITING + 5)
    gathered.put_back(taken)
    assert sum(one.count for one in gathered.take()) <= MAX_WAITING + 5


def test_what_could_not_be_written_is_added_to_what_came_meanwhile() -> None:
    gathered = gathered_from(1)
    first = gathered.take()
    gathered.note("s0@x", KASSE, "new", START + timedelta(minutes=1))
    gathered.put_back(first)
    (one,) = gathered.take()
    assert (one.count, one.envid, one.last_us - one.first_us) == (2, "new", 60_000_000)


def test_a_machine_that_comes_back_at_once_is_not_missed(store: MailStore) -> None:
    """Before the first attempt has been written down."""
    gathered = Gathered(account_of)
    gathered.note(PRAXIS, KASSE, None, START)
    mail: Mail = a_mail(1, KASSE)
    put(store, mail)
    gathered.came_back(mail.sender, [KASSE], mail.accepted_at)
    store.deferrals.write(gathered.take())
    assert away(store) == []


def test_attempts_print_without_who_it_was() -> None:
    assert PRAXIS not in repr(gathered_from(1).take())
