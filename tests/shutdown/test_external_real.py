"""The two shipped ways to switch a foreign system, with a real service, a real firewall and a real hook (SW-08)."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.shutdown.operators import RIGHTS, Clock, close, new_log, open_again
from tests.shutdown.test_external import needed_of

from schleuse.scopes import Scope
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.external import ExternalSystem, SystemStandings
from schleuse.shutdown.external_keeper import ExternalKeeper
from schleuse.shutdown.hooks import Action
from schleuse.shutdown.proofs import claims
from schleuse.switch.log import SwitchLog

SCRIPTS = Path(__file__).parents[2] / "deploy" / "external"
SERVER = (
    "import socket,sys; s=socket.create_server(('127.0.0.1', 8123)); print('up', flush=True)\n"
    "while True: s.accept()[0].close()"
)


class Site:
    def __init__(self, folder: Path, stop: Action, start: Action, probe: Action) -> None:
        self.system = ExternalSystem("it", Scope("payments_support"), stop, start, probe, timedelta(seconds=20))
        self.folder = folder / "switch"
        self.log: SwitchLog = new_log(self.folder / "log")
        self.clock = Clock()
        self.keeper = ExternalKeeper(
            [self.system], SystemStandings(self.log.read_all), self.folder, RIGHTS, lambda _: None, self.clock, "here"
        )

    def close(self) -> Verdict:
        close(self.log, "payments_support")
        asyncio.run(self.keeper.step())
        [claim] = claims(self.folder / "proofs", needed_of(self.system, self.log, self.clock()), self.clock())
        return claim.verdict

    def open(self) -> None:
        open_again(self.log, "payments_support")
        asyncio.run(self.keeper.step())


def code(*command: str) -> int:
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    script, pidfile = str(SCRIPTS / "service"), str(tmp_path / "it.pid")
    yield script, pidfile
    code(script, "stop", pidfile)


def test_a_service_is_stopped_for_real_and_started_by_two_persons(tmp_path: Path, service: tuple[str, str]) -> None:
    script, pidfile = service
    program = (sys.executable, "-c", "import time; time.sleep(600)")
    assert code(script, "start", pidfile, *program) == 0
    pid = int(Path(pidfile).read_text().split()[0])
    site = Site(tmp_path, (script, "stop", pidfile), (script, "start", pidfile, *program), (script, "probe", pidfile))
    assert site.close() is Verdict.PROVEN
    assert not Path(f"/proc/{pid}/cmdline").exists() or Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    site.open()
    assert code(script, "probe", pidfile) == 0


def test_the_service_script_stops_what_ignores_a_polite_request(service: tuple[str, str]) -> None:
    script, pidfile = service
    stubborn = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    assert code(script, "start", pidfile, sys.executable, "-c", stubborn) == 0
    assert code(script, "stop", pidfile) == 0
    assert code(script, "probe", pidfile) == 1
    assert code(script, "stop", pidfile) == 0


@pytest.fixture
def namespace() -> Iterator[list[str]]:
    """What to put before a command so that it runs in a network of its own, with a server on port 8123."""
    if shutil.which("nft") is None or shutil.which("nsenter") is None:
        pytest.skip("nftables or nsenter is not installed")
    if os.geteuid() != 0:
        pytest.skip("a network namespace with nftables needs root")
    argv = ["unshare", "-n", "sh", "-c", f'ip link set lo up && exec {sys.executable} -c "$0"', SERVER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != "up\n":
                pytest.skip("this machine permits no network namespace")
            inside = ["nsenter", "-t", str(server.pid), "-n"]
            if code(*inside, "nft", "list", "ruleset") != 0:
                pytest.skip("this machine permits no nftables in a network namespace")
            yield inside
        finally:
            server.kill()


def test_a_firewall_rule_closes_a_port_and_two_persons_take_it_away(tmp_path: Path, namespace: list[str]) -> None:
    script = [*namespace, str(SCRIPTS / "nft-port")]
    assert code(*script, "probe", "8123") == 0
    site = Site(tmp_path, (*script, "stop", "8123"), (*script, "start", "8123"), (*script, "probe", "8123"))
    assert site.close() is Verdict.PROVEN
    assert code(*script, "probe", "8123") == 1
    assert code(*script, "stop", "8123") == 0  # again, harmless (SW-16)
    site.open()
    assert code(*script, "probe", "8123") == 0
    assert code(*script, "start", "8123") == 0


def test_a_firewall_rule_that_somebody_took_away_is_put_back(tmp_path: Path, namespace: list[str]) -> None:
    script = [*namespace, str(SCRIPTS / "nft-port")]
    site = Site(tmp_path, (*script, "stop", "8123"), (*script, "start", "8123"), (*script, "probe", "8123"))
    site.close()
    code(*namespace, "nft", "flush", "ruleset")
    site.clock.forward(61)
    asyncio.run(site.keeper.step())
    assert code(*script, "probe", "8123") == 1


class Hook(http.server.BaseHTTPRequestHandler):
    """A deployment that is scaled by posts."""

    replicas = 3
    posts: list[dict[str, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        facts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Hook.posts.append(facts)
        if facts["step"] != "probe":
            Hook.replicas = 3 if facts["step"] == "start" else 0
        self.send_response(200 if Hook.replicas or facts["step"] == "stop" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_hook_is_told_what_to_do_and_why(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        site = Site(tmp_path, url, url, url)
        assert site.close() is Verdict.PROVEN
        site.open()
        server.shutdown()
    assert Hook.replicas == 3
    assert [one["step"] for one in Hook.posts] == ["probe", "stop", "probe", "start", "probe"]
    assert Hook.posts[1] == {
        "name": "it",
        "scope": "payments_support",
        "state": "HOLD",
        "epoch": "1",
        "step": "stop",
    }
