"""Where a restart stands: the fold over its events (RS-08). Pure.

made, approved        the plan, and who stands for it: two persons, two roles (RO-04)
offered, signed       the exact commands of the next stage, and the signatures on them
entered, left, …      what happened; each is recorded, so whoever comes later goes on from there
aborted               back to S0: by one person or by a rule (RS-06, RS-07)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schleuse.errors import Error
from schleuse.restart.gates import Evidence, Judged, Result, Waiver, judge
from schleuse.restart.plan import GateKind, RestartPlan, Stage, StageName
from schleuse.switch.documents import OPENERS, Command, Rights, Role, Signature, SignedCommand


@dataclass(frozen=True, slots=True)
class Made:
    """A version of the plan; a new one voids what was approved and offered before."""

    at: datetime
    plan: RestartPlan
    by: str


@dataclass(frozen=True, slots=True)
class Approved:
    """A valid approval of the plan: who, whose credential, in which role."""

    at: datetime
    hash: str
    by: str
    person: str
    role: Role
    until: datetime


@dataclass(frozen=True, slots=True)
class Offered:
    """The commands of a stage, ready to be signed. place: of the stage in the plan."""

    at: datetime
    place: int
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """Somebody has signed all commands of the offer. signatures: by hash of the command."""

    at: datetime
    by: str
    role: Role
    signatures: Mapping[str, Signature]


@dataclass(frozen=True, slots=True)
class Entered:
    """epochs: those that the switch gave the commands; none for a stage that opens nothing."""

    at: datetime
    place: int
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """Something was changed during the soak; it starts anew (RS-11)."""

    at: datetime
    by: str
    text: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """epoch: of the closing. by: a person or "automat"."""

    at: datetime
    by: str
    reason: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Noted:
    """A hand-over note, or a temporary measure with owner and end (RS-08, RS-12). until: None for a note."""

    at: datetime
    by: str
    text: str
    owner: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waived:
    """See `Waiver`. Each of the two gives theirs; with both it counts. outside: not of the executing line."""

    at: datetime
    waiver_of: GateKind
    by: str
    person: str
    role: Role
    reason: str
    until: datetime


Event = Made | Approved | Offered | Signed | Entered | Changed | Aborted | Noted | Waived | Evidence


@dataclass(slots=True)
class Progress:
    """place: of the stage that was entered last, -1 in S0. entered_at: of it; soak_from: the soak counts from there.

    records: (stage, from, until) of every stage that was left: the RTA of the next plan (RS-15).
    """

    plan: RestartPlan | None = None
    approvals: list[Approved] = field(default_factory=list)
    place: int = -1
    entered_at: datetime | None = None
    soak_from: datetime | None = None
    epochs: tuple[int, ...] = ()
    offer: Offered | None = None
    signed: list[Signed] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    waived: list[Waived] = field(default_factory=list)
    notes: list[Noted] = field(default_factory=list)
    aborted: Aborted | None = None
    records: list[tuple[str, datetime, datetime]] = field(default_factory=list)

    @property
    def stage(self) -> Stage | None:
        """The one that was entered last, None in S0."""
        return self.plan.stages[self.place] if self.plan is not None and self.place >= 0 else None

    @property
    def next_stage(self) -> Stage | None:
        """The one after it, None at the end."""
        if self.plan is None or self.place + 1 >= len(self.plan.stages):
            return None
        return self.plan.stages[self.place + 1]

    @property
    def is_done(self) -> bool:
        """Whether the last stage was entered."""
        return self.plan is not None and self.next_stage is None

    def has_reached(self, name: StageName) -> bool:
        """Whether a stage of this name was entered."""
        return self.plan is not None and any(one.name is name for one in self.plan.stages[: self.place + 1])


def fold(events: Iterable[Event]) -> Progress:
    """All of it, in order."""
    at = Progress()
    for event in events:
        _step(at, event)
    return at


def _step(at: Progress, event: Event) -> None:
    match event:
        case Made(when, plan, _):
            fresh = at.plan is None
            at.plan, at.approvals, at.offer, at.signed = plan, [], None, []
            at.soak_from = None if fresh else at.soak_from and when
        case Approved():
            if at.plan is not None and event.hash == at.plan.hash:
                at.approvals.append(event)
        case Offered():
            at.offer, at.signed = event, []
        case Signed():
            at.signed.append(event)
        case Entered(when, place, epochs):
            if at.stage is not None and at.entered_at is not None:
                at.records.append((f"{at.stage.name} {at.stage.label}".strip(), at.entered_at, when))
            at.place, at.entered_at, at.soak_from, at.epochs = place, when, when, epochs
            at.offer, at.signed, at.aborted = None, [], None
        case Changed(when):
            at.soak_from = when
            at.notes.append(Noted(event.at, event.by, event.text))
        case Aborted():
            at.aborted, at.place, at.entered_at, at.soak_from, at.epochs = event, -1, None, None, ()
            at.offer, at.signed, at.approvals, at.evidence = None, [], [], []
        case Noted():
            at.notes.append(event)
        case Waived():
            at.waived.append(event)
        case Evidence():
            at.evidence.append(event)


def plan_is_approved(at: Progress) -> bool:
    """Two persons, one of each opening role, for this version: while both approvals held, and then for good."""
    return any(
        one.role is OPENERS[0]
        and other.role is OPENERS[1]
        and one.person != other.person
        and max(one.at, other.at) < min(one.until, other.until)
        for one in at.approvals
        for other in at.approvals
    )


#: § 10: a gate is waived by the lead, and by the security officer, who does not execute.
_WAIVERS = (Role.LEAD, Role.SECURITY_OFFICER)


def waivers(at: Progress, now: datetime) -> list[Waiver]:
    """Those that two different persons gave, one in each role, and that have not ended (RS-03)."""
    found: list[Waiver] = []
    valid = [one for one in at.waived if now < one.until]
    for one in valid:
        for other in valid:
            if one.waiver_of is other.waiver_of and (one.role, other.role) == _WAIVERS and one.person != other.person:
                until = min(one.until, other.until)
                found.append(Waiver(one.waiver_of, until, one.reason, (one.by, other.by)))
    return found


def soak_left(at: Progress, now: datetime) -> timedelta:
    """What is left of the soak of the stage that was entered last."""
    if at.stage is None or at.soak_from is None:
        return timedelta(0)
    return max(at.soak_from + at.stage.soak - now, timedelta(0))


def gates(at: Progress, rights: Rights, backlog: int | None, now: datetime) -> list[Judged]:
    """Every gate before the next stage. backlog: mails that wait for a release, None if nobody knows."""
    stage = at.next_stage
    if stage is None:
        return []
    fresh = [one for one in at.evidence if _is_of_now(one, at)]
    given = waivers(at, now)
    judged = [judge(kind, fresh, given, now) for kind in stage.gates if kind is not GateKind.HUMAN]
    left = soak_left(at, now)
    text = f"{left} of the soak are left" if left else "the soak is over"
    judged.append(Judged(GateKind.TIME, Result.INCONCLUSIVE if left else Result.PASS, text))
    if at.stage is not None and at.stage.drains:
        judged.append(_drained(backlog))
    if GateKind.HUMAN in stage.gates:
        judged.append(_human(at, rights, now))
    return judged


def _is_of_now(one: Evidence, at: Progress) -> bool:
    """A rehearsed closing counts in the stage that it was rehearsed in (G-OFF: "tested in this stage")."""
    return one.kind is not GateKind.OFF or at.entered_at is None or one.at >= at.entered_at


def _drained(backlog: int | None) -> Judged:
    if backlog is None:
        return Judged(GateKind.DATA, Result.INCONCLUSIVE, "nobody knows how much of the backlog is left")
    if backlog:
        return Judged(GateKind.DATA, Result.INCONCLUSIVE, f"{backlog} mails of the backlog are left")
    return Judged(GateKind.DATA, Result.PASS, "no backlog is left")


def _human(at: Progress, rights: Rights, now: datetime) -> Judged:
    """Two signatures on exactly these commands; the switch checks the same again (RO-04, T-12)."""
    if at.offer is None or at.offer.place != at.place + 1:
        return Judged(GateKind.HUMAN, Result.INCONCLUSIVE, "nobody has prepared the commands; `restart advance` does")
    until = min((one.expires_at for one in at.offer.commands if one.expires_at), default=None)
    if until is not None and now >= until:
        return Judged(GateKind.HUMAN, Result.EXPIRED, "the commands have expired; prepare them anew", until)
    missing = missing_roles(at)
    if missing:
        return Judged(GateKind.HUMAN, Result.INCONCLUSIVE, f"missing signatures: {', '.join(missing)}", until)
    for command in ready(at):
        try:
            rights.check(command)
        except Error as error:
            return Judged(GateKind.HUMAN, Result.FAIL, str(error), until)
    return Judged(GateKind.HUMAN, Result.PASS, "signed by " + " and ".join(one.by for one in at.signed), until)


def missing_roles(at: Progress) -> list[Role]:
    """Roles in which the offer still has to be signed."""
    return [role for role in OPENERS if role not in {one.role for one in at.signed}]


def ready(at: Progress) -> Sequence[SignedCommand]:
    """The offered commands with all their signatures, the first signer's first."""
    if at.offer is None:
        return []
    return [
        SignedCommand(
            command,
            tuple(
                one.signatures[command.hash]
                for one in sorted(at.signed, key=lambda signed: signed.by != command.actor)
                if command.hash in one.signatures
            ),
        )
        for command in at.offer.commands
    ]


def may_enter(
    at: Progress, rights: Rights, backlog: int | None, others: Mapping[str, Progress], now: datetime
) -> list[str]:
    """What is missing before the next stage may be entered; empty: it may. Every reason is a sentence."""
    if at.plan is None:
        return ["there is no plan"]
    if at.is_done:
        return ["the last stage was entered"]
    reasons = [] if plan_is_approved(at) else ["two persons have to approve the plan"]
    reasons += [
        f"{name} has not reached {stage}"
        for name, stage in at.plan.needs
        if name not in others or not others[name].has_reached(stage)
    ]
    reasons += [f"{one.kind}: {one.result}: {one.reason}" for one in gates(at, rights, backlog, now) if not one.lets_in]
    return reasons
