"""mail/dsn.py: what we send is what RFC 3464 readers read, and nothing in a mail can forge a report."""

from __future__ import annotations

import email
import email.message
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.mail import dsn
from schleuse.mail.contracts import Action, Notify, Recipient, Report

ARRIVED = datetime(2026, 3, 2, 9, 15, 1, tzinfo=UTC)
A_REPORT = Report(
    message_id="dsn.17@kim.example",
    reporting_host="mail.kim.example",
    to="praxis@arzt.kim.example",
    recipient=Recipient(
        "eau@kasse.kim.example", frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;eau@kasse.kim.example"
    ),
    action=Action.DELIVERED,
    status="2.0.0",
    diagnostic="250 2.0.0 kept",
    arrived_at=ARRIVED,
    created_at=ARRIVED + timedelta(seconds=3),
    envid="QQ314159",
    original_message_id="<abc@arzt.kim.example>",
    headers=b"From: praxis@arzt.kim.example\r\nMessage-ID: <abc@arzt.kim.example>\r\nSubject: KOM-LE-Nachricht\r\n",
)
HOSTILE = "x\r\nBcc: evil@example.com\r\n\r\n--=_\x00\u2028"


def read(report: Report) -> email.message.EmailMessage:
    message = email.message_from_bytes(dsn.build(report), policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


def status_blocks(message: email.message.EmailMessage) -> list[email.message.EmailMessage]:
    part = list(message.iter_parts())[1]
    assert part.get_content_type() == "message/delivery-status"
    blocks = part.get_payload()
    assert isinstance(blocks, list)
    return blocks  # type: ignore[return-value]


def test_the_outer_header_says_report_answer_and_robot() -> None:
    message = read(A_REPORT)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["In-Reply-To"] == "<abc@arzt.kim.example>"
    assert message["Message-ID"] == "<dsn.17@kim.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Date"].datetime == A_REPORT.created_at
    assert message["To"] == "praxis@arzt.kim.example"


def test_pythons_own_reader_finds_every_field_of_rfc_3464() -> None:
    per_message, per_recipient = status_blocks(read(A_REPORT))
    assert dict(per_message.items()) == {
        "Original-Envelope-Id": "QQ314159",
        "Reporting-MTA": "dns; mail.kim.example",
        "Arrival-Date": "Mon, 02 Mar 2026 09:15:01 +0000",
    }
    assert dict(per_recipient.items()) == {
        "Original-Recipient": "rfc822; eau@kasse.kim.example",
        "Final-Recipient": "rfc822; eau@kasse.kim.example",
        "Action": "delivered",
        "Status": "2.0.0",
        "Diagnostic-Code": "smtp; 250 2.0.0 kept",
    }


def test_the_text_for_people_is_german_and_english() -> None:
    text = next(iter(read(A_REPORT).iter_parts())).get_content()
    assert "Postfach des Empfängers" in text
    assert "delivered to the mailbox" in text


def test_only_headers_go_back_whatever_the_caller_passed_as_headers() -> None:
    message = read(replace(A_REPORT, headers=A_REPORT.headers + b"\r\nsecret body\r\n"))
    returned = list(message.iter_parts())[2]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert b"secret body" not in dsn.build(replace(A_REPORT, headers=A_REPORT.headers + b"\r\nsecret body\r\n"))
    assert "Subject: KOM-LE-Nachricht" in returned.get_content()


def test_huge_headers_are_cut_at_a_line() -> None:
    built = dsn.build(replace(A_REPORT, headers=b"X-Padding: 0123456789\r\n" * 10_000))
    assert len(built) < dsn.MAX_RETURNED_HEADERS + 5_000
    assert b"X-Padding: 0123456789\r\n\r\n--=_" in built


@pytest.mark.parametrize("action", [Action.DELIVERED, Action.RELAYED, Action.DELAYED])
def test_the_whole_mail_goes_back_only_for_a_failure(action: Action) -> None:
    whole = A_REPORT.headers + b"\r\nbody\r\n"
    failed = read(replace(A_REPORT, action=Action.FAILED, status="5.1.1", content=whole))
    assert list(failed.iter_parts())[2].get_content_type() == "message/rfc822"
    other = read(replace(A_REPORT, action=action, content=whole))
    assert list(other.iter_parts())[2].get_content_type() == "text/rfc822-headers"


def test_a_delay_says_until_when_we_try() -> None:
    until = ARRIVED + timedelta(days=5)
    report = replace(A_REPORT, action=Action.DELAYED, status="4.4.1", will_retry_until=until)
    assert status_blocks(read(report))[1]["Will-Retry-Until"] == "Sat, 07 Mar 2026 09:15:01 +0000"
    assert dsn.parse(dsn.build(report))[0].will_retry_until == until


def test_no_field_can_smuggle_a_header_a_part_or_a_recipient() -> None:
    report = replace(
        A_REPORT,
        message_id=HOSTILE,
        reporting_host=HOSTILE,
        to=HOSTILE,
        recipient=Recipient(HOSTILE, orcpt=f"rfc822;{HOSTILE}"),
        status=HOSTILE,
        diagnostic=HOSTILE,
        envid=HOSTILE,
        original_message_id=HOSTILE,
        action=Action.FAILED,
    )
    message = read(report)
    assert message["Bcc"] is None
    assert len(list(message.iter_parts())) == 3
    assert len(status_blocks(message)) == 2
    assert not any("bcc" in (key.lower() for key in block) for block in status_blocks(message))


