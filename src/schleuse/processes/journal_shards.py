"""One shard after the other: a log for each tenant and year, announced and opened in time, closed behind it (§ 17).

Every step is found from what is durable, so that after a crash the next look goes on where the last one ended.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256

import structlog

from schleuse.errors import Error
from schleuse.journal.disk import OsDisk, erase, replace
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.log import Log, LogConfig
from schleuse.journal.opening import Json, Opening, canonical_json, detail_commitment
from schleuse.journal.policy import Policy
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Journal
from schleuse.journal.successor import Announced, announcement, is_announced, keep_announced
from schleuse.processes.journal_clock import Clock, Proven
from schleuse.processes.journal_keys import (
    JournalRole,
    key_file,
    log_config,
    log_signer,
    origin_of,
    policy_file,
    read_policy,
    share_key,
)
from schleuse.processes.trail import PLATFORM, new_event

log = structlog.get_logger()

LOOK_SECONDS = 60.0
#: A year's logs are there before the year, for writers whose clocks are ahead, and a while after it, for what is late.
AHEAD = BEHIND = timedelta(minutes=10)


class Shards:
    """Which logs there are. ask: shows a log's newest note to the witnesses of a policy (`WitnessPush.signed`).

    policies: by origin, of all logs that are known.
    """

    def __init__(
        self,
        role: JournalRole,
        journal: Journal,
        shares: KeyShares,
        ask: Callable[[Log, Policy], None],
        clock: Clock,
    ) -> None:
        self.policies: dict[str, Policy] = {}
        self.clock = clock
        self.proven = Proven(journal, self.policies, clock)
        self._role = role
        self._journal = journal
        self._shares = shares
        self._ask = ask
        self._waiting: set[str] = set()
        self._has_opened = False

    def adopt(self) -> None:
        """Policies and keys of all logs there are, and of this year's. Raises KeyMissingError, OSError."""
        now = self._vouched()
        for one in self._journal.logs():
            if not self._is_ours(one.origin) or not policy_file(self._role.folder, one.origin).exists():
                continue
            # A closed log needs no key; that of a later year is there because a clock was ahead.
            if one.closed or _tenant(one.origin) not in self._tenants or _year(one.origin) != now.year:
                config = self._config_of(one)
                if config.signer is None and not one.closed and not one.minimum:
                    log.error("journal.key-missing", origin=one.origin, size=one.size)
                self._configure(config)
        for tenant in self._tenants:
            if origin_of(self._role.host, tenant, now.year) not in self.policies:
                self._configure(log_config(self._role, tenant, now.year))
        self.clock.keep()

    async def watch(self) -> None:
        """Look each minute, for ever."""
        while True:
            try:
                await self.look()
            except (Error, OSError) as error:
                log.error("journal.shard-waits", reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Open what is due, and take one step with each log whose year is over. Raises Error, OSError."""
        if self._journal.findings:
            return
        was_doubted, self._has_opened = self.clock.was_doubted, False
        failed: Error | OSError | None = None
        try:
            await self._look_at_the_clock()
        except (Error, OSError) as error:  # keeps nobody out of the new year; but then nothing is ended
            failed = error
        await self.open_logs()
        await self.announce()
        if failed is not None:
            raise failed
        settled = not was_doubted and not self._has_opened
        last = (self.clock.present() - BEHIND).year
        for one in list(self._journal.logs()):
            if not self._is_ours(one.origin):
                continue
            if _year(one.origin) < last and self._is_over(one):
                if settled:  # else clients may just have been told that this log takes their entries
                    await self._retire(one)
            elif self.clock.is_doubted() or _year(one.origin) < last:
                self.show(one)  # a log that rests is signed by nobody, and what they sign says what time it is

    async def _look_at_the_clock(self) -> None:
        """The entry about an operator's word stands before it counts; a crash in between writes a second one."""
        self.clock.look(self.proven.signed())
        order = self.clock.order()
        if order is None:
            return
        detail: dict[str, Json] = {"act": "clock-believed", "clock": order.time.isoformat()}
        if order.by:
            detail["by"] = order.by
        if (found := self.clock.finding()) is not None:
            detail["found"] = found
        await self._journal.append(self.platform(), self._entry(Kind.ADMINISTRATION, detail))
        self.clock.obey()

    def _is_over(self, one: Log) -> bool:
        """Whether it is certain, and not just said by our clock, that the log's year is over (decision 0023)."""
        if self.proven(one.origin) >= datetime(_year(one.origin) + 1, 1, 1, tzinfo=UTC) + BEHIND:
            return True
        if one.origin not in self._waiting:
            self._waiting.add(one.origin)
            log.warning("journal.year-not-proven", origin=one.origin, certain=self.proven(one.origin).isoformat())
        return False

    async def open_logs(self) -> None:
        """The logs of this year, and a little before its end those of the next. Raises Error, OSError."""
        now = self._vouched()
        for year in sorted({now.year, (now + AHEAD).year}):
            await self._for_each(partial(self._open, year=year))

    async def announce(self) -> None:
        """Weeks before the year: the keys of its logs, each named in its log of this year. Raises Error, OSError."""
        now = self.clock.present()
        if (now + self._role.announce).year > now.year:
            await self._for_each(partial(self._announce, year=now.year))

    def show(self, one: Log) -> None:
        """Show its newest note to its witnesses."""
        policy = self.policies.get(one.origin)
        if policy is not None:
            self._ask(one, policy)

    def current(self, origin: str) -> str:
        """The log that takes entries about this one now: of the platform if its tenant has none any more."""
        year = self.clock.present().year
        platform = origin_of(self._role.host, PLATFORM, year)
        return self._open_one(_tenant(origin), year) or self._open_one(PLATFORM, year) or platform

    def platform(self) -> str:
        """The platform's log that takes entries now."""
        return self.current(origin_of(self._role.host, PLATFORM, self.clock.present().year))

    def instead(self, origin: str) -> str:
        """The tenant's log that takes entries now, whatever year their writer names; the same if there is none.

        He may have our clock, and it may be wrong (decision 0023).
        """
        ours = self._is_ours(origin)
        return (self._open_one(_tenant(origin), self.clock.present().year) if ours else None) or origin

    def _vouched(self) -> datetime:
        """What is taken for the time, but first what a person says it is: a start may need his word to succeed."""
        with suppress(OSError):
            if (ordered := self.clock.order()) is not None:
                return ordered.time
        return self.clock.present()

    def _open_one(self, tenant: str, year: int) -> str | None:
        """The tenant's newest log that takes entries, of this year or of one before: next year's may be there early.

        If there is none, a clock that was wrong has ended this year, and the next one's log takes its entries.
        """
        origins = {one.origin for one in self._journal.logs() if one.size and not one.closed}
        mine = [one for one in origins & self.policies.keys() if self._is_ours(one) and _tenant(one) == tenant]
        begun = max((one for one in mine if _year(one) <= year), key=_year, default=None)
        return begun or min(mine, key=_year, default=None)

    @property
    def _tenants(self) -> tuple[str, ...]:
        return (*map(str, self._role.insurers), PLATFORM)

    def _is_ours(self, origin: str) -> bool:
        host, *shard = origin.rsplit("/", 2)
        return (
            host == f"journal.{self._role.host}" and len(shard) == 2 and re.fullmatch("[0-9]{4}", shard[1]) is not None
        )

    def _config_of(self, one: Log) -> LogConfig:
        """Of a log that is there: without its key it is only served. Raises KeyReplacedError."""
        folder, origin = self._role.folder, one.origin
        # Of a log that needs no signature any more the key may be destroyed by half.
        needed = not (one.closed and one.signed and one.signed.checkpoint.size == one.size)
        signer = log_signer(folder, origin) if needed and key_file(folder, origin).exists() else None
        return LogConfig(origin, signer, read_policy(policy_file(folder, origin)))

    def _configure(self, config: LogConfig) -> None:
        self._journal.configure(config)
        self.policies[config.origin] = config.policy
        tenant = _tenant(config.origin)
        if tenant not in map(str, self._role.insurers):  # nothing is sealed for the platform, or for who has left
            self._shares.add(config.origin, None)
        else:
            has_logs = any(_tenant(one.origin) == tenant for one in self._journal.logs())
            self._shares.add(config.origin, share_key(self._role.folder, tenant, new=not has_logs))

    async def _for_each(self, act: Callable[[str], Awaitable[None]]) -> None:
        """For every tenant, whatever is wrong with another one. Raises what went wrong first."""
        wrong: list[Error | OSError] = []
        for tenant in self._tenants:
            try:
                await act(tenant)
            except (Error, OSError) as error:
                wrong.append(error)
        if wrong:
            raise wrong[0]

    async def _open(self, tenant: str, year: int) -> None:
        """The log begins with a leaf 0x01 that commits to key, policy and the shard before (§ 4, § 17)."""
        origin = origin_of(self._role.host, tenant, year)
        known = {one.origin: one for one in self._journal.logs()}
        if origin in self.policies and origin in known and known[origin].size:
            return
        config = log_config(self._role, tenant, year)
        self._configure(config)
        if origin in known and known[origin].size:
            return
        before = known.get(origin_of(self._role.host, tenant, year - 1))
        entry = self._entry(Kind.LOG_OPENED, self._opened(config, before))
        await self._journal.begin_log(origin, entry)
        self._has_opened = True
        log.info("journal.shard-opened", origin=origin)

    async def _announce(self, tenant: str, year: int) -> None:
        """An entry whose opening everybody may read; a crash in between names the same key a second time."""
        one = self._journal.log(origin_of(self._role.host, tenant, year))
        if one.closed or is_announced(one.folder):
            return
        following = log_config(self._role, tenant, year + 1)
        if following.signer is None:  # for the type checker: a log that was never closed has one
            return
        key, now = following.signer.key, self._role.now()
        detail = canonical_json(announcement(one.origin, key))
        entry, opening = self._commit(Kind.POLICY_CHANGED, detail, now)
        index = (await self._journal.append(one.origin, entry)).index
        keep_announced(OsDisk(), one.folder, Announced(index, opening))
        log.info("journal.successor-announced", origin=one.origin, following=key.vkey)

    async def _retire(self, one: Log) -> None:
        """One step: the last entry, its checkpoint, the witnesses, and then nobody can ever sign for this log again."""
        path = key_file(self._role.folder, one.origin)
        if not path.exists() or one.origin not in self.policies:
            return
        if not one.closed:
            following = origin_of(self._role.host, _tenant(one.origin), _year(one.origin) + 1)
            detail: dict[str, Json] = {"origin": one.origin}
            if following in self.policies:  # an insurer that has left has none
                detail["following"] = following
            await self._journal.close_log(one.origin, self._entry(Kind.SHARD_CLOSED, detail))
            log.info("journal.shard-closed", origin=one.origin, size=one.size)
            return
        if one.signed is None or one.signed.checkpoint.size < one.size:
            return  # the next tick signs it
        if one.served is None or one.served.checkpoint.size < one.size:
            self.show(one)  # a witness that was away is not asked again otherwise; `Care` raises the alarm
            return
        await asyncio.to_thread(erase, OsDisk(), path)
        self._journal.configure(LogConfig(one.origin, None, self.policies[one.origin]))
        log.info("journal.key-destroyed", origin=one.origin)

    def _opened(self, config: LogConfig, before: Log | None) -> Json:
        detail: dict[str, Json] = {
            "key": log_signer(self._role.folder, config.origin, new=False).key.vkey,
            "origin": config.origin,
            "policy": sha256(policy_file(self._role.folder, config.origin).read_bytes()).hexdigest(),
            "quorum": config.policy.quorum,
            "witnesses": [witness.key.key.vkey for witness in config.policy.witnesses],
        }
        if before is not None and before.signed is not None:
            detail["previous"] = before.signed.note.encode().decode()
        return detail

    def _entry(self, kind: Kind, detail: Json) -> bytes:
        return self._commit(kind, canonical_json(detail), self._role.now())[0]

    def _commit(self, kind: Kind, record: bytes, now: datetime) -> tuple[bytes, Opening]:
        """The opening is kept first: a leaf whose detail nobody has would prove nothing."""
        salt, event = secrets.token_bytes(16), new_event(now)
        opening = Opening(detail=(salt, record))
        openings = self._role.folder / "openings"
        openings.mkdir(mode=0o700, exist_ok=True)
        replace(OsDisk(), openings / f"{event}.json", opening.encode())
        commitment = detail_commitment(salt, record)
        return Entry(kind, Result.GRANTED, Purpose.OPERATION, now, event, detail=commitment).encode(), opening


def _tenant(origin: str) -> str:
    return origin.split("/")[-2]


def _year(origin: str) -> int:
    return int(origin.rpartition("/")[2])
