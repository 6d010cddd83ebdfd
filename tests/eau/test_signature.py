from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.smime.samples import NOW, ca, insurer, practice, trust

from schleuse.eau.signature import PayloadVerdict, check_payload, sign_payload
from schleuse.kim.pki import Algorithm, Kind
from schleuse.mail.smime.signing import Encoding
from schleuse.mail.smime.trust import TrustStore

XML = "<Bundle><text>Müller</text></Bundle>".encode() * 200
SIGNED = sign_payload(XML, practice("p256").signer(), NOW)


@pytest.mark.parametrize("encoding", ["der", "ber"])
@pytest.mark.parametrize("algorithm", ["rsa", "p256", "brainpool"])
def test_what_a_practice_signed_is_valid_and_the_xml_comes_out(algorithm: Algorithm, encoding: Encoding) -> None:
    found = check_payload(sign_payload(XML, practice(algorithm).signer(), NOW, encoding=encoding), trust(), NOW)
    assert (found.verdict, found.xml, found.signing_time) == (PayloadVerdict.VALID, XML, NOW)


@pytest.mark.parametrize("kind", ["osig", "qes"])
def test_an_institutions_signature_is_as_good_as_a_qualified_one(kind: Kind) -> None:
    signed = sign_payload(XML, practice("p256", kind).signer(), NOW)
    assert check_payload(signed, trust(), NOW).verdict is PayloadVerdict.VALID


def test_an_enclosed_ocsp_answer_is_honoured() -> None:
    leaf, store = practice("p256", "qes"), TrustStore((ca().certificate,))
    for authority, verdict in [
        (ca(), PayloadVerdict.VALID),
        (ca().revoke(leaf.certificate, NOW - timedelta(days=1)), PayloadVerdict.CERTIFICATE_FAULTY),
        (ca().revoke(leaf.certificate, NOW + timedelta(days=1)), PayloadVerdict.VALID),
    ]:
        signed = sign_payload(XML, leaf.signer(), NOW, ocsp=[authority.ocsp(leaf.certificate, NOW)])
        assert check_payload(signed, store, NOW).verdict is verdict


def test_other_data_than_were_signed_are_told_and_handed_over() -> None:
    found = check_payload(SIGNED.replace("Müller".encode(), "Möller".encode(), 1), trust(), NOW)
    assert found.verdict is PayloadVerdict.DATA_DIFFER
    assert found.xml is not None
    assert "Möller".encode() in found.xml


def test_a_certificate_that_may_not_sign_is_faulty() -> None:
    signed = sign_payload(XML, insurer().signer(), NOW)
    assert check_payload(signed, trust(), NOW).verdict is PayloadVerdict.CERTIFICATE_FAULTY


def test_a_certificate_that_has_expired_since_was_good_then() -> None:
    later = NOW + timedelta(days=3000)
    assert check_payload(SIGNED, trust(), later).verdict is PayloadVerdict.VALID
    late = sign_payload(XML, practice("p256").signer(), later)
    assert check_payload(late, trust(), later).verdict is PayloadVerdict.CERTIFICATE_FAULTY


def test_an_unknown_status_is_accepted_because_it_is_our_own_trouble() -> None:
    found = check_payload(SIGNED, TrustStore((ca().certificate,)), NOW)
    assert found.verdict is PayloadVerdict.STATUS_UNKNOWN
    assert found.verdict.accepted


@pytest.mark.parametrize("p7s", [b"", XML, b"\x30\x80", SIGNED[:-40]])
def test_what_is_no_signature_file_is_unreadable(p7s: bytes) -> None:
    found = check_payload(p7s, trust(), NOW)
    assert found.verdict is PayloadVerdict.UNREADABLE
    assert not found.verdict.accepted


def test_signing_again_changes_the_file_and_not_the_xml() -> None:
    again = sign_payload(XML, practice("p256").signer(), NOW + timedelta(hours=1))
    assert again != SIGNED
    assert check_payload(again, trust(), NOW + timedelta(hours=1)).xml == check_payload(SIGNED, trust(), NOW).xml


@given(st.data())
def test_damage_never_raises_and_never_passes(data: st.DataObject) -> None:
    octets = bytearray(SIGNED)
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    found = check_payload(bytes(octets), trust(), NOW)
    assert not found.verdict.accepted or found.xml == XML
