"""The probes of closures: real SMTP, POP3 and HTTPS from outside, the vault's counters, the fences (SW-07).

Sessions go through the front doors with TLS verified, as a practice or an insurer would come; nothing is left behind:
after each RCPT comes RSET, and a mailbox that opens is left at once. Everything blocking runs in threads of our own.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import poplib
import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from schleuse.config import Config, host_and_port
from schleuse.database import open_existing, reading
from schleuse.errors import Error
from schleuse.journal.entry import Purpose
from schleuse.processes.control_logins import Login
from schleuse.scopes import Direction, Scope, Service
from schleuse.shutdown.closure import Answer, Check, Seen, What

#: Of one command to one server; the whole proof has 60 s (§ 5.2).
PROBE_SECONDS = 5.0
THREADS = 12
#: Of one session: a server hangs up on who asks for many and sends nothing.
RECIPIENTS = 20
#: What a deferral must say besides its code (§ 6.5).
SECURITY = "closed for security"
_MAX_TEXT = 200
T = TypeVar("T")


class PlatformProbes:
    """Of this home. Reading the databases is all that is done to them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._insurers = {one.ik: one for one in config.insurers}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="probe")
        self._engines: dict[str, Engine] = {}

    def close(self) -> None:
        """Threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for engine in self._engines.values():
            engine.dispose()

    async def outside(self, checks: Sequence[Check]) -> Mapping[Check, Seen]:
        """See `Probes.outside`."""
        by_what = {what: [one for one in checks if one.what is what] for what in What}
        work: list[Callable[[], Mapping[Check, Seen]]] = []
        for few in _pieces(by_what[What.SMTP], RECIPIENTS):
            work.append(lambda few=few: self._smtp(few))  # type: ignore[misc]
        for what, path in _PATHS.items():
            if by_what[what]:
                work.append(lambda what=what, path=path: self._feed(by_what[what], path))  # type: ignore[misc]
        work += [lambda one=one: {one: self._pop3(one.scope)} for one in by_what[What.POP3]]  # type: ignore[misc]
        found: dict[Check, Seen] = {}
        for one in await asyncio.gather(*(self._in_thread(step) for step in work)):
            found.update(one)
        return found

    async def counts(self, checks: Sequence[Check]) -> Mapping[Check, int | None]:
        """See `Probes.counts`."""
        if not checks:
            return {}
        releases = self._in_thread(self._releases) if any(one.what is What.RELEASES for one in checks) else None
        effects = self._in_thread(lambda: self._effects([one.scope for one in checks if one.what is What.EFFECTS]))
        released = await releases if releases is not None else None
        out = await effects
        return {one: _of(released, one.scope) if one.what is What.RELEASES else out.get(one.scope) for one in checks}

    async def fences(self, scopes: Sequence[Scope]) -> Mapping[Scope, Sequence[int]]:
        """See `Probes.fences`."""
        return await self._in_thread(lambda: self._fences(frozenset(scopes))) if scopes else {}

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, step)

    def log_in(self, account: Login) -> None:
        """By SMTP, and go. Raises OSError, SMTPException, ValueError."""
        host, port = host_and_port(self._config.kim.smtp_tls)
        with smtplib.SMTP_SSL(host, port, timeout=PROBE_SECONDS, context=self._trust()) as session:
            session.login(account.user, _secret(account.password))

    # --- from outside -----------------------------------------------------------------------

    def _smtp(self, checks: Sequence[Check]) -> Mapping[Check, Seen]:
        """One session of the probe account; a transaction of its own for each recipient, broken off before DATA."""
        control = self._config.control
        if control.probe_account is None or control.probe_password_file is None:
            return {one: Seen(None, "control.probe_account is not configured", 0) for one in checks}
        found: dict[Check, Seen] = {}
        host, port = host_and_port(self._config.kim.smtp_tls)
        try:
            password = _secret(control.probe_password_file)
            with smtplib.SMTP_SSL(host, port, timeout=PROBE_SECONDS, context=self._trust()) as session:
                session.login(control.probe_account, password)
                for one in checks:
                    found[one] = rcpt_seen(session, control.probe_account, self._recipient(one.scope))
        except (OSError, ValueError, smtplib.SMTPException) as cause:
            return {one: found.get(one, Seen(None, _reason(cause))) for one in checks}
        return found

    def _recipient(self, scope: Scope) -> str:
        insurer = self._insurers.get(scope.tenant)
        return insurer.address if insurer else str(self._config.control.probe_account)

    def _pop3(self, scope: Scope) -> Seen:
        insurer = self._insurers.get(scope.tenant)
        user = insurer.address if insurer else self._config.control.probe_account
        file = insurer.password_file if insurer else self._config.control.probe_password_file
        if user is None or file is None:
            return Seen(None, "control.probe_account is not configured", 0)
        host, port = host_and_port(self._config.kim.pop3_tls)
        session: poplib.POP3_SSL | None = None
        try:
            password = _secret(file)
            session = poplib.POP3_SSL(host, port, context=self._trust(), timeout=PROBE_SECONDS)
            session.user(user)
            session.pass_(password)
            session.quit()
            return Seen(Answer.PASSED, "the mailbox opened")
        except poplib.error_proto as refusal:
            line = refusal.args[0] if refusal.args else b""
            text = line.decode("ascii", "replace") if isinstance(line, bytes) else str(line)
            return Seen(Answer.CLOSED if "[SYS/TEMP]" in text else Answer.OTHER, text[:_MAX_TEXT])
        except (OSError, ValueError) as cause:
            return Seen(None, _reason(cause))
        finally:
            if session is not None:
                with suppress(OSError):
                    session.close()

    def _feed(self, checks: Sequence[Check], path: str) -> Mapping[Check, Seen]:
        """Without a token: who is closed says so before it looks at who asks."""
        host, port = host_and_port(self._config.eau.feed)
        found: dict[Check, Seen] = {}
        connection = http.client.HTTPSConnection(host, port, timeout=PROBE_SECONDS, context=self._trust())
        try:
            for one in checks:
                connection.request("GET", f"/v1/{one.scope.tenant}/{path}?limit=1")
                answer = connection.getresponse()
                found[one] = feed_seen(answer.status, answer.read(65_536))
        except (OSError, http.client.HTTPException) as cause:
            return {one: found.get(one, Seen(None, _reason(cause))) for one in checks}
        finally:
            connection.close()
        return found

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._config.eau.submit_ca))

    # --- counters and fences ----------------------------------------------------------------

    def _releases(self) -> Mapping[tuple[str, str], int] | None:
        """What the vault has opened by IK and purpose; None when it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://{self._config.vault.metrics}/metrics", timeout=PROBE_SECONDS
            ) as answer:
                text = answer.read().decode()
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return {
            (sample.labels["ik"], sample.labels["purpose"]): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "schleuse_vault_releases_total"
        }

    def _effects(self, scopes: Sequence[Scope]) -> Mapping[Scope, int | None]:
        """What each scope has sent out or published so far."""
        return {one: self._effects_of(one) for one in scopes}

    def _effects_of(self, scope: Scope) -> int | None:
        if scope.service == Service.KIM_MAIL and scope.direction == Direction.DELIVER:
            return self._number(self._config.kim_database, _OUT, {})
        if scope.direction == Direction.DELIVER and scope.service in _OF_INSURERS:
            queries = _OF_INSURERS[scope.service]
            numbers = [self._number(self._config.eau_database, one, {"ik": scope.tenant}) for one in queries]
            known = [one for one in numbers if one is not None]
            return sum(known) if len(known) == len(numbers) else None
        return None

    def _number(self, url: str, query: sa.TextClause, values: Mapping[str, str]) -> int | None:
        try:
            with reading(self._engine(url)).begin() as connection:
                return int(connection.execute(query, dict(values)).scalar_one() or 0)
        except (DBAPIError, Error):
            return None

    def _fences(self, scopes: frozenset[Scope]) -> Mapping[Scope, Sequence[int]]:
        found: dict[str, list[int]] = {}
        for url in (self._config.kim_database, self._config.eau_database):
            with suppress(DBAPIError, Error), reading(self._engine(url)).begin() as connection:
                for name, epoch in connection.execute(_FENCES):
                    found.setdefault(name, []).append(epoch)
        return {one: found.get(str(one), []) for one in scopes}

    def _engine(self, url: str) -> Engine:
        """Raises DatabaseUnavailableError: the database is its role's to make."""
        if url not in self._engines:
            self._engines[url] = open_existing(url)
        return self._engines[url]


