"""What the control role looks at before a stage, on the real platform (G-TECH, G-DATA; RS-04, RS-07)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, platform, until

from schleuse.clock import utc_now
from schleuse.processes.restart_journal import Compared, JournalWatch
from schleuse.processes.restart_synthetic import Synthetic, overall
from schleuse.restart.gates import Result
from schleuse.scopes import Direction, Service


def everything(_service: Service, _tenant: str, _direction: Direction) -> bool:
    return True


@pytest.fixture(scope="module")
def witnessed(base_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(base_home, tmp_path_factory.mktemp("home")) as one:
        one.start_all()
        for insurer in range(2):
            one.start_witness(insurer)
        yield one


def compared(one: Platform) -> list[Compared]:
    return JournalWatch(one.config, utc_now).compare()


def agree(one: Platform) -> bool:
    found = compared(one)
    return bool(found) and {log.result for log in found} == {Result.PASS}


def test_a_synthetic_eau_is_followed_on_its_whole_way(witnessed: Platform) -> None:
    """G-TECH: this very document is handed over, filed, receipted and fetched."""
    steps = Synthetic(witnessed.config, everything, utc_now).try_insurer(witnessed.config.insurers[0].ik)
    assert [(one.name, one.result) for one in steps] == [
        ("handed over", Result.PASS),
        ("filed", Result.PASS),
        ("receipt", Result.PASS),
        ("fetched", Result.PASS),
    ], steps
    assert overall(steps)[0] is Result.PASS
    closed = Synthetic(witnessed.config, lambda *_: False, utc_now).try_insurer(witnessed.config.insurers[1].ik)
    assert [one.name for one in closed] == ["handed over", "filed"]  # what is closed is not asked


def test_an_eau_that_nobody_processes_is_inconclusive(witnessed: Platform) -> None:
    """RS-04."""
    witnessed.kill("eau")
    steps = Synthetic(witnessed.config, lambda *_: False, utc_now, wait=1).try_insurer(witnessed.config.insurers[0].ik)
    assert [(one.name, one.result) for one in steps] == [
        ("handed over", Result.PASS),
        ("filed", Result.INCONCLUSIVE),
    ]
    witnessed.start("eau")


def test_the_journal_continues_what_was_witnessed_and_knows_only_mails_that_are_there(witnessed: Platform) -> None:
    """G-DATA, RS-07: a store that lost a mail which the journal has told of is a ledger gap, not a quiet success."""
    witnessed.send_until_accepted(witnessed.mails(witnessed.order(3)))
    until(lambda: agree(witnessed), f"logs and stores to agree: {compared(witnessed)}")
    kept = list((witnessed.home / "switch" / "witnessed").iterdir())
    assert len(kept) >= 1
    before = {log.origin: log.size for log in compared(witnessed)}
    witnessed.send_until_accepted(witnessed.mails(witnessed.order(2), seed=7))
    until(lambda: any(log.size > before.get(log.origin, 0) for log in compared(witnessed)), "more to be witnessed")
    for role in ("kim", "eau"):
        witnessed.kill(role)
    with closing(sqlite3.connect(witnessed.home / "kim.sqlite")) as store:
        mailbox = witnessed.config.insurers[0].address.lower()
        first = "SELECT min(id) FROM kim_delivery WHERE account = ? AND digest IS NOT NULL"
        store.execute(f"DELETE FROM kim_delivery WHERE id = ({first})", (mailbox,))
        store.commit()
    found = [log for log in compared(witnessed) if log.result is Result.FAIL]
    assert found
    assert "does not have" in found[0].text.en


def test_a_journal_that_does_not_answer_is_inconclusive(witnessed: Platform) -> None:
    """RS-04."""
    witnessed.kill("journal")
    assert {log.result for log in compared(witnessed)} == {Result.INCONCLUSIVE}
