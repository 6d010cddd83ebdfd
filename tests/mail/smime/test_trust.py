from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from tests.mail.smime.samples import NOW, ca, insurer, practice, trust

from schleuse.errors import UnavailableError
from schleuse.kim.pki import PRACTICE_OID, DevelopmentCA, Identity
from schleuse.mail.smime.revocation import MAX_PROOF_AGE, Status
from schleuse.mail.smime.trust import (
    CertificateVerdict,
    Fault,
    TrustStore,
    UnreadableCertificateError,
    read_certificate,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GOOD = CertificateVerdict(None, Status.GOOD)
NOBODY_KNOWS = CertificateVerdict(None, Status.UNKNOWN)


def without_crl() -> TrustStore:
    return TrustStore((ca().certificate,))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def crl_der(authority: DevelopmentCA, now: datetime) -> bytes:
    return authority.crl(now).public_bytes(serialization.Encoding.DER)


def test_a_certificate_of_our_ca_is_good_at_signing_time() -> None:
    assert trust().judge(practice().certificate_der, NOW) == GOOD


def test_without_any_proof_about_revocation_the_status_is_unknown() -> None:
    assert without_crl().judge(practice().certificate_der, NOW) == NOBODY_KNOWS


def test_a_certificate_of_a_stranger_has_no_path() -> None:
    stranger = DevelopmentCA.create(NOW)  # the same name, another key
    identity = stranger.issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig")
    assert trust().judge(identity.certificate_der, NOW).fault is Fault.NO_PATH
    assert trust().judge(der(stranger.certificate), NOW).fault is Fault.NO_PATH


def test_validity_is_judged_at_signing_time() -> None:
    short = ca().issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig", validity=DAY, algorithm="p256")
    store = trust()
    assert store.judge(short.certificate_der, NOW + HOUR) == GOOD
    assert store.judge(short.certificate_der, NOW + DAY + HOUR).fault is Fault.NOT_VALID_THEN
    assert store.judge(short.certificate_der, NOW - 2 * HOUR).fault is Fault.NOT_VALID_THEN


def test_an_encryption_certificate_may_not_sign() -> None:
    assert trust().judge(insurer().certificate_der, NOW).fault is Fault.WRONG_USAGE


def test_a_qualified_certificate_may_sign() -> None:
    assert trust().judge(practice("p256", "qes").certificate_der, NOW) == GOOD


def test_a_revoked_certificate_counts_until_it_was_revoked() -> None:
    revoked = ca().revoke(practice().certificate, NOW)
    store = TrustStore((ca().certificate,), (revoked.crl(NOW + DAY),))
    assert store.judge(practice().certificate_der, NOW - timedelta(minutes=1)) == GOOD
    assert store.judge(practice().certificate_der, NOW).fault is Fault.REVOKED


def test_an_outdated_crl_proves_nothing() -> None:
    assert trust().judge(practice().certificate_der, NOW + timedelta(days=8)) == NOBODY_KNOWS


def test_enclosed_proofs_are_honoured() -> None:
    store, leaf = without_crl(), practice().certificate
    revoked = ca().revoke(leaf, NOW - HOUR)
    for crls, ocsp, expected in [
        ([crl_der(ca(), NOW)], [], GOOD),
        ([], [ca().ocsp(leaf, NOW)], GOOD),
        ([crl_der(revoked, NOW)], [], CertificateVerdict(Fault.REVOKED, Status.REVOKED)),
        ([], [revoked.ocsp(leaf, NOW)], CertificateVerdict(Fault.REVOKED, Status.REVOKED)),
        ([crl_der(revoked, NOW)], [ca().ocsp(leaf, NOW)], CertificateVerdict(Fault.REVOKED, Status.REVOKED)),
    ]:
        assert store.judge(practice().certificate_der, NOW, (), crls, ocsp) == expected


@pytest.mark.parametrize("algorithm", ["rsa", "p256", "brainpool"])
def test_ocsp_answers_of_every_kind_of_ca_are_read(algorithm: str) -> None:
    authority = DevelopmentCA.create(NOW, algorithm=algorithm)  # type: ignore[arg-type]
    leaf = authority.issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig", algorithm="p256")
    store = TrustStore((authority.certificate,))
    assert store.judge(leaf.certificate_der, NOW, (), (), [authority.ocsp(leaf.certificate, NOW)]) == GOOD


def test_proofs_of_a_stranger_or_about_another_prove_nothing() -> None:
    stranger = DevelopmentCA.create(NOW).revoke(practice().certificate, NOW - DAY)
    other = practice("p256").certificate
    useless = [stranger.ocsp(practice().certificate, NOW), ca().ocsp(other, NOW), b"", b"\x30\x03\x0a\x01\x06"]
    crls = [crl_der(stranger, NOW), b"nonsense"]
    assert without_crl().judge(practice().certificate_der, NOW, (), crls, useless) == NOBODY_KNOWS


def test_an_old_ocsp_answer_proves_nothing_for_a_later_signature() -> None:
    answer = ca().ocsp(practice().certificate, NOW, validity=HOUR)
    later = NOW + MAX_PROOF_AGE + HOUR
    assert without_crl().judge(practice().certificate_der, later, (), (), [answer]) == NOBODY_KNOWS


def sub_ca(*, is_ca: bool = True, path_length: int | None = None, critical: bool = False) -> DevelopmentCA:
    below = DevelopmentCA.create(NOW, name="Zwischen-CA")
    builder = (
        x509.CertificateBuilder()
        .subject_name(below.certificate.subject)
        .issuer_name(ca().certificate.subject)
        .public_key(below.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None), critical=True)
    )
    if critical:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=True)
    return DevelopmentCA(builder.sign(ca().key, hashes.SHA256()), below.key)


