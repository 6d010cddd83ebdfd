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

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now
from schleuse.errors import ConflictError, Error, MalformedError, RefusedError
from schleuse.journal.opening import Json
from schleuse.restart.approvals import PLAN, WAIVER, approver, waiver_hash
from schleuse.restart.book import Book, OvertakenError
from schleuse.restart.documents import DocumentRefusedError, SignedDocument, check_document, verdict
from schleuse.restart.entering import (
    UNWAIVABLE,
    WAIVERS,
    Closing,
    Look,
    closed_since,
    closes_part_of,
    gates,
    goes_on,
    may_enter,
    plan_is_approved,
    ready,
    waivers,
)
from schleuse.restart.gates import Evidence, Judged, Result, Waiver
from schleuse.restart.plan import (
    GateKind,
    PlanRefusedError,
    RestartPlan,
    closes_on_abort,
    commands_of,
    refuse_change,
    refuse_cycles,
    shares,
)
from schleuse.restart.progress import (
    Aborted,
    Approved,
    Changed,
    Documented,
    Entered,
    Event,
    Made,
    Noted,
    Offered,
    Progress,
    Returned,
    Signed,
    Waived,
)
from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.switch.approval import LIFETIME, Approval, approve
from schleuse.switch.documents import (
    OPENERS,
    Command,
    Kind,
    Person,
    Reason,
    Rights,
    Role,
    SignedCommand,
    sign,
)
from schleuse.switch.log import Accepted, SwitchLog, rules_of

log = structlog.get_logger()


class RoleMissingError(RefusedError):
    """This operator does not have a role that may do this; somebody else does it, or the configuration changes."""

    code = "restart.role-missing"


class BadWaiverError(MalformedError):
    """A waiver without a reason or with an end that is over; who gives it says both."""

    code = "restart.bad-waiver"


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


@dataclass(frozen=True, slots=True)
class Abort:
    """What was closed; epoch 0 and no scopes: the plan cannot be read, and has opened nothing.

    fault: why the abort is not recorded; then nobody takes back what a release has let go, but who aborts.
    """

    epoch: int
    scopes: tuple[Scope, ...]
    fault: Error | None = None


#: Tells the journal: facts, and whether it was granted.
Tell = Callable[[Mapping[str, Json], bool], None]
#: How many mails of these scopes wait for a release; None if nobody knows.
Backlog = Callable[[RestartPlan], int | None]
#: What must not change in a soak (RS-11), as one text; "" if nobody looks.
Fingerprint = Callable[[], str]


def no_fingerprint() -> str:
    """Nobody looks."""
    return ""


