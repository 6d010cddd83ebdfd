"""How the processes of the `eau` role follow the switch: fences in both of their databases, and the hold windows.

Each worker and the desk do all of it, so none waits for another; whoever sees an epoch first has done it for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.eau.hold_changes import hold_changes
from schleuse.eau.store import EauStore
from schleuse.eau.switched import answering, delivering, processing
from schleuse.eau.worker import Overtaken
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.kim.store import Changes, Leases
from schleuse.processes.following import Cut, EpochFollower, Running
from schleuse.processes.switch_figures import tell_effect
from schleuse.processes.switching import effect_book
from schleuse.processes.trail import Act, Trail
from schleuse.scopes import Scope
from schleuse.switch.copy import LocalSwitch, standing_of
from schleuse.switch.log import Accepted, rules_of

log = structlog.get_logger()

#: How often somebody looks whether an emergency opening has ended (RS-14); until then its closing is in the switch.
LAPSE_SECONDS = 1.0


def floor_of(store: EauStore, leases: Leases) -> int:
    """The highest epoch that either database has seen. Raises UnavailableError."""
    return max(store.fence_head(), leases.holds.head())


def atoms_of(config: Config) -> list[Scope]:
    """Every atom that the `eau` role enforces."""
    iks = [IK(insurer.ik) for insurer in config.insurers]
    return [scope(ik) for ik in iks for scope in (processing, delivering, answering)]


def mailbox_scopes(config: Config) -> dict[str, Scope]:
    """What holds the mailbox of each insurer."""
    return {insurer.address.lower(): processing(IK(insurer.ik)) for insurer in config.insurers}


def changes_of(entries: Sequence[Accepted], scopes: Mapping[str, Scope], now: Now) -> Changes:
    """What these epochs tell the windows of mailboxes. scopes: by mailbox."""
    rules = rules_of(entries)
    return lambda account, after, is_open: hold_changes(rules, scopes[account], after, is_open, now())


class EauFollower:
    """One per process. worker: its name, the same after a restart."""

    def __init__(
        self,
        config: Config,
        worker: str,
        switch: LocalSwitch,
        store: EauStore,
        leases: Leases,
        trail: Trail,
        now: Now,
        *,
        running: Running,
        cut: Cut | None = None,
    ) -> None:
        self._switch = switch
        self._store = store
        self._leases = leases
        self._now = now
        self._scopes = mailbox_scopes(config)
        self._emergencies: set[str] = set()
        self._follower = EpochFollower(
            switch,
            effect_book(config),
            worker,
            atoms_of(config),
            running=running,
            fence=self._fence,
            tell=lambda effect: tell_effect(trail, effect),
            now=now,
            cut=cut,
            budget=timedelta(seconds=config.control.unit_budget_seconds),
        )

    def step(self, uncertain: Sequence[str] = ()) -> None:
        """What a worker calls between two batches. uncertain: deliveries that it does not know the end of (SW-10).

        Raises Error: the stores cannot serve; nothing may be begun.
        """
        self._follower.step(uncertain)
        self._lapse()

    async def run(self) -> None:
        """For the desk: for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run())
            group.create_task(self._keep_lapsing())

    def _fence(self, epochs: Mapping[Scope, int], head: int) -> None:
        self._leases.holds.follow(epochs, head, self._scopes, self._changes(head), self._now())
        self._store.raise_fence(epochs, head)

    def _changes(self, head: int) -> Changes:
        return changes_of(self._switch.entries()[:head], self._scopes, self._now)

    def _lapse(self) -> None:
        """Begin the windows of emergency openings that have ended since we looked last."""
        emergencies = {account for account, scope in self._scopes.items() if self._is_emergency(scope)}
        if self._emergencies - emergencies:
            self._fence({}, self._switch.epoch)
        self._emergencies = emergencies

    def _is_emergency(self, scope: Scope) -> bool:
        at = standing_of(self._switch, scope)
        return at.closes_at is not None

    async def _keep_lapsing(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._lapse)
            except Error as error:
                log.error("switch.lapse-waits", code=error.code, reason=str(error))
            await asyncio.sleep(LAPSE_SECONDS)


def tell_overtaken(trail: Trail, worker: str, overtaken: Overtaken) -> None:
    """An entry of the insurer's log: a late effect was refused at the store (T-05, SW-10)."""
    detail: dict[str, Json] = {
        "act": "switch.stale",
        "worker": worker,
        "epoch": overtaken.epoch,
        "deliveries": list(overtaken.deliveries),
        "uncertain": list(overtaken.uncertain),
    }
    count = len(overtaken.deliveries) + len(overtaken.uncertain)
    act = Act(overtaken.ik.value, Kind.ADMINISTRATION, Result.DENIED, Purpose.EAU_INTAKE, detail=detail, count=count)
    try:
        trail.tell(act)
    except Error as error:  # nothing was done that would have to be told first
        log.error("switch.overtaken-not-told", code=error.code, deliveries=list(overtaken.deliveries))
