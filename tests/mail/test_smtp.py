from __future__ import annotations

from dataclasses import replace

import pytest
from tests.mail.fakes import TablePolicy, full_disk
from tests.mail.smtp_client import (
    NOW,
    PASSWORD,
    RELAY,
    SUBMISSION,
    USER,
    Client,
    hello,
    in_data,
    logged_in,
    relay,
)

from schleuse.errors import (
    ConflictError,
    CorruptError,
    Error,
    MalformedError,
    RefusedError,
    UnavailableError,
)
from schleuse.mail.contracts import Notify, Recipient
from schleuse.mail.smtp import MAX_BAD_COMMANDS, MAX_IDLE_COMMANDS, MAX_REFUSED_RECIPIENTS, Close, Settings
from schleuse.mail.smtp_replies import SMTP_REPLY, TooManyHopsError, UnknownRecipientError

TRANSACTION = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n"
FULL_DISK = full_disk()
MAIL = b"From: a@x.test\r\n\r\nHallo\r\n"


def own_part(content: bytes) -> bytes:
    """The content below the Received field that we put on top."""
    return content[content.index(b"+0000\r\n") + 7 :]


# What is announced --------------------------------------------------------------------------------------


def test_the_greeting_names_us_and_speaks_esmtp() -> None:
    assert Client().said == b"220 mx.test ESMTP\r\n"


def test_the_extensions_of_kim_are_announced() -> None:
    lines = Client(settings=SUBMISSION, tls=True).send(b"EHLO praxis.test\r\n")
    assert {line[4:] for line in lines[1:]} == {
        "PIPELINING",
        "SIZE 35882577",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "AUTH LOGIN PLAIN",
    }
    assert [line[3] for line in lines] == ["-"] * (len(lines) - 1) + [" "]


def test_without_tls_starttls_is_announced_and_auth_is_not() -> None:
    lines = Client(settings=SUBMISSION).send(b"EHLO praxis.test\r\n")
    assert "250-STARTTLS" in lines
    assert not any("AUTH" in line for line in lines)


def test_a_server_without_a_certificate_announces_no_starttls() -> None:
    client = Client(settings=replace(RELAY, starttls=False))
    assert not any("STARTTLS" in line for line in client.send(b"EHLO praxis.test\r\n"))
    assert client.send(b"STARTTLS\r\n") == ["502 5.5.1 Not possible here"]


# One mail -----------------------------------------------------------------------------------------------


def test_a_mail_is_delivered_with_its_envelope() -> None:
    client = relay()
    client.send(TRANSACTION)
    assert client.send(MAIL + b".\r\n") == ["250 2.0.0 Kept durably"]
    (mail,) = client.mails
    assert (mail.sender, mail.recipients) == ("a@x.test", (Recipient("b@x.test"),))
    assert own_part(mail.content) == MAIL
    assert mail.accepted_at == NOW
    assert mail.user is None


def test_no_250_is_said_before_the_mail_is_durable() -> None:
    client = relay(holds=True)
    client.send(TRANSACTION)
    assert client.send(MAIL + b".\r\nNOOP\r\n") == []
    client.finish()
    assert client.said.endswith(b"250 2.0.0 Kept durably\r\n250 2.0.0 Ok\r\n")


def test_a_whole_session_may_be_pipelined() -> None:
    client = Client()
    client.send(b"EHLO a\r\n" + 2 * (TRANSACTION + MAIL + b".\r\n") + b"QUIT\r\n")
    assert client.codes == ["220", "250", *(2 * ["250", "250", "354", "250"]), "221"]
    assert len(client.mails) == 2
    assert client.closed


def test_the_null_sender_of_a_dsn_is_taken() -> None:
    client = relay()
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n" + MAIL + b".\r\n")
    assert client.mails[0].sender == ""


def test_an_empty_mail_is_a_mail() -> None:
    client = in_data(relay())
    assert client.send(b".\r\n") == ["250 2.0.0 Kept durably"]
    assert own_part(client.mails[0].content) == b""


def test_dots_are_unstuffed_at_the_start_of_lines_only() -> None:
    client = in_data(relay())
    client.send(b"..first\r\na.b\r\n...\r\n.x\r\nend.\r\n.\r\n")
    assert own_part(client.mails[0].content) == b".first\r\na.b\r\n..\r\nx\r\nend.\r\n"


