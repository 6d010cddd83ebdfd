"""In which state is this atom, and since which epoch? The fold over all accepted commands (SW-02, SW-16). Pure.

Closing takes effect wherever it makes things more closed. An opening takes effect where nothing was closed after its
basis, the epoch that those who signed it had seen: so an opening that is under way never undoes a newer closing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from schleuse.scopes import ANY, Scope, ScopeState
from schleuse.switch.documents import Command, Limit

#: When something happened that nobody can read.
UNKNOWN_TIME = datetime.min.replace(tzinfo=UTC)
#: Stage of an opening that is signed before its drill; its plan is the hash of the drill's closing, instead of a basis.
AFTER_DRILL = "drill"


@dataclass(frozen=True, slots=True)
class Rule:
    """One accepted command. command: None for an epoch that nobody can read, which closes everything (SW-02)."""

    epoch: int
    accepted_at: datetime
    command: Command | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an atom stands. epoch: of the last command that concerned it, 0 if none did. command: its id.

    since: when the state became what it is; None if it always was. reason: hold reason class, "" when open.
    closes_at: when an emergency opening ends. with_backlog: whether what was held goes on, too.
    safe: why the role keeps to the safe state, "" if it does not.
    """

    state: ScopeState = ScopeState.OPEN
    epoch: int = 0
    limit: Limit | None = None
    command: str = ""
    since: datetime | None = None
    reason: str = ""
    closes_at: datetime | None = None
    with_backlog: bool = True
    safe: str = ""

    def at(self, now: datetime) -> Standing:
        """The same at this moment: an emergency opening that ended is held again (RS-14)."""
        if self.closes_at is None or now < self.closes_at or self.state.openness <= ScopeState.HOLD.openness:
            return self
        return Standing(ScopeState.HOLD, self.epoch, None, self.command, self.closes_at, self.reason)


#: What every role keeps to that cannot read its own copy: what arrives is kept, nothing else happens (SW-02).
def safe_standing(why: str, epoch: int) -> Standing:
    """HOLD: accepts and keeps; reading, writing and administration do not begin in it either."""
    return Standing(ScopeState.HOLD, epoch, reason="security_hold", safe=why)


@dataclass(frozen=True, slots=True)
class Folded:
    """The fold so far. at: where the atom stands. closed: epoch of the last order to close that concerned it.

    last: that order, and where the atom stood before it.
    """

    at: Standing = Standing()
    closed: int = 0
    last: tuple[Command, Standing] | None = None


def standing(rules: Iterable[Rule], atom: Scope) -> Standing:
    """The fold over `rules`, which ascend by epoch."""
    return fold(Folded(), rules, atom).at


def fold(before: Folded, rules: Iterable[Rule], atom: Scope) -> Folded:
    """The fold, continued with further rules."""
    for rule in rules:
        before = _step(before, rule, atom)
    return before


@dataclass(frozen=True, slots=True)
class ByTenant:
    """Rules by the tenant that they may concern, each in order: with the drills of 80 insurers (SW-15) an atom is
    folded from its own and those for everybody only.

    everybody: what concerns also a tenant that nobody has named. named: all that concerns this one.
    """

    everybody: tuple[Rule, ...] = ()
    named: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    def of(self, tenant: str) -> Sequence[Rule]:
        """All rules that may concern an atom of this tenant."""
        return self.named.get(tenant, self.everybody)

    def with_more(self, rules: Iterable[Rule]) -> ByTenant:
        """With further rules at the end."""
        everybody = list(self.everybody)
        changed: dict[str, list[Rule]] = {}
        for rule in rules:
            tenants = _tenants(rule)
            if ANY in tenants:
                changed |= {name: list(self.named[name]) for name in self.named.keys() - changed.keys()}
                for one in (everybody, *changed.values()):
                    one.append(rule)
                continue
            for tenant in tenants:
                if tenant not in changed:
                    changed[tenant] = list(self.named.get(tenant, everybody))
                changed[tenant].append(rule)
        return ByTenant(tuple(everybody), {**self.named, **{name: tuple(one) for name, one in changed.items()}})


