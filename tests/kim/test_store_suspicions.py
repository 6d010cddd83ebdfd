"""Suspected mail is kept aside, whoever would take it, and nothing of it is lost (HD-47), on both stores."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kim.mails import KASSE, LEASE, PRAXIS, START, Site, a_mail, account_of, check, put

from schleuse.clock import to_us
from schleuse.database import sqlite_url
from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Settings, Take, Under, open_mail_store, rebuild_index
from schleuse.kim.store.maildrop import MessageTakenError
from schleuse.kim.store.suspicions import Suspected, Suspicions
from schleuse.mail.contracts import Action, Mail, Notify
from schleuse.scopes import Direction, Service, atom
from schleuse.switch.fence import StaleEpochError

ANDERE = "andere@arzt.kim.telematik"
DELIVER = atom(Service.EAU_INTAKE, "123456789", Direction.DELIVER)
HOUR = timedelta(hours=1)
RETENTION_US = 1_000_000
SENDER = Suspected("q1", KASSE, senders=frozenset({ANDERE}))
PERIOD = Suspected("q2", KASSE, to_us(START), to_us(START + HOUR))


def mail(number: int, sender: str = PRAXIS, after: timedelta = timedelta(0), **more: object) -> Mail:
    return replace(a_mail(number, sender=sender), accepted_at=START + after, **more)  # type: ignore[arg-type]


def take(store: MailStore, now: datetime = START, limit: int = 10) -> list[int]:
    return [one.id for one in store.leases.claim([Take(KASSE)], limit, "w", now, LEASE).mails]


def states(store: MailStore) -> Counter[State]:
    return Counter(store.counts().get(KASSE, {}))


def test_what_waits_is_kept_aside_at_once_and_the_rest_goes_on(store: MailStore) -> None:
    put(store, mail(1), mail(2, ANDERE), mail(3, ANDERE.upper()), mail(4))
    store.leases.suspicions.register([SENDER])
    assert store.leases.suspicions.sweep("q1", [KASSE], START) == 2
    assert store.leases.suspicions.sweep("q1", [KASSE], START) == 0
    assert len(take(store)) == 2
    assert states(store) == {State.QUARANTINED: 2, State.RELEASING: 2}
    assert [one.reason for one in store.leases.suspicions.quarantined("q1")] == ["suspected: q1"] * 2
    assert check(store).holds


def test_of_a_period_its_beginning_counts_and_its_end_does_not(store: MailStore) -> None:
    put(store, mail(1, after=-HOUR), mail(2), mail(3, after=HOUR - timedelta(microseconds=1)), mail(4, after=HOUR))
    store.leases.suspicions.register([PERIOD])
    assert store.leases.suspicions.sweep("q2", [KASSE], START) == 2
    assert len(take(store, START + 2 * HOUR)) == 2


@pytest.mark.parametrize("suspected", [SENDER, PERIOD])
def test_a_worker_gets_nothing_suspected_also_where_nobody_swept(store: MailStore, suspected: Suspected) -> None:
    store.leases.suspicions.register([suspected])
    put(store, mail(1, ANDERE), mail(2, after=2 * HOUR))
    put(store, mail(3, "dritte@arzt.kim.telematik", 2 * HOUR))
    assert len(take(store, START + 3 * HOUR)) == 2
    assert states(store) == {State.QUARANTINED: 1, State.RELEASING: 2}


@pytest.mark.parametrize("suspected", [SENDER, PERIOD])
def test_an_owner_gets_nothing_suspected_by_pop3_also_where_nobody_swept(
    store: MailStore, suspected: Suspected
) -> None:
    store.leases.suspicions.register([suspected])
    put(store, mail(1, ANDERE), mail(2, after=2 * HOUR))
    with closing(store.maildrop(KASSE)) as drop:
        (entry,) = drop.entries()
        drop.delete([entry.id])
    assert states(store) == {State.QUARANTINED: 1, State.DELIVERED: 1}
    assert check(store).holds


def test_what_arrives_while_a_mailbox_is_opened_is_in_its_next_session(
    store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a session lists was there when suspected mail was kept aside for it."""
    store.leases.suspicions.register([SENDER])
    put(store, mail(1))
    sweep_all = Suspicions.sweep_all

    def and_then_one_arrives(suspicions: Suspicions, account: str, now: datetime) -> int:
        kept = sweep_all(suspicions, account, now)
        put(store, mail(2, ANDERE), mail(3))
        return kept

    monkeypatch.setattr(Suspicions, "sweep_all", and_then_one_arrives)
    with closing(store.maildrop(KASSE)) as drop:
        assert len(drop.entries()) == 1
    monkeypatch.undo()
    with closing(store.maildrop(KASSE)) as drop:
        assert len(drop.entries()) == 2
    assert states(store) == {State.QUARANTINED: 1, State.HELD: 2}


