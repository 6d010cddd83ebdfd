"""The same messages through `openssl cms`, both ways: the peer that anybody has at hand."""

from __future__ import annotations

import pytest
from tests.mail.smime.openssl import MISSING, OpenSSL, for_openssl
from tests.mail.smime.samples import INSURER, NOW, PRACTICE, ca, insurer, practice, trust, unwrap_by

from schleuse.kim.pki import Algorithm
from schleuse.mail.smime import ber
from schleuse.mail.smime.envelope import EnvelopeFormatError, build_envelope, open_envelope, parse_envelope
from schleuse.mail.smime.judge import Verdict, judge_signed
from schleuse.mail.smime.recipients import issuer_and_serial
from schleuse.mail.smime.signing import Encoding, build_signed

pytestmark = pytest.mark.skipif(MISSING, reason="the openssl command is not installed")

CONTENT = b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n" + b"line\r\n" * 5000
OAEP = ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"]
PSS = ["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:32"]
ALGORITHMS: list[Algorithm] = ["rsa", "p256", "brainpool"]


@pytest.fixture(scope="module")
def openssl(tmp_path_factory: pytest.TempPathFactory) -> OpenSSL:
    folder = tmp_path_factory.mktemp("openssl")
    ca().save(folder)
    for algorithm in ALGORITHMS:
        practice(algorithm).write(folder, f"osig-{algorithm}")
        insurer(algorithm).write(folder, f"enc-{algorithm}")
    practice(kind="enc").write(folder, "enc-practice")
    return OpenSSL(folder)


@pytest.mark.parametrize("how", ["-noindef", "-stream"])
def test_we_open_what_openssl_encrypted(openssl: OpenSSL, how: str) -> None:
    recipients = ["-recip", "enc-rsa.pem", *OAEP, "-recip", "enc-practice.pem", *OAEP]
    sealed = openssl.cms("-encrypt", "-binary", "-aes-256-gcm", "-outform", "DER", how, *recipients, stdin=CONTENT)
    assert (sealed[1] == 0x80) == (how == "-stream")
    envelope = parse_envelope(sealed)
    for identity in (insurer(), practice(kind="enc")):
        wanted = issuer_and_serial(identity.certificate_der)
        own = next(one for one in envelope.recipients if one.recipient == wanted)
        assert open_envelope(envelope, own, unwrap_by(identity)) == CONTENT


def test_openssl_opens_what_we_encrypted(openssl: OpenSSL) -> None:
    recipients = [(INSURER, insurer().certificate_der), (PRACTICE, practice(kind="enc").certificate_der)]
    sealed = build_envelope(CONTENT, recipients)
    for name in ("enc-rsa", "enc-practice"):
        arguments = ["-decrypt", "-binary", "-inform", "DER", "-recip", f"{name}.pem", "-inkey", f"{name}.key"]
        assert openssl.cms(*arguments, stdin=for_openssl(sealed)) == CONTENT


def test_openssl_prints_our_envelope_as_kim_wants_it(openssl: OpenSSL) -> None:
    sealed = build_envelope(CONTENT, [(INSURER, insurer().certificate_der)])
    printed = openssl.cms("-cmsout", "-print", "-noout", "-inform", "DER", stdin=for_openssl(sealed)).decode()
    for expected in ("id-smime-ct-authEnvelopedData", "aes-256-gcm", "rsaesOaep", "1.2.276.0.76.4.173"):
        assert expected in printed
    assert "originatorInfo: <ABSENT>" in printed
    assert "authAttrs:\n      <ABSENT>" in printed


def test_key_agreement_as_openssl_writes_it_is_refused(openssl: OpenSSL) -> None:
    arguments = ["-encrypt", "-binary", "-aes-256-gcm", "-outform", "DER", "-recip", "enc-p256.pem", "-aes256-wrap"]
    with pytest.raises(EnvelopeFormatError, match="KeyAgree"):
        parse_envelope(openssl.cms(*arguments, stdin=CONTENT))


@pytest.mark.parametrize("how", ["-noindef", "-stream"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_we_verify_what_openssl_signed(openssl: OpenSSL, algorithm: Algorithm, how: str) -> None:
    name = f"osig-{algorithm}"
    arguments = ["-sign", "-binary", "-nodetach", "-md", "sha256", "-outform", "DER", how]
    keys = [
        "-signer",
        f"{name}.pem",
        "-inkey",
        f"{name}.key",
        *(PSS if algorithm == "rsa" and how == "-noindef" else []),
    ]  # it cannot stream PSS
    signed = openssl.cms(*arguments, "-cades", *keys, stdin=CONTENT)
    # OpenSSL puts its own clock into the signing time, the certificates of the tests are valid for years around it.
    judged = judge_signed(signed, None, NOW)
    assert (judged.verdict, judged.content) == (Verdict.STATUS_UNKNOWN, CONTENT)
    damaged = signed.replace(b"line\r\nline", b"line\r\nlime", 1)
    assert judge_signed(damaged, None, NOW).verdict is Verdict.CONTENT_DIFFERS


@pytest.mark.parametrize("encoding", ["der", "ber"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_openssl_verifies_what_we_signed(openssl: OpenSSL, algorithm: Algorithm, encoding: Encoding) -> None:
    signed = build_signed(CONTENT, practice(algorithm).signer(), NOW, encoding=encoding)
    at = ["-attime", str(int(NOW.timestamp()))]
    verify = ["-verify", "-binary", "-inform", "DER", "-CAfile", "ca.pem", "-purpose", "any", "-cades", *at]
    assert openssl.cms(*verify, stdin=signed) == CONTENT


def test_openssl_prints_our_signer_info_as_kim_wants_it(openssl: OpenSSL) -> None:
    signed = build_signed(CONTENT, practice().signer(), NOW)
    printed = openssl.cms("-cmsout", "-print", "-noout", "-inform", "DER", stdin=signed).decode()
    for expected in ("contentType", "signingTime", "messageDigest", "signingCertificateV2", "rsassaPss", "sha256"):
        assert expected in printed
    assert printed.count("d.issuerAndSerialNumber") == 1
    assert "unsignedAttrs:\n          <ABSENT>" in printed


def test_our_streamed_encoding_is_what_openssl_makes_of_it(openssl: OpenSSL) -> None:
    """Both ways into DER, OpenSSL's and ours, end in the same octets."""
    streamed = build_signed(CONTENT, practice("p256").signer(), NOW, encoding="ber")
    assert streamed[:2] == b"\x30\x80"
    assert judge_signed(ber.to_definite(streamed), trust(), NOW).verdict is Verdict.VALID
    again = openssl.cms("-cmsout", "-inform", "DER", "-outform", "DER", stdin=streamed)
    assert judge_signed(again, trust(), NOW).verdict is Verdict.VALID
