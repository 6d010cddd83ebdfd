from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kim.layers import CLIENT_MAIL, FIELDS, Layers, ecies, recipients
from tests.mail.smime.samples import INSURER, NOW, PRACTICE, ca, insurer, practice, trust, unwrap_by

from schleuse.errors import Error, UnavailableError
from schleuse.kim.message import OpenedMail, SealedKIMMail, open_kim_mail, open_with, read_envelope
from schleuse.kim.pki import INSURER_OID, PRACTICE_OID, DevelopmentCA
from schleuse.kim.results import DecryptionResult, IntegrityCheckResult
from schleuse.mail.smime import ber
from schleuse.mail.smime.recipients import issuer_and_serial
from schleuse.mail.smime.trust import TrustStore
from schleuse.vault import KeyMissingError, WrappedKey
from schleuse.vault.contracts import (
    BadRequestError,
    NotAllowedError,
    OverBudgetError,
    SealBrokenError,
    UnsupportedWrapError,
    UnwrapFailedError,
)

VALID = Layers()
I = IntegrityCheckResult  # noqa: E741
D = DecryptionResult


def opened(
    raw: bytes,
    *,
    address: str | None = INSURER,
    store: TrustStore | None = None,
    unwrap: Callable[[WrappedKey], bytes] | None = None,
) -> OpenedMail:
    return open_kim_mail(
        raw,
        address=address,
        certificates=[insurer().certificate_der],
        unwrap=unwrap or unwrap_by(insurer()),
        trust=store or trust(),
        now=NOW,
    )


def test_a_valid_mail_is_decrypted_and_intact() -> None:
    mail = opened(VALID.mail())
    assert (mail.decryption, mail.integrity, mail.inner) == (D.DECRYPTED, (I.INTACT,), CLIENT_MAIL)
    assert mail.intact
    assert mail.error_codes == ()
    assert mail.signing_time == NOW
    assert mail.signer is not None
    assert (mail.signer.telematik_id, mail.signer.profession_oids) == ("1-5678", (PRACTICE_OID,))


def test_result_07_counts_as_success() -> None:
    mail = opened(VALID.mail(), store=TrustStore((ca().certificate,)))
    assert mail.integrity == (I.STATUS_UNKNOWN,)
    assert mail.intact


def test_a_mail_without_version_is_passed_on_unchanged() -> None:
    raw = replace(VALID, version=None).mail()
    mail = opened(raw)
    assert (mail.version, mail.decryption, mail.integrity, mail.inner) == (None, None, (), raw)
    assert not mail.intact


def test_an_unknown_version_is_not_tried_and_gets_4008() -> None:
    mail = opened(replace(VALID, version="2.0").mail())
    assert (mail.decryption, mail.inner, mail.error_codes) == (None, None, ("4008",))


@pytest.mark.parametrize("version", ["1.0", "1.5"])
def test_both_versions_of_today_are_opened(version: str) -> None:
    assert opened(replace(VALID, version=version).mail()).intact


# --- decryption (kim.md § 12.2) ---


def test_01_no_key_if_the_envelope_is_for_others() -> None:
    others = recipients()[1:]
    mail = opened(replace(VALID, sealed_for=others, signed_for=others).mail())
    assert (mail.decryption, mail.inner, mail.error_codes) == (D.KEY_NOT_AVAILABLE, None, ("4009",))


def test_01_no_key_if_our_certificate_is_bound_to_another_address() -> None:
    """The trick of kim.md § 7.3: somebody else's mail, sent to us so that our key opens it."""
    assert opened(VALID.mail(), address="other@kasse.kim.telematik-test").decryption is D.KEY_NOT_AVAILABLE
    assert opened(VALID.mail(), address=PRACTICE).decryption is D.KEY_NOT_AVAILABLE


def test_the_address_of_the_mailbox_is_compared_without_case() -> None:
    assert opened(VALID.mail(), address=INSURER.upper()).intact


def test_without_an_address_any_bound_one_will_do() -> None:
    assert opened(VALID.mail(), address=None).intact


@pytest.mark.parametrize(
    "raw",
    [
        VALID.mail(b"no CMS"),
        VALID.mail(VALID.signed()),  # signed, not encrypted
        VALID.mail(VALID.sealed()[:-30]),
        VALID.mail(VALID.sealed()).replace(b"\r\n\r\nM", b"\r\n\r\n*M", 1),
        replace(VALID, outer_type="text/plain").mail(),
        b"no header at all\r\n\r\n",
    ],
)
def test_02_wrong_format(raw: bytes) -> None:
    mail = opened(raw)
    assert (mail.decryption, mail.inner, mail.error_codes) == (D.WRONG_FORMAT, None, ("4010",))


