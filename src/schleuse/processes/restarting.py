"""Carrying restarts out: look, decide, one step; every step is an event before anybody relies on it (RS-08).

Operators' commands and the control role use the same functions. What opens is appended to the switch's log with two
signatures and recorded afterwards: a crash in between is seen by the ids of the commands, and the record is completed.
What closes is appended first of all, and never waits for anything (SW-01).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now
from schleuse.errors import ConflictError, RefusedError
from schleuse.journal.opening import Json
from schleuse.restart.book import Book
from schleuse.restart.gates import Evidence, Judged, Result
from schleuse.restart.plan import GateKind, RestartPlan, commands_of, refuse_cycles
from schleuse.restart.progress import (
    Aborted,
    Approved,
    Changed,
    Entered,
    Event,
    Made,
    Noted,
    Offered,
    Progress,
    Signed,
    Waived,
    gates,
    may_enter,
    ready,
)
from schleuse.scopes import ScopeState
from schleuse.switch.approval import LIFETIME, approve, valid
from schleuse.switch.documents import (
    OPENERS,
    Command,
    Kind,
    Person,
    Reason,
    Rights,
    Role,
    Signature,
    SignedCommand,
    sign,
)
from schleuse.switch.log import SwitchLog

PLAN_PURPOSE = "restart-plan"
#: Who may let a gate be, who may sign a document, who may note (§ 10).
_WAIVE = (Role.LEAD, Role.SECURITY_OFFICER)
_DOCUMENT = (Role.CUSTODIAN, Role.FORENSIC_LEAD, Role.SECURITY_OFFICER, Role.TENANT_DELEGATE, Role.SERVICE_OWNER)


class RoleMissingError(RefusedError):
    """This operator does not have a role that may do this; somebody else does it, or the configuration changes."""

    code = "restart.role-missing"


class NotReadyError(ConflictError):
    """The next stage may not be entered yet; the message says what is missing and `restart status` who must act."""

    code = "restart.not-ready"


class NothingOfferedError(ConflictError):
    """There are no commands to sign; `schleuse restart advance` prepares them."""

    code = "restart.nothing-offered"


@dataclass(frozen=True, slots=True)
class Signer:
    """An operator at work: name of the credential and its private key."""

    name: str
    key: Ed25519PrivateKey


#: Tells the journal: facts, and whether it was granted.
Tell = Callable[[Mapping[str, Json], bool], None]
#: How many mails of these scopes wait for a release; None if nobody knows.
Backlog = Callable[[RestartPlan], int | None]


class Restarts:
    """All restarts of a home. Thread-safe as far as the files are: whoever comes second is told to look again."""

    def __init__(self, book: Book, log: SwitchLog, rights: Rights, backlog: Backlog, tell: Tell, now: Now) -> None:
        self._book = book
        self._log = log
        self._rights = rights
        self._backlog = backlog
        self._tell = tell
        self._now = now

    def all(self) -> dict[str, Progress]:
        """Where each stands. Raises BookDamagedError."""
        return {name: self._book.read(name)[0] for name in self._book.plans()}

    def judged(self, plan: str) -> tuple[Progress, list[Judged], list[str]]:
        """Where it stands, every gate before the next stage, and what is missing to enter it."""
        at, now = self._book.read(plan)[0], self._now()
        backlog = self._backlog(at.plan) if at.plan is not None else None
        return (
            at,
            gates(at, self._rights, backlog, now),
            may_enter(at, self._rights, backlog, self._others(at), now),
        )

    # What people do

    def make(self, plan: RestartPlan, by: str) -> None:
        """A new plan, or a new version of one. Raises PlanRefusedError (a cycle), OvertakenError."""
        known = [one.plan for one in self.all().values() if one.plan is not None]
        refuse_cycles(plan, [one for one in known if one.id != plan.id])
        count = len(self._book.events(plan.id)) if plan.id in self._book.plans() else 0
        self._append(plan.id, Made(self._now(), plan, by), count, hash=plan.hash)

    def approve_plan(self, plan: str, signer: Signer, role: Role) -> None:
        """Stand for this version of the plan. Raises RoleMissingError."""
        at, count = self._book.read(plan)
        person = self._person(signer, role)
        hash = _plan_of(at).hash
        given = approve(PLAN_PURPOSE, hash, signer.name, role, signer.key, self._now())
        if valid(given, PLAN_PURPOSE, hash, self._rights, self._now()) is None:
            raise RoleMissingError(f"the key is not that of {signer.name}, or the role {role} is not his")
        event = Approved(given.at, given.hash, signer.name, person.person, role, given.until)
        self._append(plan, event, count, hash=given.hash, signature=given.signature.hex())

    def offer(self, plan: str, actor: str) -> Offered:
        """Prepare the exact commands of the next stage, under what is ordered now. Raises NotReadyError."""
        at, count = self._book.read(plan)
        stage = at.next_stage
        if at.plan is None or stage is None:
            raise NotReadyError(f"{plan} has no further stage")
        if not stage.targets:
            raise NotReadyError(f"{stage.name} opens nothing; it is entered as soon as its gates pass")
        basis, now = len(self._log.read_all()), self._now()
        made = Offered(now, at.place + 1, tuple(commands_of(at.plan, at.place + 1, actor, basis, now, LIFETIME)))
        self._append(plan, made, count, basis=basis)
        return made

    def sign_offer(self, plan: str, signer: Signer, role: Role) -> None:
        """Sign all commands that were prepared. Raises NothingOfferedError, RoleMissingError."""
        at, count = self._book.read(plan)
        if at.offer is None:
            raise NothingOfferedError(f"{plan}: no commands are prepared; `schleuse restart advance {plan}` does it")
        if role not in OPENERS:
            raise RoleMissingError(f"opening is signed as {OPENERS[0]} and as {OPENERS[1]}")
        person = self._person(signer, role)
        if any(self._rights.people()[one.by].person == person.person for one in at.signed):
            raise RoleMissingError("the same person has signed already; opening needs two (RO-01)")
        signatures = {one.hash: self._signature(one, signer, role) for one in at.offer.commands}
        self._append(plan, Signed(self._now(), signer.name, role, signatures), count, role=role.value)

    def waive(self, plan: str, kind: GateKind, signer: Signer, role: Role, reason: str, until: datetime) -> None:
        """One half of a waiver (RS-03). Raises RoleMissingError."""
        if role not in _WAIVE or kind in (GateKind.HUMAN, GateKind.TIME):
            raise RoleMissingError(
                f"a gate other than HUMAN and TIME is waived by {_WAIVE[0]} and {_WAIVE[1]} together"
            )
        person, (_, count) = self._person(signer, role), self._book.read(plan)
        event = Waived(self._now(), kind, signer.name, person.person, role, reason, until)
        self._append(plan, event, count, gate=kind.value, reason=reason)

    def document(self, plan: str, evidence: Evidence, signer: Signer, role: Role) -> None:
        """A document about what was found, under somebody's name. Raises RoleMissingError."""
        if role not in _DOCUMENT:
            raise RoleMissingError(f"documents are given by one of {', '.join(_DOCUMENT)}")
        self._person(signer, role)
        self.found(plan, evidence)

    def note(self, plan: str, by: str, text: str, owner: str = "", until: datetime | None = None) -> None:
        """A hand-over note, or with owner and end a temporary measure (RS-08, RS-12)."""
        self._append(plan, Noted(self._now(), by, text, owner, until), self._book.read(plan)[1])

    def changed(self, plan: str, by: str, text: str) -> None:
        """Something was changed: the soak starts anew (RS-11)."""
        self._append(plan, Changed(self._now(), by, text), self._book.read(plan)[1])

    def abort(self, plan: str, signer: Signer, role: Role, reason: str) -> int:
        """Back to S0 by one person, at once (RS-06). Returns the epoch of the closing."""
        at, count = self._book.read(plan)
        command = self.closing(_plan_of(at), signer.name, Kind.MANUAL, reason)
        signed = SignedCommand(command, (sign(command, signer.name, role, signer.key),))
        epoch = self._log.append(signed, self._now()).epoch  # first: a record may wait, a closing may not
        self._append(plan, Aborted(self._now(), signer.name, reason, epoch), count, epoch=epoch, reason=reason)
        return epoch

    def closing(self, plan: RestartPlan, actor: str, kind: Kind, reason: str) -> Command:
        """The command that takes all of a plan back to S0."""
        return Command(
            id=f"{plan.id}.abort.{secrets.token_hex(6)}",
            scopes=plan.scopes,
            state=ScopeState.HOLD,
            kind=kind,
            reason=Reason.SECURITY_HOLD,
            actor=actor,
            requested_at=self._now(),
            text=f"abort of the restart {plan.id}: {reason}"[:2000],
            incident=plan.incident,
        )

    # What happens by itself

    def found(self, plan: str, evidence: Evidence) -> None:
        """Something was measured."""
        facts: dict[str, Json] = {"gate": evidence.kind.value, "result": evidence.result.value, "text": evidence.text}
        self._append(plan, evidence, self._book.read(plan)[1], **facts)

    def aborted(self, plan: str, by: str, reason: str, epoch: int) -> None:
        """What the plan had opened was closed, by whatever way."""
        self._append(plan, Aborted(self._now(), by, reason, epoch), self._book.read(plan)[1], epoch=epoch)

    def enter(self, plan: str) -> Entered:
        """Enter the next stage if everything lets it. Raises NotReadyError, and what `SwitchLog.append` raises.

        Commands of the offer that are in the log already were let in before a crash: the rest follows, and the record.
        """
        at, count = self._book.read(plan)
        given = {one.signed.command.id for one in self._log.read_all() if one.signed is not None and not one.fault}
        begun = at.offer is not None and any(one.id in given for one in at.offer.commands)
        if not begun:
            backlog = self._backlog(at.plan) if at.plan is not None else None
            reasons = may_enter(at, self._rights, backlog, self._others(at), self._now())
            if reasons:
                raise NotReadyError(f"{plan}: " + "; ".join(reasons))
        stage = at.next_stage
        if stage is None:
            raise NotReadyError(f"{plan} has no further stage")
        epochs = tuple(self._log.append(one, self._now()).epoch for one in (ready(at) if stage.targets else ()))
        event = Entered(self._now(), at.place + 1, epochs)
        self._append(plan, event, count, stage=f"{stage.name} {stage.label}".strip(), epochs=[*epochs])
        return event

    def _others(self, at: Progress) -> Mapping[str, Progress]:
        needed = at.plan.needs if at.plan is not None else ()
        return {name: self._book.read(name)[0] for name, _ in needed if name in self._book.plans()}

    def _person(self, signer: Signer, role: Role) -> Person:
        person = self._rights.people().get(signer.name)
        if person is None or role not in person.roles:
            raise RoleMissingError(f"no operator {signer.name!r} has the role {role} here (RO-05)")
        mine = signer.key.public_key().public_bytes_raw()
        if mine != person.key.public_bytes_raw():
            raise RoleMissingError(f"the key is not that of {signer.name} (RO-05)")
        return person

    @staticmethod
    def _signature(command: Command, signer: Signer, role: Role) -> Signature:
        return sign(command, signer.name, role, signer.key)

    def _append(self, plan: str, event: Event, after: int, **facts: Json) -> None:
        self._book.append(plan, event, after)
        said: dict[str, Json] = {"act": f"restart.{type(event).__name__.lower()}", "plan": plan, "event": after + 1}
        by = getattr(event, "by", "")
        self._tell({**said, **({"by": by} if by else {}), **facts}, True)


def _plan_of(at: Progress) -> RestartPlan:
    if at.plan is None:
        raise NotReadyError("its first event is no plan; its operator looks")
    return at.plan


def who_must_act(at: Progress, judged: Sequence[Judged]) -> list[str]:
    """For each gate that does not let in, whose turn it is; roles as configuration names them."""
    owners = {
        GateKind.EVID: Role.FORENSIC_LEAD,
        GateKind.CRED: Role.SECURITY_OFFICER,
        GateKind.BASE: Role.SERVICE_OWNER,
        GateKind.LEGAL: Role.SECURITY_OFFICER,
        GateKind.PART: Role.TENANT_DELEGATE,
        GateKind.OFF: Role.SWITCH_OFFICER,
        GateKind.HUMAN: "switch_officer, releaser",
    }
    turns = [
        f"{one.kind}: {owners.get(one.kind, 'control')}"
        for one in judged
        if not one.lets_in and one.result is not Result.WAIVED
    ]
    return turns if at.next_stage is not None else []
