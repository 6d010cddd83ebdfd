"""May the next stage be entered? All that has to be there, judged anew each time it is asked (RS-01 to RS-05). Pure.

What was recorded is not believed: approvals, waivers, documents and signatures are verified here, against the operators
of the configuration; and the switch itself verifies the commands once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schleuse.errors import Error
from schleuse.restart.approvals import PLAN, WAIVER, pair, waiver_hash
from schleuse.restart.documents import check_document, evidence_of
from schleuse.restart.gates import DOCUMENTED, Evidence, Judged, Result, Waiver, judge
from schleuse.restart.plan import GateKind, shares
from schleuse.restart.progress import Progress, Waived
from schleuse.said import Said, as_it_is
from schleuse.switch.documents import OPENERS, Command, Kind, Rights, Role, SignedCommand
from schleuse.switch.standing import Rule, standing

#: § 10: a gate is waived by the lead, and by the security officer, who does not execute.
WAIVERS = (Role.LEAD, Role.SECURITY_OFFICER)
#: Never waived: two persons who sign, and time that passes.
UNWAIVABLE = frozenset({GateKind.HUMAN, GateKind.TIME})


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at this moment. rules: of the switch, all epochs. backlog: mails that wait for a release, None if
    nobody knows. others: all other plans of this home."""

    rights: Rights
    rules: Sequence[Rule]
    backlog: int | None
    now: datetime
    others: Mapping[str, Progress] = field(default_factory=dict)


def goes_on(at: Progress) -> bool:
    """Whether something is open by this plan that is not yet normal."""
    return at.place >= 0 and not at.is_done


def plan_is_approved(at: Progress, rights: Rights) -> bool:
    """Two persons, one of each opening role, for exactly this version: while both approvals held, and then for good."""
    if at.plan is None:
        return False
    return pair([one.approval for one in at.approvals], PLAN, at.plan.hash, OPENERS, rights) is not None


def waivers(at: Progress, rights: Rights, now: datetime) -> list[Waiver]:
    """Those that two different persons signed in the same words, one in each role, and that have not ended (RS-03)."""
    found: list[Waiver] = []
    if at.plan is None:
        return found
    by_hash: dict[str, list[Waived]] = {}
    for one in at.waived:
        right = waiver_hash(at.plan.hash, one.waiver_of, one.reason, one.until)
        if one.hash == right and now < one.until and one.waiver_of not in UNWAIVABLE and one.reason.strip():
            by_hash.setdefault(right, []).append(one)
    for hash, given in by_hash.items():
        both = pair([one.approval for one in given], WAIVER, hash, WAIVERS, rights, None)
        if both is not None:
            by = (both[0].operator, both[1].operator)
            found.append(Waiver(given[0].waiver_of, given[0].until, given[0].reason, by))
    return found


def soak_left(at: Progress, now: datetime) -> timedelta:
    """What is left of the soak of the stage that was entered last."""
    if at.stage is None or at.soak_from is None:
        return timedelta(0)
    return max(at.soak_from + at.stage.soak - now, timedelta(0))


def is_over(at: Progress, now: datetime) -> bool:
    """Whether the last stage has lasted as long as it must: from then on it is normal, and none of this plan's matter.

    Whatever is closed later is another incident, with another plan; the rules of this one close nothing any more.
    """
    return at.is_done and not soak_left(at, now)


def gates(at: Progress, look: Look) -> list[Judged]:
    """Every gate before the next stage; of the last one, what is asked of it as long as it lasts."""
    stage = at.next_stage
    if stage is None:
        return []
    found, given = list(_evidence(at, look.rights)), waivers(at, look.rights, look.now)
    judged = [judge(kind, found, given, look.now) for kind in stage.gates if kind not in UNWAIVABLE]
    judged.append(_time(at, look))
    if at.stage is not None and at.stage.drains:
        judged.append(_drained(look.backlog))
    if GateKind.HUMAN in stage.gates or stage.targets:
        judged.append(_human(at, look))
    return judged


def _evidence(at: Progress, rights: Rights) -> Iterator[Evidence]:
    """What was measured, and what people have signed; a measurement never stands in for a statement (RS-05)."""
    for one in at.evidence:
        # Tested in this stage: a closing that was rehearsed before it says nothing of it (G-OFF).
        old = one.kind is GateKind.OFF and at.entered_at is not None and one.at < at.entered_at
        if one.kind not in DOCUMENTED and not old:
            yield one
    for given in at.documents:
        try:
            check_document(given.document, rights, given.at)
        except Error:
            continue
        if at.plan is not None and given.document.document.plan == at.plan.id:
            yield evidence_of(given.document)


