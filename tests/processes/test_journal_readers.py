"""Who reads entries leaves an entry himself (RP-07): one an hour, whatever the clock does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.journal.journals import ORIGIN, OTHER, journal

from schleuse.clock import to_us
from schleuse.journal.entry import Kind, parse_entry
from schleuse.processes.journal import Readers
from schleuse.processes.pseudonyms import Pseudonyms

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


def reads(folder: Path, *moments: timedelta) -> int:
    """How many entries one reader leaves who reads at these moments, in their order."""

    async def run() -> int:
        at = NOON
        async with journal(folder, now_us=lambda: to_us(at)) as opened:
            readers = Readers(Pseudonyms(folder / "readers.json"), opened, lambda: at, lambda origin: origin)
            for moment in moments:
                at = NOON + moment
                await readers.told(ORIGIN, "192.0.2.1")
            found = [parse_entry(one) for one in opened.read(ORIGIN, 0, opened.log(ORIGIN).size)]
            assert {one.kind for one in found} == {Kind.READ}
            return len(found)

    return asyncio.run(run())


def test_a_reader_leaves_an_entry_an_hour(tmp_path: Path) -> None:
    assert reads(tmp_path, timedelta(0), timedelta(minutes=59), timedelta(minutes=60), timedelta(minutes=61)) == 2


def test_a_clock_that_was_ahead_and_is_put_right_hides_no_reader(tmp_path: Path) -> None:
    """Until it has caught up, which may be months later, nobody else would have left a trace either."""
    assert reads(tmp_path, timedelta(days=60), timedelta(0), timedelta(minutes=30)) == 2


def test_nobody_can_say_that_readers_of_two_logs_are_the_same(tmp_path: Path) -> None:
    """journal.md § 4: pseudonyms are assigned per tenant and shard."""

    async def run() -> None:
        async with journal(tmp_path, now_us=lambda: to_us(NOON)) as opened:
            readers = Readers(Pseudonyms(tmp_path / "readers.json"), opened, lambda: NOON, lambda origin: origin)
            actors = set()
            for origin in (ORIGIN, OTHER):
                await readers.told(origin, "192.0.2.1")
                actors |= {parse_entry(one).actor for one in opened.read(origin, 0, 1)}
            assert len(actors) == 2

    asyncio.run(run())
