"""`schleuse hold capacity`: how long a hold the store lasts, from records (RS-20, HD-08, HD-28)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.eau.samples import NOON, eau, file
from tests.kim.mails import START
from tests.postgres import fresh_database
from tests.processes.test_reconciling import Place

from schleuse.cli import EXIT_CODES
from schleuse.cli.hold_capacity import TOO_SMALL
from schleuse.clock import utc_now
from schleuse.eau.store import open_store
from schleuse.errors import RefusedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.processes.hold_capacity import measured


@pytest.fixture
def place(home: Path) -> Iterator[Place]:
    made = Place(home)
    open_store(made.config.eau_database).close()
    with made.store:
        yield made


def busy(place: Place) -> None:
    """Two mails a day ago, five today."""
    place.accept(1, 2, at=utc_now() - timedelta(days=1))
    place.accept(*range(3, 8), at=utc_now())


def test_it_says_what_was_measured_and_what_is_assumed(shell: Shell, home: Path, place: Place) -> None:
    busy(place)
    said = json.loads(shell("hold", "capacity", "--home", str(home), "--json", "--days", "14").out)
    assert said["measured"]["busiest_day"] == 5
    assert said["measured"]["octets_per_mail"] > 200
    assert said["assumed"]["repeats"] == 2.0
    assert said["backlog"] == 5 * 14 * 3
    assert said["octets_needed"] == pytest.approx(said["backlog"] * said["measured"]["octets_per_mail"], rel=0.01)
    assert said["lasts_days"]["70"] <= said["lasts_days"]["95"] <= said["lasts_days"]["100"]
    assert (said["enough"], said["fast_enough"], said["drained_in_hours"]) == (True, None, None)


def test_a_store_that_is_too_small_is_an_error_that_monitoring_sees(shell: Shell, home: Path, place: Place) -> None:
    busy(place)
    words = ("hold", "capacity", "--home", str(home), "--store-gib", "1", "--per-day", "10000", "--kib", "50")
    ended = shell(*words, "--repeats", "0")
    assert ended.code == TOO_SMALL
    assert "voll: 2,1 Tage" in ended.out
    assert "420.000 Mails, 20,0 GiB" in shell(*words).out
    assert "zu klein" in ended.out
    assert shell(*words, "--repeats", "0", "--days", "2").code == 0


def test_people_read_it_in_both_languages(
    shell: Shell, home: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(place)
    out = shell("hold", "capacity", "--home", str(home)).out
    assert "Speicher reicht" in out
    assert "noch keine verarbeitet" in out
    monkeypatch.setenv("SCHLEUSE_LANG", "en")
    out = shell(
        "hold", "capacity", "--home", str(home), "--per-day", "10000", "--kib", "50", "--drain-hours", "1.5"
    ).out
    assert "the store lasts" in out
    assert "420,000 Mails, 20.0 GiB" in out
    assert "drained in 1.5 h" in out


def test_without_any_mail_nothing_is_guessed(shell: Shell, home: Path, place: Place) -> None:
    ended = shell("hold", "capacity", "--home", str(home))
    assert (ended.code, ended.out) == (EXIT_CODES[RefusedError], "")
    assert shell("hold", "capacity", "--home", str(home), "--per-day", "1000", "--kib", "50").code == 0


def test_a_store_that_is_not_there_is_no_answer(shell: Shell, home: Path) -> None:
    assert shell("hold", "capacity", "--home", str(home)).code == EXIT_CODES[UnavailableError]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_figures_are_of_records(kind: str, home: Path) -> None:
    """The busiest day, the disk for each mail, the fastest minute; of PostgreSQL the disk is not ours to see."""
    if kind == "sqlite":
        check_figures(Place(home))
        return
    with fresh_database() as url:
        check_figures(Place(home, url))


def check_figures(place: Place) -> None:
    insurer = IK(place.config.insurers[0].ik)
    store = open_store(place.config.eau_database)
    file(store, eau(1), eau(2), eau(3), ik=insurer)
    store.close()
    with place.store:
        place.accept(1, 2, 3, at=START)
        place.accept(4, at=START + timedelta(days=1))
        found = measured(place.config, START + timedelta(days=2))
        assert (found.busiest_day, found.day and found.day.date()) == (3, START.date())
        assert found.octets > 200
        assert found.fastest == 3 / 60
        assert (found.room is None) == place.config.kim_database.startswith("postgresql")
        assert measured(place.config, NOON + timedelta(days=90)).busiest_day == 0
