"""`LocalSwitch`: the copy of the switch that a role keeps for itself and asks before each unit of work (SW-02, SW-04).

The copy holds the signed commands themselves, so it needs no signature of its own: at each start every command is
verified again against the operators of the role's configuration. What the copy protects from:

    the log is gone, or cannot be read    the role keeps its state; nothing opens, nothing is lost (SW-04)
    the log was cut                       the role puts the missing epochs back from its copy
    the log was rewritten                 the role keeps to the safe state, until two persons open it
    the copy cannot be read               the same, also after a restart (SW-02)
    both are gone, or older than a fence  the same
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from schleuse.clock import Now
from schleuse.errors import CorruptError, Error
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.opening import Json, canonical_json, parse_canonical_json
from schleuse.scopes import NONE, Direction, Service, atom
from schleuse.switch.log import GENESIS, Accepted, SwitchLog
from schleuse.switch.standing import UNKNOWN_TIME, Rule, Standing, safe_standing, standing

log = structlog.get_logger()


class CopyDamagedError(CorruptError):
    """The role's own copy of the switch cannot be read; two persons look and open again."""

    code = "switch.copy-damaged"


class Switch(Protocol):
    """What a service holds: the state of its own scopes, at this moment."""

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        """Never raises: what cannot be known is the safe state (SW-02)."""
        ...

    @property
    def epoch(self) -> int:
        """The highest epoch seen."""
        ...


@dataclass(frozen=True, slots=True)
class _Safe:
    """Since when, by epoch, and why the role believes nothing before."""

    epoch: int
    why: str


