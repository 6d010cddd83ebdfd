"""The `witness` role: cosigns and watches for an insurer, alone on its machine (journal.md § 9, § 16).

It shares this program with the platform and nothing else: a configuration of its own (`witness.config`), no home of
the platform, no role that must run before it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from schleuse.clock import Now, utc_now
from schleuse.config import TLS, BadConfigError, host_and_port
from schleuse.errors import Error
from schleuse.journal.note import Note
from schleuse.journal.policy import Witness as Peer
from schleuse.journal.policy import parse_policy
from schleuse.processes.http_protocol import BoundedProtocol
from schleuse.processes.life import until_stopped
from schleuse.processes.observe import observed, serving
from schleuse.processes.witness_figures import Figures
from schleuse.witness.alarm import Alarm, OnAlarm
from schleuse.witness.config import LogSection, MonitorSection, WitnessConfig, read_canaries
from schleuse.witness.http import WitnessPages
from schleuse.witness.keys import open_memory
from schleuse.witness.monitor import Monitor
from schleuse.witness.monitor_store import MonitorStore
from schleuse.witness.pull import Puller
from schleuse.witness.remote import HttpRemote, Remote, RemoteLog, cosigned_by_peer
from schleuse.witness.rules import Settings
from schleuse.witness.service import Witness

log = structlog.get_logger()


async def run(config: WitnessConfig, now: Now = utc_now) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    remote = HttpRemote(trust(config))
    store, cosigners = open_memory(config)
    registry = CollectorRegistry()
    figures = Figures(store, list(config.trusted), registry)

    def on_alarm(alarm: Alarm) -> None:
        figures.told(alarm)
        tell(alarm)

    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        witness = Witness(config.trusted, cosigners, store, now, on_alarm)
        tasks: list[tuple[float, Task]] = []
        for section in config.logs:
            if section.url is not None and section.pull_seconds is not None:
                puller = Puller(section.origin, RemoteLog(section.url, remote), witness, now, on_alarm)
                tasks.append((section.pull_seconds, Task("pull", section.origin, puller.poll)))
            if section.monitor is not None:
                monitor = _monitor(stack, section, section.monitor, remote, witness, now, on_alarm)
                tasks.append((section.monitor.every_seconds, Task("monitor", section.origin, monitor.look)))
        if config.listen is not None:
            app = WitnessPages(witness, list(config.trusted)).app()
            await stack.enter_async_context(serving(_web(config.listen, config.tls, app)))
        if config.metrics is not None:
            await stack.enter_async_context(observed("witness", config.metrics, registry, figures.ready))
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for seconds, task in tasks:
                group.create_task(_every(seconds, task, figures, stopping))
            log.info("witness.ready", logs=len(config.logs), keys=witness.vkeys)
            await until_stopped()
            # The threads end by themselves, at the latest with the request that is under way.
            stopping.set()
            remote.close()


def tell(alarm: Alarm) -> None:
    """An alarm as one line of the log, for the insurer's own monitoring to act on."""
    log.error("witness.alarm", finding=alarm.finding.value, origin=alarm.origin, index=alarm.index, reason=alarm.text)


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do again and again about one log, in a thread. name: "pull" or "monitor"."""

    name: str
    origin: str
    act: Callable[[], object]


async def _every(seconds: float, task: Task, figures: Figures, stopping: asyncio.Event) -> None:
    """Act again and again. What fails is said once when it begins and once when it is over, not with each try."""
    key = (task.name, task.origin)
    while not stopping.is_set():
        try:
            await asyncio.to_thread(task.act)
        except Error as error:
            if figures.trouble.get(key) != error.code and not stopping.is_set():
                log.warning("witness.waiting", origin=task.origin, code=error.code, reason=str(error))
            figures.trouble[key] = error.code
        except Exception:  # a mistake of ours about one log must not end the cosigning of the others
            log.exception("witness.mistake", origin=task.origin)
            figures.trouble[key] = "mistake"
        else:
            if figures.trouble.pop(key, None) is not None:
                log.info("witness.again", origin=task.origin)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)


def _monitor(
    stack: AsyncExitStack,
    section: LogSection,
    monitor: MonitorSection,
    remote: Remote,
    witness: Witness,
    now: Now,
    on_alarm: OnAlarm,
) -> Monitor:
    policy = parse_policy(_read(monitor))
    canaries = frozenset[bytes]() if monitor.canaries is None else read_canaries(monitor.canaries)
    settings = Settings(canaries, monitor.subjects_per_hour, monitor.denials_in_series)
    store = MonitorStore(monitor.database, section.origin)
    stack.callback(store.close)
    ask = partial(_ask_peer, section.origin, remote)
    return Monitor(
        section.origin,
        policy,
        settings,
        RemoteLog(section.url or "", remote),
        store,
        now,
        on_alarm,
        ask,
        keep=witness.keep,
        reread=monitor.reread_bundles,
    )


def _read(monitor: MonitorSection) -> bytes:
    try:
        return monitor.policy.read_bytes()
    except OSError as cause:
        raise BadConfigError([f"{monitor.policy}: cannot be read ({cause.strerror})"]) from cause


def _ask_peer(origin: str, remote: Remote, peer: Peer) -> Note:
    return cosigned_by_peer(peer.url or "", origin, remote)


def trust(config: WitnessConfig) -> ssl.SSLContext:
    """Whom to believe for https. Raises BadConfigError."""
    try:
        return ssl.create_default_context(cafile=config.ca)
    except OSError as cause:
        raise BadConfigError([f"{config.ca}: cannot be read as certificates ({type(cause).__name__})"]) from cause


def _web(listen: str, tls: TLS | None, app: object) -> uvicorn.Config:
    host, port = host_and_port(listen)
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host,
        port=port,
        http=BoundedProtocol,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
