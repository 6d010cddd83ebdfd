"""The spool on a disk that fails, is cut off, rots, or fills up."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.mail.faulty_disk import Fault, FaultyDisk, Once, When

from schleuse.errors import ConflictError, UnavailableError
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.spool import Condition, Damaged, DamagedRecordError, Disk, Envelope, Kept, OsDisk, Spool
from schleuse.mail.spool.envelope import seal
from schleuse.mail.spool.segments import place_of, position, segment_path
from schleuse.mail.spool.writer import SpoolFullError, default_reserve

AT = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)


def entry(number: int, size: int = 300) -> tuple[Envelope, bytes]:
    head = b"Received: by us\r\nMessage-ID: <%d@a>\r\n\r\n" % number
    content = head + bytes([65 + number % 26]) * size
    return seal(Mail("a@b", (Recipient("c@d"),), content, AT)), content


@contextmanager
def opened(folder: Path, disk: Disk | None = None, segment_bytes: int = 1 << 20, durable: int = 0) -> Iterator[Spool]:
    spool = Spool(disk or OsDisk(), folder, segment_bytes=segment_bytes, reserve=lambda total: 0, durable=durable)
    try:
        yield spool
    finally:
        spool.close()


def ids(spool: Spool) -> list[str]:
    return [item.envelope.message_id for item in spool.scan(0) if isinstance(item, Kept)]


def names(*numbers: int) -> list[str]:
    return [f"<{number}@a>" for number in numbers]


def test_what_was_appended_is_read_back_octet_for_octet(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        batch = [entry(1, 0), entry(2, 7), entry(3, 200_000)]
        spool.append(batch)
        places = [(item.position, item.length) for item in spool.scan(0)]
        assert spool.reader.read(places) == batch


def test_it_is_still_there_after_the_process_has_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([entry(1), entry(2)])
        end = spool.end
    with opened(tmp_path) as spool:
        assert ids(spool) == names(1, 2)
        assert spool.end == end
        spool.append([entry(3)])
        assert ids(spool) == names(1, 2, 3)


def test_a_batch_is_one_write_and_one_flush(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk) as spool:
        spool.append([entry(0)])
        disk.calls.clear()
        spool.append([entry(number) for number in range(1, 101)])
        assert [name for name in disk.calls if name != "room"] == ["write", "sync"]


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as spool:
        for number in range(20):
            spool.append([entry(number, 1000)])
        assert len(spool.reader.numbers()) > 4
        assert ids(spool) == names(*range(20))


def test_a_mail_larger_than_a_segment_is_kept_as_well(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=4096) as spool:
        spool.append([entry(1)])
        spool.append([entry(2, 100_000)])
        assert ids(spool) == names(1, 2)


def test_only_one_process_appends(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(ConflictError):
        Spool(OsDisk(), tmp_path)


def test_no_segment_number_is_used_twice_even_when_the_files_are_gone(tmp_path: Path) -> None:
    with opened(tmp_path, durable=position(41, 64)) as spool:
        spool.append([entry(1)])
        assert spool.reader.numbers() == [42]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("room", When.BEFORE),
        ("write", When.BEFORE),
        ("write", When.AFTER),
        ("sync", When.BEFORE),
        ("sync", When.AFTER),
    ],
)
def test_of_a_failed_batch_nothing_is_kept_and_the_next_one_is(
    tmp_path: Path, name: str, when: When, number: int
) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk) as spool:
        spool.append([entry(1)])
        disk.choose = Once(name, Fault(number, when))
        with pytest.raises(UnavailableError):
            spool.append([entry(2), entry(3)])
        assert ids(spool) == names(1)
        spool.append([entry(4)])
        assert ids(spool) == names(1, 4)
    with opened(tmp_path) as spool:
        assert ids(spool) == names(1, 4)


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk) as spool:
        spool.append([entry(1)])
        disk.choose = Once("write", Fault(when=When.HALF))
        spool.append([entry(2), entry(3)])
        assert ids(spool) == names(1, 2, 3)


@pytest.mark.parametrize("name", ["create", "write", "sync", "sync_directory"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_segment_that_cannot_be_made_is_tried_under_another_number(tmp_path: Path, name: str, when: When) -> None:
    disk = FaultyDisk(Once(name, Fault(errno.ENOSPC, when)))
    with opened(tmp_path, disk) as spool:
        with pytest.raises(UnavailableError):
            spool.append([entry(1)])
        spool.append([entry(2)])
        assert ids(spool) == names(2)
    with opened(tmp_path) as spool:
        assert ids(spool) == names(2)


def test_after_a_failed_flush_the_segment_is_never_written_again(tmp_path: Path) -> None:
    """A second fdatasync would return success for pages that the kernel has dropped (fsyncgate)."""
    disk = FaultyDisk()
    with opened(tmp_path, disk) as spool:
        spool.append([entry(1)])
        disk.choose = Once("sync", Fault())
        with pytest.raises(UnavailableError):
            spool.append([entry(2)])
        spool.append([entry(3)])
        numbers = [place_of(item.position)[0] for item in spool.scan(0)]
        assert numbers == [1, 2]


def test_a_failed_batch_stays_away_even_when_it_could_not_be_cut_off(tmp_path: Path) -> None:
    """The next segment's header says where this one ends."""
    disk = FaultyDisk()
    failing = {"sync", "truncate"}
    with opened(tmp_path, disk) as spool:
        spool.append([entry(1)])
        disk.choose = lambda name: Fault() if name in failing else None
        with pytest.raises(UnavailableError):
            spool.append([entry(2)])
        failing.clear()
        spool.append([entry(3)])
        assert ids(spool) == names(1, 3)
    with opened(tmp_path) as spool:
        assert ids(spool) == names(1, 3)


