"""The `journal` role: the only writer of all logs, one per insurer and year (journal.md § 2, § 17)."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from uuid import UUID

import structlog
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from schleuse.clock import Now
from schleuse.config import Config, host_and_port
from schleuse.errors import CorruptError, Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.ask import ask_witnesses, get
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.http import JournalPages
from schleuse.journal.push import WitnessPush, post
from schleuse.journal.recovery import altered_notes, open_journal
from schleuse.journal.server import Peers, listen
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Journal, Settings
from schleuse.processes.http_protocol import BoundedProtocol
from schleuse.processes.journal_care import Care, Figures, readiness
from schleuse.processes.journal_clock import Clock
from schleuse.processes.journal_keys import JournalRole
from schleuse.processes.journal_shards import Shards
from schleuse.processes.life import collect_seldom, until_stopped
from schleuse.processes.observe import observed, serving
from schleuse.processes.pseudonyms import Pseudonyms
from schleuse.processes.refusals import Refusals
from schleuse.processes.trail import new_event
from schleuse.vault.denials import Denials

log = structlog.get_logger()

#: One reader's fetches of one log are one entry in so much time (RP-07): a mirror must not fill what it mirrors.
READER_ENTRY_EVERY = timedelta(hours=1)
DISK_FAILED = 74  #: EX_IOERR of sysexits.h; the supervisor starts the role again, and the start finds what is durable


class UnknownUserError(UnavailableError):
    """A user in the configuration does not exist on this machine; its operator makes him, or corrects the name."""

    code = "journal.unknown-user"


def main(config: Config) -> None:
    """Run until stopped."""
    collect_seldom()
    uvloop.run(run(role_of(config)))


def role_of(config: Config) -> JournalRole:
    """What the configuration says. Raises UnknownUserError."""
    section = config.journal
    return JournalRole(
        config.home,
        config.hostname,
        tuple(IK(insurer.ik) for insurer in config.insurers),
        http=section.http,
        metrics=section.metrics,
        spares=section.spare_segments,
        retention_years=section.retention_years,
        vaults=_uids(section.vaults),
        writers=_uids(section.writers),
        shares_per_hour=section.shares_per_hour,
        publish_seconds=section.publish_seconds,
    )


def _uids(names: tuple[str, ...]) -> frozenset[int]:
    return frozenset(map(_uid, names))


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as cause:
        raise UnknownUserError(f"this machine has no user {name!r}; see journal.writers and journal.vaults") from cause


async def run(role: JournalRole) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    shares = KeyShares({}, role.shares_per_hour, role.now_us)
    clock = Clock(role.folder, role.now, role.uptime)
    settings = Settings(
        role.folder,
        (),
        role.now_us,
        segment_size=role.segment_size,
        spares=role.spares,
        share=shares.share,
        believed_us=clock.counted_us,
    )
    journal = open_journal(settings, on_failure=lambda: os._exit(DISK_FAILED))
    for finding in journal.findings:
        log.error("journal.quarantine", finding=finding)
    me = frozenset({os.getuid()})
    peers = Peers(role.writers or me, role.vaults or me)
    role.socket.parent.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        push = WitnessPush(journal, post, _alarm)
        shards = Shards(role, journal, shares, push.signed, clock)
        journal.instead, journal.clock_finding = shards.instead, clock.finding
        shards.adopt()
        if not journal.findings:
            _doubt(journal, altered_notes(journal, shards.policies))
        if not journal.findings:
            _doubt(journal, await ask_witnesses(journal, shards.policies, get, _alarm))
        if not journal.findings:
            await shards.open_logs()
        pseudonyms = Pseudonyms(role.folder / "readers.json")
        readers = Readers(pseudonyms, journal, role.now, shards.current)
        strangers = Strangers(pseudonyms, journal.append, shards.platform, role.now)
        host, port = host_and_port(role.http)
        app = JournalPages(journal, readers.told).app()
        web = uvicorn.Config(
            app, host=host, port=port, http=BoundedProtocol, log_config=None, access_log=False, lifespan="off"
        )
        # Whoever reads on the pages that we run may tell us to stop; until then a signal ends the start itself.
        stopped = asyncio.create_task(until_stopped())
        # the socket first: whoever reads on the pages that the journal runs may write to it (`answering`)
        await stack.enter_async_context(listen(role.socket, journal, peers, shares=shares, refused=strangers.refused))
        await stack.enter_async_context(serving(web))
        journal.publisher.signed.append(shards.show)
        care = Care(journal, role.home / "run" / "retention.frozen", role.retention_years, role.now, shards.proven)
        for work in (
            _tick(journal, role.publish_seconds),
            shards.watch(),
            care.watch(),
            care.prune_daily(),
            strangers.refusals.keep_telling(),
        ):
            stack.callback(asyncio.create_task(work).cancel)
        if role.metrics is not None:
            registry = CollectorRegistry()
            registry.register(Figures(journal, clock))
            await stack.enter_async_context(observed("journal", role.metrics, registry, lambda: readiness(journal)))
        log.info("journal.ready", logs=len(list(journal.logs())), findings=len(journal.findings))
        await stopped


def _doubt(journal: Journal, findings: list[str]) -> None:
    for finding in findings:
        log.error("journal.quarantine", finding=finding)
    if findings:
        journal.stop(findings)


def _alarm(event: str, origin: str, witness: str) -> None:
    log.error(f"journal.{event}", origin=origin, witness=witness)


async def _tick(journal: Journal, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            journal.tick()
        except Error as error:  # a contradiction with what was signed: nothing may be signed any more
            log.error("journal.stopped", code=error.code, reason=str(error))
            journal.stop([str(error)])


class Strangers:
    """Who tries at the socket what only others may leaves an entry in the platform's log; too many, one together (§ 4).

    Call `refusals.keep_telling` once, as a task. platform: origin of the log that takes it now.
    """

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        append: Callable[[str, bytes], Awaitable[object]],
        platform: Callable[[], str],
        now: Now,
    ) -> None:
        self.refusals = Refusals("journal", Denials(), self._tell, now)
        self._pseudonyms = pseudonyms
        self._append = append
        self._platform = platform
        self._now = now
        self._telling: set[asyncio.Task[None]] = set()

    def refused(self, uid: int) -> None:
        """See `server.listen`."""
        self.refusals.refused(str(uid), uid)

    def _tell(self, uid: int, count: int | None) -> None:
        log.error("journal.stranger", uid=uid, attempts=count or 1)
        task = asyncio.create_task(self._write(uid, count))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _write(self, uid: int, count: int | None) -> None:
        now = self._now()
        try:
            platform = self._platform()
            actor = self._pseudonyms.of(f"{platform} uid {uid}")
            entry = Entry(
                Kind.LOGIN_FAILED, Result.DENIED, Purpose.OPERATION, now, new_event(now), actor=actor, count=count
            )
            await self._append(platform, entry.encode())
        except Error as error:  # he is refused all the same
            log.error("journal.stranger-untold", uid=uid, code=error.code, reason=str(error))


class Readers:
    """Who reads entries leaves an entry himself (RP-07); actor is a random value that is assigned to the reader."""

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        journal: Journal,
        now: Now,
        current: Callable[[str], str],
        event: Callable[[datetime], UUID] = new_event,
    ) -> None:
        """current: origin of a log -> that of the log which takes entries of the same tenant now."""
        self._journal = journal
        self._now = now
        self._current = current
        self._event = event
        self._last: dict[tuple[str, str], datetime] = {}
        self._pseudonyms = pseudonyms

    async def told(self, origin: str, reader: str) -> None:
        """Write the entry unless this reader has one of this hour. Raises UnavailableError: then nothing is shown."""
        now = self._now()
        last = self._last.get((origin, reader))
        if last is not None and timedelta(0) <= now - last < READER_ENTRY_EVERY:  # a clock that was ahead hides nobody
            return
        current = self._current(origin)
        actor = self._pseudonyms.of(f"{current} {reader}")  # another in each log and year (§ 4)
        entry = Entry(Kind.READ, Result.GRANTED, Purpose.DATA_PROTECTION, now, self._event(now), actor=actor)
        try:
            await self._journal.append(current, entry.encode())
        except CorruptError as cause:
            raise UnavailableError("entries are not shown while the journal is in QUARANTINE") from cause
        self._last[origin, reader] = now
