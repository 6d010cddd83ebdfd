"""One worker of the `eau` role: takes a batch under a lease, looks into each mail, files, and closes the deliveries.

Order of events, and why (docs/tour.md § 6-10): the eAU store is durable before the mail store is told, so a crash
between the two repeats the batch, and filing finds its own earlier answers. Our own trouble puts a mail back and
never answers it (HD-01). The vault is asked three times a batch and insurer: for the keys of the mails, for pseudonyms,
and to seal what will be filed; each time its journal is durable first (RP-01).

The switch is asked for each insurer of each batch, and again between its mails, so that a worker with a whole batch
before it is quiet at once; the epoch goes with the batch to every store that has an effect of it (SW-06). A batch that
was overtaken by a closing is put back as a whole, as if it had not been taken (SW-10); the other insurers' batches go
on (T-24).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import structlog

from schleuse.eau.decision import settle
from schleuse.eau.document import Facts
from schleuse.eau.fehlernachricht import (
    BadFehlernachrichtError,
    Envelope,
    Fehlernachricht,
    answer_address,
    build_mail,
    identity,
    message_id,
)
from schleuse.eau.findings import Membership, Trouble
from schleuse.eau.intake import Mailbox, Tools, examine
from schleuse.eau.outcome import (
    DeliveredAgain,
    Faulty,
    Filed,
    Memory,
    Outcome,
    Policy,
    Quarantine,
    Quarantined,
    StornoFiled,
    StornoPending,
    Wait,
)
from schleuse.eau.sealing import AskMembership, Case, make_cases
from schleuse.eau.store import Arrival, EauStore, Filing, Letter, Recorded, Sealed
from schleuse.eau.storno import other_practice
from schleuse.eau.switched import may_process, processing
from schleuse.eau.trips import Rests, trouble_of
from schleuse.errors import Error, UnavailableError
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.address import KIMAddress
from schleuse.kim.directory import Directory
from schleuse.kim.store import BACKLOG_PERMILLE, Claimed, Leases, Take, Under
from schleuse.kim.store import Outcome as DeliveryOutcome
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.copy import Switch
from schleuse.switch.fence import StaleEpochError
from schleuse.vault.contracts import ScopeClosedError

log = structlog.get_logger()

#: Longer than any batch takes; a worker that dies has its leases reset when it starts again.
LEASE = timedelta(minutes=5)
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)

#: The steps of a batch at which the crash tests kill the process, in order.
STEPS = ("claimed", "opened", "examined", "filing", "filed", "finished")


#: Reason of mails that were put back because the switch closed their insurer meanwhile.
SWITCHED = "switched"


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A closing overtook the worker (T-05). epoch: under which it worked. deliveries: fully undone, put back.

    uncertain: decided and recorded in the eAU store, and still HELD in the mail store; when they are taken again, the
    decision is found again (SW-10).
    """

    ik: IK
    epoch: int
    deliveries: tuple[int, ...] = ()
    uncertain: tuple[int, ...] = ()


def tell_nobody(_overtaken: Overtaken) -> None:
    """For a worker without a journal."""


def no_membership(_ik: IK, _facts: Facts, _on: datetime) -> Membership:
    """Without membership data nobody is told that a person is not insured (code 100 needs an answer, eau.md § 13.2)."""
    return Membership.NOT_ASKED


