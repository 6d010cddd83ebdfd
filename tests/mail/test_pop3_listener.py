"""mail/pop3_listener.py on real loopback sockets, with the POP3 programs that people use."""

from __future__ import annotations

import asyncio
import contextlib
import poplib
import shutil
import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from tests.mail.fake_maildrop import MemoryMailboxes
from tests.mail.fake_tls import TestCA, server_context

from schleuse.errors import MalformedError, UnavailableError
from schleuse.mail.passwords import TooManyGuessesError
from schleuse.mail.pop3 import MAX_FAILED_LOGINS, MailboxClosedError
from schleuse.mail.pop3_listener import Config, Listener, Signal, listen_pop3

MAIL = b"From: a@kim.example\r\nTo: b@kim.example\r\nSubject: one\r\nMessage-ID: <1@kim.example>\r\n\r\n.dot\r\nend\r\n"
CONFIG = Config(hostname="localhost", port=0)


class Place(TestCA):
    """Where the listener runs: on which event loop, and with whose certificate."""

    def __init__(self, directory: Path, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        super().__init__(directory)
        self.run = run


@pytest.fixture(scope="module", params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def ca(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("ca"), request.param)


@dataclass
class Running:
    listener: Listener
    boxes: MemoryMailboxes
    counted: Counter[Signal]
    client_tls: ssl.SSLContext
    ca: Path
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return self.listener.port

    def tls_client(self) -> poplib.POP3:
        return poplib.POP3_SSL("localhost", self.port, context=self.client_tls, timeout=10)

    def logged_in(self) -> poplib.POP3:
        client = self.tls_client()
        client.user("kasse")
        client.pass_("geheim")
        return client

    def until_gone(self) -> None:
        """Wait until the listener has noticed that every connection has ended and every lock is back."""
        with contextlib.suppress(StopIteration):
            for _ in range(1000):
                if not self.listener.sessions and not self.boxes.locked:
                    return
                threading.Event().wait(0.01)
        raise AssertionError("a session or a lock is left")


async def check(user: str, password: str, peer: str) -> str | None:
    assert peer in {"127.0.0.1", "::1"}
    if user == "stoerung":
        raise UnavailableError("the password store is away")
    if user == "kein-name":
        raise MalformedError("no KIM address")
    if user == "rater":
        raise TooManyGuessesError("he waits a minute")
    return user if password == "geheim" else None


@contextlib.contextmanager
def serving(ca: Place, config: Config = CONFIG, grace: float = 5) -> Iterator[Running]:
    """The listener on its own loop in a thread, because the clients of these tests block."""
    boxes = MemoryMailboxes()
    counted: Counter[Signal] = Counter()
    ready: threading.Event = threading.Event()
    running: list[Listener] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        ending = asyncio.Event()
        async with listen_pop3(
            config,
            tls=server_context(ca.issue("pop3-server")),
            authenticate=check,
            mailboxes=boxes,
            count=lambda signal: counted.update([signal]),
            grace=timedelta(seconds=grace),
        ) as listener:
            running.append(listener)
            stop.append((asyncio.get_running_loop(), ending))
            ready.set()
            await ending.wait()

    thread = threading.Thread(target=ca.run, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        client_tls = ssl.create_default_context(cafile=str(ca.ca))
        yield Running(running[0], boxes, counted, client_tls, ca.ca, stop[0][0])
    finally:
        boxes.hold.set()
        loop, ending = stop[0]
        loop.call_soon_threadsafe(ending.set)
        thread.join(30)
        assert not thread.is_alive()
        assert boxes.locked == set()


def test_poplib_fetches_and_deletes_over_tls(ca: Place) -> None:
    with serving(ca) as server:
        server.boxes.put("kasse", MAIL)
        client = server.logged_in()
        assert client.stat() == (1, len(MAIL))
        assert client.uidl()[1] == [b"1 u1"]
        assert b"\r\n".join(client.retr(1)[1]) + b"\r\n" == MAIL
        assert client.top(1, 0)[1][2] == b"Subject: one"
        assert client.capa()["SASL"] == ["PLAIN"]
        client.dele(1)
        client.quit()
        assert server.boxes.mails["kasse"] == {}
        assert server.boxes.locked == set()  # unlocked before the client hears +OK


def test_a_dropped_connection_deletes_nothing_and_gives_the_lock_back(ca: Place) -> None:
    with serving(ca) as server:
        server.boxes.put("kasse", MAIL)
        client = server.logged_in()
        client.dele(1)
        client.close()
        server.until_gone()
        assert len(server.boxes.mails["kasse"]) == 1
        server.logged_in().quit()


def test_a_connection_dropped_while_the_store_works_gives_the_lock_back(ca: Place) -> None:
    with serving(ca) as server:
        server.boxes.put("kasse", MAIL)
        client = server.logged_in()
        server.boxes.hold.clear()
        client._putcmd("RETR 1")  # type: ignore[attr-defined]
        client.close()
        server.boxes.hold.set()
        server.until_gone()


def test_two_sessions_on_one_mailbox_are_refused_and_on_two_are_not(ca: Place) -> None:
    with serving(ca) as server:
        first = server.logged_in()
        second = server.tls_client()
        second.user("kasse")
        with pytest.raises(poplib.error_proto, match="IN-USE"):
            second.pass_("geheim")
        second.user("praxis")
        second.pass_("geheim")
        second.quit()
        first.quit()


def test_own_trouble_is_temporary_and_a_wrong_password_is_not(ca: Place) -> None:
    with serving(ca) as server:
        client = server.tls_client()
        client.user("stoerung")
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            client.pass_("geheim")
        client.user("kasse")
        with pytest.raises(poplib.error_proto, match="AUTH"):
            client.pass_("falsch")
        client.user("kasse")
        server.boxes.faults.before("open", ValueError("a bug"))  # type: ignore[arg-type]
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            client.pass_("geheim")
        client.quit()
        assert server.counted[Signal.LOGIN_FAILED] == 1
        assert server.counted[Signal.STORE_FAILED] == 2


def test_a_mailbox_whose_list_cannot_be_read_stays_unlocked(ca: Place) -> None:
    with serving(ca) as server:
        server.boxes.faults.before("entries")
        client = server.tls_client()
        client.user("kasse")
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            client.pass_("geheim")
        client.user("kasse")
        client.pass_("geheim")
        client.quit()


def test_deleting_that_worked_though_unlocking_failed_is_a_success(ca: Place) -> None:
    with serving(ca) as server:
        server.boxes.put("kasse", MAIL)
        client = server.logged_in()
        client.dele(1)
        server.boxes.faults.after("close")
        assert client.quit().startswith(b"+OK")
        assert server.boxes.mails["kasse"] == {}


def test_a_plain_port_takes_a_log_in_only_after_stls(ca: Place) -> None:
    with serving(ca, replace(CONFIG, implicit_tls=False)) as server:
        client = poplib.POP3("localhost", server.port, timeout=10)
        assert "STLS" in client.capa()
        with pytest.raises(poplib.error_proto, match="TLS"):
            client.user("kasse")
        client.stls(server.client_tls)
        client.user("kasse")
        client.pass_("geheim")
        client.quit()


def test_what_follows_stls_in_clear_is_forgotten(ca: Place) -> None:
    with serving(ca, replace(CONFIG, implicit_tls=False)) as server:
        raw = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        raw.recv(200)
        raw.sendall(b"STLS\r\nUSER kasse\r\n")
        assert raw.recv(200) == b"+OK begin TLS\r\n"
        with server.client_tls.wrap_socket(raw, server_hostname="localhost") as secure:
            secure.sendall(b"PASS geheim\r\n")
            assert secure.recv(200).startswith(b"-ERR")


def test_what_is_sent_in_clear_before_the_handshake_is_never_a_command(ca: Place) -> None:
    with serving(ca, replace(CONFIG, implicit_tls=False)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.recv(200)
            raw.sendall(b"STLS\r\n")
            raw.sendall(b"USER kasse\r\nPASS geheim\r\n")
            assert raw.recv(200) == b"+OK begin TLS\r\n"
            raw.sendall(b"USER kasse\r\nPASS geheim\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"+OK" not in raw.recv(200)
        server.until_gone()
        assert server.counted[Signal.LOGGED_IN] == 0


def test_a_crowded_plain_port_says_so(ca: Place) -> None:
    with (
        serving(ca, replace(CONFIG, implicit_tls=False, max_sessions=0)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw,
    ):
        assert raw.recv(200).startswith(b"-ERR [SYS/TEMP]")


def test_a_broken_handshake_after_stls_leaves_no_session(ca: Place) -> None:
    with serving(ca, replace(CONFIG, implicit_tls=False)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.recv(200)
            raw.sendall(b"STLS\r\n")
            raw.recv(200)
            raw.sendall(b"this is no ClientHello" * 10)
            with contextlib.suppress(ConnectionError):
                while raw.recv(200):
                    pass
        server.until_gone()


@pytest.mark.parametrize("user", ["kein-name", "rater", "kasse"])
def test_who_guesses_fills_no_log_and_pays_a_connection_for_three_tries(ca: Place, user: str) -> None:
    with structlog.testing.capture_logs() as lines, serving(ca) as server:
        client = server.tls_client()
        for _ in range(MAX_FAILED_LOGINS):
            client.user(user)
            with pytest.raises(poplib.error_proto):
                client.pass_("falsch")
        with pytest.raises((poplib.error_proto, OSError)):
            client.noop()
        client.close()
        server.until_gone()
        assert server.counted[Signal.LOGIN_FAILED] == MAX_FAILED_LOGINS
        assert lines == []


def test_openssl_s_client_talks_to_both_ports(ca: Place) -> None:
    script = b"USER kasse\nPASS geheim\nSTAT\nQUIT\n"
    for implicit in (True, False):
        with serving(ca, replace(CONFIG, implicit_tls=implicit)) as server:
            server.boxes.put("kasse", MAIL)
            command = ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", str(server.ca), "-crlf",
                       "-verify_hostname", "localhost", "-connect", f"127.0.0.1:{server.port}", "-ign_eof",
                       *([] if implicit else ["-starttls", "pop3"])]  # fmt: skip
            done = subprocess.run(command, input=script, capture_output=True, timeout=20, check=True)
            assert f"+OK 1 {len(MAIL)}\r\n".encode() in done.stdout
            assert b"+OK bye" in done.stdout


def test_a_third_connection_of_one_peer_is_turned_away_and_a_free_place_is_used_again(ca: Place) -> None:
    with serving(ca, replace(CONFIG, max_sessions_per_peer=2)) as server:
        first, second = server.tls_client(), server.tls_client()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as third:
            assert third.recv(200) == b""  # before a handshake that would cost us much
        first.quit()
        second.quit()
        server.until_gone()
        server.logged_in().quit()
        assert server.counted[Signal.TURNED_AWAY] == 1


def test_an_idle_session_ends_without_a_word_and_deletes_nothing(ca: Place) -> None:
    with serving(ca, replace(CONFIG, idle_timeout=timedelta(milliseconds=150))) as server:
        server.boxes.put("kasse", MAIL)
        client = server.logged_in()
        client.dele(1)
        with pytest.raises((poplib.error_proto, OSError)):
            client._getresp()  # type: ignore[attr-defined]
        client.close()
        server.until_gone()
        assert len(server.boxes.mails["kasse"]) == 1
        assert server.counted[Signal.TIMED_OUT] == 1


def test_draining_closes_who_is_not_logged_in_and_lets_the_others_finish(ca: Place) -> None:
    with serving(ca) as server:
        server.boxes.put("kasse", MAIL)
        stranger, client = server.tls_client(), server.logged_in()
        drained = asyncio.run_coroutine_threadsafe(server.listener.drain(timedelta(seconds=10)), server.loop)
        with pytest.raises((poplib.error_proto, OSError)):
            stranger.noop()
        stranger.close()
        client.dele(1)
        assert client.quit().startswith(b"+OK")
        drained.result(10)
        assert server.boxes.mails["kasse"] == {}


def test_draining_cuts_who_stays_too_long_and_deletes_nothing(ca: Place) -> None:
    with serving(ca, grace=0.05) as server:
        server.boxes.put("kasse", MAIL)
        client = server.logged_in()
        client.dele(1)
    with pytest.raises((poplib.error_proto, OSError)):
        client.quit()
    client.close()
    assert len(server.boxes.mails["kasse"]) == 1


def test_a_client_that_does_not_read_makes_no_second_copy_of_a_big_mail(ca: Place) -> None:
    content = b"Subject: big\r\n\r\n" + b".0123456789abcdef\r\n" * 1_000_000
    with serving(ca) as server:
        server.boxes.put("kasse", content)
        client = server.logged_in()
        client._putcmd("RETR 1")  # type: ignore[attr-defined]
        client._putcmd("NOOP")  # type: ignore[attr-defined]
        # Another client is served while the first does not read.
        other = server.tls_client()
        other.user("praxis")
        other.pass_("geheim")
        other.quit()
        transports = [connection._transport for connection in [*server.listener._connections]]
        assert max(transport.get_write_buffer_size() for transport in transports if transport) < 2_000_000
        assert b"\r\n".join(client._getlongresp()[1]) + b"\r\n" == content  # type: ignore[attr-defined]
        assert client._getresp() == b"+OK"  # type: ignore[attr-defined]
        client.quit()


@pytest.mark.skipif(shutil.which("fetchmail") is None, reason="fetchmail is not installed")
def test_fetchmail_fetches_and_deletes(ca: Place, tmp_path: Path) -> None:
    with serving(ca) as server:
        for _ in range(3):
            server.boxes.put("kasse", MAIL)
        rc = tmp_path / "fetchmailrc"
        rc.write_text(
            f'poll localhost protocol pop3 port {server.port} user "kasse" password "geheim" ssl sslproto "TLS1.2+"'
            f' sslcertck sslcertfile "{server.ca}" fetchall no keep mda "cat >> {tmp_path}/inbox"\n'
        )
        rc.chmod(0o600)
        command = ["fetchmail", "-f", str(rc), "--pidfile", str(tmp_path / "pid"), "-i", str(tmp_path / "ids")]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, env={"HOME": str(tmp_path)})
        assert done.returncode == 0, done
        assert server.boxes.mails["kasse"] == {}
        assert (tmp_path / "inbox").read_bytes().count(b"\n.dot") == 3


@pytest.mark.skipif(shutil.which("mpop") is None, reason="mpop is not installed")
@pytest.mark.parametrize("implicit", [True, False])
def test_mpop_fetches_by_uidl_pipelines_and_keeps(ca: Place, tmp_path: Path, implicit: bool) -> None:
    with serving(ca, replace(CONFIG, implicit_tls=implicit)) as server:
        for _ in range(3):
            server.boxes.put("kasse", MAIL)
        maildir = tmp_path / "Maildir"
        for name in ("cur", "new", "tmp"):
            (maildir / name).mkdir(parents=True)
        command = ["mpop", "--host=localhost", f"--port={server.port}", "--tls=on", f"--tls-trust-file={server.ca}",
                   f"--tls-starttls={'off' if implicit else 'on'}", "--user=kasse", "--passwordeval=echo geheim",
                   "--keep=on", f"--delivery=maildir,{maildir}", f"--uidls-file={tmp_path}/uidls"]  # fmt: skip
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, timeout=60, check=False, env={"HOME": str(tmp_path)})
            assert done.returncode == 0, done
        assert len([*(maildir / "new").iterdir()]) == 3
        assert len(server.boxes.mails["kasse"]) == 3


def everybody(_account: str) -> bool:
    return True


def in_the_loop(running: Running, step: Callable[[], object]) -> None:
    done = threading.Event()

    def stepped() -> None:
        step()
        done.set()

    running.loop.call_soon_threadsafe(stepped)
    assert done.wait(10)


def test_a_session_that_waits_for_nothing_ends_at_once_when_its_mailbox_closes(ca: Place) -> None:
    """SW-10: what it had marked is not deleted."""
    with serving(ca) as running:
        running.boxes.put("kasse", MAIL)
        client = running.logged_in()
        client.dele(1)
        in_the_loop(running, lambda: running.listener.end(everybody))
        with contextlib.closing(client), pytest.raises((poplib.error_proto, OSError)):
            client.quit()
        running.until_gone()
        assert list(running.boxes.mails["kasse"].values()) == [MAIL]
        assert running.counted[Signal.COMMITTED] == running.counted[Signal.CUT] == 0


def test_a_message_that_is_being_sent_arrives_whole_before_its_session_ends(ca: Place) -> None:
    with serving(ca) as running:
        running.boxes.put("kasse", MAIL)
        client = running.logged_in()
        running.boxes.hold.clear()
        got: list[bytes] = []
        fetching = threading.Thread(target=lambda: got.extend(client.retr(1)[1]))
        fetching.start()
        while not running.boxes.asked.wait(0.01):
            pass
        in_the_loop(running, lambda: running.listener.end(everybody))
        running.boxes.hold.set()
        fetching.join(10)
        assert got[-1] == b"end"
        client.close()
        running.until_gone()


def test_a_session_that_does_not_end_is_cut_and_counted(ca: Place) -> None:
    with serving(ca) as running:
        running.boxes.put("kasse", MAIL)
        client = running.logged_in()
        running.boxes.hold.clear()
        fetching = threading.Thread(target=lambda: _try_retr(client))
        fetching.start()
        while not running.boxes.asked.wait(0.01):
            pass
        in_the_loop(running, lambda: running.listener.cut(everybody))
        running.boxes.hold.set()
        fetching.join(10)
        client.close()
        running.until_gone()
        assert running.counted[Signal.CUT] == 1


def _try_retr(client: poplib.POP3) -> None:
    with contextlib.suppress(poplib.error_proto, OSError):
        client.retr(1)


def test_sessions_of_other_mailboxes_go_on(ca: Place) -> None:
    with serving(ca) as running:
        client = running.logged_in()
        in_the_loop(running, lambda: running.listener.end(lambda account: account != "kasse"))
        in_the_loop(running, lambda: running.listener.cut(lambda account: account != "kasse"))
        assert client.noop().startswith(b"+OK")
        client.quit()


def test_a_closed_mailbox_says_so_in_words_that_a_mail_program_understands(ca: Place) -> None:
    """RFC 3206: SYS/TEMP, so nobody is asked for another password."""
    with serving(ca) as running:
        running.boxes.faults.before("open", MailboxClosedError("closed"))
        client = running.tls_client()
        client.user("kasse")
        with contextlib.closing(client), pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\] temporarily closed"):
            client.pass_("geheim")
        running.until_gone()
        assert running.counted[Signal.CLOSED] == 1
        assert running.counted[Signal.STORE_FAILED] == running.counted[Signal.LOGIN_FAILED] == 0


def test_a_session_whose_mailbox_closes_before_its_end_deletes_nothing(ca: Place) -> None:
    with serving(ca) as running:
        running.boxes.put("kasse", MAIL)
        client = running.logged_in()
        client.dele(1)
        running.boxes.faults.before("delete", MailboxClosedError("closed"))
        with contextlib.closing(client), pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            client.quit()
        running.until_gone()
        assert list(running.boxes.mails["kasse"].values()) == [MAIL]
