"""What every operation of the vault goes through: the log of the insurer, the budget, the entries (journal.md § 14.2).

The order is fixed and stands in one place, `release`: does the switch allow it, is there budget, the entries are
durable, and only then do their shares come back to whoever unwraps keys with them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from schleuse.clock import Now, to_us
from schleuse.errors import CorruptError, Error
from schleuse.identifiers import IK
from schleuse.journal.contracts import Level, Receipt, ShardClosedError
from schleuse.journal.entry import NOBODY, Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.vault.budgets import MEMORY, Budgets, Limits, Raised
from schleuse.vault.contracts import OlderStoreError, OverBudgetError, ScopeClosedError, Unshown, VaultUnavailableError
from schleuse.vault.denials import Denials
from schleuse.vault.details import describe, seal_for_insurer
from schleuse.vault.drawn import Drawn
from schleuse.vault.gate import Gate
from schleuse.vault.history import History
from schleuse.vault.keyring import Keyring, TenantKeys
from schleuse.vault.leaves import Events, leaf
from schleuse.vault.ledger import Appends, Ledger, LogClosedError
from schleuse.vault.reflected import Change, KeyChanges, compare
from schleuse.vault.store import Deposit, VaultStore
from schleuse.vault.writing import Writer

log = structlog.get_logger()


class ReadsHistory(Protocol):
    """The part of `history.HistoryReader` that is needed."""

    def read(self, origin: str, size: int, since: datetime) -> History:
        """See `HistoryReader.read`."""
        ...

    def key_changes(self, origin: str, start: int, size: int) -> KeyChanges:
        """See `HistoryReader.key_changes`."""
        ...


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts at an insurer. kind: "eau" or "insurer", whose limits count. name: for the detail record."""

    kind: str
    name: str


class Wanted(Unshown, frozen=True):
    """One thing to be released. name, version: of the object, for its commitment."""

    subject: bytes
    key_version: int
    name: str
    version: int = 0


#: (number of the first release, place of the first entry) -> entries from that place on, how many numbers they use.
Make = Callable[[int, int], tuple[Sequence[bytes], int]]


@dataclass(slots=True)
class Changing:
    """A change of keys that has begun (`Core.changing`).

    versions: see there. begun: in each log that has, or may have, an entry of it; mostly one.
    """

    core: Core
    ik: IK
    versions: Mapping[bytes, int]
    erased: bytes | None
    begun: list[tuple[Ledger, Change]] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        """Of the log in which the change goes on."""
        return self.begun[-1][0]

    @property
    def change(self) -> Change:
        """As that log's ledger knows it."""
        return self.begun[-1][1]

    def begin(self, ledger: Ledger) -> None:
        """In this log, before its first entry."""
        self.begun.append((ledger, ledger.changes.begin(ledger.top, self.erased)))

    async def write(self, entries: Sequence[bytes], level: Level = Level.DURABLE) -> list[bytes]:
        """See `Core.write`; to the log in which the change began, though a year ends, unless that log closes."""
        return await self.core.write_change(self, entries, level)

    @property
    def reflected(self) -> tuple[str, int]:
        """See `Deposit`; for the transaction that keeps this change."""
        return self.ledger.origin, self.ledger.changes.reflected(self.ledger.top, self.change)


@dataclass(slots=True)
class Figures:
    """Counted since the start. releases: by (IK, purpose); the others by IK.

    erased_again: persons whose erasure an entry ordered and the store did not reflect. used_up: versions of keys that
    nobody gets, because they were on their way when the vault stopped.
    """

    releases: Counter[tuple[str, str]] = field(default_factory=Counter)
    denied: Counter[str] = field(default_factory=Counter)
    erased_again: Counter[str] = field(default_factory=Counter)
    used_up: Counter[str] = field(default_factory=Counter)