def below(authority: DevelopmentCA) -> Identity:
    return authority.issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig", algorithm="p256")


def test_an_enclosed_intermediate_certificate_completes_the_path() -> None:
    between = sub_ca()
    leaf = below(between)
    store = without_crl()
    assert store.judge(leaf.certificate_der, NOW).fault is Fault.NO_PATH
    enclosed = [leaf.certificate_der, der(between.certificate)]
    assert store.judge(leaf.certificate_der, NOW, enclosed) == NOBODY_KNOWS
    # What was learnt stays, and the shorter life of the intermediate counts.
    assert store.judge(leaf.certificate_der, NOW) == NOBODY_KNOWS
    assert store.judge(leaf.certificate_der, NOW + 2 * DAY, enclosed).fault is Fault.NOT_VALID_THEN


def test_a_revoked_intermediate_certificate_spoils_what_is_below() -> None:
    between = sub_ca()
    leaf = below(between)
    store = TrustStore((ca().certificate,), (ca().revoke(between.certificate, NOW - HOUR).crl(NOW),))
    assert (
        store.judge(leaf.certificate_der, NOW, [leaf.certificate_der, der(between.certificate)]).fault is Fault.REVOKED
    )


@pytest.mark.parametrize("between", [sub_ca(is_ca=False), sub_ca(critical=True)])
def test_what_is_no_ca_or_not_understood_issues_nothing(between: DevelopmentCA) -> None:
    leaf = below(between)
    enclosed = [leaf.certificate_der, der(between.certificate)]
    assert trust().judge(leaf.certificate_der, NOW, enclosed).fault is Fault.NO_PATH


def test_an_institution_cannot_issue_certificates() -> None:
    impostor = DevelopmentCA(practice("p256").certificate, practice("p256").key)
    leaf = below(impostor)
    enclosed = [leaf.certificate_der, practice("p256").certificate_der]
    assert trust().judge(leaf.certificate_der, NOW, enclosed).fault is Fault.NO_PATH


def test_the_owner_is_read_from_the_admission_extension() -> None:
    owner = trust().certificate(practice().certificate_der)
    assert owner.telematik_id == "1-5678"
    assert owner.profession_oids == (PRACTICE_OID,)
    server = ca().issue_tls(["localhost"], now=NOW)
    assert trust().certificate(server.certificate_der).telematik_id is None


def test_a_known_certificate_is_not_worked_out_again() -> None:
    store = trust()
    first = store.certificate(practice().certificate_der)
    store.judge(practice().certificate_der, NOW)
    assert store.certificate(bytes(bytearray(practice().certificate_der))) is first


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", practice("p256").certificate_der[:-1]])
def test_what_is_no_certificate_is_unreadable(octets: bytes) -> None:
    with pytest.raises(UnreadableCertificateError):
        read_certificate(octets)
    assert trust().judge(octets, NOW).fault is Fault.UNREADABLE


def test_a_name_of_a_type_that_the_library_does_not_foresee_is_unreadable() -> None:
    """Found by fuzzing: a BIT STRING as common name made `cryptography` raise TypeError."""
    name = b"Praxis Beispiel"
    certificate = practice("p256").certificate_der
    written = b"\x0c\x0f" + name
    assert written in certificate
    with pytest.raises(UnreadableCertificateError):
        read_certificate(certificate.replace(written, b"\x03\x0f\x00" + name[1:]))


def test_nothing_is_trusted_without_an_anchor() -> None:
    with pytest.raises(UnavailableError):
        TrustStore(())


def test_anchors_and_crls_come_from_pem_files(tmp_path: Path) -> None:
    anchor = ca().save(tmp_path)
    crl = tmp_path / "ca.crl.pem"
    crl.write_bytes(ca().crl(NOW).public_bytes(serialization.Encoding.PEM))
    assert TrustStore.from_files([anchor, crl]).judge(practice().certificate_der, NOW) == GOOD


def test_a_missing_or_broken_anchor_file_is_our_own_trouble(tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for name in ("broken.pem", "missing.pem"):
        with pytest.raises(UnavailableError):
            TrustStore.from_files([tmp_path / name])
