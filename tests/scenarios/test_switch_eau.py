"""The switch and the eAU intake, on real processes: held is kept, and nothing else happens (incident.md § 16).

T-02, T-03, T-05, T-07 and T-24; `schleuse hold check` holds at every moment of each.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until

from schleuse.holding.states import State
from schleuse.kim.store import open_leases, read_deliveries
from schleuse.practice.ledger import Progress
from schleuse.practice.outbox import Prepared
from schleuse.scopes import ScopeState

HOLD = ScopeState.HOLD
#: Numbers of nanosleep and clock_nanosleep, on x86-64 and on ARM.
SLEEPS = frozenset({"35", "230", "101", "115"})
ONE_WORKER = {"[eau]": "[eau]\nworkers = 1"}


@pytest.fixture
def one(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home") as started:
        started.start_all()
        yield started


def states(one: Platform, insurer: int = 0) -> dict[State, int]:
    """Of the insurer's mailbox; conservation holds, whenever somebody asks."""
    found = one.conservation()
    assert found.findings == ()
    account = one.config.insurers[insurer].address.lower()
    return next((dict(line.states) for line in found.accounts if line.name == account), {})


def mail_states(one: Platform) -> set[State]:
    """As the mail store alone has them."""
    account = one.config.insurers[0].address.lower()
    return set(read_deliveries(one.config.kim_database, [account])[account].values())


def everybody_saw(one: Platform, epoch: int) -> None:
    """All of the eau role have raised their fences and noted it."""
    workers = {"eau-desk", *(f"eau-worker-{number}" for number in range(one.config.eau.workers))}
    until(lambda: workers <= set(switching.effects(one.home, epoch)), f"epoch {epoch}\n{one.log('eau')[-3000:]}")


def close(one: Platform, scopes: str = "eau/*") -> int:
    epoch = switching.close(one.home, scopes, HOLD)
    everybody_saw(one, epoch)
    return epoch


def reopen(one: Platform, scopes: str = "eau/*", *, with_backlog: bool) -> int:
    epoch = switching.open(one.home, scopes, with_backlog=with_backlog)
    everybody_saw(one, epoch)
    return epoch


def is_closed(one: Platform, insurer: int = 0) -> bool:
    with one.feed(insurer) as client:
        answer = client.get("eau")
    return answer.status_code == 503 and answer.json()["code"] == "eau.feed.closed"


def delivered(one: Platform) -> bool:
    """Whether the practice has a DSN of success for each mail, and no Fehlernachricht for any."""
    one.fetch()
    return {sent.progress for sent in one.ledger.mails.values()} == {Progress.DELIVERED}


def documents(one: Platform, insurer: int = 0) -> list[str]:
    return [event["document_id"] for event in one.events(insurer)]


def ids(mails: list[Prepared]) -> list[str]:
    return [mail.sent.document_id for mail in mails]


def test_no_fehlernachricht_leaves_while_it_is_held_and_the_key_service_is_off(one: Platform) -> None:
    """T-02, HD-01, HD-02: the practice has its DSN, and after the opening only what was wrong is answered."""
    close(one)
    one.kill("vault")
    good, faulty = one.mails(one.order(4)), one.mails(one.order(0, "signature"))
    one.send(good + faulty)
    until(lambda: delivered(one), "a DSN for each")
    assert states(one) == {State.HELD: 5}
    assert is_closed(one)
    one.start("vault")
    until(lambda: one.ready("vault"), "vault")
    assert states(one) == {State.HELD: 5}
    reopen(one, with_backlog=True)
    until(lambda: states(one) == {State.DELIVERED: 4, State.RETURNED: 1}, f"the backlog\n{one.log('eau')[-3000:]}")
    until(lambda: sorted(documents(one)) == sorted(ids(good)), "the feed")
    until(lambda: any(a.progress is Progress.FAULTY for a in one.fetch()), "the one Fehlernachricht")
    assert all(event["held_for_seconds"] >= 0 for event in one.events())


def test_after_everything_was_killed_it_is_held_as_before(one: Platform) -> None:
    """T-03, SW-02, HD-11, HD-25: state and epoch are the same, and nothing was processed."""
    epoch = close(one)
    one.send(one.mails(one.order(3)))
    until(lambda: states(one) == {State.HELD: 3}, "the mails to be held")
    for role in list(one.processes):
        one.kill(role)
    for path in one.home.glob("switch/effects/*/eau-*"):
        path.unlink()
    one.start_all()
    everybody_saw(one, epoch)
    assert switching.epoch(one.home) == epoch
    assert is_closed(one)
    assert states(one) == {State.HELD: 3}
    until(lambda: delivered(one), "a DSN for each, and nothing else")
    reopen(one, with_backlog=True)
    until(lambda: states(one) == {State.DELIVERED: 3}, "the backlog")


