"""T-08 on real processes: an employer asks while the certificate is held (HD-09)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.scenarios.platform import Platform, platform, until
from tests.scenarios.test_switch_eau import close, reopen, states

from schleuse.eau.switched import answering
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Purpose
from schleuse.practice.documents import Generator
from schleuse.practice.outbox import Prepared
from schleuse.processes.control_probes import PlatformProbes
from schleuse.shutdown.closure import Answer, Check, What


@pytest.fixture
def one(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home") as started:
        started.start_all()
        yield started


@dataclass(frozen=True)
class Sick:
    """A person with an Erst-eAU, and the mail that certifies it."""

    kvnr: str
    absent_from: str
    mail: Prepared


def somebody(one: Platform) -> Sick:
    """The first whose eAU has a KVNR and a start; the practice makes the same document from the same seed."""
    for seed in range(1, 100):
        order = one.order(1)
        facts = Generator(random.Random(seed), datetime.now(UTC)).eau("1.2", insurer=order.insurer, payor="GKV").facts
        if facts.kvnr and facts.incapable_from:
            (mail,) = one.mails(order, seed)
            return Sick(facts.kvnr, facts.incapable_from.isoformat(), mail)
    raise AssertionError("no seed gives an Erst with a KVNR")


def ask(client: httpx.Client, request: str, who: Sick, kvnr: str | None = None) -> dict[str, Any]:
    body = {"request": request, "absent_from": who.absent_from, "kvnr": kvnr or who.kvnr}
    answer = client.post("answers", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def follow_ups(client: httpx.Client) -> dict[str, int]:
    return {one["answer"]["request"]: one["answer"]["code"] for one in client.get("answers").json()["answers"]}


def test_while_it_is_held_an_employer_is_told_7_and_then_what_is_true(one: Platform) -> None:
    """T-08: never 4. Afterwards the certificate follows for the one, and 4 for whoever has none."""
    who, other = somebody(one), "Z999999991"
    with one.feed() as client:
        assert ask(client, "before", who)["code"] == 4, "nothing waits, and nothing is there"
        close(one, "eau_intake/*/process")
        one.send([who.mail])
        until(lambda: states(one) == {State.HELD: 1}, "the mail to be held")
        held = ask(client, "held", who)
        assert (held["code"], held["certificates"]) == (7, [])
        assert ask(client, "other", who, other)["code"] == 7, "nobody knows whose eAU is held"
        for role in ("eau", "kim"):
            one.kill(role)
            one.start(role)
            until(lambda role=role: one.ready(role), f"{role} to be ready again")  # type: ignore[misc]
    with one.feed() as client:
        assert ask(client, "held", who) == held, "the same request hears the same, also after a kill"
        assert {entry["request"] for entry in client.get("answers/open").json()["requests"]} == {
            "before",
            "held",
            "other",
        }
        assert follow_ups(client) == {}
        reopen(one, "eau_intake/*/process", with_backlog=True)
        expected = {"before": 2, "held": 2, "other": 4}
        until(lambda: follow_ups(client) == expected, f"what follows\n{one.log('eau')[-3000:]}")
        (found,) = [
            one["answer"] for one in client.get("answers").json()["answers"] if one["answer"]["request"] == "held"
        ]
        assert [each["document_id"] for each in found["certificates"]] == [who.mail.sent.document_id]
        assert found["certificates"][0]["since"] == who.absent_from
    ik = one.config.insurers[0].ik
    listed = one.command("eau", "answers", ik, "--home", str(one.home)).stdout
    assert "held  2 AU" in listed
    assert one.command("eau", "answers", ik, "--open", "--home", str(one.home)).stdout.startswith("other  4  until")
    lookups = [(Kind.SEARCH, Purpose.EAU_EMPLOYER)]
    until(
        lambda: sum((entry.kind, entry.purpose) in lookups for entry in one.entries()) >= 4,
        "each lookup to be in the insurer's journal",
    )
    for log in ("eau", "kim"):
        assert who.kvnr not in one.log(log)


def test_while_answers_are_held_too_the_answer_is_deferred(one: Platform) -> None:
    """T-08, HD-01."""
    who = somebody(one)
    close(one)
    with one.feed() as client:
        answer = client.post("answers", json={"request": "r", "absent_from": who.absent_from, "kvnr": who.kvnr})
        assert (answer.status_code, answer.json()["code"]) == (503, "eau.feed.closed")


def test_that_answers_alone_are_closed_is_proven_from_outside(one: Platform) -> None:
    """SW-06, SW-07: by HTTPS without a token, by counters and by the fence of each database; the feed goes on."""
    ik = one.config.insurers[0].ik
    asked = Check(answering(IK(ik)), What.ANSWERS)
    probes = PlatformProbes(one.config)
    try:
        assert asyncio.run(probes.outside([asked]))[asked].answer is Answer.PASSED
        close(one, f"eau_employer_answer/{ik}")
        home = ["--home", str(one.home)]

        def claims() -> list[dict[str, Any]]:
            answer = one.command("closure", "prove", "--json", *home, check=False)
            return [json.loads(line) for line in answer.stdout.splitlines()]

        until(lambda: {claim["verdict"] for claim in claims()} == {"proven"}, "the proof", 60)
        assert [claim["scope"] for claim in claims()] == [str(asked.scope)]
        assert asyncio.run(probes.outside([asked]))[asked].answer is Answer.CLOSED
        kept = [json.loads(file.read_text()) for file in (one.home / "switch" / "proofs").rglob("*.json")]
        text = json.dumps(kept)
        assert all(f'"{what}"' in text for what in ("workers", "fence", "answers", "effects"))
    finally:
        probes.close()
    with one.feed() as client:
        assert client.get("eau").status_code == 200
