"""mail/dsn_parse.py: reports of other servers, as odd as they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.mail.contracts import Action
from schleuse.mail.dsn_parse import MAX_RECIPIENTS, parse, parse_date

AN_ODD_REPORT = """\
Date: Di, 05 M\u00e4r 2024 12:34:56 +0100
In-Reply-To: <outer-1@praxis.example>
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="==b=="

--==b==
Content-Type: text/plain; charset=utf-8

Hallo
--==b==
Content-Type: message/delivery-status

Reporting-MTA: dns;mail.kasse.example
Arrival-Date: Di, 05 M\u00e4r 2024 12:34:50 +0100

Final-Recipient: RFC822; <eau@kasse.example>
Action: Failed (after many tries)
Status: 4.0.0
Diagnostic-Code: smtp; 451 4.0.0
   try
\tagain

Final-Recipient: rfc822;zweite@kasse.example
Status: 5.1.1 (unknown)

--==b==
Content-Type: text/rfc822-headers

Message-ID: <inner@praxis.example>

--==b==--
"""


def test_a_german_month_an_odd_status_and_comments_are_read() -> None:
    first, second = parse(AN_ODD_REPORT.encode())
    assert (first.recipient, first.action, first.status) == ("eau@kasse.example", Action.FAILED, "4.0.0")
    assert first.arrived_at == datetime(2024, 3, 5, 11, 34, 50, tzinfo=UTC)
    assert first.created_at == datetime(2024, 3, 5, 11, 34, 56, tzinfo=UTC)
    assert first.diagnostic == "451 4.0.0 try again"
    assert first.original_message_id == "outer-1@praxis.example"
    assert first.reporting_mta == "mail.kasse.example"
    assert (second.recipient, second.action, second.status) == ("zweite@kasse.example", Action.FAILED, "5.1.1")


def test_latin_1_and_crlf_make_no_difference() -> None:
    assert parse(AN_ODD_REPORT.replace("\n", "\r\n").encode("latin-1")) == parse(AN_ODD_REPORT.encode())


def test_without_in_reply_to_the_returned_header_names_the_mail() -> None:
    raw = AN_ODD_REPORT.replace("In-Reply-To: <outer-1@praxis.example>\n", "")
    assert parse(raw.encode())[0].original_message_id == "inner@praxis.example"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_an_encoded_report_part_is_read(encoding: str) -> None:
    import base64

    head, _, rest = AN_ODD_REPORT.partition("Content-Type: message/delivery-status\n\n")
    block, _, tail = rest.partition("--==b==")
    coded = base64.encodebytes(block.encode()).decode() if encoding == "base64" else block.replace("=", "=3D")
    raw = (
        f"{head}Content-Type: message/delivery-status\nContent-Transfer-Encoding: {encoding}\n\n{coded}\n--==b=={tail}"
    )
    assert [s.status for s in parse(raw.encode())] == ["4.0.0", "5.1.1"]


def test_an_unknown_action_is_not_guessed() -> None:
    raw = AN_ODD_REPORT.replace("Action: Failed (after many tries)", "Action: expanded")
    assert parse(raw.encode())[0].action is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"Subject: hello\r\n\r\nno report\r\n",
        b"Content-Type: multipart/report; boundary=x\r\n\r\n",
        b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\nAction:",
    ],
)
def test_what_is_no_report_is_an_empty_list(raw: bytes) -> None:
    assert parse(raw) == []


@pytest.mark.parametrize(
    ("text", "month"),
    [("5. M\u00e4rz 2024 12:00 MEZ", 3), ("5 Mai 2024 12:00:00 MEZ", 5), ("05 Okt. 2024 12:00 +0100", 10),
     ("Do, 5 Dez 2024 12:00 CET", 12), ("5 M?r 2024 12:00 +0100", 3), ("Tue, 5 Mar 2024 12:00 +0100", 3)],
)  # fmt: skip
def test_dates_in_two_languages(text: str, month: int) -> None:
    assert parse_date(text) == datetime(2024, month, 5, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    "text", [None, "", "gestern", "30 Feb 2024 12:00 +0100", "1 Foo 2024 12:00", "1 Jan 2024 25:00"]
)
def test_a_date_that_is_none_is_none(text: str | None) -> None:
    assert parse_date(text) is None


def test_a_report_with_a_million_lines_stays_bounded() -> None:
    head = b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\n"
    assert len(parse(head + b"Action: failed\r\n\r\n" * 1_000_000)) <= MAX_RECIPIENTS + 1
    assert len(parse(head + b"Action: failed\r\n" + b" x\r\n" * 1_000_000)) == 1


PIECES = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/report; boundary=x\r\n",
            b"Content-Type: message/delivery-status\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Transfer-Encoding: quoted-printable\r\n",
            b"\r\n",
            b"--x\r\n",
            b"--x--",
            b"Action: ",
            b"Status: 9.9.9\r\n",
            b"Final-Recipient: utf-8; \\x{D800}\\x{FFFFFF}\r\n",
            b"Arrival-Date: 99 Jan 9999 99:99 +9999\r\n",
            b"Date: 1 Jan 0000 00:00 -2359\r\n",
            b": \r\n",
        ]
    )
    | st.binary(max_size=20),
    max_size=30,
).map(b"".join)


@given(PIECES)
def test_hostile_bytes_never_raise(raw: bytes) -> None:
    for status in parse(raw):
        str(status.recipient).encode()
