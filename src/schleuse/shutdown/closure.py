"""Is it off? What has to be seen of each closed atom, and what the sightings amount to (SW-07, SW-17). Pure.

"Off" is a claim until a probe from outside was answered as the state promises, a counter shows no effect after all
workers were quiet, and the databases refuse older epochs. Missing data never counts as off: it is inconclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schleuse.scopes import NONE, Direction, Scope, ScopeState, Service
from schleuse.switch.effects import SwitchEffect
from schleuse.switch.standing import Standing


class Verdict(StrEnum):
    """Values of incident.md appendix A."""

    PROVEN = "proven"
    NOT_PROVEN = "not_proven"
    INCONCLUSIVE = "inconclusive"


class Method(StrEnum):
    """Values of ClosureProof.method, incident.md § 5.3."""

    EXTERNAL_PROBE = "external_probe"
    COUNTER = "counter"
    FIREWALL_READBACK = "firewall_readback"
    KEY_SERVICE_READBACK = "key_service_readback"


class What(StrEnum):
    """What is looked at; several belong to one method."""

    WORKERS = "workers"  #: every worker has seen the epoch and is quiet
    FENCE = "fence"  #: the databases refuse what was decided under an older epoch (SW-06)
    SMTP = "smtp"  #: RCPT TO the mailbox, from a practice's account
    POP3 = "pop3"  #: the mailbox's own login
    FEED = "feed"  #: the insurer's feed
    ANSWERS = "answers"  #: the insurer's list of answers to employers
    EFFECTS = "effects"  #: the role's own count of what went out
    RELEASES = "releases"  #: the vault's count of what was opened
    EXTERNAL = "external"  #: the probe of a system that is not ours


METHOD: Mapping[What, Method] = {
    What.WORKERS: Method.COUNTER,
    What.FENCE: Method.COUNTER,
    What.SMTP: Method.EXTERNAL_PROBE,
    What.POP3: Method.EXTERNAL_PROBE,
    What.FEED: Method.EXTERNAL_PROBE,
    What.ANSWERS: Method.EXTERNAL_PROBE,
    What.EFFECTS: Method.COUNTER,
    What.RELEASES: Method.KEY_SERVICE_READBACK,
    What.EXTERNAL: Method.EXTERNAL_PROBE,
}


class Answer(StrEnum):
    """What a probe from outside met."""

    ACCEPTED = "accepted"  #: taken in: SMTP 250
    DEFERRED = "deferred"  #: SMTP 451 with the words of § 6.5
    CLOSED = "closed"  #: the machine-readable "temporarily closed"
    PASSED = "passed"  #: it worked as if nothing had been closed
    OTHER = "other"  #: nothing passed, and the answer is not the promised one


@dataclass(frozen=True, slots=True)
class Seen:
    """answer: None if nobody knows, such as after a timeout. text: as it came, without personal data."""

    answer: Answer | None
    text: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Need:
    """What must be proven closed, an atom or a system that is not ours: where it stands, since which epoch's command.

    external: the name of such a system, "" for an atom.
    """

    scope: Scope
    state: ScopeState
    epoch: int
    command: str
    since: datetime | None
    external: str = ""

    @property
    def text(self) -> str:
        """As proofs name it."""
        return proof_name(self.scope, self.external)


def proof_name(scope: Scope, external: str = "") -> str:
    """Of an atom, or of a system that is not ours."""
    return f"{scope} [{external}]" if external else str(scope)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    scope: Scope
    what: What


@dataclass(frozen=True, slots=True)
class ClosureProof:
    """The record of incident.md § 5.3, of one check. id: epoch, attempt and number. scope: its text.

    command: id of the command, "" where a role keeps to the safe state. place: where the probe ran.
    raw_hash: SHA-256 of everything that was observed, in hex.
    """

    id: str
    command: str
    epoch: int
    scope: str
    what: What
    method: Method
    expected: str
    observed: str
    attempts: int
    place: str
    started_at: datetime
    finished_at: datetime
    verdict: Verdict
    raw_hash: str


#: Beside workers and fence, what is looked at for each kind of atom. Services that are not here exist nowhere yet.
_CHECKS: Mapping[tuple[Service, Direction], tuple[What, ...]] = {
    (Service.EAU_INTAKE, Direction.ACCEPT): (What.FENCE, What.SMTP),
    (Service.EAU_INTAKE, Direction.PROCESS): (What.FENCE, What.RELEASES),
    (Service.EAU_INTAKE, Direction.DELIVER): (What.FENCE, What.FEED, What.POP3, What.EFFECTS, What.RELEASES),
    (Service.EAU_EMPLOYER_ANSWER, Direction.DELIVER): (What.FENCE, What.ANSWERS, What.EFFECTS),
    (Service.KIM_MAIL, Direction.ACCEPT): (What.FENCE, What.SMTP),
    (Service.KIM_MAIL, Direction.DELIVER): (What.FENCE, What.EFFECTS),
    (Service.KIM_MAIL, Direction.READ): (What.FENCE, What.POP3),
    (Service.KEYS, Direction.PROCESS): (What.RELEASES,),
    (Service.KEYS, Direction.ADMIN): (),
}
#: Services whose units of work belong to no insurer.
_OF_NOBODY = frozenset({Service.KIM_MAIL})


def provable(atoms: Iterable[Scope]) -> list[Scope]:
    """Those of the enforced atoms in which units of work exist: eAU and keys of insurers, mail of nobody."""
    return [
        one
        for one in atoms
        if (Service(one.service), Direction(one.direction)) in _CHECKS
        and (one.tenant == NONE) == (Service(one.service) in _OF_NOBODY)
    ]


def needs(standings: Mapping[Scope, Standing]) -> list[Need]:
    """The atoms that are less than OPEN by a command or by doubt."""
    return [
        Need(scope, at.state, at.epoch, at.command, at.since)
        for scope, at in standings.items()
        if at.state is not ScopeState.OPEN
    ]


def checks(need: Need) -> list[Check]:
    """What has to be seen. While units begin, in LIMITED, it is that every worker knows of the limit."""
    if need.external:
        return [Check(need.scope, What.EXTERNAL)]
    found = [What.WORKERS]
    direction = Direction(need.scope.direction)
    if not need.state.begins:
        found += _CHECKS.get((Service(need.scope.service), direction), ())
    return [Check(need.scope, what) for what in found]


def promised(check: Check, state: ScopeState) -> Answer:
    """The answer that the state promises to the outside (§ 1.4, § 6.5)."""
    if check.what is What.SMTP:
        return Answer.ACCEPTED if state.accepts else Answer.DEFERRED
    return Answer.CLOSED


def judge_answer(expected: Answer, seen: Seen) -> Verdict:
    """Something that passed is worse than an unexpected refusal, and no answer is neither."""
    if seen.answer is expected:
        return Verdict.PROVEN
    if seen.answer in (Answer.PASSED, Answer.ACCEPTED):
        return Verdict.NOT_PROVEN
    return Verdict.INCONCLUSIVE


def judge_count(before: int | None, after: int | None) -> Verdict:
    """No effect between two looks, both after every worker was quiet. A counter that began anew tells nothing."""
    if before is None or after is None or after < before:
        return Verdict.INCONCLUSIVE
    return Verdict.PROVEN if after == before else Verdict.NOT_PROVEN


def judge_fence(found: Sequence[int], epoch: int) -> Verdict:
    """found: the epoch of this atom in each database that has it. A fence may be higher, never lower."""
    return Verdict.PROVEN if found and min(found) >= epoch else Verdict.INCONCLUSIVE


def judge_workers(expected: Iterable[str], effects: Mapping[str, SwitchEffect]) -> Verdict:
    """effects: the newest of each worker, at the need's epoch or later."""
    quiet = all(name in effects and effects[name].quiet_at is not None for name in expected)
    return Verdict.PROVEN if quiet else Verdict.INCONCLUSIVE


