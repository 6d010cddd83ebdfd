"""A clock that is wrong closes no year, destroys no key, refuses nothing (decision 0023; journal.md § 17)."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.journal.faulty_disk import FaultyDisk
from tests.journal.journals import WITNESS
from tests.processes import test_journal_role as roles
from tests.processes.test_journal_shards import KASSE, NEW, NEW_YEAR, OLD, Dying, Host, kinds, sign

from schleuse.clock import Uptime, to_us, utc_now
from schleuse.errors import Error
from schleuse.journal.admission import InvalidEntryError
from schleuse.journal.contracts import UnknownLogError
from schleuse.journal.entry import Entry, Kind, Purpose, Result, parse_entry
from schleuse.journal.opening import parse_opening
from schleuse.journal.store import Journal
from schleuse.processes.journal_clock import MARK, ORDER, give_order
from schleuse.processes.journal_keys import origin_of
from schleuse.processes.journal_shards import BEHIND, Shards
from schleuse.processes.trail import PLATFORM, new_event

YEAR = timedelta(days=366)
PLATFORM_OLD = origin_of("test.example", PLATFORM, 2026)


async def several_looks(journal: Journal, shards: Shards) -> None:
    """Until there is nothing more to do: closed, signed, key destroyed."""
    for _ in range(4):
        await shards.look()
        await sign(journal, OLD)


async def cosign_at(journal: Journal, at: datetime) -> None:
    signed = journal.log(OLD).signed
    assert signed is not None
    line = WITNESS.cosign(signed.checkpoint, int(at.timestamp()))
    await journal.add_cosignature(OLD, signed.note.with_lines([line]).encode())


def untouched(host: Host, journal: Journal) -> bool:
    """Nothing of the year is closed, its key is there, and no log of another year was begun."""
    years = {one.origin.rpartition("/")[2] for one in journal.logs()}
    return not journal.log(OLD).closed and host.key.exists() and years == {"2026"}


@pytest.mark.parametrize("witnessed", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("wrong", [YEAR, 10 * YEAR, -YEAR])
def test_while_the_clock_is_wrong_the_year_goes_on_and_when_it_is_right_again_all_goes_on(
    tmp_path: Path, wrong: timedelta, restarted: bool, witnessed: bool
) -> None:
    async def wrong_clock(host: Host, journal: Journal, shards: Shards) -> None:
        await several_looks(journal, shards)
        assert untouched(host, journal)
        assert shards.proven(OLD).year == 1970
        finding = journal.health()["clock"]
        assert f"the clock says {host.clock().year}-" in finding
        assert "sets its clock right" in finding
        named = origin_of("test.example", KASSE, host.clock().year)  # as a writer on this machine names it
        assert journal.taking(named).origin == shards.current(named) == OLD
        before = journal.log(OLD).size
        await journal.append(OLD, host.entry())  # of a writer whose clock is ours
        host.clock.wrong = timedelta(0)
        right = host.entry()
        host.clock.wrong = wrong
        await journal.append(OLD, right)  # of one whose clock is right
        host.clock.wrong += timedelta(hours=1)
        neither = host.entry()
        host.clock.wrong = wrong
        with pytest.raises(InvalidEntryError):
            await journal.append(OLD, neither)
        assert journal.log(OLD).size == before + 2

    async def run() -> None:
        host = Host(tmp_path)
        host.role = replace(host.role, announce=timedelta(0))
        if witnessed:
            host.ask_for_a_witness()
        async with host.running() as (journal, shards):
            await shards.look()
            assert journal.health()["clock"] is None
            if not restarted:
                host.clock.wrong = wrong
                await wrong_clock(host, journal, shards)
        if restarted:
            host.clock.wrong, host.clock.boot = wrong, "b"
            async with host.running() as (journal, shards):
                await wrong_clock(host, journal, shards)
        host.clock.wrong = timedelta(0)
        async with host.running() as (journal, shards):
            await several_looks(journal, shards)
            assert untouched(host, journal)
            assert journal.health()["clock"] is None
            host.clock.at = NEW_YEAR + BEHIND
            await shards.look()
            if witnessed:
                assert not journal.log(OLD).closed
                await sign(journal, OLD)
                await cosign_at(journal, host.clock.at)
            await shards.look()  # the first one opened the new log
            assert kinds(journal, OLD) == [Kind.LOG_OPENED, Kind.WRITE, Kind.WRITE, Kind.SHARD_CLOSED]
            await sign(journal, OLD)
            if witnessed:
                await cosign_at(journal, host.clock.at)
            await shards.look()
            assert not host.key.exists()
            assert journal.taking(NEW).origin == journal.taking(OLD).origin == NEW

    asyncio.run(run())


def test_a_year_that_witnesses_watch_is_over_when_they_have_signed_it_and_they_are_asked(tmp_path: Path) -> None:
    """Neither our clock nor our counting replaces them."""

    async def run() -> None:
        host = Host(tmp_path)
        host.ask_for_a_witness()
        async with host.running() as (journal, shards):
            await sign(journal, OLD)
            await cosign_at(journal, NEW_YEAR - timedelta(minutes=20))
            host.clock.at = NEW_YEAR + 5 * BEHIND
            with capture_logs() as told:
                await several_looks(journal, shards)
            assert not journal.log(OLD).closed
            assert host.asked.count(OLD) == 4
            waiting = [one["origin"] for one in told if one["event"] == "journal.year-not-proven"]
            assert waiting == [OLD]  # said once; and the platform, which nobody watches, is closed
            assert journal.log(PLATFORM_OLD).closed
            await cosign_at(journal, NEW_YEAR + BEHIND - timedelta(seconds=1))
            await shards.look()
            assert not journal.log(OLD).closed
            await cosign_at(journal, NEW_YEAR + BEHIND)
            await shards.look()
            assert journal.log(OLD).closed

    asyncio.run(run())


def test_without_witnesses_time_in_which_the_machine_was_off_is_not_certain_until_a_person_says_so(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        host.clock.at, host.clock.boot = NEW_YEAR + timedelta(days=2), "b"  # off since a week before
        async with host.running() as (journal, shards):
            await several_looks(journal, shards)
            assert journal.taking(NEW).origin == NEW  # the new year's log takes entries at once
            assert not journal.log(OLD).closed
            assert host.key.exists()
            give_order(host.role.folder, host.clock(), "petra")
            with capture_logs() as told:
                await shards.look()
            assert "journal.clock-vouched" in {one["event"] for one in told}
            assert not (host.role.folder / ORDER).exists()
            assert journal.log(OLD).closed
            platform = origin_of("test.example", PLATFORM, 2027)
            last = parse_entry(list(journal.read(platform, 0, journal.log(platform).size))[-1])
            opening = parse_opening((host.role.folder / "openings" / f"{last.event}.json").read_bytes())
            assert last.kind is Kind.ADMINISTRATION
            assert opening.detail is not None
            detail = json.loads(opening.detail[1])
            assert (detail["act"], detail["by"]) == ("clock-believed", "petra")

    asyncio.run(run())


def test_without_a_word_it_is_certain_when_as_much_time_was_counted(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        host.clock.at, host.clock.boot = NEW_YEAR + timedelta(days=2), "b"
        async with host.running() as (journal, shards):
            host.clock.at += timedelta(days=7) - BEHIND
            await shards.look()
            assert not journal.log(OLD).closed
            host.clock.at += 2 * BEHIND
            await shards.look()
            assert journal.log(OLD).closed

    asyncio.run(run())


def test_an_order_about_a_clock_that_was_set_since_is_not_obeyed(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            for text in (host.clock().isoformat(), "tomorrow", "2026-12-25T00:00:00", "\N{EM DASH}"):
                (host.role.folder / ORDER).write_text(text)
                host.clock.wrong = YEAR
                with capture_logs() as told:
                    await shards.look()
                assert "journal.clock-order-old" in {one["event"] for one in told}, text
                assert not (host.role.folder / ORDER).exists()
                assert untouched(host, journal)
                host.clock.wrong = timedelta(0)

    asyncio.run(run())


def test_wherever_the_process_dies_an_order_is_obeyed_once_or_waits(tmp_path: Path) -> None:
    async def run() -> None:
        calls, died = 0, True
        while died:
            host = Host(tmp_path / str(calls))
            async with host.running():
                pass
            host.clock.wrong = timedelta(hours=1)
            give_order(host.role.folder, host.clock())
            host.disk = FaultyDisk(dying := Dying(calls))
            with suppress(Error, OSError):
                async with host.running() as (_, shards):
                    await shards.look()
            died = dying.left < 0
            host.disk = FaultyDisk()
            async with host.running() as (journal, shards):
                await shards.look()
                assert journal.health()["clock"] is None
                assert not (host.role.folder / ORDER).exists()
                written = kinds(journal, PLATFORM_OLD)
                assert 1 <= written.count(Kind.ADMINISTRATION) <= 2, calls
            calls += 1
        assert calls > 10

    asyncio.run(run())


def test_a_mark_that_is_damaged_is_said_and_nothing_is_certain(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        (host.role.folder / MARK).write_bytes(b"nonsense")
        with capture_logs() as told:
            async with host.running() as (journal, shards):
                host.clock.at = NEW_YEAR + BEHIND
                await several_looks(journal, shards)
                assert journal.taking(NEW).origin == NEW
                assert not journal.log(OLD).closed
        assert "journal.clock-mark-lost" in {one["event"] for one in told}

    asyncio.run(run())


def test_the_role_takes_entries_of_the_wrong_year_over_its_socket_and_says_what_is_wrong(tmp_path: Path) -> None:
    """The whole role: whoever writes on a machine whose clock is a year ahead writes into the log of this year."""
    wrong = timedelta(0)
    began = utc_now()

    async def run_it() -> None:
        nonlocal wrong
        host = roles.Host(tmp_path)
        host.role = replace(
            host.role,
            now=lambda: utc_now() + wrong,
            now_us=lambda: to_us(utc_now() + wrong),
            uptime=lambda: Uptime("a", utc_now() - began),
            metrics=f"127.0.0.1:{roles.free_port()}",
        )
        async with host.running() as client:
            assert (await host.health())["clock"] is None
            for wrong in (YEAR, -YEAR):
                there = origin_of("test.example", KASSE, (utc_now() + wrong).year)
                now = utc_now() + wrong
                entry = Entry(Kind.WRITE, Result.GRANTED, Purpose.OPERATION, now, new_event(now)).encode()
                size = (await host.health())["logs"][host.origin]["durable"]
                assert await client.append_many(there, [entry]) == range(size, size + 1)
                assert await client.current(there) == host.origin
                with pytest.raises(UnknownLogError):
                    await client.append(there, entry)  # who names a log exactly, as the vault does, is told
                assert set((await host.health())["logs"]) == {host.origin, host.platform}
                assert "Whoever runs this machine" in (await host.health())["clock"]
                assert "schleuse_journal_clock_doubted 1.0" in await asyncio.to_thread(metrics, host)
            wrong = timedelta(0)
            assert (await host.health())["clock"] is None
            assert "schleuse_journal_clock_doubted 0.0" in await asyncio.to_thread(metrics, host)
            with pytest.raises(UnknownLogError):
                await client.append_many("journal.test.example/somebody-else/2026", [roles.entry()])

    asyncio.run(run_it())


def metrics(host: roles.Host) -> str:
    for _ in range(1000):  # its port is opened a moment after the one of the pages
        with suppress(urllib.error.URLError), urllib.request.urlopen(f"http://{host.role.metrics}/metrics") as answer:
            text: str = answer.read().decode()
            return text
        time.sleep(0.01)
    raise AssertionError("no metrics within 10 s")
