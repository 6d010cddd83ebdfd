"""The insurer's file, the keys that belong to it, and the role as a process beside a served log."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.journal.samples import LOG, ORIGIN, leaves, policy
from tests.serving import serving
from tests.witness.parties import URL, FakeLog, rewritten
from tests.witness.test_follow import FOLLOWING, NEXT

from schleuse.config import BadConfigError
from schleuse.journal.note import parse_note, parse_vkey
from schleuse.witness.alarm import Finding
from schleuse.witness.config import LogSection, MonitorSection, WitnessConfig, read_canaries, read_witness_config
from schleuse.witness.keys import LostError, open_memory
from schleuse.witness.remote import HttpRemote, NotThereError, RemoteError, RemoteLog

ROOT = Path(__file__).parents[2]
PLAIN = f'name = "witness.example/kasse-a"\nlisten = "127.0.0.1:0"\n[[logs]]\nkeys = ["{LOG.key.vkey}"]\n'


def written(folder: Path, text: str) -> WitnessConfig:
    (folder / "witness.toml").write_text(text, encoding="utf-8")
    return read_witness_config(folder)


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    config = written(tmp_path, PLAIN)
    assert list(config.trusted) == [ORIGIN]
    assert config.database == tmp_path / "witness.sqlite"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (PLAIN.replace("name", "nam"), "name: is missing"),
        (PLAIN.replace('kasse-a"\nlisten', 'kasse a"\nlisten'), "name: a key name"),
        (PLAIN.replace("+", "-", 1), "logs.0.keys.0"),
        (PLAIN.replace('listen = "127.0.0.1:0"\n', ""), "cosigned by nobody"),
        (PLAIN + "pull_seconds = 5\n", "needs a url"),
        (PLAIN + 'url = "file:///x"\n', "expected https"),
        (PLAIN + f'[[logs]]\nkeys = ["{LOG.key.vkey}"]\n', "listed more than once"),
        ("name = ", "is not TOML"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(BadConfigError, match=mistake.replace("+", r"\+")):
        written(tmp_path, text)


def test_canaries_are_read_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "canaries"
    path.write_text("ca" * 16 + "\n" + "cb" * 16 + "\n")
    assert read_canaries(path) == {b"\xca" * 16, b"\xcb" * 16}
    path.write_text("ca" * 15)
    with pytest.raises(BadConfigError) as caught:
        read_canaries(path)
    assert "caca" not in str(caught.value)


def test_key_and_memory_are_made_together_and_kept_together(tmp_path: Path) -> None:
    config = written(tmp_path, PLAIN + "")
    store, (cosigner,) = open_memory(config)
    store.close()
    assert config.key.stat().st_mode & 0o077 == 0
    store, (again,) = open_memory(config)
    store.close()
    assert cosigner.key == again.key
    moved = config.database.rename(tmp_path / "gone")
    with pytest.raises(LostError):
        open_memory(config)
    moved.rename(config.database)
    open_memory(config)[0].close()


@contextmanager
def served(log: FakeLog) -> Iterator[str]:
    """The fake log on a real port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                data = log.get(URL + self.path, 1 << 20)
            except NotThereError:
                self.send_error(404)
                return
            self._send(200, data)

        def do_POST(self) -> None:
            log.post(URL + self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self._send(204, b"")

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            if data:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as url:
        yield url


def test_answers_over_http_are_bounded() -> None:
    log = FakeLog(leaves(9))
    with served(log) as url:
        remote = HttpRemote()
        assert RemoteLog(url, remote).note("pending") == log.note
        with pytest.raises(NotThereError):
            remote.get(f"{url}/nothing", 10)
        with pytest.raises(RemoteError, match="more than 10 bytes"):
            remote.get(f"{url}/pending", 10)
    with pytest.raises(RemoteError):
        remote.get(f"{url}/pending", 10)


def schleuse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "schleuse", "witness", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "src", "SCHLEUSE_LANG": "en"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_paper_status_and_evidence_by_command(tmp_path: Path) -> None:
    written(tmp_path, PLAIN)
    log, there = FakeLog(leaves(9)), ("--config", str(tmp_path))
    for old, size in ((0, 5), (5, 9)):
        (tmp_path / "sheet").write_bytes(log.request(old, size).encode())
        signed = schleuse("sign", str(tmp_path / "sheet"), *there)
        assert signed.returncode == 0, signed.stderr
        assert signed.stdout.startswith("\u2014 witness.example/kasse-a ")
    status = schleuse("status", "--json", *there)
    assert (status.returncode, json.loads(status.stdout)["logs"][0]["size"]) == (0, 9)
    (tmp_path / "sheet").write_bytes(FakeLog(rewritten(9, 2)).request(9, 9).encode())
    assert schleuse("sign", str(tmp_path / "sheet"), *there).returncode == 75
    status = schleuse("status", *there)
    assert status.returncode == 75
    assert "signed size 9 with two roots (proven)" in status.stdout
    assert schleuse("evidence", str(tmp_path / "out"), *there).returncode == 0
    notes = [parse_note(path.read_bytes()) for path in sorted((tmp_path / "out").glob("*/*.checkpoint"))]
    assert len({note.text for note in notes}) == 2


@pytest.mark.slow
def test_the_role_pulls_cosigns_and_watches_alone(tmp_path: Path) -> None:
    log = FakeLog(leaves(300))
    cosigned = threading.Event()
    post = log.post

    def told(url: str, body: bytes) -> None:
        post(url, body)
        cosigned.set()

    log.post = told  # type: ignore[method-assign]
    (tmp_path / "policy").write_text(f"log {LOG.key.vkey}\nquorum none\n")
    with served(log) as url:
        written(
            tmp_path,
            PLAIN.replace(":0", f":{_free_port()}")
            + f'url = "{url}"\npull_seconds = 0.1\n[logs.monitor]\npolicy = "policy"\nevery_seconds = 0.1\n',
        )
        role = subprocess.Popen(
            [sys.executable, "-m", "schleuse", "witness", "run", "--config", str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": "src"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert role.stderr is not None
        try:
            alarms: dict[str, dict[str, object]] = {}
            for line in role.stderr:
                event = json.loads(line)
                alarms[str(event.get("finding"))] = event
                if "unknown-entry" in alarms:
                    break
            assert cosigned.wait(30)
            log.now_holds(rewritten(400, 7))
            for line in role.stderr:
                event = json.loads(line)
                if event.get("finding") == "fork":
                    break
            assert event["origin"] == ORIGIN
            with (tmp_path / "witness.toml").open("a") as file:
                file.write(f'[[logs]]\nkeys = ["{NEXT.key.vkey}"]\n')
            role.send_signal(signal.SIGHUP)
            for line in role.stderr:
                event = json.loads(line)
                if event["event"] == "witness.log-added":
                    break
            assert event["origin"] == FOLLOWING
        finally:
            role.send_signal(signal.SIGTERM)
            role.stderr.read()
            role.stderr.close()
            assert role.wait(30) == 0
    key = parse_vkey(json.loads(schleuse("status", "--json", "--config", str(tmp_path)).stdout)["keys"][0])
    assert key.name == "witness.example/kasse-a"
    assert policy("none").log_keys


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_page_for_insurers_has_each_setting_and_each_finding() -> None:
    page = (ROOT / "docs" / "witness.md").read_text(encoding="utf-8")
    settings = [name for name in WitnessConfig.model_fields if name not in {"home", "file", "logs"}]
    settings += [f"logs[].{name}" for name in LogSection.model_fields if name != "monitor"]
    settings += [f"logs[].monitor.{name}" for name in MonitorSection.model_fields]
    assert [word for word in (*settings, *Finding) if f"| `{word}` |" not in page] == []
