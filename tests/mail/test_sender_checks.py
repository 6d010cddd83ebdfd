from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.head import BadHeadError
from schleuse.mail.sender_checks import BadOriginatorError, check_originators, check_sender
from schleuse.mail.smtp_replies import SenderNotYoursError

ME = "praxis@a.kim.telematik"
SUFFIX = ".kim.telematik"
MAIL = Mail(
    sender=ME,
    recipients=(Recipient("kasse@b.kim.telematik"),),
    content=b"",
    accepted_at=datetime(2026, 3, 2, tzinfo=UTC),
    user=ME,
)


def judged(header: str) -> type | None:
    content = f"Received: from x\r\n{header}\r\nSubject: KOM-LE-Nachricht\r\n\r\nbody\r\n".encode()
    error = check_originators(replace(MAIL, content=content), SUFFIX)
    return None if error is None else type(error)


def test_the_account_must_be_the_reverse_path() -> None:
    assert check_sender(ME, ME.upper()) is None
    assert isinstance(check_sender(ME, "other@a.kim.telematik"), SenderNotYoursError)
    assert isinstance(check_sender(ME, ""), SenderNotYoursError)
    assert check_sender(None, "anybody@x.test") is None


@pytest.mark.parametrize(
    "header",
    [
        f"From: {ME}",
        f"From: <{ME.upper()}>",
        f"From: Dr. Müller <{ME}>",
        f'From: "Müller, Dr." <{ME}>',
        f'From: "a \\" b" Praxis < {ME} >',
        f"From: =?utf-8?q?M=C3=BCller?=\r\n <{ME}>",
        f"From: {ME}, Zweiter <{ME}>",
        f"From: {ME}\r\nSender: Praxis <{ME}>",
        f"From: {ME}\r\nReply-To: a@x.kim.telematik, B <b@Y.KIM.telematik>",
    ],
)
def test_the_own_address_passes_in_all_spellings(header: str) -> None:
    assert judged(header) is None


@pytest.mark.parametrize(
    "header",
    [
        "From: other@a.kim.telematik",
        f'From: "{ME}" <other@a.kim.telematik>',
        f"From: {ME}, other@a.kim.telematik",
        f"From: {ME}\r\nSender: other@a.kim.telematik",
        f"From: {ME}\r\nReply-To: a@gmail.test",
        f"From: {ME}\r\nReply-To: a@x.kim.telematik.evil.test",
        f"From: {ME}\r\nReply-To: a@x.kim.telematik, b@y.test",
    ],
)
def test_a_foreign_address_is_refused(header: str) -> None:
    assert judged(header) is SenderNotYoursError


@pytest.mark.parametrize(
    "header",
    [
        "To: x@a.kim.telematik",
        f"From: {ME}\r\nFrom: other@a.kim.telematik",
        f"From: {ME}\r\nSender: {ME}\r\nSender: {ME}",
        "From:",
        "From: nobody",
        f"From: {ME} <other@x.test> {ME}",
        f"From: {ME} (comment)",
        f"From: {ME},",
        f"From: group: {ME};",
        f"From: <{ME}",
        f"From: {ME} {ME}",
        f'From: "open <{ME}>',
        f"From: {'a' * 5000} <{ME}>",
        f"From: {ME}\r\nReply-To: nobody",
    ],
)
def test_what_could_be_understood_in_two_ways_is_refused(header: str) -> None:
    assert judged(header) is BadOriginatorError


def test_a_header_that_is_none_is_refused() -> None:
    error = check_originators(replace(MAIL, content=b"no header at all\r\n\r\nbody\r\n"), SUFFIX)
    assert isinstance(error, BadHeadError)


def test_a_user_may_forward_a_failed_mail_to_himself() -> None:
    foreign = replace(MAIL, content=b"From: other@x.test\r\n\r\n", recipients=(Recipient(ME.upper()),))
    assert check_originators(foreign, SUFFIX) is None
    two = replace(foreign, recipients=(Recipient(ME), Recipient("b@x.kim.telematik")))
    assert isinstance(check_originators(two, SUFFIX), SenderNotYoursError)


@given(st.text(alphabet=' "\\<>@,;:()[]ab.\t', max_size=200))
def test_hostile_fields_are_judged_and_never_raise(value: str) -> None:
    judged(f"From: {value}")


@pytest.mark.parametrize("piece", [" ", '"a" ', "a ", '"', "<", "\\", "a@", ",", '"\\"'])
def test_long_hostile_fields_cost_linear_time(piece: str) -> None:
    assert judged(f"From: {piece * (4000 // len(piece))}") is not None  # a slow pattern would hang here
