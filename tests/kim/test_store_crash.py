"""kill -9 at every step, under load, on a disk that fails now and then: nothing is lost, nothing is there twice.

SCHLEUSE_CRASH_ROUNDS sets how often (default 24 a store: each step once); the seed of a failure is in its message.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from tests.kim.crashing import (
    DISK_CALLS,
    EAU_STEPS,
    KIM_STEPS,
    LEASE,
    MAILS,
    Death,
    Fate,
    forked,
    promises_of,
    run_eau,
    run_kim,
    the_mail,
)
from tests.kim.mails import KASSE, Site, account_of, check, offer, put

from schleuse.clock import utc_now
from schleuse.holding.states import State
from schleuse.kim.store import MailStore, Outcome, Take, open_mail_store, rebuild_index
from schleuse.kim.store.delivery import position_of, recipient_index
from schleuse.mail import dsn
from schleuse.mail.spool import DamagedRecordError

ROUNDS = int(os.environ.get("SCHLEUSE_CRASH_ROUNDS", "24"))

EMBEDDED_STEPS = [f"{name}.{when}" for name in DISK_CALLS for when in ("before", "after")] + ["write.half"]


@dataclass
class Told:
    """All promises of all rounds."""

    acknowledged: set[int] = field(default_factory=set)
    filed: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    died_at: set[str] = field(default_factory=set)

    def add(self, promises: list[tuple[str, int]]) -> None:
        for kind, number in promises:
            if kind == "e":
                assert number not in self.finished, f"delivery {number} was handed out after it was finished"
            {"a": self.acknowledged, "e": self.filed, "f": self.finished, "s": self.sent}[kind].add(number)


def all_steps(site: Site) -> list[str]:
    return [*KIM_STEPS, *EAU_STEPS, *(EMBEDDED_STEPS if site.is_embedded else [])]


def deliveries(store: MailStore) -> Iterator[tuple[str, str, int, State]]:
    """(Message-ID, recipient, id, state) of all deliveries whose mail can be read."""
    backing = store._parts.backing
    with backing.reading() as connection:
        rows = connection.execute(sa.text("SELECT id, length, state FROM kim_delivery ORDER BY id")).all()
    contents = backing.contents.read([(position_of(row.id), row.length) for row in rows])
    for row, content in zip(rows, contents, strict=True):
        assert not isinstance(content, DamagedRecordError), content
        envelope = content[0]
        recipient = envelope.recipients[recipient_index(row.id)].address
        yield envelope.message_id, recipient, row.id, State(row.state)


def one_round(site: Site, told: Told, number: int, chance: random.Random) -> None:
    """Two processes work; one dies at a step, the other is killed a moment later."""
    steps = all_steps(site)
    step = steps[number % len(steps)]
    # Routing gathers, so a short run routes once or twice: it dies at the first time.
    death = Death(step, 0 if step.startswith("route.") else chance.randrange(0, 6))
    seeds = chance.random(), chance.random()
    first = 1 + number * MAILS
    kim, kim_pipe = forked(lambda promise: run_kim(site.settings, first, Fate(death, random.Random(seeds[0])), promise))
    eau, eau_pipe = forked(lambda promise: run_eau(site.settings, Fate(death, random.Random(seeds[1])), promise))
    first_dead, other = (eau, kim) if death.step in EAU_STEPS else (kim, eau)
    _, status = os.waitpid(first_dead, 0)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a process ended by a mistake, not by its death"
    if os.WIFSIGNALED(status):
        told.died_at.add(death.step)
    told.add(promises_of(eau_pipe))
    told.add(promises_of(kim_pipe))


def check_promises(site: Site, told: Told, last: int) -> None:
    with open_mail_store(site.settings, account_of, now=site.clock, background=False) as store:
        store.route()
        assert check(store).findings == ()
        found = list(deliveries(store))
        kept = Counter((id, to) for id, to, _, state in found if state is not State.DUPLICATE_LINKED)
        assert max(kept.values(), default=1) == 1, "a mail is there twice"
        for number in told.acknowledged:
            for recipient in the_mail(number).recipients:
                assert kept[f"<{number}@praxis.example>", recipient.address] == 1, f"mail {number} is lost"
        states = {id: state for _, _, id, state in found}
        assert {states[id] for id in told.finished | told.sent} <= {State.DELIVERED}
        assert told.finished <= told.filed
        # Senders try again whatever they heard no answer for.
        unanswered = [the_mail(number) for number in range(1, last) if number not in told.acknowledged]
        assert offer(store, *unanswered) == [None] * len(unanswered)
        store.route()
        told.acknowledged.update(range(1, last))


def finish_everything(site: Site, told: Told) -> None:
    with open_mail_store(site.settings, account_of, now=utc_now, background=False) as store:
        store.leases.reset("eau")
        while found := store.leases.claim([Take(KASSE)], 100, "eau", utc_now(), LEASE).mails:
            assert not told.finished & {one.id for one in found}
            store.leases.finish([Outcome(one.id, State.DELIVERED) for one in found], "eau", utc_now())
        for outgoing in store.queue.due(utc_now(), 10_000):
            store.queue.delivered(outgoing.id, utc_now(), "250 ok", relayed_dsn=False)
        while pending := store.pending_reports(500):
            put(store, *(dsn.envelope(one.report) for one in pending))
            store.report_accepted(pending)
        assert check(store).findings == ()
        found_again = list(deliveries(store))
        reports = Counter(
            id for id, _, _, state in found_again if ".delivered@" in id and state is not State.DUPLICATE_LINKED
        )
        mails = Counter((id, to) for id, to, _, state in found_again if "@praxis" in id and state is State.DELIVERED)
        wanted = [
            (f"<{number}@praxis.example>", to.address)
            for number in sorted(told.acknowledged)
            for to in the_mail(number).recipients
        ]
        assert mails == Counter(wanted), "each mail ends once for each recipient"
        asked = [id for id, to, _, _ in found_again if "@praxis" in id and to == KASSE]
        assert len(reports) == len(asked)
        assert set(reports.values()) == {1}, "each success is reported once, a repeated mail's included"


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(site: Site) -> None:
    seed = int(os.environ.get("SCHLEUSE_CRASH_SEED", random.SystemRandom().randrange(1 << 32)))
    chance = random.Random(seed)
    told = Told()
    try:
        for number in range(ROUNDS):
            one_round(site, told, number, chance)
            check_promises(site, told, 1 + (number + 1) * MAILS)
            if site.is_embedded and number % 10 == 9:
                rebuild_index(site.settings, account_of, now=site.clock)
        finish_everything(site, told)
    except BaseException as failure:
        failure.add_note(f"SCHLEUSE_CRASH_SEED={seed}")
        raise
    assert len(told.acknowledged) == ROUNDS * MAILS
    assert told.finished
    assert told.sent
    if len(all_steps(site)) <= ROUNDS:
        # Which of the routing steps a run comes to depends on when its mails were gathered.
        assert told.died_at >= {"accept.durable", "eau.filed"}
        assert any(step.startswith("route.") for step in told.died_at)
