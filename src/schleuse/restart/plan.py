"""The plan of a restart: stages in order, what each opens, what must be shown before it (incident.md § 9.2). Pure.

A plan brings back one group of scopes. Groups that do not depend on each other have plans of their own and advance on
their own; a plan may need that another one has reached a stage (RS-09).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from schleuse.errors import Error, MalformedError, RefusedError
from schleuse.journal.opening import Json, canonical_json
from schleuse.scopes import ANY, Scope, ScopeState, Service
from schleuse.switch.documents import Command, Kind, Limit, Reason, limit_from, parse_scope, parse_time, time_text


class BadPlanError(MalformedError):
    """Not a plan of a restart; whoever wrote it can change it."""

    code = "restart.bad-plan"


class PlanRefusedError(RefusedError):
    """Well formed, but a rule of incident.md § 9.4 forbids it; its author makes another."""

    code = "restart.plan-refused"


class StageName(StrEnum):
    """The ladder of § 9.2."""

    S0 = "S0"  #: held or closed, proven: the safe point and the aim of an abort
    S1 = "S1"  #: trust base rebuilt
    S2 = "S2"  #: shadow, without effect outside
    S3 = "S3"  #: canary
    S4 = "S4"  #: cohorts, inbound
    S5 = "S5"  #: outbound
    S6 = "S6"  #: backlog
    S7 = "S7"  #: interactive reads, then writes
    S8 = "S8"  #: suppliers and maintenance
    S9 = "S9"  #: normal, watched more closely


class GateKind(StrEnum):
    """Values of appendix A."""

    EVID = "EVID"
    CRED = "CRED"
    BASE = "BASE"
    DATA = "DATA"
    WATCH = "WATCH"
    TECH = "TECH"
    OFF = "OFF"
    LEGAL = "LEGAL"
    PART = "PART"
    HUMAN = "HUMAN"
    TIME = "TIME"


@dataclass(frozen=True, slots=True)
class Target:
    """What a stage opens. with_backlog: see `Command`."""

    scopes: tuple[Scope, ...]
    state: ScopeState
    limit: Limit | None = None
    with_backlog: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. label: such as "25 %". gates: what must pass to enter it. soak: must be over to leave it.

    drains: it is left when no backlog is left (S6).
    """

    name: StageName
    label: str
    targets: tuple[Target, ...]
    gates: tuple[GateKind, ...]
    soak: timedelta
    drains: bool = False


