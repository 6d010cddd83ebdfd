"""The outbound queue runner: take what is due, send it, record what became of it.

Sending comes before recording, because an SMTP delivery cannot be taken back and can be repeated: after a crash
between the two the mail is sent again and linked by its Message-ID at the other side. Every change of state is one
call of `contracts.Queue`. A mail is given up only for a reason that is true for the mail, or when its time is over;
our own trouble, TLS that cannot be verified included, always waits (HD-01).

While the switch lets nothing begin, nothing is taken from the queue; what is under way ends within its budget or is
cut, and the time of the hold does not count against a mail (HD-12, HD-24).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, assert_never

import structlog

from schleuse.clock import Now
from schleuse.errors import ConflictError, Error
from schleuse.mail import dsn
from schleuse.mail.contracts import Action, Gate, OpenGate, Outgoing, Queue
from schleuse.mail.outbound_plan import Delivered, Later, Never, Outcome, Trouble, runs_in_a_circle
from schleuse.mail.outbound_routes import OutboundConfig, Route
from schleuse.mail.outbound_smtp import CannotConnect, Peer
from schleuse.mail.retry import delay_is_due, next_attempt

_log = structlog.get_logger()
_T = TypeVar("_T")

STORE_THREADS = 4
CANCEL_AGAIN_SECONDS = 0.1

#: Counted: "outbound.delivered", ".retry", ".failed", ".delay_reported", ".store_failed", ".conflict", ".stale", ".cut"
#: and the values of outbound_plan.Trouble. Closed set, no personal data.
Count = Callable[[str], None]


@dataclass(slots=True)
class _Destination:
    """failures: how often the host was no good. What waited for it meanwhile shares the outcome and tries later."""

    route: Route
    slots: asyncio.Semaphore
    idle: list[tuple[float, Peer]] = field(default_factory=list)
    failures: int = 0
    last: Later = field(default_factory=lambda: Later(""))


class Outbound:
    """Made by `run_queue`; tests call `run_once`."""

    def __init__(
        self,
        queue: Queue,
        config: OutboundConfig,
        *,
        now: Now,
        jitter: Callable[[], float],
        count: Count = lambda name: None,
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate or OpenGate()
        self._queue = queue
        self._config = config
        self._now = now
        self._jitter = jitter
        self._count = count
        self._pool = ThreadPoolExecutor(STORE_THREADS, "outbound-store")
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._speaking: set[int] = set()  # with the next host, and may already be there
        self._recording: set[int] = set()  # the outcome is known
        self._destinations: dict[Route, _Destination] = {}
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()

    def wake(self) -> None:
        """Look at the queue now. From any thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Until stop()."""
        while not self._stopping.is_set():
            self._woken.clear()
            await self._take()
            await self._close_idle(self._config.idle.total_seconds())
            await _wait(self._woken, self._config.poll)

    async def run_once(self) -> int:
        """Take what is due now and settle all of it. Returns how many mails that were."""
        taken = await self._take()
        while self._in_flight:
            await asyncio.wait(self._in_flight.values())
        return taken

    async def cut(self) -> list[int]:
        """End the attempts that are under way; the mails stay HELD (SW-10).

        Returns those that the next host may have taken: nobody knows, and sent again they are linked there.
        """
        tasks = dict(self._in_flight)
        speaking = frozenset(self._speaking)
        while left := [id for id, task in tasks.items() if not task.done() and id not in self._recording]:
            for id in left:
                tasks[id].cancel()
            # Again and again: a wait that ends in the same moment swallows the cancellation (Python issue 86296).
            await asyncio.wait([tasks[id] for id in left], timeout=CANCEL_AGAIN_SECONDS)
        cut = [id for id, task in tasks.items() if task.cancelled()]
        if cut:
            for _ in cut:
                self._count("outbound.cut")
            await self._keep_trying(lambda: self._queue.put_back(cut))
        return sorted(speaking & {*cut})

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    async def close(self, grace: timedelta) -> None:
        """Let what is under way end within grace; the rest is tried again after the next start."""
        self.stop()
        if self._in_flight:
            await asyncio.wait(self._in_flight.values(), timeout=grace.total_seconds())
        for task in [*self._in_flight.values()]:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight.values())
        await self._close_idle(0)
        await asyncio.to_thread(self._pool.shutdown)

    # -- taking --------------------------------------------------------------------------------------------

    async def _take(self) -> int:
        """Start a task for each mail that is due and has none, as far as there is room."""
        before = frozenset(self._in_flight)
        room = self._config.max_in_flight - len(before)
        if room <= 0 or not self._gate.may_begin():
            return 0
        now = self._now()
        with self._gate.unit():  # until each mail has a unit of its own
            try:
                due = await self._in_thread(lambda: self._queue.due(now, room))
            except ConflictError:
                self._count("outbound.stale")  # switched since we asked
                return 0
            except Error as error:
                self._note_store(error)
                return 0
            # The queue gives out each mail once, for a time: what comes again while we have it must not be sent twice.
            fresh = [mail for mail in due if mail.id not in before]
            for mail in fresh:
                self._begin(mail)
        return len(fresh)

    def _begin(self, mail: Outgoing) -> None:
        unit = ExitStack()
        unit.enter_context(self._gate.unit())
        task = asyncio.create_task(self._one(mail))
        self._in_flight[mail.id] = task
        task.add_done_callback(lambda _: self._settled(mail.id, unit))

    def _settled(self, id: int, unit: ExitStack) -> None:
        del self._in_flight[id]
        self._speaking.discard(id)
        self._recording.discard(id)
        unit.close()
        # One look, one transaction: look when half of it is done, not after each.
        if len(self._in_flight) <= self._config.max_in_flight // 2:
            self._woken.set()

    async def _one(self, mail: Outgoing) -> None:
        try:
            outcome = await self._attempt(mail)
        except Exception:
            # Top of the loop: a fault of ours must not end the runner, nor the mail.
            _log.exception("outbound.unexpected")
            outcome = Later("an unexpected fault at our side", Trouble.SESSION_REFUSED)
        await self._record(mail, outcome)

    async def _attempt(self, mail: Outgoing) -> Outcome:
        if runs_in_a_circle(mail.content, self._config.hostname):
            return Never("the mail runs in a circle", "5.4.6")
        route = self._config.routes.find(mail.recipient.address)
        if route is None:
            self._report(Later("", Trouble.NO_ROUTE), "")
            return Later("there is no route to the domain of the recipient", Trouble.NO_ROUTE)
        return await self._send(self._destination(route), mail)

    async def _send(self, destination: _Destination, mail: Outgoing) -> Outcome:
        failures = destination.failures
        async with destination.slots:
            if destination.failures != failures:
                return destination.last
            peer = destination.idle.pop()[1] if destination.idle else Peer(destination.route, self._config)
            try:
                self._speaking.add(mail.id)
                outcome = await peer.deliver(mail)
            except CannotConnect as cannot:
                outcome = cannot.later
            except BaseException:
                peer.drop()
                raise
            else:
                destination.idle.append((self._loop.time(), peer))
            if isinstance(outcome, Later) and outcome.trouble:
                destination.failures += 1
                destination.last = outcome
                self._report(outcome, destination.route.host)
        return outcome

    def _destination(self, route: Route) -> _Destination:
        found = self._destinations.get(route)
        if found is None:
            found = self._destinations[route] = _Destination(route, asyncio.Semaphore(route.connections))
        return found

    async def _close_idle(self, seconds: float) -> None:
        limit = self._loop.time() - seconds
        for destination in self._destinations.values():
            old = [peer for since, peer in destination.idle if since <= limit]
            destination.idle = [(since, peer) for since, peer in destination.idle if since > limit]
            await asyncio.gather(*(peer.close() for peer in old))

    # -- recording -----------------------------------------------------------------------------------------

    async def _record(self, mail: Outgoing, outcome: Outcome) -> None:
        """Write it down, as often as it takes: what was sent must not be sent again because our store was away."""
        self._recording.add(mail.id)
        await self._keep_trying(self._settlement(mail, outcome))

    async def _keep_trying(self, settle: Callable[[], None]) -> None:
        while True:
            try:
                await self._in_thread(settle)
                return
            except ConflictError:
                self._count("outbound.conflict")  # somebody else settled it
                return
            except Error as error:
                self._note_store(error)
            except Exception:
                self._count("outbound.store_failed")
                _log.exception("outbound.unexpected")
            if self._stopping.is_set():
                return  # after the next start it is due again
            await _wait(self._stopping, self._config.poll)

    def _settlement(self, mail: Outgoing, outcome: Outcome) -> Callable[[], None]:
        now = self._now()
        match outcome:
            case Delivered(reply, relayed_dsn):
                self._count("outbound.delivered")
                return lambda: self._queue.delivered(mail.id, now, reply, relayed_dsn)
            case Never(reply, status):
                self._count("outbound.failed")
                return lambda: self._queue.failed(mail.id, now, reply, status)
            case Later(reply):
                return self._postponed(mail, reply)
            case _:
                assert_never(outcome)

    def _postponed(self, mail: Outgoing, reply: str) -> Callable[[], None]:
        now, schedule = self._now(), self._config.schedule
        began = mail.accepted_at + self._gate.held_between(mail.accepted_at, now)  # its clock stood still meanwhile
        next_at = next_attempt(schedule, attempts=mail.attempts, accepted_at=began, now=now, jitter=self._jitter())
        if next_at is None:
            self._count("outbound.failed")
            return lambda: self._queue.failed(mail.id, now, reply, "4.4.7")  # RFC 3463 § 3.5: delivery time expired
        report_delay = (
            not mail.delay_reported
            and delay_is_due(schedule, accepted_at=mail.accepted_at, now=now)
            and dsn.wanted(Action.DELAYED, mail.recipient, mail.sender)
        )
        self._count("outbound.retry")
        if report_delay:
            self._count("outbound.delay_reported")
        return lambda: self._queue.retry(mail.id, now, next_at, reply, report_delay)

    def _report(self, later: Later, host: str) -> None:
        """Tell the operator. The reply may quote an address, so it is not logged."""
        if later.trouble:
            self._count(later.trouble)
            _log.warning(later.trouble.value, host=host)

    def _note_store(self, error: Error) -> None:
        self._count("outbound.store_failed")
        _log.warning("outbound.store_failed", code=error.code)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._pool, call)


@asynccontextmanager
async def run_queue(
    queue: Queue,
    config: OutboundConfig,
    *,
    now: Now,
    jitter: Callable[[], float],
    count: Count = lambda name: None,
    gate: Gate | None = None,
    grace: timedelta = timedelta(seconds=5),
) -> AsyncIterator[Outbound]:
    """Send while the block lasts. jitter: 0 to 1, such as random.random. gate: None where no switch rules."""
    outbound = Outbound(queue, config, now=now, jitter=jitter, count=count, gate=gate)
    task = asyncio.create_task(outbound.run())
    try:
        yield outbound
    finally:
        outbound.stop()
        await task
        await outbound.close(grace)


async def _wait(event: asyncio.Event, at_most: timedelta) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), at_most.total_seconds())
