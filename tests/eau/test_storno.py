"""The table of eau.md § 11: a Storno before, after and without its eAU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.eau.samples import (
    A_FAULTY_EAU,
    A_STORNO,
    ACCEPTED_EAU,
    AN_EAU,
    CANCELLED_EAU,
    EAU_FACTS,
    OTHER_PRACTICE,
    PENDING_STORNO,
    POLICY,
    REJECTED_EAU,
    STORNO_FACTS,
    an_id,
)

from schleuse.eau.decision import decide
from schleuse.eau.findings import Verdict
from schleuse.eau.outcome import (
    Again,
    DeliveredAgain,
    DocumentState,
    Faulty,
    Filed,
    ForeignStorno,
    Known,
    Memory,
    Policy,
    Quarantine,
    Quarantined,
    StornoFiled,
    StornoPending,
)

STRICT = replace(POLICY, foreign_storno=ForeignStorno.QUARANTINE)
BY_ANOTHER = replace(A_STORNO, practice=OTHER_PRACTICE)


def the_refusal() -> Faulty:
    outcome = decide(A_STORNO, Memory(target=REJECTED_EAU), POLICY)
    assert isinstance(outcome, Faulty)
    return outcome


#: The answer that a waiting Storno may get is the one that it gets when its eAU was rejected before.
REFUSAL = the_refusal()


def test_an_accepted_eau_is_cancelled() -> None:
    outcome = decide(A_STORNO, Memory(target=ACCEPTED_EAU), POLICY)
    assert outcome == StornoFiled(STORNO_FACTS, ACCEPTED_EAU)


def test_the_storno_of_a_rejected_eau_gets_code_105() -> None:
    outcome = decide(A_STORNO, Memory(target=REJECTED_EAU), POLICY)
    assert isinstance(outcome, Faulty)
    assert outcome.code.number == 105


def test_the_storno_of_an_unknown_eau_waits_and_is_no_fault() -> None:
    assert decide(A_STORNO, Memory(), POLICY) == StornoPending(STORNO_FACTS, REFUSAL)


def test_a_storno_of_a_storno_finds_no_eau() -> None:
    target = replace(PENDING_STORNO, state=DocumentState.ACCEPTED)
    assert decide(A_STORNO, Memory(target=target), POLICY) == StornoPending(STORNO_FACTS, REFUSAL)


def test_a_second_storno_of_a_cancelled_eau_is_only_noted() -> None:
    outcome = decide(A_STORNO, Memory(target=CANCELLED_EAU), POLICY)
    assert outcome == DeliveredAgain(CANCELLED_EAU, Again.ALREADY_CANCELLED, STORNO_FACTS)


def test_a_second_storno_of_an_eau_that_is_still_awaited_is_only_noted() -> None:
    first = replace(PENDING_STORNO, document_id=an_id(77))
    outcome = decide(A_STORNO, Memory(stornos=(first,)), POLICY)
    assert outcome == DeliveredAgain(first, Again.ALREADY_CANCELLED, STORNO_FACTS)


@pytest.mark.parametrize("state", [DocumentState.PENDING, DocumentState.ACCEPTED])
def test_the_same_storno_again_is_a_duplicate(state: DocumentState) -> None:
    first = replace(PENDING_STORNO, state=state)
    outcome = decide(A_STORNO, Memory(first, first, target=ACCEPTED_EAU), POLICY)
    assert outcome == DeliveredAgain(first, Again.SAME_DOCUMENT)


def test_a_rejected_storno_is_processed_once_it_can_be() -> None:
    first = replace(PENDING_STORNO, state=DocumentState.REJECTED)
    outcome = decide(A_STORNO, Memory(first, first, target=ACCEPTED_EAU), POLICY)
    assert outcome == StornoFiled(STORNO_FACTS, ACCEPTED_EAU)


def test_an_eau_that_its_storno_has_overtaken_is_filed_as_cancelled() -> None:
    assert decide(AN_EAU, Memory(stornos=(PENDING_STORNO,)), POLICY) == Filed(EAU_FACTS, cancelled_by=PENDING_STORNO)


def test_of_several_waiting_stornos_the_oldest_counts() -> None:
    newer = replace(PENDING_STORNO, delivery=9, document_id=an_id(78))
    outcome = decide(AN_EAU, Memory(stornos=(PENDING_STORNO, newer)), POLICY)
    assert outcome == Filed(EAU_FACTS, cancelled_by=PENDING_STORNO)


def test_a_storno_from_another_practice_is_applied_and_marked_or_shown_to_people() -> None:
    memory = Memory(target=ACCEPTED_EAU)
    assert decide(BY_ANOTHER, memory, POLICY) == StornoFiled(STORNO_FACTS, ACCEPTED_EAU, other_practice=True)
    assert decide(BY_ANOTHER, memory, STRICT) == Quarantined(Quarantine.FOREIGN_STORNO)
    assert decide(replace(BY_ANOTHER, practice=None), memory, STRICT) == StornoFiled(STORNO_FACTS, ACCEPTED_EAU)


def test_under_the_strict_policy_a_foreign_storno_that_came_first_goes_on_waiting() -> None:
    foreign: Known = replace(PENDING_STORNO, practice=OTHER_PRACTICE)
    assert decide(AN_EAU, Memory(stornos=(foreign,)), STRICT) == Filed(EAU_FACTS)
    assert decide(AN_EAU, Memory(stornos=(foreign,)), POLICY) == Filed(EAU_FACTS, cancelled_by=foreign)
    assert decide(A_STORNO, Memory(stornos=(foreign,)), STRICT) == StornoPending(STORNO_FACTS, REFUSAL)


@pytest.mark.parametrize("policy", [POLICY, STRICT])
def test_a_rejected_eau_refuses_all_storno_that_wait_for_it_whoever_sent_them(policy: Policy) -> None:
    foreign = replace(PENDING_STORNO, delivery=9, practice=OTHER_PRACTICE)
    memory = Memory(same_id=REJECTED_EAU, stornos=(PENDING_STORNO, foreign))
    outcome = decide(A_FAULTY_EAU, memory, policy)
    assert isinstance(outcome, Faulty)
    assert outcome.stornos == (PENDING_STORNO, foreign)


def test_a_faulty_mail_under_the_id_of_a_filed_eau_refuses_no_storno() -> None:
    outcome = decide(A_FAULTY_EAU, Memory(same_id=ACCEPTED_EAU, stornos=(PENDING_STORNO,)), POLICY)
    assert isinstance(outcome, Faulty)
    assert outcome.stornos == ()


def test_a_faulty_storno_refuses_no_other() -> None:
    found = replace(A_STORNO, verdict=Verdict.INVALID, facts=None)
    outcome = decide(found, Memory(stornos=(PENDING_STORNO,)), POLICY)
    assert isinstance(outcome, Faulty)
    assert outcome.stornos == ()
