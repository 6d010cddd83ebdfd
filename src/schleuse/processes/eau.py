"""The `eau` role: a master that forks workers and one desk.

Workers open, check and file mails; the desk publishes the feed, serves it over HTTPS, sends Fehlernachrichten and
tells the mail store what insurers have acknowledged. Rules are compiled once, before the fork.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.clock import Now, utc_now
from schleuse.config import Config, host_and_port
from schleuse.eau.checks import Checker
from schleuse.eau.feed import AnswersOf, confirm_acknowledged, create_app
from schleuse.eau.feed_login import FeedClient, Told
from schleuse.eau.feed_session import Door
from schleuse.eau.feed_store import Terms
from schleuse.eau.hold_changes import held_between
from schleuse.eau.intake import Mailbox, Tools
from schleuse.eau.outbox import Outbox
from schleuse.eau.outcome import Policy
from schleuse.eau.store import EauStore, open_store
from schleuse.eau.switched import delivered_rate, delivered_share, delivering, delivery
from schleuse.eau.worker import Overtaken, Settings, Worker
from schleuse.errors import Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.client import JournalClient
from schleuse.kim.directory import DirectoryFile
from schleuse.kim.store import Leases, Under, open_leases
from schleuse.mail.smime.trust import NoTrustAnchorError, TrustStore
from schleuse.processes.eau_answers import Answering
from schleuse.processes.eau_following import (
    EauFollower,
    atoms_of,
    floor_of,
    tell_overtaken,
)
from schleuse.processes.feed_trail import FeedTrail
from schleuse.processes.following import Running
from schleuse.processes.http_protocol import BoundedProtocol
from schleuse.processes.injection import injected_steps, kills_are_injected
from schleuse.processes.letters import Submitter, finisher
from schleuse.processes.life import collect_seldom, keep_freed_memory, until_stopped
from schleuse.processes.observe import observed, serving
from schleuse.processes.prefork import Master, ParentWatch
from schleuse.processes.supervisor import pause_after
from schleuse.processes.suspecting import SuspicionDamagedError, register_all
from schleuse.processes.switch_figures import SwitchFigures
from schleuse.processes.switching import open_switch
from schleuse.processes.trail import Trail, open_trail
from schleuse.switch.copy import LocalSwitch, Switch
from schleuse.switch.fence import StaleEpochError
from schleuse.switch.standing import Standing
from schleuse.vault import Vault
from schleuse.vault.client import VaultClient
from schleuse.vault.denials import Denials
from schleuse.vault.tokens import audience, read_public_key

log = structlog.get_logger()

IDLE_SECONDS = 0.1
#: Employers wait for days; each look asks both stores about every insurer.
ANSWERS_SECONDS = 1.0
#: Days are what counts.
ANSWERS_END_SECONDS = 3600.0
#: Below the 2 s in which a command reaches every worker (incident.md § 5.2).
TROUBLE_SECONDS = 1.0
#: The trail of all workers together; the desk sends it.
WORKERS = "eau-worker"
#: Name of the desk in effects, and of its copy of the switch.
DESK = "eau-desk"
#: An error answer is due as fast as possible (eau.md § 13.1).
LETTER_LATE = timedelta(hours=1)
#: Mails overtake each other by minutes; a Storno that waits longer than this names an eAU that will not come.
STORNO_OVERDUE = timedelta(days=1)


def main(config: Config) -> None:
    """Run until stopped."""
    checker = open_checker(config)
    _tell_fallbacks(checker)
    # Opened once, before the fork: opening it mends a torn line, which must not be one that a worker is writing.
    trail = open_trail(config, WORKERS, JournalClient(config.journal_socket))
    children: dict[str, Callable[[], None]] = {
        f"worker-{number}": partial(_work, config, checker, f"eau-worker-{number}", trail)
        for number in range(config.eau.workers)
    }
    children["desk"] = lambda: uvloop.run(_desk(config, trail))
    # Deaths on order are no illness.
    Master(children, (lambda _crashes: 0.0) if kills_are_injected() else pause_after).run()


def settle_memory() -> None:
    """Of a worker, once after the fork: each batch makes the same objects again and needs the same megabytes."""
    collect_seldom()
    keep_freed_memory()


def open_checker(config: Config) -> Checker:
    """The rules that this home uses, compiled or from the cache. Raises UnavailableError."""
    checker = Checker(config.eau.rules, packages=config.eau.packages)
    checker.warm()
    return checker


def _tell_fallbacks(checker: Checker) -> None:
    """Once at the start: official lists that lack packages, and who judges instead."""
    for fallback in checker.fallbacks:
        if fallback.rules is None:
            log.error("eau.rules-missing", list=fallback.list_name, missing=fallback.missing)
        else:
            log.warning("eau.rules-fallback", list=fallback.list_name, missing=fallback.missing, rules=fallback.rules)


def open_vault(config: Config) -> Vault:
    """The vault role of this home; it is reached when something is asked."""
    return VaultClient(config.vault_socket)


def mailboxes(config: Config) -> dict[str, Mailbox]:
    """The insurers' mailboxes by account name."""
    return {insurer.address.lower(): Mailbox(IK(insurer.ik), insurer.address.lower()) for insurer in config.insurers}


