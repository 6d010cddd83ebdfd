"""`schleuse maintenance`: suppliers work inside a session, which a closing cuts before all else (SW-09, T-26)."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schleuse.cli.switch_view import printable
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.journal.entry import Kind, Result
from schleuse.processes.maintenance import run_session, session_book, sweep
from schleuse.processes.switch_orders import tell
from schleuse.processes.trail import PLATFORM
from schleuse.scopes import ANY, BadScopeError, Direction, Scope, parse_scopes
from schleuse.shutdown.maintenance import BadSessionError, Session, lives, processes_of
from schleuse.switch.documents import time_text

app = App(name="maintenance", help="Sessions of suppliers, and the credentials that they leave to be rotated.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a line")]


@app.command
def run(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    who: Annotated[str, Parameter(help="Who works")],
    credential: Annotated[str, Parameter(help="Id of the credential, as the supplier's list has it")],
    scope: Annotated[str, Parameter(help="SERVICE[/INSURER] that is worked on; * is everything")] = ANY,
    home: Home = None,
) -> None:
    """Run a command as a supplier's session: `maintenance run --who NAME --credential ID -- CMD…`.

    Exit code: the command's; 77 if the session was cut, or may not begin.
    """
    if not command:
        raise BadSessionError("name the command after --, such as -- bash")
    config = read_config(home or default_home())
    sys.exit(run_session(config, who, credential, _scope(scope), command))


def _scope(text: str) -> Scope:
    if text == ANY:
        return Scope(direction=Direction.MAINTENANCE.value)
    found = parse_scopes(text)
    if len(found) != 1:
        raise BadScopeError(f"{text!r} names a group; name one service")
    [one] = found
    return Scope(one.service, one.tenant, Direction.MAINTENANCE.value) if one.direction == ANY else one


@app.command(name="list")
def list_sessions(*, ended: bool = False, home: Home = None, json_output: AsJson = False) -> None:
    """Show sessions that run, those whose watcher died among them, and credentials that must be rotated.

    Parameters
    ----------
    ended
        Also those that are over.
    """
    config = read_config(home or default_home())
    sweep(config)
    book = session_book(config)
    found = [*(book.ended() if ended else ()), *book.running()]
    flagged = book.to_rotate()
    if json_output:
        for one in found:
            print(json.dumps(_json(one)))
        for name, facts in flagged.items():
            print(json.dumps({"rotate": name, **facts}))
        return
    _print(found)
    for name, facts in flagged.items():
        de = f"{name}: zu wechseln, war bei der Abschaltung in Gebrauch (Sitzung {facts.get('session', '?')})"
        en = f"{name}: to be rotated, was in use at the closing (session {facts.get('session', '?')})"
        print(de if german() else en)


@app.command
def rotated(credential: str, *, home: Home = None) -> None:
    """Note that a credential was rotated; sessions may use its successor of the same id again."""
    config: Config = read_config(home or default_home())
    if not session_book(config).rotated(credential):
        raise BadSessionError(f"the credential {credential!r} waits for no rotation; `maintenance list` shows which do")
    detail = {"act": "maintenance.rotated", "credential": credential, "user": getpass.getuser()}
    tell(config, [PLATFORM], Kind.ADMINISTRATION, Result.GRANTED, "", detail)


def _state(one: Session) -> str:
    if one.ended_at is not None:
        words = ("abgebrochen", "cut") if one.cut else ("beendet", "ended")
        return words[0 if german() else 1] + (f" ({len(one.left)} !)" if one.left else "")
    if lives(one.watcher):
        return "läuft" if german() else "runs"
    return "läuft, ohne Wächter" if german() else "runs, without watcher"


def _print(found: list[Session]) -> None:
    de = german()
    table = Table(box=None, pad_edge=False)
    for name in (("Sitzung", "session"), ("seit (UTC)", "since (UTC)"), ("Stand", "state"), ("Zugang", "credential")):
        table.add_column(name[0 if de else 1], no_wrap=True)
    for name in (("wer", "who"), ("Bereich", "scope"), ("Befehl", "command")):
        table.add_column(name[0 if de else 1])
    for one in found:
        command = Text(printable(" ".join(one.command))[:40])
        since = f"{one.begun_at:%m-%d %H:%M:%S}"
        table.add_row(one.id, since, _state(one), one.credential, one.who, str(one.scope), command)
    Console().print(table if found else ("keine Sitzung" if de else "no session"))


def _json(one: Session) -> dict[str, object]:
    return {
        "id": one.id,
        "who": one.who,
        "credential": one.credential,
        "scope": str(one.scope),
        "command": list(one.command),
        "begun_at": time_text(one.begun_at),
        "ended_at": time_text(one.ended_at) if one.ended_at else None,
        "cut": one.cut,
        "epoch": one.epoch,
        "why": one.why,
        "left": list(one.left),
        "watched": lives(one.watcher),
        "processes": [] if one.ended_at else processes_of(one),
        "listed_at": time_text(utc_now()),
    }