_FENCES = sa.text("SELECT scope, epoch FROM switch_fence")
_OUT = sa.text("SELECT count(*) FROM kim_delivery WHERE account IS NULL AND state IN ('DELIVERED', 'RETURNED')")
#: What goes out to insurers' systems and their practices, by service.
_OF_INSURERS: Mapping[str, Sequence[sa.TextClause]] = {
    Service.EAU_INTAKE: (
        sa.text("SELECT max(seq) FROM eau_event WHERE ik = :ik"),
        sa.text("SELECT count(*) FROM eau_letter WHERE ik = :ik AND sent_at IS NOT NULL"),
    ),
    Service.EAU_EMPLOYER_ANSWER: (
        sa.text("SELECT count(*) FROM eau_request WHERE ik = :ik"),
        sa.text("SELECT max(seq) FROM eau_follow_up WHERE ik = :ik"),
    ),
}
#: What of the feed is asked for (`eau/feed.py`).
_PATHS: Mapping[What, str] = {What.FEED: "eau", What.ANSWERS: "answers"}


#: Which releases belong to an atom (`vault.gate`); those of keys are all of them.
_PURPOSES: Mapping[tuple[str, str], tuple[Purpose, ...]] = {
    (Service.EAU_INTAKE, Direction.PROCESS): (Purpose.EAU_INTAKE,),
    (Service.EAU_INTAKE, Direction.DELIVER): (Purpose.EAU_DELIVERY, Purpose.FEHLERNACHRICHT),
    (Service.KEYS, Direction.PROCESS): tuple(Purpose),
}


