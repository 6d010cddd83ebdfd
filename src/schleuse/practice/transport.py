"""The practice's mail program: real SMTP with DSN, real POP3, TLS verified (kim.md § 9, § 10)."""

from __future__ import annotations

import asyncio
import poplib
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiosmtplib

from schleuse.config import host_and_port
from schleuse.errors import UnavailableError

#: KONNEKTOR_TIMEOUT and session timeouts of kim.md § 17 leave room; a person waits at this end.
TIMEOUT_SECONDS = 60.0


class MailServerError(UnavailableError):
    """The practice's mail server does not answer or refuses the login; its operator must look."""

    code = "practice.mail-server"


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """Where the practice's KIM provider listens. ca: PEM file of the server's CA."""

    smtp: str
    pop3: str
    ca: Path
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's last word on one mail."""

    code: int
    text: str

    @property
    def accepted(self) -> bool:
        return self.code == 250

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500


class Submission:
    """An authenticated SMTP session."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self._client = client

    async def send(self, sender: str, recipients: Sequence[str], content: bytes) -> Reply:
        """Hand over one mail with DSN requested, as every eAU is sent (eau.md § 5)."""
        try:
            response = await self._client.sendmail(
                sender,
                list(recipients),
                content,
                mail_options=["RET=HDRS"],  # SIZE is added by the client
                rcpt_options=["NOTIFY=SUCCESS,FAILURE"],
            )
        except aiosmtplib.SMTPRecipientsRefused as refused:
            first = refused.recipients[0]
            return Reply(first.code, first.message)
        except aiosmtplib.SMTPResponseException as refused:
            return Reply(refused.code, refused.message)
        except (aiosmtplib.SMTPException, OSError) as cause:
            raise MailServerError(f"the mail server broke off ({type(cause).__name__}); send again later") from cause
        return Reply(250, response[1])


@asynccontextmanager
async def submission(server: Server) -> AsyncIterator[Submission]:
    """Log in to the mail server. Raises MailServerError."""
    host, port = host_and_port(server.smtp)
    client = aiosmtplib.SMTP(
        hostname=host, port=port, use_tls=True, tls_context=_trust(server.ca), timeout=TIMEOUT_SECONDS
    )
    try:
        await client.connect()
        await client.login(server.user, server.password)
    except (aiosmtplib.SMTPException, OSError) as cause:
        await _end(client, client.transport)
        raise MailServerError(f"no session with the mail server at {server.smtp}: {cause}") from cause
    transport = client.transport
    try:
        yield Submission(client)
    finally:
        try:
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit()
        finally:
            await _end(client, transport)


async def _end(client: aiosmtplib.SMTP, transport: asyncio.BaseTransport | None) -> None:
    """Give the socket back now: TLS would wait for the server's goodbye, and the caller's loop may end before it."""
    client.close()
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
        await asyncio.sleep(0)


class _Mailbox(poplib.POP3_SSL):
    """Closes its socket when the server goes before its greeting; poplib leaves it to the garbage collector."""

    def _getresp(self) -> bytes:
        try:
            return super()._getresp()  # type: ignore[misc,no-any-return]
        except (poplib.error_proto, OSError):
            if not hasattr(self, "welcome"):
                self.close()
            raise


@contextmanager
def mailbox(server: Server) -> Iterator[poplib.POP3_SSL]:
    """Log in to the mailbox; deletions take effect when the block is left in order. Raises MailServerError."""
    host, port = host_and_port(server.pop3)
    try:
        client = _Mailbox(host, port, context=_trust(server.ca), timeout=TIMEOUT_SECONDS)
    except (poplib.error_proto, OSError) as cause:
        raise MailServerError(f"no session with the mailbox at {server.pop3}: {cause}") from cause
    try:
        client.user(server.user)
        client.pass_(server.password)
    except (poplib.error_proto, OSError) as cause:
        client.close()
        raise MailServerError(f"no session with the mailbox at {server.pop3}: {cause}") from cause
    try:
        yield client
    except BaseException:
        client.close()
        raise
    client.quit()


def _trust(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))
