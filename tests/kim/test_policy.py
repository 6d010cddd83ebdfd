"""Who may send what to whom (kim.md § 9.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.switch_double import FakeSwitch

from schleuse.errors import MalformedError, RefusedError
from schleuse.holding.capacity import Level
from schleuse.identifiers import IK
from schleuse.kim.accounts import Account, Accounts, BadUserNameError, mailbox_user
from schleuse.kim.door import Door
from schleuse.kim.policy import RelayPolicy, SubmissionPolicy
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.smtp_replies import ClosedError, SenderNotYoursError, UnknownRecipientError
from schleuse.scopes import ScopeState

SUFFIX = ".kim.telematik-test"
PRACTICE = "praxis@a.kim.telematik-test"
KASSE = "eau@kasse.kim.telematik-test"
OTHER_KASSE = "eau@andere.kim.telematik-test"
ACCOUNTS = Accounts(
    [
        Account(PRACTICE, None, "hash"),
        Account(KASSE, IK("109900011"), "hash"),
        Account(OTHER_KASSE, IK("109900022"), "hash"),
    ]
)
OPEN = Door(ACCOUNTS, FakeSwitch(), lambda: Level.PLENTY)
SUBMISSION = SubmissionPolicy(ACCOUNTS, SUFFIX, lambda domain: domain == "routed.kim.telematik-test", OPEN)
RELAY = RelayPolicy(ACCOUNTS, SUFFIX, OPEN)


def a_mail(headers: str, to: str = KASSE) -> Mail:
    return Mail(PRACTICE, (Recipient(to),), f"{headers}\r\n\r\nbody".encode(), datetime(2026, 11, 25, tzinfo=UTC))


def test_an_account_sends_as_itself_in_any_case() -> None:
    assert SUBMISSION.sender_allowed(PRACTICE, PRACTICE.upper()) is None


def test_a_clientmoduls_long_user_name_counts_as_its_mailbox() -> None:
    assert SUBMISSION.sender_allowed(f"{PRACTICE}#kim.example:465#M1#C1#W1", PRACTICE) is None
    assert mailbox_user(f"{PRACTICE.upper()}#kim.example:465") == PRACTICE


@pytest.mark.parametrize("name", ["", "#x", "nobody", "a\nb@c"])
def test_a_user_name_without_address_is_malformed(name: str) -> None:
    with pytest.raises(BadUserNameError):
        mailbox_user(name)


@pytest.mark.parametrize("sender", [KASSE, "", "x@elsewhere"])
def test_an_account_sends_as_nobody_else(sender: str) -> None:
    assert isinstance(SUBMISSION.sender_allowed(PRACTICE, sender), SenderNotYoursError)
    assert SUBMISSION.sender_allowed(None, PRACTICE) is not None


def test_mail_goes_to_our_mailboxes_and_where_there_is_a_route() -> None:
    assert SUBMISSION.recipient(KASSE.upper()) is None
    assert SUBMISSION.recipient("eau@routed.kim.telematik-test") is None


@pytest.mark.parametrize(
    "address",
    ["nobody@kasse.kim.telematik-test", "eau@unrouted.kim.telematik-test", "eau@kasse.kim.telematik", "x@gmail.com"],
)
def test_mail_to_nowhere_and_to_another_environment_is_refused_at_once(address: str) -> None:
    assert isinstance(SUBMISSION.recipient(address), UnknownRecipientError)


@pytest.mark.parametrize(
    "headers",
    [
        f"From: {KASSE}",
        f"From: {PRACTICE}\r\nSender: {KASSE}",
        f"From: {PRACTICE}, {KASSE}",
        f"From: {PRACTICE}\r\nFrom: {KASSE}",
        "Subject: no From at all",
        f"From: {PRACTICE}\r\nReply-To: praxis@example.org",
    ],
)
def test_headers_that_name_somebody_else_are_refused(headers: str) -> None:
    assert isinstance(SUBMISSION.content_allowed(a_mail(headers)), MalformedError | RefusedError)


def test_headers_of_the_sender_itself_pass() -> None:
    headers = f"From: Praxis <{PRACTICE.upper()}>\r\nReply-To: {PRACTICE}"
    assert SUBMISSION.content_allowed(a_mail(headers)) is None


def test_a_failed_mail_may_be_forwarded_to_oneself() -> None:
    assert SUBMISSION.content_allowed(a_mail(f"From: {KASSE}", to=PRACTICE)) is None


def test_another_provider_brings_mail_for_our_mailboxes_and_dsns() -> None:
    assert RELAY.sender_allowed(None, "praxis@anderswo.kim.telematik-test") is None
    assert RELAY.sender_allowed(None, "") is None
    assert RELAY.recipient(KASSE) is None
    assert RELAY.content_allowed(replace(a_mail("From: x@y"), sender="x@y")) is None


def test_another_provider_cannot_relay_or_pretend_to_be_ours() -> None:
    assert isinstance(RELAY.recipient("eau@routed.kim.telematik-test"), UnknownRecipientError)
    assert isinstance(RELAY.sender_allowed(None, PRACTICE), SenderNotYoursError)
    assert isinstance(RELAY.sender_allowed(None, "x@gmail.com"), RefusedError)


def test_an_account_prints_without_its_hash() -> None:
    assert "hash" not in repr(ACCOUNTS.get(PRACTICE))


def test_only_insurers_mailboxes_are_opened() -> None:
    assert [account.address for account in ACCOUNTS.of_insurers()] == [KASSE, OTHER_KASSE]


def test_a_closed_recipient_is_deferred_and_an_unknown_one_is_still_unknown() -> None:
    """HD-03: whoever does not exist is no secret of a closed door."""
    switch = FakeSwitch()
    switch.set("all", ScopeState.DEFER)
    door = Door(ACCOUNTS, switch, lambda: Level.PLENTY)
    submission = replace(SUBMISSION, door=door)
    assert isinstance(submission.recipient(KASSE), ClosedError)
    assert isinstance(submission.recipient("eau@routed.kim.telematik-test"), ClosedError)
    assert isinstance(submission.recipient("nobody@kasse.kim.telematik-test"), UnknownRecipientError)
    assert isinstance(replace(RELAY, door=door).recipient(PRACTICE), ClosedError)
