"""From findings to one outcome (eau.md § 13), and never to an accusation for what is off at our side (HD-01)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eau.samples import (
    A_FAULTY_EAU,
    A_STORNO,
    ACCEPTED_EAU,
    AN_EAU,
    CANCELLED_EAU,
    EAU_FACTS,
    EAU_ID,
    EAU_PROFILE,
    PENDING_STORNO,
    POLICY,
    REJECTED_EAU,
    STORNO_FACTS,
    an_id,
)

from schleuse.eau.codes import CODE_OF, CODES, Fault
from schleuse.eau.decision import decide, judge
from schleuse.eau.document import Kind, Profile
from schleuse.eau.findings import IN_BAND, Detail, FileName, Findings, Membership, Payload, Trouble, Verdict
from schleuse.eau.outcome import (
    Again,
    DeliveredAgain,
    DocumentState,
    Faulty,
    Filed,
    IdReuse,
    InBand,
    Known,
    Memory,
    Policy,
    Quarantine,
    Quarantined,
    Reference,
    StornoPending,
    Wait,
    holding_state,
)
from schleuse.eau.signature import PayloadVerdict
from schleuse.eau.versions import TRANSITION_TA_1_26, Answer, Transition, answer_version
from schleuse.holding.states import State
from schleuse.kim.classify import Kind as MailKind
from schleuse.kim.dienstkennung import ARZTBRIEF_VERSAND, DEFAULT, EAU_FEHLER_KASSE, Dienstkennung
from schleuse.kim.results import DecryptionResult, IntegrityCheckResult

NOTHING = Memory()


def code(found: Findings, memory: Memory = NOTHING, policy: Policy = POLICY) -> int:
    """The code of the Fehlernachricht that must come out."""
    outcome = decide(found, memory, policy)
    assert isinstance(outcome, Faulty), outcome
    return outcome.code.number


# --- the good case and what is not ours ---


def test_a_sound_eau_is_filed() -> None:
    assert decide(AN_EAU, NOTHING, POLICY) == Filed(EAU_FACTS)


def test_a_sound_storno_without_its_eau_waits_for_it() -> None:
    outcome = decide(A_STORNO, NOTHING, POLICY)
    assert isinstance(outcome, StornoPending)
    assert outcome.facts == STORNO_FACTS


def test_a_fehlernachricht_as_a_signed_payload_is_for_people_and_never_waits_for_ever() -> None:
    url = "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_health_insurance_Practitioner"
    stray = replace(AN_EAU, profile=Profile(url, "1.2"), facts=None)
    assert judge(stray, POLICY) == Quarantined(Quarantine.STRAY_FEHLERNACHRICHT)


@pytest.mark.parametrize("mail", sorted(IN_BAND))
def test_mail_about_mail_is_noted_and_never_answered(mail: MailKind) -> None:
    outcome = decide(Findings(AN_EAU.sent_at, mail=mail), NOTHING, POLICY)
    assert outcome == InBand(mail)


def test_a_dokumenten_id_that_no_index_takes_is_for_people_and_accuses_nobody() -> None:
    found = replace(AN_EAU, document_id=None, facts=None, unkeepable_id=True)
    assert decide(found, NOTHING, POLICY) == Quarantined(Quarantine.ID_UNKEEPABLE)


def test_a_faulty_document_is_answered_whatever_its_id_looks_like() -> None:
    found = replace(AN_EAU, document_id=None, facts=None, unkeepable_id=True, signature=PayloadVerdict.DATA_DIFFER)
    assert code(found) == 202


def test_the_report_that_a_fehlernachricht_was_not_delivered_is_for_people() -> None:
    found = Findings(AN_EAU.sent_at, mail=MailKind.DSN, undelivered=True)
    assert decide(found, NOTHING, POLICY) == Quarantined(Quarantine.UNDELIVERED_LETTER)


def test_an_error_message_that_went_astray_is_never_answered_with_one() -> None:
    found = replace(A_FAULTY_EAU, dienstkennung=EAU_FEHLER_KASSE)
    assert decide(found, NOTHING, POLICY) == Quarantined(Quarantine.STRAY_FEHLERNACHRICHT)


@pytest.mark.parametrize("dienstkennung", [None, DEFAULT, ARZTBRIEF_VERSAND, Dienstkennung("eAU", "Storno-Arzt", "V9")])
def test_a_wrong_dienstkennung_is_no_reason_to_reject(dienstkennung: Dienstkennung | None) -> None:
    assert decide(replace(AN_EAU, dienstkennung=dienstkennung), NOTHING, POLICY) == Filed(EAU_FACTS)


@pytest.mark.parametrize("dienstkennung", [None, DEFAULT, ARZTBRIEF_VERSAND])
def test_a_mail_that_nothing_marks_as_ours_goes_to_people(dienstkennung: Dienstkennung | None) -> None:
    found = Findings(AN_EAU.sent_at, "<x@y>", dienstkennung=dienstkennung, payload=Payload.MISSING)
    assert decide(found, NOTHING, POLICY) == Quarantined(Quarantine.UNCLASSIFIABLE)


def test_the_file_name_tells_the_kind_where_nothing_else_does() -> None:
    found = Findings(AN_EAU.sent_at, "<x@y>", file_name=FileName("E", Kind.STORNO), payload=Payload.MISSING)
    assert code(found) == 102


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EEAU0_abc", FileName("E", Kind.EAU)),
        ("TEAU0_Storno_abc.p7s", FileName("T", Kind.STORNO)),
        ("eeau0_storno_x", FileName("E", Kind.STORNO)),
        ("EEAU0_Fehler_abc.xml", FileName("E", None)),
        ("Befund.p7s", None),
        (None, None),
    ],
)
def test_file_names_follow_the_pattern_or_say_nothing(text: str | None, expected: FileName | None) -> None:
    assert FileName.parse(text) == expected


def test_test_data_never_enters_production_and_gets_no_error() -> None:
    found = replace(A_FAULTY_EAU, file_name=FileName("T", Kind.EAU))
    assert decide(found, NOTHING, POLICY) == Quarantined(Quarantine.TEST_IN_PRODUCTION)
    assert decide(AN_EAU, NOTHING, replace(POLICY, prefix="T")) == Quarantined(Quarantine.PRODUCTION_IN_TEST)


# --- every code, by its reason ---

WRONG_KEY: dict[str, Any] = {
    "decryption": DecryptionResult.KEY_NOT_AVAILABLE,
    "profile": None,
    "document_id": None,
    "file_hash": None,
}
WRONG_FORMAT = WRONG_KEY | {"decryption": DecryptionResult.WRONG_FORMAT}


def integrity(*results: IntegrityCheckResult) -> dict[str, Any]:
    return {"integrity": results}


@pytest.mark.parametrize(
    ("changes", "eau", "storno"),
    [
        ({"verdict": Verdict.INVALID}, 101, 102),
        ({"verdict": Verdict.UNREADABLE, "profile": None, "document_id": None}, 101, 102),
        ({"payload": Payload.MISSING}, 101, 102),
        ({"payload": Payload.SEVERAL}, 101, 102),
        ({"signature": PayloadVerdict.UNREADABLE}, 101, 102),
        ({"virus": True}, 101, 102),
        ({"charset_ok": False}, 103, 104),
        ({"signature": PayloadVerdict.CERTIFICATE_FAULTY}, 201, 203),
        ({"signature": PayloadVerdict.DATA_DIFFER}, 202, 204),
        (WRONG_FORMAT, 307, 301),
        (integrity(IntegrityCheckResult.NO_SIGNATURE), 309, 303),
        (integrity(IntegrityCheckResult.WRONG_FORMAT), 310, 304),
        (integrity(IntegrityCheckResult.CONTENT_DIFFERS), 311, 305),
        (integrity(IntegrityCheckResult.INTACT, IntegrityCheckResult.HEADERS_DIFFER), 311, 305),
        (integrity(IntegrityCheckResult.INTACT, IntegrityCheckResult.RECIPIENT_EMAILS_DIFFER), 311, 305),
        (WRONG_KEY, 313, 314),
    ],
)
def test_each_fault_has_its_code_for_both_kinds(changes: dict[str, Any], eau: int, storno: int) -> None:
    assert code(replace(AN_EAU, **changes)) == eau
    assert code(replace(A_STORNO, **changes)) == storno


@pytest.mark.parametrize(
    "result",
    [IntegrityCheckResult.CERTIFICATE_INVALID, IntegrityCheckResult.OTHER_FAILURE, IntegrityCheckResult.STATUS_UNKNOWN],
)
def test_a_mail_signature_result_without_a_code_is_passed_on(result: IntegrityCheckResult) -> None:
    assert decide(replace(AN_EAU, integrity=(result,)), NOTHING, POLICY) == Filed(EAU_FACTS)


def test_unknown_revocation_of_the_payload_certificate_is_accepted() -> None:
    found = replace(AN_EAU, signature=PayloadVerdict.STATUS_UNKNOWN)
    assert decide(found, NOTHING, POLICY) == Filed(EAU_FACTS)


def test_the_operator_may_pass_over_the_mail_signature_if_the_document_is_signed() -> None:
    lenient = replace(POLICY, accept_if_payload_signed=True)
    found = replace(AN_EAU, integrity=(IntegrityCheckResult.NO_SIGNATURE,))
    assert decide(found, NOTHING, lenient) == Filed(EAU_FACTS)
    assert code(replace(found, signature=PayloadVerdict.DATA_DIFFER), policy=lenient) == 309
    assert code(replace(found, payload=Payload.MISSING), policy=lenient) == 309


def test_the_first_fault_in_the_check_order_is_the_one_that_is_told() -> None:
    found = replace(
        A_FAULTY_EAU,
        integrity=(IntegrityCheckResult.NO_SIGNATURE,),
        virus=True,
        signature=PayloadVerdict.DATA_DIFFER,
        charset_ok=False,
    )
    assert code(found) == 309
    found = replace(found, integrity=(IntegrityCheckResult.INTACT,))
    assert code(found) == 101
    found = replace(found, virus=False)
    assert code(found) == 202
    found = replace(found, signature=PayloadVerdict.VALID)
    assert code(found) == 103


@pytest.mark.parametrize("answer", Membership)
def test_only_a_clear_answer_about_the_person_leads_to_code_100(answer: Membership) -> None:
    outcome = decide(replace(AN_EAU, membership=answer), NOTHING, POLICY)
    clear = answer in (Membership.OTHER_INSURER, Membership.UNKNOWN_PERSON)
    assert isinstance(outcome, Faulty) == clear
    if isinstance(outcome, Faulty):
        assert outcome.code.number == 100


def test_the_code_table_is_that_of_the_technische_anlage() -> None:
    assert sorted(CODES) == [*range(100, 106), *range(201, 205), 301, 303, 304, 305, 307, 309, 310, 311, 313, 314]
    assert {number for number, row in CODES.items() if row.by_message_id} == {301, 307, 313, 314}
    assert {number for number, row in CODES.items() if row.new_file} == set(range(100, 106))
    assert {number for pair in CODE_OF.values() for number in pair if number} == set(CODES)
    assert all(
        CODES[number].target is kind
        for pair in CODE_OF.values()
        for number, kind in zip(pair, (Kind.EAU, Kind.STORNO), strict=True)
        if number
    )
    assert set(CODE_OF) == set(Fault)


# --- what the answer names, and in which version ---


def test_an_answer_names_the_document_if_its_id_could_be_read() -> None:
    outcome = decide(A_FAULTY_EAU, NOTHING, POLICY)
    assert isinstance(outcome, Faulty)
    assert (outcome.reference, outcome.reference_value) == (Reference.BUNDLE_IDENTIFIER, EAU_ID.value)


@pytest.mark.parametrize("changes", [WRONG_FORMAT, WRONG_KEY, {"virus": True}, {"document_id": None}])
def test_else_and_for_undecryptable_mail_and_viruses_it_names_the_mail(changes: dict[str, Any]) -> None:
    for found in (A_FAULTY_EAU, replace(A_STORNO, verdict=Verdict.INVALID)):
        outcome = decide(replace(found, **changes), NOTHING, POLICY)
        assert isinstance(outcome, Faulty)
        assert (outcome.reference, outcome.reference_value) == (Reference.MESSAGE_ID, found.message_id)


@pytest.mark.parametrize("message_id", [None, "", "<a\x01b@c>"])
def test_what_cannot_be_named_goes_to_people(message_id: str | None) -> None:
    found = replace(A_FAULTY_EAU, document_id=None, message_id=message_id)
    assert decide(found, NOTHING, POLICY) == Quarantined(Quarantine.NO_REFERENCE)


def test_a_virus_report_carries_no_details() -> None:
    outcome = decide(replace(AN_EAU, virus=True, details=(Detail("x", "y"),)), NOTHING, POLICY)
    assert isinstance(outcome, Faulty)
    assert (outcome.virus, outcome.details) == (True, ())


@pytest.mark.parametrize(
    ("fhir", "dienstkennung", "readable", "unreadable"),
    [  # eau.md § 13.4, row by row
        ("1.2", "V1.2", ("1.2", "V1.2"), ("1.2", "V1.2")),
        ("1.2", "V1.1", ("1.2", "V1.1"), ("1.1.0", "V1.1")),
        ("1.1.0", "V1.1", ("1.1.0", "V1.1"), ("1.1.0", "V1.1")),
        ("1.1.0", "V1.2", ("1.1.0", "V1.1"), ("1.2", "V1.2")),
        ("1.2", None, ("1.2", "V1.2"), ("1.2", "V1.2")),
        ("1.1.0", None, ("1.1.0", "V1.1"), ("1.2", "V1.2")),
    ],
)
def test_the_version_of_the_answer_follows_the_matrix(
    fhir: str, dienstkennung: str | None, readable: tuple[str, str], unreadable: tuple[str, str]
) -> None:
    assert answer_version(fhir, dienstkennung) == readable
    assert answer_version(None, dienstkennung) == unreadable


@given(st.none() | st.text(max_size=8), st.none() | st.text(max_size=8))
def test_there_is_an_answer_version_for_whatever_was_sent(fhir: str | None, dienstkennung: str | None) -> None:
    version, own = answer_version(fhir, dienstkennung)
    assert version in Answer
    assert own in ("V1.1", "V1.2")


def test_the_version_of_a_foreign_dienstkennung_says_nothing() -> None:
    foreign = Dienstkennung("Arztbrief", "VHitG-Versand", "V1.1")
    outcome = decide(replace(A_FAULTY_EAU, dienstkennung=foreign), NOTHING, POLICY)
    assert isinstance(outcome, Faulty)
    assert (outcome.version, outcome.dienstkennung_version) == (Answer.V1_2, "V1.2")


# --- the end of a version, by the date of sending (HD-48) ---

OLD: dict[str, Any] = {"profile": Profile(EAU_PROFILE.url, "1.1.0")}


def test_1_1_0_ends_with_march_2026_in_german_time_whenever_it_is_processed() -> None:
    """T-25: a version that ends during a hold is judged by the date of sending."""
    last = datetime(2026, 3, 31, 21, 59, tzinfo=UTC)  # 23:59 in Germany
    assert decide(replace(AN_EAU, sent_at=last, **OLD), NOTHING, POLICY) == Filed(EAU_FACTS)
    assert code(replace(AN_EAU, sent_at=last + timedelta(minutes=1), **OLD)) == 101
    assert code(replace(A_STORNO, sent_at=last + timedelta(minutes=1), **OLD | {"file_hash": b"x"})) == 101


@pytest.mark.parametrize("moment", [datetime.max, datetime.min])
@pytest.mark.parametrize("hours", [-12, 14])
def test_a_date_at_the_end_of_the_calendar_is_a_date(moment: datetime, hours: int) -> None:
    sent_at = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert TRANSITION_TA_1_26.allows("1.1.0", sent_at) is (moment is datetime.min)


def test_the_end_of_a_version_is_data() -> None:
    longer = replace(POLICY, transition=Transition({"1.1.0": None}))
    found = replace(AN_EAU, sent_at=datetime(2027, 1, 1, tzinfo=UTC), **OLD)
    assert decide(found, NOTHING, longer) == Filed(EAU_FACTS)
    assert TRANSITION_TA_1_26.allows("9.9", found.sent_at)


# --- duplicates (eau.md § 13.3) ---


@pytest.mark.parametrize("first", [ACCEPTED_EAU, CANCELLED_EAU])
@pytest.mark.parametrize("found", [AN_EAU, A_FAULTY_EAU, replace(AN_EAU, membership=Membership.UNKNOWN_PERSON)])
def test_an_accepted_file_again_is_only_noted_whatever_was_found_now(first: Known, found: Findings) -> None:
    assert decide(found, Memory(first, first), POLICY) == DeliveredAgain(first, Again.SAME_DOCUMENT)


def test_a_rejected_file_that_is_still_faulty_gets_the_message_again() -> None:
    assert code(A_FAULTY_EAU, Memory(REJECTED_EAU, REJECTED_EAU)) == 101


@pytest.mark.parametrize("memory", [Memory(REJECTED_EAU, REJECTED_EAU), Memory(None, REJECTED_EAU)])
def test_a_rejected_document_that_is_processable_now_is_filed(memory: Memory) -> None:
    assert decide(AN_EAU, memory, POLICY) == Filed(EAU_FACTS, again=True)


def test_the_id_alone_tells_a_duplicate_where_the_file_was_not_reached() -> None:
    found = replace(A_FAULTY_EAU, file_hash=None)
    assert decide(found, Memory(None, ACCEPTED_EAU), POLICY) == DeliveredAgain(ACCEPTED_EAU, Again.SAME_DOCUMENT)


def test_an_accepted_id_on_other_content_never_overwrites_and_the_policy_says_what_follows() -> None:
    memory = Memory(None, ACCEPTED_EAU)
    assert decide(AN_EAU, memory, POLICY) == Quarantined(Quarantine.ID_REUSED)
    assert code(AN_EAU, memory, replace(POLICY, id_reuse=IdReuse.FAULTY)) == 101
    assert code(A_FAULTY_EAU, memory) == 101


def test_a_certificate_that_may_be_the_same_is_filed_and_proposed() -> None:
    similar = replace(ACCEPTED_EAU, document_id=an_id(7))
    assert decide(AN_EAU, Memory(similar=similar), POLICY) == Filed(EAU_FACTS, similar=similar)


# --- own trouble is never answered (HD-01; incident.md appendix B no. 6) ---

FINDINGS = st.builds(
    Findings,
    sent_at=st.datetimes(timezones=st.just(UTC)),
    message_id=st.sampled_from([None, "<a@b>"]),
    mail=st.sampled_from(MailKind),
    dienstkennung=st.sampled_from([None, DEFAULT, EAU_FEHLER_KASSE, AN_EAU.dienstkennung, A_STORNO.dienstkennung]),
    file_name=st.sampled_from([None, FileName("E", Kind.EAU), FileName("T", Kind.STORNO)]),
    trouble=st.none() | st.sampled_from(Trouble),
    decryption=st.sampled_from(DecryptionResult),
    integrity=st.lists(st.sampled_from(IntegrityCheckResult), max_size=3).map(tuple),
    virus=st.booleans(),
    payload=st.sampled_from(Payload),
    signature=st.sampled_from(PayloadVerdict),
    charset_ok=st.booleans(),
    verdict=st.sampled_from(Verdict),
    profile=st.sampled_from([None, EAU_PROFILE, Profile("x", None), A_STORNO.profile]),
    document_id=st.sampled_from([None, EAU_ID]),
    file_hash=st.sampled_from([None, b"1" * 32]),
    facts=st.sampled_from([None, EAU_FACTS, STORNO_FACTS]),
    practice=st.sampled_from([None, b"p", b"q"]),
    membership=st.sampled_from(Membership),
)
KNOWN = st.none() | st.builds(
    Known,
    st.sampled_from(Kind),
    st.sampled_from(DocumentState),
    st.just(1),
    st.just(EAU_ID),
    st.sampled_from([None, b"p"]),
)
MEMORY = st.builds(Memory, KNOWN, KNOWN, KNOWN, st.sampled_from([(), (PENDING_STORNO,)]), KNOWN)
POLICIES = st.builds(
    Policy, st.sampled_from("ET"), st.booleans(), st.sampled_from(IdReuse), transition=st.just(TRANSITION_TA_1_26)
)


@given(FINDINGS, MEMORY, POLICIES, st.sampled_from(Trouble))
def test_own_trouble_always_waits_whatever_else_was_found(
    found: Findings, memory: Memory, policy: Policy, trouble: Trouble
) -> None:
    assert decide(replace(found, trouble=trouble), memory, policy) == Wait(trouble)


@given(FINDINGS, MEMORY, POLICIES)
def test_whatever_was_found_there_is_one_outcome_and_a_message_names_a_fault_of_that_kind(
    found: Findings, memory: Memory, policy: Policy
) -> None:
    outcome = decide(found, memory, policy)
    assert holding_state(outcome) in State
    if found.trouble is not None or found.decryption.own_trouble:
        assert isinstance(outcome, Wait)
    if isinstance(outcome, Faulty):
        assert outcome.code.target is outcome.kind
        assert outcome.reference_value
        if outcome.code.by_message_id:
            assert outcome.reference is Reference.MESSAGE_ID


@given(FINDINGS, POLICIES)
def test_a_mail_without_any_fault_is_never_judged_faulty(found: Findings, policy: Policy) -> None:
    clean = replace(AN_EAU, dienstkennung=found.dienstkennung, message_id=found.message_id, sent_at=AN_EAU.sent_at)
    assert not isinstance(decide(clean, NOTHING, policy), Faulty)


def test_a_document_that_is_valid_and_gave_no_facts_is_our_mistake() -> None:
    assert judge(replace(AN_EAU, facts=None), POLICY) == Wait(Trouble.INTERNAL)


def test_each_outcome_has_its_state_in_the_mail_store() -> None:
    assert holding_state(Filed(EAU_FACTS)) is State.DELIVERED
    assert holding_state(StornoPending(STORNO_FACTS)) is State.DELIVERED
    assert holding_state(DeliveredAgain(ACCEPTED_EAU, Again.SAME_DOCUMENT)) is State.DUPLICATE_LINKED
    assert holding_state(decide(A_FAULTY_EAU, NOTHING, POLICY)) is State.RETURNED
    assert holding_state(Quarantined(Quarantine.ID_REUSED)) is State.QUARANTINED
    assert holding_state(Wait(Trouble.KEY)) is State.HELD
