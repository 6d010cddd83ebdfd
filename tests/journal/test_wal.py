"""Frames and segments of the write-ahead log (journal.md § 12.1), and where a damaged one ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.faulty_disk import FaultyDisk, When, nth

from schleuse.journal.disk import OsDisk
from schleuse.journal.frame import (
    FIRST_CHAIN,
    BadFrameError,
    Control,
    CosignatureLines,
    MinimumIndex,
    NewLog,
    SignedCheckpoint,
    build,
    continues,
    pack_control,
    pack_records,
    parse_control,
    parse_head,
    records,
)
from schleuse.journal.wal import START, Frame, Position, Wal, Walk, segment_name

DOMAIN = Path(__file__).parents[3] / "shared" / "domain" / "journal.md"
SEGMENT = 16 * 4096


def vectors() -> dict[str, object]:
    if not DOMAIN.exists():
        pytest.skip("the domain reference with its vectors is not on this machine")
    table = re.findall(r"```json\n(.*?)\n```", DOMAIN.read_text(encoding="utf-8"), re.DOTALL)[-1]
    wal = json.loads(table)["wal"]
    assert isinstance(wal, dict)
    return wal


def test_frames_are_those_of_the_vectors() -> None:
    wal = vectors()
    body = pack_records(0, [b"leaf-0", b"leaf-1"])
    frame, chain = build(body, count=2, batch=0, time=int(str(wal["time_us"])), chain=FIRST_CHAIN)
    wanted = bytes.fromhex(str(wal["frame_without_padding"]))
    assert frame == wanted.ljust(int(str(wal["padded_length"])), b"\0")
    assert chain.hex() == wal["chain_0"]
    following = wal["next"]
    assert isinstance(following, dict)
    _, chain = build(pack_records(0, [b"leaf-2"]), count=1, batch=1, time=following["time_us"], chain=chain)
    assert chain.hex() == following["chain_1"]


@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(0, 0xFFFF), st.integers(0, 2**64 - 1))
def test_a_frame_gives_back_what_was_put_in(values: list[bytes], number: int, batch: int) -> None:
    body = pack_records(number, values)
    frame, chain = build(body, count=len(values), batch=batch, time=7, chain=b"\1" * 32)
    assert len(frame) % 4096 == 0
    head = parse_head(frame)
    assert head is not None
    assert (head.batch, head.count, head.time, head.padded) == (batch, len(values), 7, len(frame))
    assert continues(frame, head, b"\1" * 32) == chain
    assert list(records(body, len(values))) == [(number, value) for value in values]


@given(st.integers(0, 4095), st.integers(1, 255))
def test_any_changed_byte_of_a_frame_breaks_it(place: int, change: int) -> None:
    frame, _ = build(pack_records(3, [b"x" * 100]), count=1, batch=5, time=9, chain=FIRST_CHAIN)
    bad = bytearray(frame)
    bad[place] ^= change
    head = parse_head(bytes(bad))
    assert head is None or head.padded != len(bad) or continues(bytes(bad), head, FIRST_CHAIN) is None


@pytest.mark.parametrize("body", [b"\0", b"\0\0\0\5abc", pack_records(0, [b"a", b"b"])])
def test_a_body_that_does_not_fit_its_count_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrameError):
        list(records(body, 1))


@pytest.mark.parametrize(
    "record",
    [
        NewLog(7, "journal.example/kasse-a/2027"),
        SignedCheckpoint(2, b"text\n\n\xe2\x80\x94 name AAAA\n"),
        CosignatureLines(2, 99, b"line\n"),
        MinimumIndex(0xFFFE, 2**63),
    ],
)
def test_control_records_come_back(record: Control) -> None:
    assert parse_control(pack_control(record)) == record


@pytest.mark.parametrize("data", [b"", b"\1", b"\5\0\1", b"\4\0\1\0", b"\3\0\1", b"\1\0\1\xff"])
def test_what_is_no_control_record_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrameError):
        parse_control(data)


def fill(folder: Path, frames: int, *, length: int = 5000) -> Position:
    wal = Wal(folder, OsDisk(), START, segment_size=SEGMENT, spares=2)
    wal.start()
    for number in range(frames):
        body = pack_records(0, [bytes([number + 1]) * length])
        while not wal.make_room(len(body)):
            wal.prepare()
        wal.write(body, 1, number)
    wal.close()
    return wal.position


def walk(folder: Path, start: Position = START) -> tuple[Walk, list[Frame]]:
    walked = Walk(folder, OsDisk(), start, segment_size=SEGMENT)
    return walked, list(walked.frames())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        value = file.read(1)
        file.seek(offset)
        file.write(bytes([value[0] ^ 0x40]))


def test_frames_over_several_segments_are_read_back_and_go_on(tmp_path: Path) -> None:
    end = fill(tmp_path, 20)
    walked, frames = walk(tmp_path)
    assert walked.end == end
    assert [frame.head.batch for frame in frames] == list(range(20))
    assert not walked.torn
    assert walked.findings == []
    again = Wal(tmp_path, OsDisk(), end, segment_size=SEGMENT, spares=1)
    again.start()
    assert again.make_room(10)
    again.write(pack_records(0, [b"more"]), 1, 0)
    assert len(walk(tmp_path)[1]) == 21


def test_one_can_begin_in_the_middle(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    middle = walk(tmp_path)[1][11].position
    walked, frames = walk(tmp_path, middle)
    assert frames[0].position == middle
    assert len(frames) == 9
    assert walked.findings == []


@pytest.mark.parametrize("offset", [0, 4, 13, 33, 70, 4100, 7000])
def test_a_damaged_last_frame_is_a_torn_tail_and_is_erased(tmp_path: Path, offset: int) -> None:
    fill(tmp_path, 3)
    flip(tmp_path / segment_name(0), 2 * 8192 + offset)
    walked, frames = walk(tmp_path)
    assert (len(frames), walked.torn, walked.findings) == (2, True, [])
    walked.erase_torn()
    walked, frames = walk(tmp_path)
    assert (len(frames), walked.torn, walked.findings) == (2, False, [])


def test_a_first_page_that_never_arrived_is_a_torn_tail_too(tmp_path: Path) -> None:
    fill(tmp_path, 9)  # the last one is the first of segment 1
    with (tmp_path / segment_name(1)).open("r+b") as file:
        file.write(bytes(4096))
    walked, frames = walk(tmp_path)
    assert (len(frames), walked.torn, walked.findings) == (8, True, [])
    walked.erase_torn()
    assert walk(tmp_path)[0].torn is False


@pytest.mark.parametrize("offset", [0, 4, 13, 33, 70, 4100, 7000])
@pytest.mark.parametrize("frame", [0, 3, 7])
def test_a_damaged_earlier_frame_is_named(tmp_path: Path, frame: int, offset: int) -> None:
    fill(tmp_path, 20)
    flip(tmp_path / segment_name(0), frame * 8192 + offset)
    walked, frames = walk(tmp_path)
    assert len(frames) == frame
    assert "wal-000000000000" in walked.findings[0]


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    (tmp_path / segment_name(1)).unlink()
    assert "wal-000000000001 is missing" in walk(tmp_path)[0].findings[0]


def test_a_segment_that_was_cut_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    with (tmp_path / segment_name(1)).open("r+b") as file:
        file.truncate(SEGMENT - 4096)
    assert "wal-000000000001" in walk(tmp_path)[0].findings[0]


def test_frames_that_were_erased_before_a_later_segment_are_missed(tmp_path: Path) -> None:
    fill(tmp_path, 9)
    with (tmp_path / segment_name(0)).open("r+b") as file:
        file.seek(7 * 8192)
        file.write(bytes(8192))
    assert "expected 7" in walk(tmp_path)[0].findings[0]


def test_old_segments_are_zeroed_and_used_again(tmp_path: Path) -> None:
    end = fill(tmp_path, 20)
    wal = Wal(tmp_path, OsDisk(), end, segment_size=SEGMENT, spares=3)
    wal.start()
    wal.recycle(below=2)
    while wal.wants_spares:
        wal.prepare()
    assert not (tmp_path / segment_name(0)).exists()
    assert (tmp_path / segment_name(end.segment + 3)).read_bytes() == bytes(SEGMENT)
    last = walk(tmp_path, Position(end.segment, 0, 16, walk_chain(tmp_path, end)))
    assert last[0].findings == []


def walk_chain(folder: Path, end: Position) -> bytes:
    """Chain of the frame before the first of the last segment, from that frame itself being the only continuation."""
    for candidate in _chains(20):
        walked = Walk(folder, OsDisk(), Position(end.segment, 0, 16, candidate), segment_size=SEGMENT)
        if list(walked.frames()):
            return candidate
    raise AssertionError("no chain fits")


def _chains(count: int) -> Iterator[bytes]:
    chain = FIRST_CHAIN
    for number in range(count):
        yield chain
        body = pack_records(0, [bytes([number + 1]) * 5000])
        _, chain = build(body, count=1, batch=number, time=number, chain=chain)


@pytest.mark.parametrize("when", list(When))
def test_a_write_that_failed_leaves_whole_frames_or_a_torn_tail(tmp_path: Path, when: When) -> None:
    disk = FaultyDisk()
    wal = Wal(tmp_path, disk, START, segment_size=SEGMENT, spares=1)
    wal.start()
    wal.write(pack_records(0, [b"a" * 6000]), 1, 0)
    before = wal.position
    disk.choose = nth("write", when)
    with pytest.raises(OSError, match="Input/output"):
        wal.write(pack_records(0, [b"b" * 6000]), 1, 0)
    assert wal.position == before
    walked, frames = walk(tmp_path)
    assert walked.findings == []
    assert len(frames) == 1
