"""Who reads entries leaves an entry himself (RP-07): one an hour, whatever the clock does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.journal.journals import ORIGIN, journal

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
