"""Passwords of mail accounts: argon2id, with a limit on guessing and a short memory of what was right.

Who talks to it: the SMTP and POP3 listeners. `check` returns at once; the answer comes from a small pool of threads.

Why a memory of right passwords: one argon2id verification takes some 50 ms and 64 MiB on purpose (RFC 9106 § 4,
second recommendation), and a practice's program logs in anew for each mail and each poll. 350,000 sick notes resent
after an outage would cost hours of CPU. So a password that was just right is recognised by an HMAC under a key that
lives only in this process, for ten minutes from its last use; it is bound to the stored hash, so a changed password
ends it at once. The same password and the same hash are the same answer, so use renews it: what was verified together,
as by a proof that asks eighty mailboxes, would be forgotten together.
Who can read this memory can read the passwords that clients send, too. Wrong passwords are never remembered: each
guess pays. The same login from several connections at once is verified once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from schleuse.errors import CorruptError, Error, RefusedError, UnavailableError


class WrongPasswordError(RefusedError):
    """Unknown account or wrong password; nobody outside learns which."""

    code = "mail.wrong-password"


class TooManyGuessesError(UnavailableError):
    """Too many failed logins from there for now; a right password would not be looked at either."""

    code = "mail.too-many-guesses"


class PasswordsBusyError(UnavailableError):
    """Too many logins wait to be checked, or the role is stopping; the client tries again."""

    code = "mail.passwords-busy"


class BadPasswordHashError(CorruptError):
    """A stored password hash cannot be used; the operator sets the password anew."""

    code = "mail.bad-password-hash"


#: The name of the account that logged in, or why not.
Outcome = str | Error


class CheckPasswords(Protocol):
    """What a listener needs."""

    def check(self, user: str, password: str, peer: str, done: Callable[[Outcome], None]) -> None:
        """Returns at once; done is called once, from any thread. peer: IP address of the client."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """name: what the rest of the platform calls the account. hash: argon2id in PHC string format."""

    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket as a value: tokens are left as of an instant."""

    tokens: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Rate:
    """burst: tokens of a full bucket. refill: time until one comes back."""

    burst: int
    refill: timedelta

    def after(self, bucket: Bucket | None, now: datetime) -> Bucket:
        """The bucket as it is now. None is full, and a clock that goes back refills nothing."""
        if bucket is None:
            return Bucket(self.burst, now)
        back = max(timedelta(0), now - bucket.at) / self.refill
        return Bucket(min(float(self.burst), bucket.tokens + back), now)

    def take(self, bucket: Bucket | None, now: datetime) -> Bucket | None:
        """The bucket with one token less, or None if it has none."""
        filled = self.after(bucket, now)
        return replace(filled, tokens=filled.tokens - 1) if filled.tokens >= 1 else None


#: Per account and peer: five wrong passwords at once, then one a minute. A practice that mistyped
#: its password is not locked out by an attacker elsewhere, because the peer is part of the key.
GUESSES = Rate(burst=5, refill=timedelta(minutes=1))
#: Per peer over all accounts, against one password tried on many accounts. Higher: many practices
#: share the address of one data centre.
GUESSES_OF_PEER = Rate(burst=50, refill=timedelta(seconds=5))
REMEMBER = timedelta(minutes=10)
MAX_REMEMBERED = 20_000  #: accounts whose last right password is known; 100 octets each
MAX_BUCKETS = 50_000  #: oldest forgotten first; at one a minute they are full again long before
MAX_WAITING = 64  #: checks in the queue; 64 x 50 ms / 2 threads = 1.6 s, within any client's patience
THREADS = 2


def hash_password(password: str) -> str:
    """A new argon2id hash with the parameters of RFC 9106 § 4 (second recommendation)."""
    return PasswordHasher().hash(password)


@dataclass(frozen=True, slots=True, repr=False)
class _Login:
    """keys: of the two buckets, account with peer and peer alone."""

    account: Account | None
    password: str
    keys: tuple[tuple[str, ...], ...]


_WRONG = "wrong user name or password; the account's owner knows the right one"


