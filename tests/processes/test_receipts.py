"""Receipts of the real record: what holds a delivery now, and the key that signs (§ 6.4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.kim.mails import ELSEWHERE, KASSE, LEASE, PRAXIS, START, a_mail, put
from tests.processes.receipt_site import HELD_AT, INSURER, KEY, InDoubt, Place
from tests.scenarios.platform import build_home

from schleuse.config import Config, read_config
from schleuse.holding.states import State
from schleuse.kim.receipt_text import receipt_text
from schleuse.kim.receipts import keys_of, verify
from schleuse.kim.store import Outcome, Take
from schleuse.kim.store.origins import reference_of
from schleuse.processes.receipts import JWKS, ReceiptKeyError, receipt_key
from schleuse.scopes import ScopeState

FIRST = reference_of("<1@praxis.example>")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read_config(build_home(tmp_path_factory.mktemp("base") / "home"))


@pytest.fixture
def place(config: Config, tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, config)
    yield place
    place.store.close()


def held(place: Place) -> list[tuple[bool, str | None]]:
    return [(one["held"], one["reason_class"]) for one in place.messages(FIRST)]


def test_an_eau_is_held_while_its_insurer_is_and_until_its_backlog_is_released(place: Place) -> None:
    put(place.store, a_mail(1, KASSE))
    assert held(place) == [(False, None)]
    place.hold()
    assert held(place) == [(True, "security_hold")]
    assert place.messages(FIRST)[0]["held_since"] == HELD_AT.strftime("%Y-%m-%dT%H:%M:%SZ")
    place.restart()
    place.open_without_backlog()
    assert held(place) == [(True, "security_hold")]
    place.clock.now += timedelta(minutes=1)
    put(place.store, replace(a_mail(2, KASSE), accepted_at=place.clock.now))
    assert place.messages(reference_of("<2@praxis.example>"))[0]["held"] is False
    place.release()
    assert held(place) == [(False, None)]


def test_an_eau_whose_keys_are_closed_is_held_too(place: Place) -> None:
    put(place.store, a_mail(1, KASSE))
    place.switch.set(f"keys/{INSURER}", ScopeState.CLOSED)
    assert held(place) == [(True, "security_hold")]


def test_letters_are_held_where_they_wait(place: Place) -> None:
    put(place.store, a_mail(1, PRAXIS, ELSEWHERE))
    assert held(place) == [(False, None), (False, None)]
    place.switch.set("kim_mail/-/deliver", ScopeState.HOLD)
    assert held(place) == [(False, None), (True, "security_hold")]
    place.switch.set("kim_mail/-/read", ScopeState.HOLD)
    assert held(place) == [(True, "security_hold"), (True, "security_hold")]


def test_what_was_finished_is_not_held_whatever_the_switch_says(place: Place) -> None:
    put(place.store, a_mail(1, KASSE))
    (claimed,) = place.store.leases.claim([Take(KASSE)], 10, "w", START, LEASE).mails
    place.store.leases.finish([Outcome(claimed.id, State.DELIVERED)], "w", START)
    place.hold()
    assert held(place) == [(False, None)]


def test_a_receipt_names_no_person_and_no_practice(place: Place) -> None:
    """HD-27."""
    put(place.store, a_mail(1, KASSE, ELSEWHERE))
    receipt, token = place.issuer.receipt(place.store.origins.by_reference(FIRST), "here")
    assert not [one for one in (KASSE, ELSEWHERE, PRAXIS) if one in json.dumps(receipt)]
    assert verify(token, [KEY.public_key()]) == receipt


def test_the_key_is_made_once_and_its_public_half_lies_beside_it(tmp_path: Path) -> None:
    key = receipt_key(tmp_path)
    again = receipt_key(tmp_path)
    assert key.private_bytes_raw() == again.private_bytes_raw()
    assert ((tmp_path / "keys/receipts.key").stat().st_mode & 0o777) == 0o600
    (public,) = keys_of((tmp_path / JWKS).read_bytes())
    assert public.public_bytes_raw() == key.public_key().public_bytes_raw()


def test_a_start_that_was_cut_short_makes_the_key_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/receipts.new").write_bytes(b"half")
    receipt_key(tmp_path)
    assert sorted(one.name for one in (tmp_path / "keys").iterdir()) == ["receipts.jwks.json", "receipts.key"]


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    """Receipts that were given must stay verifiable."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/receipts.key").write_bytes(b"damaged")
    with pytest.raises(ReceiptKeyError):
        receipt_key(tmp_path)
    assert (tmp_path / "keys/receipts.key").read_bytes() == b"damaged"


def test_a_role_in_doubt_says_that_it_holds_and_promises_no_news(place: Place) -> None:
    """Nobody knows since when, and nobody has promised anything (CM-03)."""
    put(place.store, a_mail(1, KASSE))
    place.switch = InDoubt()
    receipt, _ = place.issuer.receipt(place.store.origins.by_reference(FIRST), "here")
    (message,) = receipt["messages"]
    assert (message["held"], message["held_since"], message["next_information_by"]) == (True, None, None)
    assert "Nächste Information" not in receipt_text(receipt)
