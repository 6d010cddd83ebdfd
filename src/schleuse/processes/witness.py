"""The `witness` role: cosigns and watches for an insurer, alone on its machine (journal.md § 9, § 16).

It shares this program with the platform and nothing else: a configuration of its own (`witness.config`), no home of
the platform, no role that must run before it.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import AsyncExitStack, suppress
from functools import partial

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from schleuse.clock import Now, utc_now
from schleuse.config import TLS, BadConfigError, host_and_port
from schleuse.errors import Error
from schleuse.processes.http_protocol import BoundedProtocol
from schleuse.processes.life import until_stopped
from schleuse.processes.observe import observed, serving
from schleuse.processes.witness_figures import Figures
from schleuse.processes.witness_logs import REREAD_SECONDS, Logs, Task
from schleuse.witness.alarm import Alarm
from schleuse.witness.config import WitnessConfig
from schleuse.witness.http import WitnessPages
from schleuse.witness.keys import open_memory
from schleuse.witness.remote import HttpRemote
from schleuse.witness.service import Witness

log = structlog.get_logger()


async def run(config: WitnessConfig, now: Now = utc_now) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    remote = HttpRemote(trust(config))
    store, cosigners = open_memory(config)
    loop, stopping, registry = asyncio.get_running_loop(), asyncio.Event(), CollectorRegistry()

    def on_alarm(alarm: Alarm) -> None:
        figures.told(alarm)
        tell(alarm)

    def begin(seconds: float, task: Task) -> None:
        loop.call_soon_threadsafe(go_on, seconds, task)

    def go_on(seconds: float, task: Task) -> None:
        if not stopping.is_set():
            group.create_task(_every(seconds, task, figures, stopping))

    logs = Logs(config, remote, now, on_alarm, begin)
    figures = Figures(store, logs.origins, registry)
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        stack.callback(logs.close)
        witness = Witness(logs.trusted, cosigners, store, now, on_alarm)
        if config.listen is not None:
            app = WitnessPages(witness, logs.origins).app()
            await stack.enter_async_context(serving(_web(config.listen, config.tls, app)))
        if config.metrics is not None:
            await stack.enter_async_context(observed("witness", config.metrics, registry, figures.ready))
        async with asyncio.TaskGroup() as group:
            logs.start(witness)
            begin(REREAD_SECONDS, Task("reread", "", logs.reread))
            again = Task("reread", "", partial(logs.reread, anyway=True))
            loop.add_signal_handler(signal.SIGHUP, lambda: group.create_task(_once(again, figures, stopping)))
            log.info("witness.ready", logs=len(config.logs), keys=witness.vkeys)
            await until_stopped()
            # The threads end by themselves, at the latest with the request that is under way.
            loop.remove_signal_handler(signal.SIGHUP)
            stopping.set()
            remote.close()


def tell(alarm: Alarm) -> None:
    """An alarm as one line of the log, for the insurer's own monitoring to act on."""
    log.error("witness.alarm", finding=alarm.finding.value, origin=alarm.origin, index=alarm.index, reason=alarm.text)


async def _every(seconds: float, task: Task, figures: Figures, stopping: asyncio.Event) -> None:
    """Act again and again."""
    while not stopping.is_set():
        await _once(task, figures, stopping)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)


async def _once(task: Task, figures: Figures, stopping: asyncio.Event) -> None:
    """Act. What fails is said once when it begins and once when it is over, not with each try."""
    key = (task.name, task.origin)
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
