"""Letting a backlog go: a plan that people approve, first looked at, then in batches that grow while all is well. Pure.

    plan        which mailboxes, in what order, how fast, when to stop (HD-40); approved by its hash (RO-04)
    dry run     what the plan would meet, from what is readable without opening anything (HD-41)
    steps       after each look at what became of the last batches: the next ones, patience, a stop, or the end (HD-42)

Mailboxes go on by themselves, so that none waits for another's slow mail or held insurer. The rate and the stop are
those of the whole release: a first batch of one mailbox passes whole before any other begins, so many as a first batch
before any more go, then there is never more out than five times what has passed, and the errors of all of them count.
What an insurer had out that is held is held again, and goes again where it fits: insurers that are held in turn do not
add up.

Within a mailbox the order is that of acceptance. It keeps every chain (a Storno comes after its eAU from the same
practice, HD-06), and it is the order of the deadlines, too, because those of an eAU all count from its acceptance
(HD-44). Live traffic goes first by the share that workers give the backlog (HD-43).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schleuse.errors import MalformedError
from schleuse.journal.opening import Json, canonical_json

#: HD-42: "e.g. 10 messages of one tenant, then times five".
FIRST_BATCH = 10
GROWTH = 5
LARGEST_BATCH = 20_000
#: HD-42: errors of a batch, or of all that was let go so far, in permille, above which nothing more is released.
MAX_ERRORS_PERMILLE = 10
#: A small batch must not stop because of one faulty eAU, of which every day has some.
ERRORS_ALWAYS_ALLOWED = 1
#: Practices print and post paper when an eAU was not delivered for a day (HD-04); held ones are delivered.
OLD_AFTER = timedelta(hours=24)


class BadReleasePlanError(MalformedError):
    """Not a plan of a release; whoever wrote it can change it."""

    code = "holding.bad-release-plan"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A part of the plan. upto: its last delivery; what is later is live traffic. count: how many wait."""

    account: str
    ik: str
    upto: int
    count: int


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """What is approved. epoch: of the switch when it was made. Mailboxes begin in this order, each with a first batch.

    first, growth, largest: of batches, and of what is out at once in all mailboxes. max_errors_permille: see
    MAX_ERRORS_PERMILLE. Raises BadReleasePlanError.
    """

    id: str
    epoch: int
    created_at: datetime
    mailboxes: tuple[Mailbox, ...]
    first: int = FIRST_BATCH
    growth: int = GROWTH
    largest: int = LARGEST_BATCH
    max_errors_permille: int = MAX_ERRORS_PERMILLE
    backlog_permille: int = 300

    def __post_init__(self) -> None:
        if not self.mailboxes:
            raise BadReleasePlanError("nothing is held that could be released")
        if len({one.account for one in self.mailboxes}) < len(self.mailboxes):
            raise BadReleasePlanError("a mailbox is named twice")
        if not 1 <= self.first <= self.largest or self.growth < 1:
            raise BadReleasePlanError("the first batch has 1 mail or more, and no batch is larger than the largest")
        if not 0 <= self.max_errors_permille <= 1000 or not 1 <= self.backlog_permille <= 999:
            raise BadReleasePlanError("errors are 0 to 1000 permille, the backlog's share is 1 to 999")

    @property
    def count(self) -> int:
        """How many mails it releases."""
        return sum(one.count for one in self.mailboxes)

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(_as_json(self))

    @property
    def hash(self) -> str:
        """SHA-256 in hex: what approvals are bound to."""
        return hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class HeldMail:
    """What is readable of a held mail without opening it (HD-27). known_twin: the same mail is there already.

    label: its Dienstkennung, "" without one; sender_known: whether the directory has the sender's address.
    """

    id: int
    account: str
    accepted_at: datetime
    label: str
    whole: bool = True
    known_twin: bool = False
    sender_known: bool = True


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the plan would meet (HD-41). batches: sizes of the first mailbox's batches and so on, in order.

    damaged: mails whose seal no longer matches; a plan with one of them is not carried out as it is.
    """

    count: int
    batches: tuple[int, ...]
    by_label: Mapping[str, int]
    oldest: datetime | None
    older_than_a_day: int
    duplicates: int
    damaged: tuple[int, ...]
    unknown_formats: int
    unreachable_senders: int

    @property
    def clear(self) -> bool:
        """Whether nothing was seen that would stop it."""
        return not self.damaged


def dry_run(plan: ReleasePlan, held: Iterable[HeldMail], known_labels: frozenset[str], now: datetime) -> DryRun:
    """Look without touching. known_labels: Dienstkennungen that somebody here can process."""
    ends = {one.account: one.upto for one in plan.mailboxes}
    mails = [one for one in held if one.id <= ends.get(one.account, 0)]
    by_mailbox = Counter(one.account for one in mails)
    sizes = [size for one in plan.mailboxes for size in batch_sizes(by_mailbox[one.account], plan)]
    return DryRun(
        count=len(mails),
        batches=tuple(sizes),
        by_label=dict(Counter(one.label or "-" for one in mails)),
        oldest=min((one.accepted_at for one in mails), default=None),
        older_than_a_day=sum(now - one.accepted_at > OLD_AFTER for one in mails),
        duplicates=sum(one.known_twin for one in mails),
        damaged=tuple(one.id for one in mails if not one.whole),
        unknown_formats=sum(one.label not in known_labels for one in mails),
        unreachable_senders=sum(not one.sender_known for one in mails),
    )


def batch_sizes(count: int, plan: ReleasePlan) -> list[int]:
    """Of one mailbox: the first small, each next one larger, the last what is left."""
    sizes: list[int] = []
    size = plan.first
    while count > 0:
        sizes.append(min(size, count))
        count -= sizes[-1]
        size = min(size * plan.growth, plan.largest)
    return sizes


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the batch of a mailbox that was released last. waiting: not finished yet, taken or not.

    errors: returned, quarantined, or put back for a reason of ours. damaged: whose seal did not match (HD-45).
    left: how many of the mailbox are not released yet. batches: how many of it were. barred: nothing more of it may go
    now, because its insurer is held. back: what waits of the batch was held again meanwhile, and has to go again.
    """

    released: int
    waiting: int
    errors: int
    damaged: int
    left: int
    batches: int = 0
    barred: bool = False
    back: bool = False

    @property
    def out(self) -> int:
        """How many workers may take now."""
        return 0 if self.barred or self.back else self.waiting


