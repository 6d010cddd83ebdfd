"""What the platform looks at itself before a stage: heartbeats, stores, a synthetic eAU, a rehearsed closing.

Each look gives evidence with what was observed; what cannot be looked at is inconclusive, never a pass (RS-04).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.database import asking
from schleuse.eau.outcome import Quarantine
from schleuse.errors import Error
from schleuse.processes.answering import is_ready, journal_health, working_roles
from schleuse.processes.conservation import check_conservation
from schleuse.processes.control_closing import Closings
from schleuse.processes.restart_journal import JournalWatch
from schleuse.processes.restart_synthetic import Synthetic, overall
from schleuse.restart.gates import NOT_REHEARSED, Evidence, Result
from schleuse.restart.plan import GateKind, RestartPlan
from schleuse.restart.progress import Progress
from schleuse.said import Said
from schleuse.scopes import ANY, Direction, Service
from schleuse.shutdown.closure import Verdict
from schleuse.switch.documents import Kind, parse_scope, parse_time

READY_SECONDS = 3.0


class Looks:
    """The measured gates of one home. closings: what is proven closed."""

    def __init__(self, config: Config, closings: Closings, now: Now) -> None:
        self._config = config
        self._closings = closings
        self._now = now
        self._synthetic = Synthetic(config, self._begins, now)
        self._journal = JournalWatch(config, now)

    def _begins(self, service: Service, tenant: str, direction: Direction) -> bool:
        return self._closings.switch.standing(service, tenant, direction).state.begins

    def measures(self) -> Mapping[GateKind, Callable[[RestartPlan, Progress], Evidence]]:
        """By kind of gate."""
        return {
            GateKind.WATCH: self.watch,
            GateKind.DATA: self.data,
            GateKind.TECH: self.tech,
            GateKind.OFF: self.off,
        }

    def watch(self, plan: RestartPlan, _at: Progress) -> Evidence:
        """Heartbeats: every role is ready, and every log is read by witnesses up to its published end."""
        silent = [name for name, listen in working_roles(self._config).items() if not is_ready(listen, READY_SECONDS)]
        if silent:
            return self._found(GateKind.WATCH, plan, Result.FAIL, _not_ready(silent), silent)
        behind = journal_health(self._config).behind
        if behind:
            text = Said(
                f"{len(behind)} Protokolle sind weiter veröffentlicht als bezeugt",
                f"{len(behind)} logs are published further than witnessed",
            )
            return self._found(GateKind.WATCH, plan, Result.INCONCLUSIVE, text, behind)
        good = Said("alle Rollen bereit, alle Protokolle bezeugt", "all roles are ready, all logs are witnessed")
        return self._found(GateKind.WATCH, plan, Result.PASS, good, [])

    def data(self, plan: RestartPlan, _at: Progress) -> Evidence:
        """The stores agree with each other, and the journal is whole up to its witnessed end (G-DATA)."""
        health = journal_health(self._config)
        if health.state != "RUNNING" or health.findings:
            text = Said(f"das Journal ist im Zustand {health.state}", f"the journal is in state {health.state}")
            return self._found(GateKind.DATA, plan, Result.FAIL, text, health.findings)
        found = check_conservation(self._config)
        logs = {origin: asdict(log) for origin, log in health.logs.items()}
        facts: dict[str, object] = {"accepted": found.accepted, "accounted": found.accounted, "logs": logs}
        if not found.holds:
            first = found.findings[0]
            text = Said(f"Erhaltung verletzt: {first}", f"conservation: {first}")
            return self._found(GateKind.DATA, plan, Result.FAIL, text, facts)
        compared = self._journal.compare()
        facts["compared"] = [asdict(one) for one in compared]
        for result in (Result.FAIL, Result.INCONCLUSIVE):
            for one in compared:
                if one.result is result:
                    return self._found(GateKind.DATA, plan, result, one.named, facts)
        if not compared:
            text = Said("kein Protokoll war zu vergleichen", "no log could be compared")
            return self._found(GateKind.DATA, plan, Result.INCONCLUSIVE, text, facts)
        text = Said(
            f"{found.accepted} angenommene Mails sind nachgewiesen, {len(compared)} Protokolle stimmen mit den"
            " Speichern überein",
            f"{found.accepted} accepted mails are accounted for, and {len(compared)} logs agree with the stores",
        )
        return self._found(GateKind.DATA, plan, Result.PASS, text, facts)

    def tech(self, plan: RestartPlan, at: Progress) -> Evidence:
        """A synthetic practice sends an eAU to an insurer that is open; see `restart_synthetic`."""
        ik = self._opened(plan, at)
        if ik is None:
            text = Said("noch ist nichts offen, was sich probieren ließe", "nothing is open yet that could be tried")
            return self._found(GateKind.TECH, plan, Result.INCONCLUSIVE, text, [])
        steps = self._synthetic.try_insurer(ik)
        result, (de, en) = overall(steps)
        text = Said(f"eine Probe-eAU an {ik}: {de}", f"a synthetic eAU to {ik}: {en}")
        return self._found(GateKind.TECH, plan, result, text, [*map(asdict, steps)])

    def off(self, plan: RestartPlan, at: Progress) -> Evidence:
        """It can be closed: before anything is open by the proof of S0, afterwards by a rehearsal in this stage."""
        if at.place < 0 or not at.epochs:
            open_claims = [
                one for one in self._closings.claims(self._now())
                if any(scope.meets(one.need.scope) for scope in plan.scopes)
            ]  # fmt: skip
            missing = [one.need.text for one in open_claims if one.verdict is not Verdict.PROVEN]
            if missing or not open_claims:
                text = Said("nichts von diesem Plan ist zu", "nothing of this plan is closed")
                if missing:
                    text = Said(
                        f"{len(missing)} Schließungen sind nicht bewiesen",
                        f"{len(missing)} closed scopes are not proven",
                    )
                return self._found(GateKind.OFF, plan, Result.INCONCLUSIVE, text, missing)
            count = len(open_claims)
            text = Said(f"{count} Schließungen sind bewiesen", f"{count} closings are proven")
            return self._found(GateKind.OFF, plan, Result.PASS, text, [one.need.text for one in open_claims])
        for entry in reversed(self._closings.switch.entries()):
            command = entry.command
            if command is None or command.opening or command.kind is not Kind.DRILL:
                continue
            if at.entered_at is None or entry.accepted_at < at.entered_at:
                break
            if any(scope.meets(mine) for scope in command.scopes for mine in plan.scopes):
                progress = self._closings.progress(command.scopes, entry.epoch)
                if progress.proven_at is not None:
                    took = f"{(progress.proven_at - entry.accepted_at).total_seconds():.1f} s"
                    text = Said(
                        f"ein geübtes Schließen war nach {took} bewiesen",
                        f"a rehearsed closing was proven after {took}",
                    )
                    return self._found(GateKind.OFF, plan, Result.PASS, text, [entry.epoch])
        return self._found(GateKind.OFF, plan, Result.INCONCLUSIVE, NOT_REHEARSED, [])

    def trouble(self, plan: RestartPlan, at: Progress) -> str:
        """Why the stage must end now, or "" (RS-07)."""
        warning = touched(self._config.switch_folder / "warnings", plan, at.entered_at)
        if warning:
            return warning
        newest = max((one for one in at.evidence if one.kind is GateKind.DATA), key=lambda one: one.at, default=None)
        if newest is not None and newest.result is Result.FAIL and at.entered_at and newest.at >= at.entered_at:
            return f"integrity: {newest.text}"
        if at.epochs:
            bad, all_ = self._decided_since(min(at.epochs))
            if plan.abort.exceeded(bad, all_):
                return f"{bad} of {all_} decisions of this stage were errors"
        return ""

    def _found(self, kind: GateKind, plan: RestartPlan, result: Result, text: Said, observed: object) -> Evidence:
        digest = hashlib.sha256(json.dumps(observed, sort_keys=True, default=str).encode()).hexdigest()
        return Evidence(kind, plan.id, result, self._now(), "control", text, digest)

    @staticmethod
    def _opened(plan: RestartPlan, at: Progress) -> str | None:
        """An insurer whose eAU are processed by now."""
        for stage in plan.stages[: at.place + 1]:
            for target in stage.targets:
                for scope in target.scopes:
                    mine = scope.service == Service.EAU_INTAKE and scope.direction in (ANY, Direction.PROCESS)
                    if mine and scope.tenant not in (ANY, ""):
                        return scope.tenant
        return None

    def _decided_since(self, epoch: int) -> tuple[int, int]:
        """How many of this stage's decisions were errors, and how many there were."""
        values = {"epoch": epoch, "probe": Quarantine.TEST_IN_PRODUCTION.value}
        with asking(self._config.eau_database) as connection:
            row = connection.execute(DECIDED, values).one()
        return int(row.errors), int(row.decided)


