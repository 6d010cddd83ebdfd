from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.mail import smtp_replies as replies
from schleuse.mail.contracts import Notify, Recipient
from schleuse.mail.smtp_replies import Reply
from schleuse.mail.smtp_syntax import MailCommand, helo_name, parse_mail, parse_recipient, xtext_decode


def sender_of(text: str) -> str | Reply:
    command = parse_mail(text, max_size=1000)
    return command.sender if isinstance(command, MailCommand) else command


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("FROM:<a@x.test>", "a@x.test"),
        ("from:<A.b+c@X.test>", "A.b+c@X.test"),
        ("FROM: <a@x.test>", "a@x.test"),
        ("FROM:<>", ""),
        ("FROM:<@relay.test,@b.test:a@x.test>", "a@x.test"),
        ('FROM:<"a b\\"c>"@x.test>', '"a b\\"c>"@x.test'),
        ("FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        (f"FROM:<{'a' * 64}@x.test>", f"{'a' * 64}@x.test"),
        ("FROM:<a@x.test>   BODY=7BIT ", "a@x.test"),
    ],
)
def test_reverse_paths_of_the_rfc_are_read(text: str, sender: str) -> None:
    assert sender_of(text) == sender


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FROM",
        "FROM:",
        "FROM:a@x.test",
        "TO:<a@x.test>",
        "FROM:<a>",
        "FROM:<postmaster>",
        "FROM:<a@>",
        "FROM:<@x.test>",
        "FROM:<a@x.test",
        "FROM:<a@x.test>SIZE=1",
        "FROM:<a@x.test>>",
        "FROM:<a b@x.test>",
        "FROM:<a..b@x.test>",
        "FROM:<.a@x.test>",
        "FROM:<a@-x.test>",
        "FROM:<a@x..test>",
        "FROM:<a\t@x.test>",
        "FROM:<a@x.test\u2028>",
        f"FROM:<{'a' * 65}@x.test>",
        f"FROM:<a@{'b' * 251}.test>",
    ],
)
def test_other_reverse_paths_are_refused(text: str) -> None:
    assert sender_of(text) == replies.BAD_SENDER


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("SIZE=1001", Reply(552, "5.3.4", "The mail is bigger than the limit")),
        ("SIZE=x", replies.BAD_SYNTAX),
        ("SIZE=-1", replies.BAD_SYNTAX),
        ("SIZE=" + "9" * 21, replies.BAD_SYNTAX),
        ("SIZE", replies.BAD_SYNTAX),
        ("BODY=BINARYMIME", replies.BAD_SYNTAX),
        ("SMTPUTF8=yes", replies.BAD_SYNTAX),
        ("RET=ALL", replies.BAD_SYNTAX),
        ("RET=HDRS RET=HDRS", replies.BAD_SYNTAX),
        ("ret=hdrs RET=FULL", replies.BAD_SYNTAX),
        ("ENVID=" + "a" * 101, replies.BAD_SYNTAX),
        ("ENVID=a+0D+0Ab", replies.BAD_SYNTAX),
        ("ENVID=a=b", replies.BAD_SYNTAX),
        ("AUTH=a=b", replies.BAD_SYNTAX),
        ("=x", replies.BAD_SYNTAX),
        ("NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        ("XDIRECT", replies.UNKNOWN_PARAMETER),
    ],
)
def test_bad_parameters_of_mail_have_their_reply(parameters: str, reply: Reply) -> None:
    assert parse_mail(f"FROM:<a@x.test> {parameters}", max_size=1000) == reply


def test_all_parameters_of_mail_together() -> None:
    text = "FROM:<a@x.test> SIZE=1000 body=8bitmime SMTPUTF8 RET=full ENVID=a+2Bb AUTH=<>"
    assert parse_mail(text.replace("AUTH=<>", "AUTH=+3C+3E"), max_size=1000) == MailCommand(
        "a@x.test", "FULL", "a+b", True
    )
    assert isinstance(parse_mail(text, max_size=1000), MailCommand)