def test_recipients_are_answered_one_by_one() -> None:
    client = relay(policy=TablePolicy(recipients={"no@x.test": UnknownRecipientError("no")}))
    client.send(b"MAIL FROM:<a@x.test>\r\n")
    replies = client.send(b"RCPT TO:<no@x.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<c@x.test>\r\n")
    assert [reply[:9] for reply in replies] == ["550 5.1.1", "250 2.1.5", "250 2.1.5"]
    client.send(b"DATA\r\n" + MAIL + b".\r\n")
    assert [recipient.address for recipient in client.mails[0].recipients] == ["b@x.test", "c@x.test"]


def test_data_without_a_valid_recipient_is_refused() -> None:
    client = relay(policy=TablePolicy(recipients={"no@x.test": UnknownRecipientError("no")}))
    client.send(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<no@x.test>\r\n")
    assert client.send(b"DATA\r\n")[0][:9] == "554 5.5.1"


def test_dsn_parameters_reach_the_mail() -> None:
    client = relay()
    client.send(b"MAIL FROM:<a@x.test> RET=HDRS ENVID=QQ+2B1 BODY=8BITMIME SIZE=100\r\n")
    client.send(b"RCPT TO:<b@x.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bc@x.test\r\n")
    client.send(b"DATA\r\n" + MAIL + b".\r\n")
    (mail,) = client.mails
    assert (mail.ret, mail.envid) == ("HDRS", "QQ+1")
    assert mail.recipients == (Recipient("b@x.test", frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;b+c@x.test"),)


def test_an_smtputf8_mail_says_so() -> None:
    client = relay()
    client.send("MAIL FROM:<müller@x.test> SMTPUTF8\r\nRCPT TO:<b@x.test>\r\nDATA\r\n".encode())
    client.send(MAIL + b".\r\n")
    assert client.mails[0].smtputf8
    assert b"with UTF8SMTP;" in client.mails[0].content


def test_rset_forgets_the_transaction() -> None:
    client = relay()
    client.send(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\n")
    assert client.send(b"RSET\r\nDATA\r\n") == ["250 2.0.0 Ok", "503 5.5.1 Bad order of commands"]


@pytest.mark.parametrize("command", [b"RCPT TO:<b@x.test>", b"DATA"])
def test_commands_out_of_order_are_refused(command: bytes) -> None:
    assert relay().send(command + b"\r\n")[0][:9] == "503 5.5.1"


def test_mail_before_a_greeting_and_a_second_mail_are_refused() -> None:
    client = Client()
    assert client.send(b"MAIL FROM:<a@x.test>\r\n")[0][:3] == "503"
    hello(client)
    assert [reply[:3] for reply in client.send(2 * b"MAIL FROM:<a@x.test>\r\n")] == ["250", "503"]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"VRFY b", "252 2.0.0"),
        (b"NOOP was auch immer", "250 2.0.0"),
        (b"rset", "250 2.0.0"),
        (b"EXPN b", "502 5.5.1"),
        (b"HELP", "502 5.5.1"),
        (b"XYZ", "500 5.5.1"),
        (b"", "500 5.5.1"),
        (b"\xff\xfe", "500 5.5.1"),
        (b"EHLO", "501 5.5.4"),
        (b"EHLO a b\tc", "501 5.5.4"),
        (b"DATA now", "501 5.5.4"),
        (b"STARTTLS now", "501 5.5.4"),
        (b"QUIT", "221 2.0.0"),
    ],
)
def test_other_commands_have_their_reply(command: bytes, reply: str) -> None:
    assert relay().send(command + b"\r\n")[0][:9] == reply


def test_helo_works_and_offers_nothing() -> None:
    client = Client()
    assert client.send(b"HELO old.test\r\n") == ["250 mx.test"]
    client.send(TRANSACTION + MAIL + b".\r\n")
    assert b"with SMTP;" in client.mails[0].content


# The Received field -------------------------------------------------------------------------------------


def test_the_received_field_names_the_relaying_host() -> None:
    client = in_data(relay(peer="2001:db8::7"))
    client.send(MAIL + b".\r\n")
    assert client.mails[0].content.startswith(
        b"Received: from praxis.test ([IPv6:2001:db8::7])\r\n"
        b"\tby mx.test with ESMTP;\r\n\tMon, 02 Mar 2026 08:30:00 +0000\r\n"
    )


def test_the_received_field_keeps_the_practices_machine_and_address_to_itself() -> None:
    client = logged_in()
    client.send(TRANSACTION + MAIL + b".\r\n")
    assert client.mails[0].user == USER
    assert client.mails[0].content.startswith(b"Received: from submission.invalid\r\n\tby mail.test with ESMTPSA;\r\n")


@pytest.mark.parametrize("name", [b"a\tb", b"x;y", b"a(b)", b"<script>", "pr\u00e4xis".encode(), b"a" * 256])
def test_a_greeting_that_could_inject_a_header_is_refused(name: bytes) -> None:
    assert Client().send(b"EHLO " + name + b"\r\n")[0][:9] == "501 5.5.4"


# Own trouble and refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (UnavailableError("off"), "451 4.3.2"),
        (FULL_DISK, "452 4.3.1"),
        (ConflictError("epoch"), "451 4.3.0"),
        (CorruptError("broken"), "421 4.3.0"),
        (RefusedError("no"), "550 5.7.1"),
        (MalformedError("bad"), "554 5.6.0"),
        (Error("?"), "451 4.3.0"),
    ],
)
def test_each_kind_of_error_has_one_reply_at_every_stage(error: Error, reply: str) -> None:
    kept = in_data(relay(outcome=error))
    assert kept.send(MAIL + b".\r\n")[0][:9] == reply
    content = in_data(relay(policy=TablePolicy(content=error)))
    assert content.send(MAIL + b".\r\n")[0][:9] == reply
    assert content.mails == []
    sender = relay(policy=TablePolicy(senders={"a@x.test": error}))
    assert sender.send(b"MAIL FROM:<a@x.test>\r\n")[0][:9] == reply
    recipient = relay(policy=TablePolicy(recipients={"b@x.test": error}))
    assert recipient.send(TRANSACTION)[1][:9] == reply
    raising = relay(policy=TablePolicy(raises=error))
    assert raising.send(b"MAIL FROM:<a@x.test>\r\n")[0][:9] == reply


