from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import Error, MalformedError, RefusedError, UnavailableError
from schleuse.mail.passwords import (
    REMEMBER,
    Account,
    BadPasswordHashError,
    Bucket,
    Outcome,
    Passwords,
    Rate,
    TooManyGuessesError,
    WrongPasswordError,
    hash_password,
)

START = datetime(2026, 3, 2, tzinfo=UTC)
#: The real thing with less work, so that the tests are quick.
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
USER, PASSWORD = "praxis@a.kim.telematik", "geheim"
PEER = "192.0.2.1"
MINUTE = timedelta(minutes=1)


class CountingHasher(PasswordHasher):
    """The real hasher; counts how often it worked, and can fail."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified = 0
        self.fails: Exception | None = None

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        if self.fails is not None:
            raise self.fails
        self.verified += 1
        return super().verify(hash, password)


@dataclass
class House:
    """Passwords over a table of accounts, with a clock that tests move."""

    now: datetime = START
    hasher: CountingHasher = field(default_factory=CountingHasher)
    accounts: dict[str, Account] = field(default_factory=lambda: {USER: Account(USER, QUICK.hash(PASSWORD))})
    fails: Error | None = None

    def __post_init__(self) -> None:
        self.passwords = Passwords(self.find, now=lambda: self.now, memory_key=b"k" * 32, hasher=self.hasher)

    def find(self, user: str) -> Account | None:
        if self.fails is not None:
            raise self.fails
        return self.accounts.get(user.casefold())

    def check(self, password: str = PASSWORD, *, user: str = USER, peer: str = PEER) -> Outcome:
        answers: queue.Queue[Outcome] = queue.Queue()
        self.passwords.check(user, password, peer, answers.put)
        return answers.get(timeout=20)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.passwords.close()


def test_the_right_password_gives_the_name_of_the_account(house: House) -> None:
    assert house.check() == USER
    assert house.check(user=USER.upper()) == USER


def test_an_unknown_account_and_a_wrong_password_sound_and_cost_the_same(house: House) -> None:
    wrong, unknown = house.check("falsch"), house.check(user="nobody@a.kim.telematik")
    assert isinstance(wrong, WrongPasswordError)
    assert isinstance(unknown, WrongPasswordError)
    assert str(wrong) == str(unknown)
    assert house.hasher.verified == 2


def test_new_hashes_are_argon2id_as_rfc_9106_wants_it() -> None:
    hashed = hash_password(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_right_password_is_remembered_for_a_while(house: House) -> None:
    for _ in range(5):
        assert house.check() == USER
    assert house.hasher.verified == 1
    house.now += REMEMBER
    assert house.check() == USER
    assert house.hasher.verified == 2


def test_whoever_comes_again_in_time_is_remembered_on(house: House) -> None:
    """Else all that a proof has asked together are forgotten together, and the next proof begins with eighty first."""
    for _ in range(5):
        assert house.check() == USER
        house.now += REMEMBER * 0.9
    assert house.hasher.verified == 1


def test_a_wrong_password_is_never_remembered(house: House) -> None:
    house.check()
    for _ in range(3):
        assert isinstance(house.check("falsch"), WrongPasswordError)
    assert house.hasher.verified == 4


def test_a_changed_password_ends_the_memory_at_once(house: House) -> None:
    house.check()
    house.accounts[USER] = Account(USER, QUICK.hash("neu"))
    assert isinstance(house.check(), WrongPasswordError)
    assert house.check("neu") == USER


def test_a_removed_account_is_out_at_once(house: House) -> None:
    house.check()
    del house.accounts[USER]
    assert isinstance(house.check(), WrongPasswordError)


def test_guessing_is_slowed_to_one_a_minute(house: House) -> None:
    answers = [house.check(f"guess {number}") for number in range(7)]
    assert [type(answer) for answer in answers] == [WrongPasswordError] * 5 + [TooManyGuessesError] * 2
    house.now += MINUTE
    assert isinstance(house.check("one more"), WrongPasswordError)
    assert isinstance(house.check("and more"), TooManyGuessesError)


def test_slowing_one_peer_down_does_not_lock_out_the_owner_elsewhere(house: House) -> None:
    for number in range(7):
        house.check(f"guess {number}")
    assert house.check(peer="192.0.2.99") == USER


def test_the_owner_is_not_slowed_down_by_many_right_logins(house: House) -> None:
    for _ in range(50):
        assert house.check() == USER
        house.now += REMEMBER  # each one is worked out anew


def test_trying_many_accounts_from_one_peer_is_slowed_down_too(house: House) -> None:
    answers = [house.check(user=f"a{number}@x") for number in range(60)]
    assert sum(isinstance(answer, WrongPasswordError) for answer in answers) == 50
    assert isinstance(answers[-1], TooManyGuessesError)


def test_the_same_login_on_many_connections_is_worked_out_once(house: House) -> None:
    answers: queue.Queue[Outcome] = queue.Queue()
    for _ in range(40):
        house.passwords.check(USER, PASSWORD, PEER, answers.put)
    assert {answers.get(timeout=20) for _ in range(40)} == {USER}
    assert house.hasher.verified <= 2


def test_a_user_name_that_cannot_be_one_says_so(house: House) -> None:
    house.fails = MalformedError("not of the pattern")
    assert house.check() is house.fails


def test_a_broken_hash_is_our_own_trouble(house: House) -> None:
    house.accounts[USER] = Account(USER, "no hash")
    answer = house.check()
    assert isinstance(answer, BadPasswordHashError)
    assert not isinstance(answer, RefusedError)


def test_after_closing_a_login_is_put_off(house: House) -> None:
    house.passwords.close()
    answer = house.check()
    assert isinstance(answer, UnavailableError)
    house.passwords.close()


def test_a_fault_of_the_hasher_is_our_own_trouble(house: House) -> None:
    house.hasher.fails = MemoryError()
    answer = house.check()
    assert isinstance(answer, UnavailableError)


def test_a_coroutine_gets_the_name_none_or_an_error(house: House) -> None:
    async def ask(password: str) -> str | None:
        return await house.passwords.authenticate(USER, password, PEER)

    assert asyncio.run(ask(PASSWORD)) == USER
    assert asyncio.run(ask("falsch")) is None
    house.fails = UnavailableError("off")
    with pytest.raises(UnavailableError):
        asyncio.run(ask(PASSWORD))


def test_no_repr_shows_a_hash(house: House) -> None:
    assert "argon2" not in repr(house.accounts[USER])


RATE = Rate(burst=5, refill=MINUTE)


def test_a_full_bucket_gives_its_burst_and_then_one_a_minute() -> None:
    bucket: Bucket | None = None
    for _ in range(5):
        bucket = RATE.take(bucket, START)
        assert bucket is not None
    assert RATE.take(bucket, START) is None
    assert RATE.take(bucket, START + MINUTE) == Bucket(0, START + MINUTE)


@given(st.lists(st.integers(-120, 600), max_size=60))
def test_no_sequence_of_moments_gets_more_than_burst_and_refill(steps: list[int]) -> None:
    bucket: Bucket | None = None
    now, latest, taken = START, START, 0
    for seconds in steps:
        now += timedelta(seconds=seconds)
        latest = max(latest, now)
        left = RATE.take(bucket, now)
        if left is not None:
            bucket, taken = left, taken + 1
        assert bucket is None or 0 <= bucket.tokens <= RATE.burst
    forward = timedelta(seconds=sum(step for step in steps if step > 0))
    assert taken <= RATE.burst + forward / RATE.refill