def test_a_worker_that_slept_through_a_closing_is_refused_at_the_store(base_home: Path, tmp_path: Path) -> None:
    """T-05, SW-06, SW-10: recorded, fully undone, and done once after the opening."""
    with platform(base_home, tmp_path / "home", ONE_WORKER) as one:
        one.start_all()
        mails = one.mails(one.order(3))
        with writer_stopped(one):
            one.send(mails)
            worker = worker_pid(one)
            # It has opened the mails and waits for the database to file them.
            until(lambda: State.RELEASING in mail_states(one), "a batch to be taken")
            until(lambda: is_waiting_for_a_lock(worker), "the worker to file")
            os.kill(worker, signal.SIGSTOP)
        epoch = switching.close(one.home, "eau/*", HOLD)
        until(lambda: "eau-desk" in switching.effects(one.home, epoch), "the desk to raise the fence")
        os.kill(worker, signal.SIGCONT)
        until(lambda: states(one) == {State.HELD: 3}, f"the batch to be put back\n{one.log('eau')[-3000:]}")
        everybody_saw(one, epoch)
        assert "switch.stale-epoch" in one.log("eau")
        assert "this work began at epoch 0" in one.log("eau"), "the store said it, not only the switch"
        trail = "".join(path.read_text() for path in (one.home / "trail").glob("eau-worker-*.jsonl"))
        assert "switch.stale" in trail
        reopen(one, with_backlog=True)
        until(lambda: sorted(documents(one)) == sorted(ids(mails)), "each to be filed once")
        assert states(one) == {State.DELIVERED: 3}


def test_a_storno_that_arrives_while_its_eau_is_held_is_applied_after_it(one: Platform) -> None:
    """T-07, HD-06: also where the eAU is backlog that waits for its release, and the Storno comes live."""
    (eau, storno) = one.mails(one.order(1, stornos=1))
    (eau_2, storno_2) = one.mails(one.order(1, stornos=1), seed=2)
    close(one)
    one.send([eau, storno, eau_2])
    until(lambda: states(one) == {State.HELD: 3}, "all to be held")
    reopen(one, with_backlog=False)
    one.send([storno_2])
    until(lambda: states(one) == {State.HELD: 3, State.DELIVERED: 1}, f"the live one\n{one.log('eau')[-3000:]}")
    assert documents(one) == []
    with open_leases(one.config.kim_database, one.config.kim.spool) as leases:
        account = one.config.insurers[0].address.lower()
        backlog = leases.holds.backlog(account)
        assert len(backlog) == 3
        assert leases.holds.release_to(account, backlog[-1]) == 3
    until(lambda: len(one.events()) == 4, f"all four in the feed\n{one.log('eau')[-3000:]}")
    order, found = documents(one), {event["document_id"]: event for event in one.events()}
    for first, second in ((eau, storno), (eau_2, storno_2)):
        assert order.index(first.sent.document_id) < order.index(second.sent.document_id)
        assert found[first.sent.document_id]["state"] == "cancelled"
    assert states(one) == {State.DELIVERED: 4}


def test_of_two_insurers_one_is_held_and_the_same_workers_serve_the_other(one: Platform) -> None:
    """T-24."""
    close(one, f"eau_intake/{one.config.insurers[1].ik}")
    first, second = one.mails(one.order(4)), one.mails(one.order(4, insurer=1), seed=2)
    one.send([mail for pair in zip(first, second, strict=True) for mail in pair])
    until(lambda: states(one, 0) == {State.DELIVERED: 4}, f"the open one\n{one.log('eau')[-3000:]}")
    until(lambda: states(one, 1) == {State.HELD: 4}, "the other to be placed, and no more")
    until(lambda: sorted(documents(one, 0)) == sorted(ids(first)), "the feed of the open one")
    assert is_closed(one, 1)
    reopen(one, f"eau_intake/{one.config.insurers[1].ik}", with_backlog=True)
    until(lambda: sorted(documents(one, 1)) == sorted(ids(second)), "the other, too")


# --- a worker in the middle of a batch ---


@contextmanager
def writer_stopped(one: Platform) -> Iterator[None]:
    """Nobody can write into the eAU store meanwhile."""
    with closing(sqlite3.connect(one.config.eau_database.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def worker_pid(one: Platform) -> int:
    """Of the one worker: the child of the role that has no event loop."""
    master = one.processes["eau"].pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    (found,) = (int(pid) for pid in children if not has_event_loop(Path(f"/proc/{pid}/fd")))
    return found


def has_event_loop(files: Path) -> bool:
    return any(os.readlink(file) == "anon_inode:[eventpoll]" for file in files.iterdir())


def is_waiting_for_a_lock(pid: int) -> bool:
    """SQLite sleeps between two tries; a worker sleeps of itself only when it has nothing."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in SLEEPS
