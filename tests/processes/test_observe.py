"""Log, metrics and health of a role."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette

from schleuse.processes import observe
from schleuse.processes.observe import PatientStream, observation_app, observed

#: For a Python of its own that knows our packages.
OURS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class FullDisk(io.StringIO):
    """A log file on a disk without room."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class WhereFrom(Collector):
    """Notes the thread in which it is asked."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.threads.append(threading.get_ident())
        yield GaugeMetricFamily("asked", "number of questions", value=len(self.threads))


def test_a_full_disk_under_the_log_stops_nobody_from_working() -> None:
    stream = PatientStream(FullDisk())
    assert stream.write("one line\n") == 9
    stream.flush()


def test_every_line_names_its_role_whatever_thread_writes_it() -> None:
    program = (
        "import threading, structlog, logging, schleuse.processes.observe as o; o.configure_log('kim');"
        "t = threading.Thread(target=lambda: structlog.get_logger().warning('ours')); t.start(); t.join();"
        "logging.getLogger('theirs').warning('x')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=OURS)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["ours", "x"]
    assert {line["role"] for line in lines} == {"kim"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_role_whose_log_is_full_goes_on() -> None:
    program = (
        "import structlog, schleuse.processes.observe as o; o.configure_log('kim');"
        "structlog.get_logger().warning('lost'); print('went on')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, env=OURS, check=False
        )
    assert done.stdout == b"went on\n"


async def ask(app: Starlette, path: str) -> tuple[int, bytes]:
    """(status, body), called as the server of a role calls it: in the loop."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_a_slow_collector_does_not_keep_the_loop_of_the_role() -> None:
    registry = CollectorRegistry()
    collector = WhereFrom()
    registry.register(collector)
    collector.threads.clear()  # registering asks once
    status, body = asyncio.run(ask(observation_app("kim", registry, lambda: True), "/metrics"))
    assert status == 200
    assert b"asked" in body
    assert collector.threads
    assert threading.get_ident() not in collector.threads


def test_a_role_that_cannot_work_now_says_why() -> None:
    app = observation_app("kim", CollectorRegistry(), lambda: "the disk is full")
    status, body = asyncio.run(ask(app, "/readyz"))
    assert (status, json.loads(body)["reason"]) == (503, "the disk is full")
    assert asyncio.run(ask(app, "/healthz"))[0] == 200


def test_a_request_that_never_ends_does_not_spoil_the_stop_of_a_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "STOP_SECONDS", 0.05)

    async def scenario() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with observed("kim", f"127.0.0.1:{port}", CollectorRegistry(), lambda: True):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\n")
            await writer.drain()
        writer.close()

    asyncio.run(scenario())


def test_a_held_role_is_ready_and_says_what_is_held() -> None:
    """Held is a state; an operator's alarm on readiness must not ring because of it."""
    app = observation_app("kim", CollectorRegistry(), lambda: True, lambda: ["kim_mail/-/read/- HOLD"])
    status, body = asyncio.run(ask(app, "/readyz"))
    assert (status, b"kim_mail/-/read/- HOLD" in body) == (200, True)