def test_own_trouble_never_becomes_a_permanent_refusal() -> None:
    for kind, reply in SMTP_REPLY.items():
        own = issubclass(kind, (UnavailableError, CorruptError, ConflictError)) or kind is Error
        assert (400 <= reply.code < 500) == own
        assert reply.status[0] == str(reply.code)[0]


def test_after_a_failed_mail_the_next_one_is_taken() -> None:
    client = relay(outcome=UnavailableError("off"))
    client.send(TRANSACTION + MAIL + b".\r\n")
    client.outcome = None
    client.send(TRANSACTION + MAIL + b".\r\n")
    assert client.codes[-8:] == ["250", "250", "354", "451", "250", "250", "354", "250"]


def test_a_mail_that_runs_in_a_circle_is_refused() -> None:
    client = in_data(relay(settings=replace(RELAY, max_hops=25)))
    hops = b"Received: from a by b\r\nrECEIVED: from b by a\r\n" * 12 + b"Received: x\r\n"
    assert client.send(hops + MAIL + b".\r\n")[0][:9] == "554 5.4.6"
    assert SMTP_REPLY[TooManyHopsError].status == "5.4.6"


def test_received_lines_in_the_body_are_no_hops() -> None:
    client = in_data(relay(settings=replace(RELAY, max_hops=25)))
    assert client.send(MAIL + b"Received: x\r\n" * 30 + b".\r\n")[0][:3] == "250"


# Login --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"MAIL FROM:<a@x.test>", "530 5.7.0"),
        (b"RCPT TO:<a@x.test>", "530 5.7.0"),
        (b"DATA", "530 5.7.0"),
        (b"RSET", "250 2.0.0"),
        (b"NOOP", "250 2.0.0"),
        (b"QUIT", "221 2.0.0"),
        (b"VRFY a", "502 5.5.1"),
        (b"XYZ", "502 5.5.1"),
        (b"AUTH CRAM-MD5", "504 5.7.4"),
        (b"AUTH PLAIN *", "501 5.7.0"),
        (b"AUTH PLAIN !!!!", "501 5.5.2"),
        (b"AUTH PLAIN /w==", "501 5.5.2"),
        (b"AUTH PLAIN =", "535 5.7.8"),
        (b"AUTH PLAIN AGEAYg==", "535 5.7.8"),
        (b"AUTH PLAIN eABhAGI=", "535 5.7.8"),
    ],
)
def test_before_login_kim_9_1_holds(command: bytes, reply: str) -> None:
    assert hello(Client(settings=SUBMISSION, tls=True)).send(command + b"\r\n")[0][:9] == reply


def test_a_login_over_plain_text_is_never_looked_at() -> None:
    client = hello(Client(settings=SUBMISSION))
    assert client.send(b"AUTH PLAIN AGEAYg==\r\n")[0][:10] == "538 5.7.11"
    assert client.passwords == []


