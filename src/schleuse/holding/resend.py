"""Do I have to resend anything? The definite answer for each practice and insurer after a hold (incident.md § 6.8).

    yes, these  mails that were returned, deferred attempts that never came back, units of which nobody knows
    no          everything else: what was accepted is held, on its way, or delivered, and will be

Pure: the rows come from the records of accepted mail and of deferred attempts, nothing is typed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schleuse.holding.states import WAITING, State
from schleuse.journal.opening import Json
from schleuse.switch.documents import time_text


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """One accepted mail for one insurer. reference: the sender's Message-ID. held: it was held by the switch.

    uncertain: a worker was cut while it had it, and nobody knows how that ended (SW-10).
    """

    sender: str
    ik: str
    reference: str
    accepted_at: datetime
    state: State
    reason: str = ""
    held: bool = False
    uncertain: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Deferred:
    """Attempts of one sender at one insurer that were told to come again. came_back: something was accepted later."""

    sender: str
    ik: str
    last_at: datetime
    attempts: int
    came_back: bool


@dataclass(slots=True, repr=False)
class Account:
    """What a practice is told about one insurer. resend: references of mails to send again, with the reason.

    deferred: attempts without a later success; their sender's machine gave up, so a person sends again.
    """

    sender: str
    ik: str
    numbers: Counter[str] = field(default_factory=Counter)
    resend: list[tuple[str, str]] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    deferred: int = 0

    @property
    def must_resend(self) -> bool:
        """The answer."""
        return bool(self.resend or self.deferred)

    @property
    def open(self) -> int:
        """Mails that are not finished yet, and need no sender."""
        return self.numbers["waiting"]

    def as_json(self) -> dict[str, Json]:
        """What is signed, without times: see `statement`."""
        return {
            "practice": self.sender,
            "insurer": self.ik,
            "must_resend": "yes" if self.must_resend else "no",
            "resend": [{"reference": reference, "reason": reason} for reference, reason in sorted(self.resend)],
            "deferred_without_success": self.deferred,
            "uncertain": [*sorted(self.uncertain)],
            "numbers": {name: number for name, number in sorted(self.numbers.items()) if number},
        }


def accounts(received: Iterable[Received], deferred: Iterable[Deferred]) -> list[Account]:
    """One for each practice and insurer, in order; the numbers of each add up to `accepted`."""
    found: defaultdict[tuple[str, str], Account] = defaultdict(lambda: Account("", ""))
    for one in received:
        account = _of(found, one.sender, one.ik)
        account.numbers["accepted"] += 1
        account.numbers["held"] += one.held
        account.numbers["waiting" if one.state in WAITING else one.state.value.lower()] += 1
        if one.state is State.RETURNED:
            account.resend.append((one.reference, one.reason))
        if one.uncertain:
            account.uncertain.append(one.reference)
    for attempt in deferred:
        account = _of(found, attempt.sender, attempt.ik)
        account.numbers["deferred_attempts"] += attempt.attempts
        account.deferred += 0 if attempt.came_back else 1
    return [found[key] for key in sorted(found)]


def totals(made: Iterable[Account]) -> Mapping[str, int]:
    """What is published: numbers over all, and how many practices have to do something."""
    sums: Counter[str] = Counter()
    for account in made:
        sums.update(account.numbers)
        sums["must_resend"] += account.must_resend
        sums["practices_and_insurers"] += 1
    return dict(sorted(sums.items()))


def statement(account: Account, platform: str, begin: datetime, end: datetime, made_at: datetime) -> dict[str, Json]:
    """The signed answer for one practice and insurer over an interval."""
    return {
        "type": "schleuse-reconciliation",
        "version": 1,
        "platform": platform,
        "from": time_text(begin),
        "to": time_text(end),
        "made_at": time_text(made_at),
        **account.as_json(),
    }


def _of(found: defaultdict[tuple[str, str], Account], sender: str, ik: str) -> Account:
    account = found[sender, ik]
    account.sender, account.ik = sender, ik
    return account
