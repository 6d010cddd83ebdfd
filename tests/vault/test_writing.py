"""One transaction for what is kept at the same moment: who is told what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Event

import pytest

from schleuse.database import DatabaseUnavailableError
from schleuse.identifiers import IK
from schleuse.vault.store import Deposit, SealedOpening
from schleuse.vault.writing import COMPLETE, CROWD, MOST, Writer

KASSE = IK("109900011")
PATIENCE_S = 10.0


def deposit(number: int) -> Deposit:
    event = number.to_bytes(16)
    return Deposit(KASSE, openings=[SealedOpening(event, event, b"sealed")])


class Disk:
    """Keeps deposits once the gate is open. full: how many transactions fail, before or after they were written."""

    def __init__(self) -> None:
        self.gate = Event()
        self.gate.set()
        self.began = Event()
        self.full: list[str] = []
        self.erased: list[Deposit] = []
        self.transactions: list[Sequence[Deposit]] = []

    def keep(self, deposits: Sequence[Deposit]) -> list[bool]:
        self.began.set()
        assert self.gate.wait(PATIENCE_S)
        fault = self.full.pop(0) if self.full else None
        if fault == "before":
            raise DatabaseUnavailableError("full")
        self.transactions.append(deposits)
        if fault == "after":
            raise DatabaseUnavailableError("lost")
        return [one not in self.erased for one in deposits]


def with_writer(test: Callable[[Disk, Writer], Awaitable[None]]) -> Disk:
    disk = Disk()
    asyncio.run(asyncio.wait_for(_run(test, disk), PATIENCE_S))
    return disk


async def _run(test: Callable[[Disk, Writer], Awaitable[None]], disk: Disk) -> None:
    await test(disk, Writer(disk.keep))


async def begun(disk: Disk) -> None:
    assert await asyncio.to_thread(disk.began.wait, PATIENCE_S)


def test_what_comes_while_a_transaction_runs_shares_the_next_in_order() -> None:
    async def test(disk: Disk, writer: Writer) -> None:
        disk.gate.clear()
        first = writer.keep(deposit(0))
        await begun(disk)
        others = [writer.keep(deposit(number)) for number in range(1, 10)]
        assert not first.done()
        disk.gate.set()
        assert await asyncio.gather(first, *others) == [True] * 10

    assert with_writer(test).transactions == [[deposit(0)], [deposit(number) for number in range(1, 10)]]


def test_nobody_is_told_before_the_transaction_has_ended() -> None:
    async def test(disk: Disk, writer: Writer) -> None:
        disk.gate.clear()
        kept = writer.keep(deposit(0))
        await begun(disk)
        done, _ = await asyncio.wait([kept], timeout=0)
        assert not done
        disk.gate.set()
        assert await kept

    with_writer(test)


@pytest.mark.parametrize("fault", ["before", "after"])
def test_all_of_a_transaction_that_failed_are_told_and_the_next_one_is_tried(fault: str) -> None:
    async def test(disk: Disk, writer: Writer) -> None:
        disk.full = [fault]
        found = await asyncio.gather(writer.keep(deposit(0)), writer.keep(deposit(1)), return_exceptions=True)
        assert [type(one) for one in found] == [DatabaseUnavailableError] * 2
        assert await writer.keep(deposit(2))

    with_writer(test)


def test_each_is_told_its_own_answer() -> None:
    async def test(disk: Disk, writer: Writer) -> None:
        disk.erased = [deposit(1)]
        assert await asyncio.gather(*(writer.keep(deposit(number)) for number in range(3))) == [True, False, True]

    with_writer(test)


def test_whoever_stops_waiting_takes_nobody_else_along() -> None:
    async def test(disk: Disk, writer: Writer) -> None:
        disk.gate.clear()
        gone, stays = writer.keep(deposit(0)), writer.keep(deposit(1))
        await begun(disk)
        gone.cancel()
        disk.gate.set()
        assert await stays

    with_writer(test)


def test_a_crowd_waits_for_the_rest_of_it_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schleuse.vault.writing.GATHER_S", 10 * PATIENCE_S)

    async def test(disk: Disk, writer: Writer) -> None:
        some = [writer.keep(deposit(number)) for number in range(CROWD)]
        await asyncio.sleep(0)
        assert not disk.began.is_set()
        rest = [writer.keep(deposit(number)) for number in range(CROWD, COMPLETE)]
        assert all(await asyncio.gather(*some, *rest))

    assert [len(one) for one in with_writer(test).transactions] == [COMPLETE]


def test_a_crowd_that_stays_incomplete_is_served() -> None:
    async def test(_disk: Disk, writer: Writer) -> None:
        assert all(await asyncio.gather(*(writer.keep(deposit(number)) for number in range(COMPLETE - 1))))

    assert [len(one) for one in with_writer(test).transactions] == [COMPLETE - 1]


def test_few_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schleuse.vault.writing.GATHER_S", 10 * PATIENCE_S)

    async def test(_disk: Disk, writer: Writer) -> None:
        assert all(await asyncio.gather(*(writer.keep(deposit(number)) for number in range(CROWD - 1))))

    assert [len(one) for one in with_writer(test).transactions] == [CROWD - 1]


def test_a_transaction_has_an_end() -> None:
    async def test(disk: Disk, writer: Writer) -> None:
        assert all(await asyncio.gather(*(writer.keep(deposit(number)) for number in range(2 * MOST + 1))))

    assert [len(one) for one in with_writer(test).transactions] == [MOST, MOST, 1]