def test_a_login_needs_ehlo_and_comes_once() -> None:
    assert Client(settings=SUBMISSION, tls=True).send(b"AUTH PLAIN AGEAYg==\r\n")[0][:3] == "503"
    assert logged_in().send(b"AUTH PLAIN AGEAYg==\r\n")[0][:3] == "503"


def test_a_relay_takes_no_login() -> None:
    assert relay(tls=True).send(b"AUTH PLAIN AGEAYg==\r\n")[0][:3] == "502"


@pytest.mark.parametrize(
    "steps",
    [
        [b"AUTH PLAIN AHByYXhpc0BhLmtpbS50ZWxlbWF0aWsAZ2VoZWlt"],
        [b"auth plain", b"AHByYXhpc0BhLmtpbS50ZWxlbWF0aWsAZ2VoZWlt"],
        [b"AUTH LOGIN", b"cHJheGlzQGEua2ltLnRlbGVtYXRpaw==", b"Z2VoZWlt"],
        [b"AUTH LOGIN cHJheGlzQGEua2ltLnRlbGVtYXRpaw==", b"Z2VoZWlt"],
    ],
)
def test_plain_and_login_with_and_without_an_initial_response(steps: list[bytes]) -> None:
    client = hello(Client(settings=SUBMISSION, tls=True))
    for step in steps:
        last = client.send(step + b"\r\n")
    assert last == ["235 2.7.0 Logged in"]
    assert [(check.user, check.password) for check in client.passwords] == [(USER, PASSWORD)]
    assert client.send(b"MAIL FROM:<a@x.test>\r\n")[0][:3] == "250"


@pytest.mark.parametrize(
    ("outcome", "reply"),
    [(UnavailableError("off"), "454 4.7.0"), (CorruptError("x"), "454 4.7.0"), (MalformedError("x"), "501 5.5.4")],
)
def test_other_ends_of_a_login_follow_kim_9_2(outcome: Error, reply: str) -> None:
    client = hello(Client(settings=SUBMISSION, tls=True, login=outcome))
    assert client.send(b"AUTH PLAIN AGEAYg==\r\n")[0][:9] == reply


def test_the_third_wrong_password_ends_the_session() -> None:
    client = hello(Client(settings=SUBMISSION, tls=True))
    client.send(b"AUTH PLAIN AGEAYg==\r\n" * 5)
    assert client.codes[-3:] == ["535", "535", "421"]
    assert client.closed


def test_a_password_shows_in_no_repr() -> None:
    client = logged_in()
    assert PASSWORD not in repr(client.passwords[0])
    assert USER not in repr(client.passwords[0])


# STARTTLS -----------------------------------------------------------------------------------------------


def test_what_was_pipelined_behind_starttls_is_never_executed() -> None:
    client = hello(Client(settings=SUBMISSION))
    client.send(b"STARTTLS\r\nNOOP\r\nMAIL FROM:<evil@x.test>\r\n")
    assert client.codes == ["220", "250", "220"]
    assert client.upgrades == 1


def test_starttls_forgets_what_was_said_before() -> None:
    client = relay()
    client.send(b"MAIL FROM:<a@x.test>\r\nSTARTTLS\r\n")
    assert client.send(b"RCPT TO:<b@x.test>\r\n")[0][:3] == "503"
    assert client.send(b"MAIL FROM:<a@x.test>\r\n")[0][:3] == "503"
    lines = client.send(b"EHLO praxis.test\r\n")
    assert "250-STARTTLS" not in lines
    assert client.send(b"STARTTLS\r\n")[0][:3] == "503"


# Limits -------------------------------------------------------------------------------------------------


def test_a_declared_size_over_the_limit_is_refused_at_once() -> None:
    small = replace(RELAY, max_size=1000)
    assert relay(settings=small).send(b"MAIL FROM:<a@x.test> SIZE=1001\r\n")[0][:9] == "552 5.3.4"
    assert relay(settings=small).send(b"MAIL FROM:<a@x.test> SIZE=1000\r\n")[0][:3] == "250"


@pytest.mark.parametrize(("octets", "code"), [(1000, "250"), (1001, "552"), (1997, "552")])
def test_a_mail_over_the_limit_is_read_and_refused(octets: int, code: str) -> None:
    content = b"x" * (octets - 2) + b"\r\n.\r\n"
    for feed in (Client.send, Client.byte_by_byte):
        client = in_data(relay(settings=replace(RELAY, max_size=1000)))
        feed(client, content + b"NOOP\r\n")
        assert client.codes[-2:] == [code, "250"]


