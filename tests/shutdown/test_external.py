"""Systems that are not ours: stopped by a closing, started by two persons only, proven by a probe (SW-01, SW-08)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.shutdown.operators import (
    BREAKERS,
    CLOSER,
    KEYS,
    NOW,
    OPENERS,
    RIGHTS,
    Clock,
    close,
    closing,
    new_log,
    open_again,
    opening,
    signed,
)

from schleuse.scopes import Scope, ScopeState
from schleuse.shutdown.closure import Need, Verdict
from schleuse.shutdown.external import (
    Cause,
    ExternalSystem,
    Record,
    RecordBook,
    Runs,
    SystemStandings,
    Wanted,
    needs_of,
    runs,
    wanted,
)
from schleuse.shutdown.external_keeper import LOOK_BEFORE, ExternalKeeper, perform
from schleuse.shutdown.external_start import PURPOSE, StartBook, StartOrder, order_of
from schleuse.shutdown.hooks import Action, Outcome, nothing
from schleuse.shutdown.proofs import claims, proofs
from schleuse.switch.approval import approve
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import Limit, Role
from schleuse.switch.effects import EffectBook
from schleuse.switch.log import SwitchLog, rules_of
from schleuse.switch.standing import Standing, standing

SCOPE = Scope("payments_support")
SYSTEM = ExternalSystem("payments", SCOPE, ("stop",), ("start",), ("probe",), timedelta(seconds=5))


class Machine:
    """A service that runs or not; it can refuse before it acts, and lose the answer after."""

    def __init__(self) -> None:
        self.running = True
        self.stuck = False
        self.lost = False
        self.slow = False
        self.done: list[str] = []

    async def __call__(self, action: Action, step: str, facts: Mapping[str, str], timeout: timedelta) -> Outcome:
        self.done.append(step)
        if step == "probe" and self.slow and timeout <= LOOK_BEFORE:
            return nothing("no end within 1 s")
        if step == "probe":
            return Outcome(0 if self.running else 1, "", "")
        if not self.stuck:
            self.running = step == "start"
        if self.lost:
            raise KeyboardInterrupt  # the process dies here
        return Outcome(0, "", "exit code 0")


def needed_of(system: ExternalSystem, log: SwitchLog, now: datetime) -> list[Need]:
    """What has to be proven of it."""
    rules = rules_of(log.read_all())
    return needs_of([system], lambda scope: standing(rules, scope).at(now))


class Site:
    """A home with one external system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = new_log(folder / "log")
        self.machine = Machine()
        self.clock = Clock()
        self.told: list[Mapping[str, str | int]] = []
        self.restart()

    def restart(self, standings: SystemStandings | None = None) -> None:
        known = standings or SystemStandings(self.log.read_all)
        self.keeper = ExternalKeeper(
            [SYSTEM], known, self.folder, RIGHTS, self.told.append, self.clock, "here", self.machine
        )

    def step(self, seconds: float = 0) -> None:
        self.clock.forward(seconds)
        asyncio.run(self.keeper.step())

    def order(self) -> StartOrder:
        """What has to be signed so that it is started."""
        return order_of(SYSTEM, SystemStandings(self.log.read_all).at(SCOPE, self.clock()))

    def sign(self, *signers: tuple[str, Role], order: StartOrder | None = None) -> None:
        hash, book = (order or self.order()).hash, StartBook(self.folder, RIGHTS)
        for name, role in signers:
            book.keep(approve(PURPOSE, hash, name, role, KEYS[name], self.clock()))

    def close_unseen(self) -> None:
        """A closing whose look at the system takes too long, and the opening after it."""
        self.machine.slow = True
        close(self.log, "payments_support")
        self.step()
        assert not self.machine.running
        open_again(self.log, "payments_support")
        self.step()

    def needed(self) -> list[Need]:
        return needed_of(SYSTEM, self.log, self.clock())

    def verdict(self) -> Verdict:
        [claim] = claims(self.folder / "proofs", self.needed(), self.clock())
        return claim.verdict


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_nothing_is_done_to_a_system_that_nobody_switched(site: Site) -> None:
    site.step()
    assert site.machine.done == []


def test_a_closing_stops_it_and_its_probe_proves_it(site: Site) -> None:
    close(site.log, "payments_support")
    site.step()
    assert not site.machine.running
    assert site.verdict() is Verdict.PROVEN
    [effect] = EffectBook(site.folder / "effects").read(1)
    assert (effect.worker, effect.quiet_at) == ("external-payments", NOW)
    assert [one["act"] for one in site.told] == ["external.stop"]