def newest(effects: Iterable[SwitchEffect], epoch: int) -> dict[str, SwitchEffect]:
    """Of each worker, among those at this epoch or later."""
    found: dict[str, SwitchEffect] = {}
    for one in effects:
        if one.epoch >= epoch and (one.worker not in found or one.epoch > found[one.worker].epoch):
            found[one.worker] = one
    return found


def first_quiet(effects: Iterable[SwitchEffect], epoch: int) -> dict[str, SwitchEffect]:
    """Of each worker, what it wrote when nothing of before this epoch ran any more, however many epochs came since."""
    found: dict[str, SwitchEffect] = {}
    for one in effects:
        if one.epoch < epoch or one.quiet_at is None:
            continue
        known = found.get(one.worker)
        if known is None or known.quiet_at is None or one.quiet_at < known.quiet_at:
            found[one.worker] = one
    return found


def effective_at(expected: Iterable[str], effects: Mapping[str, SwitchEffect]) -> datetime | None:
    """t_effective: when the last worker was quiet; None while one is not."""
    times = [effects[name].quiet_at if name in effects else None for name in expected]
    quiet = [one for one in times if one is not None]
    return max(quiet, default=None) if len(quiet) == len(times) else None


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several: the worst, and nothing at all proves nothing."""
    found = set(verdicts)
    if Verdict.NOT_PROVEN in found:
        return Verdict.NOT_PROVEN
    return Verdict.PROVEN if found == {Verdict.PROVEN} else Verdict.INCONCLUSIVE


def verdict_of(need: Need, proofs: Iterable[ClosureProof]) -> Verdict:
    """What the latest proof of each check amounts to; proofs: of the need's epoch, in the order they were made."""
    latest = {(one.scope, one.what): one.verdict for one in proofs}
    return overall(latest.get((need.text, one.what), Verdict.INCONCLUSIVE) for one in checks(need))


def unenforced(scopes: Iterable[Scope], atoms: Sequence[Scope], external: Sequence[Scope]) -> list[Scope]:
    """Scopes of a command that nothing here enforces, so that nothing about them can be proven."""
    return [one for one in scopes if not any(one.meets(known) for known in (*atoms, *external))]
