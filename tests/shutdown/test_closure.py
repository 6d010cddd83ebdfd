"""What a closure proof amounts to (SW-07, SW-17; incident.md § 5.3, appendix A)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.scopes import NONE, Direction, Scope, ScopeState, Service, atom
from schleuse.shutdown.closure import (
    METHOD,
    Answer,
    Check,
    Need,
    Seen,
    Verdict,
    What,
    checks,
    effective_at,
    judge_answer,
    judge_count,
    judge_fence,
    judge_workers,
    needs,
    newest,
    overall,
    promised,
    provable,
    unenforced,
)
from schleuse.switch.effects import SwitchEffect
from schleuse.switch.standing import Standing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IK = "109900011"
ACCEPT = atom(Service.EAU_INTAKE, IK, Direction.ACCEPT)
DELIVER = atom(Service.EAU_INTAKE, IK, Direction.DELIVER)
QUIET = SwitchEffect("eau-worker-0", 7, NOW, NOW)


def need(scope: Scope = ACCEPT, state: ScopeState = ScopeState.HOLD) -> Need:
    return Need(scope, state, 7, "c7", NOW)


def test_a_held_mailbox_is_promised_to_accept_and_a_deferred_one_to_defer() -> None:
    """HD-02, § 6.5."""
    smtp = Check(ACCEPT, What.SMTP)
    assert promised(smtp, ScopeState.HOLD) is Answer.ACCEPTED
    assert promised(smtp, ScopeState.DEFER) is Answer.DEFERRED
    assert promised(smtp, ScopeState.CLOSED) is Answer.DEFERRED
    assert promised(Check(DELIVER, What.FEED), ScopeState.HOLD) is Answer.CLOSED


def test_what_passed_is_not_proven_and_what_nobody_saw_is_inconclusive() -> None:
    assert judge_answer(Answer.CLOSED, Seen(Answer.CLOSED, "")) is Verdict.PROVEN
    assert judge_answer(Answer.CLOSED, Seen(Answer.PASSED, "")) is Verdict.NOT_PROVEN
    assert judge_answer(Answer.DEFERRED, Seen(Answer.ACCEPTED, "")) is Verdict.NOT_PROVEN
    assert judge_answer(Answer.CLOSED, Seen(Answer.OTHER, "")) is Verdict.INCONCLUSIVE
    assert judge_answer(Answer.CLOSED, Seen(None, "timeout")) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (5, 5, Verdict.PROVEN),
        (5, 6, Verdict.NOT_PROVEN),
        (5, 0, Verdict.INCONCLUSIVE),  # the process began anew
        (None, 5, Verdict.INCONCLUSIVE),
        (5, None, Verdict.INCONCLUSIVE),
    ],
)
def test_a_counter_proves_only_by_standing_still(before: int | None, after: int | None, verdict: Verdict) -> None:
    assert judge_count(before, after) is verdict


def test_every_database_that_has_a_fence_must_have_raised_it() -> None:
    """SW-06."""
    assert judge_fence([7, 9], 7) is Verdict.PROVEN
    assert judge_fence([7, 6], 7) is Verdict.INCONCLUSIVE
    assert judge_fence([], 7) is Verdict.INCONCLUSIVE


def test_a_worker_that_was_not_seen_or_still_runs_proves_nothing() -> None:
    running = replace(QUIET, worker="eau-worker-1", quiet_at=None, inflight=1)
    assert judge_workers(["eau-worker-0"], {"eau-worker-0": QUIET}) is Verdict.PROVEN
    assert judge_workers(["eau-worker-0", "eau-worker-1"], {"eau-worker-0": QUIET}) is Verdict.INCONCLUSIVE
    assert judge_workers(["eau-worker-1"], {"eau-worker-1": running}) is Verdict.INCONCLUSIVE


def test_the_newest_effect_of_a_worker_counts_and_older_epochs_do_not() -> None:
    later = replace(QUIET, epoch=9)
    assert newest([QUIET, later, replace(QUIET, worker="x", epoch=6)], 7) == {"eau-worker-0": later}


def test_effective_is_when_the_last_worker_was_quiet() -> None:
    other = replace(QUIET, worker="b", quiet_at=NOW + timedelta(seconds=2))
    effects = {"eau-worker-0": QUIET, "b": other}
    assert effective_at(["eau-worker-0", "b"], effects) == NOW + timedelta(seconds=2)
    assert effective_at(["eau-worker-0", "b", "c"], effects) is None


def test_only_atoms_that_are_less_than_open_need_a_proof() -> None:
    held = Standing(ScopeState.HOLD, 7, command="c7", since=NOW)
    assert needs({ACCEPT: held, DELIVER: Standing()}) == [need()]


def test_units_of_work_exist_for_insurers_in_eau_and_for_nobody_in_kim() -> None:
    atoms = [atom(s, t, Direction.DELIVER) for s in (Service.EAU_INTAKE, Service.KIM_MAIL) for t in (IK, NONE)]
    assert [str(one) for one in provable(atoms)] == [f"eau_intake/{IK}/deliver/-", "kim_mail/-/deliver/-"]


def test_a_limited_scope_is_proven_by_workers_who_know_the_limit() -> None:
    assert [one.what for one in checks(need(DELIVER, ScopeState.LIMITED))] == [What.WORKERS]
    assert What.FEED in [one.what for one in checks(need(DELIVER))]


def test_a_scope_that_nothing_enforces_is_named() -> None:
    epa, mine = Scope("epa_read"), Scope("eau_intake")
    assert unenforced([epa, mine], [ACCEPT], []) == [epa]
    assert unenforced([epa, mine], [ACCEPT], [Scope("epa_read", IK)]) == []


@given(st.lists(st.sampled_from(Verdict)))
def test_proven_is_only_what_is_proven_in_all_parts(verdicts: list[Verdict]) -> None:
    assert (overall(verdicts) is Verdict.PROVEN) == (bool(verdicts) and set(verdicts) == {Verdict.PROVEN})


def test_every_check_belongs_to_a_method_of_the_domain() -> None:
    assert set(METHOD) == set(What)
