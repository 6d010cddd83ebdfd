"""Entries of roles that go on without the journal: recorded first, sent when it is there, each once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schleuse.errors import UnavailableError
from schleuse.journal.contracts import EventReusedError, JournalUnavailableError
from schleuse.journal.entry import Kind, Purpose, Result, parse_entry
from schleuse.journal.opening import detail_commitment
from schleuse.processes import trail
from schleuse.processes.trail import PLATFORM, Act, Trail, TrailDamagedError

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


class FakeJournal:
    """Keeps what it is given by event; fails before or after the effect as often as told."""

    def __init__(self) -> None:
        self.logs: dict[str, dict[bytes, bytes]] = {}
        self.fail_before = 0
        self.fail_after = 0

    async def append_many(self, origin: str, entries: Sequence[bytes]) -> Sequence[int]:
        if self.fail_before:
            self.fail_before -= 1
            raise JournalUnavailableError("off")
        log = self.logs.setdefault(origin, {})
        for entry in entries:
            if log.get(entry[16:32], entry) != entry:
                raise EventReusedError("taken")
        log.update({entry[16:32]: entry for entry in entries})
        if self.fail_after:
            self.fail_after -= 1
            raise JournalUnavailableError("died")
        return range(len(entries))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def a_trail(folder: Path, journal: FakeJournal, clock: Clock) -> Trail:
    return Trail(folder, "kim", journal, lambda tenant, year: f"{tenant}/{year}", clock)


def login(who: str = "eau@kasse") -> Act:
    return Act("109900011", Kind.LOGIN, Result.GRANTED, Purpose.OPERATION, who, {"peer": "127.0.0.1"})


def test_an_act_becomes_an_entry_whose_opening_is_in_the_file(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    trail.tell(login())
    assert asyncio.run(trail.send()) == 1
    (entry,) = map(parse_entry, journal.logs["109900011/2026"].values())
    (line,) = map(json.loads, (tmp_path / "kim-2026.jsonl").read_text().splitlines())
    assert (entry.kind, entry.result, entry.at) == (Kind.LOGIN, Result.GRANTED, NOON)
    assert entry.detail == detail_commitment(bytes.fromhex(line["salt"]), line["detail"].encode())
    assert json.loads(line["detail"])["who"] == "eau@kasse"
    assert b"kasse" not in entry.encode()


def test_an_actor_has_another_pseudonym_in_each_log(tmp_path: Path) -> None:
    """journal.md § 4: of each tenant and year; whoever sees two logs cannot say that it was the same."""
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    for days in (0, 0, 366):
        clock.now = NOON + timedelta(days=days)
        trail.tell(login())
    for _ in range(3):  # the old year's, on to the new one, its own
        asyncio.run(trail.send())
    actors = [parse_entry(one).actor for log in journal.logs.values() for one in log.values()]
    assert len(actors) == 3
    assert len(set(actors)) == 2


def test_nothing_is_lost_while_the_journal_is_off_nor_by_a_restart(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    journal.fail_before = 1
    trail = a_trail(tmp_path, journal, clock)
    trail.tell(login())
    with pytest.raises(JournalUnavailableError):
        asyncio.run(trail.send())
    clock.now += timedelta(hours=2)
    again = a_trail(tmp_path, journal, clock)
    again.tell(login())
    assert asyncio.run(again.send()) == 2
    first, _ = map(parse_entry, journal.logs["109900011/2026"].values())
    assert first.at == clock.now, "the journal takes no old time; the detail record has the true one"
    assert asyncio.run(again.send()) == 0


@pytest.mark.parametrize("pause", [timedelta(0), timedelta(minutes=5)])
def test_what_was_sent_before_a_crash_is_not_there_twice(tmp_path: Path, pause: timedelta) -> None:
    journal, clock = FakeJournal(), Clock()
    journal.fail_after = 1
    trail = a_trail(tmp_path, journal, clock)
    for number in range(5):
        trail.tell(login(f"user {number}"))
    with pytest.raises(JournalUnavailableError):
        asyncio.run(trail.send())
    clock.now += pause
    again = a_trail(tmp_path, journal, clock)
    again.tell(login("another"))
    assert asyncio.run(again.send()) == 6
    assert len(journal.logs["109900011/2026"]) == 6


def test_the_same_name_has_one_pseudonym_within_a_tenant_only(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    for tenant in ("109900011", PLATFORM, "109900011"):
        trail.tell(Act(tenant, Kind.LOGIN, Result.GRANTED, Purpose.OPERATION, "somebody"))
    asyncio.run(trail.send())
    one, same = (parse_entry(entry).actor for entry in journal.logs["109900011/2026"].values())
    (other,) = (parse_entry(entry).actor for entry in journal.logs["platform/2026"].values())
    assert one == same != other
    asyncio.run(trail.send())
    reopened = a_trail(tmp_path, journal, clock)
    reopened.tell(Act(PLATFORM, Kind.LOGIN, Result.GRANTED, Purpose.OPERATION, "somebody"))
    asyncio.run(reopened.send())
    assert {parse_entry(entry).actor for entry in journal.logs["platform/2026"].values()} == {other}


def test_a_year_ends_with_what_was_told_in_it(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    trail.tell(login("old"))
    clock.now = datetime(2027, 1, 1, tzinfo=UTC)
    trail.tell(login("new"))
    for _ in range(3):
        asyncio.run(trail.send())
    assert len(journal.logs["109900011/2027"]) == 2, "the old year's log is closed"
    assert (tmp_path / "kim-2026.jsonl").exists()


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    trail.tell(login())
    whole = (tmp_path / "kim-2026.jsonl").read_bytes()
    with (tmp_path / "kim-2026.jsonl").open("ab") as file:
        file.write(whole[:40])
    assert asyncio.run(trail.send()) == 1
    assert asyncio.run(trail.send()) == 0


def test_a_line_cut_by_a_full_disk_is_taken_away_at_the_next_start(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    trail.tell(login())
    with (tmp_path / "kim-2026.jsonl").open("ab") as file:
        file.write(b'{"tenant": "10')
    again = a_trail(tmp_path, journal, clock)
    again.tell(login())
    assert asyncio.run(again.send()) == 2


@pytest.mark.parametrize("whole", [b"", b'{"whole": 1}\n'])
def test_of_a_long_torn_line_nothing_is_left(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "rolle-2026.jsonl"
    path.write_bytes(whole + b"x" * (3 * trail.BLOCK + 7))
    trail._take_torn_line_away(path)
    assert path.read_bytes() == whole


def test_an_act_that_cannot_be_recorded_is_said(tmp_path: Path) -> None:
    trail = a_trail(tmp_path, FakeJournal(), Clock())
    (tmp_path / "kim-2026.jsonl").mkdir()
    with pytest.raises(UnavailableError, match=r"kim-2026\.jsonl cannot be written"):
        trail.tell(login())


def test_a_damaged_line_stops_and_is_named(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    trail = a_trail(tmp_path, journal, clock)
    (tmp_path / "kim-2026.jsonl").write_bytes(b"{ nonsense\n")
    with pytest.raises(TrailDamagedError, match=r"kim-2026\.jsonl is damaged after octet 0"):
        asyncio.run(trail.send())


def test_derived_entries_follow_a_cursor_that_survives(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    source = a_trail(tmp_path / "source", FakeJournal(), clock)
    source.tell(login())
    seen: list[int] = []

    def derived(cursor: int) -> tuple[list[tuple[str, bytes]], int]:
        seen.append(cursor)
        return [], max(cursor, 7)

    def made() -> Trail:
        return Trail(tmp_path / "t", "kim", journal, lambda tenant, year: f"{tenant}/{year}", clock, derived=derived)

    asyncio.run(made().send())
    asyncio.run(made().send())
    assert seen == [0, 7]


def test_an_actor_who_cannot_be_noted_down_is_an_act_that_must_not_happen(tmp_path: Path) -> None:
    """So that the same name is not another pseudonym after a restart."""
    trail = a_trail(tmp_path, FakeJournal(), Clock())
    (tmp_path / "kim-actors.json.tmp").mkdir()  # cannot be written
    for _ in range(2):
        with pytest.raises(UnavailableError):
            trail.tell(login())
    (tmp_path / "kim-actors.json.tmp").rmdir()
    trail.tell(login())
    assert "eau@kasse" in (tmp_path / "kim-actors.json").read_text()
    assert len((tmp_path / "kim-2026.jsonl").read_text().splitlines()) == 1


def test_a_position_that_cannot_be_kept_is_waited_for_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    journal = FakeJournal()
    trail = a_trail(tmp_path, journal, Clock())
    trail.tell(login())
    (tmp_path / "kim.json.tmp").mkdir()
    with pytest.raises(UnavailableError):
        asyncio.run(trail.send())
    (tmp_path / "kim.json.tmp").rmdir()
    assert asyncio.run(trail.send()) == 1
    assert len(journal.logs["109900011/2026"]) == 1


def test_a_clock_that_goes_back_over_the_new_year_hides_no_act(tmp_path: Path) -> None:
    journal, clock = FakeJournal(), Clock()
    clock.now = datetime(2027, 1, 1, tzinfo=UTC)
    trail = a_trail(tmp_path, journal, clock)
    trail.tell(login())
    assert asyncio.run(trail.send()) == 1
    clock.now -= timedelta(seconds=2)
    trail.tell(login("praxis"))
    clock.now += timedelta(seconds=5)
    assert asyncio.run(trail.send()) == 1
    assert sum(map(len, journal.logs.values())) == 2
