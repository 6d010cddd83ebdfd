"""Entries of roles that go on when the journal does not: written to a file first, sent by a task (issue 3 D).

Taking mail in never waits for the journal (design.md § 2), so a login or an acceptance is recorded here and sent when
the journal takes it. The file of a year also has the openings of these entries: salt and detail record of each.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import structlog

from schleuse.clock import Now, utc_now
from schleuse.config import Config
from schleuse.errors import CorruptError, Error, UnavailableError
from schleuse.journal.client import JournalClient
from schleuse.journal.contracts import EventReusedError
from schleuse.journal.entry import NOBODY, Entry, Kind, Purpose, Result
from schleuse.journal.opening import Json, canonical_json, detail_commitment
from schleuse.processes.journal_keys import origin_of
from schleuse.processes.pseudonyms import Pseudonyms, write_whole

log = structlog.get_logger()

#: The log for what concerns no single insurer.
PLATFORM = "platform"
#: What commands of operators tell; the `kim` role sends it.
OUTSIDE = "cli"

#: The journal takes no entry whose time is further off (journal.md § 4); an older one gets the time of its sending.
ON_TIME = timedelta(seconds=90)
AT_ONCE = 1000
#: Octets that are read at once, backwards, to find where a torn line begins.
BLOCK = 65_536
IDLE_SECONDS = 0.2
TROUBLE_SECONDS = 2.0


class TrailDamagedError(CorruptError):
    """The file of entries that wait for the journal cannot be read; the operator looks before the role goes on."""

    code = "trail.damaged"


class Appends(Protocol):
    """The part of `JournalClient` that is needed."""

    async def append_many(self, origin: str, entries: Sequence[bytes]) -> Sequence[int]:
        """See `JournalClient.append_many`."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Act:
    """What was done or tried. tenant: an insurer's IK or PLATFORM. who: name of the actor, "" for the role itself."""

    tenant: str
    kind: Kind
    result: Result
    purpose: Purpose
    who: str = ""
    detail: Mapping[str, Json] = field(default_factory=dict)
    count: int | None = None


@dataclass(slots=True)
class _Position:
    """What was sent: octets of the file of `year`, and the last delivery whose acceptance was told."""

    year: int
    offset: int
    cursor: int


#: Entries that a role derives from its own store: those after a cursor, as (tenant, entry), and the new cursor.
Derived = Callable[[int], tuple[Sequence[tuple[str, bytes]], int]]


