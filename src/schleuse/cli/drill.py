"""`schleuse drill`: rehearse a closing for real, measured, with the way back signed before (SW-15, T-22)."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.numbers import number
from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.switch_view import print_missing
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.processes.control_drills import Freshness, drill_book, tell_result, windows_of
from schleuse.processes.control_offline import offline
from schleuse.processes.operators import key_of
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.shutdown.drill import BadDrillError, DrillPlan, DrillResult, Outcome, check_plan, meet, plan_drill
from schleuse.shutdown.drill_book import DrillBook
from schleuse.shutdown.drill_run import run_drill
from schleuse.switch.documents import Role, SignedCommand, sign
from schleuse.switch.standing import Standing

app = App(name="drill", help="Closings that are rehearsed for real.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="For machines")]
Yes = Annotated[bool, Parameter(name="--yes", negative=(), help="Do it; without, only the plan is shown")]

#: Exit code of a drill that failed: the switch is not usable.
NOT_USABLE = 70


@app.command
def plan(
    scopes: str,
    *,
    operator: Operator,
    operator_key: KeyFile = None,
    state: Literal["HOLD", "DEFER", "CLOSED"] = "HOLD",
    days: int = 31,
    home: Home = None,
) -> None:
    """Sign the closing of a drill and, as switch officer, its opening; a releaser signs with `drill sign`.

    Parameters
    ----------
    scopes
        SERVICE[/INSURER[/DIRECTION]], as `switch hold` takes them.
    state
        How far the drill closes.
    days
        For how long the signatures are good.
    """
    config = read_config(home or default_home())
    key = key_of(config, operator, operator_key)
    id = f"{utc_now():%Y%m%d}-{secrets.token_hex(3)}"
    wanted = parse_scopes(scopes)
    with offline(config) as tools:
        windows = windows_of(tools.closings, config.control.drill_window)(wanted)
        if not meet(windows):
            raise BadDrillError(f"the windows {', '.join(windows)} never meet; plan a drill for each, by its scope")
        found = set(tools.closings.standings(wanted).values())
    # All alike, or nothing could give back where each stands; `run` looks again.
    before = min(found, key=lambda at: at.state.openness, default=Standing())
    closing, opening = plan_drill(id, wanted, ScopeState(state), operator, utc_now(), timedelta(days=days), before)
    made = DrillPlan(
        SignedCommand(closing, (sign(closing, operator, Role.SWITCH_OFFICER, key),)),
        SignedCommand(opening, (sign(opening, operator, Role.SWITCH_OFFICER, key),)),
    )
    drill_book(config.switch_folder).write_plan(made)
    print(id)


@app.command(name="sign")
def sign_plan(
    id: str, *, operator: Operator, operator_key: KeyFile = None, yes: Yes = False, home: Home = None
) -> None:
    """Sign the opening of a drill as releaser: another person than the one who planned it (SW-01)."""
    config = read_config(home or default_home())
    book = drill_book(config.switch_folder)
    opening = book.read_plan(id).opening.command
    _show(book.read_plan(id))
    if not yes:
        print("--yes unterschreibt" if german() else "--yes signs it")
        return
    key = key_of(config, operator, operator_key)
    signature = sign(opening, operator, Role.RELEASER, key)
    before = book.read_plan(id)
    signed = replace(before.opening, signatures=(*before.opening.signatures, signature))
    with offline(config) as tools:
        check_plan(replace(before, opening=signed), tools.desk.rights, utc_now())
    book.add_signature(id, signature)


@app.command(name="run")
def run_plan(id: str, *, yes: Yes = False, home: Home = None, json_output: AsJson = False) -> None:
    """Close, prove, measure and open again, now. `control` does the same by itself in `control.drill_window`.

    Exit code 0: passed; 70: the switch is not usable, or something stayed closed.
    """
    config = read_config(home or default_home())
    made = drill_book(config.switch_folder).read_plan(id)
    if not yes:
        _show(made)
        print("--yes führt es aus" if german() else "--yes does it")
        return
    with offline(config) as tools:
        result = asyncio.run(run_drill(made, tools.desk))
        tell_result(result, tools.tell)
    _print([result], json_output)
    if result.outcome is not Outcome.PASSED:
        sys.exit(NOT_USABLE)


@app.command(name="list")
def list_drills(*, home: Home = None, json_output: AsJson = False) -> None:
    """Show drills with what they measured, those that wait, and scopes whose last real switch is too long ago."""
    config = read_config(home or default_home())
    book = drill_book(config.switch_folder)
    with offline(config) as tools:
        stale = Freshness(tools.closings, config.control.drill_days).stale(utc_now())
    waiting = [id for id in book.ids() if book.result(id) is None]
    _print(book.results(), json_output)
    if json_output:
        print(json.dumps({"waiting": waiting, "stale": stale}))
        return
    _print_rest(book, waiting, stale, config.control.drill_days)


def _print(results: Sequence[DrillResult], json_output: bool) -> None:
    if json_output:
        for one in results:
            print(json.dumps(_table(one)))
        return
    de = german()
    table = Table(
        "Übung" if de else "drill", "Bereich" if de else "scope", "Ergebnis" if de else "outcome",
        "gehalten nach" if de else "held after", "bewiesen nach" if de else "proven after",
        "Grund" if de else "why", box=None, pad_edge=False,
    )  # fmt: skip
    for one in results:
        table.add_row(
            one.id, ", ".join(one.scopes), one.outcome.value, _seconds(one.to_hold), _seconds(one.to_proof), one.why
        )
    if results:
        Console().print(table)


def _print_rest(book: DrillBook, waiting: Sequence[str], stale: Sequence[str], days: int) -> None:
    de = german()
    for id in waiting:
        opening = book.read_plan(id).opening
        signers = ", ".join(one.operator for one in opening.signatures)
        until = opening.command.expires_at
        print(f"{id}  {'wartet' if de else 'waits'}  {signers}  {until:%Y-%m-%d}")
    print_missing(stale, days)


def _show(made: DrillPlan) -> None:
    closing, opening = made.closing, made.opening
    before = opening.command.state
    for scope in closing.command.scopes:
        print(f"{scope}  {before} -> {closing.command.state} -> {before}")
    signed = ", ".join(f"{one.operator} ({one.role})" for one in (*closing.signatures, *opening.signatures))
    print(f"{'unterschrieben' if german() else 'signed'}: {signed}")


def _table(one: DrillResult) -> dict[str, Any]:
    return {
        "id": one.id,
        "scopes": list(one.scopes),
        "outcome": one.outcome.value,
        "epoch": one.epoch,
        "to_hold_seconds": one.to_hold.total_seconds() if one.to_hold is not None else None,
        "to_proof_seconds": one.to_proof.total_seconds() if one.to_proof is not None else None,
        "why": one.why,
    }


def _seconds(value: timedelta | None) -> str:
    return "–" if value is None else f"{number(value.total_seconds(), 2)} s"
