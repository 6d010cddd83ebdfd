"""A held backlog goes by a plan of two persons, on real processes: T-01 in small, T-23, HD-40 to HD-45."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, platform, until
from tests.scenarios.test_switch_eau import close, delivered, everybody_saw, reopen, states

from schleuse.clock import utc_now
from schleuse.config import FILE_NAME
from schleuse.holding.release import ReleasePlan
from schleuse.holding.states import State
from schleuse.journal.opening import Json
from schleuse.practice.identity import load_practice
from schleuse.processes.reconciling import reconcile_senders
from schleuse.processes.releasing import PURPOSE, NotApprovedError, Releases, StillHeldError, open_releases, run
from schleuse.switch.approval import approve
from schleuse.switch.documents import Role
from schleuse.vault.tokens import read_token_key


@pytest.fixture
def one(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home") as started:
        started.start_all()
        yield started


@contextmanager
def releases(one: Platform, told: list[Mapping[str, Json]] | None = None) -> Iterator[Releases]:
    heard = told if told is not None else []
    with open_releases(one.config, lambda facts, _: heard.append(facts), "test") as opened:
        yield opened


def a_plan(one: Platform, made: Releases, first: int) -> ReleasePlan:
    plan = made.plan("r1", {insurer.address.lower(): insurer.ik for insurer in one.config.insurers}, first=first)
    made.keep(plan)
    return plan


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
    close(one)
    one.send(one.mails(one.order(48)) + one.mails(one.order(12, insurer=1), seed=3))
    until(lambda: states(one) == {State.HELD: 48} and states(one, 1) == {State.HELD: 12}, "all to be held")
    reopen(one, with_backlog=False)
    told: list[Mapping[str, Json]] = []
    with releases(one, told) as made:
        plan = a_plan(one, made, 10)
        looked = made.look(plan)
        assert (looked.count, sorted(looked.batches), looked.damaged) == (60, [2, 10, 10, 38], ())
        assert list(looked.by_label) == ["eAU;Lieferung;V1.2"]
        with pytest.raises(NotApprovedError):
            made.step("r1")
        approved(one, made, plan)
        one.send(one.mails(one.order(4), seed=2))  # live, though the backlog waits
        until(lambda: states(one) == {State.HELD: 48, State.DELIVERED: 4}, "live traffic to be filed")
        made.step("r1")
        one.send(one.mails(one.order(3), seed=4))
        carried_out(made, "r1")
        assert made.book.progress("r1").finished
        sizes = [facts["released"] for facts in told if facts["act"] == "release.step" and not facts["finished"]]
        assert sizes[0] == 10
        assert sizes[-1] == 60
    until(lambda: states(one) == {State.DELIVERED: 55} and states(one, 1) == {State.DELIVERED: 12}, "all to be filed")
    until(lambda: delivered(one), "a receipt for each, and no Fehlernachricht")
    practice = load_practice(one.config, None).address
    found = reconcile_senders(one.config, utc_now() - timedelta(hours=1), utc_now() + timedelta(seconds=1))
    assert [(account.sender, account.must_resend) for account in found] == [(practice, False)] * 2
    assert sorted((account.numbers["accepted"], account.numbers["held"]) for account in found) == [(12, 12), (55, 48)]


def test_what_somebody_has_begun_goes_on_without_him_also_after_its_insurer_was_held_again(one: Platform) -> None:
    """HD-25: a plan that was approved is no key to a closed door. SW-03: nobody but people begins one."""
    held_and_opened(one, 8)
    with releases(one) as made:
        plan = a_plan(one, made, 2)
        approved(one, made, plan)
        close(one)
        with pytest.raises(StillHeldError):
            made.step("r1")
        assert states(one) == {State.HELD: 8}
        reopen(one, with_backlog=False)
        assert made.step("r1").released == 2
        asyncio.run(control_role(one, made))
    until(lambda: states(one) == {State.DELIVERED: 8}, "all to be filed")


async def control_role(one: Platform, made: Releases) -> None:
    """Runs the part of it until the release is finished."""
    task = asyncio.create_task(run(one.config, lambda _facts, _granted: None))
    await asyncio.to_thread(until, lambda: task.done() or made.book.progress("r1").finished, "the control role", 60)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_one_person_stops_it_and_the_rest_is_held_with_its_plan_and_the_configuration_destroyed(one: Platform) -> None:
    """T-23: stopped, untouched messages HELD; what was released is done. Promise 3: roles keep what they have read, and
    who closes uses what they read at their start."""
    held_and_opened(one, 12)
    with releases(one) as made:
        plan = a_plan(one, made, 2)
        approved(one, made, plan)
        made.step("r1")
        until(lambda: states(one).get(State.DELIVERED) == 2, "the first batch")
        (one.home / "switch" / "releases" / "r1" / "plan.json").write_text("{")
        whole = (one.home / FILE_NAME).read_text()
        (one.home / FILE_NAME).write_text("[a newer version]\n")
        words = ("--operator", "betrieb-1", "--home", str(one.home))
        one.command("hold", "release", "stop", "r1", "--reason", "odd", *words)
        order = ("switch", "hold", "eau", "--reason", "security_hold", "--json", "--wait", "0")
        held = one.command(*order, *words, check=False)  # what it waits for is seen below
        assert made.step("r1", alone=True).stopped == "odd"
    (one.home / FILE_NAME).write_text(whole)
    everybody_saw(one, json.loads(held.stdout)["epoch"])
    assert states(one) == {State.HELD: 10, State.DELIVERED: 2}


def test_an_operator_types_it_from_the_plan_to_the_end(one: Platform) -> None:
    """§ 6.6 by commands alone; who is asked afterwards has an answer."""
    held_and_opened(one, 5)
    home = ("--home", str(one.home))
    id = one.command("hold", "release", "plan", "--first", "2", "--yes", *home).stdout.split()[-1]
    for name, role in (("betrieb-1", "switch_officer"), ("betrieb-2", "service_owner")):
        key = str(one.home / "operators" / f"{name}.key")
        words = ("--operator", name, "--operator-key", key, "--role", role, "--yes")
        one.command("hold", "release", "approve", id, *words, *home)
    assert one.command("hold", "release", "run", id, *home).stdout == "5 mails released and processed\n"
    assert states(one) == {State.DELIVERED: 5}
    answer = one.command("hold", "reconcile", *home).stdout
    assert "nothing to resend" in answer
    assert "5 accepted; 0 practices have to resend something" in answer
    one.command("hold", "check", *home)
