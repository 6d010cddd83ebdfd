from __future__ import annotations

import shutil
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mail.fakes import MemoryIntake, PlainPasswords, TablePolicy, full_disk
from tests.mail.smtp_server import HOST, PATIENCE, Certificate, make_certificate, running

from schleuse.errors import Error, UnavailableError
from schleuse.mail.listener import (
    HANDSHAKE_TIMEOUT,
    IDLE_TIMEOUT,
    LARGE_MAIL,
    MESSAGE_TIMEOUT,
    SLOT_GRACE,
    Limits,
    listen_smtp,
)
from schleuse.mail.smtp import Settings
from schleuse.mail.tls_pipe import tls_context

PLAIN = Settings(hostname="mx.test", require_auth=False, starttls=False)
RELAY = Settings(hostname="mx.test", require_auth=False)
SUBMISSION = Settings(hostname="mail.test")
USER, PASSWORD = "praxis@a.kim.telematik", "geheim"
SENDER, RECIPIENT = "a@x.test", "b@x.test"
CONTENT = b"From: a@x.test\r\nTo: b@x.test\r\n\r\nHallo\r\n"
TRANSACTION = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def context(certificate: Certificate) -> ssl.SSLContext:
    return tls_context(certificate.certificate, certificate.key)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def with_uvloop(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def passwords() -> PlainPasswords:
    return PlainPasswords({USER: PASSWORD})


class Raw:
    """A client that says exactly these octets."""

    def __init__(self, connection: socket.socket, *, greeted: bool = True) -> None:
        self.socket = connection
        self.file = connection.makefile("rb")
        if greeted:
            assert self.line().startswith(b"220")

    def line(self) -> bytes:
        return self.file.readline()

    def ask(self, data: bytes) -> bytes:
        """The last line of the reply to one command."""
        self.socket.sendall(data)
        return self.reply()

    def reply(self) -> bytes:
        line = self.line()
        while line[3:4] == b"-":
            line = self.line()
        return line

    def start_mail(self) -> None:
        self.ask(b"EHLO a.test\r\n")
        self.socket.sendall(TRANSACTION)
        assert [self.line()[:3] for _ in range(3)] == [b"250", b"250", b"354"]

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()


def send_one(client: smtplib.SMTP) -> None:
    client.sendmail(SENDER, [RECIPIENT], CONTENT, ["BODY=8BITMIME"], ["NOTIFY=SUCCESS"])


# Real clients ------------------------------------------------------------------------------------------


def test_a_mail_over_plain_text(with_uvloop: bool) -> None:
    with running(settings=PLAIN, with_uvloop=with_uvloop) as server:
        with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client:
            send_one(client)
            send_one(client)
        assert [mail.content.endswith(CONTENT) for mail in server.intake.kept] == [True, True]
        assert server.counts == {"connection": 1, "mail_kept": 2}


def test_a_mail_over_starttls(with_uvloop: bool, certificate: Certificate, context: ssl.SSLContext) -> None:
    with running(settings=RELAY, tls=context, with_uvloop=with_uvloop) as server:
        with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client:
            client.starttls(context=certificate.client())
            send_one(client)
        assert b"with ESMTPS;" in server.intake.kept[0].content


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_mail_of_an_account_over_implicit_tls(
    mechanism: str,
    with_uvloop: bool,
    certificate: Certificate,
    context: ssl.SSLContext,
    passwords: PlainPasswords,
) -> None:
    with running(
        settings=SUBMISSION, tls=context, implicit_tls=True, passwords=passwords, with_uvloop=with_uvloop
    ) as server:
        with smtplib.SMTP_SSL(HOST, server.port, timeout=PATIENCE, context=certificate.client()) as client:
            client.ehlo()
            client.user, client.password = USER, PASSWORD
            authobject = client.auth_plain if mechanism == "PLAIN" else client.auth_login
            assert client.auth(mechanism, authobject)[0] == 235
            send_one(client)
        assert server.intake.kept[0].user == USER
        assert server.counts["login"] == 1


def test_a_wrong_password_is_refused(
    certificate: Certificate, context: ssl.SSLContext, passwords: PlainPasswords
) -> None:
    with running(settings=SUBMISSION, tls=context, implicit_tls=True, passwords=passwords) as server:
        with smtplib.SMTP_SSL(HOST, server.port, timeout=PATIENCE, context=certificate.client()) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                client.login(USER, "falsch")
            assert refused.value.smtp_code == 535
            with pytest.raises(smtplib.SMTPSenderRefused):
                send_one(client)
        assert server.intake.kept == []


def test_password_trouble_of_ours_is_temporary(certificate: Certificate, context: ssl.SSLContext) -> None:
    for passwords in (PlainPasswords(fails=UnavailableError("off")), None):
        with (
            running(settings=SUBMISSION, tls=context, implicit_tls=True, passwords=passwords) as server,
            smtplib.SMTP_SSL(HOST, server.port, timeout=PATIENCE, context=certificate.client()) as client,
        ):
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                client.login(USER, PASSWORD)
            assert refused.value.smtp_code == 454


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
def test_swaks_sends(
    with_uvloop: bool, certificate: Certificate, context: ssl.SSLContext, passwords: PlainPasswords
) -> None:
    with running(settings=SUBMISSION, tls=context, passwords=passwords, with_uvloop=with_uvloop) as server:
        command = [
            *("swaks", "--server", HOST, "--port", str(server.port), "--from", SENDER, "--to", RECIPIENT),
            *("--tls", "--auth", "LOGIN", "--auth-user", USER, "--auth-password", PASSWORD, "--helo", "a.test"),
        ]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        if b"SSL" in done.stderr and not server.intake.kept:
            pytest.skip("swaks has no TLS module here")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(server.intake.kept) == 1


@pytest.mark.skipif(shutil.which("msmtp") is None, reason="msmtp is not installed")
def test_msmtp_sends(certificate: Certificate, context: ssl.SSLContext, passwords: PlainPasswords) -> None:
    with running(settings=SUBMISSION, tls=context, implicit_tls=True, passwords=passwords) as server:
        command = [
            *("msmtp", "--file=/dev/null", f"--host={HOST}", f"--port={server.port}", "--tls=on"),
            *("--tls-starttls=off", f"--tls-trust-file={certificate.certificate}", "--auth=plain"),
            *(f"--user={USER}", f"--passwordeval=echo {PASSWORD}", f"--from={SENDER}", RECIPIENT),
        ]
        done = subprocess.run(command, input=CONTENT, capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        assert len(server.intake.kept) == 1


# TLS ---------------------------------------------------------------------------------------------------


def test_tls_1_3_is_spoken_and_1_2_only_with_ecdhe_and_aes_gcm(
    certificate: Certificate, context: ssl.SSLContext
) -> None:
    with running(settings=RELAY, tls=context, implicit_tls=True) as server:
        for version, cipher in (("TLSv1.3", ""), ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")):
            client = certificate.client()
            if cipher:
                client.maximum_version = ssl.TLSVersion.TLSv1_2
                client.set_ciphers(cipher)
            with client.wrap_socket(server.connect(), server_hostname=HOST) as connection:
                assert connection.version() == version
        client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
        with server.connect() as plain, pytest.raises(ssl.SSLError):
            client.wrap_socket(plain, server_hostname=HOST)


def test_old_tls_is_not_offered(context: ssl.SSLContext) -> None:
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    names = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert names
    assert all(name.startswith("ECDHE-") and "-GCM-" in name for name in names)


def test_clients_without_a_certificate_are_refused_where_one_is_asked_for(certificate: Certificate) -> None:
    context = tls_context(certificate.certificate, certificate.key, client_ca=certificate.certificate)
    with running(settings=RELAY, tls=context, implicit_tls=True) as server:
        client = certificate.client()
        connection = client.wrap_socket(server.connect(), server_hostname=HOST)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            connection.recv(1)
        connection.close()
        client.load_cert_chain(certificate.certificate, certificate.key)
        with (
            client.wrap_socket(server.connect(), server_hostname=HOST) as connection,
            Raw(connection) as raw,
        ):
            assert raw.ask(b"QUIT\r\n")[:3] == b"221"


def test_a_certificate_that_cannot_be_read_is_our_own_trouble(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"none\.crt"):
        tls_context(tmp_path / "none.crt", tmp_path / "none.key")


def test_what_was_pipelined_behind_starttls_is_lost(
    with_uvloop: bool, certificate: Certificate, context: ssl.SSLContext
) -> None:
    with (
        running(settings=RELAY, tls=context, with_uvloop=with_uvloop) as server,
        Raw(server.connect()) as raw,
    ):
        raw.ask(b"EHLO a.test\r\n")
        assert raw.ask(b"STARTTLS\r\nNOOP\r\nRSET\r\n") == b"220 2.0.0 Ready to start TLS\r\n"
        with (
            certificate.client().wrap_socket(raw.socket, server_hostname=HOST) as connection,
            Raw(connection, greeted=False) as secure,
        ):
            assert secure.ask(b"MAIL FROM:<a@x.test>\r\n")[:3] == b"503"
            assert secure.ask(b"QUIT\r\n")[:3] == b"221"


def test_a_failed_handshake_leaves_nothing_behind(with_uvloop: bool, context: ssl.SSLContext) -> None:
    with running(settings=RELAY, tls=context, implicit_tls=True, with_uvloop=with_uvloop) as server:
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(b"EHLO no-tls\r\n")
                assert_ends(connection)
        with server.connect():
            # And one that leaves before the handshake. Not before it is announced: the asyncio of
            # Python 3.11 forgets to close what it accepts in the very turn in which the server closes.
            while server.call(lambda listener: server.counts["connection"]) < 4:
                pass
        server.begin_stop()
        server.stopped.result(PATIENCE)
        assert server.counts["tls_failed"] >= 3


def test_plain_commands_are_never_executed_where_tls_is_implicit(with_uvloop: bool, context: ssl.SSLContext) -> None:
    # uvloop read them before start_tls could take over; see mail/tls_pipe.py.
    with running(settings=RELAY, tls=context, implicit_tls=True, with_uvloop=with_uvloop) as server:
        connections = [server.connect() for _ in range(20)]
        for connection in connections:
            connection.sendall(b"EHLO a.test\r\n" + TRANSACTION + CONTENT + b".\r\n")
        for connection in connections:
            with connection:
                said = connection.recv(4096)
                assert said[:1] != b"2"
        assert server.intake.kept == []


def test_a_handshake_that_does_not_end_is_cut_off(context: ssl.SSLContext) -> None:
    with (
        running(settings=RELAY, tls=context, implicit_tls=True) as server,
        server.connect() as connection,
    ):
        while server.call(lambda listener: listener.open_connections) == 0:
            pass
        server.later(HANDSHAKE_TIMEOUT + 1)
        assert connection.recv(100) == b""
        assert server.counts["tls_failed"] == 1


def assert_ends(connection: socket.socket) -> None:
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass


# What the client sees when keeping fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(UnavailableError("off"), 451, b"4.3.2"), (full_disk(), 452, b"4.3.1")],
)
@pytest.mark.parametrize("after", [False, True])
def test_a_store_that_fails_before_or_after_it_acted_is_a_temporary_failure(
    error: Error, code: int, status: bytes, after: bool
) -> None:
    intake = MemoryIntake(fails_after=error) if after else MemoryIntake(fails_before=error)
    with (
        running(settings=PLAIN, intake=intake) as server,
        smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client,
    ):
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send_one(client)
        assert refused.value.smtp_code == code
        assert isinstance(refused.value.smtp_error, bytes)
        assert refused.value.smtp_error.startswith(status)
        # The client tries again, and a mail that was kept all the same is there twice: never lost,
        # and the store links the second to the first.
        intake.fails_before = intake.fails_after = None
        send_one(client)
        assert len(intake.kept) == 2 if after else 1
        assert server.counts["mail_failed"] == 1


def test_a_store_that_raises_is_a_temporary_failure() -> None:
    for fault in (UnavailableError("off"), RuntimeError("a bug")):
        with running(settings=PLAIN, intake=MemoryIntake(raises=fault)) as server:
            client = smtplib.SMTP(HOST, server.port, timeout=PATIENCE)
            with pytest.raises(smtplib.SMTPDataError) as refused:
                send_one(client)
            assert 400 <= refused.value.smtp_code < 500
            client.close()


def test_a_bug_in_the_policy_costs_no_mail() -> None:
    with running(settings=PLAIN, policy=TablePolicy(raises=RuntimeError("a bug"))) as server:
        client = smtplib.SMTP(HOST, server.port, timeout=PATIENCE)
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            send_one(client)
        assert refused.value.smtp_code == 421
        assert server.counts["own_fault"] == 1
        client.close()
        server.policy.raises = None
        with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client:
            send_one(client)
        assert len(server.intake.kept) == 1


def test_nothing_is_acknowledged_before_the_store_has_called_back(with_uvloop: bool) -> None:
    with (
        running(settings=PLAIN, intake=MemoryIntake(holding=True), with_uvloop=with_uvloop) as server,
        Raw(server.connect()) as raw,
    ):
        raw.start_mail()
        raw.socket.sendall(CONTENT + b".\r\nNOOP\r\n")
        assert server.intake.arrived.acquire(timeout=PATIENCE)
        server.call(lambda listener: None)  # the loop has had its turn
        raw.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            raw.socket.recv(1)
        raw.socket.settimeout(PATIENCE)
        threading.Thread(target=server.intake.finish).start()  # done comes from another thread
        assert [raw.line()[:9], raw.line()[:9]] == [b"250 2.0.0", b"250 2.0.0"]


def test_a_client_that_left_while_its_mail_was_kept_disturbs_nobody() -> None:
    with running(settings=PLAIN, intake=MemoryIntake(holding=True)) as server:
        with Raw(server.connect()) as raw:
            raw.start_mail()
            raw.socket.sendall(CONTENT + b".\r\n")
            assert server.intake.arrived.acquire(timeout=PATIENCE)
        server.call(lambda listener: server.intake.finish())
        with Raw(server.connect()) as raw:
            assert raw.ask(b"QUIT\r\n")[:3] == b"221"


# Hostile and slow clients ------------------------------------------------------------------------------


def test_a_smuggler_hears_554_even_with_much_unread_input(with_uvloop: bool) -> None:
    with (
        running(settings=PLAIN, with_uvloop=with_uvloop) as server,
        Raw(server.connect()) as raw,
    ):
        raw.start_mail()
        rest = b"MAIL FROM:<boss@x.test>\r\n" * 20_000
        raw.socket.sendall(b"x\n.\n" + TRANSACTION + b"evil\r\n.\r\n" + rest)
        assert raw.line() == b"554 5.6.0 Line ends other than CRLF, or NUL, in the content\r\n"
        assert raw.line() == b""
        assert server.intake.kept == []


@pytest.mark.parametrize(("limits", "open_first"), [(Limits(per_peer=2), 2), (Limits(connections=3), 3)])
def test_one_connection_too_many_hears_421(limits: Limits, open_first: int) -> None:
    with running(settings=PLAIN, limits=limits) as server:
        welcome = [Raw(server.connect()) for _ in range(open_first)]
        with Raw(server.connect(), greeted=False) as refused:
            assert refused.line()[:9] == b"421 4.7.0"
            assert refused.line() == b""
        assert server.counts["connection_refused"] == 1
        welcome[0].ask(b"QUIT\r\n")
        for raw in welcome:
            raw.__exit__()
        with Raw(server.connect()) as raw:
            assert raw.ask(b"NOOP\r\n")[:3] == b"250"


def test_a_silent_client_is_sent_away() -> None:
    with running(settings=PLAIN) as server, Raw(server.connect()) as raw:
        raw.ask(b"EHLO a.test\r\n")
        server.later(IDLE_TIMEOUT - 1)
        assert raw.ask(b"NOOP\r\n")[:3] == b"250"
        server.later(IDLE_TIMEOUT + 1)
        assert raw.line() == b"421 4.4.2 Timeout\r\n"
        assert raw.line() == b""
        assert server.counts["timeout"] == 1


def test_a_mail_that_trickles_in_is_cut_off() -> None:
    with running(settings=PLAIN, limits=Limits(idle=1e9)) as server, Raw(server.connect()) as raw:
        raw.start_mail()
        server.later(MESSAGE_TIMEOUT + 1)
        assert raw.line()[:9] == b"421 4.4.2"
        assert server.intake.kept == []


def test_the_store_may_take_its_time() -> None:
    with (
        running(settings=PLAIN, intake=MemoryIntake(holding=True)) as server,
        Raw(server.connect()) as raw,
    ):
        raw.start_mail()
        raw.socket.sendall(CONTENT + b".\r\n")
        assert server.intake.arrived.acquire(timeout=PATIENCE)
        server.later(10 * IDLE_TIMEOUT)
        server.intake.finish()
        assert raw.line()[:3] == b"250"


def test_large_mails_take_turns_and_all_arrive(with_uvloop: bool) -> None:
    content = CONTENT + b"x" * 70 + b"\r\n"
    content += (b"y" * 76 + b"\r\n") * (3 * LARGE_MAIL // 78)
    with running(settings=PLAIN, limits=Limits(large_mails=1), with_uvloop=with_uvloop) as server:

        def send() -> None:
            with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as client:
                client.sendmail(SENDER, [RECIPIENT], content)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [mail.content.endswith(content) for mail in server.intake.kept] == [True] * 4


def test_a_large_mail_that_is_given_up_frees_its_turn() -> None:
    with running(settings=PLAIN, limits=Limits(large_mails=1)) as server:
        with Raw(server.connect()) as first:
            first.start_mail()
            first.socket.sendall(b"x" * (2 * LARGE_MAIL))
        with Raw(server.connect()) as second:
            second.start_mail()
            second.socket.sendall(b"x" * (2 * LARGE_MAIL) + b"\r\n.\r\n")
            assert second.line()[:3] == b"250"


def test_who_sits_on_a_turn_that_others_wait_for_is_sent_away() -> None:
    with (
        running(settings=PLAIN, limits=Limits(large_mails=1)) as server,
        Raw(server.connect()) as sitting,
        Raw(server.connect()) as waiting,
    ):
        sitting.start_mail()
        sitting.socket.sendall(b"x" * (2 * LARGE_MAIL))
        while not server.call(lambda listener: listener.large_mails):
            pass
        waiting.start_mail()
        rest = b"x" * (2 * LARGE_MAIL) + b"\r\n.\r\n"
        sending = threading.Thread(target=waiting.socket.sendall, args=(rest,))
        sending.start()
        while not server.call(lambda listener: listener.is_waited_for):
            pass
        server.later(SLOT_GRACE + 1)
        assert sitting.line() == b"421 4.4.2 Timeout\r\n"
        assert waiting.line()[:3] == b"250"
        sending.join(PATIENCE)


def test_a_slow_large_mail_that_nobody_waits_for_has_its_time() -> None:
    with running(settings=PLAIN, limits=Limits(large_mails=1)) as server, Raw(server.connect()) as slow:
        slow.start_mail()
        slow.socket.sendall(b"x" * (2 * LARGE_MAIL))
        server.later(SLOT_GRACE + 1)
        slow.socket.sendall(b"\r\n.\r\n")
        assert slow.line()[:3] == b"250"


# Going down --------------------------------------------------------------------------------------------


def test_stopping_sends_idle_clients_away_and_takes_no_new_ones(with_uvloop: bool) -> None:
    with running(settings=PLAIN, with_uvloop=with_uvloop) as server:
        with Raw(server.connect()) as raw:
            raw.ask(b"EHLO a.test\r\n")
            server.begin_stop()
            assert raw.line() == b"421 4.3.2 Going down, try again later\r\n"
            assert raw.line() == b""
        server.stopped.result(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_stopping_waits_for_mails_on_their_way(with_uvloop: bool) -> None:
    with (
        running(settings=PLAIN, intake=MemoryIntake(holding=True), with_uvloop=with_uvloop) as server,
        Raw(server.connect()) as keeping,
        Raw(server.connect()) as sending,
    ):
        keeping.start_mail()
        keeping.socket.sendall(CONTENT + b".\r\n")
        assert server.intake.arrived.acquire(timeout=PATIENCE)
        sending.start_mail()
        server.begin_stop()
        server.intake.finish()
        assert [keeping.line()[:3], keeping.line()[:3]] == [b"250", b"421"]
        sending.socket.sendall(CONTENT + b".\r\n")
        assert server.intake.arrived.acquire(timeout=PATIENCE)
        server.intake.finish()
        assert [sending.line()[:3], sending.line()[:3]] == [b"250", b"421"]
        assert len(server.intake.kept) == 2


def test_stopping_cuts_off_what_does_not_end(with_uvloop: bool) -> None:
    with (
        running(settings=PLAIN, grace=0.0, with_uvloop=with_uvloop) as server,
        Raw(server.connect()) as raw,
    ):
        raw.start_mail()
        raw.socket.sendall(b"half a mail")
        server.begin_stop()
        server.stopped.result(PATIENCE)
        assert_ends(raw.socket)
        assert server.intake.kept == []


def test_tls_without_a_context_is_a_mistake_of_the_wiring() -> None:
    async def start() -> None:
        async with listen_smtp(
            HOST, 0, settings=SUBMISSION, policy=TablePolicy(), intake=MemoryIntake(), now=lambda: NOW
        ):
            pass

    import asyncio

    from tests.mail.smtp_client import NOW

    with pytest.raises(ValueError, match="TLS needs a context"):
        asyncio.run(start())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before