def test_returned_headers_cannot_close_our_report() -> None:
    boundary = dsn.build(A_REPORT).split(b'boundary="')[1].split(b'"')[0]
    forged = replace(A_REPORT, headers=b"X: y\r\n--" + boundary + b"--\r\n")
    assert len(list(read(forged).iter_parts())) == 3


def test_the_same_report_is_the_same_bytes() -> None:
    assert dsn.build(A_REPORT) == dsn.build(replace(A_REPORT))


def test_line_ends_are_crlf_throughout_and_lines_are_short_enough() -> None:
    built = dsn.build(replace(A_REPORT, headers=b"A: b\nC: d\re: f\n", diagnostic="550 " + "word " * 500))
    assert b"\n" not in built.replace(b"\r\n", b"")
    assert b"\r" not in built.replace(b"\r\n", b"")
    assert max(map(len, built.split(b"\r\n"))) <= 998
    assert built.replace(b"\xff", b"").isascii()


def test_a_non_ascii_address_is_written_as_rfc_6533_says_and_read_back() -> None:
    report = replace(A_REPORT, recipient=Recipient("jürgen@größe.example"), to="jürgen@größe.example")
    assert b"utf-8; j\\x{FC}rgen@gr\\x{F6}\\x{DF}e.example" in dsn.build(report)
    assert dsn.parse(dsn.build(report))[0].recipient == "jürgen@größe.example"
    assert dsn.envelope(report).smtputf8


def test_a_report_travels_without_a_sender_and_asks_for_no_report() -> None:
    mail = dsn.envelope(A_REPORT)
    assert mail.sender == ""
    assert [(r.address, r.notify) for r in mail.recipients] == [("praxis@arzt.kim.example", frozenset({Notify.NEVER}))]
    assert not mail.smtputf8


@pytest.mark.parametrize(
    ("notify", "reported"),
    [
        (set(), {Action.FAILED, Action.DELAYED}),
        ({Notify.NEVER}, set()),
        ({Notify.SUCCESS, Notify.FAILURE}, {Action.DELIVERED, Action.RELAYED, Action.FAILED}),
        ({Notify.DELAY}, {Action.DELAYED}),
    ],
)
def test_reported_is_what_was_asked_for(notify: set[Notify], reported: set[Action]) -> None:
    recipient = Recipient("eau@kasse.kim.example", frozenset(notify))
    assert {action for action in Action if dsn.wanted(action, recipient, "praxis@arzt.kim.example")} == reported


@given(st.frozensets(st.sampled_from(Notify)), st.sampled_from(Action))
def test_nobody_reports_on_a_report(notify: frozenset[Notify], action: Action) -> None:
    assert not dsn.wanted(action, Recipient("eau@kasse.kim.example", notify), "")


WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
LOCAL = st.from_regex(r"[a-z0-9.+_-]{1,40}", fullmatch=True)


@given(
    action=st.sampled_from(Action),
    local=LOCAL,
    envid=st.none() | WORDS,
    diagnostic=st.none() | st.lists(WORDS, min_size=1, max_size=10).map(" ".join),
    arrived=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(
        lambda d: d.replace(tzinfo=UTC, microsecond=0)
    ),
)
def test_what_is_built_is_what_is_parsed(
    action: Action, local: str, envid: str | None, diagnostic: str | None, arrived: datetime
) -> None:
    address = f"{local}@kasse.kim.example"
    report = replace(
        A_REPORT,
        action=action,
        recipient=Recipient(address, orcpt=f"rfc822;{address}"),
        envid=envid,
        diagnostic=diagnostic,
        arrived_at=arrived,
    )
    assert dsn.parse(dsn.build(report)) == [
        dsn.Status(
            recipient=address,
            action=action,
            status="2.0.0",
            original_message_id="abc@arzt.kim.example",
            original_recipient=address,
            diagnostic=diagnostic,
            arrived_at=arrived,
            created_at=A_REPORT.created_at,
            envid=envid,
            reporting_mta="mail.kim.example",
        )
    ]


@given(local=LOCAL, envid=WORDS, diagnostic=st.lists(WORDS, min_size=1, max_size=12).map(" ".join))
def test_what_is_built_is_what_pythons_own_reader_finds(local: str, envid: str, diagnostic: str) -> None:
    recipient = Recipient(f"{local}@kasse.kim.example")
    report = replace(A_REPORT, recipient=recipient, envid=envid, diagnostic=diagnostic)
    message = email.message_from_bytes(dsn.build(report), policy=email.policy.compat32)
    blocks = message.get_payload()[1].get_payload()  # type: ignore[index,union-attr]
    fields = {name: value.replace("\r\n", "") for block in blocks for name, value in block.items()}  # type: ignore[union-attr]
    assert fields["Final-Recipient"] == f"rfc822; {recipient.address}"
    assert fields["Original-Envelope-Id"] == envid
    assert fields["Diagnostic-Code"] == f"smtp; {diagnostic}"


@given(st.text(), st.text(), st.text(), st.binary())
def test_no_content_of_a_report_makes_building_or_reading_it_fail(a: str, b: str, c: str, raw: bytes) -> None:
    report = replace(A_REPORT, to=a, diagnostic=b, envid=c, recipient=Recipient(b, orcpt=c), headers=raw)
    message = read(report)
    assert len(list(message.iter_parts())) == 3
    assert len(dsn.parse(dsn.build(report))) == 1
