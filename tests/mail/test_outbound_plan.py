"""mail/retry.py, outbound_plan.py and outbound_routes.py: what is decided without a socket."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.mail import outbound_plan as plan
from schleuse.mail.contracts import Notify, Outgoing, Recipient
from schleuse.mail.outbound_routes import BadRouteError, Route, Routes, TLSMode
from schleuse.mail.retry import Schedule, delay_is_due, next_attempt
from schleuse.mail.smtp_syntax import xtext_decode

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ALL = {"size": "1000000", "8bitmime": "", "smtputf8": "", "dsn": ""}
A_MAIL = Outgoing(
    id=1,
    sender="praxis@arzt.example",
    recipient=Recipient("eau@kasse.example", frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;eau+1@kasse.example"),
    accepted_at=NOW,
    attempts=0,
    message_id="<1@arzt.example>",
    ret="HDRS",
    envid="a=b+c",
    smtputf8=False,
    content=b"Subject: x\r\n\r\nbody\r\n",
)
SCHEDULE = Schedule()


def test_waits_double_from_a_minute_to_an_hour() -> None:
    waits = [
        next_attempt(SCHEDULE, attempts=n, accepted_at=NOW, now=NOW, jitter=0.5) for n in (0, 1, 2, 5, 6, 7, 10_000)
    ]
    minutes = [(at - NOW) / timedelta(minutes=1) for at in waits if at]
    assert minutes == pytest.approx([1, 2, 4, 32, 60, 60, 60])


def test_the_last_attempt_is_at_the_end_and_then_it_has_failed() -> None:
    end = NOW + timedelta(days=5)
    almost = end - timedelta(minutes=1)
    assert next_attempt(SCHEDULE, attempts=100, accepted_at=NOW, now=almost, jitter=0.5) == end
    assert next_attempt(SCHEDULE, attempts=101, accepted_at=NOW, now=end, jitter=0.5) is None


@given(st.integers(0, 10**9), st.timedeltas(timedelta(0), timedelta(days=6)), st.floats(0, 1))
def test_the_next_attempt_is_later_and_not_after_the_end(attempts: int, age: timedelta, jitter: float) -> None:
    now = NOW + age
    at = next_attempt(SCHEDULE, attempts=attempts, accepted_at=NOW, now=now, jitter=jitter)
    assert (at is None) == (age >= SCHEDULE.give_up_after)
    assert at is None or now < at <= NOW + SCHEDULE.give_up_after


def test_a_delay_is_due_after_four_hours() -> None:
    assert not delay_is_due(SCHEDULE, accepted_at=NOW, now=NOW + timedelta(hours=3, minutes=59))
    assert delay_is_due(SCHEDULE, accepted_at=NOW, now=NOW + timedelta(hours=4))


def test_dsn_parameters_pass_exactly_to_a_host_that_speaks_dsn() -> None:
    assert plan.envelope(A_MAIL, ALL) == plan.Envelope(
        b"FROM:<praxis@arzt.example> SIZE=20 RET=HDRS ENVID=a+3Db+2Bc",
        b"TO:<eau@kasse.example> NOTIFY=FAILURE,SUCCESS ORCPT=rfc822;eau+2B1@kasse.example",
    )


def test_a_host_that_offers_nothing_hears_nothing_new() -> None:
    assert plan.envelope(A_MAIL, {}) == plan.Envelope(b"FROM:<praxis@arzt.example>", b"TO:<eau@kasse.example>")


def test_a_report_goes_out_without_a_sender() -> None:
    sent = plan.envelope(replace(A_MAIL, sender="", ret=None, envid=None, recipient=Recipient("a@b.example")), ALL)
    assert sent == plan.Envelope(b"FROM:<> SIZE=20", b"TO:<a@b.example>")


@pytest.mark.parametrize(
    ("mail", "extensions", "status"),
    [
        (replace(A_MAIL, content=b"s: x\r\n\r\n" + b"y" * 100), {"size": "99"}, "5.3.4"),
        (replace(A_MAIL, content="s: x\r\n\r\nä".encode()), {}, "5.6.3"),
        (replace(A_MAIL, content="s: ä\r\n\r\n".encode()), {"8bitmime": ""}, "5.6.7"),
        (replace(A_MAIL, recipient=Recipient("jürgen@kasse.example")), {"8bitmime": ""}, "5.6.7"),
        (replace(A_MAIL, recipient=Recipient("a@b>\r\nDATA")), ALL, "5.1.3"),
        (replace(A_MAIL, sender="a@b> SIZE=1"), ALL, "5.1.3"),
    ],
)
def test_what_the_next_host_cannot_take_is_not_sent(mail: Outgoing, extensions: dict[str, str], status: str) -> None:
    refused = plan.envelope(mail, extensions)
    assert isinstance(refused, plan.Never)
    assert refused.status == status


@pytest.mark.parametrize("size", ["", "0", "viel", "1000000", "9" * 40])
def test_an_odd_size_limit_stops_nothing(size: str) -> None:
    assert isinstance(plan.envelope(A_MAIL, {"size": size}), plan.Envelope)


def test_eight_bit_and_utf8_are_announced_when_needed() -> None:
    sent = plan.envelope(replace(A_MAIL, content="s: ä\r\n\r\n".encode(), ret=None, envid=None), ALL)
    assert isinstance(sent, plan.Envelope)
    assert sent.mail == b"FROM:<praxis@arzt.example> SIZE=9 BODY=8BITMIME SMTPUTF8"
    # The flag alone, on a mail that is all ASCII, must not make it undeliverable.
    assert isinstance(plan.envelope(replace(A_MAIL, smtputf8=True), {}), plan.Envelope)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=80))
def test_xtext_is_read_back_by_our_own_server(text: str) -> None:
    assert xtext_decode(plan.xtext(text)) == text


@given(st.text())
def test_xtext_can_add_no_parameter(text: str) -> None:
    assert not {*plan.xtext(text)} & {*" \r\n=\x00"}


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (450, "4.2.0 mailbox busy", plan.Later("450 4.2.0 mailbox busy")),
        (452, "full", plan.Later("452 full")),
        (550, "5.1.1 unknown\n5.1.1 really", plan.Never("550 5.1.1 unknown 5.1.1 really", "5.1.1")),
        (554, "no", plan.Never("554 no", "5.0.0")),
        (550, "4.7.1 contradiction", plan.Never("550 4.7.1 contradiction", "5.0.0")),
        (530, "5.7.0 log in first", plan.Later("530 5.7.0 log in first", plan.Trouble.SESSION_REFUSED)),
        (503, "bad sequence", plan.Later("503 bad sequence", plan.Trouble.SESSION_REFUSED)),
        (200, "what", plan.Later("200 what")),
        (-1, "garbage", plan.Later("-1 garbage")),
    ],
)
def test_a_refusal_is_never_only_when_it_is_about_the_mail(code: int, text: str, expected: plan.Outcome) -> None:
    assert plan.refusal(code, text) == expected


@given(st.integers(), st.text())
def test_a_reply_is_one_bounded_line(code: int, text: str) -> None:
    line = plan.reply_line(code, text + "\r\nx")
    assert "\n" not in line
    assert len(line) <= plan.MAX_REPLY
    line.encode()


def received(by: str, n: int) -> bytes:
    return f"Received: from x\r\n\tby {by} with ESMTPS;\r\n\tMon, 02 Mar 2026 09:00:00 +0000\r\n".encode() * n


@pytest.mark.parametrize(
    ("header", "circle"),
    [
        (received("mail.kim.example", 1), False),
        (received("mail.kim.example", 3), False),
        (received("mail.kim.example", 4), True),
        (received("other.example", 100), False),
        (received("other.example", 101), True),
        (received("mail.kim.example.evil", 50), False),
        (b"Subject: Received:\r\n by mail.kim.example ;\r\n" * 9, False),
    ],
)
def test_a_circle_is_seen_in_the_received_fields(header: bytes, circle: bool) -> None:
    assert plan.runs_in_a_circle(header + b"\r\n" + received("mail.kim.example", 99), "mail.kim.example") is circle


def test_a_domain_has_its_route_and_all_others_the_smarthost() -> None:
    special, smart = Route("a.example"), Route("smart.example")
    routes = Routes({"kasse.example": special}, smart)
    assert routes.find("eau@KASSE.example") == special
    assert routes.find("eau@sub.kasse.example") == smart
    assert Routes({"kasse.example": special}).find("eau@other.example") is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Route("mail.example", tls=TLSMode.NONE),
        lambda: Route("10.0.0.1", tls=TLSMode.NONE),
        lambda: Route(""),
        lambda: Route("mail.example", 0),
        lambda: Route("mail.example", client_key=Path("k")),
        lambda: Routes(smarthost=Route("Mail.kim.example."), own_hosts=frozenset({"mail.kim.example"})),
    ],
)
def test_a_route_that_cannot_be_right_is_refused_at_start(make: object) -> None:
    assert callable(make)
    with pytest.raises(BadRouteError):
        make()


def test_only_this_machine_may_be_without_tls() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert Route(host, tls=TLSMode.NONE).host == host
