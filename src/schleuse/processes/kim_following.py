"""How the mail role follows the switch: fences in its database, sessions and attempts that end, and what it notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.eau.hold_changes import held_between
from schleuse.identifiers import IK
from schleuse.kim.store import MailStore
from schleuse.kim.switched import SENDING, enforced
from schleuse.mail.outbound import Outbound
from schleuse.mail.pop3_listener import Listener
from schleuse.processes.following import EpochFollower, Running
from schleuse.processes.kim_mailboxes import Mailboxes
from schleuse.processes.switch_figures import tell_effect
from schleuse.processes.switching import effect_book
from schleuse.processes.trail import Trail
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.copy import LocalSwitch, Switch, standing_of
from schleuse.switch.log import rules_of

#: Name of this process in the switch's copies and effects.
KIM = "kim"


def atoms_of(config: Config) -> list[Scope]:
    """Every atom that the mail role enforces."""
    return enforced(IK(insurer.ik) for insurer in config.insurers)


def held_scopes(switch: Switch, atoms: Sequence[Scope]) -> list[str]:
    """Those in which less than usual happens now, as texts: a state of the role, and no fault of it."""
    standings = ((one, standing_of(switch, one)) for one in atoms)
    return [f"{one} {at.state}" for one, at in standings if at.state is not ScopeState.OPEN]


def held_by(switch: LocalSwitch) -> Callable[[Scope, datetime, datetime], timedelta]:
    """For how long nothing of a scope might begin, by the commands that this role has seen."""

    def held(scope: Scope, since: datetime, until: datetime) -> timedelta:
        return held_between(rules_of(switch.entries()), scope, since, until)

    return held


#: What was cut gives back what it had within this time: a lock, a lease, a flush that is under way.
AFTERMATH_SECONDS = 3.0
LOOK_SECONDS = 0.05


class Edges:
    """Sessions and attempts that a closing ends."""

    def __init__(self, pop3: Listener, mailboxes: Mailboxes, outbound: Outbound, running: Running) -> None:
        self._running = running
        self._pop3 = pop3
        self._mailboxes = mailboxes
        self._outbound = outbound
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """From any thread: sessions of closed mailboxes end when what runs for them is answered."""
        self._loop.call_soon_threadsafe(self._pop3.end, self._mailboxes.is_closed)

    async def cut(self, scopes: Sequence[Scope]) -> Sequence[str]:
        """See `following.Cut`. A mailbox session that is cut has deleted nothing; a mail that the next host may have
        taken is uncertain."""
        self._pop3.cut(self._mailboxes.is_closed)
        uncertain = await self._outbound.cut() if SENDING in scopes else []
        waited = 0.0
        while self._running.count(scopes) and waited < AFTERMATH_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        return [f"delivery:{id}" for id in uncertain]


def follower(
    config: Config, switch: LocalSwitch, store: MailStore, trail: Trail, running: Running, edges: Edges, now: Now
) -> EpochFollower:
    """All that following is made of."""

    def fence(epochs: Mapping[Scope, int], head: int) -> None:
        # The windows of held mailboxes follow the process direction, which is the `eau` role's.
        store.leases.holds.follow(epochs, head, (), lambda _account, _after, _is_open: (), now())
        edges.end()

    return EpochFollower(
        switch,
        effect_book(config),
        KIM,
        atoms_of(config),
        running=running,
        fence=fence,
        tell=lambda effect: tell_effect(trail, effect),
        now=now,
        cut=edges.cut,
        budget=timedelta(seconds=config.control.unit_budget_seconds),
    )
