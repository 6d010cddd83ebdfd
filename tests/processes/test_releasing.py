"""A release, step by step, against the real mail store: what is approved, what goes, what stops it (HD-40 to HD-45)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.kim.mails import KASSE, LEASE, START, Clock, Site, a_mail, put
from tests.kim.test_store_audit import spoil
from tests.switch_double import FakeSwitch

from schleuse.database import sqlite_url
from schleuse.errors import UnavailableError
from schleuse.holding.release import BadReleasePlanError, ReleasePlan
from schleuse.holding.states import State
from schleuse.journal.opening import Json
from schleuse.kim.store import MailStore, Outcome, Settings, Take
from schleuse.kim.store.holds import ALL
from schleuse.processes.release_book import (
    NoSuchReleaseError,
    Progress,
    ReleaseBook,
    ReleaseDamagedError,
    ReleaseNotKeptError,
    StopOrder,
)
from schleuse.processes.releasing import (
    PURPOSE,
    MailboxBusyError,
    NotApprovedError,
    PeopleNeededError,
    Releases,
    StillHeldError,
    VoidApprovalError,
)
from schleuse.scopes import ScopeState
from schleuse.switch.approval import approve
from schleuse.switch.documents import Person, Rights, Role

ZWEI = "zwei@kasse.kim.telematik"
IK, IK_ZWEI = "109900011", "109900022"
ENDED = START + timedelta(hours=1)
NOW = START + timedelta(hours=2)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("anna", "bert", "gone")}
ANNA = Person("anna", "anna", frozenset({Role.SWITCH_OFFICER, Role.SERVICE_OWNER}), KEYS["anna"].public_key())
BERT = Person("bert", "bert", frozenset({Role.SERVICE_OWNER}), KEYS["bert"].public_key())
#: Anna's key under another name, and somebody who has left.
ALIAS = replace(BERT, name="alias", person="carla", key=ANNA.key)
GONE = Person("gone", "gone", frozenset({Role.TENANT_DELEGATE}), KEYS["gone"].public_key(), until=NOW)
TWO = (("anna", Role.SWITCH_OFFICER), ("bert", Role.SERVICE_OWNER))


class DeathError(Exception):
    """The process died here."""


@dataclass
class Deaths:
    """Kills at the n-th durable act from now, before it or after it."""

    left: int = -1
    after: bool = False

    def strikes(self) -> bool:
        self.left -= 1
        return self.left == -1


class DyingBook(ReleaseBook):
    """The real one, which may die before a file is written, or after it."""

    def __init__(self, folder: Path, deaths: Deaths) -> None:
        super().__init__(folder)
        self._deaths = deaths

    def _write(self, id: str, name: str, data: bytes) -> None:
        strikes = self._deaths.strikes()
        if strikes and not self._deaths.after:
            raise DeathError
        super()._write(id, name, data)
        if strikes:
            raise DeathError


@dataclass
class Home:
    """A mail store with a backlog, a switch, and a folder of releases; each `releases` is a process that begins."""

    site: Site
    store: MailStore
    folder: Path
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    switch: FakeSwitch = field(default_factory=FakeSwitch)
    deaths: Deaths = field(default_factory=Deaths)
    told: list[Mapping[str, Json]] = field(default_factory=list)
    journal_is_full: bool = False

    @property
    def releases(self) -> Releases:
        rights = Rights([ANNA, BERT, ALIAS, GONE])
        book = DyingBook(self.folder, self.deaths)
        return Releases(book, self.store.leases, self.switch, rights, self.tell, self.clock, [KASSE, ZWEI])

    def tell(self, facts: Mapping[str, Json], granted: bool) -> None:
        if self.journal_is_full:
            raise UnavailableError("full")
        self.told.append(facts)

    def hold(self, count: int, account: str = KASSE, start: int = 1) -> None:
        """So many are backlog of the mailbox."""
        put(self.store, *(a_mail(number, account) for number in range(start, start + count)))
        holds = self.store.leases.holds
        epoch = 1 + max((one.ended_epoch or 0 for one in holds.windows([account])), default=0)
        holds.begin(account, epoch, "c", "security_hold", START)
        holds.end(account, epoch + 1, ENDED)

    def plan(self, first: int = 2, id: str = "r1", *accounts: str) -> ReleasePlan:
        iks = {KASSE: IK, ZWEI: IK_ZWEI}
        made = self.releases.plan(id, {one: iks[one] for one in accounts or (KASSE,)}, first=first)
        self.releases.keep(made)
        return made

    def approve(self, plan: ReleasePlan, *who: tuple[str, Role]) -> None:
        for name, role in who or TWO:
            self.releases.approve(plan, approve(PURPOSE, plan.hash, name, role, KEYS[name], self.clock()))

    def work(self, state: State = State.DELIVERED, limit: int = 100, account: str = KASSE) -> list[int]:
        """A worker takes what it may, and it ends so."""
        taken = [one.id for one in self.store.leases.claim([Take(account)], limit, "w", self.clock(), LEASE).mails]
        self.store.leases.finish([Outcome(one, state) for one in taken], "w", self.clock())
        return taken

    def backlog(self, account: str = KASSE) -> list[int]:
        return self.store.leases.holds.backlog(account)

    def carry_out(self, id: str = "r1") -> list[int]:
        """Steps and work in turn, to the end. Returns what was taken, in order."""
        taken: list[int] = []
        while not ((at := self.releases.step(id)).finished or at.stopped):
            taken += self.work() + self.work(account=ZWEI)
        return taken


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    settings = Settings(sqlite_url(tmp_path / "kim.sqlite"), tmp_path / "spool", "kim.example", reserve_bytes=0)
    site = Site(settings)
    with site.open() as store:
        yield Home(site, store, tmp_path / "releases")


def acts(home: Home) -> list[Json]:
    return [one["act"] for one in home.told]


# --- plan and approvals ---


def test_the_plan_has_all_that_waits_and_the_mailbox_that_has_waited_longest_first(home: Home) -> None:
    """HD-40, HD-44."""
    home.hold(1, ZWEI)
    home.hold(3, KASSE, start=10)
    plan = home.plan(2, "r1", KASSE, ZWEI)
    assert [(one.account, one.count) for one in plan.mailboxes] == [(ZWEI, 1), (KASSE, 3)]
    assert home.releases.book.read("r1") == plan


def test_nothing_held_makes_no_plan(home: Home) -> None:
    with pytest.raises(BadReleasePlanError, match="nothing is held"):
        home.plan()


def test_the_dry_run_sees_seals_formats_and_what_was_sent_again(home: Home) -> None:
    """HD-41, HD-45: and it opens nothing."""
    put(home.store, a_mail(1), a_mail(2), a_mail(2))
    home.hold(1, start=3)
    plan = home.plan()
    spoil(home.site, home.store, home.backlog()[0], 600)
    looked = home.releases.look(plan)
    assert (looked.count, looked.batches, looked.duplicates) == (3, (2, 1), 1)
    assert looked.damaged == (home.backlog()[0],)
    assert (looked.unknown_formats, looked.by_label) == (3, {"-": 3})


def test_nothing_goes_without_two_persons_in_both_roles(home: Home) -> None:
    """RO-01: Anna has both roles, and is one person."""
    home.hold(3)
    plan = home.plan()
    for given in ([], [TWO[0]], [("anna", Role.SERVICE_OWNER), TWO[0]]):
        for name, role in given:
            home.approve(plan, (name, role))
        with pytest.raises(NotApprovedError):
            home.releases.step("r1")
    assert home.work() == []
    home.approve(plan, TWO[1])
    assert home.releases.step("r1").released == 2


def test_an_approval_that_would_count_for_nothing_is_refused_at_once(home: Home) -> None:
    """RO-04, RO-05: another plan, a role he has not, another key, one who has left, no end."""
    home.hold(3)
    plan = home.plan()
    other = replace(plan, first=1)
    for void in (
        approve(PURPOSE, other.hash, "anna", Role.SWITCH_OFFICER, KEYS["anna"], NOW),
        approve("restart-plan", plan.hash, "anna", Role.SWITCH_OFFICER, KEYS["anna"], NOW),
        approve(PURPOSE, plan.hash, "bert", Role.SWITCH_OFFICER, KEYS["bert"], NOW),
        approve(PURPOSE, plan.hash, "bert", Role.SERVICE_OWNER, KEYS["anna"], NOW),
        approve(PURPOSE, plan.hash, "gone", Role.TENANT_DELEGATE, KEYS["gone"], NOW),
        approve(PURPOSE, plan.hash, "nobody", Role.SERVICE_OWNER, KEYS["gone"], NOW),
        approve(PURPOSE, plan.hash, "gone", Role.TENANT_DELEGATE, KEYS["gone"], NOW - timedelta(hours=1)),
        approve(PURPOSE, plan.hash, "anna", Role.SWITCH_OFFICER, KEYS["anna"], NOW - timedelta(hours=4)),
        approve(PURPOSE, plan.hash, "anna", Role.SWITCH_OFFICER, KEYS["anna"], NOW, timedelta(days=1)),
    ):
        with pytest.raises(VoidApprovalError):
            home.releases.approve(plan, void)
    assert home.releases.book.approvals("r1") == []


def test_an_approval_that_was_laid_beside_the_plan_by_hand_is_judged_as_any(home: Home) -> None:
    """T-12: one key under two names is one person."""
    home.hold(3)
    plan = home.plan()
    home.approve(plan, TWO[0])
    home.releases.book.keep_approval("r1", approve(PURPOSE, plan.hash, "alias", Role.SERVICE_OWNER, KEYS["anna"], NOW))
    (home.folder / "r1" / "approval-x.json").write_text("{}")
    assert not home.releases.is_approved(plan)
    home.releases.book.keep_approval(
        "r1", approve(PURPOSE, plan.hash, "bert", Role.SERVICE_OWNER, KEYS["bert"], NOW, timedelta(days=1))
    )
    assert not home.releases.is_approved(plan)


def test_a_plan_that_was_changed_after_its_approval_is_not_approved(home: Home) -> None:
    """RO-04."""
    home.hold(3)
    plan = home.plan()
    home.approve(plan)
    home.releases.book.keep(replace(plan, first=3))
    with pytest.raises(NotApprovedError):
        home.releases.step("r1")


def test_approvals_expire_before_the_first_batch_and_not_after_it(home: Home) -> None:
    home.hold(4)
    home.approve(home.plan())
    home.clock.now += timedelta(hours=4)
    with pytest.raises(NotApprovedError):
        home.releases.step("r1")
    home.approve(home.releases.book.read("r1"))
    home.releases.step("r1")
    home.work()
    home.clock.now += timedelta(hours=5)
    assert home.releases.step("r1").released == 4


# --- batches ---


def test_the_next_batch_goes_when_the_last_is_done_and_is_five_times_larger(home: Home) -> None:
    """HD-42."""
    home.hold(20)
    home.approve(home.plan(2))
    waiting, sizes = home.backlog(), []
    while not (at := home.releases.step("r1")).finished:
        assert home.releases.step("r1").released == at.released, "not before the last is done"
        sizes.append(len(home.work()))
    assert [size for size in sizes if size] == [2, 10, 8]
    assert (at.released, home.backlog()) == (20, [])
    assert len(waiting) == 20


def test_live_traffic_and_what_is_held_later_are_no_part_of_it(home: Home) -> None:
    """HD-43, HD-25."""
    home.hold(3)
    home.approve(home.plan())
    put(home.store, replace(a_mail(50), accepted_at=NOW))
    assert len(home.work()) == 1
    home.hold(2, start=60)
    later = home.backlog()[3:]
    assert len(home.carry_out()) == 3
    assert home.backlog() == later


def test_a_held_insurer_stays_held(home: Home) -> None:
    """HD-25: an approved plan is no key to a closed door."""
    home.hold(3)
    home.approve(home.plan())
    home.switch.set(f"eau_intake/{IK}", ScopeState.HOLD)
    with pytest.raises(StillHeldError):
        home.releases.step("r1")
    assert (home.work(), home.releases.book.progress("r1")) == ([], Progress())
    home.switch.set(f"eau_intake/{IK}", ScopeState.OPEN)
    assert len(home.carry_out()) == 3


def both(home: Home, first: int = 2, count: int = 20) -> None:
    """A backlog in two mailboxes, and an approved plan for both."""
    home.hold(count)
    home.hold(count, ZWEI, start=1000)
    home.approve(home.plan(first, "r1", KASSE, ZWEI))


def test_mailboxes_go_on_by_themselves_and_together_keep_to_the_rate_of_one(home: Home) -> None:
    """HD-42: first small and of one insurer, then what is out in all of them is at most five times as much."""
    both(home)
    home.releases.step("r1")
    assert (len(home.work()), home.work(account=ZWEI)) == (2, [])
    home.releases.step("r1")  # ten may be out: who has had least goes first, and ten more do not fit beside it
    assert (home.work(), len(home.work(account=ZWEI))) == ([], 2)
    home.releases.step("r1")
    assert (len(home.work()), len(home.work(account=ZWEI))) == (10, 10)
    home.releases.step("r1")
    assert (len(home.work()), len(home.work(account=ZWEI))) == (8, 8)


def test_a_mailbox_whose_mail_is_slow_keeps_no_other_waiting(home: Home) -> None:
    both(home, first=5, count=30)
    home.releases.step("r1")
    home.work(limit=4)  # one of the first batch stays out for ever
    taken: list[int] = []
    for _ in range(6):
        home.releases.step("r1")
        taken += home.work(account=ZWEI)
    assert (len(taken), len(home.backlog(ZWEI))) == (0, 30)  # the first batch passes before any other goes
    home.work()
    for _ in range(6):
        home.releases.step("r1")
        taken += home.work(account=ZWEI)
    assert len(taken) == 30
    assert home.work() != []


def test_a_mailbox_whose_next_mail_is_put_back_from_before_the_hold_keeps_no_other_waiting(home: Home) -> None:
    put(home.store, a_mail(1))
    taken = [one.id for one in home.store.leases.claim([Take(KASSE)], 1, "w", NOW, LEASE).mails]
    home.store.leases.put_back(taken, "w", NOW + timedelta(hours=1))
    home.hold(3, start=2)
    home.hold(20, ZWEI, start=1000)
    home.approve(home.plan(2, "r1", KASSE, ZWEI))
    for _ in range(3):
        home.releases.step("r1")
        home.work(account=ZWEI)
    assert (len(home.backlog(ZWEI)), len(home.backlog())) == (0, 4)
    home.clock.now += timedelta(hours=1)
    assert home.carry_out()[0] == taken[0]
    assert home.releases.book.progress("r1").finished


def test_an_insurer_that_is_held_again_keeps_no_other_waiting(home: Home) -> None:
    """HD-25, SW-03: its own rest waits for its opening and for people who have looked."""
    both(home)
    home.releases.step("r1")
    home.work()
    home.switch.set(f"eau_intake/{IK}", ScopeState.HOLD)
    while len(home.backlog(ZWEI)):
        home.releases.step("r1", alone=True)
        assert home.work() == []
        home.work(account=ZWEI)
    home.releases.step("r1", alone=True)  # the end of the other
    with pytest.raises(StillHeldError, match=IK):
        home.releases.step("r1", alone=True)
    home.switch.set(f"eau_intake/{IK}", ScopeState.OPEN)
    with pytest.raises(PeopleNeededError, match=IK):
        home.releases.step("r1", alone=True)
    assert len(home.backlog()) == 18
    home.carry_out()
    assert home.releases.book.progress("r1").finished


def test_before_a_first_batch_has_passed_no_other_insurer_begins_however_small_it_is(home: Home) -> None:
    """HD-42: ten mails of one insurer, and not two each of five."""
    home.hold(2)
    home.hold(20, ZWEI, start=1000)
    home.approve(home.plan(10, "r1", KASSE, ZWEI))
    home.releases.step("r1")
    assert home.work(account=ZWEI) == []
    home.work(limit=1)
    home.releases.step("r1")
    assert home.work(account=ZWEI) == []
    home.work(limit=1)
    home.releases.step("r1")
    assert len(home.work(account=ZWEI)) == 10


def test_first_batches_of_insurers_that_are_held_in_turn_do_not_add_up(home: Home) -> None:
    """HD-42: whatever is opened again, there is one first batch out until one has passed; also after a crash."""
    both(home)
    home.releases.step("r1")
    home.switch.set(f"eau_intake/{IK}", ScopeState.HOLD)
    home.releases.step("r1")  # the other begins, and what the first had out is held again
    home.switch.set(f"eau_intake/{IK_ZWEI}", ScopeState.HOLD)
    for _ in range(2):
        with pytest.raises(StillHeldError):
            home.releases.step("r1")
    home.switch.set("eau_intake/*", ScopeState.OPEN)
    assert (home.work(), home.work(account=ZWEI)) == ([], []), "nothing waits for its opening to go at once"
    home.releases.step("r1")
    gone = [(home.work(), home.work(account=ZWEI))]
    assert [sorted(map(len, one)) for one in gone] == [[0, 2]]
    home.releases.step("r1")
    home.work()
    assert len(home.backlog()) + len(home.backlog(ZWEI)) < 38
    home.carry_out()
    assert home.releases.book.progress("r1").finished
    assert home.backlog() == home.backlog(ZWEI) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(3))
def test_a_death_while_a_batch_is_held_again_loses_nothing(home: Home, moment: int, after: bool) -> None:
    both(home)
    home.releases.step("r1")
    waiting = home.backlog() + home.backlog(ZWEI)
    home.switch.set(f"eau_intake/{IK}", ScopeState.HOLD)
    home.deaths.left, home.deaths.after = moment, after
    for _ in range(3):
        with suppress(DeathError):
            home.releases.step("r1")
    home.deaths.left = -1
    assert home.work() == []
    home.switch.set(f"eau_intake/{IK}", ScopeState.OPEN)
    first = [one for one in home.backlog() if one not in waiting]
    assert sorted(home.carry_out()) == sorted([*waiting, *first])


def test_what_two_persons_open_with_its_backlog_is_not_held_again_by_a_release(home: Home) -> None:
    """They have decided about all of it; the release waits for people, and takes nothing back."""
    both(home)
    home.releases.step("r1")
    home.switch.set(f"eau_intake/{IK}", ScopeState.HOLD)
    home.releases.step("r1", alone=True)
    home.switch.set(f"eau_intake/{IK}", ScopeState.OPEN)
    home.store.leases.holds.release_to(KASSE, ALL)
    home.releases.step("r1", alone=True)
    assert len(home.work()) == 20


def test_errors_of_all_mailboxes_count_together(home: Home) -> None:
    """T-23, HD-42: one of each batch of ten is allowed, one of each of many batches is not."""
    both(home, first=10)
    home.releases.step("r1")
    home.work(State.QUARANTINED, 1)
    home.work()
    home.releases.step("r1")
    home.work(State.QUARANTINED, 1, account=ZWEI)
    assert home.releases.step("r1").stopped == "2 of the 30 that were let go so far failed; at most 1 may"
    assert (home.work(), home.work(account=ZWEI)) == ([], [])


def test_two_releases_of_one_mailbox_do_not_run_at_once(home: Home) -> None:
    """What one of them stops, the other would let go."""
    home.hold(5)
    for id in ("r1", "r2"):
        home.approve(home.plan(2, id))
    home.releases.step("r1")
    with pytest.raises(MailboxBusyError, match="r1"):
        home.releases.step("r2")
    home.releases.stop("r1", "enough", "anna")
    assert home.releases.step("r2").released == 2


def test_no_timer_goes_on_with_what_was_held_and_opened_again(home: Home) -> None:
    """SW-03, HD-25: a person who has looked runs it once more, and then it may go on without him."""
    home.hold(7)
    home.approve(home.plan(2))
    home.releases.step("r1")
    home.work()
    home.switch.set(f"eau_intake/{IK}", ScopeState.HOLD)
    home.switch.set(f"eau_intake/{IK}", ScopeState.OPEN)
    with pytest.raises(PeopleNeededError):
        home.releases.step("r1", alone=True)
    assert home.work() == []
    assert home.releases.step("r1").released == 7
    home.switch.set(f"eau_intake/{IK_ZWEI}", ScopeState.HOLD)
    assert home.releases.step("r1", alone=True).released == 7
    home.switch.set(f"eau_intake/{IK}", ScopeState.OPEN)
    home.releases.step("r1")  # nothing new goes, but somebody saw it
    home.work()
    home.releases.step("r1", alone=True)
    assert home.releases.step("r1", alone=True).finished


# --- stops ---


def test_more_than_one_percent_of_errors_stops_it_and_the_untouched_are_held(home: Home) -> None:
    """T-23, HD-42."""
    home.hold(20)
    home.approve(home.plan(10))
    home.releases.step("r1")
    failed = home.work(State.QUARANTINED, 2)
    at = home.releases.step("r1")
    assert at.stopped == f"{KASSE}: 2 of the last 10 failed; at most 1 may"
    assert home.work() == []
    assert len(home.backlog()) == 20 - len(failed)
    assert home.told[-1] == {
        "act": "release.stopped", "plan": "r1", "by": "rule", "reason": at.stopped, "returned": 8,
    }  # fmt: skip


def test_trouble_of_ours_that_puts_mails_back_counts_as_errors(home: Home) -> None:
    home.hold(12)
    home.approve(home.plan(10))
    home.releases.step("r1")
    taken = [one.id for one in home.store.leases.claim([Take(KASSE)], 2, "w", NOW, LEASE).mails]
    home.store.leases.put_back(taken, "w", NOW + timedelta(minutes=5))
    assert home.releases.step("r1").stopped
    assert len(home.backlog()) == 12


def test_what_had_failed_before_the_batch_went_does_not_count(home: Home) -> None:
    """The ids of a batch may lie on both sides of others that were decided before the hold."""
    put(home.store, *(a_mail(number) for number in range(1, 5)))
    first = [one.id for one in home.store.leases.claim([Take(KASSE)], 1, "slow", NOW, LEASE).mails]
    home.work(State.QUARANTINED)
    home.store.leases.put_back(first, "slow", START)
    home.hold(3, start=10)
    home.approve(home.plan(4))
    assert len(home.carry_out()) == 4
    assert home.releases.book.progress("r1").finished


def test_what_waits_for_a_time_since_before_the_hold_is_waited_for(home: Home) -> None:
    put(home.store, *(a_mail(number) for number in range(1, 4)))
    taken = [one.id for one in home.store.leases.claim([Take(KASSE)], 3, "w", NOW, LEASE).mails]
    home.store.leases.put_back(taken, "w", NOW + timedelta(minutes=1))
    home.hold(1, start=10)
    home.approve(home.plan(4))
    assert home.releases.step("r1").released == 0
    home.clock.now += timedelta(minutes=1)
    assert len(home.carry_out()) == 4


def test_a_broken_seal_stops_it_before_the_batch_goes(home: Home) -> None:
    """HD-45, HD-42."""
    home.hold(5)
    home.approve(home.plan(2))
    home.releases.step("r1")
    home.work()
    spoil(home.site, home.store, home.backlog()[1], 600)
    assert home.releases.step("r1").stopped == f"{KASSE}: 1 of the next 3 no longer match their seal"
    assert (home.work(), len(home.backlog())) == ([], 3)


def test_one_person_stops_it_at_any_moment_and_for_good(home: Home) -> None:
    home.hold(9)
    home.approve(home.plan(4))
    home.releases.step("r1")
    (taken,) = [one.id for one in home.store.leases.claim([Take(KASSE)], 1, "w", NOW, LEASE).mails]
    assert home.releases.stop("r1", "looks odd", "anna").stopped == "looks odd"
    home.store.leases.finish([Outcome(taken, State.DELIVERED)], "w", NOW)  # under way: it ends as it ends
    assert home.releases.step("r1").stopped == "looks odd"
    assert (home.work(), len(home.backlog())) == ([], 8)
    assert (home.told[-1]["returned"], home.told[-1]["by"]) == (3, "anna")


def test_a_stop_before_its_begin_stops_it_too_and_after_its_end_nothing(home: Home) -> None:
    home.hold(2)
    home.approve(home.plan(2))
    home.approve(home.plan(2, "r2"))
    home.releases.stop("r1", "no", "anna")
    assert home.releases.step("r1").stopped == "no"
    assert len(home.carry_out("r2")) == 2
    assert home.releases.stop("r2", "late", "anna").finished


def test_the_end_of_a_restart_stops_what_was_begun_in_its_mailboxes(home: Home) -> None:
    """T-14, RS-06."""
    home.hold(4)
    home.hold(4, ZWEI, start=10)
    home.approve(home.plan(2, "r1", KASSE))
    home.approve(home.plan(2, "r2", ZWEI))
    home.approve(home.plan(2, "r3", KASSE))
    for id in ("r1", "r2"):
        home.releases.step(id)
    assert home.releases.stop_all([KASSE], "aborted", "restart") == ["r1"]
    assert (home.work(), len(home.work(account=ZWEI))) == ([], 2)


def test_a_stop_that_comes_while_a_step_is_under_way_wins(home: Home) -> None:
    """Its order is a file, so it does not wait for the step; the step looks at it before it lets anything go."""
    home.hold(4)
    home.approve(home.plan(2))

    def stop_meanwhile(facts: Mapping[str, Json], _granted: bool) -> None:
        if facts["act"] == "release.step":
            releases.book.order_stop("r1", StopOrder("meanwhile", "anna", ""))

    releases = Releases(
        ReleaseBook(home.folder), home.store.leases, home.switch, Rights([ANNA, BERT]), stop_meanwhile, home.clock
    )
    assert releases.step("r1").stopped == "meanwhile"
    assert (home.work(), len(home.backlog())) == ([], 4)


def test_a_stop_whose_file_cannot_be_read_stops(home: Home) -> None:
    home.hold(4)
    home.approve(home.plan(2))
    home.releases.step("r1")
    (home.folder / "r1" / "stop.json").write_bytes(b"\0")
    assert home.releases.step("r1").stopped
    assert len(home.backlog()) == 4


# --- crashes ---


#: `progress.json` as it was written before mailboxes went together (decision 0029).
OLDER: Mapping[str, Json] = {
    "done": [],
    "account": KASSE,
    "above": 0,
    "upto": 2,
    "size": 2,
    "batches": 1,
    "released": 2,
    "errors_before": 0,
    "begun_at": NOW.isoformat(),
    "epoch": 0,
    "stopped": "",
    "finished": False,
}


@pytest.mark.parametrize("over", [{"finished": True}, {"stopped": "looks wrong"}], ids=["finished", "stopped"])
def test_what_an_older_version_has_ended_keeps_nothing_waiting(home: Home, over: Mapping[str, Json]) -> None:
    home.hold(5)
    home.plan(2, "r0")
    (home.folder / "r0" / "progress.json").write_text(json.dumps({**OLDER, **over}))
    home.approve(home.plan(2, "r1"))
    assert home.releases.step("r1").released == 2
    assert home.releases.step("r0").released == 2


@pytest.mark.parametrize("text", [json.dumps(OLDER), "{", ""], ids=["of an older version", "damaged", "empty"])
def test_a_release_whose_progress_nobody_can_read_goes_no_further_and_is_stopped_as_any(home: Home, text: str) -> None:
    """HD-42, T-14: by one person, and by an abort, which stops the others as well."""
    home.hold(5)
    home.hold(5, ZWEI, start=100)
    home.approve(home.plan(2, "r0"))
    home.approve(home.plan(2, "r1", ZWEI))
    home.approve(home.plan(2, "r2"))
    for id in ("r0", "r1"):
        home.releases.step(id)
    (home.folder / "r0" / "progress.json").write_text(text)
    with pytest.raises(ReleaseDamagedError):
        home.releases.step("r0")
    with pytest.raises(MailboxBusyError, match="r0"):
        home.releases.step("r2")
    assert home.releases.stop_all([KASSE, ZWEI], "looks wrong", "control") == ["r0", "r1"]
    assert (home.work(), home.work(account=ZWEI)) == ([], [])
    assert [home.releases.step(id).stopped for id in ("r0", "r1")] == ["looks wrong"] * 2
    assert home.releases.step("r2").released == 2


def test_a_stop_that_was_ordered_is_carried_out_whatever_the_progress_says(home: Home) -> None:
    home.hold(5)
    home.approve(home.plan(2))
    home.releases.step("r1")
    home.releases.book.order_stop("r1", StopOrder("looks wrong", "anna", ""))  # and whoever ordered it dies
    (home.folder / "r1" / "progress.json").write_text("{")
    assert home.releases.step("r1", alone=True).stopped == "looks wrong"
    assert home.work() == []


@pytest.mark.parametrize("damage", ["{", "", None], ids=["damaged", "empty", "gone"])
@pytest.mark.parametrize("progress", [True, False], ids=["its progress is there", "nothing can be read"])
def test_a_release_whose_plan_is_damaged_is_stopped_as_any(home: Home, damage: str | None, progress: bool) -> None:
    """SW-01, HD-42: what it let go is held again, in the mailboxes that its progress names, else in all of them."""
    home.hold(5)
    home.hold(5, ZWEI, start=100)
    home.approve(home.plan(2, "r0"))
    home.releases.step("r0")
    spoil_file(home.folder / "r0" / "plan.json", damage)
    if not progress:
        spoil_file(home.folder / "r0" / "progress.json", damage)
    with pytest.raises(ReleaseDamagedError):
        home.releases.step("r0")
    home.approve(home.plan(2, "r1"))
    if progress or damage is not None:  # of a file that is gone nobody knows that it was begun
        with pytest.raises(MailboxBusyError, match="r0"):
            home.releases.step("r1")
    assert home.releases.stop("r0", "looks wrong", "anna").stopped == "looks wrong"
    assert (home.work(), len(home.backlog())) == ([], 5)
    assert home.releases.step("r0", alone=True).stopped == "looks wrong"
    assert home.releases.step("r1").released == 2
    assert acts(home).count("release.stopped") == 1


def with_two_begun(home: Home) -> None:
    """r0 and r1, each with a batch of its own mailbox out."""
    home.hold(5)
    home.hold(5, ZWEI, start=100)
    for id, account in (("r0", KASSE), ("r1", ZWEI)):
        home.approve(home.plan(2, id, account))
        home.releases.step(id)


def test_a_release_whose_plan_is_damaged_keeps_no_other_from_stopping_and_is_stopped_with_it(home: Home) -> None:
    """T-14."""
    with_two_begun(home)
    (home.folder / "r0" / "plan.json").write_text("{")
    assert home.releases.stop_all([KASSE, ZWEI], "looks wrong", "control") == ["r0", "r1"]
    assert (home.work(), home.work(account=ZWEI)) == ([], [])


def test_a_stop_that_cannot_be_written_down_still_holds_what_was_let_go_and_stops_the_others(home: Home) -> None:
    with_two_begun(home)
    (home.folder / "r0" / "stop.json").mkdir()
    with pytest.raises(ReleaseNotKeptError):
        home.releases.stop_all([KASSE, ZWEI], "looks wrong", "control")
    assert (home.work(), home.work(account=ZWEI)) == ([], [])
    assert home.releases.step("r0").stopped  # an order that nobody can read is one
    assert home.releases.step("r1").stopped == "looks wrong"


def test_a_progress_that_cannot_be_replaced_is_stopped_and_told_no_more_than_it_can_be_noted(home: Home) -> None:
    home.hold(5)
    home.approve(home.plan(2, "r0"))
    home.releases.step("r0")
    spoil_file(home.folder / "r0" / "progress.json", None)
    (home.folder / "r0" / "progress.json").mkdir()
    for _ in range(2):
        with pytest.raises(ReleaseNotKeptError):
            home.releases.stop("r0", "looks wrong", "anna")
    assert (home.work(), len(home.backlog())) == ([], 5)
    assert "release.stopped" not in acts(home)


def test_an_order_to_stop_that_nobody_has_carried_out_yet_is_left_to_the_control_role(home: Home) -> None:
    """Whoever ordered it had no store, or died; also of a release whose files say nothing any more."""
    home.hold(5)
    home.approve(home.plan(2, "r0"))
    home.releases.step("r0")
    home.releases.book.order_stop("r0", StopOrder("looks wrong", "anna", ""))
    for name in ("plan.json", "progress.json"):
        spoil_file(home.folder / "r0" / name, None)
    assert home.releases.book.running() == ["r0"]
    assert home.releases.step("r0", alone=True).stopped == "looks wrong"
    assert (home.work(), home.releases.book.running()) == ([], [])


def spoil_file(path: Path, text: str | None) -> None:
    """None: it is gone."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(4))
