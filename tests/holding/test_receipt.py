"""What a sender is told of his mail (incident.md § 6.4, HD-02, HD-30)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schleuse.holding.receipt import Action, Case, Hold, entry, paper_by
from schleuse.holding.states import State
from schleuse.scopes import Service

AT = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
HOLD = Hold("security_hold", AT + timedelta(hours=1))
NOW = AT + timedelta(hours=2)
EAU = Case(Service.EAU_INTAKE, "109900011", State.HELD, AT, told=True, hold=HOLD)
LETTER = Case(Service.KIM_MAIL, "", State.HELD, AT, told=True, hold=HOLD)


def test_a_practice_whose_eau_is_held_need_not_resend_and_not_print() -> None:
    """HD-02: its DSN is there, and the time of acceptance counts."""
    one = entry(EAU)
    assert (one.action, one.do_not_resend, one.is_held) == (Action.NONE, True, True)


def test_without_a_dsn_the_day_after_which_paper_goes_is_named() -> None:
    """HD-04: incident.md § 2.2: warned after 24 h, posted at the end of that day."""
    one = entry(replace(EAU, told=False))
    assert one.action is Action.PAPER
    assert one.action_by == datetime(2026, 11, 26, 22, 59, 59, tzinfo=UTC)


def test_the_deadline_outside_is_attached_to_every_held_eau() -> None:
    assert [(one.what, one.until) for one in entry(EAU).deadlines] == [("paper_copy_for_the_insurer", paper_by(AT))]


@pytest.mark.parametrize(
    ("accepted", "until"),
    [
        (datetime(2026, 6, 1, 21, 59, tzinfo=UTC), datetime(2026, 6, 2, 21, 59, 59, tzinfo=UTC)),
        (datetime(2026, 6, 1, 22, 1, tzinfo=UTC), datetime(2026, 6, 3, 21, 59, 59, tzinfo=UTC)),
        (datetime(2026, 10, 24, 20, 0, tzinfo=UTC), datetime(2026, 10, 25, 22, 59, 59, tzinfo=UTC)),
    ],
)
def test_the_end_of_the_day_is_that_of_the_practice(accepted: datetime, until: datetime) -> None:
    """Midnight in Germany, summer and winter, and on the day on which the clock changes."""
    assert paper_by(accepted) == until


def test_the_sender_of_a_held_letter_decides_on_phone_or_fax() -> None:
    """HD-10."""
    assert entry(LETTER).action is Action.OTHER_CHANNEL


def test_a_letter_that_only_waits_for_its_recipient_is_not_held() -> None:
    one = entry(replace(LETTER, hold=None))
    assert (one.is_held, one.action, one.next_information_by, one.deadlines) == (False, Action.NONE, None, ())


@pytest.mark.parametrize("state", State)
def test_only_what_was_given_back_may_be_sent_again(state: State) -> None:
    one = entry(replace(EAU, state=state, hold=None))
    assert one.do_not_resend == (state not in (State.RETURNED, State.WITHDRAWN))
    assert (one.action is Action.SEE_ANSWER) == (not one.do_not_resend)


def test_what_was_promised_stays_promised_also_when_it_has_passed() -> None:
    """CM-03: no text renews a promise by itself; here somebody promised ten minutes, and nobody else anything."""
    by = AT + timedelta(minutes=70)
    assert entry(replace(EAU, hold=replace(HOLD, news_by=by))).next_information_by == by
    assert entry(EAU).next_information_by is None
