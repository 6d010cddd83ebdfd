"""A held backlog goes by a plan of two persons, on real processes: T-01 in small, T-23, HD-40 to HD-45."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until
from tests.scenarios.test_switch_eau import close, delivered, reopen, states

from schleuse.clock import utc_now
from schleuse.holding.release import ReleasePlan
from schleuse.holding.states import State
from schleuse.journal.opening import Json
from schleuse.kim.store import Leases, open_leases
from schleuse.practice.identity import load_practice
from schleuse.processes.reconciling import reconcile_senders
from schleuse.processes.releasing import PURPOSE, NotApprovedError, Releases, StillHeldError
from schleuse.processes.switching import open_switch, rights_of
from schleuse.switch.approval import approve
from schleuse.switch.documents import Role
from schleuse.vault.tokens import read_token_key


@pytest.fixture
def one(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home") as started:
        started.start_all()
        yield started


@contextmanager
def releases(one: Platform, told: list[Mapping[str, Json]] | None = None) -> Iterator[tuple[Releases, Leases]]:
    with open_leases(one.config.kim_database, one.config.kim.spool) as leases:
        folder, heard = one.home / "switch" / "releases", told if told is not None else []
        switch = open_switch(one.config, "test")
        yield (
            Releases(folder, leases, switch, rights_of(one.config), lambda facts, _: heard.append(facts), utc_now),
            leases,
        )


def approved(one: Platform, made: Releases, plan: ReleasePlan) -> None:
    for name, role in (("betrieb-1", Role.SWITCH_OFFICER), ("betrieb-2", Role.SERVICE_OWNER)):
        key = read_token_key(one.home / "operators" / f"{name}.key")
        made.approve(plan, approve(PURPOSE, plan.hash, name, role, key, datetime.now(UTC)))


def held_and_opened(one: Platform, count: int) -> None:
    """So many are backlog, and live traffic flows again."""
    close(one)
    one.send(one.mails(one.order(count)))
    until(lambda: states(one) == {State.HELD: count}, "all to be held")
    reopen(one, with_backlog=False)


def carried_out(made: Releases, id: str) -> None:
    until(lambda: (at := made.step(id)).finished or bool(at.stopped), "the release to end", 60)


def test_a_backlog_goes_small_first_while_live_traffic_flows_and_nobody_has_to_resend(one: Platform) -> None:
    """T-01 in small: held, opened without its backlog, released by a plan; 0 lost, 0 rejected, each mail once."""
    held_and_opened(one, 25)
    told: list[Mapping[str, Json]] = []
    with releases(one, told) as (made, _):
        plan = made.plan("r1", one.config, [], first=3)
        looked = made.look(plan)
        assert (looked.count, looked.batches, looked.damaged) == (25, (3, 15, 7), ())
        assert list(looked.by_label) == ["eAU;Lieferung;V1.2"]
        made.keep(plan)
        with pytest.raises(NotApprovedError):
            made.step("r1")
        approved(one, made, plan)
        one.send(one.mails(one.order(4), seed=2))  # live, though the backlog waits
        until(lambda: states(one) == {State.HELD: 25, State.DELIVERED: 4}, "live traffic to be filed")
        carried_out(made, "r1")
        assert made.progress("r1").finished
        sizes = [facts for facts in told if facts["act"] == "release.step"]
        assert [facts["released"] for facts in sizes][:3] == [3, 18, 25]
    until(lambda: states(one) == {State.DELIVERED: 29}, "all to be filed")
    until(lambda: delivered(one), "a receipt for each, and no Fehlernachricht")
    (account,) = reconcile_senders(one.config, utc_now() - timedelta(hours=1), utc_now() + timedelta(seconds=1))
    assert (account.sender, account.must_resend) == (load_practice(one.config, None).address, False)
    assert (account.numbers["accepted"], account.numbers["held"]) == (29, 25)


def test_a_release_waits_while_its_insurer_is_held_again_and_goes_on_after(one: Platform) -> None:
    """HD-25: a plan that was approved is no key to a closed door."""
    held_and_opened(one, 8)
    with releases(one) as (made, _):
        plan = made.plan("r1", one.config, [], first=2)
        made.keep(plan)
        approved(one, made, plan)
        close(one)
        with pytest.raises(StillHeldError):
            made.step("r1")
        assert states(one) == {State.HELD: 8}
        reopen(one, with_backlog=False)
        carried_out(made, "r1")
    until(lambda: states(one) == {State.DELIVERED: 8}, "all to be filed")


def test_one_person_stops_it_and_the_rest_is_held(one: Platform) -> None:
    """T-23: stopped, untouched messages HELD; what was released is done."""
    held_and_opened(one, 12)
    with releases(one) as (made, _):
        plan = made.plan("r1", one.config, [], first=2)
        made.keep(plan)
        approved(one, made, plan)
        made.step("r1")
        until(lambda: states(one).get(State.DELIVERED) == 2, "the first batch")
        made.stop("r1", "looks odd", "anna")
        assert made.step("r1").stopped == "looks odd"
    assert states(one) == {State.HELD: 10, State.DELIVERED: 2}


def test_a_step_that_a_crash_cut_short_is_done_again_and_nothing_goes_twice(one: Platform) -> None:
    """Recorded, and the process died before it told the store."""
    held_and_opened(one, 6)
    with releases(one) as (made, leases):
        plan = made.plan("r1", one.config, [], first=4)
        made.keep(plan)
        approved(one, made, plan)
        waiting = leases.holds.backlog(plan.mailboxes[0].account)
        at = made.progress("r1")
        moved = replace(
            at, account=plan.mailboxes[0].account, above=waiting[0] - 1, upto=waiting[3], size=4, batches=1, released=4
        )
        made._moved(plan, moved)
    with releases(one) as (again, _):
        carried_out(again, "r1")
        assert again.progress("r1").released == 6
    until(lambda: states(one) == {State.DELIVERED: 6}, "all to be filed")


def test_an_approval_is_of_exactly_this_plan_by_two_persons(one: Platform) -> None:
    """RO-01, RO-04."""
    held_and_opened(one, 3)
    with releases(one) as (made, _):
        plan = made.plan("r1", one.config, [], first=1)
        made.keep(plan)
        key = read_token_key(one.home / "operators" / "betrieb-1.key")
        now = datetime.now(UTC)
        made.approve(plan, approve(PURPOSE, plan.hash, "betrieb-1", Role.SWITCH_OFFICER, key, now))
        assert not made.is_approved(plan)
        other = replace(plan, first=2)
        second = read_token_key(one.home / "operators" / "betrieb-2.key")
        made.approve(plan, approve(PURPOSE, other.hash, "betrieb-2", Role.SERVICE_OWNER, second, now))
        assert not made.is_approved(plan)
        made.approve(plan, approve(PURPOSE, plan.hash, "betrieb-2", Role.SERVICE_OWNER, second, now))
        assert made.is_approved(plan)
    assert switching.epoch(one.home) == 2
