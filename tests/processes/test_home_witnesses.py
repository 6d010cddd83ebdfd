"""Witnesses of this machine and the keys of the logs that they know (journal.md § 10, § 17)."""

from __future__ import annotations

from pathlib import Path

import pytest

from schleuse.processes.home_witnesses import NewWitness, create_witnesses
from schleuse.processes.journal_keys import KeyMissingError, key_file, log_signer, origin_of
from schleuse.witness.config import read_witness_config
from schleuse.witness.follow import take_over

HOST, IK, HTTP = "test.example", "109905003", "127.0.0.1:9480"


def new(folder: Path) -> NewWitness:
    return NewWitness(IK, "witness.example/kasse-a", folder / "witness", "127.0.0.1:9490", "127.0.0.1:9491")


def test_a_lost_key_of_a_log_is_named_and_not_made_again(tmp_path: Path) -> None:
    """`up` asks for this year's keys at each start: it must not be how a second log comes under an old name."""
    create_witnesses(tmp_path / "journal", HOST, HTTP, [new(tmp_path)], 2026)
    lost = key_file(tmp_path / "journal", origin_of(HOST, IK, 2026))
    lost.unlink()
    before = (tmp_path / "witness" / "witness.toml").read_bytes()
    with pytest.raises(KeyMissingError, match=lost.name):
        create_witnesses(tmp_path / "journal", HOST, HTTP, [new(tmp_path)], 2026)
    assert not lost.exists()
    assert (tmp_path / "witness" / "witness.toml").read_bytes() == before


def test_a_log_that_a_witness_has_followed_keeps_its_files_when_the_machine_starts_again(tmp_path: Path) -> None:
    create_witnesses(tmp_path / "journal", HOST, HTTP, [new(tmp_path)], 2026)
    config = read_witness_config(tmp_path / "witness")
    own = next(log for log in config.logs if log.monitor)
    take_over(config.home, own, log_signer(tmp_path / "journal", origin_of(HOST, IK, 2027)).key)
    followed = {log.origin: log for log in read_witness_config(tmp_path / "witness").logs}
    create_witnesses(tmp_path / "journal", HOST, HTTP, [new(tmp_path)], 2027)
    again = {log.origin: log for log in read_witness_config(tmp_path / "witness").logs}
    assert again[origin_of(HOST, IK, 2027)] == followed[origin_of(HOST, IK, 2027)]
