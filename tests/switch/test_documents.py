"""What is signed, and whose signatures suffice: one closes, two different persons open (SW-01, SW-03, RO-01, T-12)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shutdown.operators import BREAKERS, CLOSER, KEYS, NOW, OPENERS, RIGHTS, ROLES, closing, opening, signed
from tests.switch.commands import commands, person

from schleuse.journal.opening import canonical_json
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.documents import (
    CLOSERS,
    MAX_DOCUMENT,
    BadCommandError,
    Command,
    Kind,
    Limit,
    NotAuthorisedError,
    Person,
    Rights,
    Role,
    SignedCommand,
    UnknownSignerError,
    parse_signed,
    sign,
)

HOLD_EAU = signed(closing("eau/*"), CLOSER)


@settings(max_examples=60)
@given(commands())
def test_a_signed_command_is_read_as_it_was_written(command: Command) -> None:
    before = signed(command, CLOSER)
    after = parse_signed(canonical_json(before.encode()))
    assert after == before
    assert after.command.hash == command.hash


@settings(max_examples=40)
@given(commands(), commands())
def test_two_different_commands_have_different_hashes(one: Command, other: Command) -> None:
    """RO-04: an approval is bound to the content."""
    assert (one.hash == other.hash) == (one == other)


def encoded(change: Callable[[dict[str, Any]], object]) -> bytes:
    table: Any = json.loads(canonical_json(signed(opening("eau_intake", 0), OPENERS).encode()))
    change(table)
    return canonical_json(table)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["command"].update(colour="red"),
        lambda table: table["command"].pop("told"),
        lambda table: table["command"].update(version=2),
        lambda table: table["command"].update(state="AJAR"),
        lambda table: table["command"].update(requested_at="2026-03-01T12:00:00+00:00"),
        lambda table: table["command"].update(requested_at="2026-03-01T12Z"),
        lambda table: table["command"].update(scopes=[]),
        lambda table: table["command"].update(scopes=["eau"]),
        lambda table: table["command"].update(scopes=["eau_intake/*"]),
        lambda table: table["command"].update(scopes="eau_intake"),
        lambda table: table["command"].update(text=7),
        lambda table: table["command"]["opening"].update(colour="red"),
        lambda table: table["command"]["opening"].update(with_backlog=2),
        lambda table: table["command"]["opening"].update(expires_at=""),
        lambda table: table["command"].update(limit={"permille": 5}),
        lambda table: table["signatures"][0].update(role="king"),
        lambda table: table["signatures"][0].update(value="zz"),
        lambda table: table.pop("signatures"),
    ],
)
def test_a_document_that_says_more_or_less_or_otherwise_is_none(change: Callable[[dict[str, Any]], object]) -> None:
    assert parse_signed(encoded(lambda _: None))
    with pytest.raises(BadCommandError):
        parse_signed(encoded(change))


def test_another_spelling_of_the_same_document_is_none() -> None:
    octets = canonical_json(HOLD_EAU.encode())
    for other in (octets + b" ", octets.replace(b":", b": ", 1), b"\xef\xbb\xbf" + octets, b"{}", b"[]", b"\xff"):
        with pytest.raises(BadCommandError):
            parse_signed(other)
    with pytest.raises(BadCommandError, match="at most"):
        parse_signed(b" " * (MAX_DOCUMENT + 1))


def test_a_command_that_contradicts_itself_cannot_be_made() -> None:
    hold = closing("eau_intake")
    wrong: list[dict[str, Any]] = [
        {"scopes": ()},
        {"state": ScopeState.OPEN},
        {"state": ScopeState.LIMITED},
        {"limit": Limit(5)},
        {"opening": True},
        {"opening": True, "expires_at": NOW, "kind": Kind.AUTOMATIC},
        {"text": "x" * 2001},
        {"basis": 3},
        {"closes_at": NOW},
        {"plan": "p"},
    ]
    for change in wrong:
        with pytest.raises(BadCommandError):
            replace(hold, **change)
    for values in ((None, None), (1001, None), (-1, None), (None, -1)):
        with pytest.raises(BadCommandError):
            Limit(*values)


@pytest.mark.parametrize("role", Role)
def test_one_person_closes_in_a_role_that_may_and_in_no_other(role: Role) -> None:
    """RO-03: SW-01; § 10."""
    who, key = person("p", role)
    command = replace(closing("eau_intake"), actor="p")
    order = SignedCommand(command, (sign(command, "p", role, key),))
    if role in CLOSERS:
        Rights([who]).check(order)
    else:
        with pytest.raises(NotAuthorisedError):
            Rights([who]).check(order)


@given(st.lists(st.sampled_from([(name, role) for name in ROLES for role in sorted(ROLES[name])]), max_size=4))
def test_what_opens_has_two_persons_in_two_roles_or_is_an_emergency(signers: list[tuple[str, Role]]) -> None:
    """Whatever the signatures are (RO-01, RS-14)."""
    command = replace(opening("eau_intake", 0), actor=signers[0][0] if signers else "officer")
    emergency = replace(command, closes_at=NOW + timedelta(hours=1))
    ordinary = {("officer", Role.SWITCH_OFFICER), ("releaser", Role.RELEASER)} <= set(signers)
    broken = {("breaker-1", Role.BREAK_GLASS), ("breaker-2", Role.BREAK_GLASS)} <= set(signers)
    assert passes(RIGHTS, signed(command, signers)) == ordinary
    assert passes(RIGHTS, signed(emergency, signers)) == (ordinary or broken)


def test_the_same_person_with_two_accounts_opens_nothing() -> None:
    """T-12."""
    first, first_key = person("a", Role.SWITCH_OFFICER, of="Mueller")
    second, second_key = person("b", Role.RELEASER, of="Mueller")
    assert not opens(first, second, first_key, second_key)
    assert opens(first, replace(second, person="Schmidt"), first_key, second_key)


def test_one_key_under_two_names_is_one_person() -> None:
    """T-12, where somebody configured a key twice."""
    first, key = person("a", Role.SWITCH_OFFICER)
    assert not opens(first, Person("b", "b", frozenset({Role.RELEASER}), key.public_key()), key, key)


def test_one_person_in_both_roles_opens_nothing() -> None:
    """RO-01: at most one side of a pair."""
    both, key = person("a", Role.SWITCH_OFFICER, Role.RELEASER)
    assert not opens(both, both, key, key)


def test_a_signature_is_good_for_its_role_and_its_command_only() -> None:
    """RO-04, T-12: the approval of a changed plan is void."""
    command = opening("eau_intake", 0)
    [first, second] = signed(command, OPENERS).signatures
    changed = replace(command, scopes=(Scope("eau_intake"), Scope("keys")))
    for bad in (
        SignedCommand(changed, (first, second)),
        SignedCommand(command, (replace(first, role=Role.LEAD), second)),
        SignedCommand(command, (first, replace(second, operator="officer"))),
        SignedCommand(command, (second, first)),
        SignedCommand(command, (first, replace(second, value=bytes(64)))),
        SignedCommand(command, (first, replace(second, value=b""))),
    ):
        assert not passes(RIGHTS, bad)


def test_an_automat_opens_nothing_whoever_signs_with_it() -> None:
    """SW-03."""
    command = replace(opening("eau_intake", 0), actor="automat")
    assert not passes(RIGHTS, signed(command, (("automat", Role.AUTOMAT), ("releaser", Role.RELEASER))))


def test_an_emergency_says_when_it_ends() -> None:
    """RS-14."""
    command = replace(opening("eau_intake", 0), actor="breaker-1")
    assert not passes(RIGHTS, signed(command, BREAKERS))
    assert passes(RIGHTS, signed(replace(command, closes_at=NOW), BREAKERS))


def test_analysts_close_everything_together_and_a_part_alone() -> None:
    """§ 10."""
    (one, one_key), (other, other_key) = person("a", Role.ANALYST), person("b", Role.ANALYST)
    rights = Rights([one, other])
    for scopes, suffices in (("eau/*", True), ("all", False), ("*/109500969", True)):
        command = replace(closing(scopes), actor="a")
        alone = SignedCommand(command, (sign(command, "a", Role.ANALYST, one_key),))
        both = replace(alone, signatures=(*alone.signatures, sign(command, "b", Role.ANALYST, other_key)))
        assert (passes(rights, alone), passes(rights, both)) == (suffices, True)


def test_a_disabled_credential_orders_nothing_new_and_what_it_ordered_stays() -> None:
    who, key = person("p", Role.LEAD, until=NOW)
    command = replace(closing("eau_intake"), actor="p")
    order = SignedCommand(command, (sign(command, "p", Role.LEAD, key),))
    rights = Rights([who])
    rights.check(order, NOW - timedelta(seconds=1))
    with pytest.raises(UnknownSignerError, match="disabled"):
        rights.check(order, NOW)


def opens(first: Person, second: Person, first_key: Any, second_key: Any) -> bool:
    command = replace(opening("eau_intake", 0), actor=first.name)
    order = SignedCommand(
        command,
        (
            sign(command, first.name, Role.SWITCH_OFFICER, first_key),
            sign(command, second.name, Role.RELEASER, second_key),
        ),
    )
    return passes(Rights([first, second]), order)


def passes(rights: Rights, order: SignedCommand) -> bool:
    try:
        rights.check(order)
    except NotAuthorisedError:
        return False
    return True


def test_the_keys_of_these_tests_belong_to_the_operators() -> None:
    assert set(KEYS) == set(RIGHTS.people())
