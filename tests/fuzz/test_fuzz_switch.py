"""Documents and epochs of the switch that are damaged are malformed or unreadable, and nothing else (SW-02).

What is damaged never counts: its signature does not match, or nobody can read it, and then it closes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shutdown.operators import CLOSER, NOW, OPENERS, RIGHTS, closing, opening, signed

from schleuse.journal.opening import canonical_json
from schleuse.switch.documents import BadCommandError, NotAuthorisedError, parse_signed
from schleuse.switch.log import GENESIS, SwitchLog, _epoch

LOG = SwitchLog(Path("/nowhere"), RIGHTS)
SEEDS = {
    "closing": signed(closing("eau/109500969", limit=None), CLOSER),
    "opening": signed(opening("kim", 3, closes_at=NOW), OPENERS),
}
OCTETS = {name: canonical_json(one.encode()) for name, one in SEEDS.items()}
EPOCHS = {name: _epoch(1, NOW, GENESIS, one) for name, one in SEEDS.items()}
#: Values that break times, scopes, numbers and texts.
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["", "*", "-", "//", "eau", "Z", "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z", "\ud800"]),
    st.sampled_from([-1, 0, 1, 2**53 - 1, [], {}, [[]], ["*/*/*/*"], None, 1.5, True]),
    st.text(max_size=10),
)


def damaged(octets: bytes, data: st.DataObject) -> bytes:
    found = bytearray(octets)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(found) - 1))
        found[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        found = found or bytearray(1)
    return bytes(found)


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_document_with_damaged_octets_is_malformed_or_not_authorised(seed: str, data: st.DataObject) -> None:
    octets = damaged(OCTETS[seed], data)
    try:
        found = parse_signed(octets)
    except BadCommandError:
        return
    assert canonical_json(found.encode()) != OCTETS[seed] or octets == OCTETS[seed]
    try:
        RIGHTS.check(found)
    except NotAuthorisedError:
        return
    assert found == SEEDS[seed], "nothing but what was signed passes"


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_document_with_damaged_values_is_malformed_or_not_authorised(seed: str, data: st.DataObject) -> None:
    table: Any = json.loads(OCTETS[seed])
    for _ in range(data.draw(st.integers(1, 3))):
        damage(table, data)
    try:
        found = parse_signed(json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        RIGHTS.check(found)
    except (BadCommandError, NotAuthorisedError, UnicodeEncodeError):
        return
    assert found.command == SEEDS[seed].command, "nothing but what was signed passes"


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_epoch_closes_or_has_no_effect(seed: str, data: st.DataObject) -> None:
    octets = damaged(EPOCHS[seed], data)
    found = LOG.judge(1, octets, GENESIS, ())
    if found.signed is not None and not found.fault:
        # The time of acceptance is nobody's signature; what was ordered is.
        assert found.signed.command == SEEDS[seed].command


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_noise_closes(octets: bytes) -> None:
    rule = LOG.judge(1, octets, GENESIS, ()).rule
    assert rule is not None
    assert rule.command is None


def damage(table: Any, data: st.DataObject) -> None:
    """One value anywhere is replaced, removed or added."""
    place = table
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            break
        place = place[key]
    match data.draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            place[key] = copy.deepcopy(data.draw(VALUES))
        case "remove":
            del place[key]
        case _ if isinstance(place, dict):
            place[data.draw(st.text(max_size=5))] = copy.deepcopy(data.draw(VALUES))
        case _:
            place.append(copy.deepcopy(data.draw(VALUES)))
