"""The ladder of § 9.2 as data, and the plan that brings back what is closed now. Pure.

Order of services and soaks are agreed with the insurers in advance; whoever agrees on others writes a plan as a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from schleuse.restart.plan import GateKind, PlanRefusedError, RestartPlan, Stage, StageName, Target
from schleuse.scopes import ANY, NONE, Direction, Scope, ScopeState, Service
from schleuse.switch.documents import Limit
from schleuse.switch.standing import Rule, standing

#: § 9.2, "default order of services"; within a stage they are opened in this order, one command each.
ORDER: tuple[Service, ...] = (
    *(Service.STATUS, Service.CONTACT, Service.IDENTITY, Service.KEYS),
    *(Service.EAU_INTAKE, Service.EAU_EMPLOYER_ANSWER, Service.PAYMENTS_SUPPORT),
    *(Service.KIM_MAIL, Service.EARZTBRIEF, Service.DIRECTORY),
    *(Service.EPA_RIGHTS, Service.EPA_READ, Service.EPA_WRITE),
)
#: Opened with the trust base, because everything else stands on it (S1).
TRUST = frozenset({Service.STATUS, Service.CONTACT, Service.IDENTITY, Service.KEYS})
#: Its units of work belong to no insurer, so no cohort has them.
OF_NOBODY = frozenset({Service.KIM_MAIL, Service.EARZTBRIEF})
#: Soak of each stage: § 9.2, "typical soak".
SOAK: Mapping[StageName, timedelta] = {
    StageName.S1: timedelta(hours=24),
    StageName.S2: timedelta(hours=24),
    StageName.S3: timedelta(hours=4),
    StageName.S4: timedelta(hours=2),
    StageName.S5: timedelta(hours=24),
    StageName.S6: timedelta(0),
    StageName.S7: timedelta(hours=24),
    StageName.S8: timedelta(days=7),
    StageName.S9: timedelta(days=30),
}
#: Of a rehearsal.
FAST = timedelta(seconds=2)
_BASE = (GateKind.EVID, GateKind.CRED, GateKind.BASE, GateKind.WATCH)
GATES: Mapping[StageName, tuple[GateKind, ...]] = {
    StageName.S1: _BASE,
    StageName.S2: (*_BASE, GateKind.DATA),
    StageName.S3: (*_BASE, GateKind.DATA, GateKind.OFF, GateKind.PART, GateKind.HUMAN),
    StageName.S4: (*_BASE, GateKind.DATA, GateKind.TECH, GateKind.OFF, GateKind.HUMAN),
    StageName.S5: (*_BASE, GateKind.DATA, GateKind.TECH, GateKind.LEGAL, GateKind.HUMAN),
    StageName.S6: (GateKind.WATCH, GateKind.DATA, GateKind.TECH),
    StageName.S7: (*_BASE, GateKind.TECH, GateKind.HUMAN),
    StageName.S8: (*_BASE, GateKind.HUMAN),
    StageName.S9: (*_BASE, GateKind.DATA, GateKind.TECH, GateKind.LEGAL, GateKind.HUMAN),
}
#: § 9.2: "5 % -> 25 % -> 50 % -> 100 % of tenants".
COHORTS = (5, 25, 50, 100)
#: § 9.2: "<= 100 messages/h".
CANARY_PER_HOUR = 100

_SUPPLIERS = (Direction.ADMIN, Direction.MAINTENANCE, Direction.SUPPORT)


def default_plan(
    id: str,
    services: Collection[Service],
    insurers: Sequence[str],
    canary: str,
    now: datetime,
    *,
    incident: str = "",
    fast: bool = False,
    whole: bool = True,
    cohorts: Sequence[int] = COHORTS,
    closed: Collection[Scope] | None = None,
) -> RestartPlan:
    """Trust base, canary, cohorts, outbound, backlog, reads, writes, suppliers, normal; what has no work is left out.

    whole: these are all insurers, so that the last stage opens the services as such. closed: what is not open now; only
    this is opened, and nothing that is open gets the canary's limit. None: all of it is closed.
    Raises PlanRefusedError if the canary is none of the insurers.
    """
    if canary not in insurers:
        raise PlanRefusedError(f"the canary {canary} is none of the insurers of this plan")
    made = _Ladder(
        [one for one in ORDER if one in services], [canary, *(ik for ik in insurers if ik != canary)], closed
    )
    scopes = made.whole() if whole else made.each()
    stages = [
        made.stage(StageName.S1, "", made.trust()),
        Stage(StageName.S2, "", (), GATES[StageName.S2], SOAK[StageName.S2]),
        made.stage(StageName.S3, "canary", made.canary()),
    ]
    reached = 0
    for percent in cohorts:
        count = max(1, len(made.tenants) * percent // 100)
        if count > reached:
            stages.append(made.stage(StageName.S4, f"{percent} %", made.cohort(reached, count)))
            reached = count
    stages += [
        made.stage(StageName.S5, "", made.open([Direction.DELIVER], made.tenants)),
        Stage(StageName.S6, "", (), GATES[StageName.S6], SOAK[StageName.S6], drains=True),
        *(made.stage(StageName.S7, label, targets) for label, targets in made.interactive()),
        made.stage(StageName.S8, "", made.open(_SUPPLIERS, made.tenants, trust=True)),
        # What follows a release plan goes on following it: this opening does not let a rest of backlog go.
        Stage(StageName.S9, "", (Target(scopes, ScopeState.OPEN),), GATES[StageName.S9], SOAK[StageName.S9]),
    ]
    kept = [one for one in stages if one.targets or one.name in (StageName.S1, StageName.S2, StageName.S6)]
    return RestartPlan(id, 1, now, incident, scopes, tuple(_soaked(one, fast) for one in kept), fast=fast)


def _soaked(stage: Stage, fast: bool) -> Stage:
    soak = min(FAST, stage.soak) if fast else stage.soak
    return Stage(stage.name, stage.label, stage.targets, stage.gates, soak, stage.drains)


class _Ladder:
    """services: in order. tenants: the canary first."""

    def __init__(self, services: Sequence[Service], tenants: Sequence[str], closed: Collection[Scope] | None) -> None:
        self._services = services
        self.tenants = tenants
        self._closed = closed

    def stage(self, name: StageName, label: str, targets: Sequence[Target]) -> Stage:
        gates = GATES[name]
        if targets and GateKind.HUMAN not in gates:
            gates = (*gates, GateKind.HUMAN)
        return Stage(name, label, tuple(targets), gates, SOAK[name])

    def whole(self) -> tuple[Scope, ...]:
        return tuple(Scope(service.value) for service in self._services)

    def each(self) -> tuple[Scope, ...]:
        return tuple(
            Scope(service.value, ik)
            for service in self._services
            for ik in ([NONE] if service in OF_NOBODY else self.tenants)
        )

    def trust(self) -> list[Target]:
        directions = [one for one in Direction if one not in _SUPPLIERS]
        return self.open(directions, self.tenants, only=TRUST, trust=True)

    def canary(self) -> list[Target]:
        """What arrives is taken in at once; what is done with it is limited. Mail of nobody has no canary."""
        found: list[Target] = []
        for service in self._services:
            found += self.open([Direction.ACCEPT], self.tenants[:1], last=False, only={service})
            for one in self.open([Direction.PROCESS], self.tenants[:1], last=False, only={service}):
                found.append(Target(one.scopes, ScopeState.LIMITED, Limit(per_hour=CANARY_PER_HOUR)))
        return found

    def cohort(self, reached: int, count: int) -> list[Target]:
        """Those between, and with the last of them what belongs to nobody. The canary goes from its limit to open."""
        last = count == len(self.tenants)
        found: list[Target] = []
        for service in self._services:
            taken = self.open([Direction.ACCEPT], self.tenants[max(reached, 1) : count], last=last, only={service})
            done = self.open([Direction.PROCESS], self.tenants[reached:count], last=last, only={service})
            scopes = tuple(scope for target in (*taken, *done) for scope in target.scopes)
            found += [Target(scopes, ScopeState.OPEN)] if scopes else []
        return found

    def interactive(self) -> list[tuple[str, list[Target]]]:
        """Rights, then reads, then writes (HD-13)."""
        both, rights = (Direction.READ, Direction.WRITE), frozenset({Service.EPA_RIGHTS})
        found = [
            ("rights", self.open(both, self.tenants, only=rights)),
            ("reads", self.open([Direction.READ], self.tenants, but=rights)),
            ("writes", self.open([Direction.WRITE], self.tenants, but=rights)),
        ]
        return [(label, targets) for label, targets in found if targets]

    def open(
        self,
        directions: Sequence[Direction],
        tenants: Sequence[str],
        *,
        last: bool = True,
        trust: bool = False,
        only: Collection[Service] | None = None,
        but: Collection[Service] = (),
    ) -> list[Target]:
        """One target a service. last: whether what belongs to nobody goes with it. trust: as well as the trust base."""
        found: list[Target] = []
        for service in self._services:
            if service in but or (only is not None and service not in only) or (service in TRUST and not trust):
                continue
            owners = ([NONE] if last else []) if service in OF_NOBODY else tenants
            scopes = tuple(
                one
                for ik in owners
                for direction in directions
                if self._is_closed(one := Scope(service.value, ik, direction.value))
            )
            if scopes:
                found.append(Target(scopes, ScopeState.OPEN))
        return found

    def _is_closed(self, scope: Scope) -> bool:
        return self._closed is None or any(one.meets(scope) for one in self._closed)


def closed_scopes(rules: Sequence[Rule], insurers: Sequence[str], now: datetime) -> list[Scope]:
    """What is not open now, by service, insurer and direction, of all that was ever ordered closed."""
    found: dict[Scope, None] = {}
    for rule in rules:
        named = [Scope()] if rule.command is None else [] if rule.command.opening else list(rule.command.scopes)
        for scope in named:
            for service in [one.value for one in ORDER] if scope.service == ANY else [scope.service]:
                everybody = [NONE] if service in OF_NOBODY else insurers
                for tenant in everybody if scope.tenant == ANY else [scope.tenant]:
                    for direction in Direction if scope.direction == ANY else [Direction(scope.direction)]:
                        found.setdefault(Scope(service, tenant, direction.value, scope.path))
    return [one for one in found if standing(rules, one).at(now).state is not ScopeState.OPEN]
