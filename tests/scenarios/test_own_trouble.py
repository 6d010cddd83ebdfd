"""Own trouble makes mails wait and never accuses a practice (HD-01; incident.md appendix B no. 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, platform, until

from schleuse.holding.states import State
from schleuse.kim.store import open_leases


def of_insurer(one: Platform, state: State) -> int:
    account = one.config.insurers[0].address
    return sum(found.states.get(state, 0) for found in one.conservation().accounts if found.name == account)


@pytest.mark.parametrize("missing", ["insurers/109900011/enc.key", "vault/kek.sealed", "pki/ca.pem"])
def test_a_missing_key_or_anchor_makes_mails_wait(base_home: Path, tmp_path: Path, missing: str) -> None:
    with platform(base_home, tmp_path / "home") as one:
        mails = one.mails(one.order(3))
        hidden = one.home / "hidden"
        server = one.server
        one.start("kim")
        until(lambda: one.ready("kim"), "kim")
        one.send(mails)
        one.start("journal")
        if not (one.home / missing).exists():  # the vault makes it
            one.start("vault")
            until(lambda: one.ready("vault"), "vault")
            one.kill("vault")
        (one.home / missing).rename(hidden)
        one.start("vault")
        one.start("eau")
        until(lambda: "eau.waits" in one.log("eau"), f"the mails to wait\n{one.log('eau')}")
        until(lambda: of_insurer(one, State.HELD) == 3, "all three to be held")
        assert of_insurer(one, State.RETURNED) == 0
        hidden.rename(one.home / missing)
        assert one.server == server
        for role in ("vault", "eau"):
            one.kill(role)
            one.start(role)
        until(lambda: one.ready("eau"), "eau")
        until(lambda: len(one.events()) == 3, f"all three to be filed when the key is back\n{one.log('vault')}")
        one.fetch()
        assert {sent.progress for sent in one.ledger.mails.values()} == {"delivered"}


def test_a_directory_that_cannot_be_read_makes_the_answer_wait(base_home: Path, tmp_path: Path) -> None:
    with platform(base_home, tmp_path / "home") as one:
        [bad] = one.mails(one.order(0, "signature"))
        one.start("kim")
        until(lambda: one.ready("kim"), "kim")
        one.send([bad])
        one.start_services()
        directory = one.home / "directory.json"
        text = directory.read_text()
        directory.write_text("{")
        one.start("eau")
        until(lambda: "eau.waits" in one.log("eau"), "the mail to wait")
        directory.write_text(text)
        until(lambda: any(a.code == "202" for a in one.fetch()), "the Fehlernachricht, later")


def test_people_look_at_what_is_quarantined_and_give_it_back(base_home: Path, tmp_path: Path) -> None:
    """A document with the prefix of the other environment is kept aside (eau.md § 19 no. 10), and nobody is told."""
    with platform(base_home, tmp_path / "home") as one:
        [mail] = one.mails(replace(one.order(1), prefix="E"))
        one.start_all()
        one.send([mail])
        until(lambda: of_insurer(one, State.QUARANTINED) == 1, "the quarantine")
        with open_leases(one.config.kim_database, one.config.kim.spool) as leases:
            [waiting] = leases.waiting([State.QUARANTINED], 10)
            assert waiting.reason == "production_in_test"
            assert leases.reconsider([waiting.id], datetime.now(UTC)) == 1
            until(lambda: bool(leases.waiting([State.QUARANTINED], 10)), "the same decision again")
        assert one.conservation().holds
        assert all(answer.progress == "delivered" for answer in one.fetch())
