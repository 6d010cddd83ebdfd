"""What is not closed, said and signed by a person (Exception of incident.md § 5.3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.shutdown.operators import KEYS, NOW, RIGHTS

from schleuse.scopes import Scope, parse_scopes
from schleuse.shutdown.exceptions import (
    BadExceptionError,
    ExceptionNotKeptError,
    Exemption,
    SignedExemption,
    exempt,
    exemptions,
    keep_exemption,
    sign_exemption,
)
from schleuse.switch.documents import NotAuthorisedError, Rights, Role

ONE = Exemption(
    id="x-1",
    scope=Scope("payments_support"),
    why="sick pay is paid from last known data",
    measure="amounts are checked by hand",
    owner="officer",
    review_at=NOW + timedelta(days=1),
    made_at=NOW,
)


def by_officer(exemption: Exemption = ONE, role: Role = Role.SWITCH_OFFICER) -> SignedExemption:
    return sign_exemption(exemption, "officer", role, KEYS["officer"])


def test_a_signed_exception_is_kept_and_found(tmp_path: Path) -> None:
    keep_exemption(tmp_path, by_officer(), RIGHTS)
    assert exemptions(tmp_path, RIGHTS) == ([by_officer()], [])


def test_it_covers_its_scope_until_it_is_ended(tmp_path: Path) -> None:
    [scope] = parse_scopes("payments_support/109900011")
    assert exempt(scope, [by_officer()]) == by_officer()
    assert exempt(Scope("keys"), [by_officer()]) is None
    assert exempt(scope, [by_officer(replace(ONE, ended=True))]) is None


def test_it_does_not_expire_silently() -> None:
    assert not by_officer().overdue(NOW)
    assert by_officer().overdue(NOW + timedelta(days=2))
    assert exempt(ONE.scope, [by_officer()]) is not None
    assert not by_officer(replace(ONE, ended=True)).overdue(NOW + timedelta(days=2))


@pytest.mark.parametrize("field", ["id", "why", "measure", "owner"])
def test_nothing_of_it_may_be_left_out(field: str) -> None:
    with pytest.raises(BadExceptionError):
        replace(ONE, **{field: " "})  # type: ignore[arg-type]


def test_it_is_reviewed_after_it_was_made() -> None:
    with pytest.raises(BadExceptionError):
        replace(ONE, review_at=NOW)


@pytest.mark.parametrize(
    "signed",
    [
        sign_exemption(ONE, "releaser", Role.RELEASER, KEYS["releaser"]),
        sign_exemption(ONE, "automat", Role.AUTOMAT, KEYS["automat"]),
        sign_exemption(ONE, "officer", Role.ANALYST, KEYS["officer"]),
        sign_exemption(ONE, "officer", Role.LEAD, KEYS["releaser"]),
        replace(by_officer(), exemption=replace(ONE, why="something else")),
    ],
)
def test_only_a_person_who_may_close_signs_one(tmp_path: Path, signed: SignedExemption) -> None:
    with pytest.raises(NotAuthorisedError):
        keep_exemption(tmp_path, signed, RIGHTS)
    assert exemptions(tmp_path, RIGHTS) == ([], [])


def test_a_disabled_credential_signs_none_and_what_it_signed_before_stays(tmp_path: Path) -> None:
    """RO-05."""
    keep_exemption(tmp_path, by_officer(), RIGHTS)
    officer = RIGHTS.people()["officer"]
    rights = Rights([replace(officer, until=NOW + timedelta(hours=1))])
    assert exemptions(tmp_path, rights) == ([by_officer()], [])
    late = by_officer(replace(ONE, id="x-2", made_at=NOW + timedelta(hours=1)))
    with pytest.raises(NotAuthorisedError, match="was disabled"):
        keep_exemption(tmp_path, late, rights)
    keep_exemption(tmp_path, late, RIGHTS)
    assert exemptions(tmp_path, rights) == ([by_officer()], ["x-2.json"])


def test_a_file_that_was_changed_exempts_nothing_and_is_named(tmp_path: Path) -> None:
    keep_exemption(tmp_path, by_officer(), RIGHTS)
    path = tmp_path / "x-1.json"
    path.write_text(path.read_text().replace("last known data", "wishful thinking"))
    (tmp_path / "y.json").write_text("{")
    assert exemptions(tmp_path, RIGHTS) == ([], ["x-1.json", "y.json"])


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file where the folder should be")
    with pytest.raises(ExceptionNotKeptError):
        keep_exemption(tmp_path / "x", by_officer(), RIGHTS)
