"""The log of commands: one file an epoch, whoever writes at the same time and wherever a writer dies (SW-05, SW-16)."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.journal.faulty_disk import When, nth
from tests.shutdown.operators import (
    CLOSER,
    NOW,
    OPENERS,
    RIGHTS,
    close,
    closing,
    new_log,
    open_again,
    opening,
    signed,
)
from tests.switch.commands import person
from tests.switch.faulty_disk import STEPS, DyingDisk, FaultySwitchDisk

from schleuse.journal.opening import canonical_json
from schleuse.scopes import ScopeState
from schleuse.switch.documents import NotAuthorisedError, Rights, Role, SignedCommand, sign
from schleuse.switch.log import GENESIS, RefusedCommandError, SwitchLog, SwitchLogError, create_log
from schleuse.switch.standing import standing

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def log(tmp_path: Path) -> SwitchLog:
    return new_log(tmp_path / "log")


def drafts(log: SwitchLog) -> list[str]:
    return [path.name for path in log.folder.iterdir() if path.name.startswith(".")]


def test_epochs_are_counted_and_each_names_the_one_before(log: SwitchLog) -> None:
    accepted = [close(log, "eau", "a"), close(log, "kim", "b"), open_again(log, "eau")]
    assert [one.epoch for one in log.read_all()] == [1, 2, 3]
    previous = [json.loads(one.data)["previous"] for one in accepted]
    assert previous == [GENESIS, accepted[0].digest, accepted[1].digest]
    assert drafts(log) == []


def test_the_same_command_again_has_the_epoch_that_it_has(log: SwitchLog) -> None:
    """SW-16, also where the first one has times that a document cuts to milliseconds."""
    command = replace(closing("eau", "a"), requested_at=NOW.replace(microsecond=123_456))
    first = log.append(signed(command, CLOSER), NOW)
    assert log.append(signed(command, CLOSER), NOW + timedelta(days=1)) == first
    with pytest.raises(RefusedCommandError, match="epoch 1"):
        log.append(signed(replace(command, text="other"), CLOSER), NOW)
    assert len(log.read_all()) == 1


def test_what_was_not_authorised_is_not_appended(log: SwitchLog) -> None:
    for signers in ((("releaser", Role.RELEASER),), (), (("officer", Role.AUDITOR),)):
        with pytest.raises(NotAuthorisedError):
            log.append(signed(closing("eau"), signers), NOW)
    assert log.read_all() == []


def test_a_file_that_nobody_authorised_changes_nothing_and_takes_no_id_away(log: SwitchLog) -> None:
    """SW-04: what counts are the signatures. An id may be known before its command is ordered, such as a drill's."""
    forge(log, 1, signed(closing("all", "a"), (("officer", Role.LEAD),)), value=bytes(64).hex())
    assert log.read_all()[0].fault
    accepted = log.append(signed(closing("eau", "a"), CLOSER), NOW)
    assert (accepted.epoch, accepted.fault) == (2, "")


def test_an_old_opening_counts_once_only(log: SwitchLog) -> None:
    """A replay: the octets of an opening, put behind a later closing with another epoch and time."""
    close(log, "eau", "a")
    opened = open_again(log, "eau")
    assert opened.signed
    close(log, "eau", "b")
    forge(log, 4, opened.signed)
    again = log.read_all()[3]
    assert "accepted before" in again.fault
    rules = [rule for one in log.read_all() if (rule := one.rule)]
    assert {standing(rules, scope).state for scope in opened.signed.command.scopes} == {ScopeState.HOLD}


def test_an_opening_whose_approval_has_ended_is_refused_and_does_not_count(log: SwitchLog) -> None:
    """G-HUMAN; SW-03."""
    order = signed(opening("eau", 0), OPENERS)
    late = NOW + timedelta(hours=4, milliseconds=1)
    with pytest.raises(RefusedCommandError, match="ended"):
        log.append(order, late)
    forge(log, 1, order, at="2026-03-01T16:00:00.001Z")
    assert "ended" in log.read_all()[0].fault


