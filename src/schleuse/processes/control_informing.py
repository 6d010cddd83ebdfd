"""Telling those who must know: programs and signed HTTPS posts, each receiver by itself (§ 10, RS-14).

No closing waits for this: it follows the records, in tasks of its own, and a receiver that is slow or away keeps no
other waiting. Each body is signed: the header `Schleuse-Signature` is a detached JWS (RFC 7515 appendix F, RFC 7797) of
the key in `keys/inform.jwks.json`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schleuse.clock import Now
from schleuse.config import Config, Receiver
from schleuse.errors import Error
from schleuse.journal.opening import Json
from schleuse.kim.receipts import thumbprint
from schleuse.processes.control_closing import Closings, is_closing, late_claims
from schleuse.processes.receipts import signing_key
from schleuse.processes.restarting import Restarts
from schleuse.scopes import Scope
from schleuse.shutdown.drill_book import DrillBook
from schleuse.shutdown.hooks import Outcome, nothing, post, run_program
from schleuse.shutdown.informing import Abort, Event, Outbox, of_abort, of_claims, of_command, of_drill, of_news
from schleuse.shutdown.news import NewsBook
from schleuse.switch.standing import UNKNOWN_TIME

log = structlog.get_logger()

KEY = Path("keys/inform.key")
JWKS = Path("keys/inform.jwks.json")
TYPE = "schleuse-event+jwt"
LOOK_SECONDS = 0.2
#: Proofs, drills and restarts are looked through so often.
RECORDS_SECONDS = 2.0
#: After a failure, doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
#: § 10: all are informed within 60 s; what takes longer is an alarm.
LIMIT = timedelta(seconds=60)


def inform_key(home: Path) -> Ed25519PrivateKey:
    """Raises ReceiptKeyError."""
    return signing_key(home / KEY, home / JWKS)


def signature(body: bytes, key: Ed25519PrivateKey) -> str:
    """A detached JWS over the octets of the body."""
    headers = {"typ": TYPE, "kid": thumbprint(key.public_key())}
    return jwt.api_jws.encode(body, key, algorithm="EdDSA", headers=headers, is_payload_detached=True)


@dataclass(frozen=True, slots=True)
class Records:
    """Where events come from. exempted: as of `Prover`. restarts: None where nobody asks for their aborts."""

    closings: Closings
    drills: DrillBook
    restarts: Restarts | None
    exempted: Callable[[Scope], bool]
    news: NewsBook

    def commands(self, epochs: int) -> Iterator[Event]:
        """Of those after the first so many."""
        for entry in self.closings.switch.entries()[epochs:]:
            if not entry.fault or is_closing(entry):
                yield of_command(entry)

    def others(self, now: datetime) -> Iterator[tuple[str, Callable[[], Iterable[Event]]]]:
        """All but commands, each source by itself, because one that is broken must not hide the rest."""
        yield "proofs", lambda: of_claims(late_claims(self.closings.claims(now), self.exempted), now)
        yield "drills", lambda: (one for result in self.drills.results() if (one := of_drill(result)) is not None)
        yield "news", lambda: of_news(self.closings.overdue(self.news, now))
        for name in self.restarts.names() if self.restarts else ():
            yield f"restart {name}", partial(self._aborts, name)

    def _aborts(self, plan: str) -> Iterator[Event]:
        """All on record, not where the restart stands now: a new plan may come before anybody looks (RS-06)."""
        for one in self.restarts.aborts(plan) if self.restarts else ():
            yield of_abort(Abort(plan, one.at, one.epoch))


class Informer:
    """One in the control role. tell: gets each delivery for the journal. key: without, nobody gets a post."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        platform: str,
        outbox: Outbox,
        records: Records,
        key: Ed25519PrivateKey | None,
        tell: Callable[[Mapping[str, Json], bool], None],
        now: Now,
    ) -> None:
        self._receivers = receivers
        self._platform = platform
        self._outbox = outbox
        self._records = records
        self._key = key
        self._tell = tell
        self._now = now
        self._seen = 0  # epochs
        self._next: dict[tuple[str, str], tuple[datetime, timedelta]] = {}  # receiver, event: not before, then pause
        self._alarmed: set[tuple[str, str]] = set()
        self.failures: dict[str, int] = {one.name: 0 for one in receivers}

    async def run(self) -> None:
        """For ever; nothing to do without receivers."""
        if self._receivers:
            async with asyncio.TaskGroup() as group:  # at the end it waits until each program under way is killed
                group.create_task(self._collect())
                for one in self._receivers:
                    group.create_task(_for_ever(partial(self.send, one)))

    async def _collect(self) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0

        async def look() -> None:
            nonlocal due
            all_ = loop.time() >= due
            await asyncio.to_thread(self.collect, all_)
            due = loop.time() + RECORDS_SECONDS if all_ else due

        await _for_ever(look)

    def collect(self, others: bool) -> int:
        """Record what is new; returns how much. others: look through more than commands. Raises Error, OSError."""
        now = self._now()
        if others and self._outbox.forget():
            self._seen = 0
        end = self._records.closings.switch.epoch
        made = self._record(self._records.commands(self._seen), now)
        self._seen = end
        for name, source in self._records.others(now) if others else ():
            try:
                events = list(source())
            except Exception as fault:
                reason = str(fault) if isinstance(fault, Error) else type(fault).__name__
                log.error("inform.source-broken", source=name, reason=reason)
                continue
            made += self._record(events, now)
        return made

    def _record(self, events: Iterable[Event], now: datetime) -> int:
        since = self._outbox.since(now)
        made = 0
        for found in events:
            # What cannot be read has no time, and nobody who asked may miss it: it is told as of this look.
            event = replace_fields(found, at=now) if found.at == UNKNOWN_TIME else found
            names = [one.name for one in self._receivers if not one.events or event.what in one.events]
            if event.at >= since and self._outbox.record(event, names):
                log.info("inform.recorded", id=event.id, receivers=len(names))
                made += 1
        return made

    async def send(self, receiver: Receiver) -> int:
        """One attempt for each event that is due; returns how many were taken. Raises Error, OSError."""
        taken = 0
        for one in await asyncio.to_thread(self._outbox.waiting):
            key = (receiver.name, one.event.id)
            at, pause = self._next.get(key, (self._now(), FIRST_PAUSE))
            if receiver.name not in one.receivers or self._now() < at:
                continue
            outcome = await self._deliver(receiver, one.event)
            self._alarm(receiver.name, one.event)
            if outcome.done:
                await asyncio.to_thread(self._outbox.heard, one.event, receiver.name)
                await asyncio.to_thread(self._told, one.event, receiver.name, outcome)
                self._next.pop(key, None)
                taken += 1
                continue
            self.failures[receiver.name] += 1
            log.error("inform.failed", receiver=receiver.name, id=one.event.id, reason=outcome.note)
            self._next[key] = (self._now() + pause, min(2 * pause, LONGEST_PAUSE))
        return taken

    async def _deliver(self, receiver: Receiver, event: Event) -> Outcome:
        body, timeout = event.body(self._platform), timedelta(seconds=receiver.timeout_seconds)
        if not isinstance(receiver.send_to, str):
            return await run_program(receiver.send_to, timeout, body)
        if self._key is None:
            return nothing(f"the key {KEY} can be neither read nor made")
        try:
            trust = ssl.create_default_context(cafile=receiver.ca)
        except OSError as cause:
            return nothing(f"ca: {type(cause).__name__}")
        headers = {"Schleuse-Event": event.id, "Schleuse-Signature": signature(body, self._key)}
        return await post(receiver.send_to, body, timeout, headers, trust)

    def _alarm(self, receiver: str, event: Event) -> None:
        age = self._now() - event.at
        if age > LIMIT and (receiver, event.id) not in self._alarmed:
            self._alarmed.add((receiver, event.id))
            log.error("inform.late", receiver=receiver, id=event.id, age_seconds=int(age.total_seconds()))

    def _told(self, event: Event, receiver: str, outcome: Outcome) -> None:
        log.info("inform.told", receiver=receiver, id=event.id, outcome=outcome.note)
        facts: dict[str, Json] = {
            "act": "switch.informed",
            "event": event.id,
            "receiver": receiver,
            "outcome": outcome.note,
            "answer_sha256": outcome.digest,
        }
        try:
            self._tell(facts, True)
        except Error as error:
            log.error("inform.not-told", id=event.id, code=error.code, reason=str(error))


