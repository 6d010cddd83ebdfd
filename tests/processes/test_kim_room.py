"""The disk of the mail role as the capacity ladder sees it (HD-28)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schleuse.clock import utc_now
from schleuse.config import Config, read_config
from schleuse.environment import Environment
from schleuse.holding.capacity import Level
from schleuse.identifiers import IK
from schleuse.mail.spool import OsDisk
from schleuse.processes.home import NewHome, NewInsurer, create_home
from schleuse.processes.injection import DISK_ROOM, BadInjectionError, injected_disk
from schleuse.processes.kim_room import Room


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room") / "home"
    insurers = [NewInsurer(IK("109900011"), "Kasse", "kasse")]
    create_home(folder, NewHome(Environment.TEST, "kim.test.kim.telematik-test", insurers, []), utc_now())
    return folder


@pytest.fixture
def config(home: Path) -> Config:
    return read_config(home)


class FakeDisk(OsDisk):
    """free: of 1000 MiB; None: it does not answer."""

    def __init__(self, free: int | None) -> None:
        self.free = free
        self.asked = 0

    def room(self, path: Path) -> tuple[int, int]:
        self.asked += 1
        if self.free is None:
            raise OSError(5, "Input/output error")
        return self.free << 20, 1000 << 20


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_the_role_is_not_ready_when_its_disk_is_full(config: Config) -> None:
    assert Room(config, FakeDisk(60)).shortage() == ""
    assert Room(config, FakeDisk(40)).shortage() == "40 MiB are free for the spool, 50 must stay free"


def test_the_operator_says_how_much_of_the_disk_stays_free(config: Config) -> None:
    own = config.model_copy(update={"kim": config.kim.model_copy(update={"min_free_octets": 100 << 20})})
    assert Room(own, FakeDisk(60)).shortage() == "60 MiB are free for the spool, 100 must stay free"


def test_the_room_on_the_disk_is_a_figure_before_it_is_trouble(config: Config) -> None:
    octets, percent = Room(config, FakeDisk(145)).collect()
    assert {one.labels["which"]: one.value for one in octets.samples} == {"free": 145 << 20, "total": 1000 << 20}
    assert [round(one.value) for one in percent.samples] == [90]


def test_a_disk_that_does_not_answer_gives_no_figure_and_changes_no_level(config: Config) -> None:
    disk, clock = FakeDisk(60), Clock()
    room = Room(config, disk, clock)
    assert room.level() is Level.LETTERS_WAIT
    disk.free, clock.at = None, 10.0
    assert room.level() is Level.LETTERS_WAIT
    assert "does not answer" in room.shortage()
    assert [family.samples for family in room.collect()] == [[], []]


def test_the_disk_is_asked_once_a_second_however_many_recipients_come(config: Config) -> None:
    disk, clock = FakeDisk(900), Clock()
    room = Room(config, disk, clock)
    assert [room.level() for _ in range(100)] == [Level.PLENTY] * 100
    disk.free, clock.at = 60, 1.0
    assert (room.level(), disk.asked) == (Level.LETTERS_WAIT, 2)


def test_letters_are_taken_again_when_there_is_room(config: Config) -> None:
    disk, clock = FakeDisk(60), Clock()
    room = Room(config, disk, clock)
    room.level()
    disk.free, clock.at = 500, 2.0
    assert room.level() is Level.PLENTY


def test_with_postgresql_its_own_monitoring_knows(config: Config) -> None:
    kim = config.kim.model_copy(update={"database": "postgresql+psycopg://x"})
    room = Room(config.model_copy(update={"kim": kim}), FakeDisk(0))
    assert (room.level(), room.shortage()) == (Level.PLENTY, "")


def test_what_is_kept_from_us_is_neither_free_nor_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of 252 blocks with 79 used, of which we may have 14 more, is filled by 85 % as `df` says, not by 94 %."""
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 252, 173, 14, *real[5:])))
    assert OsDisk().room(tmp_path) == (14 * 4096, 93 * 4096)


def test_the_room_can_be_ordered_so_that_tests_do_not_depend_on_the_disk_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISK_ROOM, "free:3e9, total:1e11")
    assert injected_disk().room(tmp_path) == (3 * 10**9, 10**11)
    monkeypatch.setenv(DISK_ROOM, "free:3e9,size:1e11")
    with pytest.raises(BadInjectionError, match="only free and total can be said"):
        injected_disk()