def test_at_95_percent_nothing_more_is_taken_and_the_reason_is_said(tmp_path: Path) -> None:
    disk = FaultyDisk()
    spool = Spool(disk, tmp_path)
    disk.free = 0
    with pytest.raises(SpoolFullError, match="must stay free"):
        spool.append([entry(1)])
    disk.free = None
    spool.append([entry(2)])
    assert ids(spool) == names(2)
    spool.close()


def test_the_reserve_is_five_percent_and_at_most_four_gib() -> None:
    assert default_reserve(100 << 20) == pytest.approx(5 << 20, abs=1)
    assert default_reserve(1 << 50) == 4 << 30


def segment_of(folder: Path) -> Path:
    return segment_path(folder, 1)


def test_a_torn_tail_is_cut_at_every_octet(tmp_path: Path) -> None:
    """The first batch was flushed; of the second, any prefix may have reached the disk before the power went."""
    with opened(tmp_path / "whole") as spool:
        spool.append([entry(1, 40), entry(2, 40)])
        durable = place_of(spool.end)[1]
        spool.append([entry(3, 40), entry(4, 40)])
        end = place_of(spool.end)[1]
        positions = [place_of(item.position)[1] for item in spool.scan(0)] + [end]
    whole = segment_of(tmp_path / "whole").read_bytes()
    folder = tmp_path / "torn"
    folder.mkdir()
    for cut in range(durable, end):
        segment_of(folder).write_bytes(whole[:cut] + bytes(4096))
        with opened(folder) as spool:
            found = ids(spool)
        assert found[:2] == names(1, 2)
        assert len(found) <= sum(cut + 8 >= stop for stop in positions[1:])  # padding may be missing
        assert segment_of(folder).stat().st_size <= cut + 8
        segment_of(folder).unlink()


def test_of_an_unflushed_batch_a_later_part_alone_is_cut_too(tmp_path: Path) -> None:
    """Pages reach the disk in any order: the second mail of the batch may be whole and the first one not."""
    with opened(tmp_path) as spool:
        spool.append([entry(1)])
        spool.append([entry(2), entry(3)])
        second = [place_of(item.position)[1] for item in spool.scan(0)][1]
    spoil(segment_of(tmp_path), second + 30)
    with opened(tmp_path) as spool:
        assert ids(spool) == names(1)