@dataclass(frozen=True, slots=True)
class Release:
    """Let so many more go; of a batch that was held again what waits of it."""

    count: int


@dataclass(frozen=True, slots=True)
class Patience:
    """The last batch is not finished yet."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Release nothing more; what is untouched is held again (HD-42). People look."""

    reason: str


@dataclass(frozen=True, slots=True)
class MailboxDone:
    """Nothing of this mailbox is left."""


Step = Release | Patience | Stop | MailboxDone


def next_step(plan: ReleasePlan, batches: int, last: Seen) -> Step:
    """What to do after a look. batches: how many of this mailbox were released; last: of the last, all 0 before it.

    A stop comes before the batch is finished: every further mail would be one more.
    """
    if last.damaged:
        return Stop(f"{last.damaged} of the last {last.released} no longer match their seal")
    allowed = max(last.released * plan.max_errors_permille // 1000, ERRORS_ALWAYS_ALLOWED)
    if last.errors > allowed:
        return Stop(f"{last.errors} of the last {last.released} failed; at most {allowed} may")
    if last.waiting:
        return Release(last.waiting) if last.back and not last.barred else Patience(last.waiting)
    if not last.left:
        return MailboxDone()
    if last.barred:
        return Patience(0)
    return Release(min(batch_size(plan, batches), last.left))


def batch_size(plan: ReleasePlan, batches: int) -> int:
    """The largest next batch of a mailbox of which so many were released."""
    return min(plan.first * plan.growth**batches, plan.largest) if batches < 32 else plan.largest


def at_once(plan: ReleasePlan, passed: int) -> int:
    """How many mails of all mailboxes may be out: the first batch, then five times as many as have passed (HD-42)."""
    return plan.first if passed < plan.first else min(max(plan.first, plan.growth * passed), plan.largest)


def next_steps(plan: ReleasePlan, seen: Mapping[str, Seen], released: int, failed: int) -> Stop | dict[str, Step]:
    """What to do after a look at all mailboxes that are not done. seen: by account, in the order of the plan.

    released: mails that were let go so far, in all mailboxes. failed: errors of batches that have ended.
    Whoever has had the fewest batches goes first; what does not fit beside what is out has patience.
    """
    steps = {account: next_step(plan, one.batches, one) for account, one in seen.items()}
    for account, step in steps.items():
        if isinstance(step, Stop):
            return Stop(f"{account}: {step.reason}")
    errors = failed + sum(one.errors for one in seen.values())
    allowed = max(released * plan.max_errors_permille // 1000, ERRORS_ALWAYS_ALLOWED)
    if errors > allowed:
        return Stop(f"{errors} of the {released} that were let go so far failed; at most {allowed} may")
    passed = released - sum(one.waiting for one in seen.values())
    out = sum(one.out for one in seen.values())
    room = at_once(plan, passed) - out if _first_has_passed(seen, released) or not out else 0
    for account in sorted(steps, key=lambda account: seen[account].batches):
        step = steps[account]
        if not isinstance(step, Release):
            continue
        count = step.count if out or seen[account].back else min(step.count, room)
        if count > room and (out or not seen[account].back):
            room, steps[account] = 0, Patience(seen[account].waiting)
            continue
        out, room, steps[account] = out + count, room - count, Release(count)
        if not _first_has_passed(seen, released):
            room = 0
    return steps


def _first_has_passed(seen: Mapping[str, Seen], released: int) -> bool:
    """Whether a batch of a mailbox has passed whole: then more was let go than the first ones that still wait."""
    return released > sum(one.released for one in seen.values() if one.batches == 1 and one.waiting)


def _as_json(plan: ReleasePlan) -> dict[str, Json]:
    return {
        "type": "schleuse-release-plan",
        "version": 1,
        "id": plan.id,
        "epoch": plan.epoch,
        "created_at": plan.created_at.isoformat(),
        "mailboxes": [
            {"account": one.account, "ik": one.ik, "upto": one.upto, "count": one.count} for one in plan.mailboxes
        ],
        "first": plan.first,
        "growth": plan.growth,
        "largest": plan.largest,
        "max_errors_permille": plan.max_errors_permille,
        "backlog_permille": plan.backlog_permille,
    }


_KEYS = frozenset(
    {"type", "version", "id", "epoch", "created_at", "mailboxes"}
    | {"first", "growth", "largest", "max_errors_permille", "backlog_permille"}
)


def plan_from(table: Mapping[str, Any]) -> ReleasePlan:
    """From the JSON value of `ReleasePlan.encode`. Raises BadReleasePlanError."""
    try:
        if set(table) != _KEYS or table["type"] != "schleuse-release-plan" or table["version"] != 1:
            raise BadReleasePlanError("not a release plan of version 1")
        return ReleasePlan(
            id=_text(table["id"]),
            epoch=_number(table["epoch"]),
            created_at=datetime.fromisoformat(_text(table["created_at"])),
            mailboxes=tuple(_mailbox(one) for one in _list(table["mailboxes"])),
            **{
                name: _number(table[name])
                for name in _KEYS - {"type", "version", "id", "epoch", "created_at", "mailboxes"}
            },
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise BadReleasePlanError(f"not a release plan: {cause}") from cause


def _mailbox(table: Mapping[str, Any]) -> Mailbox:
    return Mailbox(_text(table["account"]), _text(table["ik"]), _number(table["upto"]), _number(table["count"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {type(value).__name__}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a number, found {type(value).__name__}")
    return value


def _list(value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return value
