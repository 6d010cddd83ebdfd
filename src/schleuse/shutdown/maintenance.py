"""Supplier sessions: registered, cut first, with everything they started; their credentials are to be rotated (T-26).

    <home>/run/maintenance/ID.json                a session that runs, or whose watcher died
    <home>/switch/maintenance/ended/ID.json       how each one ended
    <home>/switch/maintenance/rotate/NAME.json    a credential that was in use when its session was cut

A process belongs to a session by the mark in its environment, which survives new process groups and new sessions, and
by descent from its leader. Numbers of processes are used again, so the leader counts only with its time of start.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schleuse.clock import boot_id
from schleuse.errors import ConflictError, MalformedError, RefusedError, UnavailableError
from schleuse.journal.disk import OsDisk
from schleuse.journal.disk import replace as write_whole
from schleuse.scopes import ANY, NONE, Direction, Scope, Service
from schleuse.shutdown.proc import PROC, descendants, process, processes, read
from schleuse.switch.documents import parse_time, time_text
from schleuse.switch.standing import Standing

#: Names the session in the environment of all that it starts.
MARK = "SCHLEUSE_MAINTENANCE"
#: Killing goes on until nobody is left; what starts new processes faster than this is told as not ended.
ROUNDS = 200
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)


class BadSessionError(MalformedError):
    """A session has a name of its user and a credential of letters, digits and _.@-; who typed it can change it."""

    code = "maintenance.bad-session"


class MaintenanceClosedError(RefusedError):
    """Supplier access is closed; two persons open it again (`restart`)."""

    code = "maintenance.closed"


class CredentialWaitsError(ConflictError):
    """The credential was in use when a session was cut; it is rotated first (`maintenance rotated`)."""

    code = "maintenance.rotate-first"


class SessionNotKeptError(UnavailableError):
    """The session cannot be recorded; its operator looks at the disk, and nothing is started."""

    code = "maintenance.not-kept"


#: Who, and with which credential, where the file of a session cannot be read.
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Leader:
    """The first process of a session. started: clock ticks since the machine's start, from /proc. boot: id of that."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Session:
    """who: name of the person. credential: its id as the supplier's list has it. leader, watcher: None before start.

    ended_at, epoch, why: "" or 0 while it runs. cut: by a closing. left: numbers of processes that could not be ended.
    """

    id: str
    who: str
    credential: str
    scope: Scope
    command: tuple[str, ...]
    begun_at: datetime
    leader: Leader | None = None
    watcher: Leader | None = None
    ended_at: datetime | None = None
    cut: bool = False
    epoch: int = 0
    why: str = ""
    left: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.who) or not _NAME.fullmatch(self.credential) or not self.id.isalnum():
            raise BadSessionError("a session has --who and --credential of 1 to 64 letters, digits and _.@-")
        if self.scope.direction != Direction.MAINTENANCE:
            raise BadSessionError(f"the scope of a session is of direction maintenance, found {self.scope}")


def atoms_of(scope: Scope, tenants: Iterable[str]) -> tuple[Scope, ...]:
    """Every atom that a session of this scope reaches. tenants: IKs of the insurers."""
    services = Service if scope.service == ANY else (Service(scope.service),)
    named = (NONE, *tenants) if scope.tenant == ANY else (scope.tenant,)
    path = NONE if scope.path == ANY else scope.path
    return tuple(Scope(one.value, tenant, Direction.MAINTENANCE.value, path) for one in services for tenant in named)


def closed_by(standings: Mapping[Scope, Standing]) -> tuple[Scope, Standing] | None:
    """What ends a session, or keeps it from beginning: the first atom of it in which nothing may begin (SW-09)."""
    return next(((scope, at) for scope, at in standings.items() if not at.state.begins), None)


class SessionBook:
    """The files. run: `<home>/run/maintenance`. kept: `<home>/switch/maintenance`."""

    def __init__(self, run: Path, kept: Path) -> None:
        self._run = run
        self._kept = kept

    def write(self, session: Session) -> None:
        """Raises SessionNotKeptError."""
        _write(self._run / f"{session.id}.json", _table(session))

    def running(self) -> list[Session]:
        """Those that nobody has seen end. One whose file cannot be read is about everything, and of nobody."""
        return list(_sessions(self._run, instead=_unreadable))

    def ended(self) -> list[Session]:
        """Those of before, oldest first."""
        return sorted(_sessions(self._kept / "ended"), key=lambda one: one.begun_at)

    def end(self, session: Session) -> None:
        """Whoever comes first; the credential is flagged before the session leaves the list.

        Raises SessionNotKeptError.
        """
        if session.cut:
            self._flag(session)
        _write(self._kept / "ended" / f"{session.id}.json", _table(session))
        try:
            (self._run / f"{session.id}.json").unlink(missing_ok=True)
        except OSError as cause:
            raise SessionNotKeptError(f"the session cannot be taken off the list ({cause.strerror})") from cause

    def is_running(self, id: str) -> bool:
        """Whether nobody has ended it yet."""
        return (self._run / f"{id}.json").exists()

    def to_rotate(self) -> Mapping[str, Mapping[str, Any]]:
        """By credential: since when, of which session and epoch."""
        found: dict[str, Mapping[str, Any]] = {}
        for path in sorted((self._kept / "rotate").glob("*.json")):
            try:
                found[path.stem] = json.loads(path.read_bytes())
            except (OSError, ValueError):  # it is flagged, whatever the file says
                found[path.stem] = {}
        return found

    def rotated(self, credential: str) -> bool:
        """Take the flag away. Returns whether there was one. Raises SessionNotKeptError."""
        try:
            self._flag_path(credential).unlink()
        except FileNotFoundError:
            return False
        except OSError as cause:
            raise SessionNotKeptError(f"the flag cannot be taken away ({cause.strerror})") from cause
        return True

    def _flag(self, session: Session) -> None:
        since = time_text(session.ended_at or session.begun_at)
        table = {"since": since, "session": session.id, "who": session.who, "epoch": session.epoch}
        _write(self._flag_path(session.credential), table)

    def _flag_path(self, credential: str) -> Path:
        return self._kept / "rotate" / f"{credential}.json"


