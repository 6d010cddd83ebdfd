"""What restarts ask of a home's stores: how much waits, how it is held again, and whether anything was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import NEW
from tests.processes.test_reconciling import Place
from tests.scenarios import switching

from schleuse.config import FILE_NAME, Config, read_config
from schleuse.eau.hold_changes import hold_changes
from schleuse.eau.switched import processing
from schleuse.holding.release import Mailbox, ReleasePlan
from schleuse.identifiers import IK
from schleuse.journal.opening import Json
from schleuse.processes.home import create_home
from schleuse.processes.release_book import Part
from schleuse.processes.releasing import release_book
from schleuse.processes.restart_home import backlog_of, fingerprint_of, mailboxes, restarts_of, take_back_of
from schleuse.processes.switching import switch_log
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import RestartPlan
from schleuse.scopes import ScopeState, Service
from schleuse.switch.log import rules_of

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    create_home(tmp_path / "home", NEW, datetime.now(UTC))
    return read_config(tmp_path / "home")


def plan(service: Service) -> RestartPlan:
    ik = NEW.insurers[0].ik.value
    return default_plan("r1", [service], [ik], ik, NOW)


def test_only_mailboxes_of_the_plan_are_looked_at(config: Config) -> None:
    assert mailboxes(config, plan(Service.EAU_INTAKE).scopes) == [config.insurers[0].address.lower()]
    assert mailboxes(config, plan(Service.KEYS).scopes) == []


def test_nothing_waits_in_a_new_home_and_nothing_is_taken_back(config: Config) -> None:
    assert backlog_of(config)(plan(Service.EAU_INTAKE)) == 0
    assert take_back_of(config, lambda _facts, _granted: None)(plan(Service.EAU_INTAKE)) == 0


def test_a_release_that_runs_is_stopped_by_the_abort(config: Config) -> None:
    """T-14, RS-06: the batch that nobody has taken goes back to HELD, and the release goes no further."""
    told: list[Mapping[str, Json]] = []
    ik, account = config.insurers[0].ik, config.insurers[0].address.lower()
    book = release_book(config)
    for id, box in (("r-mine", account), ("r-other", "other@kasse.kim.telematik-test")):
        book.keep(ReleasePlan(id, 1, NOW, (Mailbox(box, ik, 5, 5),)))
        book.note(id, replace(book.progress(id), begun_at=NOW.isoformat(), parts={box: Part(0, 2, 2, 1)}, released=2))
    take_back_of(config, lambda facts, _granted: told.append(facts))(plan(Service.EAU_INTAKE))
    assert "r1 was aborted" in book.progress("r-mine").stopped
    assert not book.progress("r-other").stopped
    assert [one["act"] for one in told] == ["release.stopped"]


@pytest.mark.parametrize("seen", [0, 2, 3], ids=["no worker ran", "the opening was followed", "all was followed"])
def test_what_an_aborted_opening_let_go_stays_held_whenever_a_worker_follows(config: Config, seen: int) -> None:
    """RS-06, HD-25: a worker that hears of opening and closing only after the abort lets nothing go by them."""
    ik, account = IK(config.insurers[0].ik), config.insurers[0].address.lower()
    place = Place(config.home)
    with place.store:
        place.accept(1, 2, 3, at=datetime.now(UTC) - timedelta(hours=2))
        holds = place.store.leases.holds

        def follow(head: int) -> None:
            rules = rules_of(switch_log(config).read_all()[:head])
            now = datetime.now(UTC)
            holds.follow(
                {},
                head,
                [account],
                lambda _account, after, is_open: hold_changes(rules, processing(ik), after, is_open, now),
                now,
            )

        switching.close(config.home, "eau", ScopeState.HOLD)
        follow(1)
        switching.open(config.home, "eau", with_backlog=True)
        switching.close(config.home, "eau", ScopeState.HOLD)
        follow(seen)
        take_back_of(config, lambda _facts, _granted: None)(plan(Service.EAU_INTAKE))
        follow(2)  # a worker that is late
        follow(3)
        switching.open(config.home, "eau")
        follow(4)
        assert len(holds.backlog(account)) == 3


def test_a_store_that_does_not_answer_is_not_an_empty_one(config: Config) -> None:
    """RS-04."""
    (config.home / "kim.sqlite").write_bytes(b"no database at all" * 100)
    assert backlog_of(config)(plan(Service.EAU_INTAKE)) is None


def test_a_changed_configuration_is_seen(config: Config) -> None:
    """RS-11."""
    look = fingerprint_of(config)
    before = look()
    assert before == look() != ""
    file = config.home / FILE_NAME
    file.write_text(file.read_text() + "# another line\n")
    assert look() != before
    file.unlink()
    assert look() == ""


def test_the_restarts_of_a_home_are_kept_beside_its_switch(config: Config) -> None:
    told: list[object] = []
    restarts = restarts_of(config, lambda facts, _granted: told.append(facts))
    restarts.make(plan(Service.EAU_INTAKE), "betrieb-1")
    assert restarts_of(config, lambda _facts, _granted: None).names() == ["r1"]
    assert (config.switch_folder / "restart" / "r1" / "00001.json").exists()
    assert len(told) == 1
