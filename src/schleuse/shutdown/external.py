"""Systems that are not ours and are switched with their scope: a service, a deployment, a firewall (issue 4 A, SW-08).

A closing stops it, as often as it takes; only an opening that two persons signed starts it again, and only if it is
known that it ran before we stopped it. What was down by itself stays down. Where nobody knows, such as when its probe
was too slow for a closing, and where a closing that only limits came before the start had worked, two persons decide
(`external_start`): nothing opens without evidence, and nothing stays down without a word.

Nothing passes a shell. A system of a wide scope is stopped by a closing of the whole of it: one insurer's closing does
not take away what others use, too.

Here is what a system is and what is due; `external_keeper` does it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from schleuse.journal.disk import OsDisk, replace
from schleuse.scopes import Scope
from schleuse.shutdown.closure import METHOD, ClosureProof, Need, Verdict, What
from schleuse.shutdown.hooks import Action, Outcome
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import time_text
from schleuse.switch.log import Accepted, rules_of
from schleuse.switch.standing import ByTenant, Rule, Standing, standing


@dataclass(frozen=True, slots=True)
class ExternalSystem:
    """See `config.External`. drill_window: as of `control.drill_window`; "" for that one."""

    name: str
    scope: Scope
    stop: Action
    start: Action
    probe: Action
    timeout: timedelta
    drill_window: str = ""

    @property
    def worker(self) -> str:
        """As effects name it."""
        return f"external-{self.name}"

    def need(self, at: Standing) -> Need:
        """What has to be proven of it while it is closed."""
        return Need(self.scope, at.state, at.epoch, at.command, at.since, self.name)


class Runs(StrEnum):
    """What a probe says."""

    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


def runs(outcome: Outcome) -> Runs:
    """0 of a program or 2xx of a hook: it runs; 1 or 503: it is stopped; all else nobody knows."""
    if outcome.done:
        return Runs.RUNNING
    return Runs.STOPPED if outcome.code == (503 if outcome.http else 1) else Runs.UNKNOWN


class Cause(StrEnum):
    """What the state of a scope comes from."""

    TWO = "two"  # an opening that two persons signed, and nothing is there that may close it
    CLOSING = "closing"  # one person or a rule, also one that only limits
    NOBODY = "nobody"  # nothing was ordered, or nobody can read what


@dataclass(frozen=True, slots=True)
class Record:
    """How far a system follows. epoch: that was carried out to the end; 0: none. stopped: whether it is kept stopped.

    before: what was seen of it in the moment before our first stop. ordered: epoch of the opening for which two persons
    ordered its start, because nobody knew; 0: none.
    """

    epoch: int = 0
    stopped: bool = False
    before: Runs = Runs.UNKNOWN
    ordered: int = 0

    def waits(self, at: Standing, cause: Cause) -> bool:
        """Whether two persons have to say that it is started, now or once its scope is open: we stopped it, and nobody
        knows whether it ran, or the last word on its scope is a closing that lets it go on (SW-01)."""
        if not self.stopped or self.before is Runs.STOPPED or self.ordered == at.epoch:  # 0: nobody ordered anything
            return False
        return self.before is Runs.UNKNOWN or (at.state.begins and cause is Cause.CLOSING)


class RecordBook:
    """The files `<home>/switch/external/NAME.json`. folder: `<home>/switch`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "external"

    def read(self, name: str) -> Record:
        """Without a record nothing was stopped by us. Of one that cannot be read, if only now, nobody knows: it counts
        as stopped, so that two persons say whether it is started, and not as one that was down."""
        try:
            table = json.loads(self._path(name).read_bytes())
            # Files from before have was_down, which was false also where nobody knew.
            before = table.get("before", Runs.STOPPED if table.get("was_down") is True else Runs.UNKNOWN)
            return Record(int(table["epoch"]), table["stopped"] is True, Runs(before), int(table.get("ordered", 0)))
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Record(stopped=True)

    def write(self, name: str, record: Record, now: datetime) -> None:
        """Durable when it returns. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        table: dict[str, Any] = {**dataclasses.asdict(record), "at": time_text(now)}
        replace(OsDisk(), self._path(name), json.dumps(table).encode())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


class Wanted(StrEnum):
    """What is to be done about a system."""

    NOTHING = "nothing"
    STOP = "stop"
    START = "start"
    LEAVE = "leave"  # open again, and it was down before we came
    ASK = "ask"  # nothing forbids it, and only two persons may say so


def wanted(record: Record, at: Standing, cause: Cause) -> Wanted:
    """cause: of the state where it stands (SW-01, SW-03). Pure."""
    if at.epoch == 0 and not at.safe:
        return Wanted.NOTHING
    if not at.state.begins:
        return Wanted.STOP if record.epoch < at.epoch or not record.stopped else Wanted.NOTHING
    if not record.stopped or cause is Cause.NOBODY:
        return Wanted.NOTHING
    if record.waits(at, cause):
        return Wanted.ASK
    return Wanted.LEAVE if record.before is Runs.STOPPED else Wanted.START


def needs_of(systems: Sequence[ExternalSystem], standing: Callable[[Scope], Standing]) -> list[Need]:
    """Those that must be proven stopped. Pure."""
    return [one.need(at) for one in systems if not (at := standing(one.scope)).state.begins]


class SystemStandings:
    """Where scopes of systems stand. They may be wider than an atom, so the switch's own folds do not have them; and
    they are asked for many times a second, so they are folded once an epoch.

    entries: the accepted commands. rules: what they are folded from, also with the mark of a copy that is in doubt
    (SW-02). Both are the same object as long as there is none more. blocked: why the next epoch cannot be read now, ""
    if it can. Thread-safe.
    """

    def __init__(
        self,
        entries: Callable[[], Sequence[Accepted]],
        rules: Callable[[], Sequence[Rule]] | None = None,
        blocked: Callable[[], str] = str,
    ) -> None:
        self._entries = entries
        self._rules = rules or (lambda: rules_of(entries()))
        self._blocked = blocked
        # In one piece: of two threads that meet in it, none may leave one's rules beside the other's epochs.
        self._view: tuple[Sequence[Rule], ByTenant, dict[Scope, Standing]] | None = None

    @classmethod
    def of(cls, switch: LocalSwitch) -> SystemStandings:
        """As this copy knows it."""
        return cls(switch.entries, switch.rules, lambda: switch.blocked)

    def at(self, scope: Scope, now: datetime) -> Standing:
        """Where it stands at this moment."""
        found, view = self._rules(), self._view
        if view is None or view[0] is not found:
            view = self._view = (found, ByTenant().with_more(found), {})
        _, rules, known = view
        if scope not in known:
            known[scope] = standing(rules.of(scope.tenant), scope)
        return known[scope].at(now)

    def cause(self, at: Standing) -> Cause:
        """What this state comes from."""
        entries = self._entries()
        one = entries[at.epoch - 1] if 0 < at.epoch <= len(entries) else None
        if self._blocked() or one is None or one.command is None:
            return Cause.NOBODY
        return Cause.TWO if one.command.opening else Cause.CLOSING


def proof_of(need: Need, outcome: Outcome, place: str, started: datetime, finished: datetime) -> ClosureProof:
    """What a probe amounts to (SW-07). What nobody knows proves nothing."""
    found = runs(outcome)
    verdicts = {Runs.STOPPED: Verdict.PROVEN, Runs.RUNNING: Verdict.NOT_PROVEN, Runs.UNKNOWN: Verdict.INCONCLUSIVE}
    return ClosureProof(
        id=f"{need.epoch}-{int(started.timestamp() * 1000)}-{need.external}",
        command=need.command,
        epoch=need.epoch,
        scope=need.text,
        what=What.EXTERNAL,
        method=METHOD[What.EXTERNAL],
        expected=Runs.STOPPED,
        observed=f"{found}: {outcome.note}",
        attempts=1,
        place=place,
        started_at=started,
        finished_at=finished,
        verdict=verdicts[found],
        raw_hash=outcome.digest,
    )
