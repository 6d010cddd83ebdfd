"""Which entries the journal takes (journal.md § 4, acceptance rules; § 13; § 14.1)."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import AN_ENTRY
from tests.journal.test_entry import ENTRIES

from schleuse.journal.admission import REQUIRED, RESERVED, InvalidEntryError, admit, is_for_journal_only, share_request
from schleuse.journal.entry import Entry, ExtensionType, Kind, Result

NOW = AN_ENTRY.time_us
SECOND = 1_000_000
WITH_ALL = replace(AN_ENTRY, second_actor=bytes(16), refers_to=UUID(int=9))


def test_an_entry_that_is_admitted_gives_its_event() -> None:
    assert admit(AN_ENTRY.encode(), NOW) == AN_ENTRY.event.bytes


@pytest.mark.parametrize("difference", [-120 * SECOND, 0, 120 * SECOND])
def test_two_minutes_between_the_clocks_are_tolerated(difference: int) -> None:
    admit(AN_ENTRY.encode(), NOW + difference)


@pytest.mark.parametrize("difference", [-120 * SECOND - 1, 120 * SECOND + 1])
def test_more_than_two_minutes_are_not(difference: int) -> None:
    with pytest.raises(InvalidEntryError):
        admit(AN_ENTRY.encode(), NOW + difference)


def test_an_event_of_zeros_is_refused() -> None:
    with pytest.raises(InvalidEntryError):
        admit(replace(AN_ENTRY, event=UUID(int=0)).encode(), NOW)


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_is_taken_only_with_the_extension_it_needs(kind: Kind) -> None:
    whole = replace(WITH_ALL, kind=kind)
    admit(whole.encode(), NOW)
    bare = replace(whole, second_actor=None, refers_to=None, subject_key_version=None)
    if kind in REQUIRED:
        with pytest.raises(InvalidEntryError):
            admit(bare.encode(), NOW)
    else:
        admit(bare.encode(), NOW)


def test_what_is_required_follows_the_reference() -> None:
    assert {kind for kind, needed in REQUIRED.items() if needed is ExtensionType.SUBJECT_KEY_VERSION} == set(
        range(0x20, 0x24)
    )
    assert REQUIRED[Kind.BUDGET_OVERRIDE] is ExtensionType.SECOND_ACTOR
    assert REQUIRED[Kind.OUTCOME] is ExtensionType.REFERS_TO


@given(st.binary(max_size=200) | ENTRIES.map(Entry.encode).map(lambda data: data[:-1]), st.integers(0, 2**64))
def test_whatever_arrives_is_admitted_or_invalid(data: bytes, now_us: int) -> None:
    try:
        admit(data, now_us)
    except InvalidEntryError:
        return
    assert data[:4] == b"JE1\n"


@pytest.mark.parametrize("kind", Kind)
def test_only_the_vault_writes_about_keys_and_only_the_journal_about_shards(kind: Kind) -> None:
    of_journal = kind in {Kind.LOG_OPENED, Kind.SHARD_CLOSED}
    assert is_for_journal_only(replace(WITH_ALL, kind=kind).encode()) == of_journal
    assert (kind in RESERVED) == (0x20 <= kind <= 0x23 or of_journal)


def test_kinds_about_keys_that_nobody_has_named_yet_are_the_vaults_too() -> None:
    assert set(range(0x20, 0x30)) <= RESERVED


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("result", Result)
def test_a_share_is_earned_by_granted_creation_and_release_alone(kind: Kind, result: Result) -> None:
    entry = replace(WITH_ALL, kind=kind, result=result)
    earned = kind in {Kind.KEY_CREATED, Kind.KEY_RELEASED} and result is Result.GRANTED
    assert share_request(entry.encode()) == ((AN_ENTRY.subject, 3) if earned else None)