#: Test mails in production are probes, not errors (HD-07).
DECIDED = sa.text(
    "SELECT count(*) AS decided, count(CASE WHEN state IN ('RETURNED', 'QUARANTINED')"
    " AND coalesce(reason, '') <> :probe THEN 1 END) AS errors FROM eau_received WHERE epoch >= :epoch"
)


def touched(folder: Path, plan: RestartPlan, since: datetime | None) -> str:
    """A warning that asks for a hold and is newer than the stage (T-14), or "".

    Whatever warns puts a file `ID.json` there: {"at": time, "rule": name, "action": "auto_hold", "text": sentence},
    with "scopes" if not everything is meant; early warning will. It needs no signature, because it only closes (SW-01).
    A file that cannot be read is a warning, too: nobody knows what it said.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            warning = json.loads(path.read_bytes())
            at, action = parse_time(warning["at"]), warning["action"]
            text = f"warning {path.stem}: rule {warning['rule']}"
            about = [parse_scope(one) for one in warning.get("scopes", [])]
        except (OSError, ValueError, KeyError, TypeError, Error):
            return f"warning {path.stem} cannot be read"
        mine = not about or any(one.meets(scope) for one in about for scope in plan.scopes)
        if action == "auto_hold" and mine and (since is None or at >= since):
            return text
    return ""


def _not_ready(silent: Sequence[str]) -> Said:
    names = ", ".join(silent)
    return Said(f"nicht bereit: {names}", f"not ready: {names}")
