"""Leases: each delivery in one worker's hands, in acceptance order, until it is finished or the lease runs out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.kim.mails import KASSE, LEASE, LOCAL, PRAXIS, START, Site, a_mail, check, put
from tests.mail.faulty_disk import Fault, FaultyDisk, Once

from schleuse.errors import UnavailableError
from schleuse.holding.states import IllegalMoveError, State
from schleuse.kim.store import Finished, MailStore, Outcome, Take, open_leases
from schleuse.kim.store.delivery import position_of

BOTH = [KASSE, "zwei@kasse.kim.telematik"]


def claimed(store: MailStore, limit: int = 10, owner: str = "w", seconds: int = 0) -> list[int]:
    now = START + timedelta(seconds=seconds)
    return [one.id for one in store.leases.claim([Take(one) for one in BOTH], limit, owner, now, LEASE).mails]


def test_a_claim_brings_the_oldest_mails_of_several_accounts_in_acceptance_order(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2, BOTH[1]), a_mail(3), a_mail(4, PRAXIS), a_mail(5, BOTH[1]))
    found = store.leases.claim([Take(one) for one in BOTH], 3, "w", START, LEASE).mails
    assert [one.message_id for one in found] == [f"<{n}@praxis.example>" for n in (1, 2, 3)]
    assert [one.account for one in found] == [KASSE, BOTH[1], KASSE]
    assert [one.mail for one in found] == [a_mail(1), a_mail(2, BOTH[1]), a_mail(3)]
    assert [one.position for one in found] == [position_of(one.id) for one in found]
    assert found[0].accepted_at == START


def test_what_one_worker_has_another_does_not_get(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(5)))
    first = claimed(store, 3, "one")
    second = claimed(store, 3, "two")
    assert len(first) == 3
    assert len(second) == 2
    assert not set(first) & set(second)


def test_what_is_finished_does_not_come_again(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(4)))
    states = [State.DELIVERED, State.DUPLICATE_LINKED, State.QUARANTINED, State.RETURNED]
    ids = claimed(store)
    outcomes = [Outcome(id, state) for id, state in zip(ids, states, strict=True)]
    assert store.leases.finish(outcomes, "w", START) == Finished()
    assert store.counts() == {KASSE: dict.fromkeys(states, 1)}
    assert claimed(store) == []
    assert check(store).holds


def test_an_outcome_that_no_mail_may_have_is_refused(store: MailStore) -> None:
    put(store, a_mail(1))
    with pytest.raises(IllegalMoveError):
        store.leases.finish([Outcome(claimed(store)[0], State.CONFIRMED)], "w", START)


def test_a_lease_that_ran_out_goes_to_the_next_and_its_former_owner_cannot_finish(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    ids = claimed(store, owner="slow")
    assert claimed(store, owner="other", seconds=299) == []
    assert claimed(store, owner="other", seconds=300) == ids
    unfinished = store.leases.finish([Outcome(id, State.DELIVERED) for id in ids], "slow", START)
    assert unfinished == Finished(lost=frozenset(ids))
    assert store.counts() == {KASSE: {State.RELEASING: 2}}
    assert store.leases.finish([Outcome(id, State.DELIVERED) for id in ids], "other", START) == Finished()


def test_only_those_that_are_still_ours_are_finished(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    first, second = claimed(store)
    store.leases.put_back([second], "w", START)
    unfinished = store.leases.finish([Outcome(first, State.DELIVERED), Outcome(second, State.DELIVERED)], "w", START)
    assert unfinished == Finished(lost=frozenset({second}))
    assert store.counts() == {KASSE: {State.DELIVERED: 1, State.HELD: 1}}


def test_what_is_put_back_comes_again_at_its_time(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    first, second = claimed(store)
    assert store.leases.put_back([first], "w", START + timedelta(seconds=60)) == 1
    assert store.leases.put_back([second], "somebody else", START) == 0
    assert claimed(store, seconds=59) == []
    assert claimed(store, seconds=60) == [first]


def test_a_worker_that_starts_again_gives_back_what_it_had(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    claimed(store, 1, "one")
    claimed(store, 1, "two")
    assert store.leases.reset("one") == 1
    assert store.counts() == {KASSE: {State.HELD: 1, State.RELEASING: 1}}


def test_the_oldest_claimed_is_the_watermark(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(3)))
    first, second, third = claimed(store)
    assert store.leases.oldest_claimed(BOTH) == first
    store.leases.finish([Outcome(first, State.DELIVERED), Outcome(third, State.DELIVERED)], "w", START)
    assert store.leases.oldest_claimed(BOTH) == second
    assert store.leases.oldest_claimed([PRAXIS]) is None


def test_only_what_was_delivered_is_confirmed(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    first, second = claimed(store)
    store.leases.finish([Outcome(first, State.DELIVERED), Outcome(second, State.QUARANTINED)], "w", START)
    assert store.leases.confirm([first, second], START) == 1
    assert store.leases.confirm([first, *range(40_000)], START) == 0  # an insurer may acknowledge a whole backlog
    assert store.counts() == {KASSE: {State.CONFIRMED: 1, State.QUARANTINED: 1}}


def test_what_waits_or_is_with_a_worker_is_unfinished(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    first, second = claimed(store)
    assert store.leases.unfinished([first, second, *range(40_000)]) == 2
    store.leases.finish([Outcome(first, State.DELIVERED)], "w", START)
    assert store.leases.unfinished([first, second]) == 1
    store.leases.reset("w")
    assert store.leases.unfinished([first, second]) == 1
    assert store.leases.unfinished([]) == 0


def test_people_may_put_a_quarantined_mail_back(store: MailStore) -> None:
    put(store, a_mail(1))
    (id,) = claimed(store)
    store.leases.finish([Outcome(id, State.QUARANTINED, "suspicious")], "w", START)
    assert store.reconsider([id, id + 1], START) == 1
    assert claimed(store) == [id]


def test_another_process_works_on_the_same_store(site: Site, store: MailStore) -> None:
    put(store, a_mail(1))
    with open_leases(site.settings.url, site.settings.spool) as leases:
        (one,) = leases.claim([Take(KASSE)], 10, "eau", START, LEASE).mails
        assert one.mail == a_mail(1)
        leases.finish([Outcome(one.id, State.DELIVERED)], "eau", START)
    assert store.counts() == {KASSE: {State.DELIVERED: 1}}


def test_workers_that_claim_at_once_share_the_mails(site: Site, store: MailStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    put(store, *(a_mail(number) for number in range(200)))

    def work(owner: str) -> list[int]:
        ids: list[int] = []
        with open_leases(site.settings.url, site.settings.spool) as leases:
            while found := leases.claim([Take(KASSE)], 7, owner, START, LEASE).mails:
                ids += [one.id for one in found]
        return ids

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(work, "abcd"))
    ids = [id for share in shares for id in share]
    assert len(ids) == len(set(ids)) == 200
    assert all(share == sorted(share) for share in shares)


def test_many_accounts_are_claimed_from_at_once(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2, BOTH[1]))
    accounts = [f"k{number}@kasse.kim.telematik" for number in range(900)] + sorted(LOCAL)
    assert len(store.leases.claim([Take(one) for one in accounts], 10, "w", START, LEASE).mails) == 2


def test_a_disk_that_does_not_answer_puts_the_claim_back(embedded: Site) -> None:
    disk = FaultyDisk()
    with embedded.open(disk) as store:
        put(store, a_mail(1))
        disk.choose = Once("read", Fault())
        with pytest.raises(UnavailableError):
            claimed(store)
        assert store.counts() == {KASSE: {State.HELD: 1}}


def test_a_finish_that_cannot_be_marked_changes_nothing(embedded: Site) -> None:
    disk = FaultyDisk()
    with embedded.open(disk) as store:
        put(store, a_mail(1))
        (id,) = claimed(store)
        disk.choose = Once("sync", Fault())
        with pytest.raises(UnavailableError):
            store.leases.finish([Outcome(id, State.DELIVERED)], "w", START)
        assert store.counts() == {KASSE: {State.RELEASING: 1}}
        assert store.leases.finish([Outcome(id, State.DELIVERED)], "w", START) == Finished()
