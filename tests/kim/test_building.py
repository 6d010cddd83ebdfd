from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kim.layers import CLIENT_MAIL, recipients
from tests.mail.smime.samples import INSURER, NOW, PRACTICE, insurer, practice, trust, unwrap_by

from schleuse.errors import MalformedError, RefusedError
from schleuse.kim.building import MAX_CLIENT_MAIL, BadClientMailError, build_kim_mail, canonical
from schleuse.kim.message import OpenedMail, open_kim_mail
from schleuse.kim.pki import Algorithm
from schleuse.mail.head import Head, parse, split
from schleuse.mail.parts import decode_base64
from schleuse.mail.smime.envelope import parse_envelope
from schleuse.mail.smime.signing import Encoding
from schleuse.vault.contracts import UnsupportedWrapError

SENDER = (PRACTICE, practice(kind="enc").certificate_der)


def build(inner: bytes = CLIENT_MAIL, *, message_id: str | None = None, cm_version: str | None = None) -> bytes:
    return build_kim_mail(
        inner,
        signer=practice("p256").signer(),
        recipients=recipients()[:1],
        sender=SENDER,
        date=NOW,
        message_id=message_id,
        cm_version=cm_version,
    )


def opened(raw: bytes) -> OpenedMail:
    return open_kim_mail(
        raw,
        address=INSURER,
        certificates=[insurer().certificate_der],
        unwrap=unwrap_by(insurer()),
        trust=trust(),
        now=NOW,
    )


def outer(raw: bytes) -> Head:
    return parse(split(raw)[0])


@pytest.mark.parametrize("encoding", ["der", "ber"])
@pytest.mark.parametrize("algorithm", ["rsa", "p256", "brainpool"])
def test_what_was_built_opens_intact(algorithm: Algorithm, encoding: Encoding) -> None:
    raw = build_kim_mail(
        CLIENT_MAIL,
        signer=practice(algorithm).signer(),
        recipients=recipients()[:1],
        sender=SENDER,
        date=NOW,
        encoding=encoding,
    )
    mail = opened(raw)
    assert (mail.intact, mail.inner, mail.signing_time) == (True, CLIENT_MAIL, NOW)


def test_the_sender_can_open_it_too() -> None:
    own = practice(kind="enc")
    mail = open_kim_mail(
        build(), address=PRACTICE, certificates=[own.certificate_der], unwrap=unwrap_by(own), trust=trust(), now=NOW
    )
    assert mail.intact


def test_the_outer_header_is_that_of_kim_md_5_1() -> None:
    inner = CLIENT_MAIL.replace(b"Subject", b"X-KIM-Dienstkennung: eAU;Lieferung;\r\n V1.2\r\nBcc: x@y.z\r\nSubject", 1)
    head = outer(build(inner, cm_version="Sch_1.0.0"))
    assert head.get("subject") == "KOM-LE-Nachricht"
    assert head.get("x-kom-le-version") == "1.0"
    assert head.get("x-kim-dienstkennung") == "eAU;Lieferung; V1.2"
    assert head.get("x-kim-cmversion") == "Sch_1.0.0"
    assert head.get("bcc") is None
    for name in ("from", "to", "date", "message-id"):
        assert head.all(name) == parse(split(CLIENT_MAIL)[0]).all(name)
    type_, parameters = head.content_type()
    assert (type_, parameters["smime-type"]) == ("application/pkcs7-mime", "authenticated-enveloped-data")


def test_the_wire_has_crlf_only_and_short_lines() -> None:
    raw = build(CLIENT_MAIL.replace(b"\r\n", b"\n"))
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(len(line) for line in raw.split(b"\r\n")) <= 78
    assert message_from_bytes(raw, policy=default).get_content_type() == "application/pkcs7-mime"
    assert opened(raw).inner == CLIENT_MAIL


def test_date_and_message_id_are_filled_in_outside_and_inside() -> None:
    bare = f"From: {PRACTICE}\r\nTo: {INSURER}\r\n\r\nHallo\r\n".encode()
    raw = build(bare, message_id="<2@b.c>")
    mail = opened(raw)
    assert mail.intact
    assert mail.inner is not None
    inside = parse(split(mail.inner)[0])
    assert outer(raw).get("message-id") == inside.get("message-id") == "<2@b.c>"
    assert outer(raw).date() == inside.date() == NOW


def test_an_inner_message_id_and_date_win() -> None:
    head = outer(build(message_id="<2@b.c>"))
    assert head.get("message-id") == "<1@b.c>"