@dataclass(frozen=True, slots=True)
class AbortOn:
    """When the platform aborts by itself (RS-07), besides what always ends a stage: a touched decoy, a path that is not
    closed, a ledger with a gap, stores that contradict each other.

    error_permille: of the decisions since the first stage, once there are at_least so many. Raises BadPlanError.
    """

    error_permille: int = 50
    at_least: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.error_permille <= 1000 or self.at_least < 1:
            raise BadPlanError("errors are 0 to 1000 permille, of one decision or more")

    def exceeded(self, errors: int, decided: int) -> bool:
        """Whether these are too many."""
        return decided >= self.at_least and errors * 1000 > decided * self.error_permille


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """What two persons approve by its hash. needs: (plan, stage) that must be reached before this plan begins.

    fast: a rehearsal with short soaks, which every view of it says. abort: see `AbortOn`; those who approve the plan
    give the platform the mandate to close by it. Raises BadPlanError, PlanRefusedError.
    """

    id: str
    version: int
    created_at: datetime
    incident: str
    scopes: tuple[Scope, ...]
    stages: tuple[Stage, ...]
    needs: tuple[tuple[str, StageName], ...] = ()
    fast: bool = False
    abort: AbortOn = AbortOn()

    def __post_init__(self) -> None:
        if not self.scopes or not self.stages:
            raise BadPlanError("a plan has scopes and stages")
        order = [list(StageName).index(stage.name) for stage in self.stages]
        if order != sorted(order) or StageName.S0 in {stage.name for stage in self.stages}:
            raise BadPlanError("stages go from S1 to S9; S0 is where a plan begins")
        if any(scope.service == ANY for scope in self.scopes):
            raise BadPlanError("a plan names each service; * would take the status channel with it (RS-10)")
        for stage in self.stages:
            for target in stage.targets:
                _require_part_of(self.scopes, target)
                _require_ways_out(target)
        if any(GateKind.HUMAN not in stage.gates for stage in self.stages if stage.targets):
            raise PlanRefusedError("whatever opens needs two persons: each such stage has the gate HUMAN (SW-01)")

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(_as_json(self))

    @property
    def hash(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(self.encode()).hexdigest()


def _require_part_of(scopes: Sequence[Scope], target: Target) -> None:
    if target.state in (ScopeState.CLOSED, ScopeState.DEFER, ScopeState.DRAIN):
        raise BadPlanError(f"a stage leads to HOLD, LIMITED or OPEN, not to {target.state}")
    foreign = [one for one in target.scopes if not any(scope.covers(one) for scope in scopes)]
    if foreign:
        raise PlanRefusedError(f"{foreign[0]} is not part of what this plan brings back")


#: One channel for status and one for contact are open whatever else is closed (RS-10).
ALWAYS_OPEN = frozenset({Service.STATUS.value, Service.CONTACT.value})


def _require_ways_out(target: Target) -> None:
    if target.state is not ScopeState.OPEN and any(one.service in ALWAYS_OPEN for one in target.scopes):
        raise PlanRefusedError("status and contact are open or about to be, never less (RS-10)")


def closes_on_abort(plan: RestartPlan) -> tuple[Scope, ...]:
    """What goes back to S0 (RS-06): all that the plan brings back, but the ways to reach us (RS-10)."""
    return tuple(scope for scope in plan.scopes if scope.service not in ALWAYS_OPEN)


@dataclass(frozen=True, slots=True)
class PlanMandate:
    """What an approved plan lets the platform close by itself: what it brings back (EW-06, RS-07)."""

    reference: str
    scopes: Sequence[Scope]
    state: ScopeState = ScopeState.HOLD
    cost: str = "what has arrived waits again; nothing is lost or refused"
    trigger: str = ""


def mandate_of(plan: RestartPlan) -> PlanMandate:
    """That of this version."""
    return PlanMandate(f"restart {plan.id}@{plan.version}", closes_on_abort(plan))


def refuse_change(before: RestartPlan, after: RestartPlan, place: int) -> None:
    """Raises PlanRefusedError if a new version is none, or changes a stage that was entered already.

    place: of the stage that was entered last, -1 for none.
    """
    if after.version != before.version + 1:
        raise PlanRefusedError(f"the next version is {before.version + 1}, found {after.version}")
    if after.stages[: place + 1] != before.stages[: place + 1]:
        raise PlanRefusedError("stages that were entered stay as they were approved; change what comes after them")
    opened = [scope for stage in before.stages[: place + 1] for target in stage.targets for scope in target.scopes]
    lost = [one for one in opened if not any(scope.covers(one) for scope in after.scopes)]
    if lost:
        raise PlanRefusedError(f"{lost[0]} was opened by this plan, so an abort must go on closing it")


def shares(one: RestartPlan, other: RestartPlan) -> bool:
    """Whether both bring back something in common; then only one of them may go on (RS-09)."""
    return any(mine.meets(its) for mine in one.scopes for its in other.scopes)


def refuse_cycles(plan: RestartPlan, others: Iterable[RestartPlan]) -> None:
    """Raises PlanRefusedError if plans would wait for each other, or for one that is not there (RS-09)."""
    needs = {one.id: {name for name, _ in one.needs} for one in others} | {plan.id: {name for name, _ in plan.needs}}
    missing = needs[plan.id] - needs.keys()
    if missing:
        raise PlanRefusedError(f"it needs the plan {sorted(missing)[0]}, which is not there")
    seen, todo = set[str](), list(needs[plan.id])
    while todo:
        one = todo.pop()
        if one == plan.id:
            raise PlanRefusedError(f"{plan.id} would wait for itself")
        if one not in seen:
            seen.add(one)
            todo += needs[one]


def commands_of(
    plan: RestartPlan, place: int, actor: str, basis: int, now: datetime, lifetime: timedelta
) -> list[Command]:
    """The exact commands that enter a stage, one for each of its targets; they are signed as they are (RO-04).

    actor: who signs first. basis: the epoch that the signers have seen.
    """
    stage = plan.stages[place]
    name = f"{stage.name} {stage.label}".strip()
    return [
        Command(
            id=f"{plan.id}.{plan.version}.{place}.{number}.{basis}",
            scopes=target.scopes,
            state=target.state,
            kind=Kind.RECOVERY,
            reason=Reason.SECURITY_HOLD,
            actor=actor,
            requested_at=now,
            text=f"stage {name} of the restart {plan.id}",
            incident=plan.incident,
            limit=target.limit,
            opening=True,
            basis=basis,
            expires_at=now + lifetime,
            with_backlog=target.with_backlog,
            plan=plan.hash,
            stage=name,
        )
        for number, target in enumerate(stage.targets)
    ]


def next_version(plan: RestartPlan, now: datetime, **changes: Any) -> RestartPlan:
    """A changed plan; earlier approvals and signatures are void, because its hash is another (RO-04)."""
    return replace(plan, version=plan.version + 1, created_at=now, **changes)


def parse_plan(data: bytes) -> RestartPlan:
    """From JSON. Raises BadPlanError, PlanRefusedError."""
    try:
        return plan_from(json.loads(data))
    except (ValueError, RecursionError) as cause:
        raise BadPlanError(f"a plan is JSON in UTF-8: {cause}") from cause


_KEYS = frozenset(
    {"type", "schema", "id", "version", "created_at", "incident", "scopes", "stages", "needs", "fast", "abort"}
)


def plan_from(table: Mapping[str, Any]) -> RestartPlan:
    """From the JSON value of `RestartPlan.encode`. Raises BadPlanError, PlanRefusedError."""
    try:
        if set(table) != _KEYS or table["type"] != "schleuse-restart-plan" or table["schema"] != 1:
            raise BadPlanError(f"a plan has the keys {', '.join(sorted(_KEYS))}, and schema 1")
        return RestartPlan(
            id=str(table["id"]),
            version=int(table["version"]),
            created_at=parse_time(table["created_at"]),
            incident=str(table["incident"]),
            scopes=tuple(parse_scope(one) for one in table["scopes"]),
            stages=tuple(_stage_from(one) for one in table["stages"]),
            needs=tuple((str(one[0]), StageName(one[1])) for one in table["needs"]),
            fast=table["fast"] == 1,
            abort=AbortOn(int(table["abort"]["error_permille"]), int(table["abort"]["at_least"])),
        )
    except (BadPlanError, PlanRefusedError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, Error) as cause:
        raise BadPlanError(f"not a plan: {type(cause).__name__}: {cause}") from cause


def _stage_from(table: Mapping[str, Any]) -> Stage:
    return Stage(
        StageName(table["name"]),
        str(table["label"]),
        tuple(_target_from(one) for one in table["targets"]),
        tuple(GateKind(one) for one in table["gates"]),
        timedelta(seconds=int(table["soak_seconds"])),
        table["drains"] == 1,
    )


def _target_from(table: Mapping[str, Any]) -> Target:
    limit = table.get("limit")
    return Target(
        tuple(parse_scope(one) for one in table["scopes"]),
        ScopeState(table["state"]),
        None if limit is None else limit_from(limit),
        table["with_backlog"] == 1,
    )


def _as_json(plan: RestartPlan) -> dict[str, Json]:
    return {
        "type": "schleuse-restart-plan",
        "schema": 1,
        "id": plan.id,
        "version": plan.version,
        "created_at": time_text(plan.created_at),
        "incident": plan.incident,
        "scopes": [str(one) for one in plan.scopes],
        "stages": [_stage_json(one) for one in plan.stages],
        "needs": [[name, stage.value] for name, stage in plan.needs],
        "fast": int(plan.fast),
        "abort": {"error_permille": plan.abort.error_permille, "at_least": plan.abort.at_least},
    }


def _stage_json(stage: Stage) -> dict[str, Json]:
    return {
        "name": stage.name.value,
        "label": stage.label,
        "targets": [_target_json(one) for one in stage.targets],
        "gates": [one.value for one in stage.gates],
        "soak_seconds": int(stage.soak.total_seconds()),
        "drains": int(stage.drains),
    }


def _target_json(target: Target) -> dict[str, Json]:
    table: dict[str, Json] = {
        "scopes": [str(one) for one in target.scopes],
        "state": target.state.value,
        "with_backlog": int(target.with_backlog),
    }
    if target.limit is not None:
        table["limit"] = target.limit.encode()
    return table