def test_addresses_beyond_ascii_need_smtputf8() -> None:
    assert parse_mail("FROM:<müller@x.test>", max_size=1) == replies.NEEDS_SMTPUTF8
    assert parse_recipient("TO:<b@bücher.test>", smtputf8=False) == replies.NEEDS_SMTPUTF8
    assert parse_recipient("TO:<b@bücher.test>", smtputf8=True) == Recipient("b@bücher.test")


def test_postmaster_without_domain_is_a_recipient() -> None:
    assert parse_recipient("TO:<PostMaster>", smtputf8=False) == Recipient("PostMaster")


@pytest.mark.parametrize("text", ["TO:<>", "TO:b@x.test", "FROM:<b@x.test>", "TO:<b@x.test"])
def test_bad_forward_paths_are_refused(text: str) -> None:
    assert parse_recipient(text, smtputf8=False) == replies.BAD_RECIPIENT


@pytest.mark.parametrize(
    ("parameters", "notify"),
    [
        ("NOTIFY=NEVER", {Notify.NEVER}),
        ("notify=success", {Notify.SUCCESS}),
        ("NOTIFY=SUCCESS,FAILURE,DELAY", {Notify.SUCCESS, Notify.FAILURE, Notify.DELAY}),
    ],
)
def test_notify_is_read(parameters: str, notify: set[Notify]) -> None:
    recipient = parse_recipient(f"TO:<b@x.test> {parameters}", smtputf8=False)
    assert recipient == Recipient("b@x.test", frozenset(notify))


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("NOTIFY=NEVER,FAILURE", replies.BAD_SYNTAX),
        ("NOTIFY=", replies.BAD_SYNTAX),
        ("NOTIFY=ALWAYS", replies.BAD_SYNTAX),
        ("ORCPT=b@x.test", replies.BAD_SYNTAX),
        ("ORCPT=rfc822;", replies.BAD_SYNTAX),
        ("ORCPT=rfc822;a+0Ab", replies.BAD_SYNTAX),
        ("ORCPT=rf:c;a", replies.BAD_SYNTAX),
        ("ORCPT=rfc822;" + "a" * 501, replies.BAD_SYNTAX),
        ("RET=HDRS", replies.UNKNOWN_PARAMETER),
    ],
)
def test_bad_parameters_of_rcpt_have_their_reply(parameters: str, reply: Reply) -> None:
    assert parse_recipient(f"TO:<b@x.test> {parameters}", smtputf8=False) == reply


def test_orcpt_is_decoded_and_may_be_utf8_when_asked_for() -> None:
    found = parse_recipient("TO:<b@x.test> ORCPT=rfc822;a+2Bb@x.test", smtputf8=False)
    assert found == Recipient("b@x.test", orcpt="rfc822;a+b@x.test")
    found = parse_recipient("TO:<b@x.test> ORCPT=utf-8;müller@x.test", smtputf8=True)
    assert found == Recipient("b@x.test", orcpt="utf-8;müller@x.test")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_every_printable_text_survives_xtext(text: str) -> None:
    encoded = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
    assert xtext_decode(encoded) == text


@pytest.mark.parametrize("text", ["", "a b", "a+2b", "a+2", "a=b", "a+0D", "a+7F", "a+C3", "ä"])
def test_what_is_no_xtext_of_printable_ascii_is_refused(text: str) -> None:
    assert xtext_decode(text) is None


@pytest.mark.parametrize("name", ["praxis.test", "PC_7", "[192.0.2.1]", "[IPv6:::1]", "a "])
def test_names_in_a_greeting_are_domains_or_literals(name: str) -> None:
    assert helo_name(name) == name.strip()


@given(st.text(max_size=400))
def test_hostile_arguments_never_raise(text: str) -> None:
    parse_mail(f"FROM:<{text}", max_size=10)
    parse_mail(f"FROM:<a@x.test> {text}", max_size=10)
    parse_recipient(f"TO:<b@x.test> {text}", smtputf8=True)
    helo_name(text)