class Restarts:
    """All restarts of a home. Thread-safe as far as the files are: whoever comes second is told to look again.

    entries: the epochs for looking, from who keeps them at hand; what is decided reads and verifies the log itself.
    """

    def __init__(
        self,
        book: Book,
        log: SwitchLog,
        rights: Rights,
        backlog: Backlog,
        tell: Tell,
        now: Now,
        fingerprint: Fingerprint = no_fingerprint,
        entries: Callable[[], Sequence[Accepted]] | None = None,
    ) -> None:
        self._entries = entries or log.read_all
        self._book = book
        self._fingerprint = fingerprint
        self._log = log
        self._rights = rights
        self._backlog = backlog
        self._tell = tell
        self._now = now

    def all(self) -> dict[str, Progress]:
        """Where each stands. Raises BookDamagedError."""
        return {name: self._book.read(name)[0] for name in self._book.plans()}

    def names(self) -> list[str]:
        """Of all plans."""
        return self._book.plans()

    def read(self, plan: str) -> Progress:
        """Where one stands. Raises NoSuchPlanError, BookDamagedError."""
        return self._book.read(plan)[0]

    def aborts(self, plan: str) -> list[Aborted]:
        """Every one that was ever recorded, whatever came after it. Raises NoSuchPlanError, BookDamagedError."""
        return [one for one in self._book.events(plan) if isinstance(one, Aborted)]

    def judged(self, plan: str) -> tuple[Progress, list[Judged], list[str]]:
        """Where it stands, every gate before the next stage, and what is missing to enter it."""
        at = self._book.read(plan)[0]
        look = self._look(at, self._entries())
        return at, gates(at, look), may_enter(at, look)

    def is_approved(self, at: Progress) -> bool:
        """Whether two persons stand for this version of its plan."""
        return plan_is_approved(at, self._rights)

    def waivers(self, at: Progress) -> list[Waiver]:
        """Those in force (RS-03)."""
        return waivers(at, self._rights, self._now())

    # What people do

    def make(self, plan: RestartPlan, by: str) -> None:
        """A new plan, or a new version of one, under all that is ordered now.

        An abort that nobody has recorded yet is recorded first: a new version would hide it, as it would one that comes
        after this look if it did not stand under the very same.
        Raises PlanRefusedError (a cycle, an overlap, a changed past), OvertakenError.
        """
        entries = self._log.read_all()
        rules = rules_of(entries)
        for name, one in self.all().items():
            closing = closed_since(one, rules, self._now()) if one.place >= 0 else None
            if closing is not None:
                self.closed(name, closing)
        known = self.all()
        others = [one for name, one in known.items() if name != plan.id]
        refuse_cycles(plan, [one.plan for one in others if one.plan is not None])
        busy = [one.plan.id for one in others if one.plan is not None and goes_on(one) and shares(plan, one.plan)]
        if busy:
            raise PlanRefusedError(f"{busy[0]} brings back the same and goes on; abort it, or make a new version of it")
        count = 0
        if plan.id in known:
            before, count = self._book.read(plan.id)
            refuse_change(_plan_of(before), plan, before.place)
        made = Made(self._now(), plan, by, len(entries))
        self._append(plan.id, made, count, hash=plan.hash, basis=made.basis)

    def approve_plan(self, plan: str, signer: Signer, role: Role) -> None:
        """Stand for this version of the plan. Raises RoleMissingError."""
        at, count = self._book.read(plan)
        if role not in OPENERS:
            raise RoleMissingError(f"a plan is approved as {OPENERS[0]} and as {OPENERS[1]}")
        given = self._approval(PLAN, _plan_of(at).hash, signer, role, self._now() + LIFETIME)
        event = Approved(given.at, given.hash, signer.name, role, given.until, given.signature)
        self._append(plan, event, count, hash=given.hash, signature=given.signature.hex())

    def offer(self, plan: str, actor: str) -> Offered:
        """Prepare the exact commands of the next stage, under what is ordered now. Raises NotReadyError."""
        at, count = self._book.read(plan)
        stage = at.next_stage
        if at.plan is None or stage is None:
            raise NotReadyError(f"{plan} has no further stage")
        if not stage.targets:
            raise NotReadyError(f"{stage.name} opens nothing; it is entered as soon as its gates pass")
        if not self.is_approved(at):
            raise NotReadyError(f"{plan}: two persons have to approve the plan before anything of it is signed")
        known = self._rights.people().get(actor)
        if known is None or not known.roles & set(OPENERS):
            raise RoleMissingError(f"{actor!r} may not open; who signs first is a {' or '.join(OPENERS)}")
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
        signatures = {one.hash: sign(one, signer.name, role, signer.key) for one in at.offer.commands}
        self._append(plan, Signed(self._now(), signer.name, role, signatures), count, role=role.value)

    def waive(self, plan: str, kind: GateKind, signer: Signer, role: Role, reason: str, until: datetime) -> None:
        """One half of a waiver (RS-03). Raises RoleMissingError."""
        if role not in WAIVERS or kind in UNWAIVABLE:
            raise RoleMissingError(f"a gate other than HUMAN and TIME is waived by {' and '.join(WAIVERS)} together")
        if not reason.strip() or until <= self._now():
            raise BadWaiverError("a waiver has a reason and an end that is not over (RS-03)")
        at, count = self._book.read(plan)
        hash = waiver_hash(_plan_of(at).hash, kind, reason, until)
        given = self._approval(WAIVER, hash, signer, role, until)
        event = Waived(given.at, kind, signer.name, role, reason, until, hash, given.signature)
        self._append(plan, event, count, gate=kind.value, reason=reason, hash=hash)

    def document(self, plan: str, given: SignedDocument) -> Result:
        """A signed statement about what was found; returns what it is worth. Raises DocumentRefusedError."""
        at, count = self._book.read(plan)
        if given.document.plan != _plan_of(at).id:
            raise DocumentRefusedError(f"the document is about the plan {given.document.plan}, not about {plan}")
        check_document(given, self._rights, self._now())
        result, text = verdict(given.document, given.role)
        event = Documented(self._now(), given.custodian, given)
        facts: dict[str, Json] = {"gate": given.document.kind.value, "result": result.value, "text": str(text)}
        self._append(plan, event, count, hash=given.document.hash, **facts)
        return result

    def note(self, plan: str, by: str, text: str, owner: str = "", until: datetime | None = None) -> None:
        """A hand-over note, or with owner and end a temporary measure (RS-08, RS-12)."""
        self._append(plan, Noted(self._now(), by, text, owner, until), self._book.read(plan)[1])

    def changed(self, plan: str, by: str, text: str, configuration: str = "") -> None:
        """Something was changed: the soak starts anew (RS-11). configuration: the new fingerprint."""
        self._append(plan, Changed(self._now(), by, text, configuration), self._book.read(plan)[1], text=text)

    def see_change(self, plan: str) -> bool:
        """Whether the configuration or the program is another than in the soak so far; then the soak starts anew."""
        at, found = self._book.read(plan)[0], self._fingerprint()
        if at.place < 0 or not found or not at.configuration or found == at.configuration:
            return False
        self.changed(plan, "control", "the configuration or the program has changed", found)
        return True

    def abort(self, plan: str, signer: Signer, role: Role, reason: str) -> Abort:
        """Back to S0 by one person, at once (RS-06). A damaged book keeps nobody from it (SW-01).

        Raises NoSuchPlanError, and what `SwitchLog.append` raises.
        """
        made = self._book.plan_of(plan)
        scopes = closes_on_abort(made) if made is not None else self._opened_by(plan)
        if not scopes:
            return Abort(0, (), _fault(lambda: _plan_of(self._book.read(plan)[0])))
        command = self.closing(plan, scopes, made.incident if made is not None else "", signer.name, reason)
        signed = SignedCommand(command, (sign(command, signer.name, role, signer.key),))
        epoch = self._log.append(signed, self._now()).epoch  # first: a record may wait, a closing may not
        return Abort(epoch, scopes, _fault(lambda: self.aborted(plan, signer.name, reason, epoch)))

    def _opened_by(self, plan: str) -> tuple[Scope, ...]:
        """What a plan that nobody can read has opened: what its commands name. Everything, if nobody knows those."""
        try:
            entries = self._log.read_all()
        except Error:
            return tuple(parse_scopes("all"))
        commands = [one.command for one in entries if one.command is not None and one.command.id.startswith(f"{plan}.")]
        return tuple(dict.fromkeys(scope for one in commands for scope in one.scopes))

    def closing(self, plan: str, scopes: tuple[Scope, ...], incident: str, actor: str, reason: str) -> Command:
        """The command that takes all of a plan back to S0."""
        return Command(
            id=f"{plan}.abort.{secrets.token_hex(6)}",
            scopes=scopes,
            state=ScopeState.HOLD,
            kind=Kind.MANUAL,
            reason=Reason.SECURITY_HOLD,
            actor=actor,
            requested_at=self._now(),
            text=f"abort of the restart {plan}: {reason}"[:2000],
            incident=incident,
        )

    # What happens by itself

    def found(self, plan: str, evidence: Evidence) -> None:
        """Something was measured."""
        facts: dict[str, Json] = {"gate": evidence.kind.value, "result": evidence.result.value}
        self._append(plan, evidence, self._book.read(plan)[1], text=str(evidence.text), **facts)

    def aborted(self, plan: str, by: str, reason: str, epoch: int) -> None:
        """What the plan had opened was closed, by whatever way. Whoever else writes meanwhile does not keep it back."""
        while True:
            try:
                event = Aborted(self._now(), by, reason, epoch)
                return self._append(plan, event, self._book.read(plan)[1], epoch=epoch, reason=reason)
            except OvertakenError:
                continue

    def closed(self, plan: str, closing: Closing) -> None:
        """See `aborted`; by a closing that `closed_since` has found."""
        self.aborted(plan, closing.actor, f"closed by {closing.id}", closing.epoch)

    def returned(self, plan: str, count: int) -> None:
        """What a release had let go and nobody had taken is held again (RS-06)."""
        self._append(plan, Returned(self._now(), count), self._book.read(plan)[1], count=count)

    def enter(self, plan: str) -> Entered:
        """Enter the next stage if everything lets it. Raises NotReadyError, and what `SwitchLog.append` raises.

        Commands of the offer that are in the log already were let in before a crash: the rest follows, and the record.
        """
        at, count = self._book.read(plan)
        look = self._look(at, self._log.read_all())
        if not self._is_begun(at, look):
            reasons = may_enter(at, look)
            if reasons:
                raise NotReadyError(f"{plan}: " + "; ".join(reasons))
        stage = at.next_stage
        if stage is None:
            raise NotReadyError(f"{plan} has no further stage")
        epochs = tuple(self._log.append(one, self._now()).epoch for one in (ready(at) if stage.targets else ()))
        how = tuple(f"{one.kind} {one.result}: {one.reason}" for one in gates(at, look))
        event = Entered(self._now(), at.place + 1, epochs, self._fingerprint(), how)
        self._append(plan, event, count, stage=f"{stage.name} {stage.label}".strip(), epochs=[*epochs])
        return event

    def _is_begun(self, at: Progress, look: Look) -> bool:
        """Whether a command of the offer was accepted already; not if something was closed since (SW-16)."""
        if at.offer is None:
            return False
        ids = {one.id for one in at.offer.commands}
        basis = min(one.basis for one in at.offer.commands) if ids else 0
        if not any(one.command and one.command.id in ids for one in look.rules):
            return False
        return not any(one.epoch > basis and closes_part_of(at, one) for one in look.rules)

    def _look(self, at: Progress, entries: Sequence[Accepted]) -> Look:
        drains = at.plan is not None and at.stage is not None and at.stage.drains
        backlog = self._backlog(at.plan) if at.plan is not None and drains else None
        return Look(self._rights, rules_of(entries), backlog, self._now(), self._others(at))

    def _others(self, at: Progress) -> Mapping[str, Progress]:
        mine = at.plan.id if at.plan is not None else ""
        return {name: self._book.read(name)[0] for name in self._book.plans() if name != mine}

    def _person(self, signer: Signer, role: Role) -> Person:
        person = self._rights.people().get(signer.name)
        if person is None or role not in person.roles:
            raise RoleMissingError(f"no operator {signer.name!r} has the role {role} here (RO-05)")
        mine = signer.key.public_key().public_bytes_raw()
        if mine != person.key.public_bytes_raw():
            raise RoleMissingError(f"the key is not that of {signer.name} (RO-05)")
        return person

    def _approval(self, purpose: str, hash: str, signer: Signer, role: Role, until: datetime) -> Approval:
        self._person(signer, role)
        now = self._now()
        given = approve(purpose, hash, signer.name, role, signer.key, now, until - now)
        if approver(given, purpose, hash, self._rights, None) is None:
            raise RoleMissingError(f"{signer.name} may not approve any more; the credential was disabled")
        return given

    def _append(self, plan: str, event: Event, after: int, **facts: Json) -> None:
        digest = self._book.append(plan, event, after)
        said: dict[str, Json] = {"act": f"restart.{type(event).__name__.lower()}", "plan": plan, "event": after + 1}
        by = getattr(event, "by", "")
        try:
            self._tell({**said, **({"by": by} if by else {}), **facts, "sha256": digest}, True)
        except Error as error:  # it has happened and is recorded; the journal is behind, and says so itself
            log.error("restart.not-told", plan=plan, code=error.code, reason=str(error))


def _fault(act: Callable[[], object]) -> Error | None:
    try:
        act()
    except Error as fault:
        return fault
    return None


def _plan_of(at: Progress) -> RestartPlan:
    if at.plan is None:
        raise NotReadyError("its first event is no plan; its operator looks")
    return at.plan
