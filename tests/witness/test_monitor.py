"""What an insurer is told about its own log, and that it is told once (journal.md § 16)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from tests.journal.samples import AN_ENTRY, LOG, ORIGIN, T0, WA, WB, policy
from tests.witness.parties import URL, Clock, FakeLog

from schleuse.database import DatabaseUnavailableError
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.note import Note
from schleuse.journal.policy import Witness
from schleuse.witness.alarm import Alarm, Finding
from schleuse.witness.monitor import BUNDLES_A_STEP, STALE, Monitor
from schleuse.witness.monitor_store import MonitorStore
from schleuse.witness.remote import NotThereError, RemoteError, RemoteLog
from schleuse.witness.rules import ROTATED, Between, Known, Memory, Settings, Watcher, reconcile, releases

CANARY = b"\xca" * 16
SETTINGS = Settings(frozenset({CANARY}), subjects_per_hour=3, denials_in_series=3)


def event(number: int, **changes: object) -> Entry:
    """A READ at the time of the vectors' cosignatures."""
    plain = replace(AN_ENTRY, kind=Kind.READ, release_counter=None, subject_key_version=None)
    return replace(plain, event=UUID(int=number + 1), **changes)  # type: ignore[arg-type]


def release(number: int, counter: int) -> Entry:
    return event(number, kind=Kind.KEY_RELEASED, release_counter=counter, subject_key_version=1)


def found(*entries: Entry | bytes, between: Between = Between()) -> list[tuple[Finding, int | None]]:  # noqa: B008
    known = Known()
    watcher = Watcher(ORIGIN, SETTINGS, Memory(), known.is_new_event, known.spool)
    data = [entry if isinstance(entry, bytes) else entry.encode() for entry in entries]
    return [(alarm.finding, at) for at, one in enumerate(data) for alarm in watcher.look(at, one, between)]


def test_ordinary_entries_are_no_finding() -> None:
    assert found(*(event(n) for n in range(5)), release(9, 1), release(10, 2)) == []


def test_a_canary_is_a_finding_unless_its_owner_opens_it() -> None:
    assert found(event(0, subject=CANARY), event(1, subject=CANARY, purpose=Purpose.CANARY)) == [(Finding.CANARY, 0)]
    assert CANARY.hex() not in repr(SETTINGS)


@pytest.mark.parametrize("kind", [Kind.BREAK_GLASS, Kind.BUDGET_OVERRIDE])
def test_two_people_are_two_people(kind: Kind) -> None:
    alone = event(0, kind=kind)
    twice = event(1, kind=kind, second_actor=AN_ENTRY.actor)
    both = event(2, kind=kind, second_actor=b"\xee" * 16)
    assert found(alone, twice, both) == [(Finding.NO_SECOND_ACTOR, 0), (Finding.NO_SECOND_ACTOR, 1)]


def later(entry: Entry, minutes: int) -> Entry:
    return replace(entry, at=entry.at + timedelta(minutes=minutes))


def test_the_vaults_numbers_have_no_gap_and_no_repetition() -> None:
    """§ 14.5: what is missing may still come for ten minutes."""
    gap = [release(0, 5), release(1, 6), release(2, 8), release(3, 8), release(4, 9)]
    assert found(*gap) == [(Finding.COUNTER_GAP, 3)]
    assert found(*gap, later(event(7), 9)) == [(Finding.COUNTER_GAP, 3)]
    assert found(*gap, later(event(7), 10), later(event(8), 20)) == [(Finding.COUNTER_GAP, 3), (Finding.COUNTER_GAP, 5)]
    assert found(*gap, later(release(5, 7), 10)) == [
        (Finding.COUNTER_GAP, at) for at in (3, 5, 5)
    ]  # too late, and told


def test_the_vaults_numbers_begin_with_the_log() -> None:
    """Else what is released first of all in a new year would need no entry."""
    opened = event(0, kind=Kind.LOG_OPENED, purpose=Purpose.NONE)
    assert found(opened, release(1, 1), release(2, 2), later(event(3), 10)) == []
    assert found(opened, release(1, 3), later(event(2), 9)) == []
    assert found(opened, release(1, 3), later(event(2), 10)) == [(Finding.COUNTER_GAP, 2)]
    assert found(opened, release(1, 3), release(2, 1), release(3, 2), later(event(4), 10)) == []