def test_clocks_that_differ_refuse_openings_and_never_a_closing(log: SwitchLog) -> None:
    """SW-01: a closing is never blocked."""
    early = NOW - timedelta(hours=1)
    with pytest.raises(RefusedCommandError, match="clocks"):
        log.append(signed(opening("eau", 0), OPENERS), early)
    assert log.append(signed(closing("eau"), CLOSER), early).epoch == 1


def test_taking_an_operator_away_opens_nothing(log: SwitchLog) -> None:
    """SW-03: the closing of somebody who has left, lost a role or was disabled stays; the openings of one who has
    left the configuration do not count any more, those of one who was disabled in order do."""
    (lead, lead_key), (officer, officer_key) = person("lead", Role.LEAD), person("o", Role.SWITCH_OFFICER)
    releaser, releaser_key = person("r", Role.RELEASER)
    log = SwitchLog(log.folder, Rights([lead, officer, releaser]))
    command = replace(closing("eau", "a"), actor="lead")
    log.append(SignedCommand(command, (sign(command, "lead", Role.LEAD, lead_key),)), NOW)
    opened = replace(opening("kim", 1), actor="o")
    signatures = (
        sign(opened, "o", Role.SWITCH_OFFICER, officer_key),
        sign(opened, "r", Role.RELEASER, releaser_key),
    )
    log.append(SignedCommand(opened, signatures), NOW)
    later = NOW + timedelta(days=1)
    for rights, counts in (
        (Rights([officer, releaser]), [True, True]),
        (Rights([replace(lead, roles=frozenset({Role.AUDITOR})), officer, releaser]), [True, True]),
        (Rights([replace(one, until=later) for one in (lead, officer, releaser)]), [True, True]),
        (Rights([lead, officer]), [True, False]),
    ):
        found = SwitchLog(log.folder, rights).read_all()
        assert [one.rule is not None for one in found] == counts
    assert "no operator" in SwitchLog(log.folder, Rights([officer, releaser])).read_all()[0].remark


@pytest.mark.parametrize(
    "octets", [b"", b"{}", b"\x00" * 100, b"[" * 100_000, b" " * 300_000, "ä".encode("latin-1"), b'{"epoch":2}']
)
def test_an_epoch_that_nobody_can_read_closes_everything(log: SwitchLog, octets: bytes) -> None:
    """SW-02."""
    (log.folder / "0000000001.json").write_bytes(octets)
    [found] = log.read_all()
    assert found.signed is None
    assert found.rule
    assert found.rule.command is None
    assert close(log, "eau").epoch == 2


def test_an_epoch_that_does_not_follow_the_one_before_closes_everything(log: SwitchLog) -> None:
    close(log, "eau", "a")
    forge(log, 2, signed(closing("kim", "b"), CLOSER), previous=GENESIS)
    forge(log, 3, signed(closing("kim", "c"), CLOSER), number=4)
    assert [one.signed is None for one in log.read_all()] == [False, True, True]


def test_a_pipe_in_the_place_of_an_epoch_stops_nobody(log: SwitchLog) -> None:
    os.mkfifo(log.folder / "0000000001.json")
    assert log.read_all()[0].signed is None


def test_what_the_disk_does_not_give_is_an_error_and_no_epoch(log: SwitchLog) -> None:
    (log.folder / "0000000001.json").mkdir()
    with pytest.raises(SwitchLogError, match="epoch 1"):
        log.read_all()
    with pytest.raises(SwitchLogError):
        log.append(signed(opening("eau", 0), OPENERS), NOW)


def test_a_closing_after_what_nobody_can_read_is_accepted_and_closes_everything(log: SwitchLog) -> None:
    """SW-01, SW-02: nobody can say what it follows."""
    close(log, "eau", "a")
    (log.folder / "0000000001.json").rename(log.folder / "first")
    (log.folder / "0000000001.json").mkdir()
    assert close(log, "eau", "b").epoch == 2
    (log.folder / "0000000001.json").rmdir()
    (log.folder / "first").rename(log.folder / "0000000001.json")
    assert [one.signed is None for one in log.read_all()] == [False, True]


