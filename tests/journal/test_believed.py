"""Which time is believed, whatever a clock says (decision 0023): a model with the true time beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.journal import believed
from schleuse.journal.believed import ABSENCE, FRESH, NEVER, TOLERANCE, BadMarkError, Belief, Reading

START = datetime(2026, 11, 25, tzinfo=UTC)
YEAR, DAY, MINUTE = timedelta(days=365), timedelta(days=1), timedelta(minutes=1)


@dataclass
class Machine:
    """True time, a clock that may be wrong, and boots. off_for: how long the machine was off in all."""

    true: datetime = START
    wrong: timedelta = timedelta(0)
    boot: int = 0
    up: timedelta = DAY
    off_for: timedelta = timedelta(0)
    known: Belief = field(init=False)

    def __post_init__(self) -> None:
        self.known = believed.first(self.reading())

    def reading(self) -> Reading:
        return Reading(self.true + self.wrong, str(self.boot), self.up)

    def runs(self, time: timedelta) -> None:
        self.true += time
        self.up += time
        self.known = believed.looked(self.known, self.reading())

    def reboots(self, off: timedelta) -> None:
        self.true += off
        self.off_for += off
        self.boot += 1
        self.up = MINUTE
        self.known = believed.looked(self.known, self.reading())


TIMES = st.timedeltas(min_value=timedelta(0), max_value=3 * YEAR)
STEPS = st.one_of(
    st.tuples(st.just("runs"), TIMES),
    st.tuples(st.just("reboots"), TIMES),
    st.tuples(st.just("set"), st.timedeltas(min_value=-10 * YEAR, max_value=10 * YEAR)),
)


@given(st.lists(STEPS, max_size=30))
def test_no_clock_and_no_boot_makes_anything_certain_before_its_time(steps: list[tuple[str, timedelta]]) -> None:
    machine = Machine()
    for looks, (step, time) in enumerate(steps, 1):
        if step == "set":
            machine.wrong = time
            machine.runs(timedelta(0))
        else:
            getattr(machine, step)(time)
        # a clock that drifts by a second from look to look is followed; nothing else is
        assert machine.known.certain <= machine.true + looks * believed.DRIFT
        assert machine.known.certain >= machine.true - machine.off_for - looks * believed.DRIFT


@given(st.lists(STEPS, max_size=30))
def test_a_clock_that_is_put_right_is_believed_unless_the_machine_was_off_for_long(
    steps: list[tuple[str, timedelta]],
) -> None:
    machine = Machine()
    for step, time in steps:
        if step == "set":
            machine.wrong = time
        elif step == "runs":
            machine.runs(time)
    machine.wrong = timedelta(0)
    machine.runs(MINUTE)
    assert machine.known.off is None or abs(machine.known.off) <= len(steps) * believed.DRIFT
    assert abs(machine.known.now - machine.true) <= TOLERANCE + len(steps) * believed.DRIFT


@pytest.mark.parametrize("wrong", [YEAR, -YEAR, 3 * MINUTE, -3 * MINUTE])
def test_a_clock_that_is_set_while_the_machine_runs_is_noticed_at_once(wrong: timedelta) -> None:
    machine = Machine()
    machine.wrong = wrong
    machine.runs(MINUTE)
    assert machine.known.off == wrong
    assert machine.known.now == machine.true


def test_how_long_it_was_off_is_believed_up_to_a_month_and_never_certain() -> None:
    machine = Machine()
    machine.reboots(3 * DAY)
    assert not machine.known.is_doubted
    assert (machine.known.now, machine.known.certain) == (machine.true, machine.true - 3 * DAY)
    machine.runs(YEAR)
    assert (machine.known.now, machine.known.certain) == (machine.true, machine.true - 3 * DAY)
    machine.reboots(ABSENCE + 2 * DAY)
    assert machine.known.is_doubted
    machine.known = believed.vouched(machine.reading())
    assert (machine.known.is_doubted, machine.known.certain) == (False, machine.true)


def test_witnesses_that_agree_make_a_clock_believed_and_the_time_certain() -> None:
    machine = Machine()
    machine.reboots(ABSENCE + 30 * DAY)
    assert machine.known.is_doubted
    stale = believed.signed(machine.known, machine.reading(), [machine.true - FRESH - MINUTE])
    assert stale == machine.known
    agreed = believed.signed(machine.known, machine.reading(), [machine.true - MINUTE, START])
    assert (agreed.off, agreed.certain, agreed.now) == (None, machine.true - MINUTE, machine.true)


def test_witnesses_that_are_later_than_our_clock_make_it_doubted_until_they_agree() -> None:
    machine = Machine()
    machine.wrong = timedelta(0)
    doubted = believed.signed(machine.known, machine.reading(), [machine.true + YEAR])
    assert (doubted.off, doubted.now) == (-YEAR, machine.true)
    machine.known = doubted
    machine.runs(MINUTE)
    assert machine.known.is_doubted
    assert machine.known.now == machine.true
    again = believed.signed(machine.known, machine.reading(), [machine.true])
    assert (again.off, again.certain) == (None, machine.true)
    # one that agrees outweighs another that does not
    assert not believed.signed(again, machine.reading(), [machine.true, machine.true + YEAR]).is_doubted


def test_the_mark_is_read_back_as_it_was_written_and_a_damaged_one_makes_nothing_certain() -> None:
    machine = Machine()
    machine.reboots(DAY)
    data = believed.encode(machine.known)
    assert believed.parse(data) == machine.known
    for broken in (
        b"",
        data[:-20],
        data.replace(b"1 ", b"2 ", 1),
        b"\xff",
        data.replace(b"+00:00", b""),
        b"1 a b c d e",
    ):
        with pytest.raises(BadMarkError):
            believed.parse(broken)
    lost = believed.unknown(machine.reading())
    assert (lost.certain, lost.is_doubted, lost.now) == (NEVER, False, machine.true)


def test_a_clock_that_was_doubted_is_doubted_after_another_boot_and_one_that_was_put_right_is_not() -> None:
    for right in (False, True):
        machine = Machine()
        machine.wrong = 20 * DAY  # less than what another boot is given
        machine.runs(MINUTE)
        assert machine.known.is_doubted
        machine.known = believed.parse(believed.encode(machine.known))
        assert machine.known.is_doubted
        machine.wrong = timedelta(0) if right else machine.wrong
        machine.reboots(5 * DAY)
        assert machine.known.is_doubted is not right
        machine.known = believed.parse(believed.encode(machine.known))
        machine.reboots(5 * DAY)
        assert machine.known.is_doubted is not right
