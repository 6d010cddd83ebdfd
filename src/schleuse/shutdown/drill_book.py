"""Plans and results of drills as files, and the lock that lets one drill run at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from schleuse.errors import Error, UnavailableError
from schleuse.journal.disk import OsDisk
from schleuse.journal.disk import replace as replace_file
from schleuse.journal.opening import canonical_json, parse_canonical_json
from schleuse.shutdown.drill import BadDrillError, DrillPlan, DrillRefusedError, DrillResult, Outcome
from schleuse.switch.documents import Signature, parse_time, signed_from, time_text
from schleuse.switch.standing import UNKNOWN_TIME


class DrillNotKeptError(UnavailableError):
    """Plan or result could not be written or read; its operator looks at the disk."""

    code = "shutdown.drill-not-kept"


class DrillBook:
    """The folder `<home>/switch/drills`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ids(self) -> list[str]:
        """Of all drills, the oldest first."""
        return sorted(one.parent.name for one in self._folder.glob("*/plan.json"))

    def write_plan(self, plan: DrillPlan) -> None:
        """Raises DrillNotKeptError."""
        table = {"closing": plan.closing.encode(), "opening": plan.opening.encode()}
        self._write(plan.id, "plan.json", canonical_json(table))  # type: ignore[arg-type]

    def read_plan(self, id: str) -> DrillPlan:
        """Raises DrillNotKeptError, BadDrillError."""
        path = self._folder / id / "plan.json"
        try:
            value = parse_canonical_json(path.read_bytes())
            if not isinstance(value, dict):
                raise BadDrillError("a drill has a closing and an opening")
            plan = DrillPlan(signed_from(value["closing"]), signed_from(value["opening"]))
        except OSError as cause:
            raise DrillNotKeptError(f"the drill {id} cannot be read ({cause.strerror})") from cause
        except (KeyError, Error) as cause:
            raise BadDrillError(f"the plan of the drill {id} cannot be read: {cause}") from cause
        if plan.id != id:
            raise BadDrillError(f"the plan in the folder {id} is of the drill {plan.id}")
        return plan

    def add_signature(self, id: str, signature: Signature) -> DrillPlan:
        """The second person's, of the opening. Raises DrillNotKeptError, BadDrillError."""
        plan = self.read_plan(id)
        others = tuple(one for one in plan.opening.signatures if one.operator != signature.operator)
        plan = replace(plan, opening=replace(plan.opening, signatures=(*others, signature)))
        self.write_plan(plan)
        return plan

    def write_result(self, result: DrillResult) -> None:
        """Raises DrillNotKeptError."""
        self._write(result.id, "result.json", json.dumps(_result_table(result), indent=1).encode())

    def result(self, id: str) -> DrillResult | None:
        """None: it has not ended. A result that cannot be read counts as a failure."""
        try:
            return _result(json.loads((self._folder / id / "result.json").read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as cause:
            why = f"its result cannot be read ({type(cause).__name__})"
            return DrillResult(id, (), Outcome.FAILED, 0, UNKNOWN_TIME, None, None, None, why)

    def results(self) -> list[DrillResult]:
        """Of all that have ended, the oldest first."""
        return [one for id in self.ids() if (one := self.result(id)) is not None]

    @contextmanager
    def running(self) -> Iterator[None]:
        """One drill at a time on this home; the lock ends with the process. Raises DrillRefusedError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise DrillRefusedError("another drill runs on this home; wait for it") from cause
            yield

    def _write(self, id: str, name: str, data: bytes) -> None:
        if not id or id != os.path.basename(id) or id.startswith("."):
            raise BadDrillError("the id of a drill is a plain name")
        path = self._folder / id / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(OsDisk(), path, data)
        except OSError as cause:
            raise DrillNotKeptError(f"the drill {id} cannot be written ({cause.strerror})") from cause


def _result_table(result: DrillResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "scopes": list(result.scopes),
        "outcome": result.outcome.value,
        "epoch": result.epoch,
        "started_at": time_text(result.started_at),
        "to_hold_seconds": _seconds(result.to_hold),
        "to_proof_seconds": _seconds(result.to_proof),
        "closed_seconds": _seconds(result.closed_for),
        "why": result.why,
    }


def _result(table: Mapping[str, Any]) -> DrillResult:
    return DrillResult(
        str(table["id"]),
        tuple(table["scopes"]),
        Outcome(table["outcome"]),
        int(table["epoch"]),
        parse_time(table["started_at"]),
        _delta(table["to_hold_seconds"]),
        _delta(table["to_proof_seconds"]),
        _delta(table["closed_seconds"]),
        str(table["why"]),
    )


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else round(value.total_seconds(), 3)


def _delta(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
