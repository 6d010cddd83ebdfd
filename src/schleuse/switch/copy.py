"""`LocalSwitch`: the copy of the switch that a role keeps for itself and asks before each unit of work (SW-02, SW-04).

The copy holds the signed commands themselves, so it needs no signature of its own: at each start every command is
verified again against the operators of the role's configuration. What the copy protects from:

    the log is gone, or cannot be read    the role keeps its state; nothing opens, nothing is lost (SW-04)
    the log was cut                       the role puts the missing epochs back from its copy, also while it runs
    the log was rewritten                 the role keeps to the safe state, until two persons open it
    an epoch is there and cannot be read  the same, until it can be read: it may well be a closing
    the copy cannot be read               the same, also after a restart (SW-02)
    both are gone, or older than a fence  the same
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.scopes import NONE, Direction, Scope, Service, atom
from schleuse.switch.copy_file import CopyDamagedError, CopyFile, SafeMark, read_copy
from schleuse.switch.disk import LinkingDisk, SwitchDisk
from schleuse.switch.documents import Command, Role
from schleuse.switch.log import GENESIS, Accepted, Mark, Spare, SwitchLog, SwitchLogError, create_log, rules_of
from schleuse.switch.standing import UNKNOWN_TIME, ByTenant, Folded, Rule, Standing, fold, safe_standing

log = structlog.get_logger()

#: After trouble with the log it is looked at again so often, not for each unit of work.
AGAIN = timedelta(milliseconds=200)


class Switch(Protocol):
    """What a service holds: the state of its own scopes, at this moment."""

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        """Never raises: what cannot be known is the safe state (SW-02)."""
        ...

    @property
    def epoch(self) -> int:
        """The highest epoch seen."""
        ...


class Mandates(Protocol):
    """What had agreed to a closing by rule (`shutdown.mandates`); the data plane reads it and knows no policy."""

    def fault(self, command: Command, at: datetime, earlier: Sequence[Command]) -> str:
        """Why nothing had, or "". Never raises."""
        ...


def unproven(entry: Accepted, earlier: Iterable[Accepted], mandates: Mandates) -> str:
    """Why this closing is one by an unproven rule, or ""; it is in force all the same (SW-01, EW-06)."""
    command = entry.command
    if command is None or command.opening or not _by_rule(entry):
        return ""
    return mandates.fault(command, entry.accepted_at, [one.command for one in earlier if one.command is not None])


def _by_rule(entry: Accepted) -> bool:
    """Whether no person has signed it."""
    return entry.signed is not None and all(one.role is Role.AUTOMAT for one in entry.signed.signatures)


def standing_of(switch: Switch, atom: Scope) -> Standing:
    """Of a whole atom, as `Switch.standing` of its parts. Raises ValueError: a group is no atom."""
    return switch.standing(Service(atom.service), atom.tenant, Direction(atom.direction), atom.path)


_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class _View:
    """What is known at one moment; replaced whole, so that no thread sees an epoch without its effect.

    rules: what the fold gets, also by tenant. known: the fold of each atom that was asked for. older: folds that only
    have to be continued with the rules in `new`.
    """

    entries: tuple[Accepted, ...] = ()
    rules: tuple[Rule, ...] = ()
    by_tenant: ByTenant = field(default_factory=ByTenant)
    known: dict[_Key, Folded] = field(default_factory=dict)
    older: Mapping[_Key, Folded] = field(default_factory=dict)
    new: Sequence[Rule] = ()

    @classmethod
    def anew(cls, entries: Sequence[Accepted], rules: tuple[Rule, ...]) -> _View:
        """With nothing folded yet."""
        return cls(tuple(entries), rules, ByTenant().with_more(rules))

    def folded(self, key: _Key, scope: Scope) -> Folded:
        """The fold over all rules; the table is only ever filled, so threads may meet in it."""
        before = self.older.get(key)
        if before is None:
            found = fold(Folded(), self.by_tenant.of(scope.tenant), scope)
        else:
            found = fold(before, self.new, scope)
        self.known[key] = found
        return found

    def continued(self, more: Sequence[Accepted]) -> _View:
        """With further epochs at the end."""
        rules = rules_of(more)
        known = dict(self.known)
        for key in self.older.keys() - known.keys():  # nobody asked for these since; they must not fall behind
            known[key] = fold(self.older[key], self.new, Scope(*key))
        entries = (*self.entries, *more)
        return _View(entries, (*self.rules, *rules), self.by_tenant.with_more(rules), {}, known, rules)


class LocalSwitch:
    """One per process; thread-safe. copy: the file of this process, under `<home>/switch/copies`.

    floor: the highest epoch that the role's database has seen (`fence.head`). mandates: of closings by rule, each of
    which is looked at when it is taken; None where there are none.
    """

    def __init__(
        self,
        log: SwitchLog,
        copy: Path,
        now: Now,
        *,
        floor: int = 0,
        disk: SwitchDisk | None = None,
        mandates: Mandates | None = None,
    ) -> None:
        self._log = log
        self._file = CopyFile(copy, disk or LinkingDisk())
        self._now = now
        self._mandates = mandates
        self._lock = threading.Lock()
        self._view = _View()
        self._ids: set[str] = set()
        self._safe: SafeMark | None = None
        self._blocked = ""  # why the next epoch, which is there, cannot be read now
        self._mark: Mark | None = None  # of the folder when it was looked at last
        self._inodes: dict[int, int] = {}
        self._trouble = ""
        self._trouble_at: datetime | None = None
        self._start(floor)

    @property
    def epoch(self) -> int:
        """The highest epoch seen."""
        self.refresh()
        return len(self._view.entries)

    @property
    def safe(self) -> str:
        """Why this role keeps to the safe state where nobody has opened since; "" if it does not."""
        return self._blocked or (self._safe.why if self._safe else "")

    @property
    def blocked(self) -> str:
        """Why the next epoch, which is there and may be a closing, cannot be read now; "" if it can."""
        self.refresh()
        return self._blocked

    def entries(self) -> Sequence[Accepted]:
        """All epochs seen, for showing and checking."""
        self.refresh()
        return self._view.entries

    def rules(self) -> Sequence[Rule]:
        """What the state of an atom is folded from, with the mark of the safe state."""
        self.refresh()
        return self._view.rules

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        """See `Switch.standing`; some microseconds."""
        self.refresh()
        view = self._view
        if self._blocked:
            return safe_standing(self._blocked, len(view.entries))
        key = (service, tenant, direction, path)
        found = (view.known.get(key) or view.folded(key, atom(service, tenant, direction, path))).at
        return found if found.closes_at is None else found.at(self._now())

    def refresh(self) -> bool:
        """Take what is new in the log. Returns whether something was."""
        before = self._view
        if self._trouble_at is None:
            # Two questions, because the time of a folder has the grain of the kernel's clock.
            if self._log.mark() == self._mark and not self._log.has(len(before.entries) + 1):
                return False
        elif timedelta(0) <= self._now() - self._trouble_at < AGAIN:
            return False
        with self._lock:
            self._look()
        return self._view is not before

    def _start(self, floor: int) -> None:
        with self._lock:
            doubts: list[str] = []
            try:
                self._read_copy()
            except CopyDamagedError as error:
                doubts.append(str(error))
            self._look()
            if not self._view.entries and self._mark is None:
                doubts.append("neither log nor copy of the switch can be read")
            if len(self._view.entries) < floor:
                doubts.append(
                    f"the switch ends at epoch {len(self._view.entries)}, this role's database has seen {floor}"
                )
            if doubts:
                self._doubt("; ".join(doubts), floor)
            elif self._safe is not None:
                log.error("switch.safe-state", since_epoch=self._safe.epoch, reason=self._safe.why)
            self._write_copy()

    def _look(self) -> None:
        """Put back what the log lost, doubt what was replaced in it, and take what is new. Never raises."""
        mark = self._log.mark()
        if mark is None:  # we keep what we know; nothing opens by this (SW-04)
            if self._mark is not None:
                log.error("switch.log-gone", folder=self._log.folder.name)
            self._mark = None
            return
        taken, mended = self._tried(self._take_new), self._tried(self._mend)
        trouble = taken or mended
        if trouble and trouble != self._trouble:
            log.error("switch.log-unreadable", reason=trouble)
        self._trouble = trouble
        self._trouble_at = self._now() if trouble else None
        self._mark = None if trouble else mark

    def _tried(self, step: Callable[[], None]) -> str:
        try:
            step()
        except Error as error:
            return str(error)
        return ""

    def _mend(self) -> None:
        there = self._log.inodes()
        entries = self._view.entries
        changed = [one for one in entries if there.get(one.epoch, -1) != self._inodes.get(one.epoch)]
        other = [
            one.epoch
            for one in changed
            if one.epoch in there and hashlib.sha256(self._log.raw(one.epoch)).hexdigest() != one.digest
        ]
        if other:
            if self._safe is None or self._safe.epoch < len(entries):
                self._doubt(f"epoch {other[0]} of the log is not the one that this role has seen")
                self._write_copy()
        else:
            self._restore([one for one in changed if one.epoch not in there])
        self._inodes = self._log.inodes()

    def _restore(self, lost: Sequence[Accepted]) -> None:
        for one in lost:
            if self._log.restore(one.epoch, one.data):
                log.error("switch.epoch-restored", epoch=one.epoch)

    def _take_new(self) -> None:
        entries = list(self._view.entries)
        known = len(entries)
        trouble = ""
        while not trouble and self._log.has(len(entries) + 1):
            before = entries[-1].digest if entries else GENESIS
            try:
                found = self._log.read(len(entries) + 1, before, self._ids)
            except SwitchLogError as error:
                trouble = str(error)
                continue
            if found.fault or found.remark:
                log.error("switch.command-odd", epoch=found.epoch, fault=found.fault, remark=found.remark)
            self._note(found)
            entries.append(found)
        if len(entries) > known:
            self._view = self._view.continued(entries[known:])
            self._write_copy()
            self._alarm(entries[known:])
        # It may well be a closing: until it can be read, everything is held.
        self._blocked = trouble
        if trouble:
            raise SwitchLogError(trouble)

    def _alarm(self, new: Sequence[Accepted]) -> None:
        """Closings by rule that nobody had agreed to; after they are in force, for closing waits for nothing."""
        for one in new:
            why = self.unproven(one)
            if why:
                log.error("switch.rule-unproven", epoch=one.epoch, reason=why)

    def unproven(self, entry: Accepted) -> str:
        """See `unproven`, of an epoch that was seen."""
        if self._mandates is None:
            return ""
        return unproven(entry, self._view.entries[: entry.epoch - 1], self._mandates)

    def _note(self, entry: Accepted) -> None:
        if entry.id is not None:
            self._ids.add(entry.id)

    def _doubt(self, why: str, floor: int = 0) -> None:
        """Believe nothing that was said up to now, or up to what the database has seen."""
        entries = self._view.entries
        self._safe = SafeMark(max(len(entries), floor), why)
        log.error("switch.safe-state", since_epoch=self._safe.epoch, reason=why)
        self._view = _View.anew(entries, self._rules(entries))

    def _rules(self, entries: Sequence[Accepted]) -> tuple[Rule, ...]:
        found = rules_of(entries)
        if self._safe is None:
            return tuple(found)
        mark = self._safe.epoch
        safe = Rule(mark, UNKNOWN_TIME, None)
        return (*(one for one in found if one.epoch <= mark), safe, *(one for one in found if one.epoch > mark))

    def _read_copy(self) -> None:
        """Raises CopyDamagedError."""
        found = self._file.read()
        self._safe = found.safe
        entries: list[Accepted] = []
        for raw in found.raws:
            before = entries[-1].digest if entries else GENESIS
            entries.append(self._log.judge(len(entries) + 1, raw, before, self._ids))
            self._note(entries[-1])
        self._view = _View.anew(entries, self._rules(entries))

    def _write_copy(self) -> None:
        try:
            self._file.keep(self._view.entries, self._safe)
        except OSError as cause:  # the log has it; the copy is written with the next epoch or at the next start
            log.error("switch.copy-not-written", reason=cause.strerror or type(cause).__name__)


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


def spare_of(copies: Path) -> Spare:
    """Epochs as the copies of roles have them; a copy that cannot be read, or has not this one, gives nothing.

    The copies have to agree: they are what roles act by, and no longer all alike if somebody has touched one.
    """

    def spare(epoch: int) -> bytes | None:
        found = set[bytes]()
        for path in sorted(copies.glob("*.json")):
            with suppress(CopyDamagedError, FileNotFoundError):
                found.update(read_copy(path).raws[epoch - 1 : epoch])
        return found.pop() if len(found) == 1 else None

    return spare


#: The first epoch of a log that was lost with all copies: nobody can read it, so it closes everything.
LOST = b"the log of the switch was lost; it was made anew for a closing"


def make_anew(switch_log: SwitchLog, copies: Sequence[Path]) -> None:
    """A log in the place of one that is gone, in which everything is as closed as without it. Raises SwitchLogError.

    With a copy that can be read `put_back` fills it; without, its first epoch holds everything until two persons open.
    """
    readable = False
    for path in copies:
        with suppress(CopyDamagedError, FileNotFoundError):
            readable = read_copy(path).safe is None or readable
    try:
        create_log(switch_log.folder)
    except FileExistsError:
        return  # somebody was faster
    except OSError as cause:
        raise SwitchLogError(f"the switch's log cannot be made ({cause.strerror})") from cause
    if not readable:
        switch_log.restore(1, LOST)


def put_back(switch_log: SwitchLog, copies: Iterable[Path]) -> list[int]:
    """Give a log that was cut what the copies of roles still have; returns the epochs. For who appends next: its
    command must not get a number that others have seen already.

    A copy that contradicts the log, or that cannot be read, gives nothing. Raises SwitchLogError.
    """
    restored: list[int] = []
    for path in copies:
        try:
            raws = read_copy(path).raws
        except (CopyDamagedError, FileNotFoundError) as error:
            log.error("switch.copy-not-read", copy=path.name, reason=str(error))
            continue
        there = switch_log.inodes().keys()
        lost = [epoch for epoch in range(1, len(raws) + 1) if epoch not in there]
        if not lost:  # nothing to give, so the log is not read: a closing waits for us
            continue
        if any(epoch in there and switch_log.raw(epoch) != raw for epoch, raw in enumerate(raws, 1)):
            continue
        restored += [epoch for epoch in lost if switch_log.restore(epoch, raws[epoch - 1])]
    return restored