def policy(config: Config) -> Policy:
    """What the operator chose."""
    return Policy(
        prefix=config.environment.prefix, accept_if_payload_signed=config.eau.accept_if_payload_signature_valid
    )


def make_worker(
    config: Config, checker: Checker, owner: str, leases: Leases, store: EauStore, vault: Vault, switch: Switch
) -> Worker:
    """All that one worker is made of."""
    return Worker(
        settings=Settings(owner, config.eau.batch, policy(config), config.product),
        leases=leases,
        store=store,
        mailboxes=mailboxes(config),
        tools=Tools(vault, Anchors(config.eau.trust).current, checker, DirectoryFile(config.kim.directory).current),
        now=utc_now,
        switch=switch,
        backlog_permille=config.control.backlog_permille,
        step=injected_steps(),
    )


class Anchors:
    """The trust store, read at first use, so that a missing file makes mails wait instead of stopping the role.

    Read again when a file has changed: anchors of yesterday call a practice's new certificate faulty (HD-01).
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._seen: list[tuple[int, int]] = []
        self._store: TrustStore | None = None

    def current(self) -> TrustStore:
        """Raises NoTrustAnchorError."""
        try:
            seen = [(status.st_mtime_ns, status.st_ino) for status in map(os.stat, self._paths)]
        except OSError as cause:
            raise NoTrustAnchorError("a trust anchor file cannot be read; its operator must put it back") from cause
        if self._store is None or seen != self._seen:
            self._store = TrustStore.from_files(self._paths)
            self._seen = seen
        return self._store


def _work(config: Config, checker: Checker, owner: str, trail: Trail) -> None:
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle_memory()
    watch = ParentWatch()
    leases = open_leases(config.kim_database, config.kim.spool, timedelta(days=config.kim.retention_days))
    store = open_store(config.eau_database)
    switch = open_switch(config, owner, floor=floor_of(store, leases))
    running = Running(utc_now)
    uncertain: list[str] = []
    worker = make_worker(config, checker, owner, leases, store, open_vault(config), switch)
    worker.unit = running.unit
    worker.told = partial(_overtaken, trail, owner, uncertain)
    follower = EauFollower(config, owner, switch, store, leases, trail, utc_now, running=running)
    begun = False
    while not stopped and not watch.gone():
        try:
            follower.step(uncertain)
            uncertain.clear()
            if not begun:
                worker.start()
                register_all(config, leases, switch)
                begun = True
            taken = worker.run_batch()
        except (UnavailableError, SuspicionDamagedError) as error:
            log.error("eau.waiting", code=error.code, reason=str(error))
            begun = False  # whatever we still hold goes back first
            time.sleep(TROUBLE_SECONDS)
            continue
        if not taken:
            time.sleep(IDLE_SECONDS)
    leases.close()
    store.close()


def _overtaken(trail: Trail, owner: str, uncertain: list[str], overtaken: Overtaken) -> None:
    uncertain.extend(map(str, overtaken.uncertain))
    tell_overtaken(trail, owner, overtaken)


async def _desk(config: Config, of_workers: Trail) -> None:
    registry = CollectorRegistry()
    watch = ParentWatch()
    async with AsyncExitStack() as stack:
        store = open_store(config.eau_database)
        stack.callback(store.close)
        leases = open_leases(config.kim_database, config.kim.spool, timedelta(days=config.kim.retention_days))
        stack.callback(leases.close)
        vault = open_vault(config)
        registry.register(Figures(store, [IK(insurer.ik) for insurer in config.insurers]))
        journal = JournalClient(config.journal_socket)
        stack.push_async_callback(journal.close)
        trail = open_trail(config, "eau", journal)
        switch = open_switch(config, DESK, floor=floor_of(store, leases))
        running = Running(utc_now)
        desk = Desk(config, store, leases, switch, running)
        iks = [IK(insurer.ik) for insurer in config.insurers]
        submit = Submitter(config).submit
        outbox = Outbox(store.letters, finisher(config, vault), submit, utc_now, switch, iks, running.unit)
        follower = EauFollower(config, DESK, switch, store, leases, trail, utc_now, running=running, cut=outbox.cut)
        registry.register(SwitchFigures(switch, atoms_of(config)))
        told = FeedTrail(trail, Denials(), utc_now)
        await stack.enter_async_context(serving(_feed_server(desk, vault, told.told)))
        await stack.enter_async_context(observed("eau", config.eau.metrics, registry, lambda: True))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_repeat("publish", desk.publish)),
                group.create_task(_repeat("confirm", desk.tell_confirmed)),
                group.create_task(_repeat("answers", desk.answering.follow, ANSWERS_SECONDS)),
                group.create_task(_repeat("answers-end", desk.answering.end, ANSWERS_END_SECONDS)),
                group.create_task(outbox.run(asyncio.Event())),
                group.create_task(_parent(watch)),
                group.create_task(trail.run()),
                group.create_task(of_workers.run()),
                group.create_task(follower.run()),
                group.create_task(told.refusals.keep_telling()),
            ]
            await until_stopped()
            for task in tasks:
                task.cancel()


@dataclass(frozen=True, slots=True)
class Desk:
    """What the desk does for insurers whose deliveries the switch lets begin; the others' wait."""

    config: Config
    store: EauStore
    leases: Leases
    switch: LocalSwitch
    running: Running

    @property
    def answering(self) -> Answering:
        """Answers to employers."""
        return Answering(self.config, self.store.answers, self.leases, self.switch, self.running, utc_now)

    def publish(self) -> int:
        """Number what is filed, in acceptance order, behind nothing that a worker still holds (decision 0004)."""
        published = 0
        for insurer in self.config.insurers:
            ik = IK(insurer.ik)
            at = delivery(self.switch, ik)
            if at.state.begins:
                published += self._publish(ik, insurer.address.lower(), at)
        return published

    def _terms(self, ik: IK, at: Standing) -> Terms:
        now, rules = utc_now(), [rule for rule in (one.rule for one in self.switch.entries()) if rule is not None]
        return Terms(
            at.epoch,
            now,
            delivered_rate(at),
            lambda filed: held_between(rules, delivering(ik), filed, now),
            delivered_share(at),
        )

    def _publish(self, ik: IK, account: str, at: Standing) -> int:
        # The end first, then the leases: what is filed later has no number yet, and what was claimed
        # before the end was read is either still claimed now or already filed.
        end = self.store.feed.unpublished_end(ik)
        if end is None:
            return 0
        oldest = self.leases.oldest_claimed([account])
        try:
            with self.running.unit(delivering(ik)):
                return self.store.feed.publish(
                    ik, end if oldest is None else min(end, oldest), terms=self._terms(ik, at)
                )
        except StaleEpochError as error:  # closed meanwhile; the other insurers go on (T-24)
            log.warning("switch.stale-publication", ik=str(ik), reason=str(error))
            return 0

    def tell_confirmed(self) -> int:
        """Tell the mail store what was acknowledged. Returns how many deliveries."""
        return confirm_acknowledged(self.store.feed, self.confirm)

    def confirm(self, ik: IK, deliveries: Sequence[int]) -> bool:
        """See `feed.Confirm`."""
        at = delivery(self.switch, ik)
        if not at.state.begins or self.leases.unfinished(deliveries):
            return False
        scope = delivering(ik)
        try:
            with self.running.unit(scope):
                self.leases.confirm(deliveries, utc_now(), Under(scope, at.epoch))
        except StaleEpochError as error:  # closed meanwhile: told after the opening; the other insurers go on (T-24)
            log.warning("switch.stale-confirmation", ik=str(ik), reason=str(error))
            return False
        return True


