"""T-06 on real processes: one sickness case comes held, repeated, generated anew and on paper (incident.md § 16)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.postgres import fresh_database
from tests.scenarios.platform import Platform, platform, until
from tests.scenarios.soak_practices import anew, wire_of
from tests.scenarios.test_switch_eau import close, delivered, is_closed, reopen, states

from schleuse.eau.document import read_facts
from schleuse.fhir.node import parse
from schleuse.holding.states import State
from schleuse.journal.entry import Kind, Purpose
from schleuse.practice.documents import Document, Generator
from schleuse.practice.ledger import Progress, Sent
from schleuse.practice.mailing import new_message_id
from schleuse.practice.outbox import Prepared


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def one(request: pytest.FixtureRequest, base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with ExitStack() as stack:
        changes = {}
        if request.param == "postgresql":
            url = stack.enter_context(fresh_database())
            changes = {f"[{part}]": f'[{part}]\ndatabase = "{url}"' for part in ("kim", "eau", "vault")}
        started = stack.enter_context(platform(base_home, tmp_path / "home", changes))
        started.start_all()
        yield started


def mail(one: Platform, document: Document) -> Prepared:
    """A new mail around the document, as a practice's software makes at each attempt."""
    practice, to, id = one.practice, one.order(0).to, new_message_id()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sent = Sent(id, document.document_id, document.facts.kind, to.address, now, Progress.SENDING)
    return Prepared(sent, wire_of(practice, to, document, id))


def scan(document: Document, reference: str) -> str:
    """What an insurer's scan reads out of the barcode of the printed copy, as a line for the command."""
    facts = read_facts(parse(document.xml))
    assert facts.kvnr
    said = {
        "reference": reference,
        "kvnr": facts.kvnr.value,
        "practice": facts.practice,
        "starts_on": facts.starts_on,
        "ends_on": facts.ends_on,
        "kind": facts.au_type,
        "diagnoses": sorted(facts.diagnoses),
    }
    return json.dumps(said) + "\n"


def tell(one: Platform, lines: str, check: bool = True) -> list[dict[str, Any]]:
    file = one.home / "scan.jsonl"
    file.write_text(lines)
    words = (one.config.insurers[0].ik, str(file), "--json", "--home", str(one.home))
    told = one.command("eau", "paper", *words, check=check)
    return [json.loads(line) for line in told.stdout.splitlines()]


@pytest.mark.slow
def test_held_repeated_made_anew_and_scanned_is_one_case_and_nothing_is_dropped(one: Platform) -> None:
    """T-06, HD-05, HD-26: ids and hashes are linked, contents are only proposed, and all proposals name one eAU."""
    insurer = one.order(0).insurer
    original = Generator(Random(6), datetime.now(UTC)).eau(payor="GKV", insurer=insurer, kind="ERST")
    other = Generator(Random(7), datetime.now(UTC)).eau(payor="GKV", insurer=insurer, kind="ERST")
    again = anew(original)
    close(one)
    first = mail(one, original)
    retries = [mail(one, original), mail(one, original)]  # every 4 h, each in a mail of its own
    one.send([first, *retries, first, mail(one, again), mail(one, other)])
    until(lambda: states(one) == {State.HELD: 5, State.DUPLICATE_LINKED: 1}, "all to be held")
    assert is_closed(one)
    assert tell(one, scan(original, "post-1"), check=False) == []  # the insurer's system comes again

    reopen(one, with_backlog=False)
    (told,) = tell(one, scan(original, "post-1"))
    assert (told["reference"], told["possibly_same_as"]) == ("post-1", [])
    reopen_backlog(one)
    until(lambda: states(one) == {State.DELIVERED: 3, State.DUPLICATE_LINKED: 3}, f"all\n{one.log('eau')[-3000:]}")
    until(lambda: len(one.events()) == 3, "the feed")
    until(lambda: delivered(one), "a DSN for each, and no Fehlernachricht")

    by_id = {event["document_id"]: event for event in one.events()}
    proposals = {id: (event["possibly_same_as"], event["possibly_on_paper"]) for id, event in by_id.items()}
    assert proposals == {
        original.document_id: (None, "post-1"),
        again.document_id: (original.document_id, "post-1"),
        other.document_id: (None, None),
    }
    both = [original.document_id, again.document_id]
    second, foreign = tell(one, scan(again, "post-2") + scan(other, "post-3"))
    assert (second["possibly_same_as"], foreign["possibly_same_as"]) == (both, [other.document_id])
    assert tell(one, scan(original, "post-1")) == [{**told, "possibly_same_as": both}]  # told again: nothing new

    until(lambda: told_entries(one) == 4, "an entry for each telling", 60)
    kvnr = original.facts.kvnr
    assert kvnr
    assert kvnr not in "".join(path.read_text(errors="replace") for path in one.home.glob("*.log"))
    assert kvnr.encode() not in b"".join(path.read_bytes() for path in one.home.glob("eau.sqlite*"))


def told_entries(one: Platform) -> int:
    found = one.entries()
    return sum((entry.kind, entry.purpose) == (Kind.ADMINISTRATION, Purpose.CLEARING) for entry in found)


def reopen_backlog(one: Platform) -> None:
    """The backlog goes as a whole, by another order of two."""
    close(one)
    reopen(one, with_backlog=True)
