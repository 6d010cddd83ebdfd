"""Hold windows and fences: nothing held is taken by restart, requeue or a late worker; release is a command (HD-25)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from tests.kim.mails import KASSE, LEASE, PRAXIS, START, Site, a_mail, account_of, check, offer, put
from tests.postgres import fresh_database

from schleuse.database import create_engine, open_database
from schleuse.holding.states import State
from schleuse.kim.store import (
    Began,
    Change,
    Claimed,
    Ended,
    Finished,
    MailStore,
    Outcome,
    Released,
    Take,
    Under,
    open_leases,
    rebuild_index,
)
from schleuse.kim.store.leases import MIGRATIONS
from schleuse.scopes import Direction, Service, atom
from schleuse.switch import fence
from schleuse.switch.fence import StaleEpochError

ZWEI = "zwei@kasse.kim.telematik"
PROCESS = atom(Service.EAU_INTAKE, "123456789", Direction.PROCESS)
OTHER = atom(Service.EAU_INTAKE, "987654321", Direction.PROCESS)
LATER = START + timedelta(hours=1)


def take(
    store: MailStore,
    limit: int = 10,
    owner: str = "w",
    at: timedelta = timedelta(0),
    permille: int | None = None,
    per_hour: int | None = None,
    backlog_permille: int = 300,
) -> list[Claimed]:
    wanted = Take(KASSE, None, permille, per_hour, backlog_permille)
    return store.leases.claim([wanted], limit, owner, START + at, LEASE).mails


def numbers(claimed: Sequence[Claimed]) -> list[int]:
    return [int(one.message_id.strip("<").split("@")[0]) for one in claimed]


def close(store: MailStore, epoch: int = 1, account: str = KASSE) -> None:
    store.leases.holds.begin(account, epoch, f"c{epoch}", "security_hold", START)


def test_what_is_held_is_not_taken_and_stays_so_after_the_hold(store: MailStore) -> None:
    put(store, a_mail(1))
    close(store)
    put(store, a_mail(2))
    assert take(store) == []
    to_id = store.leases.holds.end(KASSE, 2, LATER)
    put(store, replace(a_mail(3), accepted_at=LATER + timedelta(seconds=1)))
    assert numbers(take(store)) == [3]
    assert store.leases.holds.backlog(KASSE) == sorted(store.leases.holds.backlog(KASSE))
    assert len(store.leases.holds.backlog(KASSE)) == 2
    assert store.leases.holds.backlog(KASSE)[-1] == to_id
    assert check(store).holds


def test_restart_requeue_and_upgrade_release_nothing(site: Site) -> None:
    """HD-25, T-03."""
    with site.open() as store:
        put(store, a_mail(1), a_mail(2))
        take(store, 1, "dies")
        close(store)
        assert store.leases.reset("dies") == 1
    with site.open() as store:
        assert take(store, at=timedelta(days=30)) == []
        store.leases.holds.end(KASSE, 2, LATER)
    with site.open() as store:
        assert take(store, at=timedelta(days=30)) == []
        assert len(store.leases.holds.backlog(KASSE)) == 2


def test_what_a_worker_had_when_it_was_held_comes_back_as_backlog(store: MailStore) -> None:
    put(store, a_mail(1))
    (one,) = take(store, owner="sleeps")
    close(store)
    store.leases.holds.end(KASSE, 2, LATER)
    assert store.leases.put_back([one.id], "sleeps", START) == 1  # always allowed: it makes things more held
    assert take(store) == []


def test_backlog_is_released_up_to_a_delivery_and_taken_back(store: MailStore) -> None:
    """HD-40, HD-42."""
    put(store, *(a_mail(number) for number in range(1, 6)))
    close(store)
    store.leases.holds.end(KASSE, 2, LATER)
    ids = store.leases.holds.backlog(KASSE)
    assert store.leases.holds.release_to(KASSE, ids[2]) == 3
    assert store.leases.holds.release_to(KASSE, ids[0]) == 3, "a release never takes back"
    (first,) = take(store, 1)
    assert store.leases.holds.take_back(KASSE) == 2
    assert take(store) == []
    assert store.leases.finish([Outcome(first.id, State.DELIVERED)], "w", START) == Finished()
    assert store.leases.holds.backlog(KASSE) == ids[1:]
    assert store.leases.holds.release_to(KASSE, ids[-1]) == 4
    assert numbers(take(store)) == [2, 3, 4, 5]


def test_many_mailboxes_are_released_and_taken_back_together(store: MailStore) -> None:
    """RS-06: also what was taken before; a mailbox of which nothing was let go is left as it is."""
    holds = store.leases.holds
    for number, account in enumerate((KASSE, ZWEI, PRAXIS)):
        put(store, *(a_mail(number * 10 + one, account) for one in range(3)))
        holds.begin(account, 1, "c", "drill", START)
        holds.end(account, 2, LATER)
    first, second = holds.backlog(KASSE), holds.backlog(ZWEI)
    for _ in range(2):
        holds.release({KASSE: first[1], ZWEI: second[0], "nobody@kasse.kim.telematik": 1 << 40})
    assert (holds.backlog(KASSE), holds.backlog(ZWEI), len(holds.backlog(PRAXIS))) == (first[2:], second[1:], 3)
    (taken,) = take(store, 1)
    assert holds.take_back_all([PRAXIS, ZWEI, KASSE]) == 2
    assert holds.take_back_all([KASSE, ZWEI, PRAXIS]) == 0
    store.leases.put_back([taken.id], "w", START)
    assert take(store) == store.leases.claim([Take(ZWEI), Take(PRAXIS)], 10, "w", START, LEASE).mails == []
    assert holds.take_back_all([]) == 0


def test_what_was_taken_when_the_release_stopped_and_comes_back_stays(store: MailStore) -> None:
    """HD-42: untouched messages are HELD again."""
    put(store, a_mail(1), a_mail(2))
    close(store)
    store.leases.holds.end(KASSE, 2, LATER)
    store.leases.holds.release_to(KASSE, store.leases.holds.backlog(KASSE)[-1])
    (first,) = take(store, 1)
    store.leases.holds.take_back(KASSE)
    store.leases.put_back([first.id], "w", START)
    assert take(store) == []


def test_the_backlogs_of_two_holds_are_released_one_after_the_other(store: MailStore) -> None:
    for number in (1, 3):
        put(store, a_mail(number))
        close(store, number)
        store.leases.holds.end(KASSE, number + 1, START)
    first, second = store.leases.holds.backlog(KASSE)
    assert (store.leases.holds.backlog(KASSE, 1), store.leases.holds.backlog(KASSE, after=first)) == ([first], [second])
    assert store.leases.holds.release_to(KASSE, first) == 1
    assert store.leases.holds.backlog(KASSE) == [second]
    assert numbers(take(store)) == [1]
    assert store.leases.holds.release_to(KASSE, second) == 1
    assert numbers(take(store)) == [3]


def test_what_people_put_back_out_of_quarantine_while_it_is_held_is_not_taken(store: MailStore) -> None:
    """HD-25: a requeue is no release."""
    put(store, a_mail(1))
    (one,) = take(store)
    store.leases.finish([Outcome(one.id, State.QUARANTINED)], "w", START)
    close(store)
    assert store.reconsider([one.id], START) == 1
    assert take(store) == []


def test_a_released_window_that_is_empty_is_not_minded_again(store: MailStore) -> None:
    put(store, a_mail(1))
    close(store)
    store.leases.holds.end(KASSE, 2, LATER)
    store.leases.holds.release_to(KASSE, store.leases.holds.backlog(KASSE)[-1])
    (one,) = take(store)
    store.leases.finish([Outcome(one.id, State.DELIVERED)], "w", START)
    assert take(store) == []
    (window,) = store.leases.holds.windows()
    assert window.drained_at is not None


def test_live_mail_goes_before_backlog_and_leaves_it_a_share(store: MailStore) -> None:
    """HD-43."""
    put(store, *(a_mail(number) for number in range(1, 21)))
    close(store)
    store.leases.holds.end(KASSE, 2, START)
    store.leases.holds.release_to(KASSE, store.leases.holds.backlog(KASSE)[-1])
    put(store, *(replace(a_mail(number), accepted_at=LATER) for number in range(101, 121)))
    assert numbers(take(store, 10)) == [1, 2, 3, *range(101, 108)]
    assert numbers(take(store, 10, backlog_permille=500)) == [4, 5, 6, 7, 8, *range(108, 113)]
    assert len(numbers(take(store, 10))) == 10


def test_how_long_each_mail_was_held_is_told_with_it(store: MailStore) -> None:
    """HD-46: measured from its acceptance, which never changes (HD-23)."""
    close(store)
    put(store, a_mail(1))
    store.leases.holds.end(KASSE, 2, LATER)
    store.leases.holds.release_to(KASSE, store.leases.holds.backlog(KASSE)[-1])
    put(store, replace(a_mail(2), accepted_at=LATER + timedelta(minutes=1)))
    held, live = take(store, at=timedelta(hours=2))
    assert (held.held_for, held.accepted_at) == (timedelta(hours=2), START)
    assert live.held_for == timedelta(0)


def test_mail_that_was_accepted_during_the_hold_and_placed_after_it_is_backlog(store: MailStore) -> None:
    close(store)
    assert offer(store, a_mail(1), replace(a_mail(2), accepted_at=LATER + timedelta(seconds=1))) == [None, None]
    store.leases.holds.end(KASSE, 2, LATER)
    store.route()
    assert numbers(take(store)) == [2]
    assert len(store.leases.holds.backlog(KASSE)) == 1


def test_a_window_begins_once_and_ends_once(store: MailStore) -> None:
    close(store)
    close(store, 5)
    assert [window.epoch for window in store.leases.holds.windows([KASSE])] == [1]
    assert store.leases.holds.end(KASSE, 6, LATER) == 0
    assert store.leases.holds.end(KASSE, 6, LATER) is None
    close(store)  # a follower that comes late with an epoch that has passed
    assert not any(window.is_open for window in store.leases.holds.windows())


# --- following the switch ---

BEGAN = Began(1, "c1", "security_hold", START)


def follow(store: MailStore, head: int, *changes: Change, account: str = KASSE) -> None:
    def since(_account: str, after: int, is_open: bool) -> Sequence[Change]:
        return [change for change in changes if change.epoch > after]

    store.leases.holds.follow({PROCESS: head}, head, [account], since, LATER)


def test_following_raises_the_fence_and_begins_the_window_at_once(store: MailStore) -> None:
    follow(store, 1, BEGAN)
    assert store.leases.holds.head() == 1
    assert [window.is_open for window in store.leases.holds.windows()] == [True]


def test_each_change_is_followed_once_whoever_tells_it_again(store: MailStore) -> None:
    changes = (BEGAN, Ended(2, BEGAN, LATER))
    follow(store, 2, *changes)
    follow(store, 1, *changes)
    follow(store, 2, *changes)
    (window,) = store.leases.holds.windows()
    assert (window.epoch, window.ended_epoch) == (1, 2)


def test_a_hold_that_nobody_saw_leaves_its_backlog_all_the_same(store: MailStore) -> None:
    """SW-02: the role was down when it was closed and opened; what came in between waits for its release."""
    put(store, a_mail(1), replace(a_mail(2), accepted_at=LATER + timedelta(minutes=1)))
    follow(store, 2, Ended(2, BEGAN, START + timedelta(minutes=30)))
    assert numbers(take(store)) == [2]


def test_an_opening_with_backlog_releases_all_that_was_held_before(store: MailStore) -> None:
    put(store, a_mail(1))
    follow(store, 1, BEGAN)
    follow(store, 2, Ended(2, BEGAN, LATER))
    assert take(store) == []
    follow(store, 3, Released(3))
    assert numbers(take(store)) == [1]


def test_the_opening_after_a_drill_releases_only_what_the_drill_held(store: MailStore) -> None:
    """SW-15: the backlog of an incident goes on waiting for its own release."""
    put(store, a_mail(1))
    follow(store, 1, BEGAN)
    follow(store, 2, Ended(2, BEGAN, LATER))
    put(store, replace(a_mail(2), accepted_at=LATER + timedelta(seconds=30)))
    drill = Began(3, "drill", "drill", LATER)
    follow(store, 3, drill)
    follow(store, 4, Ended(4, drill, LATER + timedelta(minutes=1)), Released(4, own=True))
    assert numbers(take(store)) == [2]


@pytest.mark.parametrize("lost", [False, True])
def test_an_index_that_was_rebuilt_releases_nothing(embedded: Site, lost: bool) -> None:
    """HD-25: with the windows, or, where they are lost too, by telling the changes of the switch again."""
    changes = (BEGAN, Ended(2, BEGAN, LATER))
    with embedded.open() as store:
        put(store, a_mail(1))
        follow(store, 2, *changes)
    if lost:
        for file in embedded.settings.spool.parent.glob("kim.sqlite*"):
            file.unlink()
    rebuild_index(embedded.settings, account_of, now=embedded.clock)
    with embedded.open() as store:
        follow(store, 2, *changes)
        assert take(store) == []
        assert len(store.leases.holds.backlog(KASSE)) == 1


# --- fences (SW-06) ---


def raised(store: MailStore, epoch: int) -> None:
    store.leases.holds.follow({PROCESS: epoch}, epoch, [KASSE, ZWEI], lambda *_: (), START)


def under(epoch: int, account: str = KASSE) -> Take:
    return Take(account, Under(PROCESS if account == KASSE else OTHER, epoch))


def test_a_worker_of_an_older_epoch_takes_nothing_and_others_go_on(store: MailStore) -> None:
    """SW-06, T-24: of two insurers one was switched."""
    put(store, a_mail(1), a_mail(2, ZWEI))
    raised(store, 5)
    claims = store.leases.claim([under(4), under(4, ZWEI)], 10, "w", START, LEASE)
    assert claims.stale == {PROCESS}
    assert numbers(claims.mails) == [2]
    assert store.counts()[KASSE] == {State.HELD: 1}
    assert numbers(store.leases.claim([under(5)], 10, "w", START, LEASE).mails) == [1]


def test_nothing_is_taken_under_an_epoch_that_the_windows_do_not_follow_yet(store: MailStore) -> None:
    """HD-25: a worker that has seen closing and opening at once, before anybody made a window of them."""
    put(store, a_mail(1))
    raised(store, 1)
    assert store.leases.claim([under(3)], 10, "w", START, LEASE).mails == []
    follow(store, 3, Ended(3, Began(2, "c2", "drill", START), LATER))
    assert store.leases.claim([under(3)], 10, "w", START, LEASE).mails == []
    assert len(store.leases.holds.backlog(KASSE)) == 1


def test_a_worker_that_slept_through_a_closing_finishes_nothing_and_may_put_back(store: MailStore) -> None:
    """T-05, SW-10: fully undone."""
    put(store, a_mail(1), a_mail(2, ZWEI))
    raised(store, 4)
    mine, other = store.leases.claim([under(4), under(4, ZWEI)], 10, "w", START, LEASE).mails
    raised(store, 5)
    done = [Outcome(one.id, State.DELIVERED, under=one.under) for one in (mine, other)]
    assert store.leases.finish(done, "w", START) == Finished(stale=frozenset({mine.id}))
    assert store.counts() == {KASSE: {State.RELEASING: 1}, ZWEI: {State.DELIVERED: 1}}
    assert store.leases.put_back([mine.id], "w", START) == 1
    assert check(store).holds


def test_a_confirmation_of_an_older_epoch_is_refused(store: MailStore) -> None:
    put(store, a_mail(1))
    (one,) = take(store)
    store.leases.finish([Outcome(one.id, State.DELIVERED)], "w", START)
    raised(store, 5)
    with pytest.raises(StaleEpochError):
        store.leases.confirm([one.id], START, Under(PROCESS, 4))
    assert store.counts() == {KASSE: {State.DELIVERED: 1}}
    assert store.leases.confirm([one.id], START, Under(PROCESS, 5)) == 1


def test_the_epoch_of_its_last_effect_stands_beside_a_delivery(site: Site, store: MailStore) -> None:
    """Invariant 2 of incident.md appendix B."""
    put(store, a_mail(1))
    raised(store, 7)
    (one,) = store.leases.claim([under(7)], 10, "w", START, LEASE).mails
    store.leases.finish([Outcome(one.id, State.DELIVERED, under=one.under)], "w", START)
    engine = create_engine(site.settings.url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT epoch FROM kim_delivery")).scalar_one() == 7
        assert fence.stale(connection, {PROCESS: 7}) == frozenset()
    engine.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize("known", [False, True])
def test_a_fence_does_not_go_up_under_an_effect_that_was_allowed_and_has_not_committed(known: bool) -> None:
    """SW-06: after it is up no older effect commits. SQLite has one writer, PostgreSQL needs a lock for it."""
    with fresh_database() as url:
        engine = open_database(url, MIGRATIONS)
        if known:
            with engine.begin() as connection:
                fence.raise_to(connection, {PROCESS: 3}, 3)
        with engine.begin() as effect:
            assert fence.stale(effect, {PROCESS: 3}) == frozenset()
            with engine.connect() as switch:
                switch.execute(sa.text("SET lock_timeout = '50ms'"))
                with pytest.raises(OperationalError):
                    fence.raise_to(switch, {PROCESS: 4}, 4)
        with engine.begin() as switch:
            fence.raise_to(switch, {PROCESS: 4}, 4)
            assert fence.stale(switch, {PROCESS: 3}) == {PROCESS}
        engine.dispose()


def test_workers_release_and_closing_do_not_stand_in_each_others_way(site: Site, store: MailStore) -> None:
    """Every order of locks is the same everywhere; at the end each mail is done once."""
    put(store, *(a_mail(number) for number in range(120)))
    done = threading.Event()

    def work(owner: str) -> list[int]:
        ids: list[int] = []
        with open_leases(site.settings.url, site.settings.spool) as leases:
            while not done.is_set():
                found = leases.claim([Take(KASSE, per_hour=10_000)], 5, owner, START, LEASE).mails
                lost = leases.finish([Outcome(one.id, State.DELIVERED) for one in found], owner, START).lost
                ids += [one.id for one in found if one.id not in lost]
        return ids

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(work, owner) for owner in "abc"]
        for epoch in range(1, 30, 2):
            follow(store, epoch, Began(epoch, "c", "drill", START))
            follow(store, epoch + 1, Ended(epoch + 1, Began(epoch, "c", "drill", START), LATER))
            for id in store.leases.holds.backlog(KASSE, 8):
                store.leases.holds.release_to(KASSE, id)
            store.leases.holds.take_back(KASSE)
        follow(store, 31, Released(31))
        while store.counts()[KASSE].get(State.DELIVERED) != 120:
            pass
        done.set()
        taken = [id for worker in workers for id in worker.result()]
    assert len(taken) == len(set(taken)) == 120
    assert check(store).holds


# --- limited scopes ---


def test_a_limited_scope_gives_its_share_and_more_with_a_greater_one(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(1, 101)))
    few = {one.id for one in take(store, 100, permille=100)}
    assert 0 < len(few) < 40
    store.leases.reset("w")
    more = {one.id for one in take(store, 100, permille=500)}
    assert few < more
    store.leases.reset("w")
    assert take(store, 100, permille=0) == []
    assert len(take(store, 100, permille=1000)) == 100


def test_all_workers_together_take_no_more_than_the_rate_of_an_hour(site: Site, store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(1, 11)))
    with open_leases(site.settings.url, site.settings.spool) as second:
        assert len(take(store, 3, per_hour=5)) == 3
        assert len(second.claim([Take(KASSE, per_hour=5)], 10, "v", START, LEASE).mails) == 2
        assert take(store, 10, per_hour=5) == []
        assert len(take(store, 10, at=timedelta(hours=1), per_hour=5)) == 5
    assert check(store).holds


def test_retention_does_not_touch_a_mailbox_that_is_held(site: Site) -> None:
    """SW-12: nothing is destroyed in scope while it is held, not even what was finished long ago."""
    with site.open() as store:
        put(store, a_mail(1), a_mail(2, ZWEI))
    with site.open() as store:
        put(store, a_mail(99, PRAXIS))  # into another segment, so that the first is complete
        done = store.leases.claim([Take(KASSE), Take(ZWEI)], 10, "w", START, LEASE).mails
        store.leases.finish([Outcome(one.id, State.DELIVERED) for one in done], "w", START)
        close(store)
        assert store.purge(START + timedelta(days=1000)) == 1
        store.leases.holds.end(KASSE, 2, LATER)
        assert store.purge(START + timedelta(days=1000)) == 1
        assert check(store).holds


def test_while_retention_is_frozen_nothing_at_all_is_erased(site: Site, tmp_path: Path) -> None:
    """SW-12."""
    frozen = tmp_path / "retention.frozen"
    with site.open() as store:
        put(store, a_mail(1))
    with site.open(frozen=frozen) as store:
        put(store, a_mail(99, PRAXIS))
        (done,) = store.leases.claim([Take(KASSE)], 10, "w", START, LEASE).mails
        store.leases.finish([Outcome(done.id, State.DELIVERED)], "w", START)
        frozen.touch()
        assert store.purge(START + timedelta(days=1000)) == 0
        frozen.unlink()
        assert store.purge(START + timedelta(days=1000)) == 1
