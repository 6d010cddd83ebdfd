"""mail/outbound.py over real sockets to a small SMTP server that fails before or after the effect."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mail.fake_queue import MemoryQueue
from tests.mail.fake_smtp_server import FakeSMTPServer
from tests.mail.fake_tls import TestCA, server_context
from tests.mail.queue_contract import A_MAIL, NO_SENDER, NOW

from schleuse.errors import ConflictError
from schleuse.holding.states import State
from schleuse.mail.contracts import Action, Gate, Mail, Recipient
from schleuse.mail.outbound import Outbound, run_queue
from schleuse.mail.outbound_routes import Credentials, OutboundConfig, Route, Routes, TLSMode


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> TestCA:
    return TestCA(tmp_path_factory.mktemp("ca"))


@dataclass
class Bench:
    server: FakeSMTPServer
    queue: MemoryQueue
    outbound: Outbound
    counted: Counter[str]
    now: datetime

    async def attempt(self, after: timedelta = timedelta(0)) -> int:
        self.now += after
        return await self.outbound.run_once()

    def state(self, id: int = 1) -> State:
        return self.queue.rows[id].state


@asynccontextmanager
async def bench(
    server: FakeSMTPServer | None = None,
    *mails: Mail,
    change: Callable[[Route], Route] = lambda route: route,
    config: Callable[[OutboundConfig], OutboundConfig] = lambda config: config,
    gate: Gate | None = None,
) -> AsyncIterator[Bench]:
    """A running server, a queue with these mails (one if none is given) and a runner that is driven by hand."""
    async with (server or FakeSMTPServer()).running() as running:
        queue = MemoryQueue()
        for mail in mails or (A_MAIL,):
            queue.put(mail)
        counted: Counter[str] = Counter()
        route = change(Route("127.0.0.1", running.port, TLSMode.NONE))
        settings = OutboundConfig("mail.kim.example", Routes(smarthost=route), poll=timedelta(milliseconds=5))
        outbound = Outbound(
            queue,
            config(settings),
            now=lambda: it.now,
            jitter=lambda: 0.5,
            count=lambda name: counted.update([name]),
            gate=gate,
        )
        it = Bench(running, queue, outbound, counted, NOW)
        try:
            yield it
        finally:
            await outbound.close(timedelta(seconds=5))


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 30)

    asyncio.run(bounded())
    uvloop.run(bounded())  # the loop of the kim role


def test_a_mail_arrives_byte_for_byte_with_its_dsn_parameters() -> None:
    async def test() -> None:
        async with bench() as it:
            assert await it.attempt() == 1
            (taken,) = it.server.taken
            assert taken.content == A_MAIL.content
            assert taken.mail == f"MAIL FROM:<{A_MAIL.sender}> SIZE={len(A_MAIL.content)} RET=HDRS ENVID=QQ+2B1"
            assert taken.rcpt.endswith("NOTIFY=DELAY,FAILURE,SUCCESS ORCPT=rfc822;eau@fremd.kim.telematik-test")
            assert it.state() is State.DELIVERED
            assert it.queue.rows[1].reply == "250 2.0.0 kept"
            assert it.queue.reports == []  # that host reports itself
            assert await it.attempt() == 0

    run(test)


def test_a_host_without_dsn_makes_us_report_that_it_was_relayed() -> None:
    async def test() -> None:
        async with bench(FakeSMTPServer(extensions=("8BITMIME",))) as it:
            await it.attempt()
            assert "NOTIFY" not in it.server.taken[0].rcpt
            assert it.queue.reports == [(1, Action.RELAYED, "2.0.0")]

    run(test)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "CONTENT"])
def test_a_temporary_refusal_is_tried_again_and_the_session_goes_on(verb: str) -> None:
    async def test() -> None:
        async with bench() as it:
            it.server.plan(verb, b"451 4.3.0 busy")
            await it.attempt()
            assert it.state() is State.HELD
            assert it.server.taken == []
            assert await it.attempt() == 0  # not yet
            assert await it.attempt(after=timedelta(minutes=1)) == 1
            assert it.state() is State.DELIVERED
            assert it.server.connections == 1
            assert it.queue.reports == []

    run(test)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "CONTENT"])
def test_a_permanent_refusal_fails_with_the_status_of_the_host(verb: str) -> None:
    async def test() -> None:
        async with bench() as it:
            it.server.plan(verb, b"550-5.1.1 nobody\r\n550 5.1.1 of that name")
            await it.attempt()
            assert it.state() is State.RETURNED
            assert it.queue.reports == [(1, Action.FAILED, "5.1.1")]
            assert it.server.taken == []

    run(test)


def test_a_lost_reply_is_tried_again_because_twice_is_linked_and_lost_is_lost() -> None:
    async def test() -> None:
        async with bench() as it:
            it.server.plan("CONTENT", "keep and drop")
            await it.attempt()
            assert it.state() is State.HELD
            await it.attempt(after=timedelta(minutes=2))
            assert it.state() is State.DELIVERED
            assert [taken.content for taken in it.server.taken] == [A_MAIL.content] * 2

    run(test)


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"])
def test_a_connection_lost_anywhere_is_tried_again(verb: str) -> None:
    async def test() -> None:
        async with bench() as it:
            it.server.plan(verb, "drop")
            await it.attempt()
            assert it.state() is State.HELD
            await it.attempt(after=timedelta(minutes=2))
            assert it.state() is State.DELIVERED
            assert len(it.server.taken) == 1

    run(test)


@pytest.mark.parametrize("reply", [b"554 5.3.2 closed", b"421 4.3.2 later", b"xyz", b"250 odd"])
@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
def test_a_host_that_refuses_the_session_refuses_no_mail(verb: str, reply: bytes) -> None:
    async def test() -> None:
        async with bench() as it:
            it.server.plan(verb, reply)
            await it.attempt()
            assert it.state() in {State.HELD, State.DELIVERED}  # "250 odd" is a fine answer to EHLO
            await it.attempt(after=timedelta(minutes=2))
            assert it.state() is State.DELIVERED

    run(test)


def test_an_unreachable_host_is_tried_once_for_all_that_waits_and_the_operator_hears() -> None:
    async def test() -> None:
        mails = [A_MAIL] * 10
        async with bench(None, *mails, change=lambda route: replace(route, port=1, connections=1)) as it:
            await it.attempt()
            assert {row.state for row in it.queue.rows.values()} == {State.HELD}
            assert {row.mail.attempts for row in it.queue.rows.values()} == {1}
            assert it.counted["outbound.unreachable"] == 1

    run(test)


def test_connections_are_reused_and_no_more_are_open_than_allowed() -> None:
    async def test() -> None:
        mails = [A_MAIL] * 30
        async with bench(None, *mails, change=lambda route: replace(route, connections=3)) as it:
            await it.attempt()
            assert len(it.server.taken) == 30
            assert it.server.most_open <= 3
            assert it.server.connections <= 3
            await it.outbound.close(timedelta(seconds=5))
            assert it.server.commands.count("QUIT") == it.server.connections

    run(test)


def test_a_kept_connection_that_has_gone_costs_the_mail_no_attempt() -> None:
    async def test() -> None:
        async with bench() as it:
            await it.attempt()
            it.queue.put(A_MAIL)
            it.server.plan("MAIL", b"421 4.4.2 idle too long")
            await it.attempt()
            it.queue.put(A_MAIL)
            it.server.plan("MAIL", "drop")
            await it.attempt()
            assert [it.state(id) for id in (1, 2, 3)] == [State.DELIVERED] * 3
            assert it.counted["outbound.retry"] == 0
            assert it.server.connections == 3

    run(test)


def test_a_long_queue_is_sent_over_several_connections() -> None:
    async def test() -> None:
        mails = [A_MAIL] * 120
        long = bench(
            None,
            *mails,
            change=lambda route: replace(route, connections=1),
            config=lambda c: replace(c, max_in_flight=200),
        )
        async with long as it:
            await it.attempt()
            assert len(it.server.taken) == 120
            assert it.server.connections == 2

    run(test)


def test_a_delay_is_reported_once_after_four_hours_and_never_for_a_report() -> None:
    async def test() -> None:
        async with bench(None, A_MAIL, NO_SENDER) as it:
            it.server.plan("MAIL", *[b"451 4.3.0 busy"] * 8)
            await it.attempt()
            await it.attempt(after=timedelta(hours=3, minutes=50))
            assert it.queue.reports == []
            await it.attempt(after=timedelta(hours=1))
            await it.attempt(after=timedelta(hours=2))
            assert it.queue.reports == [(1, Action.DELAYED, "4.0.0")]
            assert it.counted["outbound.delay_reported"] == 1
            await it.attempt(after=timedelta(hours=2))
            assert it.state(1) is it.state(2) is State.DELIVERED

    run(test)


def test_after_five_days_it_has_failed_with_a_report_and_a_report_fails_without() -> None:
    async def test() -> None:
        async with bench(None, A_MAIL, NO_SENDER) as it:
            it.server.plan("MAIL", *[b"451 4.3.0 busy"] * 4)
            await it.attempt()
            await it.attempt(after=timedelta(days=5))
            assert it.state(1) is it.state(2) is State.RETURNED
            assert it.queue.rows[1].reply == "451 4.3.0 busy"
            assert it.queue.reports == [(1, Action.FAILED, "4.4.7")]

    run(test)


def test_a_mail_that_runs_in_a_circle_is_not_sent() -> None:
    async def test() -> None:
        looped = b"Received: from a by mail.kim.example; Mon, 02 Mar 2026 09:00:00 +0000\r\n" * 5 + A_MAIL.content
        async with bench(None, replace(A_MAIL, content=looped)) as it:
            await it.attempt()
            assert it.server.connections == 0
            assert it.queue.reports == [(1, Action.FAILED, "5.4.6")]

    run(test)


def test_without_a_route_the_mail_waits_and_the_operator_hears() -> None:
    async def test() -> None:
        async with bench(config=lambda c: replace(c, routes=Routes())) as it:
            await it.attempt()
            assert it.state() is State.HELD
            assert it.counted["outbound.no_route"] == 1

    run(test)


def test_a_mail_that_is_too_big_for_the_next_host_is_not_sent() -> None:
    async def test() -> None:
        async with bench(FakeSMTPServer(extensions=("SIZE 20",))) as it:
            await it.attempt()
            assert it.queue.reports == [(1, Action.FAILED, "5.3.4")]
            assert not any(command.startswith("MAIL") for command in it.server.commands)

    run(test)


REPLIES = st.binary(max_size=40) | st.sampled_from(
    [
        b"250-",
        b"250",
        b"2",
        b"354 go",
        b"999 what",
        b"550-5.1.1",
        b"\xff\xff\xff",
        b"250 \xff",
        b"x" * 9_000,
        b"421 4.3.2",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"]), REPLIES)
def test_whatever_the_next_host_says_the_mail_is_in_exactly_one_state(verb: str, reply: bytes) -> None:
    short = timedelta(milliseconds=30)

    async def test() -> None:
        timeouts = {"connect_timeout": short, "reply_timeout": short, "data_timeout": short}
        async with bench(config=lambda c: replace(c, **timeouts)) as it:  # type: ignore[arg-type]
            it.server.plan(verb, reply)
            await it.attempt()
            state = it.state()
            assert state in {State.HELD, State.RETURNED, State.DELIVERED}
            # Failed only by a word of the host about this mail, delivered only when the host has it.
            assert state is not State.RETURNED or (reply[:1] == b"5" and verb not in {"CONNECT", "EHLO"})
            assert state is not State.DELIVERED or len(it.server.taken) == 1

    run(test)


# -- the store fails -------------------------------------------------------------------------------------------


def test_a_store_that_was_away_is_told_later_and_the_mail_is_sent_once() -> None:
    async def test() -> None:
        async with bench() as it:
            it.queue.faults.before("delivered")
            it.queue.faults.before("delivered")
            await it.attempt()
            assert it.state() is State.DELIVERED
            assert len(it.server.taken) == 1
            assert it.counted["outbound.store_failed"] == 2

    run(test)


@pytest.mark.parametrize(("method", "reply"), [("delivered", b"250 ok"), ("failed", b"550 no")])
def test_a_store_whose_answer_was_lost_is_told_again_without_a_second_effect(method: str, reply: bytes) -> None:
    async def test() -> None:
        async with bench(FakeSMTPServer(extensions=())) as it:
            it.server.plan("CONTENT", reply)
            it.queue.faults.after(method)
            await it.attempt()
            assert len(it.queue.reports) == 1
            assert it.counted["outbound.conflict"] == 1
            assert await it.attempt() == 0

    run(test)


def test_a_fault_that_nobody_planned_ends_neither_runner_nor_mail() -> None:
    async def test() -> None:
        async with bench() as it:
            it.queue.faults.before("delivered", RuntimeError("a bug"))  # type: ignore[arg-type]
            await it.attempt()
            assert it.state() is State.DELIVERED

    run(test)


def test_a_mail_that_another_process_settled_is_left_alone() -> None:
    async def test() -> None:
        async with bench() as it:
            it.queue.faults.before("delivered", ConflictError("someone was faster"))
            await it.attempt()
            assert it.counted["outbound.conflict"] == 1
            assert it.counted["outbound.store_failed"] == 0

    run(test)


def test_a_queue_that_cannot_be_read_is_read_again() -> None:
    async def test() -> None:
        async with bench() as it:
            it.queue.faults.before("due")
            assert await it.attempt() == 0
            assert await it.attempt() == 1

    run(test)


def test_no_mail_is_sent_twice_however_small_the_room_is() -> None:
    async def test() -> None:
        async with FakeSMTPServer().running() as server:
            queue = MemoryQueue()
            for n in range(60):
                queue.put(replace(A_MAIL, content=A_MAIL.content + b"%d\r\n" % n))
            route = Route("127.0.0.1", server.port, TLSMode.NONE, connections=2)
            config = OutboundConfig("mail.kim.example", Routes(smarthost=route), max_in_flight=5)
            async with run_queue(queue, config, now=lambda: NOW, jitter=lambda: 0.5):
                while any(row.state is not State.DELIVERED for row in queue.rows.values()):
                    await asyncio.sleep(0)
            assert len({taken.content for taken in server.taken}) == len(server.taken) == 60

    run(test)


def test_a_woken_runner_sends_at_once() -> None:
    async def test() -> None:
        async with FakeSMTPServer().running() as server:
            queue = MemoryQueue()
            route = Route("127.0.0.1", server.port, TLSMode.NONE)
            config = OutboundConfig("mail.kim.example", Routes(smarthost=route), poll=timedelta(hours=1))
            async with run_queue(queue, config, now=lambda: NOW, jitter=lambda: 0.5) as outbound:
                queue.put(A_MAIL)
                outbound.wake()
                while not server.taken:
                    await asyncio.sleep(0)
            assert queue.rows[1].state is State.DELIVERED

    run(test)


def test_stopping_in_the_middle_of_a_mail_leaves_it_to_the_next_start() -> None:
    async def test() -> None:
        async with FakeSMTPServer(hold=asyncio.Event()).running() as server:
            queue = MemoryQueue()
            queue.put(A_MAIL)
            route = Route("127.0.0.1", server.port, TLSMode.NONE)
            config = OutboundConfig("mail.kim.example", Routes(smarthost=route))
            async with run_queue(queue, config, now=lambda: NOW, jitter=lambda: 0.5, grace=timedelta(0)):
                while "DATA" not in server.commands:
                    await asyncio.sleep(0)
            queue.restart()
            assert queue.rows[1].state is State.HELD
            assert queue.rows[1].mail.attempts == 0

    run(test)


# -- TLS and log-in --------------------------------------------------------------------------------------------


def secured(ca: TestCA, mode: TLSMode) -> Callable[[Route], Route]:
    return lambda route: replace(route, tls=mode, ca_file=ca.ca)


def test_implicit_tls_with_a_client_certificate_as_between_fachdienste(ca: TestCA) -> None:
    async def test() -> None:
        client = ca.issue("client")
        server = FakeSMTPServer(implicit=server_context(ca.issue("next-host"), client_ca=ca.ca))

        def change(route: Route) -> Route:
            return replace(
                secured(ca, TLSMode.IMPLICIT)(route), client_certificate=client.certificate, client_key=client.key
            )

        async with bench(server, change=change) as it:
            await it.attempt()
            assert it.state() is State.DELIVERED
        async with bench(server, change=secured(ca, TLSMode.IMPLICIT)) as it:
            await it.attempt()
            assert it.state() is State.HELD

    run(test)


def test_starttls_comes_before_everything_else(ca: TestCA) -> None:
    async def test() -> None:
        server = FakeSMTPServer(starttls=server_context(ca.issue("next-host")))
        async with bench(server, change=secured(ca, TLSMode.STARTTLS)) as it:
            await it.attempt()
            assert it.state() is State.DELIVERED
            assert server.commands[1] == "STARTTLS"

    run(test)


@pytest.mark.parametrize("mode", [TLSMode.IMPLICIT, TLSMode.STARTTLS])
@pytest.mark.parametrize("fault", ["unknown authority", "other name"])
def test_nothing_is_sent_when_the_identity_is_not_verified(
    ca: TestCA, tmp_path: Path, mode: TLSMode, fault: str
) -> None:
    async def test() -> None:
        authority = TestCA(tmp_path) if fault == "unknown authority" else ca
        names = ("localhost", "127.0.0.1") if fault == "unknown authority" else ("other.example",)
        context = server_context(authority.issue("impostor", names))
        server = FakeSMTPServer(
            implicit=context if mode is TLSMode.IMPLICIT else None,
            starttls=context if mode is TLSMode.STARTTLS else None,
        )
        async with bench(server, change=secured(ca, mode)) as it:
            await it.attempt()
            assert it.state() is State.HELD
            assert it.counted["outbound.tls_not_verified"] == 1
            assert not any(command.startswith("MAIL") for command in server.commands)

    run(test)


@pytest.mark.parametrize("plan", [None, b"454 4.7.0 no", b"500 what"])
def test_a_host_that_offers_no_starttls_gets_nothing(ca: TestCA, plan: bytes | None) -> None:
    async def test() -> None:
        server = FakeSMTPServer(starttls=None if plan is None else server_context(ca.issue("next-host")))
        if plan is not None:
            server.plan("STARTTLS", plan)
        async with bench(server, change=secured(ca, TLSMode.STARTTLS)) as it:
            if plan is not None:  # our fake goes on to TLS only when it said 220
                it.server.starttls = None
                it.server.extensions = ("STARTTLS",)
            await it.attempt()
            assert it.state() is State.HELD
            assert it.counted["outbound.tls_not_offered"] == 1
            assert not any(command.startswith("MAIL") for command in server.commands)

    run(test)


def test_the_log_in_uses_the_password_file_as_it_is_now(ca: TestCA, tmp_path: Path) -> None:
    async def test() -> None:
        file = tmp_path / "password"
        file.write_text("falsch\n")
        server = FakeSMTPServer(implicit=server_context(ca.issue("next-host")), login=("kim", "geheim"))

        def change(route: Route) -> Route:
            return replace(secured(ca, TLSMode.IMPLICIT)(route), credentials=Credentials("kim", file))

        async with bench(server, change=change) as it:
            await it.attempt()
            assert it.state() is State.HELD
            assert it.counted["outbound.login_refused"] == 1
            file.write_text("geheim\n")
            await it.attempt(after=timedelta(minutes=2))
            assert it.server.taken[0].user == "kim"

    run(test)


def test_a_missing_log_in_is_our_trouble_and_refuses_no_mail() -> None:
    async def test() -> None:
        async with bench(FakeSMTPServer(login=("kim", "geheim"))) as it:
            await it.attempt()
            assert it.state() is State.HELD
            assert it.counted["outbound.session_refused"] == 1

    run(test)


def test_a_missing_certificate_file_is_our_trouble(tmp_path: Path) -> None:
    async def test() -> None:
        missing = tmp_path / "missing.pem"
        async with bench(change=lambda route: replace(route, tls=TLSMode.IMPLICIT, ca_file=missing)) as it:
            await it.attempt()
            assert it.state() is State.HELD
            assert it.counted["outbound.bad_setting"] == 1

    run(test)


def test_a_host_that_never_answers_holds_up_one_mail_and_not_all_that_wait_for_it() -> None:
    async def test() -> None:
        server = FakeSMTPServer(hold=asyncio.Event())
        async with bench(
            server,
            *[A_MAIL] * 10,
            change=lambda route: replace(route, connections=1),
            config=lambda c: replace(c, data_timeout=timedelta(milliseconds=50)),
        ) as it:
            await it.attempt()
            assert {row.state for row in it.queue.rows.values()} == {State.HELD}
            assert it.counted["outbound.unreachable"] == 1
            assert server.connections == 1

    run(test)


def test_recipients_that_need_smtputf8_reach_a_host_that_speaks_it() -> None:
    async def test() -> None:
        mail = replace(A_MAIL, recipients=(Recipient("jürgen@fremd.example"),), smtputf8=True)
        async with bench(None, mail) as it:
            await it.attempt()
            assert it.server.taken[0].rcpt == "RCPT TO:<jürgen@fremd.example>"
            assert it.server.taken[0].mail.endswith(" SMTPUTF8 RET=HDRS ENVID=QQ+2B1")

    run(test)