def test_a_sender_who_writes_to_himself_gets_one_key() -> None:
    raw = build_kim_mail(CLIENT_MAIL, signer=practice("p256").signer(), recipients=[SENDER], sender=SENDER, date=NOW)
    assert len(parse_envelope(decode_base64(split(raw)[1])).recipients) == 1


def test_two_mailboxes_with_one_certificate_each_get_a_pair() -> None:
    """One pair for each recipient info and the other way round (kim.md § 7.3)."""
    second = ("zweite@kasse.kim.telematik-test", insurer().certificate_der)
    raw = build_kim_mail(
        CLIENT_MAIL, signer=practice("p256").signer(), recipients=[*recipients()[:1], second], sender=SENDER, date=NOW
    )
    assert opened(raw).intact


@pytest.mark.parametrize(
    "inner",
    [
        CLIENT_MAIL.replace(b"Hallo", b"a\rb"),
        CLIENT_MAIL.replace(b"Hallo", b"a\nb"),
        CLIENT_MAIL.replace(b"\r\n", b"\n"),
    ],
)
def test_line_ends_become_canonical(inner: bytes) -> None:
    made = canonical(inner)
    assert made.count(b"\n") == made.count(b"\r\n") == made.count(b"\r")


@given(st.text(alphabet="ab\r\n", max_size=40).map(str.encode))
def test_canonical_line_ends_stay_as_they_are(body: bytes) -> None:
    once = canonical(b"From: x\r\n\r\n" + body)
    assert canonical(once) == once


@pytest.mark.parametrize(
    "inner",
    [
        CLIENT_MAIL.replace(b"EEAU0_x", b"x\rBcc: mallory@x.kim.telematik-test"),
        CLIENT_MAIL.replace(b"Subject", b"X-KIM-Support: a\rBcc: mallory@x.y\r\nSubject", 1),
        CLIENT_MAIL.replace(b"Subject", f"From: {PRACTICE}\r\nSubject".encode(), 1),
        CLIENT_MAIL.replace(b"Subject", b"Message-ID: <2@b.c>\r\nSubject", 1),
        CLIENT_MAIL.replace(b"From", b"X-From", 1),
        b"no header\r\n\r\n",
        b"",
    ],
)
def test_a_client_mail_that_could_be_read_in_two_ways_is_not_sent(inner: bytes) -> None:
    with pytest.raises(MalformedError):
        build(inner)


@pytest.mark.parametrize("message_id", [None, "", "2@b.c", "<2@b.c>\r\nBcc: x", "<2 3@b.c>", "<a@b@c>"])
def test_a_message_id_that_is_none_is_not_filled_in(message_id: str | None) -> None:
    with pytest.raises(BadClientMailError):
        build(CLIENT_MAIL.replace(b"Message-ID", b"X-Old-ID"), message_id=message_id)


def test_a_version_cannot_smuggle_a_header_in() -> None:
    with pytest.raises(BadClientMailError):
        build(cm_version="1\r\nBcc: x@y.z")


@pytest.mark.parametrize("address", ["a@b.example.org", "a@b.kim.telematik\r\nBcc: x", ""])
def test_an_address_outside_kim_gets_no_key(address: str) -> None:
    with pytest.raises(MalformedError):
        build_kim_mail(
            CLIENT_MAIL,
            signer=practice("p256").signer(),
            recipients=[(address, insurer().certificate_der)],
            sender=SENDER,
            date=NOW,
        )


def test_an_ec_recipient_is_said_to_be_unsupported() -> None:
    with pytest.raises(UnsupportedWrapError):
        build_kim_mail(
            CLIENT_MAIL,
            signer=practice("p256").signer(),
            recipients=[(INSURER, insurer("brainpool").certificate_der)],
            sender=SENDER,
            date=NOW,
        )


def test_what_needs_the_kas_is_refused() -> None:
    with pytest.raises(RefusedError):
        build(CLIENT_MAIL + bytes(MAX_CLIENT_MAIL))
    with pytest.raises(RefusedError):
        build(CLIENT_MAIL + b"--x\r\nContent-Disposition: X-KAS\r\n")


def test_signing_time_and_filled_in_date_come_from_the_argument() -> None:
    later = NOW + timedelta(hours=1)
    bare = CLIENT_MAIL.replace(b"Date: Mon, 02 Mar 2026 11:30:00 +0100\r\n", b"")
    raw = build_kim_mail(bare, signer=practice("p256").signer(), recipients=recipients()[:1], sender=SENDER, date=later)
    mail = opened(raw)
    assert mail.signing_time == later
    assert outer(raw).date() == later
