"""What probes of closures make of what they meet; against the real roles they run in tests/scenarios (SW-07)."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.scenarios.platform import build_home, free_ports

from schleuse.config import Config, read_config
from schleuse.database import create_engine, transaction
from schleuse.processes.control_probes import PlatformProbes, feed_seen, rcpt_seen
from schleuse.processes.control_workers import workers_of
from schleuse.processes.switching import ENFORCED, enforced_atoms
from schleuse.scopes import NONE, Direction, Scope, ScopeState, Service, atom
from schleuse.shutdown.closure import Answer, Check, What, checks, provable
from schleuse.shutdown.closure import Need as Needed
from schleuse.switch import fence

IK = "109900011"
PROCESS = atom(Service.EAU_INTAKE, IK, Direction.PROCESS)
DELIVER = atom(Service.EAU_INTAKE, IK, Direction.DELIVER)
ANSWERS = atom(Service.EAU_EMPLOYER_ANSWER, IK, Direction.DELIVER)
KEYS = atom(Service.KEYS, IK, Direction.PROCESS)
OUT = atom(Service.KIM_MAIL, NONE, Direction.DELIVER)
VAULT = """# TYPE schleuse_vault_releases counter
schleuse_vault_releases_total{ik="109900011",purpose="EAU_INTAKE"} 7.0
schleuse_vault_releases_total{ik="109900011",purpose="EAU_DELIVERY"} 2.0
schleuse_vault_releases_total{ik="109900011",purpose="CLEARING"} 1.0
schleuse_vault_releases_total{ik="109900022",purpose="EAU_INTAKE"} 100.0
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which nothing runs."""
    folder = build_home(tmp_path_factory.mktemp("base") / "home")
    first = free_ports(15)
    file = folder / "schleuse.toml"
    text = file.read_text()
    for offset in range(15):
        text = text.replace(f"127.0.0.1:{10000 + offset}", f"127.0.0.1:{first + offset}")
    file.write_text(text)
    return folder


@pytest.fixture
def config(home: Path) -> Config:
    return read_config(home)


@pytest.fixture
def probes(config: Config) -> Iterator[PlatformProbes]:
    one = PlatformProbes(config)
    yield one
    one.close()


@contextmanager
def metrics(config: Config, text: str) -> Iterator[None]:
    """Something that answers where the vault's metrics are."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    host, _, port = config.vault.metrics.rpartition(":")
    with http.server.ThreadingHTTPServer((host, int(port)), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_platform_that_does_not_answer_proves_nothing(probes: PlatformProbes) -> None:
    wanted = [Check(DELIVER, what) for what in (What.SMTP, What.POP3, What.FEED, What.ANSWERS)]
    seen = asyncio.run(probes.outside(wanted))
    assert {seen[one].answer for one in wanted} == {None}
    assert {seen[one].text for one in wanted} == {"Connection refused"}


@pytest.mark.parametrize("kind", [What.SMTP, What.POP3])
def test_a_password_that_cannot_be_read_proves_nothing_and_is_told(tmp_path: Path, config: Config, kind: What) -> None:
    """It ended the control role in each round."""
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe\x81")
    control = config.control.model_copy(update={"probe_account": "probe@example.org", "probe_password_file": file})
    probes = PlatformProbes(config.model_copy(update={"control": control}))
    check = Check(OUT, kind)
    seen = asyncio.run(probes.outside([check]))[check]
    probes.close()
    assert (seen.answer, seen.text) == (None, "the password cannot be used (UnicodeDecodeError)")


def test_counters_and_fences_of_a_platform_that_is_not_there_are_unknown(probes: PlatformProbes, home: Path) -> None:
    wanted = [Check(PROCESS, What.RELEASES), *(Check(one, What.EFFECTS) for one in (DELIVER, ANSWERS, OUT))]
    assert set(asyncio.run(probes.counts(wanted)).values()) == {None}
    assert asyncio.run(probes.fences([PROCESS])) == {PROCESS: []}
    assert not (home / "eau.sqlite").exists()  # a look makes nothing


def test_releases_count_for_the_insurer_and_the_purpose_of_the_scope(config: Config, probes: PlatformProbes) -> None:
    wanted = [Check(one, What.RELEASES) for one in (PROCESS, DELIVER, KEYS)]
    with metrics(config, VAULT):
        counts = asyncio.run(probes.counts(wanted))
    assert [counts[one] for one in wanted] == [7, 2, 10]


def test_the_fence_of_each_database_is_read(tmp_path: Path, config: Config) -> None:
    urls = [f"sqlite:///{tmp_path / name}.sqlite" for name in ("kim", "eau")]
    for url, epoch in zip(urls, (3, 4), strict=True):
        engine = create_engine(url)
        metadata = sa.MetaData()
        fence.define_table(metadata)
        with transaction(engine) as connection:
            metadata.create_all(connection)
            fence.raise_to(connection, {PROCESS: epoch}, epoch)
        engine.dispose()
    changed = config.model_copy(
        update={
            "kim": config.kim.model_copy(update={"database": urls[0]}),
            "eau": config.eau.model_copy(update={"database": urls[1]}),
        }
    )
    probes = PlatformProbes(changed)
    assert asyncio.run(probes.fences([PROCESS, OUT])) == {PROCESS: [3, 4], OUT: []}
    probes.close()


class Session:
    """An SMTP session that answers as a test says, and remembers what it was asked."""

    def __init__(self, code: int, text: bytes) -> None:
        self.code, self.text = code, text
        self.said: list[str] = []

    def mail(self, sender: str) -> tuple[int, bytes]:
        self.said.append("MAIL")
        return 250, b"ok"

    def rcpt(self, recip: str) -> tuple[int, bytes]:
        self.said.append("RCPT")
        return self.code, self.text

    def rset(self) -> tuple[int, bytes]:
        self.said.append("RSET")
        return 250, b"ok"


@pytest.mark.parametrize(
    ("code", "text", "answer"),
    [
        (250, b"2.1.5 eau@eins.test ok", Answer.ACCEPTED),
        (451, b"4.3.2 temporarily closed for security reasons, please retry automatically", Answer.DEFERRED),
        (451, b"4.3.2 Cannot be kept now", Answer.OTHER),
        (550, b"5.1.1 No such mailbox", Answer.OTHER),
    ],
)
def test_a_recipient_is_accepted_deferred_with_the_promised_words_or_something_else(
    code: int, text: bytes, answer: Answer
) -> None:
    """§ 6.5; and no mail is left behind."""
    session = Session(code, text)
    seen = rcpt_seen(session, "a@b", "c@d")
    assert seen.answer is answer
    assert "eins.test" not in seen.text
    assert session.said == ["MAIL", "RCPT", "RSET"]


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (503, json.dumps({"closed": {"state": "HOLD"}}).encode(), Answer.CLOSED),
        (503, b"<html>proxy</html>", Answer.OTHER),
        (503, b'{"detail": "closed for lunch"}', Answer.OTHER),
        (200, b"{}", Answer.PASSED),
        (401, b"{}", Answer.PASSED),
        (500, b"{}", Answer.OTHER),
    ],
)
def test_a_feed_is_closed_only_if_it_says_so_to_a_machine(status: int, body: bytes, answer: Answer) -> None:
    assert feed_seen(status, body).answer is answer


def test_every_enforced_kind_of_atom_has_workers_and_checks(config: Config) -> None:
    """A service that gets enforced later must not be proven by nobody."""
    atoms = provable(enforced_atoms(config))
    assert {(one.service, one.direction) for one in atoms} == set(ENFORCED)
    workers = workers_of(config)
    for one in atoms:
        assert workers(one), one
        assert checks(Needed(one, ScopeState.HOLD, 1, "c", None))


def test_a_scope_of_no_role_has_no_workers(config: Config) -> None:
    assert workers_of(config)(Scope("epa_read")) == []
