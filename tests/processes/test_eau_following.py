"""How the `eau` role follows the switch: fences in both databases, hold windows, and what it says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios import switching
from tests.scenarios.platform import build_home

from schleuse.clock import utc_now
from schleuse.config import Config, read_config
from schleuse.eau.feed_store import Terms
from schleuse.eau.store import EauStore, open_store
from schleuse.eau.worker import Overtaken
from schleuse.errors import UnavailableError
from schleuse.identifiers import IK
from schleuse.kim.store import HoldWindow, Leases, open_leases
from schleuse.processes.eau_following import EauFollower, atoms_of, floor_of, tell_overtaken
from schleuse.processes.following import Running
from schleuse.processes.switching import copy_of, effect_book, switch_log
from schleuse.processes.trail import Trail
from schleuse.scopes import Direction, Scope, ScopeState, Service
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.fence import StaleEpochError

HOLD = ScopeState.HOLD


class NoJournal:
    """The trail keeps what it is told until somebody sends it; here nobody does."""

    async def append_many(self, _origin: str, _entries: object) -> list[int]:
        raise UnavailableError("no journal in this test")


@dataclass
class Role:
    """One process of the role on its home. now: as the test sets it."""

    config: Config
    store: EauStore
    leases: Leases
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def follower(self, worker: str = "eau-worker-0") -> EauFollower:
        """As after a start of the process."""
        clock = lambda: self.now  # noqa: E731
        floor = floor_of(self.store, self.leases)
        switch = LocalSwitch(switch_log(self.config), copy_of(self.config, worker), clock, floor=floor)
        return EauFollower(
            self.config, worker, switch, self.store, self.leases, self.trail(), clock, running=Running(clock)
        )

    def trail(self) -> Trail:
        return Trail(self.config.home / "trail", "eau-worker", NoJournal(), lambda tenant, _: tenant, lambda: self.now)

    def told(self) -> list[dict[str, Any]]:
        """What was told, one act each."""
        lines = [
            line for path in (self.config.home / "trail").glob("*.jsonl") for line in path.read_text().splitlines()
        ]
        return [json.loads(json.loads(line)["detail"]) for line in lines]

    def windows(self) -> list[HoldWindow]:
        """Of the first insurer."""
        return self.leases.holds.windows([self.config.insurers[0].address.lower()])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_home(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def role(base: Path, tmp_path: Path) -> Iterator[Role]:
    home = shutil.copytree(base, tmp_path / "home")
    config = read_config(home)
    store, leases = open_store(config.eau_database), open_leases(config.kim_database, config.kim.spool)
    yield Role(config, store, leases)
    store.close()
    leases.close()


def test_a_closing_raises_the_fences_of_both_databases_and_begins_the_windows(role: Role) -> None:
    follower = role.follower()
    follower.step()
    assert role.windows() == []
    epoch = switching.close(role.config.home, "eau/*", HOLD)
    follower.step()
    assert (role.store.fence_head(), role.leases.holds.head()) == (epoch, epoch)
    assert [window.is_open for window in role.windows()] == [True]
    with pytest.raises(StaleEpochError):
        role.store.feed.publish(IK(role.config.insurers[0].ik), None, terms=Terms(epoch - 1, utc_now()))


def test_what_it_did_is_noted_for_the_closure_proof_and_told_to_the_journal(role: Role) -> None:
    """SW-07, incident.md § 5.3; T-05: what a closing left uncertain is listed by id (SW-10)."""
    follower = role.follower()
    follower.step()
    epoch = switching.close(role.config.home, "eau/*", HOLD)
    follower.step(uncertain=["4711"])
    (effect,) = effect_book(role.config).read(epoch)
    assert (effect.worker, effect.uncertain) == ("eau-worker-0", ("4711",))
    assert effect.quiet_at is not None
    told = role.told()[-1]
    assert (told["act"], told["epoch"], told["uncertain"]) == ("switch.effect", epoch, ["4711"])


def test_only_the_insurer_that_is_closed_is_held(role: Role) -> None:
    """T-24."""
    switching.close(role.config.home, f"eau_intake/{role.config.insurers[1].ik}", HOLD)
    role.follower().step()
    assert role.windows() == []
    assert len(role.leases.holds.windows()) == 1


@pytest.mark.parametrize("with_backlog", [False, True])
def test_an_opening_ends_the_window_and_releases_the_backlog_only_if_it_says_so(role: Role, with_backlog: bool) -> None:
    """HD-40."""
    follower = role.follower()
    follower.step()
    switching.close(role.config.home, "eau/*", HOLD)
    follower.step()
    switching.open(role.config.home, "eau/*", with_backlog=with_backlog)
    follower.step()
    (window,) = role.windows()
    assert not window.is_open
    assert (window.released_to > 0) is with_backlog


def test_a_role_that_was_down_for_closing_and_opening_still_makes_the_window(role: Role) -> None:
    """HD-25: it starts into the open state, and what came in while it was closed waits for its release."""
    role.follower().step()
    closing = switching.close(role.config.home, "eau/*", HOLD)
    opening = switching.open(role.config.home, "eau/*")
    role.follower().step()
    (window,) = role.windows()
    assert (window.epoch, window.ended_epoch, window.released_to) == (closing, opening, 0)


def test_all_processes_of_the_role_make_one_window(role: Role) -> None:
    workers = [role.follower(f"eau-worker-{number}") for number in range(3)]
    switching.close(role.config.home, "eau/*", HOLD)
    for worker in workers:
        worker.step()
    switching.open(role.config.home, "eau/*")
    for worker in [*workers, role.follower("eau-desk")]:
        worker.step()
    assert len(role.windows()) == 1


def test_an_emergency_opening_that_has_ended_is_a_hold_again_without_an_epoch(role: Role) -> None:
    """RS-14, SW-03: time only closes."""
    switching.close(role.config.home, "eau/*", HOLD)
    ends = role.now + timedelta(hours=1)
    opening = switching.open(role.config.home, "eau/*", closes_at=ends)
    follower = role.follower()
    follower.step()
    assert [window.is_open for window in role.windows()] == [False]
    role.now = ends + timedelta(seconds=1)
    follower.step()
    assert [window.epoch for window in role.windows() if window.is_open] == [opening]


def test_a_database_that_cannot_serve_is_fenced_as_soon_as_it_can(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = role.follower()
    follower.step()
    epoch = switching.close(role.config.home, "eau/*", HOLD)
    raise_fence = role.store.raise_fence

    def off(epochs: Mapping[Scope, int], head: int) -> None:
        monkeypatch.setattr(role.store, "raise_fence", raise_fence)
        raise UnavailableError("the disk is full")

    monkeypatch.setattr(role.store, "raise_fence", off)
    with pytest.raises(UnavailableError):
        follower.step()
    assert effect_book(role.config).read(epoch) == []
    follower.step()
    assert role.store.fence_head() == epoch
    assert len(role.windows()) == 1


def test_a_copy_of_the_switch_that_is_older_than_a_database_is_not_believed(role: Role) -> None:
    """SW-02: log and copy were taken back to a state before the closing."""
    switching.close(role.config.home, "eau/*", HOLD)
    role.follower().step()
    shutil.rmtree(role.config.switch_folder / "log")
    (role.config.switch_folder / "log").mkdir()
    shutil.rmtree(role.config.switch_folder / "copies")
    switch = LocalSwitch(
        switch_log(role.config),
        copy_of(role.config, "eau-worker-0"),
        lambda: role.now,
        floor=floor_of(role.store, role.leases),
    )
    assert switch.safe != ""
    states = {
        switch.standing(Service(one.service), one.tenant, Direction(one.direction)).state
        for one in atoms_of(role.config)
    }
    assert states == {HOLD}


def test_a_refused_batch_is_told_to_the_log_of_its_insurer(role: Role) -> None:
    """T-05: recorded."""
    tell_overtaken(role.trail(), "eau-worker-1", Overtaken(IK(role.config.insurers[0].ik), 4, (7, 8), (9,)))
    (told,) = role.told()
    assert (told["act"], told["worker"], told["epoch"]) == ("switch.stale", "eau-worker-1", 4)
    assert (told["deliveries"], told["uncertain"]) == ([7, 8], [9])
