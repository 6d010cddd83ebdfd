"""HD-47 on real processes: held mail of a suspected period is quarantined, and the rest of the backlog goes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, platform, until
from tests.scenarios.test_release import a_plan, approved, carried_out, releases
from tests.scenarios.test_switch_eau import close, delivered, documents, ids, reopen, states

from schleuse.clock import utc_now
from schleuse.holding.states import State
from schleuse.processes.reconciling import reconcile_senders
from schleuse.switch.documents import time_text


@pytest.fixture
def one(base_home: Path, tmp_path: Path) -> Iterator[Platform]:
    with platform(base_home, tmp_path / "home") as started:
        started.start_all()
        yield started


def suspect(one: Platform, *words: str) -> str:
    return one.command("hold", "suspect", *words, "--home", str(one.home)).stdout


def key(one: Platform, name: str) -> tuple[str, ...]:
    return ("--operator", name, "--operator-key", str(one.home / "operators" / f"{name}.key"))


def test_a_release_goes_on_without_what_is_suspected_and_two_persons_bring_it_back(one: Platform) -> None:
    """HD-47: three mails of before, two of the attack period; a kill -9 of everything changes nothing."""
    before, during = one.mails(one.order(3)), one.mails(one.order(2), seed=2)
    close(one)
    one.send(before)
    until(lambda: states(one) == {State.HELD: 3}, "the first to be held")
    begin = utc_now()
    one.send(during)
    until(lambda: states(one) == {State.HELD: 5}, "all to be held")
    words = ("add", "--id", "q1", "--text", "period of the attack", "--role", "custodian", *key(one, "betrieb-3"))
    assert "2 mails" in suspect(one, *words, "--since", time_text(begin), "--until", time_text(utc_now()))
    assert states(one) == {State.HELD: 3, State.QUARANTINED: 2}
    for role in ("eau", "kim"):
        one.kill(role)
        one.start(role)
        until(lambda role=role: one.ready(role), f"{role} to be ready again")  # type: ignore[misc]
    reopen(one, with_backlog=False)
    with releases(one) as made:
        plan = a_plan(one, made, 1)
        approved(one, made, plan)
        carried_out(made, "r1")
        assert made.book.progress("r1").finished, "what is kept aside is no error of the release"
    until(lambda: states(one) == {State.DELIVERED: 3, State.QUARANTINED: 2}, f"the rest\n{one.log('eau')[-3000:]}")
    until(lambda: sorted(documents(one)) == sorted(ids(before)), "the feed without them")
    until(lambda: delivered(one), "a receipt for each, and no Fehlernachricht")
    (account,) = reconcile_senders(one.config, utc_now() - timedelta(hours=1), utc_now() + timedelta(seconds=1))
    assert (account.must_resend, account.open) == (False, 2)
    order = suspect(one, "order", "q1", "--fate", "HELD", "--reason", "examined, harmless", "--yes").split()[-1]
    refused = one.command("hold", "suspect", "carry-out", "q1", order, "--home", str(one.home), check=False)
    assert (refused.returncode != 0, "needs two persons" in refused.stderr) == (True, True)
    for name, role in (("betrieb-1", "switch-officer"), ("betrieb-2", "service-owner")):
        suspect(one, "approve", "q1", order, "--role", role, "--yes", *key(one, name))
    assert suspect(one, "carry-out", "q1", order).startswith("2 ")
    until(lambda: states(one) == {State.DELIVERED: 5}, f"all to be filed\n{one.log('eau')[-3000:]}")
    until(lambda: sorted(documents(one)) == sorted(ids(before + during)), "the whole feed")
    until(lambda: delivered(one), "a receipt for each")
