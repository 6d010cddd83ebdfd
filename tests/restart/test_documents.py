"""Signed statements of people as evidence of gates (§ 9.3; RS-05, RS-13, T-19, RO-05)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schleuse.restart.documents import (
    SIGNERS,
    BadDocumentError,
    Basis,
    Document,
    DocumentRefusedError,
    EvidenceStatus,
    SignedDocument,
    check_document,
    document_from,
    evidence_of,
    sign_document,
    signed_document_from,
    verdict,
)
from schleuse.restart.gates import DOCUMENTED, Result, judge
from schleuse.restart.plan import GateKind
from schleuse.switch.documents import Person, Rights, Role

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
RIGHTS = Rights(
    [
        Person("frida", "frida", frozenset({Role.FORENSIC_LEAD}), KEY.public_key()),
        Person("otto", "otto", frozenset({Role.SWITCH_OFFICER, Role.TENANT_DELEGATE}), OTHER.public_key()),
    ]
)
REPORT = (("findings-7.pdf", "ab" * 32),)
CLEAN = Document(
    "d1",
    "r1",
    GateKind.EVID,
    Result.PASS,
    NOW,
    "the way in is closed, and nothing persists",
    references=REPORT,
    methods=("memory", "image"),
)


def signed(document: Document = CLEAN, who: str = "frida", role: Role = Role.FORENSIC_LEAD) -> SignedDocument:
    return sign_document(document, who, role, KEY if who == "frida" else OTHER)


def test_a_signed_statement_of_the_right_person_passes_and_names_its_custodian() -> None:
    one = signed()
    check_document(one, RIGHTS, NOW)
    judged = judge(GateKind.EVID, [evidence_of(one)], [], NOW)
    assert judged.result is Result.PASS
    assert "document of frida" in judged.reason.en


@pytest.mark.parametrize("basis", [one for one in Basis if one is not Basis.INVESTIGATION])
def test_recovered_is_not_cleaned(basis: Basis) -> None:
    """RS-13."""
    result, why = verdict(replace(CLEAN, basis=basis), Role.FORENSIC_LEAD)
    assert result is Result.INCONCLUSIVE
    assert "RS-13" in why.en


def test_that_nothing_persists_needs_two_methods() -> None:
    assert verdict(replace(CLEAN, methods=("image", "image")), Role.FORENSIC_LEAD)[0] is Result.INCONCLUSIVE


@pytest.mark.parametrize("kind", [GateKind.EVID, GateKind.BASE])
@pytest.mark.parametrize("status", EvidenceStatus)
def test_a_host_comes_back_only_when_its_evidence_is_verified(kind: GateKind, status: EvidenceStatus) -> None:
    """T-19."""
    document = replace(CLEAN, kind=kind, hosts=(("host-4711", status),))
    unsafe = status in (EvidenceStatus.IDENTIFIED, EvidenceStatus.COLLECTED, EvidenceStatus.ACQUIRED)
    assert (verdict(document, Role.FORENSIC_LEAD)[0] is Result.FAIL) == unsafe


@pytest.mark.parametrize("kind", sorted(DOCUMENTED))
def test_a_typed_yes_is_no_evidence(kind: GateKind) -> None:
    """RS-05: without anything that was looked at nothing passes but a counterparty's own word."""
    bare = replace(CLEAN, kind=kind, references=())
    assert verdict(bare, Role.SECURITY_OFFICER)[0] is Result.INCONCLUSIVE
    own_word = verdict(bare, Role.TENANT_DELEGATE)[0]
    assert own_word is (Result.PASS if kind is GateKind.PART else Result.INCONCLUSIVE)


def test_a_failure_is_a_failure_whatever_it_refers_to() -> None:
    assert verdict(replace(CLEAN, result=Result.FAIL, references=()), Role.FORENSIC_LEAD)[0] is Result.FAIL


@pytest.mark.parametrize("kind", sorted(set(GateKind) - DOCUMENTED))
def test_what_the_platform_looks_at_itself_cannot_be_stated(kind: GateKind) -> None:
    """RS-05."""
    with pytest.raises(BadDocumentError):
        replace(CLEAN, kind=kind)


@pytest.mark.parametrize(
    "change",
    [
        {"result": Result.WAIVED},
        {"text": " "},
        {"id": ""},
        {"text": "x" * 2001},
        {"references": (("a", "not hex"),)},
        {"until": NOW},
    ],
)
def test_what_says_nothing_is_no_document(change: dict[str, Any]) -> None:
    with pytest.raises(BadDocumentError):
        replace(CLEAN, **change)


def test_who_may_not_answer_for_a_gate_is_refused() -> None:
    """§ 10: a switch officer who wants to open does not say himself that it is clean."""
    with pytest.raises(DocumentRefusedError, match="answers one of"):
        check_document(signed(who="otto", role=Role.SWITCH_OFFICER), RIGHTS)
    with pytest.raises(DocumentRefusedError, match="has the role"):
        check_document(signed(role=Role.SECURITY_OFFICER), RIGHTS)
    with pytest.raises(DocumentRefusedError, match="nobody"):
        check_document(replace(signed(), custodian="nobody"), RIGHTS)


def test_a_changed_statement_has_no_signature() -> None:
    """RO-04."""
    with pytest.raises(DocumentRefusedError, match="does not match"):
        check_document(replace(signed(), document=replace(CLEAN, text="all is well")), RIGHTS)


def test_a_disabled_credential_signs_nothing_any_more() -> None:
    gone = Rights([replace(RIGHTS.people()["frida"], until=NOW)])
    check_document(signed(), gone)
    with pytest.raises(DocumentRefusedError, match="disabled"):
        check_document(signed(), gone, NOW)


def test_a_statement_may_end_earlier_than_its_kind() -> None:
    """RS-02."""
    ends = NOW + timedelta(hours=1)
    found = [evidence_of(signed(replace(CLEAN, until=ends)))]
    assert judge(GateKind.EVID, found, [], ends - timedelta(seconds=1)).result is Result.PASS
    assert judge(GateKind.EVID, found, [], ends).result is Result.EXPIRED


def test_every_stated_gate_has_somebody_who_answers_for_it() -> None:
    assert SIGNERS.keys() == DOCUMENTED
    assert not any(roles & {Role.SWITCH_OFFICER, Role.RELEASER, Role.AUTOMAT} for roles in SIGNERS.values())


@given(
    st.builds(
        Document,
        id=st.just("d"),
        plan=st.just("r1"),
        kind=st.sampled_from(sorted(DOCUMENTED)),
        result=st.sampled_from([Result.PASS, Result.FAIL, Result.INCONCLUSIVE]),
        at=st.just(NOW),
        text=st.just("found"),
        until=st.none() | st.just(NOW + timedelta(days=1)),
        basis=st.sampled_from(Basis),
        references=st.lists(st.just(REPORT[0]), max_size=2).map(tuple),
        methods=st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple),
        hosts=st.lists(st.tuples(st.just("h"), st.sampled_from(EvidenceStatus)), max_size=2).map(tuple),
    )
)
def test_a_document_is_read_as_it_was_written(document: Document) -> None:
    one = signed(document)
    assert signed_document_from(one.encode()) == one


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"document": {}}, {**signed().encode(), "role": "king"}, {**signed().encode(), "signature": 7}],
)
def test_what_is_no_document_is_refused_with_a_sentence(value: object) -> None:
    with pytest.raises(BadDocumentError):
        signed_document_from(value)
    with pytest.raises(BadDocumentError):
        document_from(value)
