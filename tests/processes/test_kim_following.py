"""How the mail role follows the switch: fences, then sessions end, then the effect is noted (SW-06, SW-07, SW-10)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from tests.processes.test_eau_following import NoJournal
from tests.scenarios import switching
from tests.scenarios.platform import build_home

from schleuse.config import Config, read_config
from schleuse.kim.store import MailStore, Under, open_mail_store
from schleuse.kim.switched import SENDING, accepting, reading
from schleuse.mail.outbound import Outbound
from schleuse.mail.pop3_listener import Listener
from schleuse.processes.following import Running
from schleuse.processes.kim import load_accounts, store_settings
from schleuse.processes.kim_following import KIM, Edges, atoms_of, follower, held_by, held_scopes
from schleuse.processes.kim_mailboxes import Mailboxes
from schleuse.processes.switching import copy_of, enforced_atoms, switch_log
from schleuse.processes.trail import Trail
from schleuse.scopes import ScopeState, Service
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.fence import StaleEpochError

HOLD = ScopeState.HOLD


@dataclass
class FakePop3:
    ended: int = 0
    cuts: int = 0

    def end(self, closed: Callable[[str], bool]) -> None:
        self.ended += 1

    def cut(self, closed: Callable[[str], bool]) -> int:
        self.cuts += 1
        return 0


@dataclass
class FakeOutbound:
    """sent: calls that end a unit that is under way."""

    cuts: list[Callable[[], None]] = field(default_factory=list)

    async def cut(self) -> list[int]:
        for one in self.cuts:
            one()
        return [len(self.cuts)]


@dataclass
class Role:
    config: Config
    store: MailStore
    pop3: FakePop3 = field(default_factory=FakePop3)
    outbound: FakeOutbound = field(default_factory=FakeOutbound)

    def __post_init__(self) -> None:
        self.running = Running(_now)
        self.switch = LocalSwitch(
            switch_log(self.config), copy_of(self.config, KIM), _now, floor=self.store.leases.holds.head()
        )

    async def follow(self, epoch: int) -> None:
        """Run until the effect of this epoch is noted to the end."""
        mailboxes = Mailboxes(self.store, load_accounts(self.config), self.switch, self.running.unit)
        edges = Edges(cast(Listener, self.pop3), mailboxes, cast(Outbound, self.outbound), self.running)
        trail = Trail(self.config.home / "trail", KIM, NoJournal(), lambda tenant, _: tenant, _now)
        task = asyncio.create_task(
            follower(self.config, self.switch, self.store, trail, self.running, edges, _now).run()
        )
        while not self.effect(epoch).get("quiet_at"):
            await asyncio.sleep(0.005)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def effect(self, epoch: int) -> dict[str, object]:
        return switching.effects(self.config.home, epoch).get(KIM, {})


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_home(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def role(base: Path, tmp_path: Path) -> Iterator[Role]:
    home = Path(shutil.copytree(base, tmp_path / "home"))
    config = read_config(home)
    control = config.control.model_copy(update={"unit_budget_seconds": 0.2})
    config = config.model_copy(update={"control": control})
    with open_mail_store(store_settings(config), load_accounts(config).account_of, background=False) as store:
        yield Role(config, store)


def bounded(role: Role, epoch: int) -> None:
    async def run() -> None:
        await asyncio.wait_for(role.follow(epoch), 30)

    asyncio.run(run())


def test_the_mail_role_follows_every_atom_of_its_services(role: Role) -> None:
    ours = set(atoms_of(role.config))
    assert ours <= set(enforced_atoms(role.config))
    assert {one for one in enforced_atoms(role.config) if one.service == Service.KIM_MAIL and not one.tenant} <= ours


def test_a_closing_raises_the_fences_ends_sessions_and_notes_the_effect(role: Role) -> None:
    epoch = switching.close(role.config.home, "kim", HOLD)
    bounded(role, epoch)
    assert role.store.leases.holds.head() == epoch
    assert role.pop3.ended >= 1
    assert role.effect(epoch)["inflight"] == 0
    with pytest.raises(StaleEpochError):
        role.store.queue.due(_now(), 1, Under(SENDING, epoch - 1))


def test_mail_that_arrives_while_held_does_not_keep_the_closing_from_being_quiet(role: Role) -> None:
    """HD-02: taking in goes on."""
    epoch = switching.close(role.config.home, "all", HOLD)
    with role.running.unit(accepting(None)):
        bounded(role, epoch)
    assert (role.effect(epoch)["inflight"], role.effect(epoch)["cut"]) == (0, 0)


def test_what_runs_longer_than_the_budget_is_cut_and_listed(role: Role) -> None:
    """SW-10."""
    unit = ExitStack()
    unit.enter_context(role.running.unit(SENDING))
    role.outbound.cuts.append(unit.close)
    epoch = switching.close(role.config.home, "kim", HOLD)
    bounded(role, epoch)
    effect = role.effect(epoch)
    assert (effect["inflight"], effect["cut"], effect["uncertain"]) == (1, 1, ["delivery:1"])
    assert role.pop3.cuts == 1


def test_while_one_insurer_is_closed_nothing_is_cut_at_the_others(role: Role) -> None:
    """T-24."""
    other = role.config.insurers[1].ik
    with role.running.unit(reading(None)):
        epoch = switching.close(role.config.home, f"eau/{other}", HOLD)
        bounded(role, epoch)
    assert (role.effect(epoch)["inflight"], role.pop3.cuts) == (0, 0)


def test_a_second_closing_does_not_wait_for_what_the_first_still_drains(role: Role) -> None:
    """§ 5.2: every worker has the state within 2 s, whatever runs."""
    slow = role.config.control.model_copy(update={"unit_budget_seconds": 20})
    role.config = role.config.model_copy(update={"control": slow})
    with role.running.unit(SENDING):
        switching.close(role.config.home, "kim_mail/-/deliver", HOLD)
        role.switch.refresh()
        first = role.switch.epoch

        async def both() -> int:
            follows = asyncio.create_task(role.follow(first + 1))
            while not role.effect(first):
                await asyncio.sleep(0.005)
            second = switching.close(role.config.home, "kim_mail/-/read", HOLD)
            while role.store.leases.holds.head() < second or not role.effect(second):
                await asyncio.sleep(0.005)
            follows.cancel()
            with suppress(asyncio.CancelledError):
                await follows
            return second

        second = asyncio.run(asyncio.wait_for(both(), 10))
    assert role.effect(first)["quiet_at"] is None
    assert role.effect(second)["inflight"] == 1


def test_what_is_held_is_a_state_and_no_fault(role: Role) -> None:
    epoch = switching.close(role.config.home, "kim_mail/-/read", HOLD)
    role.switch.refresh()
    assert held_scopes(role.switch, atoms_of(role.config)) == ["kim_mail/-/read/- HOLD"]
    assert epoch == 1


def test_a_restarted_role_knows_how_long_letters_were_held(role: Role) -> None:
    """HD-24."""
    before = _now()
    switching.close(role.config.home, "kim", HOLD)
    role.switch.refresh()
    held = held_by(role.switch)(SENDING, before, _now())
    assert timedelta(0) < held <= _now() - before
