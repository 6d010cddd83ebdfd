"""kill -9 at every step, under load, hundreds of times: nothing is lost, nothing is filed or answered twice.

The roles kill themselves at named steps (`processes.injection`), the test kills them at random, and the disk of the
mail store fails now and then. Whatever happens, at the end conservation holds, each document is in the feed once, and
each faulty mail has exactly one Fehlernachricht.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.scenarios.platform import ROLES, Platform, platform, until

from schleuse.eau.worker import STEPS
from schleuse.practice.ledger import Progress
from schleuse.practice.outbox import Prepared

#: Small batches, so that many of them are open to be killed.
SMALL_BATCHES = {"[eau]": "[eau]\nbatch = 3"}


def load(one: Platform, count: int) -> tuple[list[Prepared], list[Prepared]]:
    """(good mails, faulty mails): one in ten is faulty."""
    good = one.mails(one.order(count), seed=4711)
    faulty = [
        mail
        for index, name in enumerate(
            ("signature", "charset", "mail-unsigned", "key", "attachment") * (count // 50 or 1)
        )
        for mail in one.mails(one.order(0, name), seed=9000 + index)
    ]
    return good, faulty


def everything_is_there_once(one: Platform, good: list[Prepared], faulty: list[Prepared]) -> None:
    wanted = {mail.sent.document_id for mail in good}
    until(lambda: wanted <= {e["document_id"] for e in one.events()}, f"{len(good)} events\n{one.log('eau')[-2000:]}")
    found = Counter(event["document_id"] for event in one.events())
    assert set(found) == wanted
    assert set(found.values()) == {1}
    seqs = [event["seq"] for event in one.events()]
    assert seqs == list(range(1, len(seqs) + 1))
    answers: Counter[str] = Counter()
    receipts: Counter[str] = Counter()
    bad = {mail.sent.message_id for mail in faulty} | {mail.sent.document_id for mail in faulty}

    def collected() -> bool:
        for answer in one.fetch():
            (answers if answer.progress is Progress.FAULTY else receipts)[answer.reference] += 1
        ledger = one.ledger.mails
        return all(ledger[m.sent.message_id].progress is Progress.FAULTY for m in faulty) and all(
            ledger[m.sent.message_id].progress is Progress.DELIVERED for m in good
        )

    until(collected, "all receipts and Fehlernachrichten")
    assert set(answers) <= bad
    assert sum(answers.values()) == len(faulty), "each error is sent once"
    assert set(answers.values()) == {1}
    # A mail whose 250 was lost is handed over again, is kept once, and has a receipt for each time.
    assert all(receipts[mail.sent.message_id] >= 1 for mail in good)
    until(lambda: one.conservation().holds, "conservation")
    assert one.conservation().findings == ()


@pytest.mark.slow
def test_eau_workers_that_die_at_every_step(base_home: Path, tmp_path: Path) -> None:
    with platform(base_home, tmp_path / "home", SMALL_BATCHES) as one:
        one.start_services()
        one.start("kim")
        until(lambda: one.ready("kim"), "kim")
        good, faulty = load(one, 120)
        one.send(good + faulty)
        one.start("eau", {"SCHLEUSE_KILL_AT": ",".join(f"{step}:0.25" for step in STEPS)})
        until(lambda: one.ready("eau"), f"eau\n{one.log('eau')}")
        everything_is_there_once(one, good, faulty)
        deaths = one.log("eau").count("child.ended")
        assert deaths >= 60, f"only {deaths} deaths: the test did not test"


@pytest.mark.slow
def test_a_mail_role_that_dies_at_every_step_and_has_a_bad_disk(base_home: Path, tmp_path: Path) -> None:
    steps = ("accept.before", "accept.durable", "accept.told", "route.read", "route.before-commit", "route.committed")
    environment = {
        "SCHLEUSE_KILL_AT": ",".join(f"{step}:0.012" for step in steps),
        "SCHLEUSE_DISK_FAULTS": "write:0.02,sync:0.02",
    }
    with platform(base_home, tmp_path / "home", SMALL_BATCHES) as one:
        one.start_services()
        good, faulty = load(one, 200)
        done = threading.Event()
        deaths = 0

        def supervise() -> None:
            nonlocal deaths
            while not done.is_set():
                process = one.processes.get("kim")
                if process is None or process.poll() is not None:
                    deaths += process is not None
                    one.start("kim", environment)
                time.sleep(0.02)

        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        try:
            one.start("eau")
            failed = one.send_until_accepted(good + faulty)
            everything_is_there_once(one, good, faulty)
        finally:
            done.set()
            supervisor.join()
        assert deaths >= 4, f"only {deaths} deaths: the test did not test"
        assert failed > 0


@pytest.mark.slow
def test_all_roles_killed_at_random_moments_under_load(base_home: Path, tmp_path: Path) -> None:
    with platform(base_home, tmp_path / "home", SMALL_BATCHES) as one:
        good, faulty = load(one, 100)
        done = threading.Event()
        dice = random.Random(5)
        kills = Counter[str]()

        def reaper() -> None:
            while not done.is_set():
                time.sleep(dice.uniform(0.8, 2.0))
                role = dice.choice(ROLES)
                one.kill(role)
                kills[role] += 1
                one.start(role)

        one.start_all()
        thread = threading.Thread(target=reaper)
        thread.start()
        try:
            one.send_until_accepted(good + faulty)
            until(lambda: sum(kills.values()) >= 24, "enough kills")
        finally:
            done.set()
            thread.join()
        everything_is_there_once(one, good, faulty)
        assert min(kills[role] for role in ROLES) >= 3