class Passwords:
    """Checks logins against accounts.

    find: the account of a user name, or None; may raise an `Error` (MalformedError for a user name that cannot be one).
    now: the clock. memory_key: 32 random octets of this process. Close it with `close`.
    """

    def __init__(
        self,
        find: Callable[[str], Account | None],
        *,
        now: Callable[[], datetime],
        memory_key: bytes,
        hasher: PasswordHasher | None = None,
        guesses: Rate = GUESSES,
        guesses_of_peer: Rate = GUESSES_OF_PEER,
    ) -> None:
        self._find = find
        self._now = now
        self._key = memory_key
        self._hasher = hasher or PasswordHasher()
        self._rates = (guesses, guesses_of_peer)
        # Verified when the account is unknown, so that both cases take as long.
        self._nobody = Account("", self._hasher.hash(memory_key))
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._lock = threading.Lock()
        self._running: dict[bytes, list[Callable[[Outcome], None]]] = {}
        self._buckets: OrderedDict[tuple[str, ...], Bucket] = OrderedDict()
        self._remembered: OrderedDict[str, tuple[bytes, datetime]] = OrderedDict()  # tag, when it was right

    def check(self, user: str, password: str, peer: str, done: Callable[[Outcome], None]) -> None:
        """As `CheckPasswords.check`."""
        try:
            account = self._find(user)
        except Error as error:
            done(error)
            return
        login = _Login(account, password, ((account.name if account else user.casefold(), peer), (peer,)))
        answer = self._begin(login, done)
        if answer is not None:
            done(answer)

    async def authenticate(self, user: str, password: str, peer: str) -> str | None:
        """The same for a caller in an event loop (`mail.pop3_listener`): None for a wrong login.

        Raises: the other errors of `check`.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not answer.done():  # the caller may have been cancelled
                answer.set_result(outcome)

        self.check(user, password, peer, lambda outcome: _in_loop(loop, lambda: settle(outcome)))
        outcome = await answer
        if isinstance(outcome, str):
            return outcome
        if isinstance(outcome, RefusedError):
            return None
        raise outcome

    def _begin(self, login: _Login, done: Callable[[Outcome], None]) -> Outcome | None:
        """Hand the login to the pool, or answer at once."""
        tag = self._tag(login)
        with self._lock:
            if login.account is not None and self._knows(login.account, tag):
                self._remember(login.account, tag)
                return login.account.name
            if tag in self._running:
                self._running[tag].append(done)
                return None
            # The tokens are taken before the work and given back if the password was right, so
            # that guesses in parallel cannot overtake the limit.
            refusal = self._admit(login.keys)
            if refusal is not None:
                return refusal
            try:
                self._pool.submit(self._work, login, tag)
            except RuntimeError:  # closed
                return PasswordsBusyError("this process is going down")
            self._running[tag] = [done]
            return None

    def close(self) -> None:
        """Ends the threads; what waits is still answered."""
        self._pool.shutdown(wait=True)

    def _admit(self, keys: tuple[tuple[str, ...], ...]) -> UnavailableError | None:
        if len(self._running) >= MAX_WAITING:
            return PasswordsBusyError(f"{len(self._running)} logins wait; the client tries again")
        now = self._now()
        taken = [rate.take(self._buckets.get(key), now) for rate, key in zip(self._rates, keys, strict=True)]
        if None in taken:
            return TooManyGuessesError("too many failed logins from one peer; it waits a minute")
        for key, bucket in zip(keys, taken, strict=True):
            if bucket is not None:
                self._put_bucket(key, bucket)
        return None

    def _put_bucket(self, key: tuple[str, ...], bucket: Bucket) -> None:
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)

    def _work(self, login: _Login, tag: bytes) -> None:
        try:
            outcome = self._verify(login)
        except Exception as fault:  # the thread's top: the client must hear something
            outcome = UnavailableError(f"a password could not be checked ({type(fault).__name__})")
        with self._lock:
            if login.account is not None and isinstance(outcome, str):
                self._remember(login.account, tag)
            if not isinstance(outcome, RefusedError):
                self._give_back(login.keys)
            waiting = self._running.pop(tag)
        for done in waiting:
            done(outcome)

    def _give_back(self, keys: tuple[tuple[str, ...], ...]) -> None:
        for key in keys:
            bucket = self._buckets.get(key)
            if bucket is not None:
                self._buckets[key] = replace(bucket, tokens=bucket.tokens + 1)

    def _verify(self, login: _Login) -> Outcome:
        try:
            self._hasher.verify((login.account or self._nobody).hash, login.password)
        except VerifyMismatchError:
            return WrongPasswordError(_WRONG)
        except (InvalidHashError, VerificationError) as cause:
            return BadPasswordHashError(f"a stored password hash cannot be used ({type(cause).__name__})")
        return WrongPasswordError(_WRONG) if login.account is None else login.account.name

    def _tag(self, login: _Login) -> bytes:
        # A PHC string has no NUL, so the parts cannot run into each other.
        known = f"{login.account.name}\0{login.account.hash}" if login.account else f"\0\0{login.keys}"
        return hmac.digest(self._key, f"{known}\0{login.password}".encode(), "sha256")

    def _knows(self, account: Account, tag: bytes) -> bool:
        remembered = self._remembered.get(account.name)
        if remembered is None:
            return False
        return hmac.compare_digest(remembered[0], tag) and self._now() - remembered[1] < REMEMBER

    def _remember(self, account: Account, tag: bytes) -> None:
        self._remembered[account.name] = (tag, self._now())
        self._remembered.move_to_end(account.name)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits any more
        loop.call_soon_threadsafe(call)
