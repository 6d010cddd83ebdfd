from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.smime.samples import NOW, ca, insurer, practice, trust

from schleuse.kim.pki import PRACTICE_OID, DevelopmentCA
from schleuse.mail.smime import ber
from schleuse.mail.smime.judge import CLOCK_TOLERANCE, Verdict, judge_signed
from schleuse.mail.smime.signing import build_signed
from schleuse.mail.smime.trust import Fault, TrustStore

CONTENT = b"<Bundle/>"
SIGNED = build_signed(CONTENT, practice("p256").signer(), NOW)


def test_intact_and_good_is_valid() -> None:
    judged = judge_signed(SIGNED, trust(), NOW)
    assert (judged.verdict, judged.content, judged.signing_time) == (Verdict.VALID, CONTENT, NOW)
    assert judged.signer is not None
    assert judged.signer.telematik_id == "1-5678"


def test_intact_without_proof_or_without_anchors_is_status_unknown() -> None:
    assert judge_signed(SIGNED, TrustStore((ca().certificate,)), NOW).verdict is Verdict.STATUS_UNKNOWN
    assert judge_signed(SIGNED, None, NOW).verdict is Verdict.STATUS_UNKNOWN


def test_an_enclosed_ocsp_answer_makes_it_valid() -> None:
    answer = ca().ocsp(practice("p256").certificate, NOW)
    signed = build_signed(CONTENT, practice("p256").signer(), NOW, ocsp=[answer])
    assert judge_signed(signed, TrustStore((ca().certificate,)), NOW).verdict is Verdict.VALID


def test_other_content_is_told_and_still_handed_over() -> None:
    judged = judge_signed(SIGNED.replace(b"<Bundle/>", b"<Bungle/>"), trust(), NOW)
    assert (judged.verdict, judged.content) == (Verdict.CONTENT_DIFFERS, b"<Bungle/>")


def test_a_certificate_that_may_not_sign_is_named_in_the_reason() -> None:
    judged = judge_signed(build_signed(CONTENT, insurer().signer(), NOW), trust(), NOW)
    assert (judged.verdict, judged.fault) == (Verdict.CERTIFICATE_INVALID, Fault.WRONG_USAGE)
    assert f"{insurer().certificate.serial_number:x}" in judged.reason


def test_a_stranger_is_no_valid_signer() -> None:
    stranger = DevelopmentCA.create(NOW).issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig")
    assert judge_signed(build_signed(CONTENT, stranger.signer(), NOW), trust(), NOW).fault is Fault.NO_PATH


def test_a_signature_outlives_its_certificate() -> None:
    short = ca().issue_institution(
        "x", "1-1", PRACTICE_OID, now=NOW, kind="osig", algorithm="p256", validity=timedelta(days=1)
    )
    signed = build_signed(CONTENT, short.signer(), NOW)
    assert judge_signed(signed, trust(), NOW + timedelta(days=3)).verdict is Verdict.VALID


def test_a_signing_time_in_the_future_is_not_believed() -> None:
    short = ca().issue_institution(
        "x", "1-1", PRACTICE_OID, now=NOW, kind="osig", algorithm="p256", validity=timedelta(days=30)
    )
    signed = build_signed(CONTENT, short.signer(), NOW + timedelta(days=40))
    assert judge_signed(signed, trust(), NOW).verdict is Verdict.VALID
    soon = build_signed(CONTENT, short.signer(), NOW + CLOCK_TOLERANCE)
    assert judge_signed(soon, trust(), NOW).verdict is Verdict.VALID


def test_no_signature_and_a_wrong_format_are_told_apart() -> None:
    plain = ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.7.1"), ber.tlv(0xA0, ber.tlv(4, CONTENT)))
    assert judge_signed(plain, trust(), NOW).verdict is Verdict.NO_SIGNATURE
    assert judge_signed(b"no CMS at all", trust(), NOW).verdict is Verdict.WRONG_FORMAT
    assert judge_signed(b"", trust(), NOW).verdict is Verdict.WRONG_FORMAT


def test_a_certificate_that_is_not_enclosed_or_unreadable_is_not_valid() -> None:
    certificate = practice("p256").certificate_der
    broken = SIGNED.replace(certificate, certificate[:-1] + b"\0")
    assert judge_signed(broken, trust(), NOW).verdict is not Verdict.VALID
    key = certificate.find(ber.oid("1.2.840.10045.3.1.7"))  # the named curve
    unknown_curve = certificate[:key] + certificate[key:].replace(
        ber.oid("1.2.840.10045.3.1.7"), b"\x06\x08" + bytes(8)
    )
    assert judge_signed(SIGNED.replace(certificate, unknown_curve), trust(), NOW).fault is Fault.UNREADABLE


@pytest.mark.parametrize("trusted", [True, False])
@given(data=st.data())
def test_nothing_in_a_signed_object_makes_the_judge_raise(trusted: bool, data: st.DataObject) -> None:
    octets = bytearray(SIGNED)
    for _ in range(data.draw(st.integers(1, 6))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    judged = judge_signed(bytes(octets), trust() if trusted else None, NOW)
    if judged.verdict in {Verdict.VALID, Verdict.STATUS_UNKNOWN}:
        assert judged.content == CONTENT
