"""The leaf JE1: what it holds, and that it has one spelling."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import AN_ENTRY

from schleuse.errors import MalformedError
from schleuse.journal.entry import (
    FIXED,
    MAX_ENTRY,
    BadEntryError,
    Entry,
    ExtensionType,
    Kind,
    Purpose,
    Result,
    parse_entry,
)

PSEUDONYMS = st.binary(min_size=16, max_size=16)
HASHES = st.binary(min_size=32, max_size=32)
EVENTS = st.uuids()
ENTRIES = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    result=st.sampled_from(Result),
    purpose=st.sampled_from(Purpose),
    at=st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),
    event=EVENTS,
    actor=PSEUDONYMS,
    subject=PSEUDONYMS,
    object=HASHES,
    detail=HASHES,
    second_actor=st.none() | PSEUDONYMS,
    refers_to=st.none() | EVENTS,
    count=st.none() | st.integers(0, 2**32 - 1),
    release_counter=st.none() | st.integers(0, 2**64 - 1),
    institution=st.none() | PSEUDONYMS,
    subject_key_version=st.none() | st.integers(0, 2**32 - 1),
    unknown=st.dictionaries(st.just(0) | st.integers(7, 255), st.binary(max_size=50), max_size=3).map(
        lambda found: tuple(sorted(found.items()))
    ),
)


@given(ENTRIES)
def test_an_entry_comes_back_from_its_bytes(entry: Entry) -> None:
    assert parse_entry(entry.encode()) == entry


@given(ENTRIES, st.data())
def test_damaged_bytes_are_malformed_or_another_entry_with_these_bytes(entry: Entry, data: st.DataObject) -> None:
    octets = bytearray(entry.encode())
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    octets += data.draw(st.binary(max_size=3))
    try:
        found = parse_entry(bytes(octets))
    except MalformedError:
        return
    assert found.encode() == octets
    assert found != entry


@given(st.binary(max_size=8), st.binary(min_size=100, max_size=300))
def test_noise_behind_the_magic_is_malformed_or_an_entry(head: bytes, rest: bytes) -> None:
    data = b"JE1\n" + head + rest
    try:
        assert parse_entry(data).encode() == data
    except MalformedError:
        return


def test_without_extensions_an_entry_has_128_bytes() -> None:
    assert len(replace(AN_ENTRY, release_counter=None, subject_key_version=None).encode()) == FIXED


def test_extensions_stand_in_ascending_order_whatever_their_field_was() -> None:
    entry = replace(AN_ENTRY, unknown=((0, b"a"), (9, b"")), second_actor=bytes(16))
    assert entry.encode()[FIXED:] == (
        b"\0\0\x01a"
        + b"\x01\0\x10"
        + bytes(16)
        + b"\x04\0\x08"
        + (77).to_bytes(8)
        + b"\x06\0\x04\0\0\0\x03"
        + b"\x09\0\0"
    )


@pytest.mark.parametrize(
    "extensions",
    [
        b"\x07",
        b"\x07\0",
        b"\x07\0\x01",
        b"\x07\0\x02a",
        b"\x07\0\0\x07\0\0",  # twice
        b"\x08\0\0\x07\0\0",  # descending
        b"\x03\0\x03abc",  # a count of three bytes
        b"\x06\0\x05abcde",
        b"\x01\0\0",
        b"\xff\x03\xff" + bytes(1023),  # beyond 1,024 bytes in all
    ],
)
def test_extensions_that_break_a_rule_are_malformed(extensions: bytes) -> None:
    with pytest.raises(BadEntryError):
        parse_entry(AN_ENTRY.encode()[:FIXED] + extensions)


def test_an_entry_may_have_exactly_the_most_bytes() -> None:
    entry = replace(AN_ENTRY, release_counter=None, subject_key_version=None, unknown=((7, bytes(1024 - 128 - 3)),))
    assert len(entry.encode()) == MAX_ENTRY
    with pytest.raises(BadEntryError):
        replace(entry, unknown=((7, bytes(1024 - 128 - 2)),))


@pytest.mark.parametrize(("offset", "value"), [(4, 0x00), (4, 0x15), (4, 0x7E), (5, 4), (6, 1), (7, 13)])
def test_kinds_results_and_purposes_are_closed_lists(offset: int, value: int) -> None:
    octets = bytearray(AN_ENTRY.encode())
    octets[offset] = value
    with pytest.raises(BadEntryError):
        parse_entry(bytes(octets))


@pytest.mark.parametrize(
    "change",
    [
        {"actor": bytes(15)},
        {"subject": bytes(17)},
        {"object": bytes(16)},
        {"detail": b""},
        {"second_actor": b"1"},
        {"institution": bytes(32)},
        {"count": -1},
        {"count": 2**32},
        {"release_counter": 2**64},
        {"subject_key_version": 2**32},
        {"at": datetime(2027, 1, 1)},
        {"at": datetime(1969, 12, 31, tzinfo=UTC)},
        {"unknown": ((6, bytes(4)),)},
        {"unknown": ((7, b""), (7, b""))},
        {"unknown": ((256, b""),)},
        {"unknown": ((7, bytes(70_000)),)},
    ],
)
def test_an_entry_that_exists_is_valid(change: dict[str, Any]) -> None:
    with pytest.raises(BadEntryError):
        replace(AN_ENTRY, **change)


def test_the_time_is_an_instant_whatever_its_zone() -> None:
    berlin = AN_ENTRY.at.astimezone(timezone(timedelta(hours=1)))
    assert replace(AN_ENTRY, at=berlin).encode() == AN_ENTRY.encode()
    assert AN_ENTRY.time_us == 1_800_000_000_123_456


def test_a_time_beyond_the_calendar_is_malformed_not_an_overflow() -> None:
    octets = bytearray(AN_ENTRY.encode())
    octets[8:16] = b"\xff" * 8
    with pytest.raises(BadEntryError):
        parse_entry(bytes(octets))


def test_the_numbers_of_the_kinds_are_those_of_the_reference() -> None:
    """journal.md § 4; a number once given never changes."""
    numbers = "01 02 10 11 12 13 14 20 21 22 23 30 31 32 40 41 42 43 50 51 60 61 7f"
    assert sorted(Kind) == [int(number, 16) for number in numbers.split()]
    assert sorted(Result) == [0, 1, 2, 3]
    assert sorted(Purpose) == list(range(len(Purpose)))
    assert sorted(ExtensionType) == [1, 2, 3, 4, 5, 6]


def test_an_entry_can_be_printed_because_it_names_nobody() -> None:
    assert UUID("01890a5d-ac96-774b-bcce-b302099a8057") == AN_ENTRY.event
    assert "KEY_RELEASED" in repr(AN_ENTRY)
