"""`schleuse eau feed` against a real HTTPS server on loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import FastAPI
from tests.eau.asgi import Http
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, an_id, eau, storno
from tests.eau.test_feed import (
    HERE,
    KEY,
    Fill,
    Journal,
    app,
    benefits,
    fill,
    journal,
    mails,
    running,
    signer,
    switch,
    vault,
    xml_of,
)
from tests.vault_double import VaultDouble

from schleuse.cli.eau_feed import Given, UnreadableAccessError, access_of, feed
from schleuse.clock import Now, utc_now
from schleuse.config import read_config
from schleuse.eau.feed_client import (
    BadFeedRequestError,
    FeedAccess,
    FeedConflictError,
    FeedConnection,
    FeedRefusedError,
    FeedUnreachableError,
    Signature,
)
from schleuse.eau.feed_login import Asked, Happened, Logins
from schleuse.environment import Environment
from schleuse.errors import Error
from schleuse.kim.pki import DevelopmentCA
from schleuse.processes.eau import feed_clients
from schleuse.processes.home import NewHome, NewInsurer, create_home
from schleuse.vault.contracts import ErasedError, OverBudgetError, VaultUnavailableError
from schleuse.vault.tokens import audience

__all__ = ["app", "benefits", "fill", "journal", "mails", "running", "signer", "switch", "vault"]  # fixtures


@pytest.fixture
def clock() -> Now:
    """The command takes the time of day."""
    return utc_now


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the certificate and key of a server on 127.0.0.1, and what to trust."""
    folder = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC)
    ca = DevelopmentCA.create(now)
    ca.save(folder)
    ca.issue_tls(["localhost", "127.0.0.1"], now=now).write(folder, "tls")
    return folder


@pytest.fixture
def server(app: FastAPI, pki: Path) -> Iterator[str]:
    """Address of the feed behind TLS."""
    asgi = Http(app)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            answer = asgi.request(self.command, self.path, headers=dict(self.headers), content=body)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "tls.pem", pki / "tls.key")
    http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def access(server: str, pki: Path, benefits: Signature) -> FeedAccess:
    return FeedAccess(server, benefits, ssl.create_default_context(cafile=pki / "ca.pem"))


@pytest.fixture
def options(server: str, pki: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "key").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {
        "url": server,
        "key_file": tmp_path / "key",
        "ca_file": pki / "ca.pem",
        "client": "benefits",
        "platform": HERE.removeprefix("schleuse:"),
    }


def test_all_pages_are_fetched_and_acknowledged(access: FeedAccess, fill: Fill) -> None:
    fill(*(eau(delivery) for delivery in range(1, 6)))
    with FeedConnection(access, AN_INSURER) as connection:
        assert [event.seq for event in connection.events(None, page=2)] == [1, 2, 3, 4, 5]
        assert connection.ack(4) == 4
        assert [event.seq for event in connection.events(None)] == [5]
        assert connection.document(str(an_id(2)), "xml") == xml_of(eau(2))


def test_each_refusal_keeps_its_kind(access: FeedAccess, fill: Fill) -> None:
    fill(eau(1))
    with FeedConnection(access, AN_INSURER) as connection:
        with pytest.raises(FeedRefusedError, match="404"):
            connection.document("nothing", "xml")
        with pytest.raises(FeedConflictError, match="ends at 1"):
            connection.ack(2)
        with pytest.raises(BadFeedRequestError, match="422"):
            connection.page(None, 0)
    with FeedConnection(access, ANOTHER_INSURER) as connection, pytest.raises(FeedRefusedError, match="401"):
        connection.page(None, 1)


def test_each_request_carries_a_token_of_its_own(access: FeedAccess, fill: Fill, journal: Journal) -> None:
    fill(*(eau(delivery) for delivery in range(1, 6)))
    with FeedConnection(access, AN_INSURER) as connection:
        list(connection.events(None, page=2))
        connection.document(str(an_id(1)).upper().removeprefix("URN:UUID:"), "p7s")
    logins = [event.token for event in journal.events if event.what is Happened.LOGIN]
    assert len(logins) == len(set(logins)) == 5


