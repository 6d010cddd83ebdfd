"""A supplier's session under the switch: begun if it may, watched, cut with all that it started (SW-09, T-26)."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import structlog

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.errors import Error, UnavailableError
from schleuse.journal.entry import Kind, Result
from schleuse.journal.opening import Json
from schleuse.processes.switch_orders import tell, tenants_of
from schleuse.processes.switching import effect_book, open_switch
from schleuse.scopes import Scope
from schleuse.shutdown.maintenance import (
    MARK,
    CredentialWaitsError,
    MaintenanceClosedError,
    Session,
    SessionBook,
    atoms_of,
    closed_by,
    cut,
    kill_all,
    leader_of,
    processes_of,
)
from schleuse.switch.copy import LocalSwitch, standing_of
from schleuse.switch.effects import SwitchEffect

log = structlog.get_logger()

#: How often a watcher looks at the switch; t_state of § 5.2 is 2 s.
LOOK_SECONDS = 0.05
#: Exit code of a session that was cut; sysexits.h EX_NOPERM.
CUT = 77


class NotToldError(UnavailableError):
    """The journal's trail takes no entry: a session that leaves no trace is not begun."""

    code = "maintenance.not-told"


def session_book(config: Config) -> SessionBook:
    """Sessions of this home."""
    return SessionBook(config.home / "run" / "maintenance", config.switch_folder / "maintenance")


def run_session(config: Config, who: str, credential: str, scope: Scope, command: Sequence[str]) -> int:
    """Run the command as a session. Returns its exit code, or CUT.

    Raises BadSessionError, MaintenanceClosedError, CredentialWaitsError, SessionNotKeptError, NotToldError.
    """
    book = session_book(config)
    session = Session(secrets.token_hex(8), who, credential, scope, tuple(command), utc_now())
    # The copy of all sessions: whoever is cut has forgotten nothing.
    switch = open_switch(config, "maintenance")
    try:
        _may_begin(config, switch, book, session)
    except Error as error:
        _tell(config, session, "maintenance.refused", Result.DENIED, {"code": error.code})
        raise
    if not _tell(config, session, "maintenance.begun", Result.GRANTED, {"command": list(session.command)}):
        raise NotToldError("the journal's trail takes no entry; nothing was started")
    # The file first: a session whose watcher dies between the two is found by its mark.
    session = replace(session, watcher=leader_of(os.getpid()))
    book.write(session)
    try:
        process = subprocess.Popen(command, env={**os.environ, MARK: session.id}, start_new_session=True)
    except OSError as cause:
        book.end(replace(session, ended_at=utc_now(), why=f"not started ({cause.strerror})"))
        raise UnavailableError(f"{command[0]} cannot be started ({cause.strerror})") from cause
    session = replace(session, leader=leader_of(process.pid))
    return _watch(config, switch, book, session, process)


def _may_begin(config: Config, switch: LocalSwitch, book: SessionBook, session: Session) -> None:
    closed = _closed(config, switch, session)
    if closed:
        raise MaintenanceClosedError(f"supplier access is closed: {closed}; two persons open it again")
    flagged = book.to_rotate().get(session.credential)
    if flagged is not None:
        raise CredentialWaitsError(
            f"the credential {session.credential} was in use when session {flagged.get('session', '?')} was cut;"
            " rotate it, then `schleuse maintenance rotated`"
        )


def _closed(config: Config, switch: LocalSwitch, session: Session) -> str:
    atoms = atoms_of(session.scope, [one.ik for one in config.insurers])
    found = closed_by({one: standing_of(switch, one) for one in atoms})
    return "" if found is None else f"{found[0]} is {found[1].state} since epoch {found[1].epoch}"


def _watch(
    config: Config, switch: LocalSwitch, book: SessionBook, session: Session, process: subprocess.Popen[bytes]
) -> int:
    with _signals_end(session):
        book.write(session)  # only now: whoever reads it may tell us to end
        while process.poll() is None:
            why = _closed(config, switch, session)
            if why:
                _cut(config, book, session, switch.epoch, why)
                process.wait()
                return CUT
            if not book.is_running(session.id):  # the closing command was faster
                kill_all(session)
                process.wait()
                return CUT
            time.sleep(LOOK_SECONDS)
    kill_all(session)  # what the session left behind ends with it
    if not book.is_running(session.id):
        return CUT
    ended = replace(session, ended_at=utc_now(), why=f"exit code {process.returncode}")
    book.end(ended)
    _tell(config, ended, "maintenance.ended", Result.GRANTED, {"exit_code": process.returncode})
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _signals_end(session: Session) -> Iterator[None]:
    """A watcher that is told to end ends its session, and hands an interrupt on; the loop then notes it."""

    def end(number: int, frame: object) -> None:
        kill_all(session)

    def interrupt(number: int, frame: object) -> None:
        if session.leader is not None:
            with contextlib.suppress(OSError):
                os.killpg(session.leader.pid, signal.SIGINT)

    wanted = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGINT: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cut_sessions(config: Config) -> list[Session]:
    """Cut every session whose scope is closed, also those whose watcher died. What a closing does first.

    Raises SessionNotKeptError; what could be cut is cut by then.
    """
    book = session_book(config)
    running = book.running()
    if not running:
        return []
    switch = open_switch(config, "maintenance")
    found = [(one, _closed(config, switch, one)) for one in running]
    closed = [(one, why) for one, why in found if why]
    for one, _ in closed:  # all of them before any is written down
        kill_all(one)
    return [_cut(config, book, one, switch.epoch, why) for one, why in closed]


def sweep(config: Config) -> list[Session]:
    """Note the end of sessions that are over and whose watcher died before it could. Raises SessionNotKeptError."""
    book = session_book(config)
    over = [one for one in book.running() if not processes_of(one) and not _watched(one)]
    for one in over:
        book.end(replace(one, ended_at=utc_now(), why="its watcher died, and nothing of it runs"))
        _tell(config, one, "maintenance.ended", Result.FAILED, {})
    return over


def _watched(session: Session) -> bool:
    return session.watcher is not None and leader_of(session.watcher.pid) == session.watcher


def _cut(config: Config, book: SessionBook, session: Session, epoch: int, why: str) -> Session:
    seen_at = utc_now()
    ended = cut(session, epoch, why, utc_now())
    ended = replace(ended, ended_at=utc_now())
    first = book.is_running(session.id)
    book.end(ended)
    effect = SwitchEffect(
        f"maintenance-{session.id}",
        epoch,
        seen_at,
        None if ended.left else ended.ended_at,
        inflight=1,
        cut=1,
        uncertain=tuple(f"process {pid}" for pid in ended.left),
    )
    try:
        effect_book(config).write(effect)
    except OSError as cause:
        log.error("maintenance.effect-not-noted", session=session.id, reason=cause.strerror)
    if first:
        more: dict[str, Json] = {"epoch": epoch, "why": why, "left": list(ended.left), "rotate": session.credential}
        _tell(config, ended, "maintenance.cut", Result.FAILED if ended.left else Result.GRANTED, more)
    return ended


def _tell(config: Config, session: Session, act: str, result: Result, more: dict[str, Json]) -> bool:
    detail: dict[str, Json] = {
        "act": act,
        "session": session.id,
        "credential": session.credential,
        "scope": str(session.scope),
        "user": getpass.getuser(),
        **more,
    }
    return tell(config, tenants_of(config, [session.scope]), Kind.ADMINISTRATION, result, session.who, detail)
