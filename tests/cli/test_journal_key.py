"""`schleuse journal key`: what an insurer's witness must know of next year's log (journal.md § 17)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.conftest import Shell

from schleuse.journal.note import LogKey, parse_vkey

IK = "109900011"
YEAR = datetime.now(UTC).year


def test_keys_are_made_when_asked_for_and_stay_the_same(shell: Shell, home: Path) -> None:
    ended = shell("journal", "key", "--home", str(home))
    assert ended.code == 69
    assert "--make" in ended.err
    made = shell("journal", "key", "--make", "--home", str(home))
    assert made.code == 0
    names = [LogKey(parse_vkey(line)).key.name for line in made.out.splitlines()]
    assert [name.rsplit("/", 2)[1:] for name in names] == [[IK, str(YEAR + 1)], ["platform", str(YEAR + 1)]]
    again = shell("journal", "key", "--year", str(YEAR + 1), "--json", "--home", str(home))
    assert list(json.loads(again.out).values()) == made.out.split()


def test_this_years_keys_are_shown_without_reading_what_is_secret(shell: Shell, home: Path) -> None:
    insurer = home / "journal" / "keys" / f"log-{IK}-{YEAR}"
    vkeys = shell("journal", "key", "--year", str(YEAR), "--json", "--home", str(home))
    insurer.unlink()
    assert shell("journal", "key", "--year", str(YEAR), "--json", "--home", str(home)) == vkeys
    assert json.loads(vkeys.out)[IK].startswith("journal.")


@pytest.mark.parametrize("year", [YEAR + 2, YEAR - 1])
def test_keys_of_other_years_are_not_made(shell: Shell, home: Path, year: int) -> None:
    ended = shell("journal", "key", "--make", "--year", str(year), "--home", str(home))
    assert (ended.code, ended.out) == (77, "")
    assert str(YEAR + 1) in ended.err


def test_a_lost_key_is_told_and_not_made_again(shell: Shell, home: Path) -> None:
    """What `--make` once printed is known to insurers."""
    shell("journal", "key", "--make", "--home", str(home))
    lost = home / "journal" / "keys" / f"log-{IK}-{YEAR + 1}"
    lost.unlink()
    assert shell("journal", "key", "--make", "--home", str(home)).code == 0  # what was told is still true
    assert not lost.exists()