def test_a_clock_that_is_wrong_is_said_by_the_feed(access: FeedAccess) -> None:
    late = replace(access.signature, now=lambda: utc_now() - timedelta(hours=1))
    with (
        FeedConnection(replace(access, signature=late), AN_INSURER) as connection,
        pytest.raises(FeedRefusedError, match="clocks"),
    ):
        connection.page(None, 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OverBudgetError("x"), FeedUnreachableError),
        (VaultUnavailableError("x"), FeedUnreachableError),
        (ErasedError("x"), FeedRefusedError),
    ],
)
def test_what_the_vault_says_keeps_its_kind(
    access: FeedAccess, fill: Fill, vault: VaultDouble, error: Error, kind: type[Error]
) -> None:
    fill(eau(1))
    vault.fail("fetch", error)
    with FeedConnection(access, AN_INSURER) as connection, pytest.raises(kind):
        connection.document(str(an_id(1)), "xml")


def test_a_server_that_we_do_not_trust_gets_no_token(server: str, benefits: Signature) -> None:
    access = FeedAccess(server, benefits, ssl.create_default_context())
    with FeedConnection(access, AN_INSURER) as connection, pytest.raises(FeedUnreachableError, match="certificate"):
        connection.page(None, 1)


def test_an_address_without_tls_is_refused_before_anything_is_sent(benefits: Signature) -> None:
    with pytest.raises(BadFeedRequestError):
        FeedConnection(FeedAccess("http://127.0.0.1:1", benefits, ssl.create_default_context()), AN_INSURER)


def test_the_command_lists_as_a_table_and_as_json_lines(
    options: dict[str, Any], fill: Fill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    fill(eau(1), storno(2, of=1))
    feed(AN_INSURER.value, given=Given(**options))
    table = capsys.readouterr().out
    assert str(an_id(1)).removeprefix("urn:uuid:") in table
    assert "Storno" in table
    feed(AN_INSURER.value, given=Given(**options), json_lines=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["kind"], line["document_id"]) for line in lines] == [
        ("eau", str(an_id(1))),
        ("storno", str(an_id(1002))),
    ]


def test_the_command_acknowledges_what_it_has_listed(
    options: dict[str, Any], fill: Fill, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(eau(1))
    feed(AN_INSURER.value, given=Given(**options), json_lines=True, ack=True)
    assert capsys.readouterr().err.strip() == "bestätigt bis 1"
    feed(AN_INSURER.value, given=Given(**options), json_lines=True, ack=True)
    assert capsys.readouterr().out == ""
    feed(AN_INSURER.value, given=Given(**options), json_lines=True, after=0)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_command_fetches_a_document_to_a_file_and_to_stdout(
    options: dict[str, Any], fill: Fill, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    fill(eau(1))
    feed(AN_INSURER.value, given=Given(**options), get=str(an_id(1)), output=tmp_path / "eau.xml")
    assert (tmp_path / "eau.xml").read_bytes() == xml_of(eau(1))
    feed(AN_INSURER.value, given=Given(**options), get=str(an_id(1)))
    assert capfdbinary.readouterr().out == xml_of(eau(1))


def test_a_key_that_cannot_be_read_is_said_before_anything_is_sent(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnreadableAccessError, match="missing"):
        feed(AN_INSURER.value, given=Given(**options | {"key_file": tmp_path / "missing"}))


def test_a_home_has_all_that_the_command_needs_and_the_role_knows_its_key(tmp_path: Path) -> None:
    new = NewInsurer(AN_INSURER, "Kasse Eins", "eins")
    create_home(tmp_path, NewHome(Environment.TEST, "kim.test", [new], [], first_port=9), datetime.now(UTC))
    access = access_of(AN_INSURER, Given(tmp_path, None, None, None, None, None))
    assert access.url.startswith("https://127.0.0.1:")
    told = Journal()
    logins = Logins(feed_clients(read_config(tmp_path)), audience("kim.test"), utc_now, told.tell)
    path = f"/v1/{AN_INSURER}/eau"
    asked = Asked("GET", path, AN_INSURER.value, None, "")
    assert logins.admit(access.signature.token(AN_INSURER, "GET", path), asked).client == "eins"
    assert told.happened() == [Happened.LOGIN]
    with pytest.raises(UnreadableAccessError, match="--client"):
        access_of(ANOTHER_INSURER, Given(tmp_path, None, None, None, None, None))