def test_batches_that_changed_places_are_no_gap() -> None:
    """A connection that breaks lets 9 to 12 stand before 5 to 8."""
    numbers = [1, 2, 3, 4, 9, 10, 11, 12, 6, 8, 5, 7, 13]
    entries = [release(place, number) for place, number in enumerate(numbers)]
    assert found(*entries, later(event(99), 11)) == []
    assert found(*entries, release(98, 7)) == [(Finding.COUNTER_GAP, len(entries))]


def test_entries_that_nobody_can_read_and_events_that_come_twice() -> None:
    assert found(b"noise", event(1), event(1), event(2, purpose=Purpose.NONE)) == [
        (Finding.UNKNOWN_ENTRY, 0),
        (Finding.REPEATED_EVENT, 2),
        (Finding.NO_PURPOSE, 3),
    ]


def test_refusals_in_a_row_are_one_finding() -> None:
    denied = [event(n, result=Result.DENIED) for n in range(5)]
    assert found(*denied) == [(Finding.DENIALS, 2)]
    assert found(*denied[:2], event(9), *denied[2:4]) == []
    assert found(event(0, result=Result.DENIED, count=100)) == [(Finding.DENIALS, 0)]


def test_what_failed_is_no_success_that_ends_a_row_of_refusals() -> None:
    denied = [event(n, result=Result.DENIED) for n in range(3)]
    failed = [event(n + 5, result=Result.FAILED) for n in range(2)]
    assert found(denied[0], failed[0], denied[1], failed[1], denied[2]) == [(Finding.DENIALS, 4)]
    assert found(denied[0], event(9), denied[1], denied[2]) == []


def test_too_many_persons_within_an_hour() -> None:
    persons = [event(n, subject=bytes([n + 1]) * 16) for n in range(5)]
    assert found(*persons) == [(Finding.OVER_BUDGET, 3)]
    assert found(*persons[:3], *(replace(one, at=one.at + timedelta(hours=1)) for one in persons[3:])) == []


def test_the_hour_before_counts_and_not_the_hour_of_the_clock() -> None:
    """Else twice as many are opened around the full hour."""
    base = AN_ENTRY.at.replace(minute=50, second=0, microsecond=0)
    persons = [event(n, subject=bytes([n + 1]) * 16, at=base + timedelta(minutes=5 * n)) for n in range(30)]
    assert found(*persons) == [(Finding.OVER_BUDGET, 3), (Finding.OVER_BUDGET, 15), (Finding.OVER_BUDGET, 27)]
    same = [event(n, subject=bytes([n % 3 + 1]) * 16, at=base + timedelta(minutes=5 * n)) for n in range(30)]
    assert found(*same) == []


def test_the_vaults_own_number_is_compared_with_its_entries() -> None:
    """§ 14.5: it says its number at each start."""

    def report(number: int, counter: int) -> Entry:
        return event(number, kind=Kind.ADMINISTRATION, purpose=Purpose.OPERATION, release_counter=counter)

    assert found(release(0, 1), release(1, 2), report(2, 2), release(3, 3), report(4, 3)) == []
    assert found(release(0, 1), report(1, 2)) == [(Finding.COUNTS_DIFFER, 1)]


def test_the_spool_loses_nothing_and_opens_nothing_twice() -> None:
    accepted, opened = (event(n, kind=kind) for n, kind in enumerate((Kind.SPOOL_ACCEPTED, Kind.SPOOL_OPENED)))
    assert found(accepted, opened, event(2, kind=Kind.SPOOL_DELIVERED)) == []
    assert found(opened) == [(Finding.SPOOL_GAP, 0)]
    assert found(accepted, opened, replace(opened, event=UUID(int=99))) == [(Finding.SPOOL_GAP, 2)]


def test_times_lie_between_the_cosignatures() -> None:
    at = int(AN_ENTRY.at.timestamp())
    assert found(event(0), between=Between(at - 5, at + 5)) == []
    assert found(event(0), between=Between(None, at - 599)) == []
    assert found(event(0), between=Between(None, at - 601)) == [(Finding.CLOCK, 0)]
    assert found(event(0), between=Between(at + 602, at + 700)) == [(Finding.CLOCK, 0)]


