"""What `schleuse up --demo` makes, and the block that says what to try."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schleuse.config import Config, read_config
from schleuse.processes.demo import INSURERS, PRACTICES, create_demo, what_runs_where


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("demo") / "home"
    steps: list[str] = []
    create_demo(folder, steps.append)
    assert "journal keys and witnesses" in steps
    return read_config(folder)


def test_a_demo_has_three_insurers_with_a_witness_each_and_two_practices(config: Config) -> None:
    assert [one.ik for one in config.insurers] == [one.ik.value for one in INSURERS]
    assert len(config.witnesses) == 3
    assert len(config.accounts) == len(INSURERS) + len(PRACTICES)


@pytest.mark.parametrize("german", [True, False])
def test_the_block_names_every_port_and_how_to_check_the_journal(config: Config, german: bool) -> None:
    block = what_runs_where(config, german)
    year = datetime.now(UTC).year
    for listen in (config.kim.smtp_tls, config.eau.feed, config.journal.http, config.vault.metrics):
        assert listen in block
    folder = config.witnesses[0]
    assert all(str(one) in block for one in config.witnesses)
    assert f"./schleuse witness mirror --config {folder}" in block
    ik = config.insurers[0].ik
    verify = f"./schleuse journal verify {folder}/mirror/{ik}/{year} --policy {folder}/policy-{year}"
    assert verify in block
    assert (folder / f"policy-{year}").exists()
    assert ("Zeuge" in block) is german


def test_without_witnesses_the_block_shows_none(config: Config) -> None:
    block = what_runs_where(config.model_copy(update={"witnesses": ()}), german=False)
    assert "witness" not in block
    assert "journal status" in block
