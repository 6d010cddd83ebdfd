"""Letting a backlog go, for people at a terminal: planned, looked at, approved by two, then step by step (HD-40 ff.).

<home>/switch/releases/ID/plan.json           what is approved, canonical JSON
                         /approval-NAME.json  who stands for it (`switch.approval`)
                         /progress.json       how far it is: written before each step, so that a step may be repeated
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.errors import ConflictError, RefusedError, UnavailableError
from schleuse.holding.release import (
    DryRun,
    HeldMail,
    Mailbox,
    MailboxDone,
    Patience,
    Release,
    ReleasePlan,
    Seen,
    Stop,
    dry_run,
    next_step,
    plan_from,
)
from schleuse.journal.disk import OsDisk
from schleuse.journal.disk import replace as write_whole
from schleuse.journal.opening import Json
from schleuse.kim.dienstkennung import EAU_LIEFERUNG, EAU_STORNO_ARZT
from schleuse.kim.store import Leases
from schleuse.scopes import Direction, Service
from schleuse.switch.approval import Approval, approved_by_two, parse_approval
from schleuse.switch.copy import Switch
from schleuse.switch.documents import Rights, Role

PURPOSE = "release-plan"
#: § 10: "release backlog: switch officer; service owner or tenant delegate".
FIRST, SECOND = frozenset({Role.SWITCH_OFFICER}), frozenset({Role.SERVICE_OWNER, Role.TENANT_DELEGATE})
KNOWN_LABELS = frozenset({str(EAU_LIEFERUNG), str(EAU_STORNO_ARZT)})

Tell = Callable[[Mapping[str, Json], bool], None]


class NoSuchReleaseError(ConflictError):
    """There is no release plan of this name; `schleuse hold release status` lists them."""

    code = "release.no-such-plan"


class NotApprovedError(RefusedError):
    """Two different persons, a switch officer and a service owner or tenant delegate, have to approve it first."""

    code = "release.not-approved"


class StillHeldError(UnavailableError):
    """The insurer is held now, so nothing of its backlog may go; it goes on after the opening."""

    code = "release.still-held"


@dataclass(frozen=True, slots=True)
class Progress:
    """done: mailboxes that are finished. account, above, upto: the batch that was released last; batches: how many
    there were of this mailbox. stopped: why nothing more goes, "" while it does. finished: nothing is left."""

    done: tuple[str, ...] = ()
    account: str = ""
    above: int = 0
    upto: int = 0
    size: int = 0
    batches: int = 0
    released: int = 0
    stopped: str = ""
    finished: bool = False


class Releases:
    """All release plans of a home. folder: `<home>/switch/releases`."""

    def __init__(self, folder: Path, leases: Leases, switch: Switch, rights: Rights, tell: Tell, now: Now) -> None:
        self._folder = folder
        self._leases = leases
        self._switch = switch
        self._rights = rights
        self._tell = tell
        self._now = now

    def ids(self) -> list[str]:
        """Names of all plans."""
        return sorted(path.parent.name for path in self._folder.glob("*/plan.json"))

    def plan(self, id: str, config: Config, iks: Sequence[str], first: int) -> ReleasePlan:
        """A plan for what waits now, not kept yet. Raises BadReleasePlanError if nothing does."""
        mailboxes = []
        for insurer in config.insurers:
            account = insurer.address.lower()
            waiting = self._leases.holds.backlog(account) if not iks or insurer.ik in iks else []
            if waiting:
                mailboxes.append(Mailbox(account, insurer.ik, waiting[-1], len(waiting)))
        permille = config.control.backlog_permille
        return ReleasePlan(
            id, self._switch.epoch, self._now(), tuple(mailboxes), first=first, backlog_permille=permille
        )

    def look(self, plan: ReleasePlan) -> DryRun:
        """What the plan would meet; reads every mail once and opens none (HD-41, HD-45)."""
        return dry_run(plan, self._held(plan), KNOWN_LABELS, self._now())

    def keep(self, plan: ReleasePlan) -> None:
        """Write the plan."""
        folder = self._folder / plan.id
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(OsDisk(), folder / "plan.json", plan.encode())
        self._said("planned", plan, count=plan.count, hash=plan.hash)

    def read(self, id: str) -> ReleasePlan:
        """Raises NoSuchReleaseError, BadReleasePlanError."""
        try:
            return plan_from(json.loads((self._folder / id / "plan.json").read_bytes()))
        except (OSError, ValueError) as cause:
            raise NoSuchReleaseError(f"there is no release plan {id}") from cause

    def approve(self, plan: ReleasePlan, approval: Approval) -> None:
        """Keep an approval."""
        path = self._folder / plan.id / f"approval-{approval.operator}.json"
        write_whole(OsDisk(), path, json.dumps(approval.encode(), indent=1).encode())
        self._said("approved", plan, by=approval.operator, role=approval.role.value, hash=approval.hash)

    def is_approved(self, plan: ReleasePlan) -> bool:
        """By two, for exactly this plan, now or when it was begun (RO-04)."""
        given = [
            parse_approval(json.loads(path.read_bytes()))
            for path in sorted((self._folder / plan.id).glob("approval-*.json"))
        ]
        begun = self._folder / plan.id / "progress.json"
        at = self._now() if not begun.exists() else max((one.at for one in given), default=self._now())
        return approved_by_two(given, PURPOSE, plan.hash, FIRST, SECOND, self._rights, at)

    def progress(self, id: str) -> Progress:
        """How far it is."""
        try:
            table = json.loads((self._folder / id / "progress.json").read_bytes())
        except FileNotFoundError:
            return Progress()
        return Progress(**{**table, "done": tuple(table["done"])})

    def step(self, id: str) -> Progress:
        """One look and at most one batch. Raises NotApprovedError, StillHeldError, UnavailableError."""
        plan, at = self.read(id), self.progress(id)
        if at.stopped or at.finished:
            return at
        if not self.is_approved(plan):
            raise NotApprovedError(f"{id} needs two approvals: {', '.join(FIRST)}, and {' or '.join(sorted(SECOND))}")
        mailbox = next((one for one in plan.mailboxes if one.account not in at.done), None)
        if mailbox is None:
            return self._moved(plan, replace(at, finished=True))
        if not self._switch.standing(Service.EAU_INTAKE, mailbox.ik, Direction.PROCESS).state.begins:
            raise StillHeldError(f"{mailbox.ik} is held; open it first, the rest of {id} waits")
        if at.account == mailbox.account:
            self._leases.holds.release_to(mailbox.account, at.upto)  # again, if a crash came before it
        else:
            at = replace(at, account=mailbox.account, above=0, upto=0, size=0, batches=0)
        waiting = [one for one in self._leases.holds.backlog(mailbox.account) if one <= mailbox.upto]
        found = self._leases.release_view.outcome(mailbox.account, at.above, at.upto)
        match next_step(plan, at.batches, Seen(at.size, found.waiting, found.errors, found.damaged, len(waiting))):
            case Patience():
                return at
            case MailboxDone():
                return self._moved(plan, replace(at, done=(*at.done, mailbox.account)))
            case Stop(reason):
                return self.stop(id, reason, "rule")
            case Release(count):
                batch = waiting[:count]
                above = at.upto if at.upto else batch[0] - 1
                moved = replace(
                    at,
                    above=above,
                    upto=batch[-1],
                    size=len(batch),
                    batches=at.batches + 1,
                    released=at.released + len(batch),
                )
                self._moved(plan, moved)  # recorded, then done
                self._leases.holds.release_to(mailbox.account, moved.upto)
                return moved

    def stop(self, id: str, reason: str, by: str) -> Progress:
        """Nothing more goes; what nobody has taken is held again (HD-42). One person suffices."""
        plan, at = self.read(id), self.progress(id)
        returned = sum(self._leases.holds.take_back(one.account) for one in plan.mailboxes)
        moved = replace(at, stopped=reason)
        write_whole(OsDisk(), self._folder / id / "progress.json", json.dumps(asdict(moved), indent=1).encode())
        self._said("stopped", plan, by=by, reason=reason, returned=returned)
        return moved

    def _moved(self, plan: ReleasePlan, at: Progress) -> Progress:
        write_whole(OsDisk(), self._folder / plan.id / "progress.json", json.dumps(asdict(at), indent=1).encode())
        self._said("step", plan, released=at.released, account=at.account, upto=at.upto, finished=int(at.finished))
        return at

    def _held(self, plan: ReleasePlan) -> Iterator[HeldMail]:
        for mailbox in plan.mailboxes:
            ids = [one for one in self._leases.holds.backlog(mailbox.account) if one <= mailbox.upto]
            for mail in self._leases.release_view.peek(ids):
                yield HeldMail(mail.id, mailbox.account, mail.accepted_at, mail.label, mail.whole)

    def _said(self, what: str, plan: ReleasePlan, **facts: Json) -> None:
        self._tell({"act": f"release.{what}", "plan": plan.id, **facts}, True)
