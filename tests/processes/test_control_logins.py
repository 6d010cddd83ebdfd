"""Probes are logged in before they are needed, and wrong passwords cost nobody else anything (decision 0007)."""

from __future__ import annotations

import smtplib
from datetime import datetime, timedelta
from pathlib import Path

from structlog.testing import capture_logs
from tests.shutdown.operators import Clock

from schleuse.mail.passwords import REMEMBER
from schleuse.processes.control_logins import AFTER_REFUSAL, ROUND, Login, Logins

ACCOUNTS = [Login(user, Path("p")) for user in ("a", "b")]


class Door:
    def __init__(self) -> None:
        self.came: list[str] = []
        self.fault: Exception | None = None

    def __call__(self, login: Login) -> None:
        self.came.append(login.user)
        if self.fault is not None:
            raise self.fault


def test_every_account_comes_round_before_its_password_is_forgotten() -> None:
    door = Door()
    logins = Logins(ACCOUNTS, door, Clock())
    assert [logins.step() for _ in range(4)] == [True] * 4
    assert door.came == ["a", "b", "a", "b"]
    assert 2 * ROUND < REMEMBER


def test_a_clock_that_goes_on_keeps_nobody_out() -> None:
    """Found by measuring: the time was read twice, so every account seemed to have to wait, and no login was made."""
    door, clock = Door(), Clock()

    def ticking() -> datetime:
        clock.forward(1e-6)
        return clock()

    assert Logins(ACCOUNTS, door, ticking).step()


def test_a_wrong_password_is_not_tried_again_for_an_hour() -> None:
    """Guesses are counted per peer, and practices may share ours."""
    door, clock = Door(), Clock()
    logins = Logins(ACCOUNTS[:1], door, clock)
    door.fault = smtplib.SMTPAuthenticationError(535, b"no")
    with capture_logs() as logs:
        assert [logins.step(), logins.step()] == [False, False]
    assert [one["event"] for one in logs] == ["probe.login-refused"]
    assert len(door.came) == 1
    clock.forward((AFTER_REFUSAL + timedelta(seconds=1)).total_seconds())
    logins.step()
    assert len(door.came) == 2


def test_a_door_that_is_away_is_tried_at_the_next_round() -> None:
    door = Door()
    logins = Logins(ACCOUNTS[:1], door, Clock())
    for fault in (ConnectionRefusedError(), smtplib.SMTPAuthenticationError(454, b"later")):
        door.fault = fault
        assert not logins.step()
    door.fault = None
    assert logins.step()


def test_a_password_that_cannot_be_sent_is_told_and_ends_no_round() -> None:
    """Not UTF-8 in its file, or not ASCII, which SMTP cannot take: whoever keeps the file mends it."""
    door = Door()
    logins = Logins(ACCOUNTS, door, Clock())
    door.fault = UnicodeEncodeError("ascii", "pa\u00dfwort", 2, 3, "ordinal not in range(128)")
    with capture_logs() as logs:
        assert not logins.step()
    assert [(one["event"], one["place"]) for one in logs] == [("probe.password-unusable", 0)]
    assert "wort" not in str(logs)
    door.fault = None
    assert logins.step()
