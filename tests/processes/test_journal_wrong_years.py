"""What a clock that was wrong left behind: logs of other years, entries with other times, marks (decision 0023)."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.processes.test_journal_clock import several_looks
from tests.processes.test_journal_shards import NEW, NEW_YEAR, OLD, Host, kinds

from schleuse.journal.client import JournalClient
from schleuse.journal.contracts import QuarantinedError, ShardClosedError, UnknownLogError
from schleuse.journal.entry import Kind
from schleuse.journal.server import Peers, listen
from schleuse.processes.journal_clock import MARK, ORDER, give_order
from schleuse.processes.journal_keys import KeyMissingError
from schleuse.processes.journal_shards import BEHIND

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


def test_a_mark_that_is_gone_beside_logs_makes_nothing_certain(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        (host.role.folder / MARK).unlink()
        host.clock.wrong = YEAR
        with capture_logs() as told:
            async with host.running() as (journal, shards):
                await several_looks(journal, shards)
                assert not journal.log(OLD).closed
                assert host.key.exists()
        assert "journal.clock-mark-lost" in {one["event"] for one in told}

    asyncio.run(run())


@pytest.mark.parametrize("mark", ["nonsense", None])
@pytest.mark.parametrize("back", [timedelta(days=30), 3 * YEAR])
def test_a_start_with_a_clock_behind_and_no_mark_never_keeps_the_journal_from_starting(
    tmp_path: Path, back: timedelta, mark: str | None
) -> None:
    """The clock says last year, whose logs are closed and whose keys are gone."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            host.clock.at = NEW_YEAR + BEHIND
            await several_looks(journal, shards)
            assert not host.key.exists()
        path = host.role.folder / MARK
        path.unlink()
        if mark is not None:
            path.write_text(mark)
        host.clock.wrong = -back
        for wrong in (-back, timedelta(0)):  # the second start reads what the first one kept
            host.clock.wrong = wrong
            async with host.running() as (journal, shards):
                await shards.look()
                await journal.append(journal.taking(OLD).origin, host.entry())
                assert journal.health()["clock"] is None

    asyncio.run(run())


def test_a_word_about_a_wrong_clock_is_taken_back_by_one_about_the_right_clock(tmp_path: Path) -> None:
    """The year that the first word ended stays closed; the next one's log takes its entries."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            host.clock.wrong = YEAR
            give_order(host.role.folder, host.clock())
            await several_looks(journal, shards)
            assert journal.log(OLD).closed
            host.clock.wrong = timedelta(0)
            give_order(host.role.folder, host.clock())
            await shards.look()
            assert journal.health()["clock"] is None
            assert journal.taking(OLD).origin == shards.current(OLD) == NEW
            await journal.append(NEW, host.entry())
        async with host.running() as (journal, shards):
            await shards.look()
            assert journal.taking(OLD).origin == NEW
            host.clock.at = NEW_YEAR + BEHIND
            await shards.look()
            assert (await journal.append(journal.taking(NEW).origin, host.entry())).origin == NEW

    asyncio.run(run())


def test_a_word_about_the_clock_counts_before_a_start_asks_for_keys_of_another_year(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        host.key.unlink()
        host.clock.at, host.clock.boot = NEW_YEAR + timedelta(days=60), "b"
        with pytest.raises(KeyMissingError):
            async with host.running():
                pass
        give_order(host.role.folder, host.clock())
        async with host.running() as (journal, shards):
            await shards.look()
            assert journal.health()["clock"] is None
            assert journal.taking(OLD).origin == NEW

    asyncio.run(run())


def test_no_log_is_closed_in_the_look_that_ended_a_doubt_or_opened_the_next_and_clients_ask_again(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        me = frozenset({os.getuid()})
        async with host.running() as (journal, shards), listen(tmp_path / "s", journal, Peers(me, me)):
            client = JournalClient(tmp_path / "s")
            host.clock.wrong = timedelta(days=10)  # as after a sleep that the kernel did not count
            await shards.look()
            await client.append_many(NEW, [host.entry()])
            assert await client.current(NEW) == OLD
            give_order(host.role.folder, host.clock())
            await shards.look()
            assert journal.health()["clock"] is None
            await client.append_many(NEW, [host.entry()])  # the name that it was told still takes
            assert kinds(journal, OLD)[-1] is Kind.WRITE
            await shards.look()
            assert journal.log(OLD).closed
            before = journal.log(NEW).size
            assert await client.append_many(NEW, [host.entry()]) == range(before, before + 1)
            with pytest.raises(ShardClosedError):  # whoever names a log that is closed means that one
                await client.append(OLD, host.entry())
            await client.close()

    asyncio.run(run())


def test_a_log_that_is_closed_and_has_none_after_it_is_asked_about_no_more_than_once(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        me = frozenset({os.getuid()})
        async with host.running() as (journal, _), listen(tmp_path / "s", journal, Peers(me, me)):
            client = JournalClient(tmp_path / "s")
            await client.append_many(OLD, [host.entry()])
            await journal.close_log(OLD, host.entry(Kind.SHARD_CLOSED))
            with pytest.raises(ShardClosedError):
                await client.append_many(OLD, [host.entry()])
            await client.close()

    asyncio.run(run())


def test_a_look_at_the_clock_that_fails_keeps_no_log_of_the_new_year_from_being_opened(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            (host.role.folder / ORDER).mkdir()
            host.clock.at = NEW_YEAR + BEHIND
            for _ in range(2):
                with pytest.raises(OSError, match=ORDER):
                    await shards.look()
            await journal.append(NEW, host.entry())
            assert not journal.log(OLD).closed

    asyncio.run(run())


def test_a_journal_in_quarantine_says_so_to_whoever_asks_which_log_takes(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, _):
            journal.stop(["the disk contradicts itself"])
            for origin in (OLD, NEW, "nobody/knows/2026"):
                with pytest.raises(QuarantinedError):
                    journal.taking(origin)

    asyncio.run(run())


def test_where_boots_cannot_be_told_apart_each_start_is_another_boot(tmp_path: Path) -> None:
    """The machine's time since its boot says nothing of how long it was off."""

    async def run() -> None:
        host = Host(tmp_path)
        host.clock.boot = ""
        async with host.running() as (_, shards):
            before = shards.clock.certain()
        host.clock.at += timedelta(days=2)
        async with host.running() as (_, shards):
            assert shards.clock.certain() == before
            assert not shards.clock.is_doubted()
            host.clock.at += timedelta(days=2)
            assert shards.clock.certain() == before + timedelta(days=2)
            assert shards.clock.counted_us() is None

    asyncio.run(run())