def _tenants(rule: Rule) -> set[str]:
    return {ANY} if rule.command is None else {one.tenant for one in rule.command.scopes}


def standings(rules: Iterable[Rule], scopes: Iterable[Scope]) -> dict[Scope, Standing]:
    """The fold over `rules`, which ascend by epoch, for each of these."""
    known = ByTenant().with_more(rules)
    return {scope: standing(known.of(scope.tenant), scope) for scope in scopes}


def _step(before: Folded, rule: Rule, atom: Scope) -> Folded:
    at, command = before.at, rule.command
    if command is None:
        return Folded(_closer(at, rule, ScopeState.HOLD, None, "", "security_hold"), rule.epoch)
    if not _concerns(command, atom):
        return before
    if not command.opening:
        closer = _closer(at, rule, command.state, command.limit, command.id, command.reason.value)
        return Folded(closer, rule.epoch, (command, at))
    counts = (
        _gives_back(command, before.last)
        if command.stage == AFTER_DRILL
        else before.closed <= command.basis < rule.epoch
    )
    if not counts:
        return before
    opened = Standing(
        command.state,
        rule.epoch,
        command.limit,
        command.id,
        at.since if at.state is command.state else rule.accepted_at,
        "" if command.state is ScopeState.OPEN else at.reason or command.reason.value,
        command.closes_at,
        command.with_backlog,
    )
    return Folded(opened, before.closed, before.last)


def _concerns(command: Command, atom: Scope) -> bool:
    for scope in command.scopes:  # noqa: SIM110 - a third of the time of any(), and thousands of rules times atoms
        if scope.covers(atom):
            return True
    return False


def _gives_back(opening: Command, last: tuple[Command, Standing] | None) -> bool:
    """Whether an opening that was signed before its drill takes back this drill's closing and nothing else (SW-15).

    What an incident closed, before the drill or during it, stays as it is.
    """
    if last is None or last[0].hash != opening.plan:
        return False
    before = last[1]
    return (opening.state, opening.limit, opening.closes_at) == (before.state, before.limit, before.closes_at)


def _closer(at: Standing, rule: Rule, state: ScopeState, limit: Limit | None, id: str, reason: str) -> Standing:
    """The more closed state wins; the epoch counts either way, because it was an order to everybody (SW-06).

    Whatever else bounds an opening goes on to bound it: when it ends by itself (RS-14), and that its backlog waits.
    """
    if state.openness > at.state.openness:
        return replace(at, epoch=rule.epoch)
    ends = at.closes_at if state.openness > ScopeState.HOLD.openness else None
    if state is at.state:
        return replace(
            at, epoch=rule.epoch, limit=_tighter(at.limit, limit), command=at.command or id, reason=at.reason or reason,
            closes_at=ends,
        )  # fmt: skip
    return Standing(state, rule.epoch, limit, id, rule.accepted_at, reason, ends, at.with_backlog)


def _tighter(one: Limit | None, other: Limit | None) -> Limit | None:
    if one is None or other is None:
        return one or other
    return Limit(_least(one.permille, other.permille), _least(one.per_hour, other.per_hour))


def _least(one: int | None, other: int | None) -> int | None:
    given = [value for value in (one, other) if value is not None]
    return min(given) if given else None


def refused(rules: Sequence[Rule], rule: Rule) -> tuple[Scope, ...]:
    """The scopes of this command that it does not change anywhere, given the rules before it (SW-16).

    A scope with wildcards counts as changed if it is for the scope taken literally; single atoms may still differ.
    """
    if rule.command is None:
        return ()
    before = [one for one in rules if one.epoch < rule.epoch]
    return tuple(
        scope
        for scope in rule.command.scopes
        if _same(standing(before, scope), standing([*before, rule], scope), rule.command)
    )


def _same(before: Standing, after: Standing, command: Command) -> bool:
    return (before.state, before.limit) == (after.state, after.limit) and after.state is not command.state
