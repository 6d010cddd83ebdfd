"""Agreed policies: two persons, versions, cosignatures, a time; the automat closes by nothing else (EW-06, § 10)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.shutdown.operators import KEYS, NOW, RIGHTS, new_log
from tests.switch.commands import person

from schleuse.journal.opening import Json, canonical_json
from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.shutdown.automat import Automat, NoMandateError, Order
from schleuse.shutdown.policy import (
    BadPolicyError,
    Policy,
    PolicyBook,
    PolicyExistsError,
    PolicyNotKeptError,
    PolicyNotSignedError,
    SignedPolicy,
    concerned,
    cosigners,
    missing,
    parse_policy,
)
from schleuse.switch.documents import Rights, Role

IK, OTHER = "109500969", "109900011"
CHIEF, CHIEF_KEY = person("isb", Role.SECURITY_OFFICER)
LEAD, LEAD_KEY = person("lead", Role.LEAD)
AUDITOR, AUDITOR_KEY = person("auditor", Role.AUDITOR)
BOTH, BOTH_KEY = person("both", Role.SECURITY_OFFICER, Role.LEAD)
PEOPLE = Rights([CHIEF, LEAD, AUDITOR, BOTH])
FEED = {(ik, "kasse"): Ed25519PrivateKey.generate() for ik in (IK, OTHER)}
FEED_KEYS = {name: key.public_key() for name, key in FEED.items()}
POLICY = Policy(
    "abfluss",
    1,
    "egress.volume",
    (Scope("eau_intake", IK), Scope("keys", IK)),
    ScopeState.HOLD,
    (IK,),
    False,
    "eine Stunde Verzug",
    "",
    NOW,
    NOW + timedelta(days=30),
)


def agreed(policy: Policy = POLICY) -> SignedPolicy:
    signed = SignedPolicy(policy).signed("isb", Role.SECURITY_OFFICER.value, CHIEF_KEY)
    return signed.signed("lead", Role.LEAD.value, LEAD_KEY)


def lacks(signed: SignedPolicy, rights: Rights = PEOPLE) -> str:
    return "; ".join(missing(signed, rights, FEED_KEYS, NOW))


@pytest.fixture
def book(tmp_path: Path) -> PolicyBook:
    return PolicyBook(tmp_path / "policies", PEOPLE, FEED_KEYS)


def test_a_policy_of_two_persons_is_in_force(book: PolicyBook) -> None:
    """§ 10: security officer and lead."""
    book.add(agreed())
    assert book.valid("abfluss", NOW) == POLICY
    assert book.valid("other", NOW) is None
    assert book.all() == ([agreed()], [])


@pytest.mark.parametrize("only", ["isb", "lead"])
def test_one_person_agrees_to_nothing(only: str) -> None:
    """RO-01; also one who has both roles."""
    one = replace(agreed(), signatures=tuple(one for one in agreed().signatures if one.name == only))
    assert "two persons" in lacks(one)
    both = SignedPolicy(POLICY)
    for role in (Role.SECURITY_OFFICER, Role.LEAD):
        both = both.signed("both", role.value, BOTH_KEY)
    assert "two persons" in lacks(both)
    assert lacks(both.signed("lead", Role.LEAD.value, LEAD_KEY)) == ""


def test_two_accounts_of_one_person_agree_to_nothing() -> None:
    """T-12."""
    assert "two persons" in lacks(agreed(), Rights([CHIEF, replace(LEAD, person="isb")]))


def test_one_key_under_two_names_agrees_to_nothing() -> None:
    """T-12: one key is one person, whatever its names."""
    twin = replace(LEAD, key=CHIEF.key)
    signed = SignedPolicy(POLICY).signed("isb", Role.SECURITY_OFFICER.value, CHIEF_KEY)
    signed = signed.signed("lead", Role.LEAD.value, CHIEF_KEY)
    assert "two persons" in lacks(signed, Rights([CHIEF, twin]))
    assert lacks(agreed()) == ""


def test_a_disabled_credential_agrees_no_longer() -> None:
    """Without a person who answers for it, a rule closes nothing by itself."""
    assert "two persons" in lacks(agreed(), Rights([replace(CHIEF, until=NOW), LEAD]))
    assert lacks(agreed(), Rights([replace(CHIEF, until=NOW + timedelta(seconds=1)), LEAD])) == ""


def test_a_signature_is_of_its_words_its_role_and_its_key() -> None:
    """RO-04."""
    for changed in (
        replace(agreed(), policy=replace(POLICY, cost="nichts")),
        SignedPolicy(POLICY, tuple(replace(one, role="lead") for one in agreed().signatures)),
        SignedPolicy(POLICY, tuple(replace(one, value=bytes(64)) for one in agreed().signatures)),
    ):
        assert "two persons" in lacks(changed)


@pytest.mark.parametrize(
    ("name", "role", "key"),
    [("auditor", "auditor", AUDITOR_KEY), ("auditor", "lead", AUDITOR_KEY), ("nobody", "lead", LEAD_KEY)]
    + [("lead", "lead", CHIEF_KEY), ("kasse", f"insurer:{OTHER}", FEED[OTHER, "kasse"])]
    + [("kasse", f"insurer:{IK}", FEED[OTHER, "kasse"]), ("nobody", f"insurer:{IK}", FEED[IK, "kasse"])],
)
def test_whose_signature_counts_for_nothing_is_refused(
    book: PolicyBook, name: str, role: str, key: Ed25519PrivateKey
) -> None:
    with pytest.raises(PolicyNotSignedError):
        book.add(SignedPolicy(POLICY).signed(name, role, key))
    assert book.all() == ([], [])


def test_an_insurer_cosigns_with_the_key_of_its_feed_client(book: PolicyBook) -> None:
    """Issue 4 A: policies are agreed with the insurers."""
    policy = replace(POLICY, cosign=True)
    book.add(agreed(policy))
    assert book.valid("abfluss", NOW) is None
    assert lacks(agreed(policy)) == f"the cosignature of {IK}"
    book.add(SignedPolicy(policy).signed("kasse", f"insurer:{IK}", FEED[IK, "kasse"]))
    assert book.valid("abfluss", NOW) == policy
    assert cosigners(book.read("abfluss@1"), PEOPLE, FEED_KEYS) == [IK]


def test_signatures_are_collected_one_by_one(book: PolicyBook) -> None:
    for one in agreed().signatures:
        book.add(SignedPolicy(POLICY, (one,)))
    book.add(SignedPolicy(POLICY, agreed().signatures[:1]))
    assert set(book.read("abfluss@1").signatures) == set(agreed().signatures)


def test_a_version_never_changes_its_words(book: PolicyBook) -> None:
    book.add(agreed())
    with pytest.raises(PolicyExistsError):
        book.add(agreed(replace(POLICY, state=ScopeState.CLOSED)))


def test_the_newest_version_in_force_counts(book: PolicyBook) -> None:
    second = replace(POLICY, version=2, state=ScopeState.DEFER)
    book.add(agreed())
    book.add(replace(agreed(second), signatures=agreed(second).signatures[:1]))
    assert book.valid("abfluss", NOW) == POLICY
    book.add(agreed(second))
    assert book.valid("abfluss", NOW) == second
    book.add(agreed(replace(second, version=10)))
    assert book.valid("abfluss", NOW) == replace(second, version=10)


def test_a_policy_has_its_time(book: PolicyBook) -> None:
    book.add(agreed())
    assert book.valid("abfluss", NOW - timedelta(seconds=1)) is None
    assert book.valid("abfluss", POLICY.valid_until - timedelta(seconds=1)) == POLICY
    assert book.valid("abfluss", POLICY.valid_until) is None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"name": ""},
        {"version": 0},
        {"trigger": " "},
        {"cost": ""},
        {"scopes": ()},
        {"state": ScopeState.OPEN},
        {"state": ScopeState.LIMITED},
        {"valid_until": NOW},
        {"insurers": ()},
        {"insurers": (OTHER,)},
        {"cosign": True, "insurers": (), "scopes": (Scope("kim_mail"),)},
    ],
)
def test_what_is_no_policy_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(BadPolicyError):
        replace(POLICY, **change)


def test_a_file_that_is_none_permits_nothing_and_is_named(book: PolicyBook, tmp_path: Path) -> None:
    book.add(agreed())
    folder = tmp_path / "policies"
    (folder / "x@1.json").write_bytes(b"{}")
    (folder / "y@1.json").write_bytes(agreed().encode())
    (folder / "abfluss@2.json").write_bytes(b"x" * 70_000)
    found, bad = book.all()
    assert (len(found), bad) == (1, ["abfluss@2.json", "x@1.json", "y@1.json"])
    with pytest.raises(PolicyNotKeptError):
        book.read("none@1")
    for reference in ("none", "../../x@1", "x@y"):
        with pytest.raises(BadPolicyError):
            book.read(reference)


def test_a_policy_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "policies").write_text("")
    with pytest.raises(PolicyNotKeptError):
        PolicyBook(tmp_path / "policies", PEOPLE, FEED_KEYS).add(agreed())


def test_a_policy_is_read_as_it_was_written() -> None:
    wide = replace(POLICY, scopes=(Scope("*", IK, "process"), *parse_scopes("kim_mail/-/accept")))
    for one in (agreed(), agreed(wide), SignedPolicy(POLICY)):
        assert parse_policy(one.encode()) == one


@given(st.data())
def test_a_damaged_file_is_refused_or_not_in_force(data: st.DataObject) -> None:
    octets = bytearray(agreed().encode())
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = parse_policy(bytes(octets))
    except BadPolicyError:
        return
    assert found.policy == POLICY or lacks(found)


def test_whom_a_policy_concerns_follows_from_its_scopes() -> None:
    assert concerned(parse_scopes("eau"), [IK, OTHER]) == (IK, OTHER)
    assert concerned([Scope("keys", IK)], [IK, OTHER]) == (IK,)
    assert concerned(parse_scopes("kim_mail/-"), [IK]) == ()


Close = Callable[..., Any]


@pytest.fixture
def close(book: PolicyBook, tmp_path: Path) -> Close:
    automat = Automat(new_log(tmp_path / "log"), "automat", lambda: KEYS["automat"], book, lambda: NOW)

    def order(scopes: str, state: ScopeState = ScopeState.HOLD, policy: str = "abfluss") -> Any:
        return automat.close(Order("id", NOW, policy, parse_scopes(scopes), state, "text"))

    return order


def test_the_automat_closes_by_a_policy_in_force_and_cites_it(book: PolicyBook, close: Close) -> None:
    """EW-06: NAME@VERSION in the command."""
    with pytest.raises(NoMandateError):
        close(f"eau_intake/{IK}")
    book.add(agreed())
    accepted = close(f"eau_intake/{IK}/process")
    assert accepted.signed.command.policy == "abfluss@1"
    assert "automat" in RIGHTS.people()


@pytest.mark.parametrize(
    ("scopes", "state"),
    [("eau_intake", ScopeState.HOLD), (f"eau_intake/{OTHER}", ScopeState.HOLD), (f"keys/{IK}", ScopeState.CLOSED)],
)
def test_the_automat_closes_nothing_beyond_its_policy(
    book: PolicyBook, close: Close, scopes: str, state: ScopeState
) -> None:
    book.add(agreed())
    with pytest.raises(NoMandateError):
        close(scopes, state)


@pytest.mark.parametrize("key", ["name", "version", "trigger", "scopes", "state", "insurers", "cost", "valid_from"])
@pytest.mark.parametrize("value", [3, [], {}, [[]], ""])
def test_a_file_of_another_type_is_no_policy_and_stops_no_other(book: PolicyBook, key: str, value: Json) -> None:
    """SW-01: one file that somebody has written must not keep the others from closing."""
    book.add(agreed())
    table = json.loads(agreed().encode())
    (book._folder / "other@1.json").write_bytes(
        canonical_json({**table, "policy": {**table["policy"], "name": "other", key: value}})
    )
    assert book.valid("abfluss", NOW) == POLICY


def test_a_file_that_is_nested_too_deep_is_no_policy(book: PolicyBook) -> None:
    book.add(agreed())
    (book._folder / "other@1.json").write_bytes(b"[" * 60_000)
    assert book.all() == ([agreed()], ["other@1.json"])
