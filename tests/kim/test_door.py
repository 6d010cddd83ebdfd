"""Each recipient gets its own answer, and none is a 5xx because something is closed (HD-01, HD-03, T-02)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kim.test_policy import ACCOUNTS as KNOWN
from tests.kim.test_policy import KASSE, OTHER_KASSE, PRACTICE, SUFFIX
from tests.mail.fakes import MemoryIntake
from tests.mail.smtp_client import RELAY, Client
from tests.switch_double import FakeSwitch

from schleuse.errors import Error, UnavailableError
from schleuse.holding.capacity import Level
from schleuse.kim.door import Door, GuardedIntake
from schleuse.kim.policy import RelayPolicy
from schleuse.mail.contracts import AcceptedUnder, Mail, Recipient
from schleuse.mail.smtp_actions import Postponed
from schleuse.mail.smtp_replies import ClosedError, NoRoomError
from schleuse.scopes import Scope, ScopeState

HEAD = b"EHLO x\r\nMAIL FROM:<a@anderswo.kim.telematik-test> ENVID=e1\r\n"
CLOSED = "451 4.3.2 temporarily closed for security reasons, please retry automatically"


def a_door(switch: FakeSwitch, level: Level = Level.PLENTY) -> Door:
    return Door(KNOWN, switch, lambda: level)


def a_session(door: Door) -> Client:
    client = Client(settings=RELAY, policy=RelayPolicy(KNOWN, SUFFIX, door))
    client.send(HEAD)
    return client


def to(*addresses: str) -> bytes:
    return b"".join(f"RCPT TO:<{address}>\r\n".encode() for address in addresses)


def a_mail(*addresses: str) -> Mail:
    recipients = tuple(Recipient(one) for one in addresses)
    return Mail("a@x.kim.telematik-test", recipients, b"\r\nx\r\n", datetime(2026, 11, 25, tzinfo=UTC))


def test_a_mail_to_two_insurers_of_which_one_defers_reaches_the_other() -> None:
    switch = FakeSwitch()
    switch.set("eau_intake/109900011", ScopeState.DEFER)
    client = a_session(a_door(switch))
    assert client.send(to(KASSE, OTHER_KASSE, PRACTICE)) == [CLOSED, "250 2.1.5 Recipient ok", "250 2.1.5 Recipient ok"]
    client.send(b"DATA\r\nFrom: x\r\n\r\nx\r\n.\r\n")
    assert [one.address for one in client.mails[0].recipients] == [OTHER_KASSE, PRACTICE]


def test_a_held_insurer_accepts_as_always() -> None:
    """HD-02."""
    switch = FakeSwitch()
    switch.set("eau/*", ScopeState.HOLD)
    assert a_session(a_door(switch)).send(to(KASSE)) == ["250 2.1.5 Recipient ok"]


def test_each_deferred_attempt_is_told_with_its_sender() -> None:
    """§ 6.5: counted per sender."""
    switch = FakeSwitch()
    switch.set("kim_mail", ScopeState.CLOSED)
    client = a_session(a_door(switch))
    client.send(to(KASSE, PRACTICE))
    assert client.postponed == [Postponed("a@anderswo.kim.telematik-test", None, PRACTICE, "e1")]


def test_letters_wait_in_a_full_store_with_the_status_of_a_full_store() -> None:
    """HD-28, T-18: no word of security where there is none."""
    client = a_session(a_door(FakeSwitch(), Level.LETTERS_WAIT))
    assert client.send(to(PRACTICE, KASSE)) == ["452 4.3.1 No room now, try again later", "250 2.1.5 Recipient ok"]


@given(
    st.dictionaries(st.sampled_from(["eau_intake/109900011", "eau_intake/109900022", "kim_mail/-", "keys"]),
                    st.sampled_from(ScopeState)),
    st.lists(st.sampled_from([KASSE, OTHER_KASSE, PRACTICE]), min_size=1, max_size=4),
    st.sampled_from(Level),
    st.booleans(),
)  # fmt: skip
def test_no_state_of_any_scope_leads_to_a_5xx(
    states: dict[str, ScopeState], recipients: list[str], level: Level, is_pipelined: bool
) -> None:
    """HD-01, T-02: also for a client that pipelines DATA behind recipients that were all deferred (RFC 2920)."""
    switch = FakeSwitch()
    for scope, state in states.items():
        switch.set(scope, state)
    client = a_session(a_door(switch, level))
    client.send(to(*recipients) + (b"DATA\r\n" if is_pipelined else b""))
    if not is_pipelined:
        client.send(b"DATA\r\n")
    if client.codes[-1] == "354":
        client.send(b"From: x\r\n\r\nx\r\n.\r\n")
    assert not [code for code in client.codes if code.startswith("5")]


class Units:
    """How many units of each atom run."""

    def __init__(self) -> None:
        self.running: list[Scope] = []

    @contextmanager
    def unit(self, scope: Scope) -> Iterator[None]:
        self.running.append(scope)
        try:
            yield
        finally:
            self.running.remove(scope)


class Answers:
    def __init__(self) -> None:
        self.all: list[Error | None] = []

    def __call__(self, error: Error | None) -> None:
        self.all.append(error)


def test_the_mail_remembers_under_which_epoch_each_recipient_was_taken() -> None:
    """§ 6.3."""
    switch, intake = FakeSwitch(), MemoryIntake()
    epoch = switch.set("eau_intake/109900011", ScopeState.HOLD)
    GuardedIntake(intake, a_door(switch)).accept(a_mail(KASSE, PRACTICE), Answers())
    assert intake.kept[0].under == (AcceptedUnder(epoch, "HOLD"), AcceptedUnder(0, "OPEN"))


def test_a_mail_whose_recipient_was_closed_since_rcpt_is_deferred_as_a_whole_and_counted() -> None:
    """SW-06: what was said at RCPT under an older epoch does not count when it is kept."""
    switch, intake, answers, deferred = FakeSwitch(), MemoryIntake(), Answers(), list[Mail]()
    switch.set("kim_mail", ScopeState.DEFER)
    mail = a_mail(KASSE, PRACTICE)
    GuardedIntake(intake, a_door(switch), deferred=deferred.append).accept(mail, answers)
    assert ([type(one) for one in answers.all], intake.kept, deferred) == ([ClosedError], [], [mail])


def test_a_mail_counts_as_running_until_it_is_durable() -> None:
    """SW-10."""
    units, intake = Units(), MemoryIntake(holding=True)
    GuardedIntake(intake, a_door(FakeSwitch()), unit=units.unit).accept(a_mail(KASSE, PRACTICE), Answers())
    assert sorted(map(str, units.running)) == ["eau_intake/109900011/accept/-", "kim_mail/-/accept/-"]
    intake.finish()
    assert units.running == []


@pytest.mark.parametrize("fault", [UnavailableError("full"), ValueError("bug")])
def test_a_store_that_fails_leaves_no_unit_running(fault: Exception) -> None:
    units = Units()
    intake = MemoryIntake(raises=fault)
    with pytest.raises(type(fault)):
        GuardedIntake(intake, a_door(FakeSwitch()), unit=units.unit).accept(a_mail(KASSE), Answers())
    assert units.running == []


def test_no_room_is_told_apart_from_closed() -> None:
    answers = Answers()
    GuardedIntake(MemoryIntake(), a_door(FakeSwitch(), Level.LETTERS_WAIT)).accept(a_mail(PRACTICE), answers)
    assert [type(one) for one in answers.all] == [NoRoomError]