def test_02_a_changed_ciphertext_and_a_wrong_key_look_the_same() -> None:
    def refuse(_: WrappedKey) -> bytes:
        raise UnwrapFailedError("padding")

    sealed = bytearray(VALID.sealed())
    sealed[len(sealed) // 2] ^= 1
    changed = opened(VALID.mail(bytes(sealed)))
    unwrapped_wrongly = opened(VALID.mail(), unwrap=refuse)
    other_key = opened(VALID.mail(), unwrap=lambda _: bytes(32))
    assert changed.decryption is D.WRONG_FORMAT
    assert (changed.decryption, changed.reason) == (unwrapped_wrongly.decryption, unwrapped_wrongly.reason)
    assert (changed.decryption, changed.reason) == (other_key.decryption, other_key.reason)


def test_03_our_own_trouble_is_never_the_senders() -> None:
    def missing(_: WrappedKey) -> bytes:
        raise KeyMissingError("the card is not in its slot")

    mail = opened(VALID.mail(), unwrap=missing)
    assert (mail.decryption, mail.error_codes) == (D.KONNEKTOR_NOT_AVAILABLE, ("4011",))
    assert mail.decryption is not None
    assert mail.decryption.own_trouble


def test_03_no_certificate_of_our_own_is_our_own_trouble_too() -> None:
    mail = open_kim_mail(
        VALID.mail(), address=INSURER, certificates=[], unwrap=unwrap_by(insurer()), trust=trust(), now=NOW
    )
    assert mail.decryption is D.KONNEKTOR_NOT_AVAILABLE


def test_x01_ti_ecies_is_our_own_trouble_until_we_can_read_it() -> None:
    mail = opened(replace(VALID, wrap=ecies).mail())
    assert mail.decryption is D.UNSUPPORTED_KEY_TRANSPORT
    assert mail.decryption.own_trouble
    assert mail.error_codes == ()


def test_02_a_key_transport_outside_the_profile_is_the_senders_fault() -> None:
    def rsa_pkcs1(certificate: bytes, key: bytes) -> WrappedKey:
        algorithm = ber.tlv(ber.SEQUENCE, ber.oid("1.2.840.113549.1.1.1"), b"\x05\x00")
        return WrappedKey(issuer_and_serial(certificate), algorithm, bytes(256))

    assert opened(replace(VALID, wrap=rsa_pkcs1).mail()).decryption is D.WRONG_FORMAT


def test_of_two_own_certificates_the_one_that_we_can_use_is_taken() -> None:
    modern = insurer("brainpool")
    both = [(INSURER, modern.certificate_der), *recipients()]

    def wrap(certificate: bytes, key: bytes) -> WrappedKey:
        return (ecies if certificate == modern.certificate_der else Layers().wrap)(certificate, key)

    mail = open_kim_mail(
        replace(VALID, signed_for=both, sealed_for=both, wrap=wrap).mail(),
        address=INSURER,
        certificates=[modern.certificate_der, insurer().certificate_der],
        unwrap=unwrap_by(insurer()),
        trust=trust(),
        now=NOW,
    )
    assert mail.intact


# --- integrity (kim.md § 12.3) ---


def test_02_content_that_differs_from_the_signature_is_handed_over_with_its_result() -> None:
    content = VALID.signed_head + VALID.signed().replace(b"Hallo", b"Hullo")
    mail = opened(VALID.mail(VALID.sealed(content)))
    assert mail.integrity == (I.CONTENT_DIFFERS,)
    assert mail.inner == CLIENT_MAIL.replace(b"Hallo", b"Hullo")
    assert not mail.intact


@pytest.mark.parametrize("content", [CLIENT_MAIL, b"Content-Type: message/rfc822\r\n\r\n" + CLIENT_MAIL])
def test_03_no_signature(content: bytes) -> None:
    mail = opened(VALID.mail(VALID.sealed(content)))
    assert (mail.integrity, mail.inner) == ((I.NO_SIGNATURE,), CLIENT_MAIL)


@pytest.mark.parametrize(
    "content",
    [
        VALID.signed_head + b"no CMS",
        VALID.signed_head + VALID.signed()[:-50],
        b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n",
        b"no header\r\n\r\n",
    ],
)
def test_04_wrong_format_of_the_signature(content: bytes) -> None:
    assert opened(VALID.mail(VALID.sealed(content))).integrity == (I.WRONG_FORMAT,)


def test_05_certificate_not_valid() -> None:
    stranger = DevelopmentCA.create(NOW).issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig")
    encryption_only = practice(kind="enc")
    for signer in (stranger, encryption_only):
        assert opened(replace(VALID, signer=signer).mail()).integrity == (I.CERTIFICATE_INVALID,)


def test_05_a_revoked_certificate() -> None:
    revoked = ca().revoke(practice("p256").certificate, NOW - timedelta(days=1))
    store = TrustStore((ca().certificate,), (revoked.crl(NOW),))
    assert opened(VALID.mail(), store=store).integrity == (I.CERTIFICATE_INVALID,)


def test_06_signed_content_that_is_no_mail() -> None:
    mail = opened(replace(VALID, wrapper=b"", client_mail=b"just some octets").mail())
    assert mail.integrity == (I.INTACT, I.OTHER_FAILURE)


def test_a_missing_wrapper_does_no_harm() -> None:
    assert opened(replace(VALID, wrapper=b"").mail()).inner == CLIENT_MAIL


@pytest.mark.parametrize("name", ["From", "Sender", "Reply-To", "To", "Cc"])
def test_08_an_outer_header_that_names_somebody_else(name: str) -> None:
    other = "mallory@x.kim.telematik-test"
    changed = f"{name}: {other}\r\n" + "".join(
        line for line in FIELDS.splitlines(keepends=True) if not line.startswith(f"{name}:")
    )
    mail = opened(replace(VALID, outer_fields=changed).mail())
    assert (mail.integrity, mail.error_codes) == ((I.INTACT, I.HEADERS_DIFFER), ("4014",))
    assert name.lower() in mail.reason
    assert other not in mail.reason


@pytest.mark.parametrize(
    "outer",
    [
        FIELDS + f"From: {PRACTICE}\r\n",  # twice outside, once inside
        FIELDS.replace(f"From: {PRACTICE}", "From: unreadable"),
        FIELDS.replace(f"To: {INSURER}\r\n", ""),
    ],
)
def test_08_doubled_unreadable_or_missing_fields(outer: str) -> None:
    assert opened(replace(VALID, outer_fields=outer).mail()).integrity == (I.INTACT, I.HEADERS_DIFFER)


def test_two_unreadable_values_are_not_taken_for_the_same() -> None:
    inner = CLIENT_MAIL.replace(b"\r\nSubject", b"\r\nReply-To: ,;\r\nSubject")
    mail = opened(replace(VALID, client_mail=inner, outer_fields=FIELDS + "Reply-To: ;,\r\n").mail())
    assert I.HEADERS_DIFFER in mail.integrity


@pytest.mark.parametrize(
    "outer",
    [
        FIELDS.replace(f"From: {PRACTICE}", f'FROM: "Praxis, Dr." <{PRACTICE.upper()}>'),
        FIELDS.replace(f"To: {INSURER}", f"To:\r\n =?utf-8?Q?Kasse?=\r\n <{INSURER}>"),
        FIELDS.replace("Mon, 02 Mar 2026 11:30:00 +0100", "Sun, 2 Mar 2026 10:30:00 GMT"),
        FIELDS.replace("Date: Mon, 02 Mar 2026 11:30:00 +0100\r\n", ""),
        FIELDS + "Bcc: other@x.kim.telematik-test\r\nReceived: from a by b\r\n",
    ],
)
def test_other_spellings_of_the_same_header_are_the_same(outer: str) -> None:
    assert opened(replace(VALID, outer_fields=outer).mail()).integrity == (I.INTACT,)


def test_the_order_of_several_recipients_does_not_matter() -> None:
    inner = CLIENT_MAIL.replace(b"To: ", b"To: x@y.kim.telematik-test, ")
    outer = FIELDS.replace(f"To: {INSURER}", f"To: {INSURER}, X@y.kim.telematik-test")
    assert opened(replace(VALID, client_mail=inner, outer_fields=outer).mail()).intact


@pytest.mark.parametrize(
    "signed_for",
    [None, recipients()[:1], [*recipients(), ("x@y.kim.telematik-test", practice("p256").certificate_der)]],
)
def test_09_recipient_emails_that_differ_from_the_signed_ones(signed_for: list[tuple[str, bytes]] | None) -> None:
    mail = opened(replace(VALID, signed_for=signed_for).mail())
    assert (mail.integrity, mail.error_codes) == ((I.INTACT, I.RECIPIENT_EMAILS_DIFFER), ("4015",))


def test_09_a_recipient_info_that_was_added_afterwards() -> None:
    """The envelope is rewrapped for one more reader, the attribute left as it was."""
    intruder = ca().issue_institution("x", "9-9", INSURER_OID, now=NOW)
    sealed = replace(VALID, sealed_for=[*recipients(), (INSURER, intruder.certificate_der)]).sealed()
    mail = opened(VALID.mail(sealed))
    assert mail.integrity == (I.INTACT, I.RECIPIENT_EMAILS_DIFFER)


def test_several_results_are_all_told() -> None:
    outer = FIELDS.replace(INSURER, "mallory@x.kim.telematik-test")
    content = VALID.signed_head + VALID.signed().replace(b"Hallo", b"Hullo")
    layers = replace(VALID, outer_fields=outer)
    mail = opened(layers.mail(replace(layers, sealed_for=recipients()).sealed(content)))
    assert mail.integrity == (I.CONTENT_DIFFERS, I.HEADERS_DIFFER)


def test_an_opened_mail_is_not_printed() -> None:
    assert PRACTICE not in repr(opened(VALID.mail()))


def test_only_our_own_trouble_comes_out_as_an_exception_of_the_callers_making() -> None:
    class StoreGoneError(UnavailableError):
        code = "test.store-gone"

    def gone(_: WrappedKey) -> bytes:
        raise StoreGoneError("vault does not answer")

    assert opened(VALID.mail(), unwrap=gone).decryption is D.KONNEKTOR_NOT_AVAILABLE


# --- in two steps, without a key (decision 0016) ---


def read(raw: bytes, certificates: list[bytes] | None = None) -> SealedKIMMail | OpenedMail:
    return read_envelope(raw, address=INSURER, certificates=certificates or [insurer().certificate_der])


def test_the_wrapped_key_of_a_mail_is_found_without_any_key_and_opens_it() -> None:
    mail = read(VALID.mail())
    assert isinstance(mail, SealedKIMMail)
    assert mail.wrapped.recipient == issuer_and_serial(insurer().certificate_der)
    mail_opened = open_with(mail, unwrap_by(insurer())(mail.wrapped), trust=trust(), now=NOW)
    assert (mail_opened.intact, mail_opened.inner) == (True, CLIENT_MAIL)


def test_what_no_key_can_help_is_told_before_any_is_asked_for() -> None:
    others = recipients()[1:]
    assert [
        mail.decryption
        for raw in (
            replace(VALID, sealed_for=others, signed_for=others).mail(),
            VALID.mail(b"no CMS"),
            replace(VALID, wrap=ecies).mail(),
        )
        if isinstance(mail := read(raw), OpenedMail)
    ] == [D.KEY_NOT_AVAILABLE, D.WRONG_FORMAT, D.UNSUPPORTED_KEY_TRANSPORT]


def test_a_key_for_a_certificate_that_has_no_rsa_key_is_not_asked_for() -> None:
    modern = insurer("brainpool")

    def wrap(certificate: bytes, key: bytes) -> WrappedKey:
        return replace(Layers().wrap(insurer().certificate_der, key), recipient=issuer_and_serial(certificate))

    to = [(INSURER, modern.certificate_der)]
    mail = read(replace(VALID, signed_for=to, sealed_for=to, wrap=wrap).mail(), [modern.certificate_der])
    assert isinstance(mail, OpenedMail)
    assert mail.decryption is D.WRONG_FORMAT


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        (UnwrapFailedError("padding"), D.WRONG_FORMAT),
        (UnsupportedWrapError("not this key"), D.UNSUPPORTED_KEY_TRANSPORT),
        (KeyMissingError("gone"), D.KONNEKTOR_NOT_AVAILABLE),
        (OverBudgetError("enough"), D.KONNEKTOR_NOT_AVAILABLE),
        (NotAllowedError("who are you"), D.KONNEKTOR_NOT_AVAILABLE),
        (SealBrokenError("damaged"), D.KONNEKTOR_NOT_AVAILABLE),
        (BadRequestError("our own program"), D.KONNEKTOR_NOT_AVAILABLE),
    ],
)
def test_only_a_key_that_was_wrapped_wrongly_is_the_senders_fault(reason: Error, result: D) -> None:
    mail = read(VALID.mail())
    assert isinstance(mail, SealedKIMMail)
    assert open_with(mail, reason, trust=trust(), now=NOW).decryption is result


SEALED_MAIL = VALID.mail()
SIGNED = VALID.signed_head + VALID.signed()


@settings(max_examples=60)
@given(st.data())
def test_damage_to_a_mail_never_raises_and_never_passes(data: st.DataObject) -> None:
    octets = bytearray(SEALED_MAIL)
    for _ in range(data.draw(st.integers(1, 5))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    mail = opened(bytes(octets))
    assert not mail.intact or mail.inner == CLIENT_MAIL


@settings(max_examples=60)
@given(st.data())
def test_damage_below_the_encryption_never_raises_and_never_passes(data: st.DataObject) -> None:
    octets = bytearray(SIGNED)
    for _ in range(data.draw(st.integers(1, 5))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    mail = opened(VALID.mail(VALID.sealed(bytes(octets))))
    assert not mail.intact or mail.inner == CLIENT_MAIL