async def _repeat(name: str, step: Callable[[], int], idle_s: float = IDLE_SECONDS) -> None:
    while True:
        try:
            done = await asyncio.to_thread(step)
        except Error as error:
            log.error(f"{name}.waiting", code=error.code, reason=str(error))
            await asyncio.sleep(TROUBLE_SECONDS)
            continue
        if not done:
            await asyncio.sleep(idle_s)


async def _parent(watch: ParentWatch) -> None:
    while not watch.gone():
        await asyncio.sleep(0.5)
    signal.raise_signal(signal.SIGTERM)


def _feed_server(desk: Desk, vault: Vault, told: Told) -> uvicorn.Config:
    config = desk.config
    host, port = host_and_port(config.eau.feed)
    return uvicorn.Config(
        create_app(
            desk.store.feed,
            vault,
            feed_clients(config),
            desk.confirm,
            aud=audience(config.hostname),
            now=utc_now,
            door=Door(desk.switch, config.kim.contact, desk.running.unit),
            told=told,
            answers=AnswersOf(desk.store.answers, desk.answering.waits, config.retention_frozen.exists),
        ),
        host=host,
        port=port,
        ssl_certfile=config.eau.feed_tls.certificate,
        ssl_keyfile=config.eau.feed_tls.key,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=BoundedProtocol,
        ws="none",
        server_header=False,
    )


