"""From one year to the next: opened in time, closed behind it, and its key gone (journal.md § 17)."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.journal.faulty_disk import FaultyDisk, When, nth
from tests.journal.journals import WITNESS

from schleuse.clock import Uptime, to_us
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.contracts import JournalFullError, Level, ShardClosedError, UnknownLogError
from schleuse.journal.disk import erase
from schleuse.journal.entry import Entry, Kind, Purpose, Result, parse_entry
from schleuse.journal.log import Log
from schleuse.journal.note import LogKey, parse_note
from schleuse.journal.opening import detail_commitment, parse_opening
from schleuse.journal.policy import Policy, parse_policy
from schleuse.journal.proof_file import parse_proof_file
from schleuse.journal.recovery import open_journal
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Journal, Settings
from schleuse.journal.successor import announced_key, read_announced
from schleuse.processes.journal_clock import Clock as BelievedClock
from schleuse.processes.journal_keys import (
    JournalRole,
    KeyMissingError,
    KeyReplacedError,
    key_file,
    known_vkey,
    log_signer,
    origin_of,
    policy_file,
    vkey_file,
)
from schleuse.processes.journal_shards import BEHIND, Shards
from schleuse.processes.trail import PLATFORM, new_event

KASSE = IK("109905003")
OLD, NEW = origin_of("test.example", KASSE, 2026), origin_of("test.example", KASSE, 2027)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


class Clock:
    """Stands until it is moved. wrong: how far it is set ahead of the time that has passed."""

    def __init__(self) -> None:
        self.at = NEW_YEAR - timedelta(days=7)
        self.wrong = timedelta(0)
        self.boot = "a"

    def __call__(self) -> datetime:
        return self.at + self.wrong

    def uptime(self) -> Uptime:
        return Uptime(self.boot, self.at - NEW_YEAR + timedelta(days=100))


class Host:
    """The journal of one insurer in a folder, as the role puts it together; may be left and started again."""

    def __init__(self, home: Path) -> None:
        self.clock = Clock()
        self.role = JournalRole(
            home, "test.example", (KASSE,), now=self.clock, now_us=self.now_us, uptime=self.clock.uptime
        )
        self.asked: list[str] = []
        self.disk = FaultyDisk()
        self.key = key_file(self.role.folder, OLD)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Journal, Shards]]:
        shares = KeyShares({}, 100, self.now_us)
        clock = BelievedClock(self.role.folder, self.clock, self.clock.uptime, self.disk)
        settings = Settings(
            self.role.folder,
            (),
            self.now_us,
            segment_size=64 * 1024,
            spares=2,
            inline=True,
            share=shares.share,
            believed_us=clock.counted_us,
        )
        journal = open_journal(settings, disk=self.disk)
        assert journal.findings == ()
        try:
            while journal._wal.wants_spares:
                journal._wal.prepare()
            shards = Shards(self.role, journal, shares, self._ask, clock)
            journal.instead, journal.clock_finding = shards.instead, clock.finding
            shards.adopt()
            await shards.open_logs()
            yield journal, shards
        finally:
            await journal.close()

    def now_us(self) -> int:
        return to_us(self.clock())

    def _ask(self, log: Log, _policy: Policy) -> None:
        self.asked.append(log.origin)

    def entry(self, kind: Kind = Kind.WRITE) -> bytes:
        now = self.clock()
        whole = Entry(kind, Result.GRANTED, Purpose.OPERATION, now, new_event(now))
        if kind is Kind.KEY_CREATED:
            whole = replace(whole, subject=b"s" * 16, subject_key_version=1)
        return whole.encode()

    def ask_for_a_witness(self) -> None:
        """The old shard's policy from now on."""
        vkey = log_signer(self.role.folder, OLD).key.vkey
        policy = policy_file(self.role.folder, OLD)
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(f"log {vkey} http://journal/x/2026\nwitness w {WITNESS.key.vkey} http://w\nquorum w\n")


async def sign(journal: Journal, origin: str) -> None:
    journal.tick()
    if (full := journal.health()["full"]) is not None:
        raise OSError(full)
    await journal.wait(origin, journal.log(origin).size, Level.PUBLISHED, 5)


async def cosign(journal: Journal, origin: str) -> None:
    signed = journal.log(origin).signed
    assert signed is not None
    line = WITNESS.cosign(signed.checkpoint, 1_800_000_000)
    await journal.add_cosignature(origin, signed.note.with_lines([line]).encode())


