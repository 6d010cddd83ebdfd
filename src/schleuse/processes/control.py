"""The `control` role: proves closings, runs drills, switches what is not ours; it opens nothing by itself (SW-03).

Every role follows the switch without it; while it is dead, closings are in force and wait for their proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime

import structlog
import uvloop
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client import CollectorRegistry

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.errors import Error
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Purpose
from schleuse.journal.opening import Json
from schleuse.processes.control_closing import AllEffects, Closings, Prover
from schleuse.processes.control_drills import Freshness, Scheduler, desk, drill_book, windows_of
from schleuse.processes.control_evidence import sources as evidence_sources
from schleuse.processes.control_figures import ControlFigures
from schleuse.processes.control_informing import Records, informer_of
from schleuse.processes.control_logins import Logins, logins_of
from schleuse.processes.control_probes import PlatformProbes
from schleuse.processes.control_watch import Places, Watch
from schleuse.processes.control_workers import systems_of, workers_of
from schleuse.processes.life import until_stopped
from schleuse.processes.maintenance import cut_sessions, sweep
from schleuse.processes.observe import observed
from schleuse.processes.operators import rights_of
from schleuse.processes.policies import policies_of
from schleuse.processes.releasing import run as go_on_releasing
from schleuse.processes.restart_control import PlanMandates, RestartController
from schleuse.processes.restart_evidence import Looks
from schleuse.processes.restart_home import restarts_of, take_back_of
from schleuse.processes.switch_figures import SwitchFigures
from schleuse.processes.switch_orders import MendingLog
from schleuse.processes.switching import enforced_atoms, news_book, open_switch, switch_log
from schleuse.processes.trail import open_trail, teller
from schleuse.scopes import Scope
from schleuse.shutdown.automat import Agreed, Automat, Policies
from schleuse.shutdown.closure import provable
from schleuse.shutdown.exceptions import SignedExemption, exempt, exemptions
from schleuse.shutdown.external import SystemStandings
from schleuse.shutdown.external_keeper import ExternalKeeper
from schleuse.shutdown.news import NewsBook
from schleuse.shutdown.probes import Sources
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import Rights, Role
from schleuse.vault.tokens import read_public_key, read_token_key

log = structlog.get_logger()

#: A session without its own watcher is looked for so often; t_state of § 5.2 is 2 s.
SESSION_SECONDS = 0.5
REMINDER_SECONDS = 60.0


def main(config: Config) -> None:
    """Run until stopped."""
    uvloop.run(run(config))


async def run(config: Config) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        journal = JournalClient(config.journal_socket)
        stack.push_async_callback(journal.close)
        trail = open_trail(config, "control", journal)
        switch = open_switch(config, "control")
        probes = PlatformProbes(config)
        stack.callback(probes.close)
        closings = closings_of(config, switch, probes, "control")
        tell = teller(trail, Purpose.OPERATION)
        rights = rights_of(config)
        external = external_of(config, switch, rights, tell)
        freshness = Freshness(closings, config.control.drill_days)
        drills = Scheduler(
            desk(closings, switch_log(config, rights), rights, utc_now, external.not_running),
            windows_of(closings, config.control.drill_window),
            freshness,
            tell,
            utc_now,
        )
        watch = Watch(
            switch,
            enforced_atoms(config),
            Places(config.switch_folder, config.retention_frozen),
            evidence_sources(config),
            automat_of(config, policies_of(config, rights)),
            tell,
            utc_now,
        )

        def exempted(scope: Scope) -> bool:
            return is_exempt(scope, known_exemptions(config), utc_now())

        prover = Prover(closings, lambda facts: tell(facts, True), exempted, utc_now)
        looks = Looks(config, closings, utc_now)
        restarts = restarts_of(config, tell, switch.entries)
        back = RestartController(
            restarts,
            switch.entries,
            looks.measures(),
            looks.trouble,
            automat_of(config, PlanMandates(restarts)),
            utc_now,
            take_back_of(config, tell),
        )
        news = news_book(config)
        records = Records(closings, drill_book(config.switch_folder), restarts, exempted, news)
        informer, informing = informer_of(config, records, tell, utc_now)
        registry.register(informing)
        registry.register(SwitchFigures(switch, closings.atoms))
        registry.register(
            ControlFigures(
                closings,
                freshness,
                external,
                lambda: known_exemptions(config),
                drill_book(config.switch_folder).results,
                news,
                utc_now,
            )
        )
        await stack.enter_async_context(
            observed("control", config.control.metrics, registry, lambda: readiness(switch))
        )
        log.info("control.ready", epoch=switch.epoch, atoms=len(closings.atoms))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one)
                for one in (
                    watch.run(),
                    prover.run(),
                    informer.run(),
                    Logins(logins_of(config), probes.log_in, utc_now).run(),
                    external.run(),
                    drills.run(),
                    back.run(),
                    go_on_releasing(config, tell),
                    _reminders(config, closings, news),
                    _sessions(config),
                    trail.run(),
                )
            ]
            await until_stopped()
            for task in tasks:
                task.cancel()


def closings_of(config: Config, switch: LocalSwitch, probes: PlatformProbes, place: str) -> Closings:
    """place: who looks, for the records."""
    return Closings(
        switch=switch,
        atoms=provable(enforced_atoms(config)),
        folder=config.switch_folder,
        sources=Sources(
            probes=probes,
            effects=AllEffects(config.switch_folder / "effects", lambda: switch.epoch),
            workers=workers_of(config),
            now=utc_now,
            place=f"{config.hostname} {place}",
        ),
        now=utc_now,
        systems=systems_of(config),
    )


def external_of(
    config: Config, switch: LocalSwitch, rights: Rights, tell: Callable[[Mapping[str, Json], bool], None]
) -> ExternalKeeper:
    """What stops and starts them. Raises BadScopeError."""
    return ExternalKeeper(
        systems_of(config),
        SystemStandings.of(switch),
        config.switch_folder,
        rights,
        lambda facts: tell(facts, True),
        utc_now,
        f"{config.hostname} control",
    )


class NoPolicies:
    """Until there are agreed ones: the platform closes nothing by itself."""

    def valid(self, name: str, now: datetime) -> Agreed | None:
        """None."""
        return None


def automat_of(config: Config, policies: Policies) -> Automat | None:
    """The platform's own credential; None, and told, if the configuration names none whose key is ours."""
    try:
        key = read_token_key(config.control.automat_key)
    except Error as error:
        log.error("control.no-automat", code=error.code, reason=str(error))
        return None
    mine = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for one in config.operators:
        if Role.AUTOMAT.value not in one.roles:
            continue
        try:
            public = read_public_key(one.public_key).public_bytes(Encoding.Raw, PublicFormat.Raw)
        except Error:
            continue
        if public == mine:
            return Automat(MendingLog(config), one.name, lambda: key, policies, utc_now)
    log.error(
        "control.no-automat", reason="no operator with the role automat has the public key of control.automat_key"
    )
    return None


