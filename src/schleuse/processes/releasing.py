"""Letting a backlog go: planned, looked at, approved by two, then step by step (HD-40 to HD-45).

    look    what became of the last batch of each mailbox (`kim.store.progress`)
    decide  the next batches, patience, a stop, or the end (`holding.release`)
    act     compare the seals of the batches, record them, and let them go

Whoever carries it out, a command or the control role, does so under a lock. A stop waits for nobody: its order is a
file that every step looks at, before and after it lets a batch go. Where the files are: `release_book`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now, utc_now
from schleuse.config import Config
from schleuse.errors import ConflictError, Error, RefusedError, UnavailableError
from schleuse.holding.release import (
    DryRun,
    HeldMail,
    Mailbox,
    MailboxDone,
    Release,
    ReleasePlan,
    Seen,
    Stop,
    batch_size,
    dry_run,
    next_steps,
)
from schleuse.journal.opening import Json
from schleuse.kim.dienstkennung import EAU_LIEFERUNG, EAU_STORNO_ARZT
from schleuse.kim.store import Leases, open_leases
from schleuse.processes.operators import rights_of
from schleuse.processes.release_book import Part, Progress, ReleaseBook, ReleaseDamagedError, StopOrder
from schleuse.processes.switching import open_switch
from schleuse.scopes import Direction, Service
from schleuse.switch.approval import Approval, approved_by_two, valid
from schleuse.switch.copy import Switch
from schleuse.switch.documents import Rights, Role

log = structlog.get_logger()

PURPOSE = "release-plan"
#: § 10: "release backlog: switch officer; service owner or tenant delegate".
FIRST, SECOND = frozenset({Role.SWITCH_OFFICER}), frozenset({Role.SERVICE_OWNER, Role.TENANT_DELEGATE})
KNOWN_LABELS = frozenset({str(EAU_LIEFERUNG), str(EAU_STORNO_ARZT)})

#: Between two looks at a batch.
LOOK_SECONDS = 0.3
#: Between two looks whether anything was begun.
IDLE_SECONDS = 2.0
_PAGE = 100_000
#: An entry's detail names so many mailboxes.
MOST_MAILBOXES = 50

#: Facts for the journal, and whether it was granted. Raises UnavailableError.
Tell = Callable[[Mapping[str, Json], bool], None]


class NotApprovedError(RefusedError):
    """Two different persons, a switch officer and a service owner or tenant delegate, have to approve it first."""

    code = "release.not-approved"


class VoidApprovalError(RefusedError):
    """The approval would count for nothing: not this plan, not this time, not this key, or a role that is not his."""

    code = "release.void-approval"


class StillHeldError(UnavailableError):
    """The insurer is held now, so nothing of its backlog may go; it goes on after the opening."""

    code = "release.still-held"


class PeopleNeededError(UnavailableError):
    """The insurer was switched since a person last ran this release; one who has looked runs it again, or stops it."""

    code = "release.people-needed"


class MailboxBusyError(ConflictError):
    """Another release of the same mailbox runs; stop it, or let it end first."""

    code = "release.mailbox-busy"


class Releases:
    """All releases of a home. now: with a zone. accounts: of all insurers of the home."""

    def __init__(
        self,
        book: ReleaseBook,
        leases: Leases,
        switch: Switch,
        rights: Rights,
        tell: Tell,
        now: Now,
        accounts: Collection[str] = (),
    ) -> None:
        self.book = book
        self._leases = leases
        self._switch = switch
        self._rights = rights
        self._tell = tell
        self._now = now
        self._all_accounts = frozenset(accounts)
        self._back = set[tuple[str, str, int]]()  # batches that were held again: plan, mailbox, end
        self._told: dict[str, Collection[str]] = {}  # by plan: mailboxes whose waiting was logged

    def plan(self, id: str, mailboxes: Mapping[str, str], *, first: int, backlog_permille: int = 300) -> ReleasePlan:
        """A plan for what waits now, not kept yet. mailboxes: account -> IK. Raises BadReleasePlanError.

        The mailbox whose first mail has waited longest goes first (HD-44).
        """
        waiting = {account: self._backlog(account) for account in mailboxes}
        found = sorted((ids[0], account) for account, ids in waiting.items() if ids)
        parts = tuple(
            Mailbox(account, mailboxes[account], waiting[account][-1], len(waiting[account])) for _, account in found
        )
        return ReleasePlan(id, self._switch.epoch, self._now(), parts, first=first, backlog_permille=backlog_permille)

    def look(self, plan: ReleasePlan) -> DryRun:
        """What the plan would meet; reads every mail once and opens none (HD-41, HD-45)."""
        return dry_run(plan, self._held(plan), KNOWN_LABELS, self._now())

    def keep(self, plan: ReleasePlan) -> None:
        """Write the plan."""
        self._said("planned", plan.id, count=plan.count, hash=plan.hash)
        self.book.keep(plan)

    def approve(self, plan: ReleasePlan, approval: Approval) -> None:
        """Keep an approval that counts. Raises VoidApprovalError (RO-04, RO-05)."""
        person = valid(approval, PURPOSE, plan.hash, self._rights.trusted(self._now()), self._now())
        if person is None or approval.role not in FIRST | SECOND or not approval.is_brief:
            raise VoidApprovalError(
                f"{approval.operator} as {approval.role.value} does not approve {plan.id}: expected an operator who has"
                f" the role, as {' or '.join(sorted(FIRST | SECOND))}, and his own key"
            )
        self._said("approved", plan.id, by=approval.operator, role=approval.role.value, hash=approval.hash)
        self.book.keep_approval(plan.id, approval)

    def is_approved(self, plan: ReleasePlan) -> bool:
        """By two persons, for exactly this plan, now or, once it is begun, when it was begun (RO-01, RO-04)."""
        begun = self.book.progress(plan.id).begun_at
        at = datetime.fromisoformat(begun) if begun else self._now()
        rights = self._rights.trusted(self._now())
        given = [one for one in self.book.approvals(plan.id) if one.is_brief]
        return approved_by_two(given, PURPOSE, plan.hash, FIRST, SECOND, rights, at)

    def step(self, id: str, *, alone: bool = False) -> Progress:
        """One look, and at most one batch of each mailbox. Harmless again after a crash. alone: no person looks on.

        Raises NotApprovedError, MailboxBusyError, StillHeldError, PeopleNeededError, UnavailableError, CorruptError.
        """
        self.book.require(id)
        with self.book.alone():
            at, order = self.book.known(id), self.book.stop_order(id)
            if at is not None and (at.stopped or at.finished):
                return at
            if order is not None:  # whoever ordered it may have died before it was done
                return self._end(id, order)
            return self._go_on(self.book.read(id), self.book.progress(id), alone)

    def stop(self, id: str, reason: str, by: str) -> Progress:
        """Nothing more goes, at once; what nobody has taken is held again (HD-42). One person suffices.

        Nobody need be able to read its files, as after an upgrade or a damage (SW-01). What cannot be done keeps
        nothing else from being done, and is raised at the end: ReleaseNotKeptError, UnavailableError, CorruptError.
        """
        self.book.require(id)
        at = self.book.known(id)
        if at is not None and at.finished:
            return at
        returned, faults = 0, list[Error]()
        order = StopOrder(reason, by, self._now().isoformat())
        try:
            self.book.order_stop(id, order)
        except Error as fault:
            faults.append(fault)
        try:
            returned = self._take_back(id)
        except Error as fault:
            faults.append(fault)
        if faults:
            raise faults[0]
        with self.book.alone():  # a step that was under way may have let a batch go; it is over now
            return self._end(id, order, returned)

    def stop_all(self, accounts: Collection[str], reason: str, by: str) -> list[str]:
        """Every release that was begun and has one of these mailboxes, as when a restart is aborted (T-14, RS-06).

        One that cannot be stopped whole keeps no other from being stopped; its error is raised at the end.
        """
        those = [id for id in self.book.running() if not self._accounts(id).isdisjoint(accounts)]
        faults = list[Error]()
        for id in those:
            try:
                self.stop(id, reason, by)
            except Error as fault:
                faults.append(fault)
        if faults:
            raise faults[0]
        return those

    def _go_on(self, plan: ReleasePlan, at: Progress, alone: bool) -> Progress:
        if not self.is_approved(plan):
            raise NotApprovedError(
                f"{plan.id} needs two persons: {', '.join(FIRST)}, and {' or '.join(sorted(SECOND))}"
            )
        todo = {one.account: one for one in plan.mailboxes if not at.part(one.account).done}
        self._require_free(plan)
        barred = self._barred(plan, todo, at, alone)
        at = self._held_again(plan, todo, at, barred)
        if len(barred) == len(todo):
            raise next(iter(barred.values()))
        if not alone:
            at = replace(at, epoch=self._switch.epoch)
        # Again, if a crash came before it.
        gone = [one for one in todo if at.part(one).size and not at.part(one).back and one not in barred]
        self._leases.holds.release({one: at.part(one).upto for one in gone})
        seen = self._seen(plan, at, todo, barred)
        while True:
            steps = next_steps(plan, seen, at.released, at.failed)
            if isinstance(steps, Stop):
                return self._stopped_by_rule(plan, steps.reason)
            again = [one for one, step in steps.items() if isinstance(step, Release) and seen[one].waiting]
            sizes = {one: step.count for one, step in steps.items() if isinstance(step, Release) and one not in again}
            batches = {one: self._waiting(todo[one], count) for one, count in sizes.items()}
            parts = self._next(at, {one: batch for one, batch in batches.items() if batch})
            late = {one for one, batch in batches.items() if batch and one not in parts}
            if not late:
                break
            seen = {one: replace(was, barred=was.barred or one in late) for one, was in seen.items()}
        done = {one for one, step in steps.items() if isinstance(step, MailboxDone)}
        done |= batches.keys() - parts.keys()
        going = {one: batches[one] for one in parts}
        parts |= {one: replace(at.part(one), done=True) for one in done}
        parts |= {one: replace(at.part(one), back=False) for one in again}
        return self._act(plan, at, seen, parts, going, alone)

    def _held_again(
        self, plan: ReleasePlan, todo: Collection[str], at: Progress, barred: Mapping[str, Error]
    ) -> Progress:
        """What a held insurer has out: nobody takes it, and at its opening it must not go beside what is out then.

        Recorded first. Not where it is open again and waits for people: what two have opened with it stays open.
        """
        held = [one for one in todo if at.part(one).size and isinstance(barred.get(one), StillHeldError)]
        new = [one for one in held if not at.part(one).back]
        if new:
            at = replace(at, parts={**at.parts, **{one: replace(at.part(one), back=True) for one in new}})
            self.book.note(plan.id, at)
        undone = [one for one in held if (plan.id, one, at.part(one).upto) not in self._back]
        if new or undone:  # also after a crash that came before it
            self._leases.holds.take_back_all({*new, *undone})
            self._back |= {(plan.id, one, at.part(one).upto) for one in held}
        return at

    def _act(
        self,
        plan: ReleasePlan,
        at: Progress,
        seen: Mapping[str, Seen],
        parts: Mapping[str, Part],
        batches: Mapping[str, Sequence[int]],
        alone: bool,
    ) -> Progress:
        """Record, then let go. parts: what has changed, by account; batches: what goes now."""
        for account, batch in batches.items():
            broken = sum(not one.whole for one in self._leases.release_view.peek(batch))
            if broken:  # HD-45: before the release, not after it
                reason = f"{account}: {broken} of the next {len(batch)} no longer match their seal"
                return self._stopped_by_rule(plan, reason)
        if not parts:
            return at if alone else self._seen_by_people(plan, at)
        moved = replace(
            at,
            parts={**at.parts, **parts},
            released=at.released + sum(parts[one].size for one in batches),
            failed=at.failed + sum(seen[one].errors for one in parts if one in batches or parts[one].done),
            begun_at=at.begun_at or (self._now().isoformat() if batches else ""),
        )
        moved = replace(moved, finished=all(moved.part(one.account).done for one in plan.mailboxes))
        gone = {one: part.upto for one, part in parts.items() if not part.done}
        self._moved(plan, moved, gone)
        order = self.book.stop_order(plan.id)
        if order is not None:
            return self._end(plan.id, order)
        self._leases.holds.release(gone)
        return moved

    def _next(self, at: Progress, batches: Mapping[str, Sequence[int]]) -> dict[str, Part]:
        """How far the mailboxes of these batches are once they went."""
        ranges = {one: (at.part(one).upto or batch[0] - 1, batch[-1]) for one, batch in batches.items()}
        before = self._leases.release_view.outcomes(ranges, self._now())
        return {
            one: Part(*ranges[one], len(batch), at.part(one).batches + 1, before[one].failed)
            for one, batch in batches.items()
            if not before[one].put_back  # since before the hold; they would look like errors of this batch
        }

    def _seen_by_people(self, plan: ReleasePlan, at: Progress) -> Progress:
        if at.begun_at and at.epoch > self.book.progress(plan.id).epoch:
            self.book.note(plan.id, at)
        return at

    def _barred(
        self, plan: ReleasePlan, todo: Mapping[str, Mailbox], at: Progress, alone: bool
    ) -> Mapping[str, UnavailableError]:
        """The mailboxes of which nothing may go now, and why."""
        found: dict[str, UnavailableError] = {}
        for account, mailbox in todo.items():
            standing = self._switch.standing(Service.EAU_INTAKE, mailbox.ik, Direction.PROCESS)
            if not standing.state.begins:
                found[account] = StillHeldError(f"{mailbox.ik} is held; open it first, the rest of {plan.id} waits")
            elif alone and standing.epoch > at.epoch:  # held and opened again: no timer goes on with it (SW-03)
                found[account] = PeopleNeededError(
                    f"{mailbox.ik} was switched at epoch {standing.epoch}; run {plan.id} again"
                )
        if len(found) < len(todo):  # else the release says so itself
            for account in found.keys() - set(self._told.get(plan.id, ())):
                log.warning("release.mailbox-waits", id=plan.id, code=found[account].code, reason=str(found[account]))
            self._told[plan.id] = found
        return found

    def _seen(
        self, plan: ReleasePlan, at: Progress, todo: Mapping[str, Mailbox], barred: Collection[str]
    ) -> dict[str, Seen]:
        out = {one: (at.part(one).above, at.part(one).upto) for one in todo if at.part(one).size}
        outcomes = self._leases.release_view.outcomes(out, self._now())
        found: dict[str, Seen] = {}
        for account, mailbox in todo.items():
            part, outcome = at.part(account), outcomes.get(account)
            if outcome is None:  # how many there are is looked at when its turn comes
                found[account] = Seen(0, 0, 0, 0, max(mailbox.count, 1), barred=account in barred)
                continue
            errors = max(outcome.failed - part.errors_before, 0) + outcome.put_back
            left = outcome.waiting or len(self._waiting(mailbox, batch_size(plan, part.batches)))
            is_barred, back = account in barred, part.back and outcome.waiting > 0
            found[account] = Seen(
                part.size, outcome.waiting, errors, outcome.damaged, left, part.batches, is_barred, back
            )
        return found

    def _waiting(self, mailbox: Mailbox, limit: int) -> list[int]:
        """The first so many of it that are backlog and part of the plan."""
        return [one for one in self._leases.holds.backlog(mailbox.account, limit) if one <= mailbox.upto]

    def _stopped_by_rule(self, plan: ReleasePlan, reason: str) -> Progress:
        order = StopOrder(reason, "rule", self._now().isoformat())
        self.book.order_stop(plan.id, order)
        return self._end(plan.id, order)

    def _end(self, id: str, order: StopOrder, returned: int = 0) -> Progress:
        """What follows from an order to stop; the last act notes that it was done."""
        returned += self._take_back(id)
        known = self.book.known(id)
        if known is not None and known.stopped:
            return known
        moved = replace(known or Progress(), stopped=order.reason or "-")
        if known is None:  # first: where it cannot be replaced, every look would tell the journal again
            self.book.note(id, moved)
        self._said("stopped", id, by=order.by, reason=order.reason, returned=returned)
        self.book.note(id, moved)
        return moved

    def _take_back(self, id: str) -> int:
        return self._leases.holds.take_back_all(self._accounts(id))

    def _accounts(self, id: str) -> frozenset[str]:
        """Its mailboxes; if its plan cannot be read, those that have begun; if nobody knows those, all of this home.

        Too many is safe: what another release has let go there goes again with its next step.
        """
        try:
            return frozenset(one.account for one in self.book.read(id).mailboxes)
        except ReleaseDamagedError:
            at = self.book.known(id)
            return frozenset(at.parts) if at is not None and at.parts else self._all_accounts

    def _require_free(self, plan: ReleasePlan) -> None:
        mine = {one.account for one in plan.mailboxes}
        for id in self.book.running():
            if id != plan.id and not self._accounts(id).isdisjoint(mine):
                raise MailboxBusyError(f"{id} runs and has a mailbox of {plan.id}; stop it, or let it end first")

    def _moved(self, plan: ReleasePlan, at: Progress, gone: Mapping[str, int]) -> Progress:
        """gone: up to which delivery each mailbox goes now. Told first: nothing goes that the journal does not have."""
        for start in range(0, max(len(gone), 1), MOST_MAILBOXES):
            some: dict[str, Json] = dict(list(gone.items())[start : start + MOST_MAILBOXES])
            self._said("step", plan.id, released=at.released, upto=some, finished=int(at.finished))
        self.book.note(plan.id, at)
        return at

    def _backlog(self, account: str) -> list[int]:
        found: list[int] = []
        while page := self._leases.holds.backlog(account, _PAGE, found[-1] if found else 0):
            found += page
        return found

    def _held(self, plan: ReleasePlan) -> Iterator[HeldMail]:
        for mailbox in plan.mailboxes:
            ids = [one for one in self._backlog(mailbox.account) if one <= mailbox.upto]
            again = self._leases.release_view.sent_again(mailbox.account, ids[0] - 1) if ids else frozenset()
            for mail in self._leases.release_view.peek(ids):
                yield HeldMail(mail.id, mailbox.account, mail.accepted_at, mail.label, mail.whole, mail.id in again)

    def _said(self, what: str, id: str, **facts: Json) -> None:
        self._tell({"act": f"release.{what}", "plan": id, **facts}, True)


def release_book(config: Config) -> ReleaseBook:
    """Of this home."""
    return ReleaseBook(releases_of(config.home))


def releases_of(home: Path) -> Path:
    """The folder of releases; known without a configuration, so that a stop needs none."""
    return home / "switch" / "releases"


@contextmanager
def open_releases(config: Config, tell: Tell, worker: str = "command") -> Iterator[Releases]:
    """worker: whose copy of the switch it reads. Raises UnavailableError."""
    retention = timedelta(days=config.kim.retention_days)
    with open_leases(config.kim_database, config.kim.spool, retention) as leases:
        switch, accounts = open_switch(config, worker), [one.address.lower() for one in config.insurers]
        yield Releases(release_book(config), leases, switch, rights_of(config), tell, utc_now, accounts)


async def run(config: Config, tell: Tell) -> None:
    """For the control role: go on for ever with what people have begun, should their command have ended.

    It begins nothing: two approvals let somebody begin, and only he does (SW-03).
    """
    book, said = release_book(config), dict[str, str]()
    while True:
        try:
            if book.running():
                with open_releases(config, tell, "release") as releases:
                    while running := await asyncio.to_thread(book.running):
                        for id in running:
                            await asyncio.to_thread(_try_step, releases, id, said)
                        await asyncio.sleep(LOOK_SECONDS)
        except Error as error:
            log.warning("release.waits", code=error.code, reason=str(error))
        await asyncio.sleep(IDLE_SECONDS)


def _try_step(releases: Releases, id: str, said: dict[str, str]) -> None:
    """said: what each waits for, so that the log has it once."""
    try:
        releases.step(id, alone=True)
        said.pop(id, None)
    except Error as error:
        if said.get(id) != error.code:
            log.warning("release.waits", id=id, code=error.code, reason=str(error))
        said[id] = error.code