def test_a_session_gets_nothing_that_was_kept_aside_since_it_began(store: MailStore) -> None:
    put(store, mail(1, ANDERE), mail(2))
    with closing(store.maildrop(KASSE)) as drop:
        first, second = drop.entries()
        store.leases.suspicions.register([SENDER])
        assert store.leases.suspicions.sweep("q1", [KASSE], START) == 1
        with pytest.raises(MessageTakenError, match="kept aside"):
            drop.content(first.id)
        assert drop.content(second.id)
        with pytest.raises(MessageTakenError):
            drop.delete([first.id])


def test_period_and_sender_together_mean_both(store: MailStore) -> None:
    both = Suspected("q3", KASSE, to_us(START), to_us(START + HOUR), frozenset({ANDERE}))
    put(store, mail(1, ANDERE), mail(2), mail(3, ANDERE, HOUR))
    store.leases.suspicions.register([both])
    assert store.leases.suspicions.sweep("q3", [KASSE], START) == 1
    assert len(take(store, START + 2 * HOUR)) == 2


def test_what_a_worker_has_already_is_listed_as_opened_and_comes_aside_if_it_is_put_back(store: MailStore) -> None:
    put(store, mail(1, ANDERE), mail(2, ANDERE), mail(3))
    first, second, _ = take(store)
    store.leases.suspicions.register([SENDER])
    assert store.leases.suspicions.sweep("q1", [KASSE], START) == 0
    store.leases.finish([Outcome(first, State.DELIVERED)], "w", START)
    opened = store.leases.suspicions.opened("q1")
    assert [(one.id, one.state) for one in opened] == [(first, State.DELIVERED), (second, State.RELEASING)]
    store.leases.put_back([second], "w", START)
    assert take(store) == []
    assert [one.id for one in store.leases.suspicions.quarantined("q1")] == [second]
    assert [one.id for one in store.leases.suspicions.opened("q1")] == [first]


def test_what_two_persons_give_back_is_taken_and_not_kept_aside_again(store: MailStore) -> None:
    put(store, mail(1, ANDERE), mail(2, ANDERE))
    store.leases.suspicions.register([SENDER])
    store.leases.suspicions.sweep("q1", [KASSE], START)
    first, second = (one.id for one in store.leases.suspicions.quarantined("q1"))
    assert store.leases.suspicions.give_back("q1", [first], START) == 1
    assert store.leases.suspicions.give_back("q1", [first], START) == 0
    assert store.leases.suspicions.sweep("q1", [KASSE], START) == 0
    assert take(store) == [first]
    assert [one.id for one in store.leases.suspicions.quarantined("q1")] == [second]


def test_one_person_cannot_give_it_back(store: MailStore) -> None:
    put(store, mail(1, ANDERE))
    store.leases.suspicions.register([SENDER])
    store.leases.suspicions.sweep("q1", [KASSE], START)
    (one,) = store.leases.suspicions.quarantined("q1")
    assert store.reconsider([one.id], START) == 0
    assert states(store) == {State.QUARANTINED: 1}


def test_after_its_end_nothing_more_is_kept_aside_also_if_it_is_registered_again(store: MailStore) -> None:
    store.leases.suspicions.register([SENDER])
    store.leases.suspicions.end("q1", START)
    store.leases.suspicions.register([SENDER])
    put(store, mail(1, ANDERE))
    assert len(take(store)) == 1


