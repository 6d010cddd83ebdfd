"""Round trips to the vault: one for a batch, and one thing that cannot be served holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from schleuse.eau.findings import Trouble
from schleuse.errors import Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.vault.contracts import CounterAheadError, NotAllowedError, OverBudgetError

A = TypeVar("A")
B = TypeVar("B")

FIRST_REST = timedelta(seconds=2)
LONGEST_REST = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Trip(Generic[B]):
    """answers: one for each item, in order; an exception in place of what could not be had.

    refused: why the vault serves this insurer nothing now, None if it does.
    """

    answers: list[B | Exception]
    refused: Error | None = None


#: What is not due to one item of a batch.
_OF_ALL = (UnavailableError, NotAllowedError, CounterAheadError)


def ask(call: Callable[[Sequence[A]], Sequence[B]], items: Sequence[A]) -> Trip[B]:
    """All items in one round trip; nothing to ask is none.

    Over the budget, half of them are asked for, and so on: a batch larger than the budget must not wait for ever.
    Where the fault may be that of one item, each is asked for alone. Never raises `Exception`.
    """
    if not items:
        return Trip([])
    try:
        return Trip(_as_many(call(items), len(items)))
    except OverBudgetError as error:
        some = ask(call, items[: len(items) // 2])
        return Trip([*some.answers, *[error] * (len(items) - len(some.answers))], error)
    except _OF_ALL as error:
        return Trip([error] * len(items), error)
    except Exception as error:
        if len(items) == 1:
            return Trip([error])
        alone = [ask(call, [item]) for item in items]
        refused = [trip.refused for trip in alone if trip.refused is not None]
        return Trip([trip.answers[0] for trip in alone], refused[0] if refused else None)


def _as_many(answers: Sequence[B], number: int) -> list[B | Exception]:
    if len(answers) != number:
        raise AssertionError(f"the vault gave {len(answers)} answers to {number} questions")
    return list(answers)


_TROUBLE = {
    "vault": Trouble.KEY,
    "smime": Trouble.TRUST,
    "kim": Trouble.DIRECTORY,
    "fhir": Trouble.VALIDATOR,
    "eau": Trouble.VALIDATOR,
}


def trouble_of(error: Exception) -> Trouble:
    """Whose trouble an error of ours is, by the part of the program that its code names."""
    if isinstance(error, OverBudgetError):
        return Trouble.BUDGET
    if isinstance(error, Error):
        return _TROUBLE.get(error.code.partition(".")[0], Trouble.INTERNAL)
    return Trouble.INTERNAL


class Rests:
    """Insurers that the vault does not serve now: their mail is left alone for a while, longer from time to time.

    Otherwise a worker would go through a whole backlog again and again, and each refused attempt is an entry in the
    insurer's journal.
    """

    def __init__(self) -> None:
        self._until: dict[IK, tuple[datetime, timedelta]] = {}

    def resting(self, ik: IK, now: datetime) -> bool:
        """Whether the insurer's mail is left alone."""
        return ik in self._until and now < self._until[ik][0]

    def note(self, ik: IK, refused: bool, now: datetime) -> None:
        """How the last batch of this insurer went."""
        if not refused:
            self._until.pop(ik, None)
            return
        last = self._until.get(ik)
        pause = FIRST_REST if last is None else min(last[1] * 2, LONGEST_REST)
        self._until[ik] = (now + pause, pause)
