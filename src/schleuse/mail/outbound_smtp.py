"""One connection to the next host, on aiosmtplib: opened when needed, used for many mails, never without its TLS.

The library gives the wire (TLS, STARTTLS, EHLO, AUTH, dot-stuffing, timeouts). The commands MAIL and RCPT are ours
(`outbound_plan.envelope`), because DSN parameters must pass exactly (kim.md § 9.3).
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import aiosmtplib

from schleuse.mail.contracts import Outgoing
from schleuse.mail.outbound_plan import Delivered, Later, Never, Outcome, Trouble, envelope, refusal, reply_line
from schleuse.mail.outbound_routes import OutboundConfig, Route, TLSMode

MAILS_PER_CONNECTION = 100  #: many servers end a session about there, and then with a mail half said
QUIT_TIMEOUT_SECONDS = 2.0


class CannotConnect(Exception):
    def __init__(self, later: Later) -> None:
        super().__init__(later.reply)
        self.later = later


class _Stale(Exception):
    """A kept connection was gone before we said anything of weight: try the same mail over a new one."""


class Peer:
    """At most one mail at a time. deliver() raises only CannotConnect: no mail can be sent there now."""

    def __init__(self, route: Route, config: OutboundConfig) -> None:
        self._route = route
        self._config = config
        self._client: aiosmtplib.SMTP | None = None
        self._used = 0

    async def deliver(self, mail: Outgoing) -> Outcome:
        """Try once. A lost connection after DATA is Later: sent twice is linked, lost is lost."""
        if self._used >= MAILS_PER_CONNECTION:
            await self.close()
        try:
            return await self._send(await self._opened(), mail)
        except _Stale:
            self.drop()
            return await self._send(await self._opened(), mail)

    async def close(self) -> None:
        """Say goodbye, but do not wait for it."""
        client = self._client
        if client is not None and client.is_connected:
            with suppress(aiosmtplib.SMTPException, OSError):  # it is closed either way
                await client.quit(timeout=QUIT_TIMEOUT_SECONDS)
        self.drop()

    def drop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client, self._used = None, 0

    # -- the session ---------------------------------------------------------------------------------------

    async def _opened(self) -> aiosmtplib.SMTP:
        if self._client is not None and self._client.is_connected:
            return self._client
        self.drop()
        try:
            self._client = await self._connect()
        except CannotConnect:
            self.drop()
            raise
        return self._client

    async def _connect(self) -> aiosmtplib.SMTP:
        route = self._route
        try:
            context, password = await asyncio.to_thread(_secrets, route)
        except (OSError, ValueError) as cause:  # ssl.SSLError is an OSError
            text = "a certificate, key or password file of the route cannot be read"
            raise CannotConnect(Later(text, Trouble.BAD_SETTING)) from cause
        self._client = client = aiosmtplib.SMTP(
            hostname=route.host,
            port=route.port,
            local_hostname=self._config.hostname,
            use_tls=route.tls is TLSMode.IMPLICIT,
            start_tls=False,
            tls_context=context,
            timeout=self._config.connect_timeout.total_seconds(),
        )
        try:
            await client.connect()
            if route.tls is TLSMode.STARTTLS:
                await _start_tls(client)
            await client.ehlo()
            if route.credentials is not None:
                await _log_in(client, route.credentials.user, password)
        except aiosmtplib.SMTPConnectResponseError as cause:
            raise CannotConnect(_session_refused(cause.code, cause.message)) from cause
        except aiosmtplib.SMTPHeloError as cause:
            raise CannotConnect(_session_refused(cause.code, cause.message)) from cause
        except (aiosmtplib.SMTPException, OSError) as cause:
            raise CannotConnect(_unreachable(cause)) from cause
        client.timeout = self._config.reply_timeout.total_seconds()
        return client

    async def _send(self, client: aiosmtplib.SMTP, mail: Outgoing) -> Outcome:
        plan = envelope(mail, client.esmtp_extensions)
        if isinstance(plan, Never):
            return plan
        relayed_dsn = client.supports_extension("dsn")
        fresh = self._used == 0
        self._used += 1
        try:
            for verb, argument in ((b"MAIL", plan.mail), (b"RCPT", plan.rcpt)):
                reply = await client.execute_command(verb, argument)
                if reply.code == 421 and not fresh and verb == b"MAIL":
                    raise _Stale  # it had waited too long for us, which says nothing about this mail
                if reply.code not in {250, 251}:
                    return await self._refused(reply.code, reply.message)
        except (aiosmtplib.SMTPException, OSError) as cause:
            if not fresh and not isinstance(cause, aiosmtplib.SMTPTimeoutError):
                raise _Stale from cause
            self.drop()
            return Later("the connection was lost before the content was sent", _silence(cause))
        try:
            reply = await client.data(mail.content, timeout=self._config.data_timeout.total_seconds())
        except aiosmtplib.SMTPResponseException as cause:
            return await self._refused(cause.code, cause.message)
        except (aiosmtplib.SMTPException, OSError) as cause:
            self.drop()
            text = "the connection was lost after the content was sent; the next host may have the mail"
            return Later(text, _silence(cause))
        return Delivered(reply_line(reply.code, reply.message), relayed_dsn)

    async def _refused(self, code: int, text: str) -> Outcome:
        """The session goes on with the next mail when the host lets us."""
        client = self._client
        try:
            if code == 421 or code < 400 or client is None:
                self.drop()
            else:
                await client.rset()
        except (aiosmtplib.SMTPException, OSError):
            self.drop()
        return refusal(code, text)


async def _start_tls(client: aiosmtplib.SMTP) -> None:
    await client.ehlo()
    if not client.supports_extension("starttls"):
        # Somebody between us may have taken it out of the reply: never go on in clear.
        raise CannotConnect(Later("the next host offers no STARTTLS", Trouble.TLS_NOT_OFFERED))
    try:
        await client.starttls()
    except aiosmtplib.SMTPResponseException as cause:
        raise CannotConnect(Later(reply_line(cause.code, cause.message), Trouble.TLS_NOT_OFFERED)) from cause


async def _log_in(client: aiosmtplib.SMTP, user: str, password: str) -> None:
    try:
        await client.login(user, password)
    except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError):
        raise
    except aiosmtplib.SMTPResponseException as cause:
        raise CannotConnect(Later(reply_line(cause.code, cause.message), Trouble.LOGIN_REFUSED)) from cause
    except aiosmtplib.SMTPException as cause:
        raise CannotConnect(Later("the next host offers no log-in that we speak", Trouble.LOGIN_REFUSED)) from cause


def _session_refused(code: int, text: str) -> Later:
    return Later(reply_line(code, text), Trouble.SESSION_REFUSED if code >= 500 else None)


def _silence(cause: BaseException) -> Trouble | None:
    """A host that says nothing for minutes would keep everything else that waits for it waiting as long."""
    return Trouble.UNREACHABLE if isinstance(cause, aiosmtplib.SMTPTimeoutError) else None


def _unreachable(cause: BaseException) -> Later:
    error: BaseException | None = cause
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return Later("the TLS identity of the next host could not be verified", Trouble.TLS_NOT_VERIFIED)
        error = error.__cause__ or error.__context__
    return Later("the next host cannot be reached", Trouble.UNREACHABLE)


def _secrets(route: Route) -> tuple[ssl.SSLContext | None, str]:
    """Read anew for each connection, so that renewed certificates and passwords need no restart."""
    password = ""
    if route.credentials is not None:
        password = route.credentials.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    if route.tls is TLSMode.NONE:
        return None, password
    context = ssl.create_default_context(cafile=str(route.ca_file) if route.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # kim.md § 11
    if route.client_certificate is not None and route.client_key is not None:
        context.load_cert_chain(route.client_certificate, route.client_key)
    return context, password
