"""The `journal` role: the only writer of all logs, one per insurer and year (journal.md § 2, § 17).

Everything it needs beside the configuration it makes at its first start under `<home>/journal`: a signing key for each
log, k_J for each insurer (§ 14.1), and a policy file for each insurer, which the operator replaces by the agreed one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pwd
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import structlog
import uvicorn
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry

from schleuse.clock import Now, utc_now
from schleuse.config import Config, host_and_port
from schleuse.errors import CorruptError, Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.ask import ask_witnesses, get
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.http import JournalPages
from schleuse.journal.log import LogConfig
from schleuse.journal.note import LogSigner
from schleuse.journal.opening import Json, Opening, canonical_json, detail_commitment
from schleuse.journal.policy import parse_policy
from schleuse.journal.push import WitnessPush, post
from schleuse.journal.recovery import open_journal
from schleuse.journal.server import Peers, listen
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Journal, Settings
from schleuse.processes.journal_care import Care, Figures, readiness
from schleuse.processes.life import until_stopped
from schleuse.processes.observe import observed, serving
from schleuse.processes.trail import PLATFORM

log = structlog.get_logger()

PUBLISH_SECONDS = 1.0
#: One reader's fetches of one log are one entry in so much time (RP-07): a mirror must not fill what it mirrors.
READER_ENTRY_EVERY = timedelta(hours=1)
DISK_FAILED = 74  #: EX_IOERR of sysexits.h; the supervisor starts the role again, and the start finds what is durable


class KeyMissingError(CorruptError):
    """A log exists whose signing key is gone; the operator has the backup, or opens a new shard."""

    code = "journal.key-missing"


class UnknownUserError(UnavailableError):
    """A user in the configuration does not exist on this machine; its operator makes him, or corrects the name."""

    code = "journal.unknown-user"


@dataclass(frozen=True, slots=True)
class JournalRole:
    """What the role is made of. vaults: user ids of the vault; empty: our own user, as with `schleuse up`.

    metrics: None in tests that look at nothing.
    """

    home: Path
    host: str
    insurers: tuple[IK, ...]
    http: str = "127.0.0.1:9480"
    metrics: str | None = None
    spares: int = 2
    retention_years: int = 3
    vaults: frozenset[int] = frozenset()
    writers: frozenset[int] = frozenset()
    shares_per_hour: int = 2_000_000
    segment_size: int = 64 << 20
    publish_seconds: float = PUBLISH_SECONDS
    now: Now = field(default=utc_now)

    @property
    def folder(self) -> Path:
        """All that the role keeps."""
        return self.home / "journal"

    @property
    def socket(self) -> Path:
        """Where clients append."""
        return self.home / "run" / "journal.sock"


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
    try:
        return frozenset(pwd.getpwnam(name).pw_uid for name in names)
    except KeyError as cause:
        raise UnknownUserError(
            f"this machine has no user of the name in {cause}; see journal.writers and vaults"
        ) from cause


def collect_seldom() -> None:
    """An append makes no cycles, but a few objects that wait for a flush; looking for cycles so often costs 10 %."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def run(role: JournalRole) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    tenants = (*map(str, role.insurers), PLATFORM)
    logs = [log_config(role, tenant, role.now()) for tenant in tenants]
    shares = KeyShares(
        # Not for the platform's own log: nothing is sealed for it.
        {
            one.origin: _secret(role.folder / "keys" / f"share-{tenant}")
            for one, tenant in zip(logs, tenants, strict=True)
            if tenant != PLATFORM
        },
        role.shares_per_hour,
        now_us,
    )
    settings = Settings(
        role.folder, tuple(logs), now_us, segment_size=role.segment_size, spares=role.spares, share=shares.share
    )
    journal = open_journal(settings, on_failure=lambda: os._exit(DISK_FAILED))
    for finding in journal.findings:
        log.error("journal.quarantine", finding=finding)
    me = frozenset({os.getuid()})
    peers = Peers(role.writers or me, role.vaults or me)
    role.socket.parent.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        policies = {one.origin: one.policy for one in logs}
        if not journal.findings and (contradicted := await ask_witnesses(journal, policies, get, _alarm)):
            for finding in contradicted:
                log.error("journal.quarantine", finding=finding)
            journal.stop(contradicted)
        if not journal.findings:
            await _open_logs(role, journal, logs)
        readers = Readers(role.folder / "readers.json", journal, role.now)
        host, port = host_and_port(role.http)
        app = JournalPages(journal, readers.told).app()
        web = uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False, lifespan="off")
        await stack.enter_async_context(serving(web))
        await stack.enter_async_context(listen(role.socket, journal, peers, shares=shares))
        push = WitnessPush(journal, post, _alarm)
        journal.publisher.signed.append(lambda log: push.signed(log, policies[log.origin]))
        care = Care(journal, role.folder, role.home / "run" / "retention.frozen", role.retention_years, role.now)
        for work in (_tick(journal, role.publish_seconds), care.watch(), care.prune_daily()):
            stack.callback(asyncio.create_task(work).cancel)
        if role.metrics is not None:
            registry = CollectorRegistry()
            registry.register(Figures(journal))
            await stack.enter_async_context(observed("journal", role.metrics, registry, lambda: readiness(journal)))
        log.info("journal.ready", logs=len(logs), findings=len(journal.findings))
        await until_stopped()