def test_what_is_returned_has_a_dsn_with_its_reason_and_is_fenced(store: MailStore) -> None:
    """SW-06; § 6.2: only RETURNED reaches a person at the sender, with a reason that is true for that mail."""
    failure = frozenset({Notify.FAILURE})
    put(store, replace(a_mail(1, notify=failure, sender=ANDERE), accepted_at=START))
    store.leases.suspicions.register([SENDER])
    store.leases.suspicions.sweep("q1", [KASSE], START)
    (one,) = store.leases.suspicions.quarantined("q1")
    store.leases.holds.follow({DELIVER: 5}, 5, [], lambda *_: (), START)
    with pytest.raises(StaleEpochError):
        store.leases.suspicions.return_("q1", [one.id], "key stolen", START, RETENTION_US, [Under(DELIVER, 4)])
    assert states(store) == {State.QUARANTINED: 1}
    for moved in (1, 0):
        returned = store.leases.suspicions.return_(
            "q1", [one.id], "key stolen", START, RETENTION_US, [Under(DELIVER, 5)]
        )
        assert returned == moved
    (report,) = store.pending_reports(10)
    assert (report.action, report.report.to, report.report.diagnostic) == (Action.FAILED, ANDERE, "key stolen")
    assert states(store) == {State.RETURNED: 1}
    assert check(store).holds


@pytest.mark.parametrize("lost", [False, True])
def test_a_mail_that_is_sent_again_after_it_was_returned_is_a_new_try(embedded: Site, lost: bool) -> None:
    """Promise 1: its sender was told that it went back, so what he sends then is not taken for what is here."""
    same = mail(1, ANDERE)
    with embedded.open() as store:
        return_one(store, same)
    if lost:
        lose_index(embedded)
    with embedded.open() as store:
        a_new_try_is_filed(store, same)
    for _ in range(2):  # all of it is the same in an index that was made again
        lose_index(embedded)
        with embedded.open() as store:
            assert states(store) == {State.RETURNED: 1, State.DELIVERED: 1, State.DUPLICATE_LINKED: 2}
            assert check(store).holds
            assert take(store) == []


def test_a_new_try_is_one_on_both_stores(store: MailStore) -> None:
    return_one(store, mail(1, ANDERE))
    a_new_try_is_filed(store, mail(1, ANDERE))


def return_one(store: MailStore, same: Mail) -> None:
    """It comes twice, once while it is kept aside."""
    put(store, same)
    store.leases.suspicions.register([SENDER])
    store.leases.suspicions.sweep("q1", [KASSE], START)
    put(store, same)
    assert states(store) == {State.QUARANTINED: 1, State.DUPLICATE_LINKED: 1}
    (one,) = store.leases.suspicions.quarantined("q1")
    assert store.leases.suspicions.return_("q1", [one.id], "send it anew", START, RETENTION_US, []) == 1
    store.leases.suspicions.end("q1", START)


def a_new_try_is_filed(store: MailStore, same: Mail) -> None:
    """And processed once, however often it comes then."""
    put(store, same)
    assert states(store) == {State.RETURNED: 1, State.DUPLICATE_LINKED: 1, State.HELD: 1}
    put(store, same)
    (id,) = take(store)
    store.leases.finish([Outcome(id, State.DELIVERED)], "w", START)
    assert states(store) == {State.RETURNED: 1, State.DELIVERED: 1, State.DUPLICATE_LINKED: 2}
    assert check(store).holds


def lose_index(site: Site) -> None:
    for path in site.settings.spool.parent.glob("kim.sqlite*"):
        path.unlink()
    rebuild_index(site.settings, account_of)


def test_an_index_that_was_lost_hands_out_nothing_of_it(embedded: Site) -> None:
    """The marks say what was kept aside; the rows are made again from the signed documents."""
    with embedded.open() as store:
        put(store, mail(1, ANDERE), mail(2))
        store.leases.suspicions.register([SENDER])
        store.leases.suspicions.sweep("q1", [KASSE], START)
    lose_index(embedded)
    with embedded.open() as store:
        assert states(store) == {State.QUARANTINED: 1, State.HELD: 1}
        assert [one.reason for one in store.leases.suspicions.quarantined("q1")] == ["suspected: q1"]
        assert check(store).holds


class DiedError(Exception):
    pass


