"""Appendix B asked of a home: what holds, what is unknown while nothing runs, and each violation by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.eau.samples import NOON, faulty, file
from tests.postgres import fresh_database
from tests.scenarios import switching
from tests.scenarios.platform import build_home

from schleuse.clock import to_us, utc_now
from schleuse.config import Config, read_config
from schleuse.database import create_engine
from schleuse.eau.store import open_store
from schleuse.identifiers import IK
from schleuse.kim.store import open_leases
from schleuse.processes.control_offline import Offline, offline
from schleuse.processes.invariants import Answer, Invariant, check_invariants
from schleuse.processes.operators import rights_of
from schleuse.processes.switching import effect_book, open_switch
from schleuse.scopes import Scope, ScopeState, Service
from schleuse.shutdown.exceptions import Exemption, keep_exemption, sign_exemption
from schleuse.switch.effects import SwitchEffect
from schleuse.vault.tokens import read_token_key

EINS = "109900011"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = build_home(tmp_path / "home")
    config = read_config(folder)
    open_leases(config.kim_database, config.kim.spool).close()
    open_store(config.eau_database).close()
    return folder


@pytest.fixture
def config(home: Path) -> Config:
    return read_config(home)


@pytest.fixture
def tools(config: Config) -> Iterator[Offline]:
    with offline(config) as tools:
        yield tools


def asked(config: Config, tools: Offline, now: timedelta = timedelta(0)) -> dict[int, Invariant]:
    return {one.number: one for one in check_invariants(config, tools.closings, lambda: utc_now() + now)}


def execute(url: str, statement: str, **values: object) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()


def test_while_nothing_runs_what_cannot_be_asked_is_unknown_and_nothing_is_violated(
    config: Config, tools: Offline
) -> None:
    """RS-04."""
    found = asked(config, tools)
    assert {number for number, one in found.items() if one.answer is Answer.HOLDS} == {1, 2, 3, 4, 5, 6, 13}
    assert {number for number, one in found.items() if one.answer is Answer.UNKNOWN} == {7, 8, 14}


def test_a_closing_without_proof_is_no_violation_for_a_minute_and_then_one(config: Config, home: Path) -> None:
    switching.close(home, "eau/*", ScopeState.HOLD)
    with offline(config) as tools:
        assert asked(config, tools)[4].answer is Answer.HOLDS
        late = asked(config, tools, timedelta(seconds=61))[4]
    assert late.answer is Answer.VIOLATED
    assert any("commanded, not proven" in one for one in late.findings)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_fehlernachricht_of_a_held_insurer_is_named(kind: str, config: Config, tools: Offline) -> None:
    """HD-01: whoever made it, it was not because anybody had looked at the mail. Made and kept by the store itself."""
    with ExitStack() as stack:
        if kind == "postgresql":
            eau = config.eau.model_copy(update={"database": stack.enter_context(fresh_database())})
            config = config.model_copy(update={"eau": eau})
        store = open_store(config.eau_database)
        with open_leases(config.kim_database, config.kim.spool) as leases:
            account = config.insurers[0].address.lower()
            leases.holds.begin(account, 1, "c1", "security_hold", NOON - timedelta(hours=1))
        assert asked(config, tools)[6].answer is Answer.HOLDS
        file(store, faulty(1), ik=IK(EINS))  # at noon
        store.close()
        found = asked(config, tools)[6]
    assert found.answer is Answer.VIOLATED
    assert found.findings == (f"{EINS}: 1 Fehlernachrichten were made while it was held",)


def test_an_effect_under_an_older_epoch_is_named(config: Config, home: Path) -> None:
    """SW-06: after every worker said that it is quiet; of each closing, not only of the last."""
    with offline(config) as tools:
        scopes = [one for one in tools.closings.atoms if one.tenant == EINS and one.direction == "process"]

        def closed(at: datetime) -> int:
            epoch = switching.close(home, "eau/*", ScopeState.HOLD)
            tools.closings.switch.refresh()
            for worker in tools.closings.sources.workers(scopes[0]):
                effect_book(config).write(SwitchEffect(worker, epoch, at, at))
            return epoch

        now = utc_now()
        first = closed(now)
        assert asked(config, tools)[2].answer is Answer.HOLDS
        finished(config, 16, now + timedelta(seconds=5), epoch=first - 1)
        named = asked(config, tools)[2].findings
        assert len(named) == 1
        assert f"under an epoch before {first}" in named[0]

        second = closed(now + timedelta(seconds=10))
        assert asked(config, tools)[2].findings == named
        finished(config, 17, now + timedelta(seconds=5), epoch=second - 1)  # between the two, and under the first
        assert asked(config, tools)[2].findings == named
        finished(config, 18, now + timedelta(seconds=15), epoch=second - 1)
        found = asked(config, tools)[2]
    assert found.answer is Answer.VIOLATED
    assert [int(one.rpartition(" ")[2]) for one in found.findings] == [second, first]


def test_an_effect_is_named_also_after_the_insurers_system_took_it_over(config: Config, home: Path) -> None:
    """SW-06: of a closing of last month nearly all is CONFIRMED by now."""
    with offline(config) as tools:
        scope = next(one for one in tools.closings.atoms if one.tenant == EINS and one.direction == "process")
        epoch, now = switching.close(home, "eau/*", ScopeState.HOLD), utc_now()
        tools.closings.switch.refresh()
        for worker in tools.closings.sources.workers(scope):
            effect_book(config).write(SwitchEffect(worker, epoch, now, now))
        finished(config, 16, now + timedelta(seconds=5), epoch=epoch - 1)
        with open_leases(config.kim_database, config.kim.spool) as leases:
            assert leases.confirm([16], now + timedelta(hours=1)) == 1
        assert asked(config, tools)[2].answer is Answer.VIOLATED


def test_a_closing_that_a_worker_followed_only_with_the_next_one_is_not_said_to_be_looked_at(
    config: Config, home: Path
) -> None:
    """Such as after one more worker was configured: of all closings before, nobody knows when it was quiet."""
    with offline(config) as tools:
        scope = next(one for one in tools.closings.atoms if one.tenant == EINS and one.direction == "process")
        workers, now = [*tools.closings.sources.workers(scope)], utc_now()
        for round, there in enumerate((workers[1:], workers)):
            epoch = switching.close(home, "eau/*", ScopeState.HOLD)
            tools.closings.switch.refresh()
            for worker in there:
                at = now + timedelta(seconds=10 * round)
                effect_book(config).write(SwitchEffect(worker, epoch, at, at))
        found = asked(config, tools)[2]
    others = len(config.insurers) - 1
    assert found.text.en.startswith(f"{1 + others} of {2 * (1 + others)} closings"), found.text.en


def finished(config: Config, id: int, at: datetime, epoch: int) -> None:
    execute(
        config.kim_database,
        "INSERT INTO kim_delivery (id, account, state, length, size, accepted_us, changed_us, not_before_us,"
        " attempts, delay_reported, epoch) VALUES (:id, :account, 'DELIVERED', 1, 1, 1, :at, 0, 1, 0, :epoch)",
        id=id,
        account=config.insurers[0].address.lower(),
        at=to_us(at),
        epoch=epoch,
    )


def test_a_copy_that_says_something_else_than_the_log_is_named(config: Config, home: Path, tools: Offline) -> None:
    """SW-04: the log was rewritten after a role had seen it."""
    switching.close(home, "eau/*", ScopeState.HOLD)
    open_switch(config, "eau-worker-0")
    first = home / "switch" / "log" / "0000000001.json"
    first.unlink()
    switching.close(home, "keys/*", ScopeState.HOLD)
    found = asked(config, tools)[3]
    assert found.answer is Answer.VIOLATED
    assert "the copy eau-worker-0 has other commands than the log" in found.findings


def test_openings_of_two_persons_are_counted(config: Config, home: Path, tools: Offline) -> None:
    switching.close(home, "eau/*", ScopeState.HOLD)
    switching.open(home, "eau/*")
    found = asked(config, tools)
    assert (found[3].answer, found[5].answer) == (Answer.HOLDS, Answer.HOLDS)
    assert found[3].text.en.startswith("1 openings")


def test_an_exception_that_nobody_looked_at_in_time_or_nobody_signed_is_named(config: Config, tools: Offline) -> None:
    """Appendix B no. 13."""
    now = utc_now()
    scope = Scope(Service.PAYMENTS_SUPPORT)
    made = Exemption("e1", scope, "no switch yet", "watched by hand", "betrieb-1", now + timedelta(days=1), now)
    name, role = switching.CLOSER
    signed = sign_exemption(made, name, role, read_token_key(config.home / "operators" / f"{name}.key"))
    folder = config.switch_folder / "exceptions"
    keep_exemption(folder, signed, rights_of(config))
    assert asked(config, tools)[13].answer is Answer.HOLDS
    late = asked(config, tools, timedelta(days=2))[13]
    assert late.answer is Answer.VIOLATED
    assert "e1 of betrieb-1" in late.findings[0]
    (folder / "e2.json").write_text("{}")
    assert "e2" in asked(config, tools)[13].findings[0]


def test_a_home_that_is_older_than_its_drills_is_a_violation(config: Config, tools: Offline) -> None:
    """SW-15: an unexercised switch counts as not present."""
    found = asked(config, tools, timedelta(days=40))[14]
    assert found.answer is Answer.VIOLATED
    assert len(found.findings) > 3


def test_a_scope_that_was_proven_closed_is_fresh(config: Config, tools: Offline) -> None:
    assert asyncio.run(tools.closings.prove([])) == []
    assert asked(config, tools)[14].answer is Answer.UNKNOWN
