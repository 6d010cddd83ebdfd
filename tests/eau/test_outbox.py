"""Fehlernachrichten leave once each, with the same octets, whatever breaks between (style.md § 1 no. 6)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, NOON, faulty, file
from tests.switch_double import FakeSwitch

from schleuse.eau.letter_store import LONGEST_PAUSE, Unsent
from schleuse.eau.outbox import BATCH, FIRST_PAUSE, Outbox, Step, pause_after
from schleuse.eau.store import EauStore
from schleuse.eau.switched import delivering
from schleuse.errors import UnavailableError
from schleuse.kim.store.delivery import share_of
from schleuse.scopes import ScopeState
from schleuse.switch.documents import Limit


class MailSystem:
    """Keeps what is submitted. fail: "before" loses the mail, "after" only the reply."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.fail: str | None = None
        self.refuses: set[str] = set()

    async def submit(self, mail: bytes, _sender: str, recipient: str) -> None:
        if self.fail == "before":
            raise UnavailableError("no connection")
        if recipient in self.refuses:
            raise ValueError("a bug in a client library")
        self.taken.append(mail)
        if self.fail == "after":
            raise ConnectionResetError


class Signer:
    """Finishes mails, each time with other octets, as encryption does."""

    def __init__(self) -> None:
        self.calls = 0
        self.off = False

    def finish(self, letter: Unsent) -> bytes:
        if self.off:
            raise UnavailableError("no key")
        self.calls += 1
        return b"%s %s %d" % (letter.message_id.encode(), letter.draft, self.calls)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> object:
        return self.now


def outbox(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock, switch: FakeSwitch | None = None
) -> Outbox:
    return Outbox(store.letters, signer.finish, mails.submit, lambda: clock.now, switch or FakeSwitch(), [AN_INSURER])


@pytest.fixture
def mails() -> MailSystem:
    return MailSystem()


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_recorded_letter_is_sent_once(store: EauStore, mails: MailSystem, signer: Signer, clock: Clock) -> None:
    file(store, faulty(1), faulty(2))
    box = outbox(store, mails, signer, clock)
    assert asyncio.run(box.step()) == Step(sent=2)
    assert asyncio.run(box.step()) == Step()
    assert [mail.split()[0] for mail in mails.taken] == [b"<l1@kk.kim.telematik>", b"<l2@kk.kim.telematik>"]
    assert store.letters.waiting() == 0


@pytest.mark.parametrize("fail", ["before", "after"])
def test_a_failure_is_tried_again_later_with_the_same_octets(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock, fail: str
) -> None:
    file(store, faulty(1))
    box = outbox(store, mails, signer, clock)
    mails.fail = fail
    assert asyncio.run(box.step()) == Step(failed=1)
    mails.fail = None
    assert asyncio.run(box.step()) == Step()  # not yet due
    clock.now += FIRST_PAUSE
    assert asyncio.run(box.step()) == Step(sent=1)
    assert len(set(mails.taken)) == 1
    assert signer.calls == 1