def now_us() -> int:
    """Microseconds since 1970 UTC, for the frames and for judging entries' clocks; read for every entry."""
    return time.time_ns() // 1000


def origin_of(host: str, insurer: IK | str, year: int) -> str:
    """`journal.<host>/<tenant>/<shard>` (§ 7); the shard is a calendar year (§ 17)."""
    return f"journal.{host}/{insurer}/{year}"


def log_config(role: JournalRole, tenant: str, now: datetime) -> LogConfig:
    """The tenant's log of this year, its key and policy made if they do not exist. Raises KeyMissingError."""
    origin = origin_of(role.host, tenant, now.year)
    signer = log_signer(role.folder, origin, new=not _has_log(role.folder, origin))
    policy = policy_file(role.folder, origin)
    if not policy.exists():
        policy.parent.mkdir(parents=True, exist_ok=True)
        replace(OsDisk(), policy, f"log {signer.key.vkey}\nquorum none\n".encode())
    return LogConfig(origin, signer, parse_policy(policy.read_bytes()))


def log_signer(folder: Path, origin: str, *, new: bool = True) -> LogSigner:
    """The signing key of a log under `<home>/journal`, made if it does not exist and may be new; a home makes it too.

    Raises KeyMissingError.
    """
    key = _secret(folder / "keys" / f"log-{_file_name(origin)}", new=new)
    return LogSigner(origin, Ed25519PrivateKey.from_private_bytes(key))


def policy_file(folder: Path, origin: str) -> Path:
    """Where the policy of a log under `<home>/journal` is."""
    return folder / "policies" / _file_name(origin)


def _file_name(origin: str) -> str:
    _, tenant, shard = origin.rsplit("/", 2)
    return f"{tenant}-{shard}"


def _has_log(folder: Path, origin: str) -> bool:
    state = folder / "state"
    return state.exists() and json.dumps(origin).encode() in state.read_bytes()


def _secret(path: Path, *, new: bool = True) -> bytes:
    """32 random bytes, kept in a file that only this role reads. Raises KeyMissingError."""
    if path.exists():
        return path.read_bytes()
    if not new:
        raise KeyMissingError(f"{path.name} is not there, and its log is; a new key could not continue it")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    value = secrets.token_bytes(32)
    replace(OsDisk(), path, value)
    return value


async def _open_logs(role: JournalRole, journal: Journal, logs: list[LogConfig]) -> None:
    """Each new log begins with a leaf 0x01 that commits to its key and policy (§ 4, § 17)."""
    known = {one.origin for one in journal.logs()}
    for one in logs:
        if one.origin not in known:
            journal.open_log(one.origin)
        if journal.log(one.origin).size == 0:
            detail: Json = {
                "key": one.signer.key.vkey,
                "origin": one.origin,
                "quorum": one.policy.quorum,
                "witnesses": [witness.key.key.vkey for witness in one.policy.witnesses],
            }
            await _append(role, journal, one.origin, Kind.LOG_OPENED, Purpose.OPERATION, detail)


async def _append(role: JournalRole, journal: Journal, origin: str, kind: Kind, purpose: Purpose, detail: Json) -> None:
    """Keep the opening first: a leaf whose detail nobody has would prove nothing."""
    salt, record = secrets.token_bytes(16), canonical_json(detail)
    event = new_event(role.now())
    openings = role.folder / "openings"
    openings.mkdir(mode=0o700, exist_ok=True)
    replace(OsDisk(), openings / f"{event}.json", Opening(detail=(salt, record)).encode())
    entry = Entry(kind, Result.GRANTED, purpose, role.now(), event, detail=detail_commitment(salt, record))
    await journal.append(origin, entry.encode())


def new_event(now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562 § 5.7)."""
    ms = int(now.timestamp() * 1000)
    value = ms << 80 | secrets.randbits(80)
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


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


class Readers:
    """Who reads entries leaves an entry himself (RP-07); actor is a random value that `path` assigns to the reader."""

    def __init__(self, path: Path, journal: Journal, now: Now, event: Callable[[datetime], UUID] = new_event) -> None:
        self._path = path
        self._journal = journal
        self._now = now
        self._event = event
        self._last: dict[tuple[str, str], datetime] = {}
        self._pseudonyms: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    async def told(self, origin: str, reader: str) -> None:
        """Write the entry unless this reader has one of this hour. Raises UnavailableError: then nothing is shown."""
        now = self._now()
        last = self._last.get((origin, reader))
        if last is not None and now - last < READER_ENTRY_EVERY:
            return
        actor = bytes.fromhex(self._pseudonym(reader))
        entry = Entry(Kind.READ, Result.GRANTED, Purpose.DATA_PROTECTION, now, self._event(now), actor=actor)
        try:
            await self._journal.append(origin, entry.encode())
        except CorruptError as cause:
            raise UnavailableError("entries are not shown while the journal is in QUARANTINE") from cause
        self._last[origin, reader] = now

    def _pseudonym(self, reader: str) -> str:
        if reader not in self._pseudonyms:
            self._pseudonyms[reader] = secrets.token_hex(16)
            replace(OsDisk(), self._path, json.dumps(self._pseudonyms, indent=1).encode())
        return self._pseudonyms[reader]
