"""`schleuse hold check`: nothing lost, nothing twice, at any moment (HD-21)."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import ConflictError, RefusedError
from schleuse.holding.reconcile import Reconciliation
from schleuse.holding.states import State
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.kim.store import Waiting, open_leases
from schleuse.kim.store.suspicions import is_suspected
from schleuse.processes.conservation import check_conservation
from schleuse.processes.trail import OUTSIDE, PLATFORM, Act, open_trail

app = App(name="hold", help="What is held, and that nothing is missing.")
app.command("schleuse.cli.hold_release:app", name="release")
app.command("schleuse.cli.hold_reconcile:reconcile", name="reconcile")
app.command("schleuse.cli.hold_suspect:app", name="suspect")
app.command("schleuse.cli.hold_receipt:receipt", name="receipt")
app.command("schleuse.cli.hold_receipt:statement", name="statement")
app.command("schleuse.cli.hold_deferred:deferred", name="deferred")
app.command("schleuse.cli.hold_capacity:capacity", name="capacity")

DOES_NOT_HOLD = 70


class NotQuarantinedError(ConflictError):
    """Only quarantined deliveries can be given back; the number is another one's."""

    code = "cli.not-quarantined"


class SuspectedError(RefusedError):
    """Suspected mail goes back by an order of two persons, never by one (HD-47)."""

    code = "cli.suspected"


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


Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", help="One JSON object a line")]


@app.command(name="list")
def list_held(
    *,
    state: Annotated[list[Literal["QUARANTINED", "HELD", "RELEASING"]] | None, Parameter(negative=())] = None,
    limit: int = 100,
    home: Home = None,
    json_output: AsJson = False,
) -> None:
    """Show deliveries that wait for people or for a worker, oldest first.

    Parameters
    ----------
    state
        May be repeated [default: QUARANTINED].
    """
    config = read_config(home or default_home())
    with open_leases(config.kim_database, config.kim.spool, timedelta(days=config.kim.retention_days)) as leases:
        found = leases.waiting([State(one) for one in state or ["QUARANTINED"]], limit)
    if json_output:
        for one in found:
            print(json.dumps({**asdict(one), "accepted_at": one.accepted_at.isoformat()}))
        return
    de = german()
    table = Table(
        "Nr.", "Stand" if de else "state", "Grund" if de else "reason", "angenommen" if de else "accepted",
        "Postfach" if de else "mailbox", box=None, pad_edge=False,
    )  # fmt: skip
    for one in found:
        accepted = one.accepted_at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(str(one.id), one.state.value, one.reason or "", accepted, one.account)
    Console().print(table if found else ("nichts" if de else "nothing"))


@app.command
def reconsider(
    *ids: int,
    yes: Annotated[bool, Parameter(help="Do it; without, only the plan is shown", negative=())] = False,
    home: Home = None,
) -> None:
    """Give quarantined deliveries back to the workers, which decide anew (QUARANTINED -> HELD).

    Parameters
    ----------
    ids
        Numbers of `hold list`.
    """
    config = read_config(home or default_home())
    with open_leases(config.kim_database, config.kim.spool, timedelta(days=config.kim.retention_days)) as leases:
        known = {one.id: one for one in leases.waiting([State.QUARANTINED], 1_000_000)}
        unknown = [id for id in ids if id not in known]
        if unknown:
            raise NotQuarantinedError(f"not quarantined: {', '.join(map(str, unknown))}; `hold list` shows what is")
        suspected = [id for id in ids if is_suspected(known[id].reason)]
        if suspected:
            raise SuspectedError(
                f"suspected: {', '.join(map(str, suspected))}; two persons give it back: `hold suspect order`"
            )
        for id in ids:
            print(f"{id}  {known[id].reason or ''}  QUARANTINED -> HELD")
        if yes:
            _tell(config, [known[id] for id in ids])
            print(leases.reconsider(list(ids), utc_now()))
        else:
            print("--yes führt es aus" if german() else "--yes does it")


def _tell(config: Config, given_back: Sequence[Waiting]) -> None:
    """One entry in the log of each insurer concerned, recorded before it is done."""
    insurers = {insurer.address.lower(): insurer.ik for insurer in config.insurers}
    by_tenant: dict[str, list[Json]] = {}
    for one in given_back:
        by_tenant.setdefault(insurers.get(one.account, PLATFORM), []).append(one.id)
    trail = open_trail(config, OUTSIDE, JournalClient(config.journal_socket))
    for tenant, ids in by_tenant.items():
        detail: dict[str, Json] = {"act": "reconsider", "deliveries": ids, "user": getpass.getuser()}
        trail.tell(Act(tenant, Kind.ADMINISTRATION, Result.GRANTED, Purpose.CLEARING, detail=detail, count=len(ids)))


@app.command
def check(
    *,
    home: Home = None,
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