def test_it_is_stopped_again_until_it_stops(site: Site) -> None:
    site.machine.stuck = True
    close(site.log, "payments_support")
    site.step()
    assert site.verdict() is Verdict.NOT_PROVEN
    site.step(1)  # not at once
    assert site.machine.done.count("stop") == 1
    site.machine.stuck = False
    site.step(10)
    assert site.verdict() is Verdict.PROVEN
    assert [one.verdict for one in proofs(site.folder / "proofs", 1)] == [Verdict.NOT_PROVEN, Verdict.PROVEN]


def test_a_clock_that_is_set_back_puts_off_no_stop(site: Site) -> None:
    """SW-01: it was a day ahead when the stop failed, and is right again."""
    site.machine.stuck = True
    close(site.log, "payments_support")
    site.step(86_400)
    site.machine.stuck = False
    site.step(-86_400)
    assert site.verdict() is Verdict.PROVEN


def test_a_record_that_cannot_be_read_for_a_moment_does_not_pass_for_one_that_was_down(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran, and we have stopped it: left down without a word it would be once that is forgotten. So people say it."""
    close(site.log, "payments_support")
    site.step()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", _no_descriptor)
        site.step(61)
    open_again(site.log, "payments_support")
    site.step()
    assert site.keeper.unsure() == ["payments"] or site.machine.running
    assert "external.left" not in [one["act"] for one in site.told]


def _no_descriptor(_path: Path) -> bytes:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def doubting(site: Site) -> Site:
    """Closed, opened again, and the keeper has not looked since; its switch is a copy as roles have it."""
    switch = LocalSwitch(site.log, site.folder / "copy.json", site.clock)
    site.restart(SystemStandings.of(switch))
    close(site.log, "payments_support")
    site.step()
    open_again(site.log, "payments_support")
    switch.refresh()
    assert not site.machine.running
    return site


def test_an_opening_that_the_copy_doubts_starts_nothing(doubting: Site) -> None:
    """SW-02: the log was rewritten after it was seen, so everything is held until two persons open again."""
    first = doubting.folder / "log" / "0000000001.json"
    first.rename(doubting.folder / "away")
    first.write_bytes(b"{}")
    doubting.step()
    assert (doubting.machine.running, doubting.told[-1]["act"]) == (False, "external.stop")
    open_again(doubting.log, "payments_support", "o2")
    doubting.step()
    assert doubting.machine.running


def test_while_the_next_epoch_cannot_be_read_nothing_is_started(doubting: Site) -> None:
    """It may well be a closing."""
    next_one = doubting.folder / "log" / "0000000003.json"
    next_one.mkdir()
    doubting.step()
    assert not doubting.machine.running
    next_one.rmdir()
    doubting.step(10)
    assert doubting.machine.running


def test_only_two_persons_start_it_again(site: Site) -> None:
    close(site.log, "payments_support")
    site.step()
    site.step(3600)
    assert not site.machine.running
    open_again(site.log, "payments_support")
    site.step()
    assert site.machine.running
    assert [one["act"] for one in site.told] == ["external.stop", "external.start"]


def test_an_opening_starts_nothing_that_we_did_not_stop(site: Site) -> None:
    open_again(site.log, "payments_support")
    site.machine.running = False
    site.step()
    assert site.machine.done == []


def test_what_was_down_before_a_closing_is_left_down_by_the_opening(site: Site) -> None:
    """Its keeper had stopped it; a closing that came and went is no reason to start it. After a crash as well."""
    site.machine.running = False
    close(site.log, "payments_support")
    site.step()
    assert site.verdict() is Verdict.PROVEN
    site.restart()
    open_again(site.log, "payments_support")
    site.step()
    assert not site.machine.running
    assert [one["act"] for one in site.told] == ["external.stop", "external.left"]
    [effect] = EffectBook(site.folder / "effects").read(2)
    assert effect.quiet_at is not None
    site.machine.running = True
    close(site.log, "payments_support", "again")
    site.step()
    open_again(site.log, "payments_support", "o2")
    site.step()
    assert site.machine.running


def test_a_closing_that_cannot_see_whether_a_system_ran_says_so(site: Site) -> None:
    """SW-01: it waits a second for the probe and no longer. What nobody knows is not started by the opening."""
    site.machine.slow = True
    close(site.log, "payments_support")
    with capture_logs() as logs:
        site.step()
    assert [one["name"] for one in logs if one["event"] == "external.unsure"] == ["payments"]
    assert site.verdict() is Verdict.PROVEN
    assert site.keeper.unsure() == ["payments"]
    site.restart()
    open_again(site.log, "payments_support")
    with capture_logs() as logs:
        site.step()
        site.step(3600)
    assert not site.machine.running
    assert [one["name"] for one in logs if one["event"] == "external.waits"] == ["payments"] * 2
    assert site.keeper.unsure() == ["payments"]
    assert EffectBook(site.folder / "effects").read(2) == []  # so a drill that left it down has not passed


def test_two_persons_start_what_nobody_knew(site: Site) -> None:
    """RO-01, RO-04: and what they ordered is carried out after a crash, though their signatures have ended."""
    site.close_unseen()
    site.sign(OPENERS[0])
    site.step()
    assert not site.machine.running
    site.sign(OPENERS[1])
    site.machine.lost = True
    with pytest.raises(KeyboardInterrupt):
        site.step()
    site.machine.running = site.machine.lost = False  # it had not begun to start
    site.restart()
    site.step(5 * 3600)
    assert site.machine.running
    assert site.keeper.unsure() == []
    assert [(one["act"], one["outcome"]) for one in site.told][1:] == [
        ("external.ordered", "officer as switch_officer, releaser as releaser"),
        ("external.start", "exit code 0"),
    ]
    site.machine.slow = False
    close(site.log, "payments_support", "again")
    site.step()
    open_again(site.log, "payments_support", "o2")
    site.step()
    assert site.machine.running


def test_an_order_of_one_opening_starts_nothing_in_another(site: Site) -> None:
    site.close_unseen()
    site.sign(*OPENERS)
    close(site.log, "payments_support", "again")
    site.step()
    open_again(site.log, "payments_support", "o2")
    site.step()
    site.step(61)
    assert not site.machine.running


@pytest.mark.parametrize(
    "signers",
    [
        [("officer", Role.SWITCH_OFFICER), ("officer", Role.RELEASER)],
        [("officer", Role.SWITCH_OFFICER), ("officer", Role.LEAD)],
        [("releaser", Role.RELEASER)],
        BREAKERS,  # nobody opened in an emergency
    ],
)
def test_who_may_not_open_starts_nothing(site: Site, signers: list[tuple[str, Role]]) -> None:
    site.close_unseen()
    site.sign(*signers)
    site.step(61)
    assert not site.machine.running


def test_signatures_that_have_ended_start_nothing(site: Site) -> None:
    site.close_unseen()
    site.sign(*OPENERS)
    site.clock.forward(5 * 3600)
    site.step()
    assert not site.machine.running


def test_the_pair_of_an_emergency_starts_what_it_opened_and_its_end_stops_it_at_once(site: Site) -> None:
    """RS-14: the end of an emergency waits for no look that was due a minute after the start."""
    site.machine.slow = True
    close(site.log, "payments_support")
    site.step()
    emergency = opening("payments_support", 1, actor="breaker-1", closes_at=NOW + timedelta(seconds=30))
    site.log.append(signed(emergency, BREAKERS), NOW)
    site.step()
    assert not site.machine.running
    site.sign(*BREAKERS)
    site.step()
    assert site.machine.running
    site.step(31)
    assert not site.machine.running


def test_what_its_own_keeper_started_meanwhile_waits_for_nobody(site: Site) -> None:
    site.close_unseen()
    site.machine.running = True
    site.step(61)
    assert site.keeper.unsure() == []
    assert [one["act"] for one in site.told] == ["external.stop", "external.runs"]
    [effect] = EffectBook(site.folder / "effects").read(2)
    assert effect.quiet_at is not None


def test_a_drill_begins_only_where_a_closing_can_see_that_it_runs(site: Site) -> None:
    """SW-15: else a drill would leave it down until two persons come."""
    site.machine.slow = True
    assert asyncio.run(site.keeper.not_running([SCOPE])) == ["payments"]


@pytest.mark.parametrize(
    ("file", "before"),
    [
        ('{"epoch": 1, "stopped": true, "was_down": true, "at": ""}', Runs.STOPPED),
        ('{"epoch": 1, "stopped": true, "was_down": false, "at": ""}', Runs.UNKNOWN),
        ('{"epoch": 1, "stopped": true, "before": "running", "ordered": 0}', Runs.RUNNING),
    ],
)
def test_records_of_before_start_nothing_that_nobody_knew(site: Site, file: str, before: Runs) -> None:
    (site.folder / "external").mkdir()
    (site.folder / "external" / "payments.json").write_text(file)
    assert RecordBook(site.folder).read("payments") == Record(1, True, before)


@pytest.mark.parametrize("file", ["", "[]", "null", '{"epoch": 1}', '{"epoch": 1, "stopped": true, "before": "maybe"}'])
def test_a_record_that_nobody_can_read_starts_nothing(site: Site, file: str) -> None:
    (site.folder / "external").mkdir()
    (site.folder / "external" / "payments.json").write_text(file)
    assert RecordBook(site.folder).read("payments") == Record(0, stopped=True, before=Runs.UNKNOWN)
    site.machine.running = False
    open_again(site.log, "payments_support")
    site.step()
    assert (site.machine.running, site.keeper.unsure()) == (False, ["payments"])


def test_one_that_does_not_stop_for_days_does_not_fill_the_disk(site: Site) -> None:
    site.machine.stuck = True
    close(site.log, "payments_support")
    for _ in range(20):
        site.step(6)
    site.restart()
    site.step(6)
    assert site.machine.done.count("stop") == 21
    assert [one.verdict for one in proofs(site.folder / "proofs", 1)] == [Verdict.NOT_PROVEN]


def test_only_systems_of_the_asked_scopes_that_do_not_run_are_named(site: Site) -> None:
    assert asyncio.run(site.keeper.not_running([SCOPE])) == []
    site.machine.running = False
    assert asyncio.run(site.keeper.not_running([SCOPE])) == ["payments"]
    assert asyncio.run(site.keeper.not_running([Scope("directory")])) == []


def test_an_emergency_that_has_ended_is_stopped_again(site: Site) -> None:
    """RS-14: also while the automat, whose command would say so, is dead."""
    close(site.log, "payments_support")
    site.step()
    emergency = opening("payments_support", 1, actor="breaker-1", closes_at=NOW + timedelta(minutes=5))
    site.log.append(signed(emergency, BREAKERS), NOW)
    site.step()
    assert site.machine.running
    site.step(301)
    assert not site.machine.running


def test_one_insurer_s_closing_leaves_a_system_of_all_running(site: Site) -> None:
    close(site.log, "payments_support/109900011")
    site.step()
    assert site.machine.running
    assert site.needed() == []


def test_somebody_who_starts_it_by_hand_is_found_and_it_is_stopped(site: Site) -> None:
    close(site.log, "payments_support")
    site.step()
    site.machine.running = True
    site.step(61)
    assert not site.machine.running
    seen = [one.verdict for one in proofs(site.folder / "proofs", 1)]
    assert seen == [Verdict.PROVEN, Verdict.NOT_PROVEN, Verdict.PROVEN]  # it was not closed all the time (RS-07)


def test_a_crash_after_the_stop_is_mended_by_the_same_step(site: Site) -> None:
    close(site.log, "payments_support")
    site.machine.lost = True
    with pytest.raises(KeyboardInterrupt):
        site.step()
    site.machine.lost = False
    site.restart()
    site.step()
    assert site.verdict() is Verdict.PROVEN
    open_again(site.log, "payments_support")
    site.restart()
    site.step()
    assert site.machine.running


def test_a_full_disk_keeps_nothing_running(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """SW-01: it is stopped all the same, and once there is room again the opening starts what we stopped."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    close(site.log, "payments_support")
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("schleuse.shutdown.external.replace", full)
        site.step()
        assert not site.machine.running
        site.step(6)
    assert "external.not-recorded" in {one["event"] for one in logs}
    site.step(6)
    assert site.verdict() is Verdict.PROVEN
    site.restart()
    open_again(site.log, "payments_support")
    site.step()
    assert site.machine.running


def test_a_newer_closing_is_carried_out_at_once_and_proven_anew(site: Site) -> None:
    close(site.log, "payments_support")
    site.step()
    close(site.log, "payments_support", "harder", ScopeState.CLOSED)
    assert site.verdict() is Verdict.INCONCLUSIVE
    site.step()
    assert site.verdict() is Verdict.PROVEN


def test_a_closing_that_only_limits_stops_nothing(site: Site) -> None:
    site.log.append(signed(closing("payments_support", "l", ScopeState.LIMITED, Limit(permille=10)), CLOSER), NOW)
    site.step()
    assert site.machine.running


def limit(log: SwitchLog, id: str = "l", permille: int = 10) -> None:
    log.append(signed(closing("payments_support", id, ScopeState.LIMITED, Limit(permille=permille)), CLOSER), NOW)


def limited_before_it_was_started(site: Site) -> None:
    """It ran, was closed and opened again; its start fails, and before it works somebody limits its scope."""
    close(site.log, "payments_support")
    site.step()
    open_again(site.log, "payments_support")
    site.machine.stuck = True
    site.step()
    limit(site.log)
    site.machine.stuck = False


def test_a_limit_that_comes_before_the_start_has_worked_is_seen_and_two_persons_start_it(site: Site) -> None:
    """SW-01, SW-17, RO-01: the opening is no longer the last word, so nobody starts it alone; nor is it forgotten."""
    limited_before_it_was_started(site)
    with capture_logs() as logs:
        site.step(6)
        site.step(61)
    assert [one["name"] for one in logs if one["event"] == "external.waits"] == ["payments"] * 2
    assert (site.machine.running, site.keeper.unsure()) == (False, ["payments"])
    site.sign(OPENERS[0])
    site.step()
    assert not site.machine.running
    site.sign(OPENERS[1])
    site.restart()
    site.step()
    assert (site.machine.running, site.keeper.unsure()) == (True, [])
    limit(site.log, "tighter", 5)
    site.step(61)
    assert (site.machine.running, site.machine.done.count("stop")) == (True, 1)


def test_a_tighter_limit_ends_an_order_that_has_not_worked_and_asks_again(site: Site) -> None:
    """RO-04: the two have signed under what was ordered then."""
    site.close_unseen()
    site.machine.stuck = True
    site.sign(*OPENERS)
    site.step()
    limit(site.log)
    site.machine.stuck = False
    with capture_logs() as logs:
        site.step(6)
    assert [one["event"] for one in logs if one["event"] == "external.waits"] == ["external.waits"]
    assert (site.machine.running, site.keeper.unsure()) == (False, ["payments"])
    site.sign(*OPENERS)
    site.step()
    assert site.machine.running


def test_what_its_own_keeper_starts_in_a_limited_scope_is_not_stopped_again(site: Site) -> None:
    limited_before_it_was_started(site)
    site.machine.running = True
    site.step(61)
    assert (site.machine.running, site.keeper.unsure()) == (True, [])


def test_what_was_down_by_itself_waits_for_nobody_in_a_limited_scope(site: Site) -> None:
    site.machine.running = False
    close(site.log, "payments_support")
    site.step()
    open_again(site.log, "payments_support")
    limit(site.log)
    site.step()
    assert (site.machine.running, site.keeper.unsure()) == (False, [])
    assert site.told[-1]["act"] == "external.left"


def test_a_record_that_nobody_can_read_stops_nothing_where_nobody_ordered_it(site: Site) -> None:
    (site.folder / "external").mkdir()
    (site.folder / "external" / "payments.json").write_text("{")
    site.step()
    site.step(61)
    assert (site.machine.running, site.machine.done.count("stop")) == (True, 0)


@pytest.mark.parametrize("cause", [Cause.CLOSING, Cause.NOBODY])
@pytest.mark.parametrize("before", list(Runs))
@pytest.mark.parametrize("state", list(ScopeState))
def test_what_is_not_open_by_two_persons_is_never_started(state: ScopeState, before: Runs, cause: Cause) -> None:
    """Without an order of theirs for this very epoch."""
    assert wanted(Record(1, True, before, ordered=1), Standing(state, 2), cause) is not Wanted.START


@pytest.mark.parametrize(
    ("code", "http", "found"),
    [
        (0, False, Runs.RUNNING),
        (1, False, Runs.STOPPED),
        (2, False, Runs.UNKNOWN),
        (200, False, Runs.UNKNOWN),
        (255, False, Runs.UNKNOWN),
        (200, True, Runs.RUNNING),
        (503, True, Runs.STOPPED),
        (0, True, Runs.UNKNOWN),
        (1, True, Runs.UNKNOWN),
        (404, True, Runs.UNKNOWN),
    ],
)
def test_codes_say_whether_it_runs(code: int, http: bool, found: Runs) -> None:
    """SW-08: 255 is ssh's word for a host that it did not reach, and no proof of anything."""
    assert runs(Outcome(code, "", "", http)) is found
    assert runs(Outcome(None, "", "", http)) is Runs.UNKNOWN


def test_a_program_that_does_not_end_is_cut_and_one_that_is_missing_is_told() -> None:
    short = timedelta(milliseconds=50)
    slow = asyncio.run(perform(("sleep", "60"), "stop", {}, short))
    assert (slow.code, slow.done) == (None, False)
    assert asyncio.run(perform(("/nowhere/at-all",), "stop", {}, short)).code is None
    assert asyncio.run(perform("file:///etc/passwd", "stop", {}, short)).code is None


def test_output_is_hashed_and_does_not_block_the_program() -> None:
    outcome = asyncio.run(perform(("head", "-c", "300000", "/dev/zero"), "stop", {}, timedelta(seconds=20)))
    assert outcome.code == 0
    assert len(outcome.digest) == 64
