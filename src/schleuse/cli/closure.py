"""`schleuse closure`: what is ordered closed, what of it is proven, what a person said stays open (SW-07, SW-17)."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schleuse.cli.drill import AsJson, Home
from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import ConflictError
from schleuse.processes.control_offline import Offline, offline
from schleuse.processes.operators import key_of, rights_of
from schleuse.scopes import parse_scopes
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.exceptions import (
    Exemption,
    SignedExemption,
    exempt,
    exemptions,
    keep_exemption,
    sign_exemption,
)
from schleuse.shutdown.proofs import Claim
from schleuse.switch.documents import Role, time_text

app = App(name="closure", help="What is closed, and the proof of it.")

#: Exit code while something is commanded and not proven.
UNPROVEN = 75


class NoSuchExceptionError(ConflictError):
    """There is no exception of this id; `closure exceptions` shows all."""

    code = "cli.no-such-exception"


@app.command(name="list")
def list_closures(*, home: Home = None, json_output: AsJson = False) -> None:
    """Show each scope that is ordered closed with its proof. Exit code 75: something is commanded and not proven."""
    config = read_config(home or default_home())
    with offline(config) as tools:
        found = _claims(tools)
    _print(config, found, json_output)


@app.command
def prove(*, home: Home = None, json_output: AsJson = False) -> None:
    """Make one attempt to prove what is not proven yet; with `control` dead this is how proofs are made (T-04)."""
    config = read_config(home or default_home())
    with offline(config) as tools:
        made = asyncio.run(tools.closings.prove())
        if made:
            proven = sum(one.verdict is Verdict.PROVEN for one in made)
            tools.tell({"act": "switch.proof", "checks": len(made), "proven_checks": proven}, True)
        found = _claims(tools)
    _print(config, found, json_output)


@app.command(name="exception")
def add_exception(
    scope: str,
    *,
    why: str,
    measure: str,
    operator: Operator,
    operator_key: KeyFile = None,
    days: float = 1,
    home: Home = None,
) -> None:
    """Say and sign that a scope stays open though it was ordered closed.

    Parameters
    ----------
    why
        Why it is not closed.
    measure
        What is done instead.
    days
        When it must be looked at again; after that it is an alarm.
    """
    config = read_config(home or default_home())
    now = utc_now()
    made = Exemption(
        f"{now:%Y%m%d}-{secrets.token_hex(3)}",
        parse_scopes(scope)[0],
        why,
        measure,
        operator,
        now + timedelta(days=days),
        now,
    )
    _keep(config, made, operator, operator_key)
    print(made.id)


@app.command(name="end-exception")
def end_exception(id: str, *, operator: Operator, operator_key: KeyFile = None, home: Home = None) -> None:
    """Sign that an exception holds no longer."""
    config = read_config(home or default_home())
    known, _ = exemptions(config.switch_folder / "exceptions", rights_of(config))
    found = next((one.exemption for one in known if one.exemption.id == id), None)
    if found is None:
        raise NoSuchExceptionError(f"no exception {id!r}; `closure exceptions` shows all")
    _keep(config, replace(found, ended=True), operator, operator_key)


@app.command(name="exceptions")
def list_exceptions(*, home: Home = None, json_output: AsJson = False) -> None:
    """Show what stays open though it was ordered closed, who answers for it, and until when."""
    config = read_config(home or default_home())
    known, bad = exemptions(config.switch_folder / "exceptions", rights_of(config))
    for one in known:
        print(json.dumps(_exemption(one)) if json_output else _line(one))
    for name in bad:
        print(f"schleuse: {name} is no valid exception and exempts nothing", file=sys.stderr)


def _claims(tools: Offline) -> list[Claim]:
    return tools.closings.claims(utc_now())


def _print(config: Config, found: list[Claim], json_output: bool) -> None:
    known, _ = exemptions(config.switch_folder / "exceptions", rights_of(config))
    if json_output:
        for one in found:
            print(json.dumps(_claim(one, known)))
    elif found:
        Console().print(_as_table(found, known))
    if any(one.verdict is not Verdict.PROVEN and exempt(one.need.scope, known) is None for one in found):
        sys.exit(UNPROVEN)


def _as_table(found: list[Claim], known: list[SignedExemption]) -> Table:
    de = german()
    table = Table(
        "Bereich" if de else "scope", "Stand" if de else "state", "Epoche" if de else "epoch",
        "Beweis" if de else "proof", "Alter" if de else "age", "Ausnahme" if de else "exception",
        box=None, pad_edge=False,
    )  # fmt: skip
    for one in found:
        exemption = exempt(one.need.scope, known)
        age = "–" if one.age is None else f"{one.age.total_seconds():.0f} s"
        table.add_row(
            escape(one.need.text),
            one.need.state.value,
            str(one.need.epoch),
            one.text,
            age,
            exemption.exemption.id if exemption else "",
        )
    return table


def _claim(one: Claim, known: list[SignedExemption]) -> dict[str, object]:
    exemption = exempt(one.need.scope, known)
    return {
        "scope": one.need.text,
        "state": one.need.state.value,
        "epoch": one.need.epoch,
        "command": one.need.command,
        "verdict": one.verdict.value,
        "text": one.text,
        "age_seconds": None if one.age is None else round(one.age.total_seconds(), 3),
        "proven_at": None if one.proven_at is None else time_text(one.proven_at),
        "exception": exemption.exemption.id if exemption else None,
    }


def _keep(config: Config, exemption: Exemption, operator: str, key_file: Path | None) -> None:
    """Signed in whichever role of the operator may close."""
    key = key_of(config, operator, key_file)
    roles = next((one.roles for one in config.operators if one.name == operator), ())
    role = next((one for one in (Role.SWITCH_OFFICER, Role.LEAD, Role.ANALYST) if one.value in roles), Role.ANALYST)
    folder = config.switch_folder / "exceptions"
    with offline(config) as tools:
        keep_exemption(folder, sign_exemption(exemption, operator, role, key), rights_of(config))
        tools.tell(
            {
                "act": "switch.exception",
                "id": exemption.id,
                "scope": str(exemption.scope),
                "ended": int(exemption.ended),
                "signed_by": operator,
            },
            True,
        )


def _exemption(one: SignedExemption) -> dict[str, object]:
    return {
        "id": one.exemption.id,
        "scope": str(one.exemption.scope),
        "why": one.exemption.why,
        "measure": one.exemption.measure,
        "owner": one.exemption.owner,
        "review_at": time_text(one.exemption.review_at),
        "ended": one.exemption.ended,
        "overdue": one.overdue(utc_now()),
        "signed_by": one.operator,
    }


def _line(one: SignedExemption) -> str:
    de = german()
    state = ("beendet" if de else "ended") if one.exemption.ended else ""
    if one.overdue(utc_now()):
        state = "PRÜFUNG FÄLLIG" if de else "REVIEW DUE"
    made = one.exemption
    return f"{made.id}  {made.scope}  {made.owner}  {time_text(made.review_at)}  {state}  {made.why} / {made.measure}"
