"""The states of one accepted message for one recipient, and every legal move (incident.md § 6.2, HD-21).

What the states mean for a message that nobody switched off:

    HELD              durable and waiting: in a mailbox, in the outbound queue, or closed in
    RELEASING         a worker has it under a lease; a lost lease puts it back to HELD
    DELIVERED         filed in the store, taken over by the next host, or fetched and deleted by its owner
    CONFIRMED         the insurer's own system has acknowledged it
    DUPLICATE_LINKED  the same content was already there; linked to the first
    QUARANTINED       kept aside for people; not returned, not processed
    RETURNED          a Fehlernachricht or a failure DSN with a reason that is true for this message was recorded
    WITHDRAWN         withdrawn by its sender before it was processed
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from schleuse.errors import ConflictError


class IllegalMoveError(ConflictError):
    """A move that the table does not have; a mistake of ours."""

    code = "holding.illegal-move"


class State(StrEnum):
    """Values letter for letter as in incident.md appendix A. DEFERRED is never an accepted message's state."""

    ACCEPTED = "ACCEPTED"
    HELD = "HELD"
    RELEASING = "RELEASING"
    DELIVERED = "DELIVERED"
    CONFIRMED = "CONFIRMED"
    QUARANTINED = "QUARANTINED"
    DUPLICATE_LINKED = "DUPLICATE_LINKED"
    RETURNED = "RETURNED"
    WITHDRAWN = "WITHDRAWN"
    DEFERRED = "DEFERRED"


#: Every legal move. A message is RETURNED only out of RELEASING (a checked, named fault of that message)
#: or after people looked at it in QUARANTINED. HELD mail that is suspected goes there unopened (HD-47).
MOVES: Mapping[State, frozenset[State]] = {
    State.ACCEPTED: frozenset({State.HELD, State.DEFERRED, State.DUPLICATE_LINKED, State.DELIVERED}),
    State.HELD: frozenset({State.RELEASING, State.WITHDRAWN, State.DELIVERED, State.QUARANTINED}),
    State.RELEASING: frozenset(
        {State.HELD, State.DELIVERED, State.QUARANTINED, State.DUPLICATE_LINKED, State.RETURNED}
    ),
    State.QUARANTINED: frozenset({State.HELD, State.RETURNED}),
    State.DELIVERED: frozenset({State.CONFIRMED}),
    State.CONFIRMED: frozenset(),
    State.DUPLICATE_LINKED: frozenset(),
    State.RETURNED: frozenset(),
    State.WITHDRAWN: frozenset(),
    State.DEFERRED: frozenset(),
}

#: States in which somebody still has to do something.
WAITING = frozenset({State.ACCEPTED, State.HELD, State.RELEASING, State.QUARANTINED})


def require_move(before: State, after: State) -> None:
    """Raises IllegalMoveError unless the table allows it."""
    if after not in MOVES[before]:
        raise IllegalMoveError(f"a message in state {before} cannot become {after}")