class Core:
    """All state that the operations share.

    limits: of an actor of this kind at an insurer; tenant: of all actors of an insurer, None without limit; platform:
    of all together. monotonic: seconds. accept_older_store: see `OlderStoreError`, as its message says it.
    """

    def __init__(
        self,
        *,
        journal: Appends,
        history: ReadsHistory,
        store: VaultStore,
        keyring: Keyring,
        limits: Callable[[str, IK], Limits],
        platform: Limits,
        tenant: Callable[[IK], Limits | None] = lambda _ik: None,
        origin_of: Callable[[IK, int], str],
        now: Now,
        monotonic: Callable[[], float],
        gate: Gate | None = None,
        accept_older_store: Collection[str] = (),
    ) -> None:
        self.gate = gate or Gate()
        self.store = store
        self.writer = Writer(store.keep)
        self.keyring = keyring
        self.now = now
        self._monotonic = monotonic
        self.events = Events()
        self._random = Drawn()  # salts and nonces
        self.figures = Figures()
        self._journal = journal
        self._history = history
        self._limits_of = limits
        self._tenant_limits = tenant
        self._limits: dict[str, Limits | None] = {"platform": platform}
        self._whose: dict[str, tuple[IK, str | None]] = {}
        self.raised = Raised(now, monotonic)
        self._budgets = Budgets(self._limit)
        self._origin_of = origin_of
        self._denials = Denials()
        self._denied: dict[str, tuple[IK, Actor, Purpose]] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._lost: dict[str, CorruptError] = {}
        self._accepted = frozenset(accept_older_store)
        self._unsaved: dict[Change, tuple[Ledger, Mapping[bytes, int]]] = {}
        self._actors: dict[tuple[IK, int, str], bytes] = {}
        self._tenants: dict[IK, TenantKeys] = {}
        self._buckets: dict[tuple[IK, bytes], list[str]] = {}

    async def ledger(self, ik: IK) -> Ledger:
        """The insurer's log that takes entries now, mostly that of this year, its counter and keys read back.

        Raises VaultUnavailableError, CounterAheadError,
        OlderStoreError.
        """
        try:
            return await self._ledger(ik)
        except LogClosedError:  # since its name was told; the answer to the next question is a new one
            return await self._ledger(ik)

    async def _ledger(self, ik: IK) -> Ledger:
        named = self._origin_of(ik, self.now().year)
        try:
            origin = await self._journal.current(named)
        except Error:
            origin = named  # a journal that is away, or does not say, is met by whoever writes
        known = self._ledgers.get(origin)
        if known is not None:
            return known
        async with self._starting.setdefault(origin, asyncio.Lock()):
            if origin in self._lost:  # to look again would write again, until the loss is made up for and forgotten
                raise type(self._lost[origin])(str(self._lost[origin]))
            if origin not in self._ledgers:
                try:
                    self._ledgers[origin] = await self._start(ik, origin)
                except CorruptError as error:
                    self._lost[origin] = error
                    raise
        return self._ledgers[origin]

    def ledgers(self) -> Mapping[str, Ledger]:
        """Those in use, by origin."""
        return self._ledgers

    async def tenant(self, ik: IK) -> TenantKeys:
        """The insurer's keys that open no content."""
        known = self._tenants.get(ik)
        if known is None:  # in a thread: it may be a token that unwraps them
            known = self._tenants[ik] = await asyncio.to_thread(self.keyring.tenant, ik)
        return known

    async def actor(self, ik: IK, name: str) -> bytes:
        """The pseudonym of an actor in the insurer's log of this year."""
        key = (ik, self.now().year, name)
        known = self._actors.get(key)
        if known is None:
            known = await asyncio.to_thread(self.store.actor, *key, secrets.token_bytes(16))
            self._actors[key] = known
        return known

    async def release(
        self,
        ik: IK,
        actor: Actor,
        purpose: Purpose,
        wanted: Sequence[Wanted],
        detail: dict[str, Json],
        *,
        person: bytes | None = None,
    ) -> list[bytes]:
        """One entry KEY_RELEASED for each; their shares, when all are durable, and so is what makes them readable.

        person: subject of the insured person that all of it is about, with whom the openings are erased.
        Raises ScopeClosedError and OverBudgetError (which leave an entry, too), VaultUnavailableError,
        CounterAheadError.
        """
        try:
            self.gate.release(ik, purpose)
        except ScopeClosedError:
            await self.deny(ik, actor, purpose, subject=wanted[0].subject, version=wanted[0].key_version)
            raise
        pseudonym = await self.actor(ik, actor.name)
        ledger = await self._settled(ik)
        buckets, now = self._buckets_of(ik, actor, pseudonym), self.now()
        exhausted = self._budgets.take(buckets, [one.subject for one in wanted], now)
        if exhausted is not None:
            await self.deny(ik, actor, purpose, subject=wanted[0].subject, version=wanted[0].key_version)
            raise OverBudgetError(
                f"{len(wanted)} releases would exceed the hourly budget {exhausted.partition(' ')[0]} of {ik}"
            )
        keys = self._tenants.get(ik) or await self.tenant(ik)
        at_us = to_us(now)
        details = describe(
            {**detail, "actor": actor.name},
            [(self.events.next(at_us), one.name, one.version) for one in wanted],
            self._random,
        )
        commitment = details.commitment

        def make(counter: int, start: int) -> tuple[list[bytes], int]:
            entries = [
                leaf(
                    Kind.KEY_RELEASED,
                    Result.GRANTED,
                    purpose,
                    at_us,
                    details.objects[place][0],
                    actor=pseudonym,
                    subject=one.subject,
                    object_=details.object_(place),
                    detail=commitment,
                    counter=counter + place - start,
                    version=one.key_version,
                )
                for place, one in enumerate(wanted[start:], start)
            ]
            return entries, len(entries)

        # Both durable before anything is opened; neither waits for the other.
        row = seal_for_insurer(keys, details, person, self._random)
        kept = self.writer.keep(Deposit(ik, openings=[row]))
        if self.writer.ailing:  # a full disk must not fill the log with entries that nobody can explain
            await kept
        try:
            receipts = await self._written(ik, ledger, make)
        except BaseException:
            await asyncio.gather(kept, return_exceptions=True)  # the journal may have the entries all the same
            raise
        await kept
        self.figures.releases[ik.value, purpose.name] += len(wanted)
        self.gate.release(ik, purpose)  # closed meanwhile: the entries say "may have been read", and nothing was
        return [receipt.share or b"" for receipt in receipts]

    @asynccontextmanager
    async def changing(
        self, ik: IK, versions: Mapping[bytes, int], *, erased: bytes | None = None
    ) -> AsyncIterator[Changing]:
        """While keys change: entries first, then the store, which notes with them how much of the log it reflects.

        versions: by subject, that are given now; if it fails, nobody gets them again. An erasure that fails stays
        to be done, by the next attempt or at the log's next start.
        """
        changing = Changing(self, ik, versions, erased)
        changing.begin(await self._settled(ik))
        try:
            yield changing
        except BaseException:
            if erased is None:
                self._unsaved.update({change: (ledger, versions) for ledger, change in changing.begun})
                with suppress(Error):  # `note_counters` tries again
                    await asyncio.to_thread(self._save_used_up)
            raise
        for ledger, change in changing.begun:
            ledger.changes.end(change)

    async def write_change(self, changing: Changing, entries: Sequence[bytes], level: Level) -> list[bytes]:
        """See `Changing.write`."""

        async def go_on(following: Ledger) -> None:
            # Its start may have found these versions given by an earlier life of this vault; then nobody gets them.
            rows = await asyncio.to_thread(self.store.by_pseudonym, changing.ik, list(changing.versions))
            for subject, version in changing.versions.items():
                if subject not in rows or rows[subject].last_version >= version:
                    raise VaultUnavailableError("versions of keys were given twice while a log closed; come again")
            changing.begin(following)

        receipts = await self._written(
            changing.ik, changing.ledger, lambda _counter, start: (entries[start:], 0), level, go_on
        )
        return [receipt.share or b"" for receipt in receipts]

    def last_version(self, subject: bytes) -> int:
        """The highest version that was given in vain and that the store does not know of yet; 0 without."""
        return max((versions.get(subject, 0) for _, versions in list(self._unsaved.values())), default=0)

    def _save_used_up(self) -> None:
        for change, (ledger, versions) in list(self._unsaved.items()):
            self.store.use_up(versions)
            ledger.changes.end(change)
            self._unsaved.pop(change, None)

    async def write(self, ik: IK, entries: Sequence[bytes], level: Level = Level.DURABLE) -> list[bytes]:
        """Entries that release nothing; the share of each, empty where it earns none."""
        ledger = await self._settled(ik)
        receipts = await self._written(ik, ledger, lambda _counter, start: (entries[start:], 0), level)
        return [receipt.share or b"" for receipt in receipts]

    async def _written(
        self,
        ik: IK,
        ledger: Ledger,
        make: Make,
        level: Level = Level.DURABLE,
        go_on: Callable[[Ledger], Awaitable[None]] | None = None,
    ) -> Sequence[Receipt]:
        """See `Ledger.write`. What a log that closes meanwhile has not taken goes to the one that takes entries now.

        So each entry stands in one of them, once, and both count their releases without gaps (§ 14.5, decision 0023).
        go_on: called before anything is written there; nothing is if it raises.
        """
        try:
            return await ledger.write(lambda counter: make(counter, 0), level)
        except LogClosedError as closed:
            following, done = await self._settled(ik), len(closed.receipts)
            if following is ledger:
                raise
            if go_on is not None:
                await go_on(following)
            rest = await following.write(lambda counter: make(counter, done), level)
            return [*closed.receipts, *rest]

    def entry(
        self,
        kind: Kind,
        result: Result,
        purpose: Purpose,
        *,
        actor: bytes = NOBODY,
        subject: bytes = NOBODY,
        count: int | None = None,
        counter: int | None = None,
        version: int | None = None,
    ) -> bytes:
        """One entry of this moment, about an event of its own, without object and detail."""
        at_us = to_us(self.now())
        event = self.events.next(at_us)
        return leaf(
            kind,
            result,
            purpose,
            at_us,
            event,
            actor=actor,
            subject=subject,
            count=count,
            counter=counter,
            version=version,
        )

    async def order_entry(
        self,
        ik: IK,
        kind: Kind,
        names: Sequence[str],
        thing: str,
        detail: dict[str, Json],
        *,
        count: int | None = None,
        version: int | None = None,
    ) -> tuple[bytes, Deposit]:
        """An entry of this moment about an order, and what makes it readable.

        names: of who ordered it, one or two, as `actor`. thing: that it is about.
        """
        actors, keys = [await self.actor(ik, name) for name in names], await self.tenant(ik)
        at_us = to_us(self.now())
        event = self.events.next(at_us)
        details = describe({**detail, "actor": names[0]}, [(event, thing, 0)])
        entry = leaf(
            kind,
            Result.GRANTED,
            Purpose.OPERATION,
            at_us,
            event,
            actor=actors[0],
            object_=details.object_(0),
            detail=details.commitment,
            count=count,
            version=version,
            second_actor=actors[1] if len(actors) > 1 else None,
        )
        return entry, Deposit(ik, openings=[seal_for_insurer(keys, details)])

    async def deny(
        self,
        ik: IK,
        actor: Actor,
        purpose: Purpose,
        *,
        subject: bytes = NOBODY,
        version: int = 0,
        result: Result = Result.DENIED,
    ) -> None:
        """An entry for an attempt that was not granted; coalesced when one actor makes too many."""
        self.figures.denied[str(ik)] += 1
        self._denied[f"{ik} {actor.name}"] = (ik, actor, purpose)
        if not self._denials.told(f"{ik} {actor.name}", self.now()):
            return
        pseudonym = await self.actor(ik, actor.name)
        entry = self.entry(Kind.KEY_RELEASED, result, purpose, actor=pseudonym, subject=subject, version=version)
        await self.write(ik, [entry])

    async def tell_coalesced(self) -> None:
        """One entry for the refusals of an actor that got none of their own. Call it once a minute and at the end."""
        for key, count in self._denials.due(self.now()):
            ik, actor, purpose = self._denied[key]
            try:
                await self._settled(ik)
            except Error:
                self._denials.again(key, count, self.now())
                continue
            with suppress(Error):  # in doubt now, and sent again like any entry
                pseudonym = await self.actor(ik, actor.name)
                entry = self.entry(Kind.KEY_RELEASED, Result.DENIED, purpose, actor=pseudonym, count=count, version=0)
                await self.write(ik, [entry])

    def note_counters(self) -> None:
        """Remember how far the logs had come, independently of the journal (§ 14.5). Blocks; call it each second.

        Only what the journal has confirmed: it may never get what it was just sent.
        """
        self._save_used_up()
        ledgers = list(self._ledgers.items())
        counters = {origin: (ledger.confirmed, ledger.top) for origin, ledger in ledgers}
        # After the sizes: a change that begins meanwhile stands above them.
        reflected = {origin: ledger.changes.reflected(counters[origin][1]) for origin, ledger in ledgers}
        if counters:
            self.store.note_counters(counters, reflected)

    def _buckets_of(self, ik: IK, actor: Actor, pseudonym: bytes) -> list[str]:
        """All that a release is counted in; their limits are known from now on."""
        known = self._buckets.get((ik, pseudonym))
        if known is None:
            known = self._buckets[ik, pseudonym] = _buckets(ik, pseudonym)
            self._limits.setdefault(known[0], self._limits_of(actor.kind, ik))
            self._limits.setdefault(known[1], self._tenant_limits(ik))
            self._whose.update({known[0]: (ik, actor.kind), known[1]: (ik, None)})
        return known

    def limits(self, kind: str, ik: IK) -> Limits:
        """Of an actor of this kind, as configured."""
        return self._limits_of(kind, ik)

    @property
    def platform(self) -> Limits | None:
        """Of all insurers together; nobody raises it."""
        return self._limits["platform"]

    def _limit(self, bucket: str) -> Limits | None:
        limits, whose = self._limits.get(bucket), self._whose.get(bucket)
        return limits if limits is None or whose is None else self.raised.over(limits, *whose)

    async def _settled(self, ik: IK) -> Ledger:
        """The ledger, with nothing left in doubt that cannot be sent again."""
        try:
            return await self._settle(await self.ledger(ik))
        except LogClosedError:  # since its name was told, as in `ledger`
            return await self._settle(await self.ledger(ik))

    async def _settle(self, ledger: Ledger) -> Ledger:
        if ledger.is_settled:
            return ledger
        if ledger.in_doubt and ledger.may_resume:
            async with self._starting[ledger.origin]:
                if ledger.in_doubt and ledger.may_resume:
                    try:
                        size, history = await self._read_back(ledger.origin)
                    except LogClosedError:
                        await ledger.count_written()
                        raise
                    # Others write to this log, too, so its size alone does not show that our entries are missing.
                    self._missing_nothing(ledger, (ledger.confirmed, ledger.top), (history.counter, size))
                    ledger.resume(history.counter)
                    ledger.top = size
                    log.warning("vault.settled", origin=ledger.origin, counter=history.counter)
        await ledger.settle()  # before any budget is used: a journal that is away must not use it up
        return ledger

    async def _start(self, ik: IK, origin: str) -> Ledger:
        size, history = await self._read_back(origin)
        ledger = Ledger(self._journal, origin, self._monotonic, counter=history.counter, top=size)
        noted = (await asyncio.to_thread(self.store.counters)).get(origin, (0, 0))
        reflected = await asyncio.to_thread(self.store.reflected, origin)
        self._missing_nothing(ledger, (noted[0], max(noted[1], reflected)), (history.counter, size))
        await self._catch_up(ik, ledger, reflected, size)
        report = self.entry(Kind.ADMINISTRATION, Result.GRANTED, Purpose.OPERATION, counter=history.counter)
        await ledger.write(lambda _counter: ([report], 0))
        for release in history.releases:  # last: whoever fails here comes again, and would count them twice
            self._budgets.replay(_buckets(ik, release.actor), release.subject, release.at, self.now())
        log.info("vault.log-ready", origin=origin, counter=history.counter, replayed=len(history.releases))
        return ledger

    async def _catch_up(self, ik: IK, ledger: Ledger, start: int, size: int) -> None:
        """Make the store reflect what the log says of keys from `start` on. Raises OlderStoreError."""
        changes = await asyncio.to_thread(self._history.key_changes, ledger.origin, start, size)
        subjects = {subject for subject, _ in (*changes.created, *changes.released)} | changes.destroyed
        found = compare(changes, await asyncio.to_thread(self.store.known, ik, subjects))
        # Whatever else is missing, a person who was erased stays erased.
        for subject in sorted(found.destroy):
            await asyncio.to_thread(self.store.erase, ik, subject)
            self.figures.erased_again[str(ik)] += 1
        if found.destroy:
            self.keyring.drop()
            log.warning("vault.erased-again", origin=ledger.origin, persons=len(found.destroy))
        if found.lost:
            await self._accept_loss(ledger, f"{ledger.origin}@{start}", len(found.lost))
        await asyncio.to_thread(self.store.use_up, found.used_up, (ledger.origin, size))
        if found.used_up:
            self.figures.used_up[str(ik)] += len(found.used_up)
            log.warning("vault.versions-used-up", origin=ledger.origin, subjects=len(found.used_up))

    async def _accept_loss(self, ledger: Ledger, name: str, lost: int) -> None:
        accepted = name in self._accepted
        result = Result.GRANTED if accepted else Result.DENIED
        entry = self.entry(Kind.ADMINISTRATION, result, Purpose.OPERATION, count=lost)
        await ledger.write(lambda _counter: ([entry], 0))
        log.critical("vault.older-store", origin=ledger.origin, lost=lost, accepted=accepted)
        if not accepted:
            raise OlderStoreError(
                f"{lost} keys of {ledger.origin} are not in the vault's store, which is an older copy; its operator "
                f"puts the newest one back, or accepts the loss with vault.accept_older_store = {name}"
            )

    @staticmethod
    def _missing_nothing(ledger: Ledger, known: tuple[int, int], found: tuple[int, int]) -> None:
        """known, found: (release counter, size), as the vault remembers them and as the journal has them."""
        if known[0] > found[0] or known[1] > found[1]:
            raise ledger.lost(
                f"the vault counted {known[0]} releases in {known[1]} entries, the journal has {found[0]} in {found[1]}"
            )

    async def _read_back(self, origin: str) -> tuple[int, History]:
        """Size and history of the log, from an entry of our own on: whatever was durable before is in it."""
        marker = self.entry(Kind.ADMINISTRATION, Result.GRANTED, Purpose.OPERATION)
        try:
            (receipt,) = await self._journal.append_all(origin, [marker])
        except ShardClosedError as error:
            raise LogClosedError(str(error)) from error
        except Error as error:
            raise VaultUnavailableError(f"the journal does not take entries ({error.code}: {error})") from error
        since = self.now() - MEMORY
        return receipt.index + 1, await asyncio.to_thread(self._history.read, origin, receipt.index + 1, since)


def _buckets(ik: IK, actor: bytes) -> list[str]:
    return [f"actor {ik} {actor.hex()}", f"insurer {ik}", "platform"]
