"""Conservation: every accepted mail is in exactly one state for each recipient, and nothing else is there (HD-21).

    accepted = held + releasing + delivered + confirmed + quarantined + duplicate_linked + returned + withdrawn

Pure: the numbers come in from sources that do not know each other (what the segments or rows of mail say was accepted,
what the deliveries say became of it, what the marks say was finished), and every difference is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schleuse.holding.states import State

#: A finding names at most this many ids; its number is always exact.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Books:
    """What was found by reading every source once.

    recorded: deliveries that the records of accepted mail ask for (mails times recipients), of mails that were routed.
    retired: the same, of records that were removed after their retention. unrouted: accepted, not routed yet.
    states: deliveries by account and state. The sequences name single deliveries (by id):
    without_delivery: a record asks for it, and it is not there. without_record: it is there, and no record asks for it.
    damaged: its content or record can no longer be read, and it was not purged.
    broken_links: DUPLICATE_LINKED to a delivery that is not there.
    finished_but_waiting: a mark says that it is finished, and it waits to be handed out again.
    unreported: its DSN can never be built.
    """

    recorded: int
    retired: int
    unrouted: int
    states: Mapping[str, Mapping[State, int]]
    without_delivery: Sequence[int] = ()
    without_record: Sequence[int] = ()
    damaged: Sequence[int] = ()
    broken_links: Sequence[int] = ()
    finished_but_waiting: Sequence[int] = ()
    unreported: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """One line of the check: deliveries of an account in each state."""

    name: str
    states: Mapping[State, int]

    @property
    def total(self) -> int:
        """All its deliveries."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The outcome. accepted: by the records of mail. accounted: by the states; equal when nothing is missing.

    findings: what contradicts conservation. remarks: what heals by itself.
    """

    accepted: int
    accounted: int
    unrouted: int
    accounts: tuple[Account, ...]
    findings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every accepted mail is in exactly one state and nothing contradicts it."""
        return not self.findings

    def total(self, state: State) -> int:
        """Deliveries in a state, over all accounts; ACCEPTED are those not routed yet."""
        routed = sum(account.states.get(state, 0) for account in self.accounts)
        return routed + (self.unrouted if state is State.ACCEPTED else 0)


def reconcile(books: Books) -> Reconciliation:
    """Compare the sources."""
    accounts = tuple(Account(name, dict(states)) for name, states in sorted(books.states.items()))
    accepted = books.recorded + books.retired + books.unrouted
    accounted = sum(account.total for account in accounts) + books.unrouted
    findings = [
        *_balance(accepted, accounted),
        *_foreign_states(accounts),
        *_named(books.without_delivery, "accepted, but has no delivery; route again or rebuild the index"),
        *_named(books.without_record, "has a delivery, but no accepted mail; the segments are incomplete"),
        *_named(books.damaged, "its record no longer matches its seal; restore the segment or the row"),
        *_named(books.broken_links, "linked as a duplicate to a delivery that is not there"),
        *_named(books.unreported, "its DSN could not be built; tell its sender in another way"),
    ]
    remarks = _named(
        books.finished_but_waiting,
        "was finished and waits again (a crash cut its transaction off, or an older index was restored);"
        " who finished it will know it again",
    )
    return Reconciliation(accepted, accounted, books.unrouted, accounts, tuple(findings), tuple(remarks))


def _balance(accepted: int, accounted: int) -> list[str]:
    if accepted == accounted:
        return []
    word = "missing" if accounted < accepted else "too many"
    return [f"{accepted} accepted, {accounted} accounted for: {abs(accepted - accounted)} {word}"]


def _foreign_states(accounts: Sequence[Account]) -> list[str]:
    """No delivery is ever ACCEPTED (that is a mail without one) or DEFERRED (that was never accepted)."""
    return [
        f"{account.states[state]} of account {account.name} are {state.value}, which no delivery can be"
        for account in accounts
        for state in (State.ACCEPTED, State.DEFERRED)
        if account.states.get(state)
    ]


def _named(ids: Sequence[int], what: str) -> list[str]:
    if not ids:
        return []
    shown = ", ".join(str(id) for id in ids[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
    return [f"{len(ids)} × {what}: {shown}"]