def test_stuffed_dots_do_not_count_against_the_limit() -> None:
    content = b"..\r\n" * 333 + b"\r\n.\r\n"  # 333 x 3 + 2 octets when unstuffed
    for feed in (Client.send, Client.byte_by_byte):
        client = in_data(relay(settings=replace(RELAY, max_size=1001)))
        feed(client, content)
        assert client.codes[-1] == "250"
        client = in_data(relay(settings=replace(RELAY, max_size=1000)))
        feed(client, content)
        assert client.codes[-1] == "552"


def test_a_mail_without_end_is_cut_off_and_never_held_in_memory() -> None:
    client = in_data(relay(settings=replace(RELAY, max_size=1000)))
    most = 0
    for _ in range(100):
        if not client.closed:
            client.send(b"x" * 100)
            most = max(most, client.session.buffered)
    assert client.closed
    assert client.codes[-1] == "552"
    assert most < 1200


def test_one_recipient_too_many_is_put_off_to_the_next_transaction() -> None:
    client = relay(settings=replace(RELAY, max_recipients=100))
    client.send(b"MAIL FROM:<a@x.test>\r\n" + b"RCPT TO:<b@x.test>\r\n" * 100)
    assert client.send(b"RCPT TO:<c@x.test>\r\n")[0][:9] == "452 4.5.3"


@pytest.mark.parametrize("length", [2048, 2049])
def test_a_command_has_at_most_2048_octets(length: int) -> None:
    line = b"NOOP " + b"x" * (length - 7) + b"\r\n"
    assert relay().send(line)[0][:3] == ("250" if length == 2048 else "500")


def test_a_line_without_end_closes_the_session() -> None:
    for feed in (Client.send, Client.byte_by_byte):
        client = relay()
        feed(client, b"x" * 20_000)
        assert client.codes[-1] == "500"
        assert client.closed
        assert client.session.buffered == 0


def test_too_many_errors_end_the_session() -> None:
    client = relay()
    client.send(b"XYZ\r\n" * 50)
    assert client.codes[2:] == ["500"] * MAX_BAD_COMMANDS + ["421"]
    assert client.closed


def test_too_many_commands_without_a_mail_end_the_session() -> None:
    client = Client()
    client.send(b"NOOP\r\n" * 500)
    assert client.codes[1:] == ["250"] * MAX_IDLE_COMMANDS + ["421"]


def test_kept_mails_make_a_long_session_welcome() -> None:
    client = relay()
    for _ in range(2 * MAX_IDLE_COMMANDS):
        client.send(TRANSACTION + MAIL + b".\r\n")
    assert not client.closed


def test_harvesting_addresses_ends_the_session() -> None:
    client = relay(policy=TablePolicy(recipients={"no@x.test": UnknownRecipientError("no")}))
    client.send(b"MAIL FROM:<a@x.test>\r\n" + b"RCPT TO:<no@x.test>\r\n" * 200)
    assert client.codes[3:] == ["550"] * MAX_REFUSED_RECIPIENTS + ["421"]


def test_a_browser_that_was_made_to_speak_to_us_is_cut_off() -> None:
    client = Client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO a\r\n" + TRANSACTION)
    assert client.closed
    assert client.mails == []


# Going down ---------------------------------------------------------------------------------------------


def test_draining_ends_an_idle_session_at_once() -> None:
    client = relay()
    client.drain()
    assert client.codes[-1] == "421"
    assert client.closed


def test_draining_lets_a_mail_on_its_way_end() -> None:
    client = in_data(relay(holds=True))
    client.drain()
    client.send(MAIL + b".\r\nNOOP\r\n")
    assert not client.closed
    client.finish()
    assert client.codes[-2:] == ["250", "421"]
    assert client.closed


def test_a_closed_session_hears_and_says_nothing() -> None:
    client = relay()
    client.send(b"QUIT\r\n" + TRANSACTION)
    assert client.session.receive(b"NOOP\r\n", NOW) == []
    assert client.session.kept(None, NOW) == []
    assert client.session.drain() == []
    assert client.mails == []


def test_only_after_an_error_the_shell_waits_for_unread_input() -> None:
    session = relay().session
    assert session.receive(b"QUIT\r\n", NOW)[-1] == Close(unread=False)
    session = relay().session
    assert session.receive(b"a\nb", NOW)[-1] == Close(unread=True)


def test_the_default_limits_are_those_of_kim_and_the_rfc() -> None:
    settings = Settings("x")
    assert settings.max_size >= 35_882_577  # kim.md § 9.1
    assert settings.max_recipients >= 100  # RFC 5321 § 4.5.3.1.8
    assert 25 <= settings.max_hops <= 100  # RFC 5321 § 6.3
