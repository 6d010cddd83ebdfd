"""An approval stands for one object, in one role, for a time, and two persons have two keys (RO-01, RO-04, RO-05)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.shutdown.operators import KEYS, NOW, RIGHTS

from schleuse.switch.approval import (
    LIFETIME,
    Approval,
    BadApprovalError,
    approve,
    approved_by_two,
    parse_approval,
    valid,
)
from schleuse.switch.documents import Rights, Role

PURPOSE, HASH = "release-plan", "ab" * 32
FIRST, SECOND = frozenset({Role.SWITCH_OFFICER}), frozenset({Role.RELEASER})
OFFICER = approve(PURPOSE, HASH, "officer", Role.SWITCH_OFFICER, KEYS["officer"], NOW)
RELEASER = approve(PURPOSE, HASH, "releaser", Role.RELEASER, KEYS["releaser"], NOW)


def by_two(*given: Approval, rights: Rights = RIGHTS, hash: str = HASH) -> bool:
    return approved_by_two(given, PURPOSE, hash, FIRST, SECOND, rights, NOW)


def test_two_persons_in_two_roles_suffice_and_nobody_else() -> None:
    assert by_two(OFFICER, RELEASER)
    assert not by_two(OFFICER)
    assert not by_two(OFFICER, OFFICER)
    assert not by_two(RELEASER, RELEASER)
    assert not by_two(OFFICER, RELEASER, hash="cd" * 32)


def test_one_key_under_two_names_is_one_person() -> None:
    """T-12."""
    people = RIGHTS.people()
    twin = Rights([people["officer"], replace(people["releaser"], key=KEYS["officer"].public_key())])
    second = approve(PURPOSE, HASH, "releaser", Role.RELEASER, KEYS["officer"], NOW)
    assert valid(second, PURPOSE, HASH, twin, NOW) is not None
    assert not by_two(OFFICER, second, rights=twin)


def test_two_names_of_one_person_are_one_person() -> None:
    """RO-01."""
    people = RIGHTS.people()
    same = Rights([people["officer"], replace(people["releaser"], person="officer")])
    assert not by_two(OFFICER, RELEASER, rights=same)


def test_what_a_credential_approved_before_it_was_disabled_stays() -> None:
    """RO-05."""
    people = RIGHTS.people()
    for ends, holds in ((NOW, False), (NOW + timedelta(minutes=1), True)):
        assert (
            by_two(OFFICER, RELEASER, rights=Rights([people["officer"], replace(people["releaser"], until=ends)]))
            is holds
        )


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "restart-plan"},
        {"hash": "cd" * 32},
        {"operator": "releaser"},
        {"operator": "nobody"},
        {"role": Role.RELEASER},
        {"until": NOW + timedelta(days=99)},
        {"at": NOW - timedelta(hours=1)},
        {"signature": bytes(64)},
    ],
)
def test_a_changed_approval_is_none(change: dict[str, Any]) -> None:
    """RO-04."""
    assert valid(replace(OFFICER, **change), PURPOSE, HASH, RIGHTS, NOW) is None


def test_an_approval_ends() -> None:
    """G-HUMAN: four hours."""
    assert valid(OFFICER, PURPOSE, HASH, RIGHTS, NOW + LIFETIME - timedelta(seconds=1)) is not None
    assert valid(OFFICER, PURPOSE, HASH, RIGHTS, NOW + LIFETIME) is None
    assert valid(OFFICER, PURPOSE, HASH, RIGHTS, NOW - timedelta(seconds=1)) is None


def test_an_approval_is_read_as_it_was_written() -> None:
    assert parse_approval(OFFICER.encode()) == OFFICER
    for bad in ({}, {**OFFICER.encode(), "role": "king"}, {**OFFICER.encode(), "signature": "no hex"}):
        with pytest.raises(BadApprovalError):
            parse_approval(bad)
