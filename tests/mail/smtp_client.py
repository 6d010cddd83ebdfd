"""A client of the pure SMTP session: feeds bytes, carries out its actions, and remembers all that was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.mail.fakes import TablePolicy

from schleuse.errors import Error
from schleuse.mail.contracts import Mail
from schleuse.mail.passwords import Outcome, WrongPasswordError
from schleuse.mail.smtp import (
    Action,
    CheckPassword,
    Close,
    Deliver,
    Policy,
    Postponed,
    Send,
    Session,
    Settings,
    StartTLS,
)

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
RELAY = Settings(hostname="mx.test", require_auth=False)
SUBMISSION = Settings(hostname="mail.test", require_auth=True)
USER, PASSWORD = "praxis@a.kim.telematik", "geheim"


@dataclass
class Client:
    """outcome: what keeping a mail ends with. tls: implicit TLS."""

    settings: Settings = RELAY
    policy: Policy = field(default_factory=TablePolicy)
    tls: bool = False
    outcome: Error | None = None
    peer: str = "192.0.2.7"
    holds: bool = False
    login: Outcome | None = None
    said: bytes = b""
    mails: list[Mail] = field(default_factory=list)
    passwords: list[CheckPassword] = field(default_factory=list)
    postponed: list[Postponed] = field(default_factory=list)
    closed: bool = False
    upgrades: int = 0

    def __post_init__(self) -> None:
        self.session = Session(self.settings, self.policy, peer=self.peer, tls=self.tls)
        self._do(self.session.greet())

    def send(self, data: bytes) -> list[str]:
        """The reply lines that these bytes bring."""
        before = len(self.said)
        self._do(self.session.receive(data, NOW))
        return self.said[before:].decode().split("\r\n")[:-1]

    def byte_by_byte(self, data: bytes) -> None:
        for octet in data:
            self.send(bytes([octet]))

    def drain(self) -> None:
        self._do(self.session.drain())

    def finish(self, error: Error | None = None) -> None:
        self._do(self.session.kept(error, NOW))

    @property
    def codes(self) -> list[str]:
        """The codes of all last lines of replies so far."""
        return [line[:3] for line in self.said.decode().split("\r\n")[:-1] if line[3:4] != "-"]

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.closed, "nothing follows a Close"
            match action:
                case Send(data):
                    self.said += data
                case Deliver(mail):
                    self.mails.append(mail)
                    if not self.holds:
                        self._do(self.session.kept(self.outcome, NOW))
                case CheckPassword(user, password):
                    self.passwords.append(action)
                    right = (user, password) == (USER, PASSWORD)
                    answer = self.login or (user if right else WrongPasswordError("wrong"))
                    self._do(self.session.password_checked(answer, NOW))
                case Postponed():
                    self.postponed.append(action)
                case StartTLS():
                    self.upgrades += 1
                    self.session.tls_started()
                case Close():
                    self.closed = True


def hello(client: Client) -> Client:
    client.send(b"EHLO praxis.test\r\n")
    return client


def relay(**changes: object) -> Client:
    """A client of a relay, greeted."""
    return hello(Client(**changes))  # type: ignore[arg-type]


def logged_in(**changes: object) -> Client:
    """A client of a submission server, over TLS, logged in as USER."""
    client = hello(Client(**({"settings": SUBMISSION, "tls": True} | changes)))  # type: ignore[arg-type]
    client.send(b"AUTH PLAIN AHByYXhpc0BhLmtpbS50ZWxlbWF0aWsAZ2VoZWlt\r\n")
    return client


def in_data(client: Client) -> Client:
    client.send(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
    return client