async def _for_ever(step: Callable[[], Awaitable[object]]) -> None:
    """The top of a loop: whatever happens in it must not end the role that closes."""
    while True:
        try:
            await step()
        except (OSError, Error) as error:
            log.error("inform.not-recorded", reason=str(error))
            await asyncio.sleep(1.0)
        except Exception as fault:
            log.error("inform.fault", kind=type(fault).__name__)
            await asyncio.sleep(1.0)
        await asyncio.sleep(LOOK_SECONDS)


class InformingFigures(Collector):
    """Who does not know yet. Read when somebody looks."""

    def __init__(self, informer: Informer, outbox: Outbox, names: Sequence[str], now: Now) -> None:
        self._informer = informer
        self._outbox = outbox
        self._names = names
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        waiting, now = self._outbox.waiting(), self._now()
        count = GaugeMetricFamily(
            "schleuse_control_inform_waiting", "Events that a receiver has not taken yet", labels=["receiver"]
        )
        age = GaugeMetricFamily(
            "schleuse_control_inform_seconds", "Age of the oldest event that he has not taken", labels=["receiver"]
        )
        failed = GaugeMetricFamily(
            "schleuse_control_inform_failures", "Attempts that failed since start", labels=["receiver"]
        )
        for name in self._names:
            mine = [one.event.at for one in waiting if name in one.receivers]
            count.add_metric([name], len(mine))
            age.add_metric([name], (now - min(mine)).total_seconds() if mine else 0.0)
            failed.add_metric([name], self._informer.failures[name])
        gone = {name for one in waiting for name in one.receivers} - set(self._names)
        yield from (count, age, failed)
        yield GaugeMetricFamily(
            "schleuse_control_inform_gone",
            "Receivers that are not configured any more and that events wait for",
            len(gone),
        )
        yield GaugeMetricFamily(
            "schleuse_control_inform_unreadable",
            "Events that wait, that nobody can read and that no record has made again",
            len(self._outbox.unreadable()),
        )


def informer_of(
    config: Config, records: Records, tell: Callable[[Mapping[str, Json], bool], None], now: Now
) -> tuple[Informer, InformingFigures]:
    """Of this home. A key that cannot be had keeps only posts back."""
    key = None
    if config.control.inform:
        try:
            key = inform_key(config.home)
        except Error as error:
            log.error("inform.no-key", reason=str(error))
    outbox = Outbox(config.switch_folder / "informing")
    informer = Informer(config.control.inform, config.hostname, outbox, records, key, tell, now)
    return informer, InformingFigures(informer, outbox, [one.name for one in config.control.inform], now)
