"""The log asks its witnesses (journal.md § 9.1, § 9.4); the fake witness checks as a real one does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.journal.journals import ORIGIN, WITNESS, config, entry, journal, signer

from schleuse.journal.contracts import Level, QuarantinedError
from schleuse.journal.hashing import EMPTY_ROOT
from schleuse.journal.policy import parse_policy
from schleuse.journal.proof import is_consistent
from schleuse.journal.push import WitnessPush
from schleuse.journal.store import Journal
from schleuse.journal.witness_request import parse_witness_request


class FakeWitness:
    """Keeps size and root. down: no answer; lost: the answer is lost after it was recorded."""

    def __init__(self) -> None:
        self.size, self.root = 0, EMPTY_ROOT
        self.down = self.lost = False
        self.asked: list[str] = []

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append(url)
        if self.down:
            raise OSError("down")
        request = parse_witness_request(body)
        if request.old != self.size:
            return 409, b"%d\n" % self.size
        checkpoint = request.checkpoint
        if not is_consistent(self.size, checkpoint.size, self.root, checkpoint.root, request.proof):
            return 422, b""
        self.size, self.root = checkpoint.size, checkpoint.root
        if self.lost:
            raise OSError("lost")
        return 200, str(WITNESS.cosign(checkpoint, 1_800_000_000)).encode()


CONFIG = replace(
    config(witnessed=True),
    policy=parse_policy(
        f"log {signer().key.vkey}\nwitness w {WITNESS.key.vkey} https://w.example/x/\nquorum w\n".encode()
    ),
)


async def grow(opened: Journal, count: int) -> None:
    start = opened.log(ORIGIN).size
    await opened.append_many(ORIGIN, [entry(i) for i in range(start, start + count)])
    opened.tick()
    await opened.wait(ORIGIN, start + count, Level.PUBLISHED, 5)


def pushing(opened: Journal, witness: FakeWitness) -> tuple[WitnessPush, list[str]]:
    alarms: list[str] = []
    push = WitnessPush(opened, witness.post, lambda event, origin, name: alarms.append(event))
    opened.publisher.signed.append(lambda log: push.signed(log, CONFIG.policy))
    return push, alarms


def test_each_checkpoint_is_cosigned_and_served(tmp_path: Path) -> None:
    async def run() -> None:
        witness = FakeWitness()
        async with journal(tmp_path, logs=(CONFIG,)) as opened:
            push, alarms = pushing(opened, witness)
            for count in (7, 5, 300):
                await grow(opened, count)
                await push.idle()
                await opened.wait(ORIGIN, opened.log(ORIGIN).size, Level.WITNESSED, 5)
            assert (witness.size, alarms) == (312, [])
            assert witness.asked == ["https://w.example/x/add-checkpoint"] * 3

    asyncio.run(run())


def test_a_lost_answer_is_asked_for_again_and_silence_stops_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        witness = FakeWitness()
        async with journal(tmp_path, logs=(CONFIG,)) as opened:
            push, alarms = pushing(opened, witness)
            witness.lost = True
            await grow(opened, 7)
            await push.idle()
            assert opened.log(ORIGIN).served is None
            witness.lost, witness.down = False, True
            await grow(opened, 2)
            await push.idle()
            assert alarms == ["witness-silent"] * 2
            witness.down = False
            await grow(opened, 3)
            await push.idle()
            await opened.wait(ORIGIN, 12, Level.WITNESSED, 5)

    asyncio.run(run())


def test_a_witness_that_knows_more_than_our_disk_stops_the_journal(tmp_path: Path) -> None:
    async def run() -> None:
        witness = FakeWitness()
        witness.size = 1000
        async with journal(tmp_path, logs=(CONFIG,)) as opened:
            push, alarms = pushing(opened, witness)
            await grow(opened, 7)
            await push.idle()
            assert alarms == ["history-lost"]
            with pytest.raises(QuarantinedError, match="w cosigned size 1000"):
                await opened.append(ORIGIN, entry(50))

    asyncio.run(run())


def test_a_witness_that_sees_a_fork_refuses_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        witness = FakeWitness()
        witness.size, witness.root = 3, b"\7" * 32
        async with journal(tmp_path, logs=(CONFIG,)) as opened:
            push, alarms = pushing(opened, witness)
            await grow(opened, 7)
            await push.idle()
            assert alarms == ["refused-as-inconsistent"]
            assert opened.log(ORIGIN).served is None

    asyncio.run(run())
