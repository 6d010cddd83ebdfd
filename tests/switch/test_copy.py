"""A role's own copy: what it knows survives everything, and what it cannot know holds (SW-02, SW-04, T-03, T-22)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journal.faulty_disk import When, nth
from tests.shutdown.operators import CLOSER, NOW, OPENERS, RIGHTS, Clock, close, closing, new_log, open_again, signed
from tests.switch.commands import open_to
from tests.switch.faulty_disk import DyingDisk, FaultySwitchDisk

from schleuse.journal.opening import Json, canonical_json
from schleuse.scopes import NONE, Direction, ScopeState, Service
from schleuse.switch.copy import ClosedSwitch, LocalSwitch, Switch
from schleuse.switch.copy_file import CopyDamagedError, read_copy
from schleuse.switch.disk import SwitchDisk
from schleuse.switch.log import SwitchLog

FORK = multiprocessing.get_context("fork")
HOLD, OPEN, DEFER = ScopeState.HOLD, ScopeState.OPEN, ScopeState.DEFER
IK = "109500969"


class Site:
    """A log and the copy of one role."""

    def __init__(self, folder: Path) -> None:
        self.log = new_log(folder / "log")
        self.copy = folder / "copies" / "kim.json"
        self.clock = Clock()

    def switch(self, floor: int = 0, disk: SwitchDisk | None = None) -> LocalSwitch:
        """As the role has it after a start."""
        return LocalSwitch(SwitchLog(self.log.folder, RIGHTS), self.copy, self.clock, floor=floor, disk=disk)

    def path(self, epoch: int) -> Path:
        return self.log.folder / f"{epoch:010d}.json"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def eau(switch: Switch) -> ScopeState:
    return switch.standing(Service.EAU_INTAKE, IK, Direction.PROCESS).state


def kim(switch: Switch) -> ScopeState:
    return switch.standing(Service.KIM_MAIL, NONE, Direction.ACCEPT).state


def test_a_role_sees_each_epoch_at_its_next_unit_of_work(site: Site) -> None:
    """§ 5.2: t_state."""
    switch = site.switch()
    assert (eau(switch), switch.epoch, switch.safe) == (OPEN, 0, "")
    close(site.log, "eau")
    assert (eau(switch), kim(switch), switch.epoch) == (HOLD, OPEN, 1)
    open_again(site.log, "eau")
    assert (eau(switch), switch.epoch) == (OPEN, 2)


def test_a_restart_comes_up_in_the_last_commanded_state(site: Site) -> None:
    """SW-02, T-03; also without the log."""
    site.switch()
    close(site.log, "eau", state=DEFER)
    site.switch()
    assert (eau(site.switch()), site.switch().epoch) == (DEFER, 1)
    shutil.rmtree(site.log.folder)
    assert (eau(site.switch()), kim(site.switch()), site.switch().epoch) == (DEFER, OPEN, 1)
    assert site.switch().safe == ""


def test_losing_the_log_while_running_opens_nothing(site: Site) -> None:
    """SW-04."""
    close(site.log, "eau")
    switch = site.switch()
    shutil.rmtree(site.log.folder)
    assert (eau(switch), kim(switch), switch.safe) == (HOLD, OPEN, "")


@pytest.mark.parametrize("lost", [(1,), (2,), (3,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("running", [True, False])
def test_a_log_that_was_cut_is_made_whole_again(site: Site, lost: tuple[int, ...], running: bool) -> None:
    """Also in its middle: else the next closing would get a number that everybody has seen already."""
    close(site.log, "eau", "a")
    close(site.log, "kim", "b", DEFER)
    open_again(site.log, "eau")
    switch = site.switch()
    whole = {path.name: path.read_bytes() for path in site.log.folder.iterdir()}
    for epoch in lost:
        site.path(epoch).unlink()
    switch = switch if running else site.switch()
    assert (eau(switch), kim(switch), switch.safe) == (OPEN, DEFER, "")
    assert {path.name: path.read_bytes() for path in site.log.folder.iterdir()} == whole
    close(site.log, "eau", "c")
    assert eau(switch) is HOLD


def test_a_log_that_was_replaced_by_an_empty_one_is_filled_again(site: Site) -> None:
    close(site.log, "eau")
    switch = site.switch()
    site.log.folder.rename(site.log.folder.with_name("old"))
    site.log.folder.mkdir()
    assert (eau(switch), len(site.log.read_all())) == (HOLD, 1)


@pytest.mark.parametrize("running", [True, False])
def test_a_log_that_was_rewritten_is_not_believed_until_two_persons_open(site: Site, running: bool) -> None:
    """SW-02: a forged history cannot open, and it is told."""
    close(site.log, "eau", "a")
    switch = site.switch()
    other = new_log(site.log.folder.with_name("other"))
    close(other, "kim", "b")
    os.replace(other.folder / "0000000001.json", site.path(1))
    switch = switch if running else site.switch()
    assert (eau(switch), kim(switch)) == (HOLD, HOLD)
    assert "epoch 1" in switch.safe
    assert site.switch().safe == switch.safe  # the mark survives
    # The true log comes back: nothing opens by this, two persons do.
    site.path(1).write_bytes(read_copy(site.copy).raws[0])
    again = site.switch()
    assert (eau(again), kim(again)) == (HOLD, HOLD)
    site.log.append(signed(open_to("kim_mail", 1), OPENERS), NOW)
    assert (eau(again), kim(again)) == (HOLD, OPEN)


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", b"0" * 64 + b"\n{}", b'd\n{"entries":[],"safe":{}}', b"\xff" * 500, b"x y", b"x y\n"],
    ids=range(7),
)
def test_a_copy_that_cannot_be_read_holds_until_two_persons_open(site: Site, damage: bytes) -> None:
    """SW-02: unknown is HOLD, also after the next restart."""
    close(site.log, "eau")
    open_again(site.log, "eau")
    site.switch()
    site.copy.write_bytes(damage)
    switch = site.switch()
    assert (eau(switch), kim(switch), switch.epoch) == (HOLD, HOLD, 2)
    assert "damaged" in site.switch().safe
    assert switch.standing(Service.EAU_INTAKE, IK, Direction.PROCESS).reason == "security_hold"
    open_again(site.log, "eau", "again")
    assert (eau(switch), kim(switch)) == (OPEN, HOLD)


def test_a_copy_of_a_directory_or_without_rights_holds(site: Site) -> None:
    site.copy.mkdir(parents=True)
    assert eau(site.switch()) is HOLD


def test_with_neither_log_nor_copy_everything_is_held(tmp_path: Path) -> None:
    switch = LocalSwitch(SwitchLog(tmp_path / "none", RIGHTS), tmp_path / "copy.json", Clock())
    assert (eau(switch), switch.safe != "") == (HOLD, True)


def test_a_database_that_has_seen_more_than_the_switch_holds_everything(site: Site) -> None:
    """SW-02, SW-06: a home put back from a backup. Openings of before do not count either, whatever their number."""
    close(site.log, "eau", "a")
    open_again(site.log, "eau")
    switch = site.switch(floor=4)
    assert (eau(switch), kim(switch)) == (HOLD, HOLD)
    open_again(site.log, "eau", "b")
    assert eau(switch) is HOLD
    close(site.log, "eau", "c")  # the numbers must pass what the database has seen
    open_again(site.log, "eau", "d")
    assert (eau(switch), switch.epoch) == (OPEN, 5)


def test_while_a_new_epoch_cannot_be_read_everything_is_held(site: Site) -> None:
    """SW-02: it may well be a closing. When it can be read, it counts as what it is."""
    switch = site.switch()
    close(site.log, "eau")
    moved = site.path(1).rename(site.path(1).with_suffix(".away"))
    site.path(1).mkdir()
    assert (eau(switch), kim(switch), switch.epoch) == (HOLD, HOLD, 0)
    assert "epoch 1" in switch.safe
    site.path(1).rmdir()
    moved.rename(site.path(1))
    site.clock.forward(1)
    assert (eau(switch), kim(switch), switch.epoch, switch.safe) == (HOLD, OPEN, 1, "")


def test_trouble_is_looked_at_again_also_when_the_clock_steps_back(site: Site) -> None:
    switch = site.switch()
    site.path(1).mkdir()
    assert kim(switch) is HOLD
    site.path(1).rmdir()
    site.clock.forward(-3600)
    assert kim(switch) is OPEN


def test_what_cannot_be_put_back_hides_no_new_closing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """SW-04: a role that may not write to the log, or whose disk is full."""
    disk = FaultySwitchDisk()
    log = SwitchLog(site.log.folder, RIGHTS, disk)
    close(site.log, "kim", "a")
    switch = LocalSwitch(log, site.copy, site.clock)
    close(site.log, "kim", "b", DEFER)
    assert kim(switch) is DEFER
    disk.choose = lambda name: When.BEFORE if name == "link" else None
    site.path(1).unlink()
    close_at(site, 3)
    assert eau(switch) is HOLD


def close_at(site: Site, epoch: int) -> None:
    """The next epoch of the whole log, put into one that has a gap."""
    other = new_log(site.log.folder.with_name("whole"))
    for number, data in enumerate(read_copy(site.copy).raws, 1):
        other.restore(number, data)
    close(other, "eau", "c")
    shutil.copy(other.folder / f"{epoch:010d}.json", site.log.folder)


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("step", ["open", "write", "sync", "rename", "sync_directory"])
def test_a_copy_that_cannot_be_written_takes_nothing_from_the_state(site: Site, step: str, when: When) -> None:
    switch = site.switch(disk=FaultySwitchDisk(nth(step, when, 1), errno.ENOSPC))
    close(site.log, "eau")
    assert eau(switch) is HOLD
    again = site.switch()
    assert (eau(again), kim(again), again.safe) == (HOLD, OPEN, "")
    assert [path.name for path in site.copy.parent.iterdir()] == ["kim.json"]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["open", "write", "sync", "rename", "sync_directory"])
@pytest.mark.parametrize("first", [True, False])
def test_a_role_that_is_killed_while_it_writes_its_copy_comes_up_as_commanded(
    site: Site, first: bool, step: str, after: bool
) -> None:
    """SW-02, T-03; while it writes the file anew, and while it writes one epoch to its end."""
    if not first and step in ("rename", "sync_directory"):
        pytest.skip("an epoch is written to the end of the file, which has its name already")
    close(site.log, "kim", "before", DEFER)
    if not first:
        site.switch()
    close(site.log, "eau")
    role = FORK.Process(target=lambda: site.switch(disk=DyingDisk(step, after)))
    role.start()
    role.join(30)
    assert role.exitcode == -signal.SIGKILL
    again = site.switch()
    assert (eau(again), kim(again), again.safe) == (HOLD, DEFER, "")
    assert (read_copy(site.copy).raws, read_copy(site.copy).is_whole) == (
        [one.data for one in site.log.read_all()],
        True,
    )


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("step", ["open", "write", "sync"])
def test_an_epoch_that_cannot_be_added_to_the_copy_is_written_with_the_next(site: Site, step: str, when: When) -> None:
    """Whatever a failed write left at the end of the file."""
    close(site.log, "kim", "a", DEFER)
    site.switch()
    disk = FaultySwitchDisk()
    switch = site.switch(disk=disk)
    disk.choose = nth(step, when, 1)
    close(site.log, "eau", "b")
    assert eau(switch) is HOLD
    disk.choose = lambda _name: None
    open_again(site.log, "eau", "c")
    assert eau(switch) is OPEN
    assert read_copy(site.copy).raws == [one.data for one in site.log.read_all()]


def test_an_epoch_costs_one_line_of_the_copy_and_no_new_file(site: Site) -> None:
    switch = site.switch()
    close(site.log, "eau", "a")
    assert eau(switch) is HOLD
    before, inode = site.copy.read_bytes(), site.copy.stat().st_ino
    close(site.log, "eau", "b")
    assert switch.epoch == 2
    assert site.copy.read_bytes().startswith(before)
    assert (site.copy.stat().st_ino, site.copy.read_bytes().count(b"\n")) == (inode, 3)
    site.switch()  # a start has nothing to write
    assert site.copy.stat().st_ino == inode


def test_the_end_of_a_copy_that_was_torn_is_taken_from_the_log_again(site: Site) -> None:
    """SW-02: the machine died while it was written; at every octet of the line."""
    close(site.log, "kim", "a", DEFER)
    site.switch()
    start = site.copy.stat().st_size
    close(site.log, "eau", "b")
    site.switch()
    whole = site.copy.read_bytes()
    for end in range(start, len(whole), 97):
        site.copy.write_bytes(whole[:end])
        again = site.switch()
        assert (eau(again), kim(again), again.safe) == (HOLD, DEFER, "")
        assert site.copy.read_bytes() == whole


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5_000), st.integers(1, 255))
def test_an_octet_that_is_wrong_holds_everything_or_is_the_end_that_was_torn(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int
) -> None:
    """SW-02: a copy that was changed opens nothing, whether or not the log is there."""
    site = Site(tmp_path_factory.mktemp("site"))
    close(site.log, "kim", "a")
    open_again(site.log, "kim", "b")
    close(site.log, "eau", "c", DEFER)
    site.switch()
    data = bytearray(site.copy.read_bytes())
    where %= len(data)
    data[where] ^= flip
    site.copy.write_bytes(data)
    again = site.switch()
    # What the log says is DEFER and OPEN; whoever doubts it lets nothing begin.
    assert (eau(again), kim(again)) == ((DEFER, HOLD) if again.safe else (DEFER, OPEN))
    assert bool(again.safe) == (where < len(data) - 1)  # the last octet is the end of the last line


def test_a_copy_of_the_first_version_is_read_and_written_anew(site: Site) -> None:
    """An upgrade opens nothing and closes nothing, and keeps the mark of a safe state."""
    close(site.log, "eau", "a")
    raws: list[Json] = [one.data.decode("latin-1") for one in site.log.read_all()]
    mark: dict[str, Json] = {"epoch": 1, "why": "because"}
    for safe, expected in (({}, OPEN), (mark, HOLD)):
        body = canonical_json({"entries": raws, "safe": safe})
        site.copy.parent.mkdir(exist_ok=True)
        site.copy.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        for _ in range(2):
            switch = site.switch()
            assert (eau(switch), kim(switch), switch.safe) == (HOLD, expected, safe.get("why", ""))
            assert read_copy(site.copy).is_whole


def test_a_process_that_finds_the_copy_locked_writes_a_new_one(site: Site) -> None:
    """Nobody waits for another process, and no two write to one place."""
    close(site.log, "eau", "a")
    switch = site.switch()
    with site.copy.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        close(site.log, "kim", "b")
        assert kim(switch) is HOLD
    assert read_copy(site.copy).raws == [one.data for one in site.log.read_all()]


def test_two_processes_may_share_a_copy(site: Site) -> None:
    """Commands of operators do, at the same time."""
    starting = FORK.Barrier(4)

    def start() -> None:
        starting.wait(30)
        for _ in range(20):
            switch = site.switch()
            if switch.epoch < 1 or switch.safe:
                os._exit(1)

    close(site.log, "eau")
    processes = [FORK.Process(target=start) for _ in range(4)]
    for process in processes:
        process.start()
    for number in range(20):  # so that they also write at its end
        close(site.log, "eau", f"c{number}")
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


def test_whoever_sees_an_epoch_sees_its_effect(site: Site) -> None:
    """SW-06: a thread that learns of an epoch raises fences by it, so the state must not be older than the number."""
    switch = site.switch()
    wrong: list[tuple[int, ScopeState]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            epoch, state = switch.epoch, eau(switch)
            if epoch % 2 and state is OPEN and switch.epoch == epoch:
                wrong.append((epoch, state))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        close(site.log, "eau", f"c{number}")
        open_again(site.log, "eau", f"o{number}")
    done.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert switch.epoch == 40


def test_an_emergency_ends_in_the_copy_too(site: Site) -> None:
    """RS-14."""
    switch = site.switch()
    close(site.log, "eau")
    site.log.append(
        signed(open_to("eau_intake", 1, closes_at=NOW.replace(hour=13)), OPENERS),
        NOW,
    )
    assert eau(switch) is OPEN
    site.clock.forward(3600)
    assert (eau(switch), eau(site.switch())) == (HOLD, HOLD)


def test_the_copy_gives_back_what_the_log_had(site: Site) -> None:
    close(site.log, "eau", "a")
    site.path(2).write_bytes(bytes(range(256)))
    site.switch()
    assert read_copy(site.copy).raws == [one.data for one in site.log.read_all()]
    site.copy.write_bytes(b"x")
    with pytest.raises(CopyDamagedError):
        read_copy(site.copy)


def test_what_stands_in_where_no_copy_can_be_had_is_held() -> None:
    switch = ClosedSwitch("why")
    assert (eau(switch), switch.epoch) == (HOLD, 0)


def test_a_command_for_one_insurer_concerns_no_other(site: Site) -> None:
    """T-24."""
    switch = site.switch()
    site.log.append(signed(closing(f"eau/{IK}"), CLOSER), NOW)
    assert eau(switch) is HOLD
    assert switch.standing(Service.EAU_INTAKE, "109900011", Direction.PROCESS).state is OPEN
