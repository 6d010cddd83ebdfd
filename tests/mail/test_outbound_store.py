"""The platform's own store passes the contracts that our fakes pass, and the queue runner works on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.mail.fake_smtp_server import FakeSMTPServer
from tests.mail.maildrop_contract import MaildropContract
from tests.mail.queue_contract import A_MAIL, NOW, QueueContract

from schleuse.database import sqlite_url
from schleuse.errors import Error
from schleuse.holding.states import State
from schleuse.kim.store import OUTBOUND, MailStore, Settings, open_mail_store
from schleuse.mail import dsn
from schleuse.mail.contracts import Action, Mail, Maildrop, Recipient
from schleuse.mail.outbound import Outbound
from schleuse.mail.outbound_routes import OutboundConfig, Route, Routes, TLSMode


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailStore]:
    settings = Settings(sqlite_url(tmp_path / "kim.sqlite"), tmp_path / "spool", "mail.kim.example", reserve_bytes=0)
    with open_mail_store(settings, _account_of, now=lambda: NOW, background=False) as opened:
        yield opened


def _account_of(address: str) -> str | None:
    return address if address.endswith("@kim.example") else None


def keep(store: MailStore, mail: Mail) -> None:
    finished = threading.Event()
    problems: list[Error | None] = []

    def done(error: Error | None) -> None:
        problems.append(error)
        finished.set()

    store.accept(mail, done)
    assert finished.wait(20)
    assert problems == [None]
    store.route()


class _StoreQueue:
    """The queue of a store, with the store beside it for `put` and `reports`."""

    def __init__(self, store: MailStore) -> None:
        self.store = store
        self.due = store.queue.due
        self.delivered = store.queue.delivered
        self.retry = store.queue.retry
        self.failed = store.queue.failed
        self.put_back = store.queue.put_back


class _StoreMailboxes:
    def __init__(self, store: MailStore) -> None:
        self.store = store

    def open(self, account: str) -> Maildrop:
        return self.store.maildrop(account)


class TestQueueOfTheStore(QueueContract):
    @pytest.fixture
    def queue(self, store: MailStore) -> _StoreQueue:
        return _StoreQueue(store)

    def put(self, queue: _StoreQueue, mail: Mail) -> None:
        keep(queue.store, mail)

    def reports(self, queue: _StoreQueue) -> list[tuple[Action, str]]:
        return [(pending.action, pending.report.status) for pending in queue.store.pending_reports(100)]


class TestMailboxesOfTheStore(MaildropContract):
    @pytest.fixture
    def mailboxes(self, store: MailStore) -> _StoreMailboxes:
        return _StoreMailboxes(store)

    def put(self, mailboxes: _StoreMailboxes, account: str, content: bytes) -> None:
        keep(mailboxes.store, replace(A_MAIL, recipients=(Recipient(account),), content=content))


def test_a_refused_mail_becomes_a_report_that_the_sender_can_read(store: MailStore) -> None:
    async def test() -> None:
        async with FakeSMTPServer().running() as server:
            keep(store, A_MAIL)
            server.plan("MAIL", b"451 4.3.0 busy")
            server.plan("RCPT", b"550 5.1.1 nobody of that name")
            route = Route("127.0.0.1", server.port, TLSMode.NONE)
            config = OutboundConfig("mail.kim.example", Routes(smarthost=route))
            now = [NOW]
            outbound = Outbound(store.queue, config, now=lambda: now[0], jitter=lambda: 0.5)
            assert await outbound.run_once() == 1
            assert await outbound.run_once() == 0
            now[0] += timedelta(minutes=2)
            assert await outbound.run_once() == 1
            await outbound.close(timedelta(seconds=5))

    asyncio.run(test())
    (pending,) = store.pending_reports(10)
    (status,) = dsn.parse(dsn.build(pending.report))
    assert (status.action, status.status) == (Action.FAILED, "5.1.1")
    assert status.recipient == A_MAIL.recipients[0].address
    assert status.original_message_id == "1@arzt.kim.telematik-test"
    assert status.envid == "QQ+1"
    assert store.counts()[OUTBOUND] == {State.RETURNED: 1}