def test_the_three_counts_of_releases() -> None:
    counts = {f"{Kind.KEY_RELEASED.name} {Result.GRANTED.name}": 7}
    assert releases(counts) == 7
    assert reconcile(ORIGIN, counts, vault=7, hsm=2) == []
    assert [one.finding for one in reconcile(ORIGIN, counts, vault=8, hsm=9)] == [Finding.COUNTS_DIFFER] * 2
    rotated = {**counts, ROTATED: 40}  # each key that was brought under a new one was unwrapped for it
    assert reconcile(ORIGIN, rotated, vault=7, hsm=47) == []
    assert [one.finding for one in reconcile(ORIGIN, rotated, vault=7, hsm=48)] == [Finding.COUNTS_DIFFER]


class Watch:
    """A monitor over a log in memory."""

    def __init__(self, folder: Path, ask_peer: Callable[[Witness], Note] | None = None) -> None:
        self.clock, self.alarms, self.log = Clock(), list[Alarm](), FakeLog()
        self._folder, self._ask_peer = folder, ask_peer
        self.kept: list[tuple[Finding, Note, Note | None]] = []
        self.reread = BUNDLES_A_STEP
        self.start()

    def start(self) -> None:
        self.store = MonitorStore(self._folder / "monitor.sqlite", ORIGIN)
        self.monitor = Monitor(
            ORIGIN,
            policy("wa"),
            SETTINGS,
            RemoteLog(URL, self.log),
            self.store,
            self.clock,
            self.alarms.append,
            self._ask_peer,
            keep=lambda finding, shown, _reason, before: self.kept.append((finding, shown, before)),
            reread=self.reread,
        )

    def restart(self) -> None:
        self.store.close()
        self.start()

    def shows(self, entries: list[bytes], *, cosigned: bool = True) -> None:
        self.log.now_holds(entries)
        if cosigned:
            line = WA.cosign(self.log.checkpoint(len(entries)), int(self.clock().timestamp()))
            self.log.note = self.log.note.with_lines([line])

    def look(self) -> list[Finding]:
        self.alarms.clear()
        self.monitor.look()
        return [alarm.finding for alarm in self.alarms]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def entries(count: int) -> list[bytes]:
    return [event(number, subject=b"\xb1" * 16).encode() for number in range(count)]


def test_a_log_is_read_once_and_whole_over_a_restart(watch: Watch) -> None:
    for size in (10, 300, 9000):
        watch.shows(entries(size))
        assert watch.look() == []
        assert watch.store.position().read == size
        watch.restart()
    assert watch.store.memory().counts == {"READ GRANTED": 9000}
    assert watch.look() == []


def test_a_finding_names_its_entry_and_is_told_once(watch: Watch) -> None:
    watch.shows([*entries(300), event(300, subject=CANARY).encode(), *entries(310)[301:]])
    assert watch.look() == [Finding.CANARY]
    assert watch.alarms[0].index == 300
    assert watch.look() == []
    watch.restart()
    assert watch.look() == []
    assert watch.store.alarms() == {"canary": 1}


def test_a_finding_that_could_not_be_told_is_told_later(tmp_path: Path) -> None:
    watch = Watch(tmp_path)

    def dies(_alarm: Alarm) -> None:
        raise KeyboardInterrupt

    watch.monitor._on_alarm = dies
    watch.shows([b"noise"])
    with pytest.raises(KeyboardInterrupt):
        watch.monitor.look()
    watch.restart()
    assert watch.look() == [Finding.UNKNOWN_ENTRY]


def test_a_tail_that_is_cut_off_is_noticed(watch: Watch) -> None:
    """T-09."""
    watch.shows(entries(1300))
    before = watch.log.note
    watch.look()
    watch.restart()
    watch.shows(entries(300))
    assert watch.look() == [Finding.ROLLBACK]
    assert watch.look() == []
    assert set(watch.kept) == {(Finding.ROLLBACK, watch.log.note, before)}


