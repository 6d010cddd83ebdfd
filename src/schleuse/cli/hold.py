"""`schleuse hold check`: nothing lost, nothing twice, at any moment (HD-21)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import german
from schleuse.config import default_home, read_config
from schleuse.holding.reconcile import Reconciliation
from schleuse.holding.states import State
from schleuse.processes.conservation import check_conservation

app = App(name="hold", help="What is held, and that nothing is missing.")

DOES_NOT_HOLD = 70
_SHOWN = (
    State.HELD,
    State.RELEASING,
    State.DELIVERED,
    State.CONFIRMED,
    State.DUPLICATE_LINKED,
    State.QUARANTINED,
    State.RETURNED,
    State.WITHDRAWN,
)


@app.command
def check(
    *,
    home: Annotated[
        Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")
    ] = None,
    json_output: Annotated[bool, Parameter(name="--json", help="One JSON object")] = False,
) -> None:
    """Compare what was accepted with what became of it, from sources that do not know each other.

    Runs beside the working platform. Exit code 0: it holds; 70: it does not, and the findings say where.
    """
    result = check_conservation(read_config(home or default_home()))
    if json_output:
        print(json.dumps(_as_json(result)))
    else:
        _print(result)
    if not result.holds:
        sys.exit(DOES_NOT_HOLD)


def _as_json(result: Reconciliation) -> dict[str, object]:
    return {
        "holds": result.holds,
        "accepted": result.accepted,
        "accounted": result.accounted,
        "unrouted": result.unrouted,
        "accounts": {one.name: {state.value: n for state, n in one.states.items()} for one in result.accounts},
        "findings": list(result.findings),
        "remarks": list(result.remarks),
    }


def _print(result: Reconciliation) -> None:
    de = german()
    console = Console()
    used = [state for state in _SHOWN if result.total(state)]
    table = Table("Postfach" if de else "mailbox", box=None, pad_edge=False)
    for state in used:
        table.add_column(state.value, justify="right")
    table.add_column("Summe" if de else "total", justify="right")
    for account in result.accounts:
        table.add_row(account.name, *(str(account.states.get(state, 0) or "·") for state in used), str(account.total))
    console.print(table)
    console.print(
        f"angenommen {result.accepted} = verbucht {result.accounted}"
        if de and result.accepted == result.accounted
        else f"angenommen {result.accepted} ≠ verbucht {result.accounted}"
        if de
        else f"accepted {result.accepted}, accounted for {result.accounted}"
    )
    for line in result.remarks:
        console.print(f"[yellow]•[/] {line}")
    for line in result.findings:
        console.print(f"[red]✗[/] {line}")
    if result.holds:
        console.print(
            "[green]✓[/] nichts verloren, nichts doppelt" if de else "[green]✓[/] nothing lost, nothing twice"
        )
