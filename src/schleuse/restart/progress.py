"""Where a restart stands: the fold over its events (RS-08). Pure.

made, approved        the plan, and who stands for it: two persons, two roles (RO-04)
offered, signed       the exact commands of the next stage, and the signatures on them
entered, left, …      what happened; each is recorded, so whoever comes later goes on from there
aborted               back to S0: by one person or by a rule (RS-06, RS-07)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schleuse.restart.approvals import PLAN, WAIVER
from schleuse.restart.documents import SignedDocument
from schleuse.restart.gates import Evidence
from schleuse.restart.plan import GateKind, RestartPlan, Stage, StageName
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.approval import Approval
from schleuse.switch.documents import Command, Role, Signature


@dataclass(frozen=True, slots=True)
class Made:
    """A version of the plan; a new one voids what was approved, offered and waived before.

    basis: the epoch of the switch that its author had seen. What is closed later stops the plan until a newer version
    takes note of it.
    """

    at: datetime
    plan: RestartPlan
    by: str
    basis: int = 0


@dataclass(frozen=True, slots=True)
class Approved:
    """A signed approval of the plan (`switch.approval.Approval` of purpose `approvals.PLAN`)."""

    at: datetime
    hash: str
    by: str
    role: Role
    until: datetime
    signature: bytes = b""

    @property
    def approval(self) -> Approval:
        """What was signed."""
        return Approval(PLAN, self.hash, self.by, self.role, self.at, self.until, self.signature)


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
    """epochs: those that the switch gave the commands; none for a stage that opens nothing.

    configuration: fingerprint of what must not change in the soak (RS-11), "" if nobody took it. gates: how each was
    judged, for the stage record (§ 9.5).
    """

    at: datetime
    place: int
    epochs: tuple[int, ...]
    configuration: str = ""
    gates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """Something was changed during the soak; it starts anew (RS-11). configuration: the new fingerprint, if known."""

    at: datetime
    by: str
    text: str
    configuration: str = ""


@dataclass(frozen=True, slots=True)
class Aborted:
    """epoch: of the closing. by: a person or "automat"."""

    at: datetime
    by: str
    reason: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Returned:
    """After an abort: so many mails of a released backlog that nobody had taken are held again (RS-06)."""

    at: datetime
    count: int


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
    """See `Waiver`. Each of the two signs the same words; with both it counts. hash: of `approvals.waiver_hash`."""

    at: datetime
    waiver_of: GateKind
    by: str
    role: Role
    reason: str
    until: datetime
    hash: str = ""
    signature: bytes = b""

    @property
    def approval(self) -> Approval:
        """What was signed."""
        return Approval(WAIVER, self.hash, self.by, self.role, self.at, self.until, self.signature)


@dataclass(frozen=True, slots=True)
class Documented:
    """A signed statement of a person about a gate."""

    at: datetime
    by: str
    document: SignedDocument


Event = (
    Made | Approved | Offered | Signed | Entered | Changed | Aborted | Returned | Noted | Waived | Documented | Evidence
)


@dataclass(slots=True)
class Progress:
    """place: of the stage that was entered last, -1 in S0. entered_at: of it; soak_from: the soak counts from there.

    records: (stage, from, until) of every stage that was left: the RTA of the next plan (RS-15). waived: since this
    version was made; waived_ever: all of them, which every later report shows (RS-03). backlog_returned: since the
    last abort.
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
    documents: list[Documented] = field(default_factory=list)
    waived: list[Waived] = field(default_factory=list)
    waived_ever: list[Waived] = field(default_factory=list)
    notes: list[Noted] = field(default_factory=list)
    aborted: Aborted | None = None
    backlog_returned: bool = True
    configuration: str = ""
    basis: int = 0
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

    @property
    def opened(self) -> dict[Scope, ScopeState]:
        """What the stages up to now have opened, and how far; the later one counts."""
        entered = self.plan.stages[: self.place + 1] if self.plan is not None else ()
        return {scope: target.state for stage in entered for target in stage.targets for scope in target.scopes}

    @property
    def measures(self) -> list[Noted]:
        """Temporary measures, which are listed at every stage until they are ended (RS-12)."""
        latest = {one.text: one for one in self.notes if one.owner}
        return [one for one in latest.values() if one.until is not None]

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
        case Made(when, plan, _, basis):
            fresh = at.plan is None
            at.plan, at.approvals, at.offer, at.signed, at.waived = plan, [], None, [], []
            at.soak_from = None if fresh else at.soak_from and when
            at.basis, at.aborted = basis, None
        case Approved():
            if at.plan is not None and event.hash == at.plan.hash:
                at.approvals.append(event)
        case Offered():
            at.offer, at.signed = event, []
        case Signed():
            at.signed.append(event)
        case Entered(when, place, epochs, configuration):
            at.configuration = configuration
            if at.stage is not None and at.entered_at is not None:
                at.records.append((f"{at.stage.name} {at.stage.label}".strip(), at.entered_at, when))
            at.place, at.entered_at, at.soak_from, at.epochs = place, when, when, epochs
            at.offer, at.signed, at.aborted = None, [], None
        case Changed(when):
            at.soak_from = when if at.place >= 0 else None
            at.configuration = event.configuration or at.configuration
            at.notes.append(Noted(event.at, event.by, event.text))
        case Aborted():
            at.aborted, at.place, at.entered_at, at.soak_from, at.epochs = event, -1, None, None, ()
            at.offer, at.signed, at.approvals, at.evidence = None, [], [], []
            at.documents, at.waived, at.backlog_returned = [], [], False
        case Returned():
            at.backlog_returned = True
        case Documented():
            at.documents.append(event)
        case Noted():
            at.notes.append(event)
        case Waived():
            at.waived.append(event)
            at.waived_ever.append(event)
        case Evidence():
            at.evidence.append(event)
