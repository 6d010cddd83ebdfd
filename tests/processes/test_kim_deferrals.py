"""The mail role writes deferred attempts down, also after its database was away."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from tests.mail.fake_faults import Faults

from schleuse.errors import UnavailableError
from schleuse.kim import deferral_notes
from schleuse.kim.deferred import Attempts
from schleuse.kim.store.deferrals import Deferrals
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.smtp_actions import Postponed
from schleuse.processes.kim_deferrals import DeferralDesk

NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
PRACTICE, KASSE = "praxis@a.kim.telematik-test", "eau@kasse.kim.telematik-test"


class MemoryDeferrals:
    """faults: write, count_away."""

    def __init__(self) -> None:
        self.written: list[Attempts] = []
        self.faults = Faults()

    def write(self, attempts: Sequence[Attempts]) -> None:
        with self.faults.around("write"):
            self.written += attempts

    def count_away(self) -> int:
        with self.faults.around("count_away"):
            return len(self.written)


@pytest.fixture
def table() -> MemoryDeferrals:
    return MemoryDeferrals()


@pytest.fixture
def desk(table: MemoryDeferrals, tmp_path: Path) -> DeferralDesk:
    return started(table, tmp_path)


def started(table: MemoryDeferrals, folder: Path) -> DeferralDesk:
    return DeferralDesk(cast(Deferrals, table), lambda address: address, lambda: NOW, folder / "deferred")


def test_what_smtp_deferred_is_written_down(desk: DeferralDesk, table: MemoryDeferrals) -> None:
    desk.postponed(Postponed(PRACTICE, PRACTICE, KASSE, "e1"))
    desk.deferred(Mail(PRACTICE, (Recipient(KASSE),), b"", NOW))
    desk.write()
    assert [(one.sender, one.recipient, one.count) for one in table.written] == [(PRACTICE, KASSE, 2)]


def test_a_database_that_was_away_costs_no_attempt(desk: DeferralDesk, table: MemoryDeferrals) -> None:
    desk.postponed(Postponed(PRACTICE, PRACTICE, KASSE, None))
    table.faults.before("write")
    with pytest.raises(UnavailableError):
        desk.write()
    desk.write()
    assert [one.count for one in table.written] == [1]


def test_how_many_are_still_away_is_a_figure_and_no_fault_when_nobody_knows(
    desk: DeferralDesk, table: MemoryDeferrals
) -> None:
    (family,) = desk.collect()
    assert [one.value for one in family.samples] == [0]
    table.faults.before("count_away")
    (family,) = desk.collect()
    assert family.samples == []


def knock(desk: DeferralDesk, sender: str = PRACTICE, times: int = 1) -> None:
    for _ in range(times):
        desk.postponed(Postponed(sender, sender, KASSE, "e1"))


def test_whoever_knocked_before_a_death_is_known_after_it(table: MemoryDeferrals, tmp_path: Path) -> None:
    """§ 6.8: the list is a query over records; how often somebody knocked in the last second may be too low."""
    desk = started(table, tmp_path)
    knock(desk, times=3)
    knock(desk, "other@a.kim.telematik-test")
    again = started(table, tmp_path)  # the first one died before it wrote
    again.write()
    assert [(one.sender, one.recipient, one.count, one.envid) for one in table.written] == [
        (PRACTICE, KASSE, 1, "e1"),
        ("other@a.kim.telematik-test", KASSE, 1, "e1"),
    ]
    started(table, tmp_path).write()
    assert len(table.written) == 2
    assert list((tmp_path / "deferred").iterdir()) == []


def test_whoever_came_back_before_a_death_is_not_said_to_be_away(table: MemoryDeferrals, tmp_path: Path) -> None:
    desk = started(table, tmp_path)
    knock(desk)
    desk.accepted(Mail(PRACTICE, (Recipient(KASSE),), b"", NOW + timedelta(milliseconds=1)))
    again = started(table, tmp_path)
    again.write()
    [one] = table.written
    assert one.came_back_us is not None
    knock(again)  # and knocked once more
    started(table, tmp_path).write()
    assert table.written[-1].came_back_us is None


@pytest.mark.parametrize("lost", ["before", "after"])
def test_notes_stay_until_the_database_has_them(table: MemoryDeferrals, tmp_path: Path, lost: str) -> None:
    """Also when it only seemed to fail: somebody is rather counted twice than forgotten."""
    desk = started(table, tmp_path)
    knock(desk)
    getattr(table.faults, lost)("write")
    with pytest.raises(UnavailableError):
        desk.write()
    knock(desk, "other@a.kim.telematik-test")
    again = started(table, tmp_path)
    again.write()
    assert {one.sender for one in table.written} == {PRACTICE, "other@a.kim.telematik-test"}
    assert list((tmp_path / "deferred").iterdir()) == []


def test_a_torn_or_foreign_note_hides_no_other(table: MemoryDeferrals, tmp_path: Path) -> None:
    desk = started(table, tmp_path)
    knock(desk)
    [file] = (tmp_path / "deferred").iterdir()
    file.write_bytes(b'[1]\nnull\n{"a": 2}\n\xff\n' + file.read_bytes() + b'["praxis@a.kim.tele')
    started(table, tmp_path).write()
    assert [one.sender for one in table.written] == [PRACTICE]


def test_a_note_that_a_full_disk_has_cut_hides_not_the_next_one(
    table: MemoryDeferrals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, write = started(table, tmp_path), os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
        knock(desk, "cut@a.kim.telematik-test")
    knock(desk)
    started(table, tmp_path).write()
    assert [one.sender for one in table.written] == [PRACTICE]
    assert list((tmp_path / "deferred").iterdir()) == []


def test_without_room_for_notes_all_goes_on_in_memory(table: MemoryDeferrals, tmp_path: Path) -> None:
    (tmp_path / "deferred").write_text("in the way")
    desk = started(table, tmp_path)
    knock(desk, times=2)
    desk.write()
    assert [one.count for one in table.written] == [2]


def test_a_flood_while_the_database_is_away_does_not_fill_the_disk(
    table: MemoryDeferrals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferral_notes, "MAX_LINES", 50)
    desk = started(table, tmp_path)
    for number in range(200):
        knock(desk, f"p{number}@a.kim.telematik-test")
    assert sum(len(one.read_text().splitlines()) for one in (tmp_path / "deferred").iterdir()) == 50
    desk.write()
    assert len(table.written) == 200
    knock(desk)
    assert len(list((tmp_path / "deferred").iterdir())) == 1


def test_two_writers_do_not_take_each_others_notes_away(tmp_path: Path) -> None:
    """At its end the role writes once more, while the write before may still wait for a database that then fails."""
    table = SlowDeferrals()
    desk = started(table, tmp_path)
    knock(desk)

    def write_in_vain() -> None:
        with pytest.raises(UnavailableError):
            desk.write()

    first = threading.Thread(target=write_in_vain)
    first.start()
    assert table.waits.wait(30)
    knock(desk, "other@a.kim.telematik-test")
    last = threading.Thread(target=desk.write)
    last.start()
    last.join(0.2)  # waits for the other; one that does not would be through
    table.goes_on.set()
    first.join(30)
    last.join(30)
    started(table, tmp_path).write()
    assert {one.sender for one in table.written} == {PRACTICE, "other@a.kim.telematik-test"}


class SlowDeferrals(MemoryDeferrals):
    """Its first write waits, and then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.goes_on = threading.Event(), threading.Event()

    def write(self, attempts: Sequence[Attempts]) -> None:
        if not self.waits.is_set():
            self.waits.set()
            self.goes_on.wait(30)
            raise UnavailableError("the database has gone")
        super().write(attempts)