def test_a_closing_follows_what_a_copy_has_of_an_epoch_that_nobody_can_read(tmp_path: Path) -> None:
    kept: dict[int, bytes] = {}
    log = SwitchLog(tmp_path / "log", RIGHTS, spare=kept.get)
    create_log(log.folder)
    kept[1] = close(log, "eau", "a").data
    (log.folder / "0000000001.json").unlink()
    (log.folder / "0000000001.json").mkdir()
    assert close(log, "eau", "a").epoch == 1, "the same command again (SW-16)"
    close(log, "eau", "b")
    (log.folder / "0000000001.json").rmdir()
    (log.folder / "0000000001.json").write_bytes(kept[1])
    assert [one.id for one in log.read_all()] == ["a", "b"]


def test_without_a_folder_nothing_is_accepted(tmp_path: Path) -> None:
    log = SwitchLog(tmp_path / "log", RIGHTS)
    assert not log.exists
    assert log.mark() is None
    for act in (log.read_all, lambda: close(log, "eau"), log.inodes):
        with pytest.raises(SwitchLogError):
            act()


def test_everybody_may_read_an_epoch_whatever_the_writers_umask(log: SwitchLog) -> None:
    """A role of another user puts a lost epoch back."""
    before = os.umask(0o077)
    try:
        close(log, "eau")
    finally:
        os.umask(before)
    assert stat.S_IMODE((log.folder / "0000000001.json").stat().st_mode) == 0o644


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("step", STEPS)
def test_wherever_the_disk_fails_there_is_a_whole_epoch_or_none(tmp_path: Path, step: str, when: When) -> None:
    """T-22. The same order again is accepted once (SW-16)."""
    plain = new_log(tmp_path / "log")
    disk = FaultySwitchDisk(nth(step, when), errno.EIO)
    log = SwitchLog(plain.folder, RIGHTS, disk)
    order = signed(closing("eau"), CLOSER)
    with suppress(SwitchLogError):
        log.append(order, NOW)
    found = plain.read_all()
    assert [one.fault for one in found] in ([], [""])
    assert log.append(order, NOW).epoch == 1
    assert len(plain.read_all()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_wherever_a_writer_is_killed_there_is_a_whole_epoch_or_none(tmp_path: Path, step: str, after: bool) -> None:
    log = new_log(tmp_path / "log")
    order = signed(closing("eau"), CLOSER)
    writer = FORK.Process(target=lambda: SwitchLog(log.folder, RIGHTS, DyingDisk(step, after)).append(order, NOW))
    writer.start()
    writer.join(30)
    assert writer.exitcode == -signal.SIGKILL
    assert [one.fault for one in log.read_all()] in ([], [""])
    assert log.append(order, NOW).epoch == 1
    assert len(log.read_all()) == 1


@pytest.mark.slow
def test_processes_that_append_at_once_get_one_epoch_each(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    start = FORK.Barrier(4)

    def write(number: int) -> None:
        start.wait(30)
        for one in range(10):
            close(log, "eau", f"{number}-{one}")

    writers = [FORK.Process(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    found = log.read_all()
    assert [(one.epoch, one.fault) for one in found] == [(epoch, "") for epoch in range(1, 41)]
    assert len({one.id for one in found}) == 40
    assert drafts(log) == []


def test_many_processes_with_the_same_command_get_the_same_epoch(tmp_path: Path) -> None:
    """SW-16: such as two watchers of the same emergency."""
    log = new_log(tmp_path / "log")
    order = signed(closing("eau"), CLOSER)
    start = FORK.Barrier(4)

    def write() -> None:
        start.wait(30)
        os._exit(0 if log.append(order, NOW).epoch == 1 else 1)

    writers = [FORK.Process(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len([one for one in log.read_all() if not one.fault]) == 1


def forge(log: SwitchLog, epoch: int, order: SignedCommand, **change: Any) -> None:
    """A file as `append` writes it, but of whoever may write to the folder."""
    before = log.read_all()[-1].digest if epoch > 1 else GENESIS
    encoded: dict[str, Any] = order.encode()
    if "value" in change:
        encoded["signatures"][0]["value"] = change["value"]
    table = {
        "epoch": change.get("number", epoch),
        "accepted_at": change.get("at", "2026-03-01T12:00:00.000Z"),
        "previous": change.get("previous", before),
        "signed": encoded,
    }
    assert log.restore(epoch, canonical_json(table))


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
