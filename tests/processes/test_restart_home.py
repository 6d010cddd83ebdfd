"""What restarts ask of a home's stores: how much waits, how it is held again, and whether anything was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.conftest import NEW

from schleuse.config import FILE_NAME, Config, read_config
from schleuse.holding.release import Mailbox, ReleasePlan
from schleuse.journal.opening import Json
from schleuse.processes.home import create_home
from schleuse.processes.release_book import Part
from schleuse.processes.releasing import release_book
from schleuse.processes.restart_home import backlog_of, fingerprint_of, mailboxes, restarts_of, take_back_of
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import RestartPlan
from schleuse.scopes import Service

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    create_home(tmp_path / "home", NEW, datetime.now(UTC))
    return read_config(tmp_path / "home")


def plan(service: Service) -> RestartPlan:
    ik = NEW.insurers[0].ik.value
    return default_plan("r1", [service], [ik], ik, NOW)


def test_only_mailboxes_of_the_plan_are_looked_at(config: Config) -> None:
    assert mailboxes(config, plan(Service.EAU_INTAKE)) == [config.insurers[0].address.lower()]
    assert mailboxes(config, plan(Service.KEYS)) == []


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