def kinds(journal: Journal, origin: str) -> list[Kind | int]:
    return [parse_entry(data).kind for data in journal.read(origin, 0, journal.log(origin).size)]


def test_the_next_log_is_there_before_the_year_and_names_the_one_before(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            await journal.append(OLD, host.entry())
            await sign(journal, OLD)
            host.clock.at = NEW_YEAR - timedelta(minutes=5)
            await shards.look()
            assert (await journal.append(OLD, host.entry())).index == 3  # behind the announcement
            await journal.append(NEW, host.entry())
            await sign(journal, NEW)
            assert kinds(journal, NEW) == [Kind.LOG_OPENED, Kind.WRITE]
            first = parse_entry(next(journal.read(NEW, 0, 1)))
            opening = parse_opening((host.role.folder / "openings" / f"{first.event}.json").read_bytes())
            assert opening.detail is not None
            salt, record = opening.detail
            assert first.detail == detail_commitment(salt, record)
            detail = json.loads(record)
            assert detail["previous"] == journal.log(OLD).notes[2].note.encode().decode()
            assert detail["key"] == log_signer(host.role.folder, NEW, new=False).key.vkey
            assert origin_of("test.example", PLATFORM, 2027) in {log.origin for log in journal.logs()}

    asyncio.run(run())


def test_the_old_log_is_closed_signed_and_nobody_can_sign_for_it_again(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            late = host.entry()
            index = (await journal.append(OLD, late)).index
            host.clock.at = NEW_YEAR + BEHIND / 2
            await shards.look()
            assert not journal.log(OLD).closed  # writers whose clocks are behind
            host.clock.at = NEW_YEAR + BEHIND
            await shards.look()
            assert kinds(journal, OLD)[-1] is Kind.SHARD_CLOSED
            with pytest.raises(ShardClosedError, match="2026 is closed"):
                await journal.append(OLD, host.entry())
            with pytest.raises(ShardClosedError):
                await journal.append_many(OLD, [host.entry()])
            assert (await journal.append(OLD, late)).index == index  # a repetition is told its place still
            assert host.key.exists()
            await sign(journal, OLD)
            await shards.look()
            assert not host.key.exists()
            assert shards.current(OLD) == NEW
        async with host.running() as (journal, shards):
            served = parse_note(journal.checkpoint(OLD))
            assert parse_policy(policy_file(host.role.folder, OLD).read_bytes()).judge(served).checkpoint.size == 3
            assert len(list(journal.read(OLD, 0, 3))) == 3
            with pytest.raises(ShardClosedError):
                await journal.append(OLD, host.entry())
            await shards.look()
            await journal.append(NEW, host.entry())

    asyncio.run(run())


def test_it_goes_on_where_a_crash_left_it_whatever_the_step(tmp_path: Path) -> None:
    """A start after every single step; what the process had in memory is lost each time."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, _):
            await journal.append(OLD, host.entry())
        host.clock.at = NEW_YEAR + BEHIND
        for _ in range(4):
            async with host.running() as (_, shards):
                await shards.look()
        assert not host.key.exists()
        async with host.running() as (journal, _):
            assert kinds(journal, OLD) == [Kind.LOG_OPENED, Kind.WRITE, Kind.SHARD_CLOSED]
            assert kinds(journal, NEW) == [Kind.LOG_OPENED]
            assert b"\n3\n" in journal.checkpoint(OLD)

    asyncio.run(run())


class Dying:
    """After so many calls of the disk the process is dead: the next write is done by half, and nothing more."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, name: str) -> When | None:
        self.left -= 1
        if self.left >= 0:
            return None
        return When.HALF if self.left == -1 and name == "write" else When.BEFORE


async def into_the_new_year(host: Host) -> None:
    async with host.running() as (journal, shards):
        for _ in range(4):
            await shards.look()
            await sign(journal, OLD)
            await sign(journal, NEW)


@pytest.mark.slow
def test_it_goes_on_wherever_the_disk_ended_under_it(tmp_path: Path) -> None:
    """The process dies after each call of the disk there is, in turn; the next start finishes what it began."""

    async def run() -> None:
        host = Host(tmp_path / "before")
        async with host.running() as (journal, _):
            await journal.append(OLD, host.entry())
        calls, died = 0, True
        while died:
            home = tmp_path / str(calls)
            shutil.copytree(tmp_path / "before", home)
            host = Host(home)
            host.clock.at = NEW_YEAR + BEHIND
            host.disk = FaultyDisk(dying := Dying(calls))
            with suppress(Error, OSError):
                await into_the_new_year(host)
            died = dying.left < 0
            host.disk = FaultyDisk()
            await into_the_new_year(host)
            async with host.running() as (journal, _):
                assert kinds(journal, OLD) == [Kind.LOG_OPENED, Kind.WRITE, Kind.SHARD_CLOSED], calls
                assert kinds(journal, NEW) == [Kind.LOG_OPENED], calls
                assert b"\n3\n" in journal.checkpoint(OLD)
            assert not host.key.exists()
            shutil.rmtree(home)
            calls += 1
        assert calls > 40  # of opening, closing, signing and saving

    asyncio.run(run())


@pytest.mark.parametrize("call", ["open", "write", "sync", "sync_directory"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_key_that_was_half_destroyed_is_destroyed_at_the_next_look(tmp_path: Path, call: str, when: When) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            host.clock.at = NEW_YEAR + BEHIND
            for _ in range(2):  # the new log is opened, then the old one closed
                await shards.look()
            await sign(journal, OLD)
            note = journal.checkpoint(OLD)
        with pytest.raises(OSError, match="Input/output"):
            erase(FaultyDisk(nth(call, when)), host.key)
        async with host.running() as (journal, shards):
            await shards.look()
            assert not host.key.exists()
            assert journal.checkpoint(OLD) == note

    asyncio.run(run())


def test_the_key_stays_until_the_witnesses_have_answered_and_they_are_asked_again(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        host.ask_for_a_witness()
        async with host.running() as (journal, shards):
            await sign(journal, OLD)
            await cosign(journal, OLD)  # an earlier checkpoint is served, but the last one is what counts
            host.clock.at = NEW_YEAR + BEHIND
            for _ in range(2):  # the new log is opened, then the old one closed
                await shards.look()
            await sign(journal, OLD)
            for _ in range(2):
                await shards.look()
            assert host.asked.count(OLD) == 2
        async with host.running() as (journal, shards):
            host.clock.at += timedelta(days=3)
            await shards.look()
            assert host.key.exists()
            await cosign(journal, OLD)
            await shards.look()
            assert not host.key.exists()
        async with host.running() as (journal, _):
            assert b"\n2\n" in journal.checkpoint(OLD)

    asyncio.run(run())


def test_the_policy_that_people_put_there_before_the_year_is_the_one_that_counts(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        vkey = log_signer(host.role.folder, NEW).key.vkey  # made beforehand, so that witnesses could be told
        async with host.running() as (_, shards):
            agreed = f"log {vkey}\nwitness w {WITNESS.key.vkey} http://w\nquorum w\n"
            policy_file(host.role.folder, NEW).write_text(agreed)
            host.clock.at = NEW_YEAR
            await shards.look()
            assert shards.policies[NEW] == parse_policy(agreed.encode())
            assert log_signer(host.role.folder, NEW, new=False).key.vkey == vkey
            assert policy_file(host.role.folder, NEW).read_text() == agreed

    asyncio.run(run())


def test_a_log_whose_first_entry_was_refused_takes_no_other_until_it_is_there(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            host.clock.at = NEW_YEAR
            full = journal.keeping.full = JournalFullError("no room")
            with pytest.raises(JournalFullError) as refused:
                await shards.look()
            assert refused.value is full
            journal.keeping.full = None
            with pytest.raises(UnknownLogError, match="not open yet"):
                await journal.append(NEW, host.entry())
            await shards.look()
            await journal.append(NEW, host.entry())
            assert kinds(journal, NEW) == [Kind.LOG_OPENED, Kind.WRITE]

    asyncio.run(run())


def test_weeks_before_the_year_each_log_names_the_key_of_the_one_that_follows_it(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        host.clock.at = NEW_YEAR - host.role.announce - timedelta(seconds=1)
        async with host.running() as (journal, shards):
            await shards.look()
            assert kinds(journal, OLD) == [Kind.LOG_OPENED]
            assert known_vkey(host.role.folder, NEW) is None
            host.clock.at += timedelta(seconds=1)
            await shards.look()
            await shards.look()
            assert kinds(journal, OLD) == [Kind.LOG_OPENED, Kind.POLICY_CHANGED]
            assert NEW not in {one.origin for one in journal.logs()}  # named, and not begun
            await sign(journal, OLD)
            announced = read_announced(journal.log(OLD).folder)
            assert announced is not None
            proof = parse_proof_file(journal.proof_file(OLD, announced.index, announced.opening.encode()))
            old_key = LogKey(log_signer(host.role.folder, OLD).key)
            key = announced_key(proof, next(journal.read(OLD, 1, 2)), [old_key])
            assert key == log_signer(host.role.folder, NEW, new=False).key
            host.clock.at = NEW_YEAR
            await shards.look()
            assert shards.policies[NEW].log_keys == (LogKey(key),)

    asyncio.run(run())


def test_an_announcement_that_was_not_written_is_written_at_the_next_look(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            journal.keeping.full = JournalFullError("no room")
            with pytest.raises(JournalFullError):
                await shards.announce()
            vkey = known_vkey(host.role.folder, NEW)
            journal.keeping.full = None
            await shards.announce()
            assert kinds(journal, OLD) == [Kind.LOG_OPENED, Kind.POLICY_CHANGED]
            assert known_vkey(host.role.folder, NEW) == vkey

    asyncio.run(run())


@pytest.mark.parametrize("evidence", ["vkey", "policy", "state"])
def test_a_signing_key_that_is_gone_is_named_and_never_replaced(tmp_path: Path, evidence: str) -> None:
    """Whoever asks for it: the role that starts, or the home that is renewed for a year."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        host.key.unlink()
        if evidence != "vkey":
            vkey_file(host.role.folder, OLD).unlink()
        if evidence == "state":
            policy_file(host.role.folder, OLD).unlink()
        with pytest.raises(KeyMissingError, match=rf"{host.key} is not there.*operator"):
            log_signer(host.role.folder, OLD)
        with pytest.raises(KeyMissingError):
            async with host.running():
                pass
        assert not host.key.exists()

    asyncio.run(run())


def test_one_tenants_lost_key_keeps_no_other_tenant_out_of_the_new_year(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, shards):
            await shards.announce()
            key_file(host.role.folder, NEW).unlink()
            host.clock.at = NEW_YEAR
            with pytest.raises(KeyMissingError):
                await shards.look()
            assert NEW not in {one.origin for one in journal.logs()}
            await journal.append(origin_of("test.example", PLATFORM, 2027), host.entry())

    asyncio.run(run())


def test_another_key_than_the_one_that_was_announced_signs_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        host.key.write_bytes(bytes(32))
        with pytest.raises(KeyReplacedError, match="was noted in"):
            async with host.running():
                pass

    asyncio.run(run())


def test_a_share_that_is_gone_is_not_replaced_by_another(tmp_path: Path) -> None:
    """What was sealed with it would be lost unnoticed, and what is sealed with the new one when the old one is back."""

    async def run() -> None:
        host = Host(tmp_path)
        async with host.running():
            pass
        share = host.key.with_name(f"share-{KASSE}")
        share.unlink()
        with pytest.raises(KeyMissingError, match=share.name):
            async with host.running():
                pass
        assert not share.exists()

    asyncio.run(run())


def test_logs_of_an_insurer_that_has_left_stay_served_and_their_readers_are_noted_by_the_platform(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, _):
            await sign(journal, OLD)
        host.role = replace(host.role, insurers=())
        host.clock.at = NEW_YEAR + BEHIND
        async with host.running() as (journal, shards):
            for _ in range(3):
                await shards.look()
                await sign(journal, OLD)
            assert b"\n2\n" in journal.checkpoint(OLD)
            assert not host.key.exists()
            assert NEW not in {log.origin for log in journal.logs()}
            assert shards.current(OLD) == origin_of("test.example", PLATFORM, 2027)

    asyncio.run(run())


def test_the_next_year_asks_for_the_same_witnesses_until_people_agree_on_others(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        host.ask_for_a_witness()
        async with host.running() as (_, shards):
            host.clock.at = NEW_YEAR
            await shards.look()
            policy = shards.policies[NEW]
            assert (policy.quorum, [one.key.key for one in policy.witnesses]) == ("w", [WITNESS.key])
            assert [key.key.name for key in policy.log_keys] == [NEW]

    asyncio.run(run())


def test_documents_of_the_old_year_open_with_the_share_of_the_new_one(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path)
        async with host.running() as (journal, _):
            before = await journal.append(OLD, host.entry(Kind.KEY_CREATED))
        host.clock.at = NEW_YEAR + BEHIND
        async with host.running() as (journal, _):
            after = await journal.append(NEW, host.entry(Kind.KEY_CREATED))
        assert before.share is not None
        assert before.share == after.share

    asyncio.run(run())