def test_a_history_that_changed_is_noticed(watch: Watch) -> None:
    watch.shows(entries(300))
    watch.look()
    before = watch.log.note
    watch.shows([*entries(200), *reversed(entries(400)[200:])])
    assert watch.look() == [Finding.FORK]
    assert watch.kept == [(Finding.FORK, watch.log.note, before)]


def test_an_entry_that_is_not_what_was_signed_is_noticed(watch: Watch) -> None:
    watch.shows(entries(300))
    watch.log.entries[7] = event(7777).encode()
    assert watch.look() == [Finding.FALSE_TILES]
    assert watch.store.position().read == 0


def test_no_quorum_and_no_fresh_cosignature(watch: Watch) -> None:
    watch.shows(entries(3), cosigned=False)
    assert watch.look() == [Finding.NO_QUORUM]
    watch.shows(entries(3))
    assert watch.look() == []
    watch.clock.move(15 * 60 + 1)
    assert watch.look() == [Finding.STALE]


def test_a_log_that_says_it_is_damaged_is_an_alarm_at_once_and_once(watch: Watch) -> None:
    watch.shows(entries(3))
    watch.look()
    watch.log.quarantine = "logs/00000/entries-000000: entry 2 does not match its hash"
    for _ in range(2):
        with pytest.raises(RemoteError):
            watch.monitor.look()
    assert [(alarm.finding, alarm.text) for alarm in watch.alarms] == [(Finding.QUARANTINE, watch.log.quarantine)]
    watch.log.quarantine = ""
    assert watch.look() == []


def test_a_log_that_does_not_answer_is_an_error_and_loses_nothing(watch: Watch) -> None:
    watch.shows(entries(3))
    watch.log.down = True
    with pytest.raises(RemoteError):
        watch.look()
    watch.log.down = False
    assert watch.look() == []
    assert watch.store.position().read == 3


def test_witnesses_that_saw_something_else_are_noticed(tmp_path: Path) -> None:
    other = FakeLog()
    watch = Watch(
        tmp_path,
        lambda peer: other.note.with_lines([WA.cosign(other.checkpoint(len(other.entries)), T0)]),
    )
    watch.shows(entries(9))
    for theirs, findings in (
        (entries(5), []),
        ([b"another"] * 5, [Finding.FORK]),
        (entries(9), []),
        (entries(12), [Finding.PEER_AHEAD]),
    ):
        other.now_holds(theirs)
        assert watch.look() == findings


def test_a_peer_that_answers_nonsense_accuses_nobody(tmp_path: Path) -> None:
    watch = Watch(tmp_path, lambda peer: FakeLog([b"x"]).note.with_lines([WB.cosign(FakeLog([b"x"]).checkpoint(1), 1)]))
    watch.shows(entries(9))
    assert watch.look() == []
    assert LOG.key.name == ORIGIN


def test_a_fork_is_told_even_if_it_cannot_be_kept(watch: Watch) -> None:
    def full(*_: object) -> None:
        raise DatabaseUnavailableError("the disk is full")

    watch.shows(entries(300))
    watch.look()
    watch.monitor._keep = full
    watch.shows([*entries(200), *reversed(entries(400)[200:])])
    with pytest.raises(DatabaseUnavailableError):
        watch.look()
    assert [alarm.finding for alarm in watch.alarms] == [Finding.FORK]


def test_a_restart_gives_nobody_another_hour(watch: Watch) -> None:
    persons = [event(n, subject=bytes([n + 1]) * 16).encode() for n in range(4)]
    watch.shows(persons[:3])
    assert watch.look() == []
    watch.restart()
    watch.shows(persons)
    assert watch.look() == [Finding.OVER_BUDGET]
    watch.restart()
    watch.shows([*persons, event(9, subject=b"\x99" * 16).encode()])
    assert watch.look() == []  # told within this hour


def test_a_restart_begins_no_new_series_of_refusals(watch: Watch) -> None:
    denied = [event(n, result=Result.DENIED).encode() for n in range(3)]
    for size, findings in ((1, []), (2, []), (3, [Finding.DENIALS])):
        watch.shows(denied[:size])
        assert watch.look() == findings
        watch.restart()


