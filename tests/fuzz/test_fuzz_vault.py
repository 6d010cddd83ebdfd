"""Whatever bytes a database gives back as a record or a container: it opens as it was, or as a broken seal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.kek import SoftwareKek
from schleuse.vault.sk1 import kek_id, open_sk1, rewrap
from schleuse.vault.ve1 import open_container, parse_header

VECTORS = json.loads((Path(__file__).parents[1] / "journal" / "vectors.json").read_text())
RECORD, CONTAINER = bytes.fromhex(VECTORS["sk1"]["record"]), bytes.fromhex(VECTORS["ve1"]["container"])
SUBJECT, SK = bytes.fromhex(VECTORS["sk1"]["subject"]), bytes.fromhex(VECTORS["sk1"]["SK"])
KEK = SoftwareKek(7, bytes.fromhex(VECTORS["sk1"]["hsm_kek"]))
NEWER = SoftwareKek(8, bytes(32), {7: bytes.fromhex(VECTORS["sk1"]["hsm_kek"])})


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cut, lengthened, overwritten or shifted pieces of it, or something else behind its magic."""
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, len(whole)))
    return whole[:start] + draw(st.binary(max_size=140)) + whole[end:]


@settings(max_examples=1000)
@given(damaged(RECORD) | st.binary().map(lambda tail: RECORD[:8] + tail))
def test_a_damaged_record_is_never_a_key(record: bytes) -> None:
    if record == RECORD:
        return
    with pytest.raises((SealBrokenError, KeyMissingError)) as caught:
        open_sk1(KEK, record, SUBJECT, 1)
    if isinstance(caught.value, KeyMissingError):  # only where it names a generation that is not here
        assert kek_id(record) != KEK.id


@settings(max_examples=1000)
@given(damaged(RECORD))
def test_a_damaged_record_is_never_wrapped_again(record: bytes) -> None:
    if record == RECORD:
        return
    try:
        assert rewrap(NEWER, record, bytes(12)) is None
    except (SealBrokenError, KeyMissingError):
        return
    assert kek_id(record) == NEWER.id  # left as it is


@settings(max_examples=1000)
@given(damaged(CONTAINER) | st.binary(max_size=300).map(lambda tail: CONTAINER[:8] + tail))
def test_a_damaged_container_is_never_content(container: bytes) -> None:
    if container == CONTAINER:
        return
    with pytest.raises(SealBrokenError):
        open_container(SK, container)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: CONTAINER[:8] + tail))
def test_any_bytes_have_a_header_or_are_no_container(container: bytes) -> None:
    try:
        header = parse_header(container)
    except SealBrokenError:
        return
    assert (header.object_id, header.subject) == (container[8:24], container[32:48])
    assert (header.object_version, header.key_version) == (
        int.from_bytes(container[24:32]),
        int.from_bytes(container[48:52]),
    )