def spoil(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        octet = file.read(1)
        file.seek(offset)
        file.write(bytes([octet[0] ^ 0xFF]))


@pytest.mark.parametrize("part", ["head", "meta", "content"])
def test_damage_of_a_durable_mail_is_reported_and_never_cut_off(tmp_path: Path, part: str) -> None:
    with opened(tmp_path) as spool:
        for number in (1, 2, 3):
            spool.append([entry(number)])
        places = [(item.position, item.length) for item in spool.scan(0)]
        end = spool.end
    within = {"head": 2, "meta": 80, "content": places[1][1] - 60}[part]
    spoil(segment_of(tmp_path), place_of(places[1][0])[1] + within)
    with opened(tmp_path) as spool:
        assert spool.end == end
        first, second, third = spool.scan(0, contents=True)
        assert isinstance(first, Kept)
        assert isinstance(third, Kept)
        assert third.envelope.message_id == "<3@a>"
        if part == "content":
            assert isinstance(second, Kept)
            assert second.condition is Condition.DAMAGED
        else:
            assert second == Damaged(*places[1])
        one, two, three = spool.reader.read(places)
        assert isinstance(two, DamagedRecordError)
        assert (one, three) == (entry(1), entry(3))


def test_damage_of_the_last_batch_is_told_from_a_torn_tail_by_who_has_routed_it(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([entry(1), entry(2)])
        end = spool.end
    spoil(segment_of(tmp_path), 400)
    with opened(tmp_path, durable=end) as spool:
        assert spool.end == end
        assert ids(spool) == names(1, 2)
    segment_path(tmp_path, 2).unlink(missing_ok=True)
    with opened(tmp_path) as spool:
        assert ids(spool) == []


def test_a_mail_that_contains_a_record_is_never_taken_for_one(tmp_path: Path) -> None:
    """Who sends the bytes of a record hopes that a search after damage finds it; he does not know the salt."""
    with opened(tmp_path / "his") as spool:
        spool.append([entry(9)])
    forged = segment_of(tmp_path / "his").read_bytes()[64:4096]
    folder = tmp_path / "ours"
    with opened(folder) as spool:
        content = b"Subject: x\r\n\r\n" + forged * 3
        spool.append([(seal(Mail("a@b", (Recipient("c@d"),), content, AT)), content)])
        spool.append([entry(2)])
        place = place_of(next(iter(spool.scan(0))).position)[1]
    spoil(segment_of(folder), place + 1)
    with opened(folder) as spool:
        assert ids(spool) == names(2)


def test_a_file_that_was_being_made_is_dropped(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([entry(1)])
    segment_path(tmp_path, 2).write_bytes(bytes(4096))
    with opened(tmp_path) as spool:
        assert spool.reader.numbers() == [1]
        spool.append([entry(2)])
        assert ids(spool) == names(1, 2)


@pytest.mark.parametrize("segments", [1, 2])
def test_a_segment_whose_header_rotted_stops_the_start(tmp_path: Path, segments: int) -> None:
    for number in range(segments):
        with opened(tmp_path) as spool:
            spool.append([entry(number)])
    spoil(segment_of(tmp_path), 3)
    with pytest.raises(DamagedRecordError):
        Spool(OsDisk(), tmp_path)


def test_an_erased_content_is_gone_from_the_file_and_its_envelope_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([entry(1), entry(2)])
        first = next(iter(spool.scan(0)))
        spool.reader.erase([(first.position, first.length)])
        conditions = [item.condition for item in spool.scan(0, contents=True) if isinstance(item, Kept)]
        assert conditions == [Condition.ERASED, Condition.WHOLE]
        assert b"B" * 50 not in segment_of(tmp_path).read_bytes()
        (content,) = spool.reader.read([(first.position, first.length)])
        assert isinstance(content, DamagedRecordError)


def test_a_disk_that_does_not_answer_is_unavailable_not_damaged(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk) as spool:
        spool.append([entry(1)])
        first = next(iter(spool.scan(0)))
        disk.choose = Once("read", Fault())
        with pytest.raises(UnavailableError):
            spool.reader.read([(first.position, first.length)])


def test_a_small_batch_leaves_room_for_the_next_ones_and_a_large_one_does_not(tmp_path: Path) -> None:
    """A flush onto blocks that exist is the data alone; behind a large batch zeros cost more than they save."""
    with opened(tmp_path, segment_bytes=16 << 20) as spool:
        spool.append([entry(1)])
        size = segment_of(tmp_path).stat().st_size
        assert size > place_of(spool.end)[1] + 3 * 50_000
        for number in (2, 3, 4):
            spool.append([entry(number, 50_000)])
        assert segment_of(tmp_path).stat().st_size == size
        spool.append([entry(5, 5_000_000)])
        assert segment_of(tmp_path).stat().st_size == place_of(spool.end)[1]
    with opened(tmp_path) as spool:
        assert ids(spool) == names(1, 2, 3, 4, 5)


def test_room_is_made_within_the_segment_only_and_given_back_when_it_is_complete(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=100_000) as spool:
        spool.append([entry(1)])
        assert segment_of(tmp_path).stat().st_size == 100_000
        end = place_of(spool.end)[1]
        spool.append([entry(2, 99_999)])
        assert segment_of(tmp_path).stat().st_size == end


def test_after_a_power_cut_the_room_behind_the_last_mail_is_no_damage(tmp_path: Path) -> None:
    with opened(tmp_path / "before", segment_bytes=100_000) as spool:
        spool.append([entry(1)])
        spool.append([entry(2)])
        end = spool.end
        as_it_is = segment_of(tmp_path / "before").read_bytes()
    folder = tmp_path / "after"
    folder.mkdir()
    segment_of(folder).write_bytes(as_it_is)
    with opened(folder) as spool:
        assert spool.end == end
        assert not [item for item in spool.scan(0) if isinstance(item, Damaged)]
        assert ids(spool) == names(1, 2)
