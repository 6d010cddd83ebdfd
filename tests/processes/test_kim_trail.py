"""What the journals are told of mail and logins: whose log, which entry, and what a journal that is off changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.processes.test_trail import Clock, FakeJournal

from schleuse.errors import UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.entry import Entry, Kind, Purpose, Result, parse_entry
from schleuse.journal.opening import object_commitment
from schleuse.kim.accounts import Account, Accounts
from schleuse.kim.store import Acceptance, MailStore
from schleuse.mail.passwords import Outcome, Passwords, PasswordsBusyError, WrongPasswordError
from schleuse.processes.kim_trail import ToldLogins, acceptance_entry, acceptances, object_name
from schleuse.processes.trail import Trail
from schleuse.vault.denials import Denials

KASSE = IK("109900011")
ACCOUNTS = Accounts(
    [
        Account("eau@kasse.kim.telematik-test", KASSE, "hash"),
        Account("ahorn@praxis.kim.telematik-test", None, "hash"),
    ]
)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


class FakePasswords:
    """Answers as told."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def check(self, user: str, password: str, peer: str, done: Callable[[Outcome], None]) -> None:
        done(self.outcome)

    async def authenticate(self, user: str, password: str, peer: str) -> str | None:
        if isinstance(self.outcome, WrongPasswordError):
            return None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Site:
    def __init__(self, folder: Path, outcome: Outcome) -> None:
        self.clock, self.journal = Clock(), FakeJournal()
        self.folder = folder
        self.trail = Trail(folder, "kim", self.journal, lambda tenant, _year: tenant, self.clock)
        passwords = cast(Passwords, FakePasswords(outcome))
        self.logins = ToldLogins(passwords, ACCOUNTS, self.trail, Denials(), self.clock)

    def check(self, user: str) -> Outcome:
        answers: list[Outcome] = []
        self.logins.check(user, "secret-word", "192.0.2.1", answers.append)
        return answers[0]

    def told(self) -> list[tuple[str, Entry]]:
        while asyncio.run(self.trail.send()):
            pass
        return [(log, parse_entry(entry)) for log, entries in self.journal.logs.items() for entry in entries.values()]


@pytest.mark.parametrize(
    ("account", "log"),
    [("eau@kasse.kim.telematik-test", "109900011"), ("ahorn@praxis.kim.telematik-test", "platform")],
)
def test_a_login_stands_in_the_log_of_the_insurer_or_of_the_platform(tmp_path: Path, account: str, log: str) -> None:
    site = Site(tmp_path, account)
    assert site.check(account) == account
    assert asyncio.run(site.logins.authenticate(account, "secret-word", "::1")) == account
    assert [(where, entry.kind) for where, entry in site.told()] == [(log, Kind.LOGIN)] * 2


def test_a_failed_login_is_an_entry_and_its_typed_name_and_password_are_nowhere(tmp_path: Path) -> None:
    site = Site(tmp_path, WrongPasswordError("no"))
    assert isinstance(site.check("my-password-in-the-wrong-field"), WrongPasswordError)
    assert asyncio.run(site.logins.authenticate("eau@kasse.kim.telematik-test", "secret-word", "::1")) is None
    assert {(log, entry.kind, entry.result) for log, entry in site.told()} == {
        ("platform", Kind.LOGIN_FAILED, Result.DENIED),
        ("109900011", Kind.LOGIN_FAILED, Result.DENIED),
    }
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"my-password" not in kept
    assert b"secret-word" not in kept


def test_guessing_does_not_flood_the_log_and_every_guess_is_counted(tmp_path: Path) -> None:
    site = Site(tmp_path, WrongPasswordError("no"))
    for _ in range(250):
        site.check("eau@kasse.kim.telematik-test")
    site.logins.refusals.tell_coalesced()
    entries = [entry for _, entry in site.told()]
    assert len(entries) == 101
    assert sum(entry.count or 1 for entry in entries) == 250


def test_being_busy_is_no_failed_login(tmp_path: Path) -> None:
    site = Site(tmp_path, PasswordsBusyError("later"))
    site.check("eau@kasse.kim.telematik-test")
    assert site.told() == []


def test_a_login_that_cannot_be_recorded_does_not_happen(tmp_path: Path) -> None:
    site = Site(tmp_path, "eau@kasse.kim.telematik-test")
    (tmp_path / "kim-2026.jsonl").mkdir()
    assert isinstance(site.check("eau@kasse.kim.telematik-test"), UnavailableError)


def accepted(number: int, account: str = "eau@kasse.kim.telematik-test") -> Acceptance:
    return Acceptance(number, account, bytes([number]) * 32, NOON)


def test_an_accepted_mail_is_the_same_event_when_it_is_told_again() -> None:
    first, again = (
        parse_entry(acceptance_entry(accepted(1), NOON + late)) for late in (timedelta(0), timedelta(hours=3))
    )
    assert first.event == again.event
    assert (first.at, again.at) == (NOON, NOON + timedelta(hours=3))
    assert parse_entry(acceptance_entry(accepted(2), NOON)).event != first.event


def test_the_store_is_the_opening_of_an_accepted_mail() -> None:
    """HD-22: the seal of what was accepted is in the journal."""
    entry = parse_entry(acceptance_entry(accepted(7), NOON))
    digest = bytes([7]) * 32
    assert entry.object == object_commitment(digest[:16], object_name(7, digest), 0)
    assert (entry.kind, entry.purpose) == (Kind.SPOOL_ACCEPTED, Purpose.EAU_INTAKE)


def test_only_mail_for_insurers_is_told_and_the_cursor_passes_the_rest() -> None:
    class Store:
        def acceptances(self, after: int, limit: int) -> Sequence[Acceptance]:
            return [one for one in (accepted(1), accepted(2, "ahorn@praxis")) if one.id > after]

    store = cast(MailStore, cast(Any, Store()))
    after = acceptances(store, lambda name: KASSE if "kasse" in name else None, lambda: NOON)
    entries, cursor = after(0)
    assert ([tenant for tenant, _ in entries], cursor) == (["109900011"], 2)
    assert after(2) == ([], 2)


def test_failures_that_cannot_be_recorded_are_counted_later(tmp_path: Path) -> None:
    site = Site(tmp_path, WrongPasswordError("wrong"))
    for _ in range(150):
        site.check("eau@kasse.kim.telematik-test")
    file = tmp_path / "kim-2026.jsonl"
    file.rename(tmp_path / "aside")
    file.mkdir()  # cannot be written
    site.logins.refusals.tell_coalesced()
    file.rmdir()
    (tmp_path / "aside").rename(file)
    site.logins.refusals.tell_coalesced()
    assert sum(entry.count or 1 for _, entry in site.told()) == 150
