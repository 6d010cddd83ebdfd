"""Where a restart stands (RS-01 … RS-12): nothing is entered that two did not sign; what is missing never counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schleuse.restart.approvals import PLAN as PLAN_PURPOSE
from schleuse.restart.approvals import WAIVER, waiver_hash
from schleuse.restart.documents import Document, sign_document
from schleuse.restart.entering import Look, may_enter, plan_is_approved, soak_left
from schleuse.restart.gates import DOCUMENTED, MEASURED, Evidence, Result, Waiver, judge
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import GateKind, RestartPlan, StageName, commands_of, next_version
from schleuse.restart.progress import (
    Aborted,
    Approved,
    Changed,
    Documented,
    Entered,
    Event,
    Made,
    Offered,
    Progress,
    Signed,
    Waived,
    fold,
)
from schleuse.said import as_it_is
from schleuse.scopes import Service
from schleuse.switch.approval import LIFETIME, approve
from schleuse.switch.documents import Person, Rights, Role, sign

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("anna", "anna2", "bert")}
RIGHTS = Rights(
    [
        Person("anna", "anna", frozenset({Role.SWITCH_OFFICER, Role.LEAD}), KEYS["anna"].public_key()),
        Person("anna2", "anna", frozenset({Role.RELEASER, Role.SECURITY_OFFICER}), KEYS["anna2"].public_key()),
        Person(
            "bert",
            "bert",
            frozenset({Role.RELEASER, Role.SECURITY_OFFICER, Role.CUSTODIAN, Role.SERVICE_OWNER}),
            KEYS["bert"].public_key(),
        ),
    ]
)
PLAN = default_plan("r1", [Service.EAU_INTAKE], ["109900011", "109900022"], "109900011", NOW)
MADE = Made(NOW, PLAN, "anna")
PERSONS = {"anna": "anna", "anna2": "anna", "bert": "bert"}
CANARY = 2  #: place of S3 in the plan


def approved(by: str, role: Role, plan: RestartPlan = PLAN, at: datetime = NOW) -> Approved:
    given = approve(PLAN_PURPOSE, plan.hash, by, role, KEYS[by], at)
    return Approved(at, plan.hash, by, role, given.until, given.signature)


def waived(by: str, role: Role, kind: GateKind, until: datetime, reason: str = "by telephone") -> Waived:
    hash = waiver_hash(PLAN.hash, kind, reason, until)
    given = approve(WAIVER, hash, by, role, KEYS[by], SOAKED, until - SOAKED)
    return Waived(SOAKED, kind, by, role, reason, until, hash, given.signature)


ROLE_FOR = {
    GateKind.EVID: Role.CUSTODIAN,
    GateKind.CRED: Role.CUSTODIAN,
    GateKind.BASE: Role.CUSTODIAN,
    GateKind.LEGAL: Role.SECURITY_OFFICER,
    GateKind.PART: Role.SERVICE_OWNER,
}


def passed(kind: GateKind, at: datetime = NOW, result: Result = Result.PASS) -> Evidence | Documented:
    if kind in MEASURED:
        return Evidence(kind, PLAN.id, result, at, "control", as_it_is("seen"))
    seen = (("report", "ab" * 32),)
    document = Document(f"{kind}-{at}", PLAN.id, kind, result, at, "seen", references=seen, methods=("a", "b"))
    return Documented(at, "bert", sign_document(document, "bert", ROLE_FOR[kind], KEYS["bert"]))


def kind_of(event: Event) -> GateKind | None:
    return event.kind if isinstance(event, Evidence) else event.document.document.kind if isinstance(
        event, Documented
    ) else None  # fmt: skip


def look(backlog: int | None = 0, now: datetime = NOW, **others: Progress) -> Look:
    return Look(RIGHTS, [], backlog, now, others)


def offered(place: int = CANARY, plan: RestartPlan = PLAN, at: datetime = NOW) -> Offered:
    return Offered(at, place, tuple(commands_of(plan, place, "anna", 3, at, timedelta(hours=4))))


def signed(offer: Offered, by: str, role: Role, at: datetime = NOW) -> Signed:
    return Signed(at, by, role, {one.hash: sign(one, by, role, KEYS[by]) for one in offer.commands})


BOTH = [approved("anna", Role.SWITCH_OFFICER), approved("bert", Role.RELEASER)]
ALL_PASS: list[Event] = [passed(kind) for kind in GateKind if kind not in (GateKind.HUMAN, GateKind.TIME)]
IN_S2: list[Event] = [MADE, *BOTH, Entered(NOW, 0, ()), Entered(NOW, 1, ())]
SOAKED = NOW + timedelta(hours=25)


def ready_for_canary(at: datetime = SOAKED) -> list[Event]:
    offer = offered(at=at)
    return [
        *IN_S2,
        *[passed(kind, at) for kind in GateKind if kind not in (GateKind.HUMAN, GateKind.TIME)],
        offer,
        signed(offer, "anna", Role.SWITCH_OFFICER, at),
        signed(offer, "bert", Role.RELEASER, at),
    ]


def missing(events: list[Event], now: datetime = SOAKED, backlog: int | None = 0) -> str:
    return "; ".join(may_enter(fold(events), look(backlog, now)))


def test_with_everything_there_the_canary_may_begin() -> None:
    assert missing(ready_for_canary()) == ""


@pytest.mark.parametrize("kind", sorted({kind for kind in PLAN.stages[CANARY].gates if kind is not GateKind.HUMAN}))
def test_a_gate_without_data_is_inconclusive_and_pauses(kind: GateKind) -> None:
    """T-13, RS-01, RS-04."""
    events = [one for one in ready_for_canary() if kind_of(one) is not kind]
    assert f"{kind}: inconclusive" in missing(events)


@pytest.mark.parametrize("kind", sorted({kind for kind in PLAN.stages[CANARY].gates if kind is not GateKind.HUMAN}))
def test_a_newer_failure_counts_more_than_an_older_pass(kind: GateKind) -> None:
    events = [*ready_for_canary(), passed(kind, SOAKED + timedelta(seconds=1), result=Result.FAIL)]
    assert f"{kind}: fail" in missing(events, SOAKED + timedelta(seconds=2))


def test_a_pass_grows_old_and_the_stage_waits() -> None:
    """RS-02."""
    assert "DATA: expired" in missing(ready_for_canary(), SOAKED + timedelta(minutes=20))


def test_one_person_cannot_open_not_even_with_two_accounts() -> None:
    """T-12, RO-01."""
    offer = offered(at=SOAKED)
    alone = [one for one in ready_for_canary() if not isinstance(one, Signed)]
    one = signed(offer, "anna", Role.SWITCH_OFFICER, SOAKED)
    assert "missing signatures: releaser" in missing([*alone, one])
    assert "HUMAN: fail" in missing([*alone, one, signed(offer, "anna2", Role.RELEASER, SOAKED)])


def test_a_signature_on_other_commands_lets_nobody_in() -> None:
    """RO-04: the offer was made anew after it was signed."""
    other = offered(at=SOAKED + timedelta(seconds=1))
    events = [*ready_for_canary(), other]
    assert "missing signatures" in missing(events, SOAKED + timedelta(seconds=2))


def test_a_changed_plan_voids_what_was_approved() -> None:
    """T-12: approval of a changed plan void."""

    def counts(*events: Event) -> bool:
        return plan_is_approved(fold([MADE, *events]), RIGHTS)

    later = Made(NOW, next_version(PLAN, NOW), "anna")
    assert counts(*BOTH)
    assert not counts(*BOTH, later)
    assert not counts(*BOTH, Entered(NOW, 0, ()), later)  # also when it was entered under the version before
    assert not counts(BOTH[0], approved("anna2", Role.RELEASER))
    assert not counts(BOTH[0], approved("bert", Role.RELEASER, at=NOW + timedelta(hours=5)))


def test_an_approval_that_nobody_signed_is_none() -> None:
    """RO-05: whoever can write events can still not make two persons stand for a plan."""
    forged = replace(approved("bert", Role.RELEASER), signature=BOTH[0].signature)
    assert not plan_is_approved(fold([MADE, BOTH[0], forged]), RIGHTS)
    longer = replace(BOTH[1], until=BOTH[1].until + timedelta(days=9))
    assert not plan_is_approved(fold([MADE, BOTH[0], longer]), RIGHTS)
    for_ever = approve(PLAN_PURPOSE, PLAN.hash, "bert", Role.RELEASER, KEYS["bert"], NOW, LIFETIME * 2)
    long = Approved(NOW, PLAN.hash, "bert", Role.RELEASER, for_ever.until, for_ever.signature)
    assert not plan_is_approved(fold([MADE, BOTH[0], long]), RIGHTS)


def test_one_key_under_two_names_is_one_person() -> None:
    """T-12."""
    twin = Rights([RIGHTS.people()["anna"], replace(RIGHTS.people()["bert"], key=KEYS["anna"].public_key())])
    given = approve(PLAN_PURPOSE, PLAN.hash, "bert", Role.RELEASER, KEYS["anna"], NOW)
    second = Approved(NOW, PLAN.hash, "bert", Role.RELEASER, given.until, given.signature)
    assert not plan_is_approved(fold([MADE, BOTH[0], second]), twin)


def test_a_credential_that_was_disabled_before_approves_nothing() -> None:
    gone = Rights([RIGHTS.people()["anna"], replace(RIGHTS.people()["bert"], until=NOW)])
    assert not plan_is_approved(fold([MADE, *BOTH]), gone)
    later = Rights([RIGHTS.people()["anna"], replace(RIGHTS.people()["bert"], until=NOW + timedelta(hours=1))])
    assert plan_is_approved(fold([MADE, *BOTH]), later)  # what he did before stays


def test_a_stage_is_not_left_before_its_soak_is_over_and_a_change_starts_it_anew() -> None:
    """RS-11."""
    early = NOW + timedelta(hours=20)
    assert "of the soak are left" in missing(ready_for_canary(early), early)
    at = fold([*IN_S2, Changed(SOAKED, "anna", "a new version of the validator")])
    assert soak_left(at, SOAKED) == PLAN.stages[1].soak


def test_the_backlog_must_be_gone_before_the_stage_after_it() -> None:
    place = next(number for number, one in enumerate(PLAN.stages) if one.drains)
    at = fold([MADE, *BOTH, Entered(NOW, place, ())])
    for backlog, expected in ((None, "nobody knows"), (3, "3 mails"), (0, "")):
        reasons = [one for one in may_enter(at, look(backlog)) if "backlog" in one]
        assert expected in "; ".join(reasons)


def test_a_waiver_needs_two_persons_outside_and_inside_the_line_and_ends() -> None:
    """RS-03."""
    until = SOAKED + timedelta(days=1)
    lead = waived("anna", Role.LEAD, GateKind.PART, until)
    events = [one for one in ready_for_canary() if kind_of(one) is not GateKind.PART]
    assert "PART: inconclusive" in missing([*events, lead])
    own = waived("anna2", Role.SECURITY_OFFICER, GateKind.PART, until)
    assert "PART: inconclusive" in missing([*events, lead, own])  # the same person
    other = waived("bert", Role.SECURITY_OFFICER, GateKind.PART, until)
    assert "PART" not in missing([*events, lead, other])
    assert "PART: inconclusive" in missing([*events, lead, other], until)


def test_a_waiver_is_of_the_same_words_and_signed() -> None:
    """RS-03, RO-04: nobody lengthens it or gives it another reason afterwards."""
    until = SOAKED + timedelta(days=1)
    events = [one for one in ready_for_canary() if kind_of(one) is not GateKind.PART]
    lead, other = (
        waived("anna", Role.LEAD, GateKind.PART, until),
        waived("bert", Role.SECURITY_OFFICER, GateKind.PART, until),
    )
    for changed in (
        waived("bert", Role.SECURITY_OFFICER, GateKind.PART, until, "another reason"),
        waived("bert", Role.SECURITY_OFFICER, GateKind.BASE, until),
        replace(other, until=until + timedelta(days=300)),
        replace(other, reason="a better reason"),
        replace(other, signature=lead.signature),
        replace(other, by="anna2"),
    ):
        assert "PART: inconclusive" in missing([*events, lead, changed])
    assert "PART: inconclusive" in missing([*events, lead, other, Made(SOAKED, PLAN, "anna")])


@pytest.mark.parametrize("kind", [GateKind.HUMAN, GateKind.TIME])
def test_two_persons_and_time_are_never_waived(kind: GateKind) -> None:
    until = SOAKED + timedelta(days=1)
    both = [waived("anna", Role.LEAD, kind, until), waived("bert", Role.SECURITY_OFFICER, kind, until)]
    unsigned = [one for one in ready_for_canary() if not isinstance(one, Signed)]
    assert "HUMAN: inconclusive" in missing([*unsigned, *both])
    early = NOW + timedelta(hours=1)
    assert "TIME: inconclusive" in missing([*ready_for_canary(early), *both], early)


@pytest.mark.parametrize("kind", sorted(DOCUMENTED))
def test_what_people_answer_for_is_not_taken_from_a_measurement(kind: GateKind) -> None:
    """RS-05: neither unsigned, nor with somebody's name written to it, nor with another one's signature."""
    events = [one for one in ready_for_canary() if kind_of(one) is not kind]
    typed = Evidence(kind, PLAN.id, Result.PASS, SOAKED, "investigation", as_it_is("seen"), custodian="bert")
    document = passed(kind, SOAKED)
    assert isinstance(document, Documented)
    forged = replace(document, document=replace(document.document, signature=bytes(64)))
    foreign = replace(document.document.document, plan="r2")
    other = Documented(SOAKED, "bert", sign_document(foreign, "bert", ROLE_FOR[kind], KEYS["bert"]))
    if kind in PLAN.stages[CANARY].gates:
        for one in (typed, forged, other):
            assert f"{kind}: inconclusive" in missing([*events, one])


def test_a_rehearsed_closing_counts_in_its_own_stage_only() -> None:
    """G-OFF: tested in this stage."""
    at = fold([*IN_S2, passed(GateKind.OFF, NOW), Entered(SOAKED, CANARY, (9,))])
    reasons = may_enter(at, look(now=SOAKED + timedelta(hours=5)))
    assert any(one.startswith("OFF: inconclusive") for one in reasons)


def test_an_abort_leads_to_s0_and_forgets_every_approval() -> None:
    """RS-06: the way up begins anew, with new evidence and new signatures."""
    at = fold([*ready_for_canary(), Entered(SOAKED, CANARY, (9,)), Aborted(SOAKED, "anna", "looks wrong", 10)])
    assert (at.place, at.approvals, at.evidence, at.offer) == (-1, [], [], None)
    assert may_enter(at, look(now=SOAKED))


def test_a_plan_waits_for_another_that_it_needs() -> None:
    """RS-09."""
    needy = replace(PLAN, id="r2", needs=(("r1", StageName.S3),))
    at = fold(
        [Made(NOW, needy, "anna"), approved("anna", Role.SWITCH_OFFICER, needy), approved("bert", Role.RELEASER, needy)]
    )
    assert "r1 has not reached S3" in may_enter(at, look())
    there = fold([*IN_S2, Entered(NOW, CANARY, (4,))])
    assert "r1 has not reached S3" not in may_enter(at, look(r1=there))


def test_the_time_of_each_stage_is_measured() -> None:
    """RS-15."""
    at = fold([*IN_S2, Entered(SOAKED, CANARY, (4,))])
    assert [(stage, end - begin) for stage, begin, end in at.records] == [
        ("S1", timedelta(0)),
        ("S2", timedelta(hours=25)),
    ]


_EVENTS = st.sampled_from(
    [
        MADE,
        *BOTH,
        *ALL_PASS,
        approved("anna2", Role.RELEASER),
        offered(),
        signed(offered(), "anna", Role.SWITCH_OFFICER),
        signed(offered(), "bert", Role.RELEASER),
        signed(offered(), "anna2", Role.RELEASER),
        Made(NOW, next_version(PLAN, NOW), "anna"),
        Aborted(NOW, "anna", "", 9),
        Changed(NOW, "anna", ""),
    ]
)


@given(st.lists(_EVENTS, max_size=40), st.booleans())
def test_whatever_happened_no_opening_stage_is_entered_without_two_persons_on_exactly_its_commands(
    events: list[Event], soaked: bool
) -> None:
    """SW-01, RS-05, RO-04: a model of all orders in which people and measurements can come."""
    at = fold([*IN_S2, *events])
    if may_enter(at, look(now=SOAKED if soaked else NOW)):
        return
    assert at.plan is not None
    assert at.next_stage is not None
    if not at.next_stage.targets:
        return
    assert at.offer is not None
    wanted = {one.hash for one in at.offer.commands}
    people = {PERSONS[one.by] for one in at.signed if wanted <= set(one.signatures)}
    assert people >= {"anna", "bert"}
    assert all(one.plan == at.plan.hash for one in at.offer.commands)


@given(st.lists(st.tuples(st.sampled_from(Result), st.integers(0, 100)), max_size=8))
def test_a_gate_passes_only_on_a_newest_pass_that_is_young_enough(found: list[tuple[Result, int]]) -> None:
    evidence = [
        Evidence(GateKind.TECH, PLAN.id, result, NOW - timedelta(minutes=age), "control", as_it_is("seen"))
        for result, age in found
    ]
    judged = judge(GateKind.TECH, evidence, [], NOW)
    if judged.result is Result.PASS:
        newest = min(age for _, age in found)
        assert newest < 15
        assert any(result is Result.PASS for result, age in found if age == newest)


def test_waivers_are_shown_as_such() -> None:
    waiver = Waiver(GateKind.BASE, NOW + timedelta(days=1), "image is being built", ("anna", "bert"))
    judged = judge(GateKind.BASE, [], [waiver], NOW)
    assert (judged.result, judged.lets_in) == (Result.WAIVED, True)
    assert "anna and bert" in judged.reason.en


def test_stages_of_the_default_plan_ask_for_more_the_further_they_go() -> None:
    opened = [one for one in PLAN.stages if one.targets]
    assert all(GateKind.HUMAN in one.gates and GateKind.EVID in one.gates for one in opened)
    assert all(len(later.gates) >= 4 for _, later in pairwise(opened))


def test_an_empty_book_has_no_next_stage() -> None:
    assert Progress().next_stage is None
    assert may_enter(Progress(), look()) == ["there is no plan"]