class Trail:
    """One per process. `tell` from any thread; `run` once, in the event loop.

    folder: `<home>/trail`. origin_of: tenant and year -> origin of the log. Raises UnavailableError, CorruptError.
    """

    def __init__(
        self,
        folder: Path,
        role: str,
        journal: Appends,
        origin_of: Callable[[str, int], str],
        now: Now,
        *,
        derived: Derived | None = None,
    ) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as cause:
            raise UnavailableError(f"the folder {folder.name} is not there ({cause.strerror})") from cause
        self._folder = folder
        self._role = role
        self._journal = journal
        self._origin_of = origin_of
        self._now = now
        self._derived = derived
        self._lock = threading.Lock()
        self._actors = Pseudonyms(folder / f"{role}-actors.json")
        self._position = self._read_position()
        for path in folder.glob(f"{role}-[0-9]*.jsonl"):
            _take_torn_line_away(path)

    def tell(self, act: Act) -> None:
        """Record; returns when the operating system has it, so that the death of the process loses nothing.

        Raises UnavailableError: then it is not recorded, and must not be done.
        """
        now = self._now()
        detail: dict[str, Json] = {**act.detail, "at": now.isoformat(timespec="milliseconds"), "role": self._role}
        if act.who:
            detail["who"] = act.who
        line = json.dumps(
            {
                "tenant": act.tenant,
                "kind": act.kind,
                "result": act.result,
                "purpose": act.purpose,
                "at": now.isoformat(),
                "event": new_event(now).hex,
                # Another in each log, of each tenant and year (journal.md § 4).
                "actor": (self._actors.of(f"{act.tenant} {now.year} {act.who}") if act.who else NOBODY).hex(),
                "count": act.count,
                "salt": secrets.token_hex(16),
                "detail": canonical_json(detail).decode(),
            },
            ensure_ascii=False,
        )
        with self._lock:
            # Nobody reads the file of a year that was left, should the clock go back.
            _append_line(self._file(max(now.year, self._position.year)), line.encode() + b"\n")

    async def run(self) -> None:
        """Send for ever."""
        while True:
            try:
                sent = await self.send()
            except Error as error:
                log.warning("trail.waiting", code=error.code, reason=str(error))
                await asyncio.sleep(TROUBLE_SECONDS)
                continue
            if not sent:
                await asyncio.sleep(IDLE_SECONDS)

    async def send(self) -> int:
        """Send what waits, at most AT_ONCE of each source; returns how many. Raises UnavailableError, CorruptError."""
        return await self._send_told() + await self._send_derived()

    async def _send_told(self) -> int:
        at = self._position
        lines, end = await asyncio.to_thread(self._waiting, at.offset)
        if not lines:
            newer = self._newer_year()
            if newer is not None:
                await self._moved(_Position(newer, 0, at.cursor))
            return 0
        now = self._now()
        await self._append([_entry(line, now) for line in lines])
        await self._moved(_Position(at.year, end, at.cursor))
        return len(lines)

    async def _send_derived(self) -> int:
        if self._derived is None:
            return 0
        at = self._position
        entries, cursor = await asyncio.to_thread(self._derived, at.cursor)
        if cursor == at.cursor:
            return 0
        await self._append(entries)
        await self._moved(_Position(at.year, at.offset, cursor))
        return len(entries)

    async def _append(self, entries: Sequence[tuple[str, bytes]]) -> None:
        year = self._now().year
        by_tenant: dict[str, list[bytes]] = {}
        for tenant, entry in entries:
            by_tenant.setdefault(tenant, []).append(entry)
        for tenant, ones in by_tenant.items():
            await _append(self._journal.append_many, self._origin_of(tenant, year), ones)

    async def _moved(self, to: _Position) -> None:
        value = {"year": to.year, "offset": to.offset, "cursor": to.cursor}
        await asyncio.to_thread(write_whole, self._folder / f"{self._role}.json", json.dumps(value).encode())
        self._position = to

    def _waiting(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The next whole lines, durable: an entry whose opening nobody has would prove nothing."""
        path = self._file(self._position.year)
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                file.seek(offset)
                lines: list[dict[str, Any]] = []
                for line in file:
                    if not line.endswith(b"\n") or len(lines) == AT_ONCE:
                        break
                    lines.append(json.loads(line))
                    offset += len(line)
        except FileNotFoundError:
            return [], offset
        except OSError as cause:
            raise UnavailableError(f"the file {path.name} cannot be read ({cause.strerror})") from cause
        except ValueError as cause:
            raise TrailDamagedError(f"{path.name} is damaged after octet {offset}; its operator must look") from cause
        return lines, offset

    def _newer_year(self) -> int | None:
        year = self._position.year
        return next((one for one in range(year + 1, self._now().year + 1) if self._file(one).exists()), None)

    def _read_position(self) -> _Position:
        path = self._folder / f"{self._role}.json"
        if not path.exists():
            years = [int(one.stem.rpartition("-")[2]) for one in self._folder.glob(f"{self._role}-[0-9]*.jsonl")]
            return _Position(min(years, default=self._now().year), 0, 0)
        try:
            return _Position(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as cause:
            raise TrailDamagedError(f"{path.name} cannot be read ({type(cause).__name__})") from cause

    def _file(self, year: int) -> Path:
        return self._folder / f"{self._role}-{year}.jsonl"


def _append_line(path: Path, line: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as cause:
        raise UnavailableError(f"{path.name} cannot be written ({cause.strerror}); its operator must look") from cause


def _take_torn_line_away(path: Path) -> None:
    """What a dying machine left without an end was never said to be recorded."""
    try:
        file = path.open("r+b")
    except OSError as cause:
        raise UnavailableError(f"{path.name} cannot be opened ({cause.strerror}); its operator must look") from cause
    with file:
        size = start = file.seek(0, os.SEEK_END)
        end = 0  # of the last whole line
        while start and not end:
            before, start = start, max(start - BLOCK, 0)
            file.seek(start)
            newline = file.read(before - start).rfind(b"\n")
            end = start + newline + 1 if newline >= 0 else 0
        if end < size:
            file.truncate(end)


async def _append(append: Callable[[str, Sequence[bytes]], Awaitable[object]], origin: str, ones: list[bytes]) -> None:
    """All of them, once. An event that the journal has with another time was sent before a crash of ours."""
    try:
        await append(origin, ones)
    except EventReusedError:
        if len(ones) == 1:
            return
        middle = len(ones) // 2
        await _append(append, origin, ones[:middle])
        await _append(append, origin, ones[middle:])


def _entry(line: Mapping[str, Any], now: datetime) -> tuple[str, bytes]:
    at = datetime.fromisoformat(line["at"])
    entry = Entry(
        Kind(line["kind"]),
        Result(line["result"]),
        Purpose(line["purpose"]),
        at if abs(now - at) < ON_TIME else now,
        UUID(line["event"]),
        actor=bytes.fromhex(line["actor"]),
        detail=detail_commitment(bytes.fromhex(line["salt"]), line["detail"].encode()),
        count=line["count"],
    )
    return line["tenant"], entry.encode()


def new_event(now: datetime, random: int | None = None) -> UUID:
    """A UUIDv7 (RFC 9562 § 5.7). random: 80 bits of it; the same event gets the same id when it is told again."""
    ms = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    value = ms << 80 | (secrets.randbits(80) if random is None else random)
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def teller(trail: Trail, purpose: Purpose, **always: Json) -> Callable[[Mapping[str, Json], bool], None]:
    """Gets facts, and whether it was granted: an act of administration in the platform's log, or one of policy if it is
    an order to switch. always: stand in each.
    """

    def tell(facts: Mapping[str, Json], granted: bool) -> None:
        kind = Kind.POLICY_CHANGED if facts.get("act") == "switch.command" else Kind.ADMINISTRATION
        result = Result.GRANTED if granted else Result.DENIED
        trail.tell(Act(PLATFORM, kind, result, purpose, detail={**facts, **always}))

    return tell


def outside_teller(config: Config, purpose: Purpose, **always: Json) -> Callable[[Mapping[str, Json], bool], None]:
    """`teller` for a command, which opens its trail when there is something to tell: a damaged one keeps nobody from
    stopping what need not be told first. Raises UnavailableError, CorruptError when it is called."""

    def tell(facts: Mapping[str, Json], granted: bool) -> None:
        teller(open_trail(config, OUTSIDE, JournalClient(config.journal_socket)), purpose, **always)(facts, granted)

    return tell


def open_trail(config: Config, role: str, journal: Appends, *, derived: Derived | None = None) -> Trail:
    """The trail of a role of this home."""
    return Trail(
        config.home / "trail",
        role,
        journal,
        lambda tenant, year: origin_of(config.hostname, tenant, year),
        utc_now,
        derived=derived,
    )
