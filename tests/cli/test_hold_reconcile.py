"""`schleuse hold reconcile`: a definite answer for each practice (§ 6.8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Shell
from tests.processes.test_reconciling import FERN, PRAXIS, Place

from schleuse.cli import EXIT_CODES
from schleuse.errors import MalformedError, RefusedError, UnavailableError
from schleuse.holding.states import State

#: The mails of `Place` are of a fixed day.
DAY = ("--since", "2026-03-02", "--until", "2026-03-03")


@pytest.fixture
def place(home: Path) -> Iterator[Place]:
    made = Place(home)
    with made.store:
        yield made


def test_each_practice_reads_what_to_send_again_or_nothing(shell: Shell, home: Path, place: Place) -> None:
    place.accept(7)
    place.decide(State.RETURNED, "eau.signature")
    place.accept(8, sender=FERN)
    out = shell("hold", "reconcile", "--home", str(home), *DAY).out
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "diese erneut senden: <7@praxis.example> (eau.signature)" in lines[PRAXIS]
    assert lines[FERN].rstrip().endswith("nichts erneut zu senden")
    assert "2 angenommen; 1 Praxen müssen etwas erneut senden" in out


def test_who_asks_for_one_practice_sees_all_its_mails(shell: Shell, home: Path, place: Place) -> None:
    place.accept(*range(1, 8))
    place.decide(State.RETURNED, "eau.signature", 7)
    few = shell("hold", "reconcile", "--home", str(home), *DAY, "--json").out
    assert len(json.loads(few)["resend"]) == 7
    assert "… 7" in shell("hold", "reconcile", "--home", str(home), *DAY).out
    assert "… 7" not in shell("hold", "reconcile", "--home", str(home), *DAY, "--practice", PRAXIS).out


def test_a_practice_of_which_nothing_arrived_is_not_told_nothing(shell: Shell, home: Path, place: Place) -> None:
    place.accept(1)
    out = shell("hold", "reconcile", "--home", str(home), *DAY, "--practice", FERN).out
    assert f"{FERN}: in dieser Zeit ist nichts angekommen; was gesendet wurde, erneut senden" in out


def test_signed_statements_are_checked_offline(shell: Shell, home: Path, place: Place, tmp_path: Path) -> None:
    place.accept(7)
    place.decide(State.RETURNED, "eau.signature")
    place.accept(8, sender=FERN)
    printed = shell("hold", "reconcile", "--home", str(home), *DAY, "--sign").out
    file = tmp_path / "statements.jsonl"
    file.write_text(printed)
    lines = [json.loads(line) for line in printed.splitlines()]
    shown = shell("hold", "statement", str(file), "--home", str(home), "--json").out
    assert [json.loads(line) for line in shown.splitlines()] == [one["statement"] for one in lines]
    assert lines[0]["statement"]["from"] == "2026-03-02T00:00:00.000Z"
    told = shell("hold", "statement", str(file), "--home", str(home)).out
    assert "nichts erneut zu senden" in told
    assert "<7@praxis.example> (eau.signature)" in told
    assert (home / "keys" / "receipts.key").stat().st_mode & 0o777 == 0o600


def test_a_statement_that_was_changed_or_is_a_receipt_proves_nothing(
    shell: Shell, home: Path, place: Place, tmp_path: Path
) -> None:
    place.accept(1)
    line = json.loads(shell("hold", "reconcile", "--home", str(home), *DAY, "--sign").out)
    file = tmp_path / "statement.json"
    line["statement"]["must_resend"] = "yes"
    file.write_text(json.dumps(line, indent=2))
    assert shell("hold", "statement", str(file), "--home", str(home)).code == EXIT_CODES[RefusedError]
    file.write_text(line["signature"])
    assert shell("hold", "statement", str(file), "--home", str(home)).code == 0
    assert shell("hold", "receipt", str(file), "--home", str(home)).code == EXIT_CODES[MalformedError]


def test_a_store_that_is_not_there_is_no_answer(shell: Shell, home: Path) -> None:
    ended = shell("hold", "reconcile", "--home", str(home))
    assert (ended.code, ended.out) == (EXIT_CODES[UnavailableError], "")
