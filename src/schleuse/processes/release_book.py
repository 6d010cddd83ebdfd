"""Where releases of a backlog are kept: plain files, each written whole, so that a step may be repeated after a crash.

<home>/switch/releases/ID/plan.json           what is approved, canonical JSON
                         /approval-NAME.json  who stands for it (`switch.approval`)
                         /progress.json       how far it is: written before each step
                         /stop.json           that nothing more may go: written by whoever stops it, at any moment
                      /.lock                  held during a step: one at a time on this home
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schleuse.errors import ConflictError, CorruptError, UnavailableError
from schleuse.holding.release import BadReleasePlanError, ReleasePlan, plan_from
from schleuse.journal.disk import OsDisk
from schleuse.journal.disk import replace as write_whole
from schleuse.switch.approval import Approval, BadApprovalError, parse_approval

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NoSuchReleaseError(ConflictError):
    """There is no release plan of this name; `schleuse hold release status` lists them."""

    code = "release.no-such-plan"


class ReleaseDamagedError(CorruptError):
    """A file of a release is not what was written; nothing of it goes until its operator has looked."""

    code = "release.damaged"


class ReleaseNotKeptError(UnavailableError):
    """A file of a release cannot be written or locked, so nothing was done; the operator makes room."""

    code = "release.not-kept"


@dataclass(frozen=True, slots=True)
class Part:
    """How far one mailbox of a release is.

    above, upto, size: the batch that was released last; batches: how many there were; errors_before: what had failed
    between `above` and `upto` before the batch went. done: nothing of it is left. back: its insurer was held, and what
    nobody had taken of the batch is held again until there is room for it.
    """

    above: int = 0
    upto: int = 0
    size: int = 0
    batches: int = 0
    errors_before: int = 0
    done: bool = False
    back: bool = False


_NOT_BEGUN = Part()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a release is.

    parts: of the mailboxes that have begun, by account. released: mails that were let go; failed: errors of batches
    that have ended. begun_at: when the first batch went, ISO 8601; the approvals had to be valid then. epoch: of the
    switch when a person last carried a step out. stopped: why nothing more goes, once all was taken back. finished:
    nothing is left.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    released: int = 0
    failed: int = 0
    begun_at: str = ""
    epoch: int = 0
    stopped: str = ""
    finished: bool = False

    def part(self, account: str) -> Part:
        """How far this mailbox is."""
        return self.parts.get(account, _NOT_BEGUN)

    @property
    def runs(self) -> bool:
        """Something went, and something is left to do."""
        return bool(self.begun_at) and not self.finished and not self.stopped


@dataclass(frozen=True, slots=True)
class StopOrder:
    """by: the name of a person, or "rule"."""

    reason: str
    by: str
    at: str


class ReleaseBook:
    """The folder `<home>/switch/releases`. What writes raises ReleaseNotKeptError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ids(self) -> list[str]:
        """Names of all releases, also of one whose plan is gone."""
        return sorted({path.parent.name for path in self._folder.glob("*/*.json")})

    def running(self) -> list[str]:
        """Those of which something is left to do: begun, or ordered to stop, and neither finished nor stopped yet; nor
        can one be left out of which nobody can say it."""
        return [id for id in self.ids() if self._goes_on(id)]

    def _goes_on(self, id: str) -> bool:
        at = self.known(id)
        return at is None or at.runs or (not at.finished and not at.stopped and self.stop_order(id) is not None)

    def keep(self, plan: ReleasePlan) -> None:
        """Write the plan."""
        self._write(plan.id, "plan.json", plan.encode())

    def require(self, id: str) -> None:
        """Raises NoSuchReleaseError where nothing of this release is there, whatever it says."""
        if id not in self.ids():
            raise NoSuchReleaseError(f"there is no release {id}")

    def read(self, id: str) -> ReleasePlan:
        """Raises NoSuchReleaseError, ReleaseDamagedError."""
        self.require(id)
        try:
            plan = plan_from(json.loads((self._of(id) / "plan.json").read_bytes()))
        except (OSError, ValueError, BadReleasePlanError) as cause:
            raise ReleaseDamagedError(f"the plan of {id} cannot be read ({type(cause).__name__})") from cause
        if plan.id != id:
            raise ReleaseDamagedError(f"the folder {id} has the plan of {plan.id}")
        return plan

    def keep_approval(self, id: str, approval: Approval) -> None:
        """One of each person; a newer one replaces it."""
        data = json.dumps(approval.encode(), indent=1).encode()
        self._write(id, f"approval-{self._plain(approval.operator)}.json", data)

    def approvals(self, id: str) -> list[Approval]:
        """All that are kept, valid or not; what is none is left out, so it approves nothing."""
        found = []
        for path in sorted(self._of(id).glob("approval-*.json")):
            try:
                found.append(parse_approval(json.loads(path.read_bytes())))
            except (OSError, ValueError, BadApprovalError):
                continue
        return found

    def progress(self, id: str) -> Progress:
        """Raises ReleaseDamagedError; also for what an older version has begun and nobody has ended (decision 0029)."""
        table = self._read(id, "progress.json")
        if table is None:
            return Progress()
        try:
            if "parts" not in table and (table["finished"] or table["stopped"]):  # by an older version
                over = ("released", "begun_at", "epoch", "stopped", "finished")
                return Progress(**{name: table[name] for name in over})
            return Progress(**{**table, "parts": {account: Part(**one) for account, one in table["parts"].items()}})
        except (TypeError, KeyError, AttributeError) as cause:
            raise ReleaseDamagedError(f"the progress of {id} cannot be read ({type(cause).__name__})") from cause

    def known(self, id: str) -> Progress | None:
        """As `progress`; None if it cannot be read."""
        try:
            return self.progress(id)
        except ReleaseDamagedError:
            return None

    def note(self, id: str, progress: Progress) -> None:
        """Durable when it returns."""
        self._write(id, "progress.json", json.dumps(asdict(progress), indent=1).encode())

    def order_stop(self, id: str, order: StopOrder) -> None:
        """Durable when it returns; no step of any process releases anything after it."""
        self._write(id, "stop.json", json.dumps(asdict(order), indent=1).encode())

    def stop_order(self, id: str) -> StopOrder | None:
        """A file that cannot be read stops as well."""
        try:
            table = self._read(id, "stop.json")
            return None if table is None else StopOrder(str(table["reason"]), str(table["by"]), str(table["at"]))
        except (ReleaseDamagedError, KeyError):
            return StopOrder("stop.json cannot be read", "rule", "")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One step at a time on this home; the lock ends with the process."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / ".lock").open("w")
        except OSError as cause:
            raise ReleaseNotKeptError(f"the lock of releases cannot be taken ({cause.strerror})") from cause
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self, id: str, name: str) -> Mapping[str, Any] | None:
        try:
            table = json.loads((self._of(id) / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as cause:
            raise ReleaseDamagedError(f"{name} of {id} cannot be read ({type(cause).__name__})") from cause
        if not isinstance(table, dict):
            raise ReleaseDamagedError(f"{name} of {id} is no JSON object")
        return table

    def _write(self, id: str, name: str, data: bytes) -> None:
        path = self._of(id) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(OsDisk(), path, data)
        except OSError as cause:
            raise ReleaseNotKeptError(f"{name} of {id} cannot be written ({cause.strerror})") from cause

    def _of(self, id: str) -> Path:
        return self._folder / self._plain(id)

    def _plain(self, name: str) -> str:
        if not _ID.fullmatch(name):
            raise NoSuchReleaseError("a name of a release or an operator has letters, digits, and . _ -")
        return name
