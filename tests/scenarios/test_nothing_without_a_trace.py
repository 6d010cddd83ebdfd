"""Promise 2 on real processes: nothing is opened without an entry, whoever is off (T-10; issue 3, "done when")."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, platform, until

from schleuse.journal.entry import Kind, Purpose, Result


@pytest.fixture
def site(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home") as one:
        one.start_all()
        yield one


def documents(site: Platform) -> set[str]:
    return {event["document_id"] for event in site.events()}


def counted(site: Platform) -> Counter[tuple[Kind, Purpose]]:
    """Granted entries of the first insurer's log."""
    return Counter((entry.kind, entry.purpose) for entry in site.entries() if entry.result is Result.GRANTED)


OPENED = (Kind.KEY_RELEASED, Purpose.EAU_INTAKE)
DELIVERED = (Kind.KEY_RELEASED, Purpose.EAU_DELIVERY)
WRITTEN = (Kind.WRITE, Purpose.EAU_INTAKE)
ACCEPTED = (Kind.SPOOL_ACCEPTED, Purpose.EAU_INTAKE)


def test_openings_counter_and_entries_are_one_number(site: Platform, tmp_path: Path) -> None:
    for insurer in range(2):
        site.start_witness(insurer)
    mails = site.mails(site.order(100))
    assert {reply.code for reply in site.send(mails)} == {250}
    wanted = {mail.sent.document_id for mail in mails}
    until(lambda: wanted <= documents(site), "100 events")
    with site.feed() as client:
        for document in sorted(wanted)[:7]:
            assert client.get(f"eau/{document}").status_code == 200
    until(lambda: counted(site)[ACCEPTED] == 100, "the entries of 100 acceptances")
    until(lambda: counted(site)[DELIVERED] == 7, "the entries of 7 deliveries")
    found = counted(site)
    assert (found[OPENED], found[WRITTEN], found[DELIVERED]) == (100, 100, 7)
    numbers = [entry.release_counter for entry in site.entries() if entry.kind is Kind.KEY_RELEASED]
    assert numbers == list(range(1, 108)), "numbered without gaps"
    status = json.loads(site.command("vault", "status", "--home", str(site.home), "--json").stdout)
    origin = next(origin for origin in status["logs"] if f"/{site.config.insurers[0].ik}/" in origin)
    assert status["logs"][origin]["counter"] == 107
    assert_verified_offline(site, tmp_path)


def assert_verified_offline(site: Platform, tmp_path: Path) -> None:
    """From the witness's side: a copy of the log and the policy file, and nothing else."""
    ik = site.config.insurers[0].ik
    folder = site.home / "insurers" / ik / "witness"
    policy = next(path for path in folder.iterdir() if path.name.startswith("policy") and ik in path.read_text())
    origin = next(line.split()[1].split("+")[0] for line in policy.read_text().splitlines() if line.startswith("log "))
    url = f"http://{site.config.journal.http}/{origin.partition('/')[2]}"

    def cosigned() -> bool:
        site.command("journal", "export", url, str(tmp_path / "copy"), check=False)
        done = site.command("journal", "verify", str(tmp_path / "copy"), "--policy", str(policy), check=False)
        return done.returncode == 0

    until(cosigned, "a log that satisfies the witness's policy")


def test_without_the_journal_nothing_is_opened_and_nothing_is_lost(site: Platform) -> None:
    site.send(site.mails(site.order(5), seed=1))
    until(lambda: len(documents(site)) == 5, "the first five")
    site.kill("journal")
    mails = site.mails(site.order(25), seed=2)
    assert {reply.code for reply in site.send(mails)} == {250}, "taking in never waits for the journal"
    until(
        lambda: "eau.waits" in site.log("eau") or "eau.waiting" in site.log("eau"), "the eau role to say that it waits"
    )
    assert len(documents(site)) == 5
    with site.feed() as client:
        assert client.get(f"eau/{sorted(documents(site))[0]}").status_code == 503
    assert site.conservation().holds
    site.start("journal")
    until(lambda: {mail.sent.document_id for mail in mails} <= documents(site), "the backlog")
    until(lambda: counted(site)[ACCEPTED] == 30, "the entries of 30 acceptances")
    until(lambda: counted(site)[WRITTEN] == 30, "the entries of 30 filings")
    assert counted(site)[OPENED] >= 30, "an entry without an opening may be; an opening without an entry never"
    numbers = [entry.release_counter for entry in site.entries() if entry.kind is Kind.KEY_RELEASED]
    assert numbers == list(range(1, len(numbers) + 1))
    until(lambda: site.conservation().holds, "conservation")


@pytest.mark.parametrize("role", ["journal", "vault", "eau"])
def test_a_role_that_is_killed_again_and_again_under_load_changes_no_count(site: Platform, role: str) -> None:
    wanted: set[str] = set()
    for round_ in range(4):
        mails = site.mails(site.order(15), seed=100 + round_)
        assert {reply.code for reply in site.send(mails)} == {250}
        wanted |= {mail.sent.document_id for mail in mails}
        site.kill(role)
        site.start(role)
    until(lambda: wanted <= documents(site), "everything")
    until(lambda: counted(site)[ACCEPTED] == 60, "the entries of all acceptances")
    until(lambda: counted(site)[WRITTEN] >= 60, "the entries of all filings")
    numbers = [
        entry.release_counter
        for entry in site.entries()
        if entry.kind is Kind.KEY_RELEASED and entry.result is Result.GRANTED
    ]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 60
    until(lambda: site.conservation().holds, "conservation")


def test_an_order_without_a_right_token_opens_nothing_and_leaves_an_entry(site: Platform) -> None:
    site.send(site.mails(site.order(1)))
    until(lambda: len(documents(site)) == 1, "the event")
    document = documents(site).pop()
    with site.feed(1) as stranger:
        stranger.base_url = f"https://{site.config.eau.feed}/v1/{site.config.insurers[0].ik}/"
        assert stranger.get(f"eau/{document}").status_code in {401, 403}
    until(
        lambda: any(entry.result is Result.DENIED for entry in site.entries()),
        "the entry of the attempt",
    )
    assert counted(site)[DELIVERED] == 0