def stop_condition(at: Progress, rules: Sequence[Rule], now: datetime) -> Said | None:
    """What was closed since these people planned, or stands less open than they left it; None if nothing (G-TIME).

    A drill gives back what it took; any other closing says that somebody knows something that the plan does not.
    """
    if at.plan is None:
        return None
    for rule in rules:
        if rule.epoch > at.basis and closes_part_of(at, rule):
            return Said(
                f"Epoche {rule.epoch} hat einen Teil davon geschlossen; ansehen, dann eine neue Fassung des Plans:"
                " `restart plan --again`",
                f"epoch {rule.epoch} has closed a part of this; look, and make a new version of the plan:"
                " `restart plan --again`",
            )
    drills = [one for one in rules if one.epoch > at.basis and one.command and one.command.kind is Kind.DRILL]
    ends = any(one.command and one.command.closes_at for one in rules)
    for scope, state in at.opened.items() if drills or ends else ():  # nothing else than these can have closed it
        found = standing(rules, scope).at(now).state
        if found.openness < state.openness:
            return Said(
                f"{scope} wurde bis {state} geöffnet und ist {found}", f"{scope} was opened to {state} and is {found}"
            )
    return None


def closes_part_of(at: Progress, rule: Rule) -> bool:
    """Whether this epoch closes something that the plan brings back; one that nobody can read does (SW-02)."""
    if at.plan is None:
        return False
    if rule.command is None:
        return True
    if rule.command.opening or rule.command.kind is Kind.DRILL:
        return False
    return any(scope.meets(mine) for scope in rule.command.scopes for mine in at.plan.scopes)


@dataclass(frozen=True, slots=True)
class Closing:
    """A closing of what a plan has opened."""

    id: str
    actor: str
    epoch: int


def closed_since(at: Progress, rules: Sequence[Rule], now: datetime) -> Closing | None:
    """The closing that took this restart back to S0: nothing that it opened is open any more.

    Where only a part was closed, the rest stays as it is and the restart goes no further (P-02, `stop_condition`); a
    drill gives back what it took (G-OFF). An abort of this plan always counts, also when it had opened nothing yet;
    any other closing only until the plan is over.
    """
    if at.plan is None:
        return None
    last = next((one for one in reversed(rules) if one.epoch > at.basis and closes_part_of(at, one)), None)
    if last is None or last.epoch < max(at.epochs, default=0):
        return None
    mine = last.command is not None and last.command.id.startswith((f"{at.plan.id}.abort.", f"{at.plan.id}.rule."))
    still = any(standing(rules, scope).at(now).state.begins for scope in at.opened)
    if still or not (at.opened or mine):
        return None
    if is_over(at, last.accepted_at) and not mine:
        return None
    return Closing(last.command.id, last.command.actor, last.epoch) if last.command else Closing("?", "?", last.epoch)


def _time(at: Progress, look: Look) -> Judged:
    stopped = stop_condition(at, look.rules, look.now)
    if stopped:
        return Judged(GateKind.TIME, Result.FAIL, stopped)
    left = soak_left(at, look.now)
    if left:
        return Judged(
            GateKind.TIME, Result.INCONCLUSIVE, Said(f"noch {left} Beobachtung", f"{left} of the soak are left")
        )
    return Judged(GateKind.TIME, Result.PASS, Said("die Beobachtung ist vorbei", "the soak is over"))


def _drained(backlog: int | None) -> Judged:
    if backlog is None:
        return Judged(
            GateKind.DATA,
            Result.INCONCLUSIVE,
            Said("unbekannt, wie viel Rückstand noch da ist", "nobody knows how much of the backlog is left"),
        )
    if backlog:
        return Judged(
            GateKind.DATA,
            Result.INCONCLUSIVE,
            Said(
                f"{backlog} Mails Rückstand; `schleuse hold release plan` gibt sie frei",
                f"{backlog} mails of the backlog are left; `schleuse hold release plan` lets them go",
            ),
        )
    return Judged(GateKind.DATA, Result.PASS, Said("kein Rückstand mehr", "no backlog is left"))