def _pieces(checks: Sequence[Check], size: int) -> list[Sequence[Check]]:
    return [checks[at : at + size] for at in range(0, len(checks), size)]


def _of(released: Mapping[tuple[str, str], int] | None, scope: Scope) -> int | None:
    if released is None:
        return None
    names = {one.name.lower() for one in _PURPOSES.get((scope.service, scope.direction), ())}
    return sum(number for (ik, purpose), number in released.items() if ik == scope.tenant and purpose.lower() in names)


class Session(Protocol):
    """The part of `smtplib.SMTP` that is needed."""

    def mail(self, sender: str) -> tuple[int, bytes]: ...

    def rcpt(self, recip: str) -> tuple[int, bytes]: ...

    def rset(self) -> tuple[int, bytes]: ...


def rcpt_seen(session: Session, sender: str, recipient: str) -> Seen:
    """A transaction that is broken off before DATA. What may quote an address is not kept."""
    code, text = session.mail(sender)
    if code == 250:
        code, text = session.rcpt(recipient)
    session.rset()
    said = f"{code} {text.decode('ascii', 'replace')}"[:_MAX_TEXT]
    if code == 250:
        return Seen(Answer.ACCEPTED, "250")  # the reply may quote the address
    if code == 451 and SECURITY in said:
        return Seen(Answer.DEFERRED, said)
    return Seen(Answer.OTHER, said)


def feed_seen(status: int, body: bytes) -> Seen:
    """Closed is 503 with a body that says so to a machine."""
    if status == 503 and _says_closed(body):
        return Seen(Answer.CLOSED, "503 closed")
    if status == 200:
        return Seen(Answer.PASSED, "200")
    # 401 and 403: the door is open, and only the probe has no token.
    return Seen(Answer.PASSED if status in (401, 403) else Answer.OTHER, str(status))


def _says_closed(body: bytes) -> bool:
    try:
        problem = json.loads(body)
    except ValueError:
        return False
    return isinstance(problem, dict) and isinstance(problem.get("closed"), dict)


def _secret(path: Path) -> str:
    """Raises OSError, UnicodeDecodeError."""
    return path.read_text("utf-8").strip()


def _reason(cause: BaseException) -> str:
    if isinstance(cause, smtplib.SMTPResponseException):
        return f"{type(cause).__name__} {cause.smtp_code}"
    if isinstance(cause, OSError):  # first: a certificate that is not right is a ValueError, too
        return cause.strerror or type(cause).__name__
    if isinstance(cause, ValueError):  # not UTF-8, or not ASCII, which SMTP needs; its words would quote it
        return f"the password cannot be used ({type(cause).__name__})"
    return type(cause).__name__
