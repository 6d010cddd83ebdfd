from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.mail.smtp_server import HOST, Certificate, make_certificate

from schleuse.errors import UnavailableError
from schleuse.mail.tls_pipe import TLSFailedError, TLSPipe, tls_context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificate: Certificate) -> TLSPipe:
    return TLSPipe(tls_context(certificate.certificate, certificate.key))


class TLSClient:
    """The other end, without a socket either."""

    def __init__(self, certificate: Certificate) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = certificate.client().wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def shake_hands(self, server: TLSPipe) -> bytes:
        """What the server has read when the client's handshake is done; the client's last octets are not sent."""
        plain = b""
        while True:
            try:
                self.tls.do_handshake()
                return plain
            except ssl.SSLWantReadError:
                plain += server.receive(self.outgoing.read())
                self.incoming.write(server.to_send())


@pytest.fixture
def client(certificate: Certificate) -> TLSClient:
    return TLSClient(certificate)


def test_plain_octets_that_come_with_the_end_of_the_handshake_are_read(server: TLSPipe, client: TLSClient) -> None:
    client.shake_hands(server)
    client.tls.write(b"EHLO a\r\n")
    assert not server.established
    assert server.receive(client.outgoing.read()) == b"EHLO a\r\n"
    assert server.established


def test_octets_may_come_one_by_one(server: TLSPipe, client: TLSClient) -> None:
    client.shake_hands(server)
    client.tls.write(b"NOOP\r\n")
    assert b"".join(server.receive(bytes([octet])) for octet in client.outgoing.read()) == b"NOOP\r\n"


def test_many_records_are_read_at_once(server: TLSPipe, client: TLSClient) -> None:
    client.shake_hands(server)
    client.tls.write(b"x" * 100_000)
    assert server.receive(client.outgoing.read()) == b"x" * 100_000
    server.send(b"250 ok\r\n")
    client.incoming.write(server.to_send())
    assert client.tls.read() == b"250 ok\r\n"


def test_what_is_no_tls_fails_and_says_so(server: TLSPipe) -> None:
    with pytest.raises(TLSFailedError):
        server.receive(b"EHLO plain.test\r\n")


def test_damaged_records_fail(server: TLSPipe, client: TLSClient) -> None:
    client.shake_hands(server)
    server.receive(client.outgoing.read())
    client.tls.write(b"MAIL FROM:<a@x.test>\r\n")
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    with pytest.raises(TLSFailedError):
        server.receive(bytes(record))


def test_both_ends_can_say_that_nothing_follows(server: TLSPipe, client: TLSClient) -> None:
    client.shake_hands(server)
    server.receive(client.outgoing.read())
    server.close()
    client.incoming.write(server.to_send())
    assert client.tls.read() == b""
    client.tls.unwrap()
    assert server.receive(client.outgoing.read()) == b""
    assert server.ended


def test_a_certificate_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.crt").write_text("no certificate")
    with pytest.raises(UnavailableError, match=r"broken\.crt"):
        tls_context(tmp_path / "broken.crt", tmp_path / "broken.key")
