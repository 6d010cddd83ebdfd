"""No mail hides inside another, and hostile bytes never raise (RFC 5321 § 4.1.1.4, VU#302671)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mail.smtp_client import RELAY, SUBMISSION, Client, in_data, relay

SECOND = b"MAIL FROM:<boss@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nFrom: boss@x.test\r\n\r\nPay!\r\n.\r\n"

#: Ends of data that some server somewhere has taken for one.
FALSE_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
]


@pytest.mark.parametrize("false_end", FALSE_ENDS)
def test_no_false_end_of_data_lets_a_second_mail_through(false_end: bytes) -> None:
    stream = b"From: a@x.test\r\n\r\nHallo" + false_end + SECOND
    for feed in (Client.send, Client.byte_by_byte):
        client = in_data(relay())
        feed(client, stream)
        assert client.mails == []
        assert client.codes[-1] == "554"
        assert client.said.endswith(b"554 5.6.0 Line ends other than CRLF, or NUL, in the content\r\n")
        assert client.closed


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NOOP\r", b"NO\rOP", b"\n", b"NOOP\x00", b"NOOP\nMAIL FROM:<a@x.test>", b"NOOP\r\r"]
)
def test_a_command_with_another_line_end_closes_the_session(line: bytes) -> None:
    for feed in (Client.send, Client.byte_by_byte):
        client = relay()
        feed(client, line + b"\r\n" + SECOND)
        assert client.codes[-1] == "500"
        assert client.closed
        assert client.mails == []


def test_an_end_of_data_in_pieces_is_found() -> None:
    for cut in range(1, 6):
        client = in_data(relay())
        whole = b"x\r\n.\r\n"
        client.send(whole[:cut])
        client.send(whole[cut:])
        assert len(client.mails) == 1


def test_what_follows_the_end_of_data_is_a_command_and_no_content() -> None:
    client = in_data(relay())
    client.send(b"x\r\n.\r\nNOOP\r\n")
    assert client.codes[-2:] == ["250", "250"]
    assert client.mails[0].content.endswith(b"+0000\r\nx\r\n")


@pytest.mark.parametrize("before", [b"", b".", b"a.b.c", b"x.y\r\n" * 100, b"..x\r\n" * 100, b"." * 200])
def test_however_many_dots_come_first_the_end_is_found_and_lines_are_unstuffed(before: bytes) -> None:
    for tail in (b"", b"\r\n", b"\r\n..", b"\r\n...\r\n"):
        for feed in (Client.send, Client.byte_by_byte):
            client = in_data(relay())
            feed(client, b"x" + before + tail + b"\r\n.\r\n")
            expected = (b"x" + before + tail).replace(b"\r\n.", b"\r\n") + b"\r\n"
            assert client.mails[0].content.split(b"+0000\r\n", 1)[1] == expected


PIECES = st.sampled_from(
    [
        b"EHLO a.test\r\n",
        b"HELO a.test\r\n",
        b"MAIL FROM:<a@x.test>\r\n",
        b"MAIL FROM:<a@x.test> SIZE=99999\r\n",
        b"MAIL FROM:<> RET=FULL ENVID=x\r\n",
        b"RCPT TO:<b@x.test>\r\n",
        b"RCPT TO:<b@x.test> NOTIFY=NEVER\r\n",
        b"DATA\r\n",
        b"DATA\r\n.\r\n",
        b"From: a@x.test\r\n\r\n",
        b"text\r\n",
        b"..\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH PLAIN AHByYXhpc0BhLmtpbS50ZWxlbWF0aWsAZ2VoZWlt\r\n",
        b"AGEAYg==\r\n",
        b"*\r\n",
        b"QUIT\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"\x00",
        b"x" * 700,
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=12), max_size=30).map(b"".join)
SERVERS = st.sampled_from([RELAY, SUBMISSION, replace(RELAY, max_size=1000)])


@settings(max_examples=300, deadline=None)
@given(stream=STREAMS, server=SERVERS, tls=st.booleans(), data=st.data())
def test_how_the_bytes_arrive_does_not_matter(stream: bytes, server: object, tls: bool, data: st.DataObject) -> None:
    at_once = Client(settings=server, tls=tls)  # type: ignore[arg-type]
    at_once.send(stream)
    if at_once.upgrades:  # what is behind STARTTLS is lost or not, as it arrives
        return
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    in_pieces = Client(settings=server, tls=tls)  # type: ignore[arg-type]
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        in_pieces.send(stream[start:end])
    byte_by_byte = Client(settings=server, tls=tls)  # type: ignore[arg-type]
    byte_by_byte.byte_by_byte(stream)
    assert at_once.said == in_pieces.said == byte_by_byte.said
    for other in (in_pieces, byte_by_byte):
        assert [mail.content for mail in other.mails] == [mail.content for mail in at_once.mails]
        assert other.closed == at_once.closed


@settings(max_examples=300, deadline=None)
@given(stream=st.binary(max_size=300) | STREAMS, server=SERVERS, tls=st.booleans())
def test_hostile_bytes_never_raise_and_deliver_nothing_without_an_end(stream: bytes, server: object, tls: bool) -> None:
    client = Client(settings=server, tls=tls)  # type: ignore[arg-type]
    client.send(stream)
    assert len(client.mails) <= stream.count(b"\r\n.\r\n")
    for mail in client.mails:
        lines = mail.content.count(b"\r\n")
        assert mail.content.count(b"\r") == mail.content.count(b"\n") == lines


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a", b".", b"..", b"", b".a", b"a."]), max_size=8))
def test_stuffing_and_unstuffing_give_back_the_mail(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    client = in_data(relay())
    client.send(stuffed + b".\r\n")
    assert client.mails[0].content.split(b"+0000\r\n", 1)[1] == content
