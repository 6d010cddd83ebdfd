"""Our sending side and our receiving side, over real TLS: what goes in at one platform comes out at the next."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.mail.fake_queue import MemoryQueue
from tests.mail.fake_tls import TestCA, server_context
from tests.mail.fakes import MemoryIntake, PlainPasswords, TablePolicy
from tests.mail.queue_contract import A_MAIL, NOW

from schleuse.errors import RefusedError, UnavailableError
from schleuse.holding.states import State
from schleuse.mail.contracts import Action, Recipient
from schleuse.mail.listener import listen_smtp
from schleuse.mail.outbound import Outbound
from schleuse.mail.outbound_routes import Credentials, OutboundConfig, Route, Routes, TLSMode
from schleuse.mail.smtp import Settings


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> TestCA:
    return TestCA(tmp_path_factory.mktemp("ca"))


async def pass_on(
    ca: TestCA,
    queue: MemoryQueue,
    intake: MemoryIntake,
    *,
    implicit: bool = True,
    policy: TablePolicy | None = None,
    credentials: Credentials | None = None,
) -> None:
    """One attempt from the queue to a listener in front of the intake."""
    async with listen_smtp(
        "127.0.0.1",
        0,
        settings=Settings("next.kim.example", credentials is not None, not implicit),
        policy=policy or TablePolicy(),
        intake=intake,
        now=lambda: NOW,
        passwords=PlainPasswords({"kim": "geheim"}) if credentials else None,
        tls=server_context(ca.issue("next")),
        implicit_tls=implicit,
    ) as listener:
        mode = TLSMode.IMPLICIT if implicit else TLSMode.STARTTLS
        route = Route("127.0.0.1", listener.port, mode, ca.ca, credentials=credentials)
        config = OutboundConfig("mail.kim.example", Routes(smarthost=route), connect_timeout=timedelta(seconds=3))
        outbound = Outbound(queue, config, now=lambda: NOW, jitter=lambda: 0.5)
        await outbound.run_once()
        await outbound.close(timedelta(seconds=5))


@pytest.mark.parametrize("implicit", [True, False])
def test_envelope_dsn_parameters_and_content_survive_the_way(ca: TestCA, implicit: bool) -> None:
    queue, intake = MemoryQueue(), MemoryIntake()
    content = A_MAIL.content + b".\r\n..\r\n" + b"x" * 990 + b"\r\n" + "ä".encode() + b"\r\n"
    queue.put(replace(A_MAIL, content=content))
    asyncio.run(pass_on(ca, queue, intake, implicit=implicit))
    (mail,) = intake.kept
    assert (mail.sender, mail.recipients) == (A_MAIL.sender, A_MAIL.recipients)
    assert (mail.ret, mail.envid) == (A_MAIL.ret, A_MAIL.envid)
    assert mail.content.endswith(content)
    assert queue.rows[1].state is State.DELIVERED
    assert queue.reports == []


def test_a_report_arrives_with_the_empty_sender(ca: TestCA) -> None:
    queue, intake = MemoryQueue(), MemoryIntake()
    queue.put(replace(A_MAIL, sender="", recipients=(Recipient("praxis@arzt.example"),), ret=None, envid=None))
    asyncio.run(pass_on(ca, queue, intake))
    assert intake.kept[0].sender == ""


def test_a_smarthost_wants_a_log_in_and_gets_it(ca: TestCA) -> None:
    queue, intake = MemoryQueue(), MemoryIntake()
    queue.put(A_MAIL)
    file = ca.ca.parent / "password"
    file.write_text("geheim\n")
    asyncio.run(pass_on(ca, queue, intake, credentials=Credentials("kim", file)))
    assert intake.kept[0].user == "kim"


def test_a_store_that_is_away_over_there_makes_the_mail_wait_here(ca: TestCA) -> None:
    queue, intake = MemoryQueue(), MemoryIntake(fails_before=UnavailableError("away"))
    queue.put(A_MAIL)
    asyncio.run(pass_on(ca, queue, intake))
    assert queue.rows[1].state is State.HELD


def test_a_recipient_that_is_unknown_over_there_fails_here_with_a_report(ca: TestCA) -> None:
    queue, intake = MemoryQueue(), MemoryIntake()
    queue.put(A_MAIL)
    policy = TablePolicy(recipients={A_MAIL.recipients[0].address: RefusedError("unknown")})
    asyncio.run(pass_on(ca, queue, intake, policy=policy))
    assert [action for _, action, _ in queue.reports] == [Action.FAILED]
