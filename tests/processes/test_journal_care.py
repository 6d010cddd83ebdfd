"""What an operator sees of the journal, and what is deleted when it is old enough (journal.md § 9.4, § 12.3, § 17)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs
from tests.journal.journals import NOW_US, ORIGIN, OTHER, SEGMENT, WITNESS, config, entry, journal

from schleuse.journal.contracts import BeyondSizeError, Level
from schleuse.journal.entry import Entry, parse_entry
from schleuse.journal.store import Journal
from schleuse.processes.journal_care import FEW_SPARES, QUORUM_LATE, Care, Figures, readiness, years_before

START = datetime.fromtimestamp(NOW_US / 1_000_000, UTC)
YEARS = 3
#: When the period of what was written at START is over.
OVER = START.replace(year=START.year + YEARS)
DAY = timedelta(days=1)


class Host:
    """A journal whose clock is moved by the test, and what the role does beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at = START
        self.signed: dict[str, datetime] = {}  # what others say, where it is not what our clock says
        self.frozen = folder / "retention.frozen"

    def now(self) -> datetime:
        return self.at

    def proven(self, origin: str) -> datetime:
        return self.signed.get(origin, self.at)

    def care(self, opened: Journal) -> Care:
        return Care(opened, self.frozen, YEARS, self.now, self.proven)

    @asynccontextmanager
    async def journal(self, *, witnessed: bool = False) -> AsyncIterator[Journal]:
        logs = (config(witnessed=witnessed), config(OTHER))
        # Tests of the quorum fill no segment: one that is just being replaced would be an alarm of its own.
        size = 1 << 20 if witnessed else SEGMENT

        def now_us() -> int:
            return round(self.at.timestamp() * 1e6)

        async with journal(self.folder, logs=logs, now_us=now_us, segment_size=size) as opened:
            yield opened

    def entry(self, number: int, *, early: timedelta = timedelta(0)) -> bytes:
        whole = parse_entry(entry(number))
        assert isinstance(whole, Entry)
        return replace(whole, at=self.at - early).encode()


async def sign(opened: Journal, origin: str = ORIGIN) -> None:
    opened.tick()
    await opened.wait(origin, opened.log(origin).size, Level.PUBLISHED, 5)


async def cosign(opened: Journal) -> None:
    signed = opened.log(ORIGIN).signed
    assert signed is not None
    line = WITNESS.cosign(signed.checkpoint, 1_800_000_000)
    await opened.add_cosignature(ORIGIN, signed.note.with_lines([line]).encode())


def figures(opened: Journal) -> str:
    registry = CollectorRegistry()
    registry.register(Figures(opened))
    return generate_latest(registry).decode()


# -- readiness and figures ---------------------------------------------------------------------------------------


def test_a_journal_in_quarantine_says_why_and_its_figure_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with Host(tmp_path).journal() as opened:
            assert readiness(opened) is True
            assert "schleuse_journal_quarantined 0.0" in figures(opened)
            opened.stop(["w cosigned size 12", "another root"])
            assert readiness(opened) == "w cosigned size 12; another root"
            assert "schleuse_journal_quarantined 1.0" in figures(opened)

    asyncio.run(run())


def test_a_journal_that_is_closed_is_not_ready(tmp_path: Path) -> None:
    async def run() -> None:
        async with Host(tmp_path).journal() as opened:
            pass
        assert readiness(opened) == "STOPPED"

    asyncio.run(run())