def test_a_crash_between_sending_and_marking_sends_the_same_octets_again(
    open_eau: Callable[[], EauStore], mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    file(open_eau(), faulty(1))

    class Killed(BaseException):
        pass

    async def submit_and_die(mail: bytes, _sender: str, _recipient: str) -> None:
        mails.taken.append(mail)
        raise Killed

    with pytest.raises(Killed):
        asyncio.run(
            Outbox(
                open_eau().letters, signer.finish, submit_and_die, lambda: clock.now, FakeSwitch(), [AN_INSURER]
            ).step()
        )
    assert asyncio.run(outbox(open_eau(), mails, signer, clock).step()) == Step(sent=1)
    first, second = mails.taken
    assert first == second


def test_two_outboxes_agree_on_the_octets_of_a_letter(store: EauStore) -> None:
    file(store, faulty(1))
    assert store.letters.keep_wire(1, b"mine") == b"mine"
    assert store.letters.keep_wire(1, b"yours") == b"mine"


def test_one_letter_that_cannot_go_does_not_keep_the_others(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    stuck = faulty(1)
    stuck.letter = type(stuck.letter)("<x@y>", "eau@kk.kim.telematik", "bad@b.kim.telematik", b"draft")
    file(store, stuck, faulty(2))
    mails.refuses.add("bad@b.kim.telematik")
    assert asyncio.run(outbox(store, mails, signer, clock).step()) == Step(sent=1, failed=1)


def test_a_key_that_is_off_is_waited_for(store: EauStore, mails: MailSystem, signer: Signer, clock: Clock) -> None:
    file(store, faulty(1))
    signer.off = True
    box = outbox(store, mails, signer, clock)
    assert asyncio.run(box.step()) == Step(failed=1)
    signer.off = False
    clock.now += LONGEST_PAUSE
    assert asyncio.run(box.step()) == Step(sent=1)


@given(st.integers(1, 10_000))
def test_pauses_grow_up_to_a_bound_and_never_end(attempts: int) -> None:
    assert FIRST_PAUSE <= pause_after(attempts) <= pause_after(attempts + 1) <= LONGEST_PAUSE


def test_the_loop_sends_what_it_is_woken_for_and_survives_a_store_that_is_off(
    sqlite_store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    file(sqlite_store, *(faulty(delivery) for delivery in range(1, BATCH + 3)))

    async def scenario() -> None:
        wake = asyncio.Event()
        wake.set()
        loop = asyncio.create_task(outbox(sqlite_store, mails, signer, clock).run(wake))
        while sqlite_store.letters.waiting():
            await asyncio.sleep(0)
        with sqlite_store._engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE eau_letter RENAME TO gone"))
        wake.set()
        while wake.is_set():
            await asyncio.sleep(0)
        assert not loop.done()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    asyncio.run(scenario())
    assert len(mails.taken) == BATCH + 2


def test_the_first_pause_is_short_because_an_answer_is_due_as_fast_as_possible() -> None:
    assert pause_after(1) <= timedelta(seconds=10)


# --- closed by the switch ---


def test_while_it_is_closed_nothing_leaves_and_the_letters_wait(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    """T-02: no Fehlernachricht leaves; afterwards each leaves once, without a pause that the closing cost."""
    switch = FakeSwitch()
    file(store, faulty(1))
    box = outbox(store, mails, signer, clock, switch)
    switch.set("eau/*/deliver", ScopeState.HOLD)
    assert asyncio.run(box.step()) == Step()
    assert (mails.taken, signer.calls, store.letters.waiting()) == ([], 0, 1)
    switch.set("eau/*/deliver", ScopeState.OPEN)
    assert asyncio.run(box.step()) == Step(sent=1)


def test_the_letters_of_one_closed_insurer_keep_back_nobody_elses(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    """T-24."""
    switch = FakeSwitch()
    file(store, *(faulty(number) for number in range(1, BATCH + 2)))
    file(store, faulty(100), ik=ANOTHER_INSURER)
    switch.set(f"eau_intake/{AN_INSURER}", ScopeState.HOLD)
    both = [AN_INSURER, ANOTHER_INSURER]
    box = Outbox(store.letters, signer.finish, mails.submit, lambda: clock.now, switch, both)
    assert asyncio.run(box.step()) == Step(sent=1)
    assert store.letters.waiting() == BATCH + 1


def test_of_a_limited_insurer_its_share_of_letters_leaves_and_the_others_keep_nobody_back(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    """RS-06, § 9.2: by the delivery that is answered; also where more than a batch of the others is older."""
    ids = [number << 10 for number in range(1, 3 * BATCH)]
    file(store, *(faulty(id) for id in ids))
    file(store, faulty(1), ik=ANOTHER_INSURER)
    switch, share = FakeSwitch(), 200
    switch.set(f"eau_intake/{AN_INSURER}/deliver", ScopeState.LIMITED, limit=Limit(permille=share))
    both = [AN_INSURER, ANOTHER_INSURER]
    box = Outbox(store.letters, signer.finish, mails.submit, lambda: clock.now, switch, both)
    inside = sum(share_of(id) < share for id in ids)
    assert 0 < inside < len(ids) / 2
    sent = 0
    while step := asyncio.run(box.step()).sent:
        sent += step
    assert (sent, store.letters.waiting()) == (inside + 1, len(ids) - inside)


@pytest.fixture
def limited() -> FakeSwitch:
    """Two letters of the first insurer an hour."""
    switch = FakeSwitch()
    switch.set(f"eau_intake/{AN_INSURER}/deliver", ScopeState.LIMITED, limit=Limit(per_hour=2))
    return switch


def test_of_a_limited_insurer_no_more_letters_than_its_rate_leave_in_any_hour(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock, limited: FakeSwitch
) -> None:
    """§ 9.2: also those that left before it was limited; nobody else's wait, nothing is opened that may not go."""
    file(store, faulty(1))
    assert asyncio.run(outbox(store, mails, signer, clock).step()) == Step(sent=1)
    file(store, *(faulty(id) for id in range(2, BATCH + 9)))
    file(store, faulty(100), ik=ANOTHER_INSURER)
    both = [AN_INSURER, ANOTHER_INSURER]
    box = Outbox(store.letters, signer.finish, mails.submit, lambda: clock.now, limited, both)

    def sent(minutes: int) -> int:
        clock.now = NOON + timedelta(minutes=minutes)
        return asyncio.run(box.step()).sent

    assert [sent(1), sent(2), sent(59)] == [1, 1, 0]  # the second is the other insurer's
    assert signer.calls == len(mails.taken) == 3
    assert [sent(60), sent(60), sent(61), sent(62), sent(121)] == [1, 0, 1, 0, 2]


def test_a_letter_that_is_tried_again_counts_once_in_the_hour(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock, limited: FakeSwitch
) -> None:
    file(store, faulty(1), faulty(2), faulty(3))
    box = outbox(store, mails, signer, clock, limited)
    mails.fail = "after"
    assert asyncio.run(box.step()) == Step(failed=2)
    mails.fail = None
    clock.now += FIRST_PAUSE
    assert [asyncio.run(box.step()) for _ in range(2)] == [Step(sent=2), Step()]
    assert len(set(mails.taken)) == 2


def test_letters_that_cannot_be_made_use_up_no_rate(
    store: EauStore, mails: MailSystem, clock: Clock, limited: FakeSwitch
) -> None:
    """Such as for a practice of whose certificates none can be encrypted for: it would starve all the others for ever.
    One that may have left counts on."""
    file(store, *(faulty(id) for id in range(1, 6)))
    broken = {1, 2}

    def finish(letter: Unsent) -> bytes:
        if letter.delivery in broken:
            raise ValueError("no way to encrypt for this practice")
        return letter.message_id.encode()

    box = Outbox(store.letters, finish, mails.submit, lambda: clock.now, limited, [AN_INSURER])
    assert asyncio.run(box.step()) == Step(sent=2, failed=2)
    for _ in range(4):
        clock.now += LONGEST_PAUSE
        step = asyncio.run(box.step())
    assert step.sent == 1
    broken.clear()
    mails.fail = "after"
    clock.now += LONGEST_PAUSE
    assert asyncio.run(box.step()) == Step(failed=1)  # of the two one fits beside the fifth
    mails.fail = None
    clock.now += LONGEST_PAUSE
    assert asyncio.run(box.step()) == Step(sent=1)
    assert len(set(mails.taken)) == 4


def test_a_clock_that_was_days_ahead_keeps_no_letter_back(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock, limited: FakeSwitch
) -> None:
    """Neither by a rate that was used up then, nor by a pause that began then."""
    clock.now += timedelta(days=3)
    file(store, faulty(1), faulty(2), faulty(3), faulty(4))
    assert asyncio.run(outbox(store, mails, signer, clock, limited).step()) == Step(sent=2)
    mails.fail = "before"
    assert asyncio.run(outbox(store, mails, signer, clock).step()) == Step(failed=2)
    mails.fail = None
    clock.now -= timedelta(days=3)
    assert asyncio.run(outbox(store, mails, signer, clock, limited).step()) == Step(sent=2)
    file(store, faulty(5))
    clock.now -= timedelta(minutes=30)
    assert asyncio.run(outbox(store, mails, signer, clock, limited).step()) == Step()  # these may well be of this hour


def test_a_killed_outbox_has_no_fresh_rate_when_it_comes_back(
    open_eau: Callable[[], EauStore], mails: MailSystem, signer: Signer, clock: Clock, limited: FakeSwitch
) -> None:
    """kill -9 while the second letter is on its way: that one goes again, and no other."""
    file(open_eau(), faulty(1), faulty(2), faulty(3))

    async def submit_and_die(mail: bytes, _sender: str, _recipient: str) -> None:
        mails.taken.append(mail)
        if len(mails.taken) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            mine = open_eau()
            box = Outbox(mine.letters, signer.finish, submit_and_die, lambda: clock.now, limited, [AN_INSURER])
            asyncio.run(box.step())
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    box = outbox(open_eau(), mails, signer, clock, limited)
    assert [asyncio.run(box.step()) for _ in range(2)] == [Step(sent=1), Step()]
    assert [mail.split()[0] for mail in mails.taken] == [b"<l2@kk.kim.telematik>"]
    clock.now += timedelta(hours=1)
    assert asyncio.run(box.step()) == Step(sent=1)


def test_a_sender_that_missed_the_closing_is_refused_before_anything_leaves(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    """SW-06, T-05: at the store, and not only because it was asked to stop."""
    file(store, faulty(1))
    store.raise_fence({delivering(AN_INSURER): 7}, 7)
    assert asyncio.run(outbox(store, mails, signer, clock).step()) == Step()
    assert mails.taken == []
    assert [letter.attempts for letter in store.letters.due(clock.now, 10)] == [0]


def test_a_letter_that_was_cut_goes_again_with_the_same_octets(
    store: EauStore, mails: MailSystem, signer: Signer, clock: Clock
) -> None:
    """SW-10: listed as uncertain by the delivery that it answers."""
    file(store, faulty(1))
    sent: list[bytes] = []

    async def hang(mail: bytes, _sender: str, _recipient: str) -> None:
        sent.append(mail)
        hanging.set()
        await asyncio.Event().wait()

    async def cut_while_it_hangs() -> tuple[Step, list[str]]:
        box = Outbox(store.letters, signer.finish, hang, lambda: clock.now, FakeSwitch(), [AN_INSURER])
        step = asyncio.create_task(box.step())
        await hanging.wait()
        assert await box.cut([delivering(ANOTHER_INSURER)]) == []
        uncertain = await box.cut([delivering(AN_INSURER)])
        return await step, list(uncertain)

    hanging = asyncio.Event()
    assert asyncio.run(cut_while_it_hangs()) == (Step(), ["letter 1"])
    assert asyncio.run(outbox(store, mails, signer, clock).step()) == Step(sent=1)
    assert mails.taken == sent


def test_a_letter_that_left_while_it_was_closed_is_uncertain_and_goes_again(
    store: EauStore, signer: Signer, clock: Clock
) -> None:
    """The mail system keeps the same octets once."""
    file(store, faulty(1))
    taken: list[bytes] = []

    async def close_meanwhile(mail: bytes, _sender: str, _recipient: str) -> None:
        taken.append(mail)
        store.raise_fence({delivering(AN_INSURER): 7}, 7)

    box = Outbox(store.letters, signer.finish, close_meanwhile, lambda: clock.now, FakeSwitch(), [AN_INSURER])
    assert asyncio.run(box.step()) == Step()
    assert store.letters.waiting() == 1
    assert asyncio.run(box.cut([])) == ["letter 1"]
    (letter,) = store.letters.due(clock.now, 10)
    assert letter.wire == taken[0]
