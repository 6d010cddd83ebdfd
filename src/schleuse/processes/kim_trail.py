"""What the `kim` role tells the journals: each mail accepted into an insurer's mailbox, and each login."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from schleuse.clock import Now
from schleuse.errors import MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.entry import NOTHING, Entry, Kind, Purpose, Result
from schleuse.journal.opening import Json, object_commitment
from schleuse.kim.accounts import Accounts, BadUserNameError, mailbox_user
from schleuse.kim.store import Acceptance, MailStore
from schleuse.mail.passwords import Outcome, Passwords, TooManyGuessesError
from schleuse.processes.refusals import Refusals
from schleuse.processes.trail import AT_ONCE, ON_TIME, PLATFORM, Act, Trail, new_event
from schleuse.vault.denials import Denials

Insurers = Callable[[str], IK | None]


def acceptance_entry(accepted: Acceptance, now: datetime) -> bytes:
    """The entry of one delivery into an insurer's mailbox; told again, it is the same event.

    Its object commits to the delivery's id and the mail's digest. The salt comes out of the digest, which nobody can
    guess who has not the mail; so the store itself is the opening, and a store can be held against the journal.
    """
    digest = accepted.digest
    unique = hashlib.sha256(b"schleuse accepted %d " % accepted.id + (digest or b"")).digest()
    entry = Entry(
        Kind.SPOOL_ACCEPTED,
        Result.GRANTED,
        Purpose.EAU_INTAKE,
        accepted.accepted_at if abs(now - accepted.accepted_at) < ON_TIME else now,
        new_event(accepted.accepted_at, int.from_bytes(unique[:10])),
        object=NOTHING if digest is None else object_commitment(digest[:16], object_name(accepted.id, digest), 0),
    )
    return entry.encode()


def object_name(delivery: int, digest: bytes) -> str:
    """How an accepted mail is called in the journal."""
    return f"mail:{delivery}:{digest.hex()}"


def acceptances(
    store: MailStore, insurer_of: Insurers, now: Now
) -> Callable[[int], tuple[list[tuple[str, bytes]], int]]:
    """For `Trail`: the entries after a cursor, which is the id of a delivery."""

    def after(cursor: int) -> tuple[list[tuple[str, bytes]], int]:
        accepted = store.acceptances(cursor, AT_ONCE)
        at = now()
        entries = [
            (str(ik), acceptance_entry(one, at)) for one in accepted if (ik := insurer_of(one.account)) is not None
        ]
        return entries, accepted[-1].id if accepted else cursor

    return after


class ToldLogins:
    """`Passwords` whose every answer leaves an entry: in the insurer's log for its mailbox, else in the platform's.

    Failures of one account are coalesced (journal.md § 14.4), so that guessing does not flood the log.
    """

    def __init__(self, logins: Passwords, accounts: Accounts, trail: Trail, denials: Denials, now: Now) -> None:
        self._logins = logins
        self._accounts = accounts
        self._trail = trail
        self.refusals = Refusals("logins", denials, self._failed, now)

    def check(self, user: str, password: str, peer: str, done: Callable[[Outcome], None]) -> None:
        """As `Passwords.check`."""

        def told(outcome: Outcome) -> None:
            try:
                self._tell(user, peer, outcome)
            except UnavailableError as error:  # what leaves no trace is not done
                outcome = error
            done(outcome)

        self._logins.check(user, password, peer, told)

    async def authenticate(self, user: str, password: str, peer: str) -> str | None:
        """As `Passwords.authenticate`."""
        try:
            account = await self._logins.authenticate(user, password, peer)
        except (TooManyGuessesError, MalformedError) as error:
            self._tell(user, peer, error)
            raise
        self._tell(user, peer, account if account is not None else RefusedError("wrong"))
        return account

    def _tell(self, user: str, peer: str, outcome: Outcome) -> None:
        if isinstance(outcome, str):
            act = Act(self._tenant(outcome), Kind.LOGIN, Result.GRANTED, Purpose.OPERATION, outcome, {"peer": peer})
            self._trail.tell(act)
        elif isinstance(outcome, RefusedError | MalformedError | TooManyGuessesError):
            # A name that is no account may be anything, even a password typed into the wrong field.
            name = self._known(user) or "unknown account"
            self.refusals.refused(name, (name, peer))

    def _failed(self, what: tuple[str, str], count: int | None) -> None:
        name, peer = what
        detail: dict[str, Json] = {"peer": peer if count is None else ""}  # many may come from many places
        act = Act(self._tenant(name), Kind.LOGIN_FAILED, Result.DENIED, Purpose.OPERATION, name, detail, count=count)
        self._trail.tell(act)

    def _known(self, user: str) -> str | None:
        try:
            account = self._accounts.get(mailbox_user(user))
        except BadUserNameError:
            return None
        return account.address if account else None

    def _tenant(self, name: str) -> str:
        account = self._accounts.get(name)
        return str(account.insurer) if account is not None and account.insurer is not None else PLATFORM