def known_exemptions(config: Config) -> Sequence[SignedExemption]:
    """Those whose signatures suffice; others are told and exempt nothing."""
    found, bad = exemptions(config.switch_folder / "exceptions", rights_of(config))
    for name in bad:
        log.error("exception.not-valid", file=name)
    return found


def is_exempt(scope: Scope, known: Sequence[SignedExemption], now: datetime) -> bool:
    """Whether an exception covers this scope and is not due for review."""
    return any(not one.overdue(now) for one in known if exempt(scope, [one]) is not None)


def readiness(switch: LocalSwitch) -> bool | str:
    """True, or why this role cannot be believed. A role that keeps to the safe state must be looked at."""
    return switch.safe or True


async def _reminders(config: Config, closings: Closings, news: NewsBook) -> None:
    """An exception whose review is due is an alarm until somebody signs again (§ 5.3), and so is a promise of
    information that was not kept (CM-03)."""
    while True:
        now = utc_now()
        for one in await asyncio.to_thread(known_exemptions, config):
            if one.overdue(now):
                log.error("exception.review-due", id=one.exemption.id, scope=str(one.exemption.scope))
        late = await asyncio.to_thread(closings.overdue, news, now)
        if late:
            first = min(late, key=lambda one: one.by)
            age = int((now - first.by).total_seconds())
            log.error("news.overdue", scopes=len(late), first=first.need.text, age_seconds=age)
        await asyncio.sleep(REMINDER_SECONDS)


async def _sessions(config: Config) -> None:
    """Supplier sessions whose watcher died are cut all the same, whoever ordered the closing (SW-09, T-26)."""
    while True:
        try:
            await asyncio.to_thread(cut_sessions, config)
            await asyncio.to_thread(sweep, config)
        except Error as error:
            log.error("maintenance.waits", code=error.code, reason=str(error))
        await asyncio.sleep(SESSION_SECONDS)
