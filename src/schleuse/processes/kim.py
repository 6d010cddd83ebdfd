"""The `kim` role: SMTP in and out, mailboxes, POP3, DSN. Reads hostile bytes, has no key to content (HD-11, HD-22)."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter as TallyCounter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp

from schleuse.clock import utc_now
from schleuse.config import Config, host_and_port
from schleuse.config import Route as RouteSection
from schleuse.errors import Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.kim.accounts import Account, Accounts, mailbox_user
from schleuse.kim.door import Door, GuardedIntake
from schleuse.kim.policy import RelayPolicy, SubmissionPolicy
from schleuse.kim.store import MailStore, Settings, open_mail_store
from schleuse.mail import passwords
from schleuse.mail.listener import Limits, listen_smtp
from schleuse.mail.outbound import run_queue
from schleuse.mail.outbound_routes import BadRouteError, Credentials, OutboundConfig, Route, Routes, TLSMode
from schleuse.mail.passwords import Passwords
from schleuse.mail.pop3_listener import Config as Pop3Config
from schleuse.mail.pop3_listener import listen_pop3
from schleuse.mail.smtp import Policy
from schleuse.mail.smtp import Settings as SmtpSettings
from schleuse.mail.spool import OsDisk
from schleuse.mail.tls_pipe import tls_context
from schleuse.processes.following import Running
from schleuse.processes.http_protocol import BoundedProtocol
from schleuse.processes.injection import injected_disk, injected_steps
from schleuse.processes.kim_deferrals import DeferralDesk
from schleuse.processes.kim_following import KIM, Edges, atoms_of, follower, held_by, held_scopes
from schleuse.processes.kim_held import LettersWatch, told_by
from schleuse.processes.kim_mailboxes import Mailboxes
from schleuse.processes.kim_room import Room
from schleuse.processes.kim_sending import GatedQueue, SendingGate
from schleuse.processes.kim_trail import ToldLogins, acceptances
from schleuse.processes.life import until_stopped
from schleuse.processes.observe import observed, serving
from schleuse.processes.receipt_mails import ReceiptMailer
from schleuse.processes.receipts import Issuer, receipt_key
from schleuse.processes.receipts_http import receipts_app
from schleuse.processes.reports import send_reports
from schleuse.processes.switch_figures import SwitchFigures
from schleuse.processes.switching import open_switch
from schleuse.processes.trail import OUTSIDE, PLATFORM, Act, open_trail
from schleuse.scopes import NONE, Direction, ScopeState, Service
from schleuse.switch.copy import Switch
from schleuse.vault.denials import Denials

log = structlog.get_logger()

IDLE_SECONDS = 0.2
TROUBLE_SECONDS = 2.0
QUEUE_POLL = timedelta(seconds=1)
PURGE_EVERY = timedelta(hours=1)
#: Nothing is purged sooner (kim.md § 17).
SHORTEST_RETENTION = timedelta(days=10)
#: A stopping role ends its sessions within this time; the supervisor gives it 8 s in all.
DRAIN_SECONDS = 2.0


def main(config: Config) -> None:
    """Run until stopped."""
    uvloop.run(run(config))


async def run(config: Config) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    kim = config.kim
    accounts = load_accounts(config)
    registry = CollectorRegistry()
    events = Counter("schleuse_kim_events", "What happened at the edges of the mail role", ["event"], registry=registry)

    def count(event: str) -> None:
        events.labels(event).inc()

    async with AsyncExitStack() as stack:
        store = open_mail_store(
            store_settings(config), accounts.account_of, disk=injected_disk(), step=injected_steps()
        )
        stack.callback(store.close)
        registry.register(Deliveries(store, accounts))
        room = Room(config, OsDisk())
        registry.register(room)
        passwords_ = Passwords(_find(accounts), now=utc_now, memory_key=os.urandom(32))
        stack.callback(passwords_.close)
        journal = JournalClient(config.journal_socket)
        stack.push_async_callback(journal.close)
        trail = open_trail(config, "kim", journal, derived=acceptances(store, _insurer_of(accounts), utc_now))
        outside = open_trail(config, OUTSIDE, journal)
        trail.tell(Act(PLATFORM, Kind.ADMINISTRATION, Result.GRANTED, Purpose.OPERATION, detail={"act": "start"}))
        logins = ToldLogins(passwords_, accounts, trail, Denials(), utc_now)
        tls = tls_context(kim.tls.certificate, kim.tls.key)
        suffix = config.environment.suffix
        routes = outbound_routes(config)
        switch = open_switch(config, KIM, floor=store.leases.holds.head())
        door = Door(accounts, switch, room.level)
        desk = DeferralDesk(store.deferrals, accounts.account_of, utc_now, config.home / "run" / "deferred")
        registry.register(desk)
        running = Running(utc_now)
        intake = GuardedIntake(store, door, unit=running.unit, deferred=desk.deferred, kept=desk.accepted)
        registry.register(SwitchFigures(switch, atoms_of(config)))
        submission = SubmissionPolicy(accounts, suffix, lambda domain: routes.find(f"@{domain}") is not None, door)
        listeners: list[tuple[str | None, bool, Policy, bool]] = [
            (kim.smtp_tls, True, submission, True),
            (kim.smtp_starttls, False, submission, True),
            (kim.smtp_relay, True, RelayPolicy(accounts, suffix, door), False),
        ]
        relay_tls = tls_context(kim.tls.certificate, kim.tls.key, kim.smtp_relay_client_ca)
        for listen, implicit, policy, login in listeners:
            if listen is not None:
                host, port = host_and_port(listen)
                await stack.enter_async_context(
                    listen_smtp(
                        host,
                        port,
                        settings=SmtpSettings(config.hostname, login, not implicit, kim.max_mail_octets),
                        policy=policy,
                        intake=intake,
                        now=utc_now,
                        passwords=logins if login else None,
                        tls=tls if login else relay_tls,
                        implicit_tls=implicit,
                        limits=Limits(kim.max_connections, kim.max_connections_per_peer),
                        count=count,
                        postponed=desk.postponed,
                        grace=DRAIN_SECONDS,
                    )
                )
        host, port = host_and_port(kim.pop3_tls)
        mailboxes = Mailboxes(store, accounts, switch, running.unit)
        pop3 = await stack.enter_async_context(
            listen_pop3(
                Pop3Config(
                    config.hostname,
                    host,
                    port,
                    max_sessions_per_peer=kim.max_connections_per_peer,
                    max_sessions=kim.max_connections,
                ),
                tls=tls,
                authenticate=logins.authenticate,
                mailboxes=mailboxes,
                count=count,
                grace=timedelta(seconds=DRAIN_SECONDS),
            )
        )
        outbound = await stack.enter_async_context(
            run_queue(
                GatedQueue(store.queue, switch),
                OutboundConfig(config.hostname, routes, poll=QUEUE_POLL),
                now=utc_now,
                jitter=random.random,
                count=count,
                gate=SendingGate(switch, running.unit, held_by(switch)),
                grace=timedelta(seconds=DRAIN_SECONDS / 2),
            )
        )
        edges = Edges(pop3, mailboxes, outbound, running)
        follows = follower(config, switch, store, trail, running, edges, utc_now)
        letters = LettersWatch(store.held_letters, switch, told_by(trail), count, utc_now)
        issuer = Issuer(config, receipt_key(config.home), store, accounts, switch, utc_now)
        receipts = receipts_app(store.origins, issuer, logins.authenticate, utc_now)
        await stack.enter_async_context(serving(_receipts_server(config, receipts)))
        own_mail = GuardedIntake(store, door, unit=running.unit)
        mailer = ReceiptMailer(config, store, accounts, issuer, utc_now, own_mail.accept)
        held = partial(held_scopes, switch, atoms_of(config))
        await stack.enter_async_context(observed("kim", kim.metrics, registry, lambda: readiness(config, store), held))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(follows.run()),
                group.create_task(letters.run()),
                group.create_task(_reports(store, switch)),
                group.create_task(_purge(store, desk)),
                group.create_task(desk.keep_writing()),
                group.create_task(trail.run()),
                group.create_task(outside.run()),
                group.create_task(logins.refusals.keep_telling()),
            ]
            if kim.receipt_mails:
                tasks.append(group.create_task(mailer.run()))
            await until_stopped()
            for task in tasks:
                task.cancel()


def _receipts_server(config: Config, app: ASGIApp) -> uvicorn.Config:
    host, port = host_and_port(config.kim.receipts)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_certfile=config.kim.tls.certificate,
        ssl_keyfile=config.kim.tls.key,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=BoundedProtocol,
        ws="none",
        server_header=False,
    )


def store_settings(config: Config) -> Settings:
    """Where the mail store of this home is."""
    return Settings(
        url=config.kim_database,
        spool=config.kim.spool,
        host=config.hostname,
        retention=timedelta(days=config.kim.retention_days),
        reserve_bytes=config.kim.min_free_octets,
        frozen=config.retention_frozen,
    )


def readiness(config: Config, store: MailStore) -> bool | str:
    """True, or why mail would be answered with 4xx now."""
    try:
        store.ask()
    except Error as error:
        return str(error)
    return Room(config, OsDisk()).shortage() or True


def outbound_routes(config: Config) -> Routes:
    """Where mail for other domains goes. Raises BadRouteError."""
    routes: dict[str, Route] = {}
    for section in config.kim.routes:
        domain = section.domain.lower()
        if domain in routes:
            raise BadRouteError(f"two routes lead to {domain}; only one can")
        routes[domain] = _route(section)
    smarthost = routes.pop("*", None)
    return Routes(routes, smarthost, frozenset({config.hostname.lower()}))


def _route(section: RouteSection) -> Route:
    credentials = None
    if (section.user is None) != (section.password_file is None):
        raise BadRouteError(f"the route to {section.host} needs both of user and password_file, or none")
    if section.user is not None and section.password_file is not None:
        credentials = Credentials(section.user, section.password_file)
    return Route(
        section.host,
        section.port,
        TLSMode(section.tls),
        section.ca,
        client_certificate=section.client_certificate,
        client_key=section.client_key,
        credentials=credentials,
        connections=section.connections,
    )


def load_accounts(config: Config) -> Accounts:
    """The accounts with their password hashes. Raises UnavailableError when a file cannot be read."""
    return Accounts(
        Account(
            account.address.lower(),
            IK(account.owner.partition(":")[2]) if account.owner.startswith("insurer:") else None,
            _text(account.password_hash_file),
        )
        for account in config.accounts
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as cause:
        raise UnavailableError(f"the file {path.name} cannot be read ({cause.strerror})") from cause


def _find(accounts: Accounts) -> Callable[[str], passwords.Account | None]:
    def find(user_name: str) -> passwords.Account | None:
        account = accounts.get(mailbox_user(user_name))
        return passwords.Account(account.address, account.password_hash) if account else None

    return find


class Deliveries(Collector):
    """Deliveries by owner and state, counted when somebody looks. No address is a label: it may name a person."""

    def __init__(self, store: MailStore, accounts: Accounts) -> None:
        self._store = store
        self._accounts = accounts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "schleuse_kim_deliveries", "Deliveries of the mail store by owner and state", labels=["owner", "state"]
        )
        numbers: TallyCounter[tuple[str, str]] = TallyCounter()
        try:
            counts = self._store.counts()
        except Error:  # the other figures are needed most just now; readiness says why
            counts = {}
        for name, states in counts.items():
            for state, number in states.items():
                numbers[self._owner(name), state.value] += number
        for labels, number in numbers.items():
            family.add_metric(labels, number)
        yield family

    def _owner(self, name: str) -> str:
        account = self._accounts.get(name)
        if account is None:
            return name.strip("()")
        return f"insurer {account.insurer}" if account.insurer else "practices"


async def _reports(store: MailStore, switch: Switch) -> None:
    while True:
        if switch.standing(Service.KIM_MAIL, NONE, Direction.ACCEPT).state is ScopeState.CLOSED:
            await asyncio.sleep(IDLE_SECONDS)  # no answer path exists (incident.md § 1.4); they stay owed
            continue
        try:
            sent = await asyncio.to_thread(send_reports, store)
        except Error as error:
            log.error("reports.waiting", code=error.code, reason=str(error))
            await asyncio.sleep(TROUBLE_SECONDS)
            continue
        except Exception as fault:  # one receipt that cannot be built must not stop SMTP and POP3
            log.error("reports.waiting", code="kim.reports-failed", reason=type(fault).__name__)
            await asyncio.sleep(TROUBLE_SECONDS)
            continue
        if not sent:
            await asyncio.sleep(IDLE_SECONDS)


def _insurer_of(accounts: Accounts) -> Callable[[str], IK | None]:
    def insurer_of(name: str) -> IK | None:
        account = accounts.get(name)
        return account.insurer if account else None

    return insurer_of


async def _purge(store: MailStore, desk: DeferralDesk) -> None:
    while True:
        try:
            erased = await asyncio.to_thread(store.purge, utc_now())
            await asyncio.to_thread(desk.forget)
            await asyncio.to_thread(store.origins.forget, utc_now() - SHORTEST_RETENTION)
            if erased:
                log.info("mail.purged", bodies=erased)
        except Error as error:
            log.error("purge.waiting", code=error.code, reason=str(error))
        except Exception as fault:  # nor must one body that cannot be erased
            log.error("purge.waiting", code="kim.purge-failed", reason=type(fault).__name__)
        await asyncio.sleep(PURGE_EVERY.total_seconds())
