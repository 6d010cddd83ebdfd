"""The outbound queue while the switch holds it (HD-12, HD-24, SW-10)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tests.mail.fake_queue import MemoryQueue
from tests.mail.fake_smtp_server import FakeSMTPServer
from tests.mail.queue_contract import A_MAIL, NOW
from tests.mail.test_outbound import bench, run

from schleuse.errors import ConflictError
from schleuse.holding.states import State
from schleuse.mail.contracts import Outgoing, Recipient
from schleuse.mail.outbound import Outbound
from schleuse.mail.outbound_plan import Outcome
from schleuse.mail.outbound_routes import OutboundConfig, Routes


@dataclass
class FakeGate:
    is_open: bool = True
    held: timedelta = timedelta(0)
    running: int = 0
    begun: int = 0
    asked: list[tuple[datetime, datetime]] = field(default_factory=list)

    def may_begin(self) -> bool:
        return self.is_open

    @contextmanager
    def unit(self) -> Iterator[None]:
        self.running += 1
        self.begun += 1
        try:
            yield
        finally:
            self.running -= 1

    def held_between(self, since: datetime, until: datetime) -> timedelta:
        self.asked.append((since, until))
        return self.held


def test_nothing_begins_while_the_gate_is_shut_and_nobody_is_told_of_a_failure() -> None:
    async def test() -> None:
        gate = FakeGate(is_open=False)
        async with bench(gate=gate) as it:
            assert await it.attempt(after=timedelta(days=9)) == 0
            assert (it.state(), it.queue.reports, it.server.connections, gate.begun) == (State.HELD, [], 0, 0)
            gate.is_open = True
            assert await it.attempt() == 1
            assert it.state() is State.DELIVERED

    run(test)


def test_the_time_of_a_hold_does_not_count_against_a_mail() -> None:
    """HD-24: after six days of hold the first failure is the first, not the last."""

    async def test() -> None:
        gate = FakeGate(held=timedelta(days=6))
        async with bench(gate=gate) as it:
            it.server.plan("RCPT", b"451 4.3.0 busy", b"451 4.3.0 busy")
            await it.attempt(after=timedelta(days=6, minutes=1))
            assert it.state() is State.HELD
            assert gate.asked[0][0] == A_MAIL.accepted_at
            gate.held = timedelta(0)
            await it.attempt(after=timedelta(days=1))
            assert it.state() is State.RETURNED

    run(test)


def test_a_mail_counts_as_running_until_its_outcome_is_recorded() -> None:
    async def test() -> None:
        gate, server = FakeGate(), FakeSMTPServer(hold=asyncio.Event())
        async with bench(server, gate=gate) as it:
            attempt = asyncio.create_task(it.attempt())
            while not it.server.commands or not it.server.commands[-1].startswith("DATA"):
                await asyncio.sleep(0.001)
            assert gate.running == 1
            assert it.server.hold is not None
            it.server.hold.set()
            await attempt
            assert (gate.running, it.state()) == (0, State.DELIVERED)

    run(test)


def test_what_is_cut_stays_held_and_is_uncertain_if_the_next_host_may_have_it() -> None:
    """SW-10: fully undone, or listed."""

    async def test() -> None:
        gate, server = FakeGate(), FakeSMTPServer(hold=asyncio.Event())
        second = replace(A_MAIL, recipients=(Recipient("zwei@fremd.kim.telematik-test"),))
        one_connection = bench(server, A_MAIL, second, change=lambda route: replace(route, connections=1), gate=gate)
        async with one_connection as it:
            attempt = asyncio.create_task(it.attempt())
            while not it.server.commands or not it.server.commands[-1].startswith("DATA"):
                await asyncio.sleep(0.001)
            assert await it.outbound.cut() == [1]
            await attempt
            assert [it.state(1), it.state(2)] == [State.HELD, State.HELD]
            assert (gate.running, it.counted["outbound.cut"], it.queue.reports) == (0, 2, [])
            assert it.server.hold is not None
            it.server.hold.set()
            assert await it.attempt() == 2
            assert [it.state(1), it.state(2)] == [State.DELIVERED, State.DELIVERED]

    run(test)


class Stubborn(Outbound):
    """Its attempts swallow the first cancellation, as asyncio.wait_for does when a reply comes in the same moment."""

    swallowed = 0

    async def _attempt(self, mail: Outgoing) -> Outcome:
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.swallowed += 1
                if self.swallowed > 1:
                    raise


def test_an_attempt_that_swallows_its_cancellation_is_cut_all_the_same() -> None:
    async def test() -> None:
        queue, gate = MemoryQueue(), FakeGate()
        queue.put(A_MAIL)
        config = OutboundConfig("mail.kim.example", Routes(), poll=timedelta(milliseconds=5))
        outbound = Stubborn(queue, config, now=lambda: NOW, jitter=lambda: 0.5, gate=gate)
        attempt = asyncio.create_task(outbound.run_once())
        while queue.rows[1].state is not State.RELEASING or not gate.running:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        await outbound.cut()
        await attempt
        assert (outbound.swallowed, queue.rows[1].state) == (2, State.HELD)
        await outbound.close(timedelta(0))

    run(test)


def test_a_mail_whose_outcome_is_known_is_not_cut() -> None:
    async def test() -> None:
        async with bench(gate=FakeGate()) as it:
            it.queue.faults.before("delivered")  # the store is away for a moment
            attempt = asyncio.create_task(it.attempt())
            while not it.server.taken:
                await asyncio.sleep(0.001)
            while it.state() is State.RELEASING and not it.counted["outbound.store_failed"]:
                await asyncio.sleep(0.001)
            assert await it.outbound.cut() == []
            await attempt
            assert it.state() is State.DELIVERED

    run(test)


def test_cutting_goes_on_until_the_store_has_taken_the_mails_back() -> None:
    async def test() -> None:
        server = FakeSMTPServer(hold=asyncio.Event())
        async with bench(server, gate=FakeGate()) as it:
            attempt = asyncio.create_task(it.attempt())
            while not it.server.commands or not it.server.commands[-1].startswith("DATA"):
                await asyncio.sleep(0.001)
            it.queue.faults.before("put_back")
            it.queue.faults.after("put_back")
            await it.outbound.cut()
            await attempt
            assert (it.state(), it.counted["outbound.store_failed"]) == (State.HELD, 2)
            assert it.server.hold is not None
            it.server.hold.set()

    run(test)


def test_a_queue_that_was_switched_since_we_asked_gives_nothing() -> None:
    """SW-06."""

    async def test() -> None:
        async with bench(gate=FakeGate()) as it:
            it.queue.faults.before("due", ConflictError("switched"))
            assert await it.attempt() == 0
            assert (it.counted["outbound.stale"], it.state()) == (1, State.HELD)

    run(test)