def _human(at: Progress, look: Look) -> Judged:
    """Two signatures on exactly these commands; the switch checks the same again (RO-04, T-12)."""
    if at.plan is None or at.offer is None or at.offer.place != at.place + 1:
        return Judged(
            GateKind.HUMAN,
            Result.INCONCLUSIVE,
            Said(
                "die Kommandos sind noch nicht vorbereitet; `schleuse restart advance` tut es",
                "nobody has prepared the commands; `schleuse restart advance` does",
            ),
        )
    if any(one.plan != at.plan.hash for one in at.offer.commands) or not _is_whole(at):
        return Judged(
            GateKind.HUMAN,
            Result.FAIL,
            Said(
                "die Kommandos sind nicht die dieser Stufe; neu vorbereiten",
                "the commands are not those of this stage; prepare them anew",
            ),
        )
    if any(_is_overtaken(command, look.rules) for command in at.offer.commands):
        return Judged(
            GateKind.HUMAN,
            Result.FAIL,
            Said(
                "nach dem Vorbereiten der Kommandos wurde etwas geschlossen; neu vorbereiten",
                "something was closed after the commands were prepared; prepare anew",
            ),
        )
    until = min((one.expires_at for one in at.offer.commands if one.expires_at), default=None)
    if until is not None and look.now >= until:
        over = Said("die Kommandos sind abgelaufen; neu vorbereiten", "the commands have expired; prepare them anew")
        return Judged(GateKind.HUMAN, Result.EXPIRED, over, until)
    missing = missing_roles(at)
    if missing:
        roles = ", ".join(missing)
        unsigned = Said(f"es fehlen Unterschriften: {roles}", f"missing signatures: {roles}")
        return Judged(GateKind.HUMAN, Result.INCONCLUSIVE, unsigned, until)
    for command in ready(at):
        try:
            look.rights.check(command, look.now)
        except Error as error:
            return Judged(GateKind.HUMAN, Result.FAIL, as_it_is(str(error)), until)
    by = [one.by for one in at.signed]
    signed = Said(f"unterschrieben von {' und '.join(by)}", f"signed by {' and '.join(by)}")
    return Judged(GateKind.HUMAN, Result.PASS, signed, until)


def _is_overtaken(command: Command, rules: Sequence[Rule]) -> bool:
    """Whether the opening would change nothing somewhere, because of a closing that its signers had not seen (SW-16).

    A drill is one as well: what was signed before it is prepared and signed anew.
    """
    return any(
        rule.epoch > command.basis
        and (
            rule.command is None
            or (
                not rule.command.opening
                and any(closed.meets(mine) for closed in rule.command.scopes for mine in command.scopes)
            )
        )
        for rule in rules
    )


def _is_whole(at: Progress) -> bool:
    """Whether the offer opens what the stage opens, no less and no more."""
    if at.offer is None or at.next_stage is None:
        return False
    offered = [(one.scopes, one.state, one.limit, one.with_backlog) for one in at.offer.commands]
    return offered == [(one.scopes, one.state, one.limit, one.with_backlog) for one in at.next_stage.targets]


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


def may_enter(at: Progress, look: Look) -> list[str]:
    """What is missing before the next stage may be entered; empty: it may. Every reason is a sentence."""
    if at.plan is None:
        return ["there is no plan"]
    if at.is_done:
        return ["the last stage was entered"]
    reasons = [] if plan_is_approved(at, look.rights) else ["two persons have to approve the plan"]
    reasons += [
        f"{name} has not reached {stage}"
        for name, stage in at.plan.needs
        if name not in look.others or not look.others[name].has_reached(stage)
    ]
    reasons += [
        f"{name} brings back the same and goes on"
        for name, other in look.others.items()
        if other.plan is not None and goes_on(other) and shares(at.plan, other.plan)
    ]
    reasons += [f"{one.kind}: {one.result}: {one.reason}" for one in gates(at, look) if not one.lets_in]
    return reasons


def who_must_act(at: Progress, judged: Sequence[Judged]) -> list[str]:
    """For each gate that does not let in, whose turn it is; roles as configuration names them."""
    owners = {
        GateKind.EVID: Role.FORENSIC_LEAD,
        GateKind.CRED: Role.SECURITY_OFFICER,
        GateKind.BASE: Role.SERVICE_OWNER,
        GateKind.LEGAL: Role.SECURITY_OFFICER,
        GateKind.PART: Role.TENANT_DELEGATE,
        GateKind.OFF: Role.SWITCH_OFFICER,
        GateKind.HUMAN: Role.SWITCH_OFFICER if at.offer is None else ", ".join(missing_roles(at) or OPENERS),
    }
    turns = [f"{one.kind}: {owners.get(one.kind, 'control')}" for one in judged if not one.lets_in]
    return turns if at.next_stage is not None else []