def wait_until(accepted_at: datetime, now: datetime) -> datetime:
    """When a mail that met our own trouble is tried again: the older, the rarer."""
    return now + min(max((now - accepted_at) / 4, FIRST_WAIT), LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Settings:
    """owner: name of this worker in leases, the same after a restart. product: of X-KIM-Sendersystem."""

    owner: str
    batch: int
    policy: Policy
    product: str


@dataclass(slots=True, repr=False)
class Worker:
    """Call `run_batch` again and again. step: named in STEPS, for crash tests; membership: of the insurer.

    backlog_permille: share of a backlog while live traffic wants all (HD-43).
    told: gets what a closing overtook; raises nothing. unit: entered for each atom while its work runs.
    """

    settings: Settings
    leases: Leases
    store: EauStore
    mailboxes: Mapping[str, Mailbox]
    tools: Tools
    now: Callable[[], datetime]
    switch: Switch
    backlog_permille: int = BACKLOG_PERMILLE
    told: Callable[[Overtaken], None] = tell_nobody
    unit: Callable[[Scope], AbstractContextManager[object]] = nullcontext
    membership: AskMembership = no_membership
    step: Callable[[str], None] = field(default=lambda _step: None)
    rests: Rests = field(default_factory=Rests)
    _no_letters: Error | None = None

    def start(self) -> int:
        """Give back what an earlier run of this worker held when it died."""
        return self.leases.reset(self.settings.owner)

    def run_batch(self) -> int:
        """Take, look, file, close. Returns how many mails were taken. Raises UnavailableError, CorruptError."""
        now = self.now()
        takes = self._takes(now)
        if not takes:
            return 0
        with self.tools.stage("claim"):
            claims = self.leases.claim(takes, self.settings.batch, self.settings.owner, now, LEASE)
        if claims.stale:
            log.warning("switch.stale-claim", scopes=sorted(map(str, claims.stale)))
        claimed = claims.mails
        if not claimed:
            return 0
        by_insurer = self._by_insurer(claimed)
        with ExitStack() as units:
            for ik in by_insurer:
                units.enter_context(self.unit(processing(ik)))
            self._work(by_insurer, {mail.id: mail for mail in claimed})
        return len(claimed)

    def _work(self, by_insurer: Mapping[IK, Sequence[Claimed]], mails: Mapping[int, Claimed]) -> None:
        self.step("claimed")
        directory = self._directory()
        recorded: list[Recorded] = []
        for ik, some in by_insurer.items():
            recorded += self._batch(ik, some, directory)
        self.step("filed")
        with self.tools.stage("finish"):
            self._close(recorded, mails)
        self.step("finished")

    def _takes(self, now: datetime) -> list[Take]:
        """Mailboxes of which work may begin now, and how much (HD-25, T-24)."""
        takes: list[Take] = []
        for account, mailbox in self.mailboxes.items():
            if self.rests.resting(mailbox.ik, now):
                continue
            at = may_process(self.switch, mailbox.ik)
            if at is not None:
                limit = at.limit if at.state is ScopeState.LIMITED else None
                takes.append(
                    Take(
                        account,
                        Under(processing(mailbox.ik), at.epoch),
                        None if limit is None else limit.permille,
                        None if limit is None else limit.per_hour,
                        self.backlog_permille,
                    )
                )
        return takes

    def _by_insurer(self, claimed: Sequence[Claimed]) -> dict[IK, list[Claimed]]:
        found: dict[IK, list[Claimed]] = {}
        for mail in claimed:
            found.setdefault(self.mailboxes[mail.account].ik, []).append(mail)
        return found

    def _batch(self, ik: IK, mails: Sequence[Claimed], directory: Directory | None) -> list[Recorded]:
        """All mails of one insurer; all or none of them are recorded."""
        under = mails[0].under  # of one claim, and each insurer has one mailbox
        epoch = None if under is None else under.epoch
        try:
            self._require_unswitched(ik, epoch)
            return self._file(ik, mails, directory, epoch)
        except (StaleEpochError, ScopeClosedError) as error:
            log.warning("eau.overtaken", ik=str(ik), mails=len(mails), code=error.code, reason=str(error))
            self.told(Overtaken(ik, epoch or 0, deliveries=tuple(mail.id for mail in mails)))
            return [Recorded(mail.id, State.HELD, SWITCHED) for mail in mails]

    def _require_unswitched(self, ik: IK, epoch: int | None) -> None:
        """Raises StaleEpochError if no batch may go on that was taken at this epoch."""
        at = may_process(self.switch, ik)
        if at is None or (epoch is not None and at.epoch != epoch):
            raise StaleEpochError(f"the insurer {ik} was switched after its mails were taken at epoch {epoch}")

    def _file(self, ik: IK, mails: Sequence[Claimed], directory: Directory | None, epoch: int | None) -> list[Recorded]:
        going = partial(self._require_unswitched, ik, epoch)
        looked = examine(ik, mails, self.mailboxes, self.tools, self.now(), going)
        self.step("opened")
        with self.tools.stage("seal"):
            made = make_cases(ik, looked.mails, self.tools.vault, self.settings.policy, self.membership)
        cases, refused = made.cases, looked.refused or made.refused
        if isinstance(refused, ScopeClosedError):  # the vault saw the closing before us
            raise refused
        self.rests.note(ik, refused is not None, self.now())
        if refused is not None:
            log.warning("eau.vault_waits", ik=str(ik), code=refused.code, reason=str(refused))
        self._no_letters = None
        self.step("examined")
        try:
            with (
                self.tools.stage("file"),
                self.store.filing(ik, [case.arrival for case in cases], self.now(), epoch) as filing,
            ):
                recorded = [self._settle(ik, case, filing, directory) for case in cases]
                self.step("filing")
        except UnavailableError as error:
            log.warning("eau.filing_waits", ik=str(ik), mails=len(cases), code=error.code, reason=str(error))
            return [Recorded(case.arrival.delivery, State.HELD, Trouble.STORE.value) for case in cases]
        return recorded

    def _settle(self, ik: IK, case: Case, filing: Filing, directory: Directory | None) -> Recorded:
        earlier = filing.recorded(case.arrival)
        if earlier is not None:
            return earlier
        try:
            outcome, letter = self._outcome(ik, case, filing.memory(case.arrival), directory)
        except Exception as error:  # as above; nothing of this mail was recorded yet
            log.error("eau.mistake", delivery=case.arrival.delivery, error=type(error).__name__)
            outcome, letter = Wait(Trouble.INTERNAL), None
        recorded = filing.keep(case.arrival, outcome, sealed=_kept(outcome, case.sealed), letter=letter)
        _tell_foreign_storno(case.arrival, outcome)
        # The ordinary case is counted, not told one by one; those that wait are told once a batch.
        if recorded.state not in (State.DELIVERED, State.HELD):
            log.info("eau.decided", delivery=recorded.delivery, state=recorded.state.value, reason=recorded.reason)
        return recorded

    def _outcome(
        self, ik: IK, case: Case, memory: Memory, directory: Directory | None
    ) -> tuple[Outcome, Letter | None]:
        outcome = settle(case.judgement, case.examined.findings, memory, self.settings.policy)
        if isinstance(outcome, StornoPending) and outcome.refusal is not None:
            # Nobody to write to is no reason to refuse a Storno that may yet cancel its eAU.
            prepared = self._letter(ik, case, outcome.refusal, directory)
            return (prepared, None) if isinstance(prepared, Wait) else (outcome, _letter_or_none(prepared))
        if not isinstance(outcome, Faulty):
            return outcome, None
        answer = self._letter(ik, case, outcome, directory)
        return (outcome, answer) if isinstance(answer, Letter) else (answer, None)

    def _letter(self, ik: IK, case: Case, faulty: Faulty, directory: Directory | None) -> Letter | Outcome:
        """The Fehlernachricht, sealed; or why there is none: no directory (we wait), or nobody to write to."""
        if directory is None:
            return Wait(Trouble.DIRECTORY)
        examined = case.examined
        recipient = answer_address(examined.reply_to, examined.sender, lambda address: address in directory)
        if recipient is None:
            return Quarantined(Quarantine.NO_ADDRESS)
        sender = KIMAddress(self.mailboxes[examined.claimed.account].address)
        id = identity(ik, examined.claimed.id, examined.findings.message_id)
        message = Fehlernachricht(id, self.settings.policy.prefix, faulty)
        envelope = Envelope(sender, recipient, self.now(), self.settings.product, examined.findings.message_id)
        try:
            draft = build_mail(message, envelope)
        except BadFehlernachrichtError as error:
            log.error("eau.letter_impossible", delivery=examined.claimed.id, reason=str(error))
            return Quarantined(Quarantine.NO_REFERENCE)
        # This happens under the lock of the insurer, so a vault that does not serve is asked once a batch.
        if self._no_letters is not None:
            return Wait(trouble_of(self._no_letters))
        try:
            sealed = self.tools.vault.seal_letter(ik, message_id(id, sender), draft)
        except Error as error:
            if isinstance(error, UnavailableError):
                self._no_letters = error
            return Wait(trouble_of(error))
        return Letter(message_id(id, sender), sender.value, recipient.value, sealed)

    def _close(self, recorded: Sequence[Recorded], mails: Mapping[int, Claimed]) -> None:
        now = self.now()
        done = [
            DeliveryOutcome(one.delivery, one.state, one.reason, mails[one.delivery].under)
            for one in recorded
            if one.state is not State.HELD
        ]
        finished = self.leases.finish(done, self.settings.owner, now)
        if finished.lost:
            log.warning("eau.leases_lost", deliveries=len(finished.lost))
        self._tell_uncertain([mails[id] for id in sorted(finished.stale)])
        overtaken = [one.delivery for one in recorded if one.reason == SWITCHED] + sorted(finished.stale)
        # At once, whatever their age: nobody may take them before the switch lets him.
        self.leases.put_back(overtaken, self.settings.owner, now)
        held = [one for one in recorded if one.state is State.HELD and one.reason != SWITCHED]
        if held:  # one line a batch: an outage of ours makes all mails wait, again and again
            reasons = Counter(one.reason for one in held)
            log.warning("eau.waits", mails=len(held), reasons=dict(reasons), first=held[0].delivery)
        for one in held:
            not_before = wait_until(mails[one.delivery].accepted_at, now)
            self.leases.put_back([one.delivery], self.settings.owner, not_before)

    def _tell_uncertain(self, mails: Sequence[Claimed]) -> None:
        for ik, some in self._by_insurer(mails).items():
            ids = tuple(mail.id for mail in some)
            log.warning("eau.uncertain", ik=str(ik), deliveries=ids)
            self.told(Overtaken(ik, some[0].under.epoch if some[0].under else 0, uncertain=ids))

    def _directory(self) -> Directory | None:
        try:
            return self.tools.directory()
        except UnavailableError as error:
            log.error("eau.directory_unavailable", reason=str(error))
            return None


def _tell_foreign_storno(arrival: Arrival, outcome: Outcome) -> None:
    """The profile does not forbid it, and somebody may want to ask both practices (eau.md § 11)."""
    match outcome:
        case StornoFiled(_, target, True):
            log.warning("eau.storno_of_other_practice", storno=arrival.delivery, eau=target.delivery)
        case Filed(cancelled_by=storno) if storno and other_practice(arrival.practice, storno.practice):
            log.warning("eau.storno_of_other_practice", storno=storno.delivery, eau=arrival.delivery)
        case _:
            pass


def _letter_or_none(made: Letter | Outcome) -> Letter | None:
    return made if isinstance(made, Letter) else None


def _kept(outcome: Outcome, sealed: Sealed | None) -> Sealed | None:
    """Nothing of a mail that is not filed is kept."""
    if isinstance(outcome, Faulty | Quarantined | Wait):
        return None
    if isinstance(outcome, DeliveredAgain) and outcome.facts is None:
        return None
    return sealed