def test_figures_show_how_far_each_level_of_each_log_is(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal(witnessed=True) as opened:
            await opened.append_many(ORIGIN, [host.entry(i) for i in range(3)])
            await sign(opened)
            await cosign(opened)
            await opened.prune(ORIGIN, 1)
            await opened.append(ORIGIN, host.entry(3))
            await sign(opened)
            await opened.append(ORIGIN, host.entry(4))
            text = figures(opened)
            for level, size in (("durable", 5), ("published", 4), ("witnessed", 3), ("minimum", 1)):
                assert f'schleuse_journal_entries{{level="{level}",log="{ORIGIN}"}} {size}.0' in text
            assert f'schleuse_journal_entries{{level="durable",log="{OTHER}"}} 0.0' in text
            assert "schleuse_journal_pending 0.0" in text
            assert "schleuse_journal_spare_segments 4.0" in text

    asyncio.run(run())


# -- alarms ------------------------------------------------------------------------------------------------------


def test_a_quorum_that_stays_away_for_fifteen_minutes_is_an_alarm_until_it_comes(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal(witnessed=True) as opened:
            care = host.care(opened)
            await opened.append(ORIGIN, host.entry(0))
            await sign(opened)
            assert care.look() == []
            host.at += QUORUM_LATE
            assert care.look() == []
            host.at += timedelta(seconds=1)
            with capture_logs() as told:
                assert care.look() == [f"no-quorum {ORIGIN}"]
            assert told == [
                {"event": "journal.no-quorum", "log_level": "error", "origin": ORIGIN, "witnessed": 0, "published": 1}
            ]
            await cosign(opened)
            assert care.look() == []

    asyncio.run(run())


def test_a_quorum_that_comes_but_never_for_the_newest_is_no_alarm(tmp_path: Path) -> None:
    """Witnesses may be one checkpoint behind for ever; what counts is that the witnessed size still grows."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal(witnessed=True) as opened:
            care = host.care(opened)
            for number in range(4):
                await opened.append(ORIGIN, host.entry(number))
                await sign(opened)
                await cosign(opened)
                await opened.append(ORIGIN, host.entry(100 + number))
                await sign(opened)
                assert care.look() == []
                host.at += QUORUM_LATE - timedelta(seconds=1)

    asyncio.run(run())


def test_the_first_entry_after_a_quiet_night_has_its_full_quarter_of_an_hour(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal(witnessed=True) as opened:
            care = host.care(opened)
            await opened.append(ORIGIN, host.entry(0))
            await sign(opened)
            await cosign(opened)
            assert care.look() == []
            host.at += timedelta(hours=8)
            assert care.look() == []
            await opened.append(ORIGIN, host.entry(1))
            await sign(opened)
            host.at += timedelta(minutes=1)
            assert care.look() == []

    asyncio.run(run())


def test_too_few_spare_segments_are_an_alarm(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            care = host.care(opened)
            assert care.look() == []
            number = 0
            while opened.health()["spare_segments"] >= FEW_SPARES:
                await opened.append(ORIGIN, host.entry(number))
                number += 1
            assert care.look() == ["few-spares"]

    asyncio.run(run())


# -- deletion ----------------------------------------------------------------------------------------------------


def test_only_what_is_older_than_the_period_is_deleted(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            care = host.care(opened)
            for number in range(10):  # one a day
                await opened.append(ORIGIN, host.entry(number))
                host.at += DAY
            await sign(opened)
            assert await care.prune() == {}
            host.at = OVER + 4 * DAY + timedelta(hours=1)
            with capture_logs() as told:
                assert await care.prune() == {ORIGIN: 5}
            assert told == [{"event": "journal.pruned", "log_level": "info", "origin": ORIGIN, "minimum": 5}]
            assert next(parse_entry(one).at for one in opened.read(ORIGIN, 5, 10)) == START + 5 * DAY
            with pytest.raises(BeyondSizeError):
                opened.read(ORIGIN, 4, 5)
            assert await care.prune() == {}
            host.at += DAY
            assert await care.prune() == {ORIGIN: 6}

    asyncio.run(run())


def test_a_clock_that_was_two_minutes_behind_takes_no_younger_neighbour_along(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            care = host.care(opened)
            await opened.append(ORIGIN, host.entry(0))
            await opened.append(ORIGIN, host.entry(1, early=timedelta(minutes=2)))
            await sign(opened)
            host.at = OVER
            assert await care.prune() == {}
            host.at += timedelta(minutes=2)
            assert await care.prune() == {}
            host.at += timedelta(seconds=1)
            assert await care.prune() == {ORIGIN: 2}

    asyncio.run(run())


def test_a_clock_that_is_a_year_ahead_deletes_nothing_whose_period_is_not_proven_to_be_over(tmp_path: Path) -> None:
    """Decision 0022: each log goes by what is certain for it."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            care = host.care(opened)
            for origin in (ORIGIN, OTHER):
                await opened.append(origin, host.entry(0))
                await sign(opened, origin)
            host.at, host.signed[ORIGIN] = OVER + DAY, START + DAY
            assert await care.prune() == {OTHER: 1}
            assert len(list(opened.read(ORIGIN, 0, 1))) == 1
            host.signed[ORIGIN] = OVER + timedelta(seconds=121)
            assert await care.prune() == {ORIGIN: 1}
            host.signed[ORIGIN] = OVER + 5000 * DAY  # what others sign never deletes more than our own clock allows
            assert await care.prune() == {}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("now", "before"), [("2028-03-01", "2025-03-01"), ("2028-02-29", "2025-02-28"), ("2031-02-28", "2028-02-28")]
)
def test_three_years_are_calendar_years_with_or_without_a_leap_day(now: str, before: str) -> None:
    assert years_before(datetime.fromisoformat(now), 3) == datetime.fromisoformat(before)


def test_a_log_that_is_opened_meanwhile_does_not_stop_the_deletion(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            for origin in (ORIGIN, OTHER):
                await opened.append(origin, host.entry(0))
                await sign(opened, origin)
            host.at = OVER + DAY
            deletion = asyncio.create_task(host.care(opened).prune())
            await asyncio.sleep(0)
            opened.open_log("journal.example/kasse-a/2030")
            assert await deletion == {ORIGIN: 1, OTHER: 1}

    asyncio.run(run())


def test_what_no_served_checkpoint_covers_stays_however_old(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal(witnessed=True) as opened:
            care = host.care(opened)
            await opened.append_many(ORIGIN, [host.entry(i) for i in range(3)])
            await sign(opened)
            host.at = OVER + 366 * DAY
            assert await care.prune() == {}
            await cosign(opened)
            assert await care.prune() == {ORIGIN: 3}

    asyncio.run(run())


def test_while_the_frozen_file_is_there_nothing_is_deleted_and_it_is_said(tmp_path: Path) -> None:
    """SW-12: an order to keep everything, for instance of a court, wins over the period."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            care = host.care(opened)
            await opened.append(ORIGIN, host.entry(0))
            await sign(opened)
            host.at = OVER + 366 * DAY
            host.frozen.touch()
            with capture_logs() as told:
                assert await care.prune() == {}
            assert [one["event"] for one in told] == ["journal.prune-frozen"]
            assert len(list(opened.read(ORIGIN, 0, 1))) == 1
            host.frozen.unlink()
            assert await care.prune() == {ORIGIN: 1}

    asyncio.run(run())


def test_a_journal_in_quarantine_deletes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            await opened.append(ORIGIN, host.entry(0))
            await sign(opened)
            host.at = OVER + 366 * DAY
            opened.stop(["w cosigned size 12"])
            assert await host.care(opened).prune() == {}
            assert len(list(opened.read(ORIGIN, 0, 1))) == 1

    asyncio.run(run())


def test_entries_of_a_clock_that_was_behind_take_no_younger_one_along(tmp_path: Path) -> None:
    """Their times are of years ago, and those of the entries before them are not (decision 0023)."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            for number in range(30):
                behind = 900 * DAY if 10 <= number < 20 else timedelta(0)
                host.at -= behind
                await opened.append(ORIGIN, host.entry(number))
                host.at += behind + DAY
            await sign(opened)
            host.at = OVER + 5 * DAY + timedelta(hours=1)
            assert await host.care(opened).prune() == {ORIGIN: 6}
            host.at = OVER + 12 * DAY + timedelta(hours=1)  # day 10 to 19 by their own times is long ago
            assert await host.care(opened).prune() == {ORIGIN: 20}

    asyncio.run(run())


def test_a_log_whose_name_ends_in_no_year_stays_and_keeps_no_other_from_being_deleted(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.journal() as opened:
            opened.open_log("journal.other/x/abc")
            await opened.append(ORIGIN, host.entry(0))
            await sign(opened)
            host.at = OVER + DAY
            assert await host.care(opened).prune() == {ORIGIN: 1}

    asyncio.run(run())
