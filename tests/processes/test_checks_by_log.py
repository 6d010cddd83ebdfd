"""What is asked of the logs follows the logs, not the year of a clock that may be doubted (decision 0023)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.scenarios.platform import build_home

from schleuse.config import Config, read_config
from schleuse.processes import invariants
from schleuse.processes.control_offline import offline
from schleuse.processes.invariants import Answer, check_invariants
from schleuse.processes.journal_keys import log_signer, origin_of, policy_file
from schleuse.processes.switch_told import Compared, compare
from schleuse.processes.trail import PLATFORM
from schleuse.vault.history import History, HistoryReader

EINS = "109900011"
WRONG = datetime(2027, 6, 1, tzinfo=UTC)


@contextmanager
def serving(logs: dict[str, int]) -> Iterator[tuple[str, list[str]]]:
    """A journal with these logs, all witnessed, which serves no file of them. Gives its address and what is asked."""
    paths: list[str] = []
    table = {at: {"published": size, "witnessed": size} for at, size in logs.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            body = json.dumps({"state": "RUNNING", "findings": [], "logs": table}).encode()
            self.send_response(200 if self.path == "/health" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()


def config_of(home: Path, http: str) -> Config:
    config = read_config(home)
    return config.model_copy(update={"journal": config.journal.model_copy(update={"http": http})})


def test_what_a_doubted_clock_told_is_looked_for_in_the_log_that_took_it(tmp_path: Path) -> None:
    """Told in 2027 by the clock, written to the log of 2026; that of 2027 is agreed on already, and not there."""
    home = build_home(tmp_path / "home")
    took, agreed = (origin_of(read_config(home).hostname, PLATFORM, year) for year in (2026, 2027))
    for origin in (took, agreed):
        policy = policy_file(home / "journal", origin)
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(f"log {log_signer(home / 'journal', origin).key.vkey}\nquorum none\n")
    (home / "trail").mkdir(exist_ok=True)
    detail = json.dumps({"act": "switch.command", "epoch": 1, "sha256": "00"})
    line = {"tenant": PLATFORM, "detail": detail, "salt": "00" * 16, "at": WRONG.isoformat(), "result": 1}
    (home / "trail" / "control-2027.jsonl").write_text(json.dumps(line) + "\n")
    with serving({took: 20}) as (http, paths):
        found = compare(config_of(home, http), [], WRONG + timedelta(hours=1))
    assert [path for path in paths if path != "/health"] == [f"/{PLATFORM}/2026/checkpoint"]
    assert found == Compared(found.cases, 1, None), "a log that cannot be read is unknown"


class Vault:
    """Says what a vault does whose clock was wrong when it began: its log is that of the year before."""

    def __init__(self, socket: Path) -> None:
        origin = origin_of(read_config(socket.parents[1]).hostname, EINS, 2026)
        self.logs = {origin: {"counter": 9, "size": 20, "in_doubt": 0}}

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def status(self) -> dict[str, Any]:
        """See `VaultClient.status`."""
        return {"logs": self.logs}


class Reader(HistoryReader):
    """A journal that has fewer releases."""

    def read(self, origin: str, size: int, since: datetime) -> History:
        """See `HistoryReader.read`."""
        return History(5, ())


@pytest.mark.parametrize("year", [2026, 2027])
def test_releases_are_counted_in_the_logs_of_the_vault_whatever_the_year_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    monkeypatch.setattr(invariants, "VaultClient", Vault)
    monkeypatch.setattr(invariants, "HistoryReader", Reader)
    home = build_home(tmp_path / "home")
    origin = origin_of(read_config(home).hostname, EINS, 2026)
    with serving({origin: 20}) as (http, _):
        config = config_of(home, http)
        with offline(config) as tools:
            found = check_invariants(config, tools.closings, lambda: datetime(year, 6, 1, tzinfo=UTC))
    (eighth,) = [one for one in found if one.number == 8]
    assert (eighth.answer, eighth.findings) == (
        Answer.VIOLATED,
        (f"{origin}: the vault counted 9 releases, the journal has 5",),
    )