def cut(session: Session, epoch: int, why: str, now: datetime, proc: Path = PROC) -> Session:
    """Kill all of it at once, without asking: what a supplier has open is closed before everything else (SW-09)."""
    left = kill_all(session, proc)
    return replace(session, ended_at=now, cut=True, epoch=epoch, why=why, left=tuple(left))


def kill_all(session: Session, proc: Path = PROC) -> list[int]:
    """SIGKILL to every process of the session, until there is none. Returns those that we may not end."""
    for _ in range(ROUNDS):
        members = processes_of(session, proc)
        refused = [pid for pid in members if not _kill(pid)]
        if set(refused) == set(members):
            return refused
    return processes_of(session, proc)


def processes_of(session: Session, proc: Path = PROC) -> list[int]:
    """The processes of a session that live now, zombies left out."""
    table = {one.pid: one for one in processes(proc) if one.lives}
    mark = f"{MARK}={session.id}".encode()
    # The mark stands in the watcher's children only; whoever asks is never a member.
    members = {pid for pid in table if pid != os.getpid() and mark in read(proc / str(pid) / "environ").split(b"\0")}
    leader = session.leader
    if leader is not None and leader.boot == boot_id(proc):
        first = table.get(leader.pid)
        if first is not None and first.started == leader.started:
            members.add(leader.pid)
            members |= {pid for pid, one in table.items() if one.session == leader.pid}
    table.pop(os.getpid(), None)  # nor do its children belong to it through us
    return sorted(descendants(members, table))


def leader_of(pid: int, proc: Path = PROC) -> Leader | None:
    """The process of this number as it is now; None if it is gone."""
    found = process(pid, proc)
    return Leader(pid, found.started, boot_id(proc)) if found is not None and found.lives else None


def lives(leader: Leader | None, proc: Path = PROC) -> bool:
    """Whether it is still the same process."""
    return leader is not None and leader_of(leader.pid, proc) == leader


def _kill(pid: int) -> bool:
    """Whether it is gone or will be."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _table(session: Session) -> dict[str, Any]:
    table = asdict(session)
    table |= {"scope": str(session.scope), "begun_at": time_text(session.begun_at)}
    return table | {"ended_at": time_text(session.ended_at) if session.ended_at else None}


def _sessions(folder: Path, instead: Callable[[Path], Session | None] = lambda _: None) -> Iterator[Session]:
    """instead: of a file that cannot be read."""
    for path in sorted(folder.glob("*.json")):
        try:
            found: Session | None = _session(json.loads(path.read_bytes()))
        except FileNotFoundError:
            continue  # it has ended meanwhile
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MalformedError):
            found = instead(path)
        if found is not None:
            yield found


def _unreadable(path: Path) -> Session | None:
    """What is known of it: its id, which its processes have as their mark. So any closing of maintenance cuts it."""
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None
    if not path.stem.isalnum():
        return None
    return Session(path.stem, UNREADABLE, UNREADABLE, Scope(direction=Direction.MAINTENANCE.value), (), written)


def _session(table: Mapping[str, Any]) -> Session:
    parts = str(table["scope"]).split("/")
    scope = Scope(*(NONE if one == "-" else one for one in parts))
    found = {**table, "scope": scope, "begun_at": parse_time(table["begun_at"])}
    found |= {"ended_at": table["ended_at"] and parse_time(table["ended_at"])}
    found |= {name: table[name] and Leader(**table[name]) for name in ("leader", "watcher")}
    return Session(**{**found, "command": tuple(table["command"]), "left": tuple(table["left"])})


def _write(path: Path, table: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o770, parents=True, exist_ok=True)
        write_whole(OsDisk(), path, json.dumps(table, indent=1).encode())
    except OSError as cause:
        raise SessionNotKeptError(f"the session cannot be recorded ({cause.strerror})") from cause