def test_a_death_at_any_durable_step_loses_nothing_and_sends_nothing_twice(
    home: Home, moment: int, after: bool
) -> None:
    home.hold(7)
    waiting = home.backlog()
    home.approve(home.plan(2))
    home.deaths.left, home.deaths.after = moment, after
    taken: list[int] = []
    died = 0
    while True:
        try:
            at = home.releases.step("r1")
        except DeathError:
            died += 1
            continue
        if at.finished:
            break
        taken += home.work()
    assert (taken, at.released, home.backlog()) == (waiting, 7, [])
    assert died == (moment < 3)  # two batches, the end


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(2))
def test_a_stop_whose_process_died_is_carried_out_by_the_next_step(home: Home, moment: int, after: bool) -> None:
    home.hold(5)
    home.approve(home.plan(4))
    home.releases.step("r1")
    home.deaths.left, home.deaths.after = moment, after
    with pytest.raises(DeathError):
        home.releases.stop("r1", "odd", "anna")
    ordered = (moment, after) != (0, False)
    assert bool(home.releases.step("r1").stopped) is ordered
    assert len(home.backlog()) == (5 if ordered else 1)


def test_what_the_journal_does_not_take_is_not_done_but_a_stop_is(home: Home) -> None:
    home.hold(6)
    home.approve(home.plan(2))
    home.journal_is_full = True
    with pytest.raises(UnavailableError):
        home.releases.step("r1")
    assert home.work() == []
    home.journal_is_full = False
    home.releases.step("r1")
    home.journal_is_full = True
    with pytest.raises(UnavailableError):
        home.releases.stop("r1", "odd", "anna")
    assert (home.work(), len(home.backlog())) == ([], 6)
    home.journal_is_full = False
    assert home.releases.step("r1").stopped == "odd"
    assert acts(home)[-1] == "release.stopped"


# --- files ---


def test_only_what_was_begun_runs(home: Home) -> None:
    home.hold(3)
    home.approve(home.plan(2))
    assert home.releases.book.running() == []
    home.releases.step("r1")
    assert home.releases.book.running() == ["r1"]
    home.work()
    home.carry_out()
    assert home.releases.book.running() == []


def test_names_are_no_paths_and_files_are_not_believed(home: Home) -> None:
    home.hold(3)
    home.plan()
    book = home.releases.book
    for id in ("none", "../r1", ".", ""):
        with pytest.raises(NoSuchReleaseError):
            book.read(id)
    for text in ('{"parts": {}, "more": 1}', '{"parts": {"a": 1}}', '{"parts": []}', "{}"):
        (home.folder / "r1" / "progress.json").write_text(text)
        with pytest.raises(ReleaseDamagedError):
            home.releases.step("r1")
    (home.folder / "r1").rename(home.folder / "r2")
    with pytest.raises(ReleaseDamagedError, match="r2 has the plan of r1"):
        book.read("r2")
