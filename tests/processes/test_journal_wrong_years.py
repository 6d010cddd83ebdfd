"""What a clock that was wrong left behind: logs of other years, entries with other times, marks (decision 0023)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.processes.test_journal_shards import NEW, OLD, Host, sign

from schleuse.journal.contracts import UnknownLogError
from schleuse.journal.entry import Kind
from schleuse.journal.store import Journal
from schleuse.processes.journal_clock import MARK
from schleuse.processes.journal_shards import Shards

YEAR = timedelta(days=366)


def test_a_log_that_was_opened_for_a_clock_ahead_gives_the_same_key_shares_after_a_restart(tmp_path: Path) -> None:
    """Zeros instead would seal documents that nobody opens when the share is there again (§ 14.1)."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, _):
            share = (await journal.append(OLD, host.entry(Kind.KEY_CREATED))).share
        host.clock.boot, host.clock.wrong = "b", timedelta(days=20)  # believed: it may have been off for so long
        async with host.running() as (journal, _):
            assert journal.taking(NEW).origin == NEW
        host.clock.wrong = timedelta(0)
        async with host.running() as (journal, shards):
            await shards.look()
            taking = journal.taking(NEW).origin
            assert (await journal.append(taking, host.entry(Kind.KEY_CREATED))).share == share
            assert NEW in shards.policies

    asyncio.run(run())


def test_a_log_that_nobody_configured_takes_nothing_and_gives_no_share(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, _):
            journal.open_log(NEW)
            assert journal.taking(NEW).origin == OLD
            with pytest.raises(UnknownLogError, match="2027 has no key share"):
                await journal.append(NEW, host.entry(Kind.KEY_CREATED))

    asyncio.run(run())


async def looks(journal: Journal, shards: Shards) -> None:
    """Until there is nothing more to do: closed, signed, key destroyed."""
    for _ in range(4):
        await shards.look()
        await sign(journal, OLD)


def test_a_mark_that_is_gone_beside_logs_makes_nothing_certain(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        (host.role.folder / MARK).unlink()
        host.clock.wrong = YEAR
        with capture_logs() as told:
            async with host.running() as (journal, shards):
                await looks(journal, shards)
                assert not journal.log(OLD).closed
                assert host.key.exists()
        assert "journal.clock-mark-lost" in {one["event"] for one in told}

    asyncio.run(run())