def test_whoever_dies_before_any_statement_of_a_sweep_or_claim_loses_nothing(store: MailStore) -> None:
    """Kill at each step; a sweep that is repeated finds the rest."""
    put(store, *(mail(number, ANDERE if number % 2 else PRAXIS) for number in range(1, 9)))
    store.leases.suspicions.register([SENDER])
    for step in range(20):
        left = step

        def die(*_: object) -> None:
            nonlocal left
            if left == 0:
                raise DiedError
            left -= 1

        engine = store.leases._backing.engine
        sa.event.listen(engine, "before_cursor_execute", die)
        try:
            store.leases.claim([Take(KASSE)], 2, f"w{step}", START, LEASE)
        except DiedError:
            pass
        finally:
            sa.event.remove(engine, "before_cursor_execute", die)
        store.leases.reset(f"w{step}")
        assert check(store).holds
        assert states(store)[State.HELD] + states(store)[State.QUARANTINED] == 8
    assert store.leases.suspicions.sweep("q1", [KASSE], START) + states(store)[State.QUARANTINED] >= 4
    assert states(store) == {State.HELD: 4, State.QUARANTINED: 4}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3)),
        st.tuples(st.just("take"), st.integers(1, 3)),
        st.tuples(st.just("finish"), st.integers(0, 1)),
        st.tuples(st.just("suspect"), st.integers(0, 3)),
        st.tuples(st.just("sweep"), st.integers(0, 3)),
        st.tuples(st.just("give back"), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=25,
)
SENDERS = (PRAXIS, ANDERE, "c@arzt.kim.telematik", "d@arzt.kim.telematik")


@given(STEPS)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_in_any_order_no_suspected_mail_is_handed_out_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """The model: by sender what was suspected before it was taken, without what two persons gave back."""
    folder = tmp_path_factory.mktemp("model")
    config = Settings(sqlite_url(folder / "kim.sqlite"), folder / "spool", "kim.example", reserve_bytes=0)
    store = open_mail_store(config, account_of, now=lambda: START, background=False)
    suspected: set[int] = set()
    cleared: set[int] = set()
    senders: dict[int, int] = {}
    taken: list[int] = []
    number = 0
    try:
        for what, which in steps:
            suspicions = store.leases.suspicions
            match what:
                case "put":
                    number += 1
                    put(store, mail(number, SENDERS[which]))
                    (new,) = {one.id for one in store.leases.waiting([State.HELD], 100)} - senders.keys() or {0}
                    assert new
                    senders[new] = which
                case "take":
                    for id in take(store, limit=which):
                        assert senders[id] not in suspected or id in cleared, "a suspected mail was handed out"
                        taken.append(id)
                case "finish":
                    store.leases.finish([Outcome(id, State.DELIVERED) for id in taken], "w", START)
                    taken = []
                case "suspect":
                    suspected.add(which)
                    suspicions.register([Suspected(f"q{which}", KASSE, senders=frozenset({SENDERS[which]}))])
                case "sweep":
                    suspicions.sweep(f"q{which}", [KASSE], START)
                case "give back":
                    ids = {one.id for one in suspicions.quarantined(f"q{which}")}
                    assert all(senders[id] == which for id in ids)
                    assert suspicions.give_back(f"q{which}", ids, START) == len(ids)
                    cleared |= ids
                case _:
                    store.leases.reset("w")
                    taken = []
                    store.close()
                    store = open_mail_store(config, account_of, now=lambda: START, background=False)
            assert sum(states(store).values()) == number
            assert check(store).holds
    finally:
        store.close()


def test_a_claim_under_way_keeps_nothing_aside_for_what_two_persons_end_meanwhile(
    store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspicions = store.leases.suspicions
    suspicions.register([SENDER])
    put(store, mail(1, ANDERE), mail(2))
    opened = store.leases._opened

    def ended_meanwhile(*args: Any) -> object:
        suspicions.end("q1", START)
        return opened(*args)

    monkeypatch.setattr(store.leases, "_opened", ended_meanwhile)
    assert len(take(store)) == 2
    assert states(store) == {State.RELEASING: 2}


def test_what_was_cleared_before_its_suspicion_is_known_is_not_kept_aside(store: MailStore) -> None:
    """As after the index was lost."""
    suspicions = store.leases.suspicions
    put(store, mail(1, ANDERE), mail(2, ANDERE))
    first, second = (one.id for one in store.leases.waiting([State.HELD], 10))
    for _ in range(2):
        suspicions.clear("q1", [first])
    suspicions.register([SENDER])
    assert take(store) == [first]
    assert [one.id for one in suspicions.quarantined("q1")] == [second]
