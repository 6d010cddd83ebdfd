"""The same platform with everything in PostgreSQL: mails are committed there before the 250 (design.md § 6)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.postgres import fresh_database
from tests.scenarios.platform import platform, until
from tests.scenarios.test_crash import everything_is_there_once, load

from schleuse.eau.worker import STEPS


@pytest.mark.postgres
@pytest.mark.slow
def test_the_life_of_eau_in_postgresql_while_workers_die(base_home: Path, tmp_path: Path) -> None:
    with fresh_database() as url:
        changes = {
            "[kim]": f'[kim]\ndatabase = "{url}"',
            "[eau]": f'[eau]\nbatch = 3\ndatabase = "{url}"',
            "[vault]": f'[vault]\ndatabase = "{url}"',
        }
        with platform(base_home, tmp_path / "home", changes) as one:
            one.start_services()
            one.start("kim")
            until(lambda: one.ready("kim"), f"kim\n{one.log('kim')}")
            good, faulty = load(one, 50)
            one.send(good + faulty)
            one.start("eau", {"SCHLEUSE_KILL_AT": ",".join(f"{step}:0.2" for step in STEPS)})
            until(lambda: one.ready("eau"), f"eau\n{one.log('eau')}")
            everything_is_there_once(one, good, faulty)
            assert one.log("eau").count("child.ended") >= 10
            assert not list((one.home / "spool").glob("*.seg*")), "no mail is kept in files"
