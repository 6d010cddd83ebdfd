"""How a worker takes mail out of mailboxes: under a lease that runs out (HELD -> RELEASING -> …)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from schleuse.kim.store.delivery import Claimed, Outcome


class Leases:
    """The worker's side of the mail store; any number of processes may have one, each with its own owner name.

    Each method is one transaction. All raise UnavailableError when the store cannot serve now.
    """

    def claim(self, accounts: Sequence[str], limit: int, owner: str, now: datetime, lease: timedelta) -> list[Claimed]:
        """The oldest waiting deliveries of these accounts, in acceptance order: HELD -> RELEASING.

        Leases of these accounts that ran out before `now` go back to HELD first.
        """
        raise NotImplementedError

    def finish(self, outcomes: Sequence[Outcome], owner: str, now: datetime) -> frozenset[int]:
        """RELEASING -> the outcome's state, for the deliveries that `owner` still has.

        Returns the ids that it no longer had (lease ran out); those are untouched and come again.
        Raises IllegalMoveError.
        """
        raise NotImplementedError

    def put_back(self, ids: Sequence[int], owner: str, not_before: datetime) -> int:
        """RELEASING -> HELD, not to be claimed before that time. Returns how many were still ours."""
        raise NotImplementedError

    def reset(self, owner: str) -> int:
        """All of the owner's leases back to HELD: what a worker calls when it starts. Returns how many."""
        raise NotImplementedError

    def confirm(self, ids: Sequence[int], now: datetime) -> int:
        """DELIVERED -> CONFIRMED; others are untouched. Returns how many moved."""
        raise NotImplementedError

    def oldest_claimed(self, accounts: Sequence[str]) -> int | None:
        """The lowest delivery id of these accounts that is RELEASING, or None."""
        raise NotImplementedError

    def close(self) -> None:
        """Close files and connections."""


def open_leases(url: str, spool: str) -> Leases:
    """For the `eau` role. url: of the `kim` database; spool: directory of the segments (unused with PostgreSQL)."""
    raise NotImplementedError