class LocalSwitch:
    """One per process; thread-safe. copy: the file of this process, under `<home>/switch/copies`.

    floor: the highest epoch that the role's database has seen (`fence.head`).
    """

    def __init__(self, log: SwitchLog, copy: Path, now: Now, *, floor: int = 0) -> None:
        self._log = log
        self._copy = copy
        self._now = now
        self._lock = threading.Lock()
        self._entries: list[Accepted] = []
        self._ids: set[str] = set()
        self._safe: _Safe | None = None
        self._known: dict[tuple[str, str, str, str], Standing] = {}
        self._start(floor)

    @property
    def epoch(self) -> int:
        """The highest epoch seen."""
        self.refresh()
        return len(self._entries)

    @property
    def safe(self) -> str:
        """Why this role keeps to the safe state where nobody has opened since; "" if it does not."""
        return self._safe.why if self._safe else ""

    def entries(self) -> Sequence[Accepted]:
        """All epochs seen, for showing and checking."""
        self.refresh()
        return tuple(self._entries)

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        """See `Switch.standing`; some microseconds."""
        self.refresh()
        key = (service, tenant, direction, path)
        known = self._known
        found = known.get(key)
        if found is None:  # into the table that we read from: a refresh meanwhile begins another one
            found = known[key] = standing(self._rules(), atom(service, tenant, direction, path))
        return found if found.closes_at is None else found.at(self._now())

    def refresh(self) -> bool:
        """Take what is new in the log. Returns whether something was."""
        if not self._log.has(len(self._entries) + 1):
            return False
        with self._lock:
            before = len(self._entries)
            try:
                self._take_new()
            except Error as error:  # we keep what we know; nothing opens by this
                log.error("switch.log-unreadable", code=error.code, reason=str(error))
            if len(self._entries) > before:
                self._changed()
            return len(self._entries) > before

    def _start(self, floor: int) -> None:
        with self._lock:
            doubts: list[str] = []
            try:
                self._read_copy()
            except CopyDamagedError as error:
                doubts.append(str(error))
            try:
                doubts += self._meet_log()
            except Error as error:
                log.error("switch.log-unreadable", code=error.code, reason=str(error))
                if not self._entries:
                    doubts.append(f"neither log nor copy of the switch can be read ({error})")
            if len(self._entries) < floor:
                doubts.append(f"the switch ends at epoch {len(self._entries)}, this role's database has seen {floor}")
            if doubts:
                self._safe = _Safe(len(self._entries), "; ".join(doubts))
            if self._safe is not None:
                log.error("switch.safe-state", since_epoch=self._safe.epoch, reason=self._safe.why)
            self._changed()

    def _meet_log(self) -> list[str]:
        """Put back what the log lost, and take what is new; returns why the log cannot be believed."""
        if not self._log.exists:
            if not self._entries:
                self._log.read_all()  # raises
            return []
        last = len(self._entries)
        if last and self._log.has(last):
            found = self._log.read(last, self._entries[-2].digest if last > 1 else GENESIS)
            if found.digest != self._entries[-1].digest:
                return [f"epoch {last} of the log is not the one that this role has seen"]
        for one in self._entries:
            if not self._log.has(one.epoch) and self._log.restore(one.epoch, one.data):
                log.error("switch.epoch-restored", epoch=one.epoch)
        self._take_new()
        return []

    def _take_new(self) -> None:
        while self._log.has(len(self._entries) + 1):
            before = self._entries[-1].digest if self._entries else GENESIS
            found = self._log.read(len(self._entries) + 1, before, frozenset(self._ids))
            if found.fault:
                log.error("switch.command-refused", epoch=found.epoch, reason=found.fault)
            self._add(found)

    def _add(self, entry: Accepted) -> None:
        self._entries.append(entry)
        if entry.signed is not None:
            self._ids.add(entry.signed.command.id)

    def _changed(self) -> None:
        self._known = {}
        try:
            self._write_copy()
        except OSError as cause:  # the log has it; the copy is written with the next epoch or at the next start
            log.error("switch.copy-not-written", reason=cause.strerror or type(cause).__name__)

    def _rules(self) -> list[Rule]:
        rules = [one.rule for one in self._entries]
        found = [rule for rule in rules if rule is not None]
        if self._safe is None:
            return found
        mark = self._safe.epoch
        safe = Rule(mark, UNKNOWN_TIME, None)
        return [*(one for one in found if one.epoch <= mark), safe, *(one for one in found if one.epoch > mark)]

    def _read_copy(self) -> None:
        """Raises CopyDamagedError."""
        try:
            data = self._copy.read_bytes()
        except FileNotFoundError:
            return
        except OSError as cause:
            raise CopyDamagedError(f"the copy {self._copy.name} cannot be read ({cause.strerror})") from cause
        digest, _, body = data.partition(b"\n")
        try:
            if hashlib.sha256(body).hexdigest().encode() != digest:
                raise CopyDamagedError(f"the copy {self._copy.name} is damaged")
            value = parse_canonical_json(body)
            entries, safe = value["entries"], value["safe"]  # type: ignore[call-overload,index]
            for one in entries:  # type: ignore[union-attr]
                before = self._entries[-1].digest if self._entries else GENESIS
                raw = str(one).encode("latin-1")
                self._add(self._log.judge(len(self._entries) + 1, raw, before, frozenset(self._ids)))
            if safe:
                self._safe = _Safe(int(safe["epoch"]), str(safe["why"]))  # type: ignore[call-overload,index,arg-type]
        except (Error, KeyError, TypeError, ValueError) as cause:
            self._entries, self._ids = [], set()
            raise CopyDamagedError(f"the copy {self._copy.name} is damaged") from cause

    def _write_copy(self) -> None:
        safe: dict[str, Json] = {"epoch": self._safe.epoch, "why": self._safe.why} if self._safe else {}
        # latin-1: an epoch that nobody can read may be any octets, and they must come back as they were.
        body = canonical_json({"entries": [one.data.decode("latin-1") for one in self._entries], "safe": safe})
        self._copy.parent.mkdir(parents=True, exist_ok=True)
        replace(OsDisk(), self._copy, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


class ClosedSwitch:
    """The safe state for ever: what stands in where no copy can be had."""

    def __init__(self, why: str) -> None:
        self._why = why

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        """HOLD."""
        return safe_standing(self._why, 0)

    @property
    def epoch(self) -> int:
        """None seen."""
        return 0