def feed_clients(config: Config) -> list[FeedClient]:
    """Who may read which feed. Raises TokenKeyError when a public key cannot be read."""
    return [
        FeedClient(client.name, IK(insurer.ik), read_public_key(client.public_key))
        for insurer in config.insurers
        for client in insurer.feed_clients
    ]


class Figures(Collector):
    """Counted when somebody looks."""

    def __init__(self, store: EauStore, iks: list[IK], now: Now = utc_now) -> None:
        self._store = store
        self._iks = iks
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        mails = GaugeMetricFamily("schleuse_eau_mails", "Decided mails by insurer and state", labels=["ik", "state"])
        for ik in self._iks:
            for state, number in self._store.outcomes(ik).items():
                mails.add_metric([str(ik), state], number)
        yield mails
        yield GaugeMetricFamily(
            "schleuse_eau_fehlernachrichten_waiting", "Fehlernachrichten not sent yet", self._store.letters.waiting()
        )
        yield GaugeMetricFamily(
            "schleuse_eau_fehlernachrichten_late",
            "Fehlernachrichten not sent within an hour",
            self._store.letters.waiting(self._now() - LETTER_LATE),
        )
        interim = GaugeMetricFamily(
            "schleuse_eau_answers_open",
            "Employers' requests with an interim answer, by its code",
            labels=["ik", "code"],
        )
        for ik in self._iks:
            for code, number in self._store.answers.counts(ik, self._now()).items():
                interim.add_metric([str(ik), str(int(code))], number)
        yield interim
        probes = GaugeMetricFamily(
            "schleuse_eau_probes", "Test mails of practices that came to a productive mailbox (HD-07)", labels=["ik"]
        )
        for ik in self._iks:
            probes.add_metric([str(ik)], self._store.probes(ik))
        yield probes
        overdue = Counter(str(storno.ik) for storno in self._store.overdue_stornos(self._now() - STORNO_OVERDUE))
        stornos = GaugeMetricFamily(
            "schleuse_eau_stornos_overdue", "Storno that wait for their eAU since more than a day", labels=["ik"]
        )
        for ik in self._iks:
            stornos.add_metric([str(ik)], overdue[str(ik)])
        yield stornos
