"""Asking roles that run, that die within their answer, and strangers at their address."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from tests.scenarios.platform import build_home

from schleuse.config import Config, read_config
from schleuse.journal.audit import SourceError
from schleuse.processes.answering import StrangerError, is_ready, journal_health, why_not_ready

#: A server that dies within its answer; one that never begins it; and a program that speaks something else.
BROKEN = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"", b"220 some mail server\r\n"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read_config(build_home(tmp_path_factory.mktemp("answering") / "home"))


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says this to everybody, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def ok(body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


def at(config: Config, listen: str) -> Config:
    return config.model_copy(update={"journal": config.journal.model_copy(update={"http": listen})})


def test_the_journal_says_how_far_its_logs_are(config: Config) -> None:
    logs = {"k/a/2026": {"durable": 9, "published": 7, "witnessed": 5}, "k/b/2026": {"published": 3, "witnessed": 3}}
    with answering(ok({"state": "RUNNING", "findings": [], "logs": logs})) as listen:
        found = journal_health(at(config, listen))
    assert (found.state, found.findings, found.behind) == ("RUNNING", (), ["k/a/2026"])


@pytest.mark.parametrize("body", [[], {}, {"state": "RUNNING"}, {"state": "RUNNING", "findings": [], "logs": {"a": 1}}])
def test_who_is_no_journal_is_named(config: Config, body: object) -> None:
    with answering(ok(body)) as listen, pytest.raises(StrangerError):
        journal_health(at(config, listen))


@pytest.mark.parametrize("answer", BROKEN)
def test_a_broken_answer_is_that_nobody_answers(config: Config, answer: bytes) -> None:
    with answering(answer) as listen, pytest.raises(SourceError):
        journal_health(at(config, listen))


@pytest.mark.parametrize("answer", [*BROKEN[1:], b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"])
def test_who_does_not_say_so_is_not_ready(answer: bytes) -> None:
    with answering(answer) as listen:
        assert not is_ready(listen, 2.0)


def test_who_says_so_is_ready_and_nobody_is_not() -> None:
    with answering(ok({"ready": True})) as listen:
        assert is_ready(listen, 2.0)
    assert not is_ready(listen, 2.0)


@pytest.mark.parametrize(
    ("body", "reason"), [({"ready": False, "reason": "no disk"}, "no disk"), ({}, ""), ([], ""), ("?", "")]
)
def test_who_is_not_ready_is_asked_why(body: object, reason: str) -> None:
    answer = ok(body).replace(b"200 OK", b"503 Service Unavailable")
    with answering(answer) as listen:
        assert why_not_ready(listen, 2.0) == reason
    assert why_not_ready(listen, 2.0) == ""
