"""Log, metrics and health of one role process.

The log is for the operator at three at night: one JSON object a line on stderr, one event with keys, no
personal data (style.md § 11). Metrics are Prometheus text; `/healthz` says that the process lives, `/readyz`
that it can do its work now.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TextIO, cast

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schleuse.config import host_and_port

#: True, or the reason why the role cannot work now. Called in a thread.
Ready = Callable[[], bool | str]


class PatientStream:
    """A log that cannot be written costs a line, and never the work that the line is about.

    The log often stands on the disk whose being full it reports; an error here would keep a sender from his 4xx.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_log(role: str, level: int = logging.INFO) -> None:
    """One JSON object a line on stderr, from us and from the libraries (warnings and worse)."""

    def name_role(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        # No context variable: threads, and callbacks of a listener's connections, have contexts of their own.
        event["role"] = role
        return event

    stream = PatientStream(sys.stderr)
    shared: list[structlog.typing.Processor] = [
        name_role,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, stream)),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


#: What the switch closes for this role now, as texts of scopes.
Held = Callable[[], Sequence[str]]


def observation_app(role: str, registry: CollectorRegistry, ready: Ready, held: Held | None = None) -> Starlette:
    """The three addresses of a role's local port. held: shown beside readiness, because a held role is ready."""

    async def metrics(_request: Request) -> Response:
        # In a thread: a collector asks a database, and the loop that answers mail must not wait for it.
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def health(_request: Request) -> Response:
        return JSONResponse({"role": role, "alive": True})

    async def readiness(_request: Request) -> Response:
        answer = await asyncio.to_thread(ready)
        if answer is True:
            state = {} if held is None else {"held": list(held())}
            return JSONResponse({"role": role, "ready": True, **state})
        return JSONResponse({"role": role, "ready": False, "reason": answer or "starting"}, status_code=503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", health), Route("/readyz", readiness)])


class _Server(uvicorn.Server):
    """Signals belong to the role, not to one of its servers."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def serving(config: uvicorn.Config) -> AsyncIterator[uvicorn.Server]:
    """Serve HTTP inside the role's own loop until the block is left. Raises OSError if the port is taken."""
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                task.result()
                raise OSError(f"cannot listen on {config.host}:{config.port}")
            await asyncio.sleep(0.01)
        yield server
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), STOP_SECONDS)
        if not task.done():
            server.force_exit = True
            await task


#: A server that has not ended its requests by then is cut off; the supervisor gives a role 10 s in all.
STOP_SECONDS = 3.0


@asynccontextmanager
async def observed(
    role: str, listen: str, registry: CollectorRegistry, ready: Ready, held: Held | None = None
) -> AsyncIterator[None]:
    """Serve metrics and health of this role on its local port."""
    host, port = host_and_port(listen)
    config = uvicorn.Config(
        observation_app(role, registry, ready, held),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    async with serving(config):
        yield
