from __future__ import annotations

import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import ocsp
from tests.mail.smime.samples import NOW, ca, insurer, practice

from schleuse.errors import MalformedError, UnavailableError
from schleuse.kim.pki import INSURER_OID, DevelopmentCA, new_key
from schleuse.mail.smime.trust import read_certificate


def test_institution_certificates_carry_telematik_id_and_profession() -> None:
    owner = read_certificate(insurer().certificate_der)
    assert (owner.telematik_id, owner.profession_oids) == ("8-1234", (INSURER_OID,))


def test_each_algorithm_gives_its_kind_of_key() -> None:
    key = new_key("rsa")
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    for algorithm, curve in (("p256", "secp256r1"), ("brainpool", "brainpoolP256r1")):
        made = new_key(algorithm)  # type: ignore[arg-type]
        assert isinstance(made, ec.EllipticCurvePrivateKey)
        assert made.curve.name == curve


def usage(certificate: x509.Certificate) -> x509.KeyUsage:
    return certificate.extensions.get_extension_for_class(x509.KeyUsage).value


def test_key_usage_follows_the_kind_of_certificate() -> None:
    assert usage(insurer().certificate).key_encipherment
    assert usage(insurer("p256").certificate).key_agreement
    assert usage(practice("p256").certificate).digital_signature
    assert usage(practice("p256", "qes").certificate).content_commitment
    assert not usage(insurer().certificate).digital_signature


def test_validity_starts_a_little_early_and_lasts_as_asked() -> None:
    made = ca().issue_institution("x", "1-1", INSURER_OID, now=NOW, algorithm="p256", validity=timedelta(days=7))
    assert made.certificate.not_valid_before_utc < NOW
    assert made.certificate.not_valid_after_utc == NOW + timedelta(days=7)


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    paths = (*insurer("p256").write(folder, "kasse"), ca().save(folder), folder / "ca.key")
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["ca.key", "ca.pem", "kasse.key", "kasse.pem"]


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    insurer("p256").write(tmp_path, "kasse")
    certificate, _ = insurer("brainpool").write(tmp_path, "kasse")
    assert certificate.read_bytes() == insurer("brainpool").certificate_pem


def test_a_saved_ca_goes_on_issuing(tmp_path: Path) -> None:
    ca().save(tmp_path)
    again = DevelopmentCA.load(tmp_path)
    issued = again.issue_institution("x", "1-1", INSURER_OID, now=NOW, algorithm="p256")
    issued.certificate.verify_directly_issued_by(ca().certificate)


def test_a_missing_ca_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        DevelopmentCA.load(tmp_path)


def test_a_pkcs12_opens_with_its_password() -> None:
    key, certificate, more = pkcs12.load_key_and_certificates(insurer().p12(b"geheim"), b"geheim")
    assert key is not None
    assert certificate == insurer().certificate
    assert more == [ca().certificate]


def test_a_tls_certificate_is_accepted_by_the_ssl_module(tmp_path: Path) -> None:
    server = ca().issue_tls(["localhost", "127.0.0.1"], now=NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server.write(tmp_path, "server"))
    names = server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["localhost", "127.0.0.1"]


def test_a_tls_certificate_without_host_is_refused() -> None:
    with pytest.raises(MalformedError):
        ca().issue_tls([], now=NOW)


def test_revocation_shows_in_crl_and_ocsp_of_the_ca_that_knows_it() -> None:
    certificate = practice("p256").certificate
    revoked = ca().revoke(certificate, NOW)
    assert ca().crl(NOW).get_revoked_certificate_by_serial_number(certificate.serial_number) is None
    assert revoked.crl(NOW).get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    good = ocsp.load_der_ocsp_response(ca().ocsp(certificate, NOW))
    bad = ocsp.load_der_ocsp_response(revoked.ocsp(certificate, NOW))
    assert (good.certificate_status, bad.certificate_status) == (ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED)


def test_keys_are_not_printed() -> None:
    assert "PRIVATE" not in repr(insurer())
    assert repr(ca()).startswith("<")