def test_the_vaults_numbers_are_remembered(watch: Watch) -> None:
    report = event(7, kind=Kind.ADMINISTRATION, purpose=Purpose.OPERATION, release_counter=1)
    watch.shows([release(0, 1).encode(), report.encode()])
    assert watch.look() == []
    watch.restart()
    assert (watch.store.memory().counter, watch.store.memory().reported) == (1, 1)
    log = [release(0, 1).encode(), report.encode(), release(1, 2**63).encode()]
    watch.shows(log)
    assert watch.look() == []
    watch.restart()
    assert [(one.first, one.last) for one in watch.store.memory().gaps] == [(2, 2**63 - 1)]
    watch.shows([*log, later(release(2, 3), 10).encode()])
    assert watch.look() == [Finding.CLOCK, Finding.COUNTER_GAP, Finding.COUNTER_GAP]  # its clock is ahead, too


@pytest.mark.parametrize("at", [7, 700, 5001])
def test_what_is_changed_after_it_was_read_is_noticed(watch: Watch, at: int) -> None:
    """One byte on the log's disk; 16 bundles are read again with each look, all in turn."""
    watch.shows(entries(5100))
    assert watch.look() == []
    watch.restart()
    watch.log.entries[at] = event(7777).encode()
    told: list[Alarm] = []
    for _ in range(2):
        watch.look()
        told += watch.alarms
    assert [alarm.finding for alarm in told] == [Finding.FALSE_TILES]
    assert f"tile/entries/{at // 256:03}" in told[0].text


def test_a_monitor_that_begins_late_reads_what_was_not_deleted_if_its_insurer_says_that_there_is_such(
    watch: Watch,
) -> None:
    """journal.md § 17; else a log could hide its first entries from whoever lost his database."""
    watch.shows(entries(900))
    watch.log.minimum = 300
    with pytest.raises(NotThereError):
        watch.look()
    watch.reread = 0
    watch.restart()
    assert watch.look() == []
    assert releases(watch.store.memory().counts) == 0
    assert sum(watch.store.memory().counts.values()) == 900 - 512
    watch.shows(entries(1000))
    assert watch.look() == []
    assert sum(watch.store.memory().counts.values()) == 1000 - 512


def test_what_is_taken_away_after_it_was_read_is_noticed(watch: Watch) -> None:
    watch.shows(entries(600))
    assert watch.look() == []
    get = watch.log.get

    def without(url: str, limit: int) -> bytes:
        if url.endswith("tile/entries/001"):
            raise NotThereError(url)
        return get(url, limit)

    watch.log.get = without  # type: ignore[method-assign]
    assert watch.look() == [Finding.FALSE_TILES]
    assert "bundle 1" in watch.alarms[0].text


def test_a_log_that_has_just_begun_may_be_without_a_quorum_for_a_while(watch: Watch) -> None:
    get = watch.log.get

    def nothing(url: str, limit: int) -> bytes:
        raise NotThereError(url)

    watch.log.get = nothing  # type: ignore[method-assign]
    assert watch.look() == []
    watch.clock.move(STALE.total_seconds() + 1)
    assert watch.look() == [Finding.NO_QUORUM]
    watch.log.get = get  # type: ignore[method-assign]
    watch.shows(entries(3))
    assert watch.look() == []
    watch.log.get = nothing  # type: ignore[method-assign]
    assert watch.look() == [Finding.NO_QUORUM]


def test_a_file_of_the_version_before_goes_on(tmp_path: Path) -> None:
    """It had neither the note's signatures nor the hour's persons."""
    watch = Watch(tmp_path)
    watch.shows(entries(300))
    watch.look()
    watch.store.close()
    connection = sqlite3.connect(tmp_path / "monitor.sqlite")
    for name in ("denials", "person", "over_budget", "release_gap"):
        connection.execute(f"DROP TABLE {name}")
    for name in ("note", "reported", "reread"):
        connection.execute(f"ALTER TABLE position DROP COLUMN {name}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    watch.start()
    assert watch.store.position().read == 300
    watch.shows(entries(200))
    assert watch.look() == [Finding.ROLLBACK]
    assert watch.kept[0][2] is None
